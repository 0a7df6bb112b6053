"""The log file of a step, and its warnings on the terminal."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class _LogHandler(logging.FileHandler):
    """A log file that reports in one line that it cannot be written (the disk is full), and stays silent then.

    logging itself prints a traceback for each message, and raises what closing the file raises.
    """

    _failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._failed:
            self._failed = True
            print(f"   warning: {self.baseFilename}: {error.strerror}; the log ends here", file=sys.stderr)

    def close(self) -> None:
        with suppress(OSError):  # what is buffered still is tried once more
            super().close()


@contextmanager
def log_messages(path: Path) -> Iterator[None]:
    """Collect the package's log messages in a file; warnings are shown too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = _LogHandler(path, mode="a", encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    console = logging.StreamHandler()
    console.setFormatter(logging.Formatter("   warning: %(message)s"))
    console.addFilter(lambda record: record.levelno == logging.WARNING)  # the caller prints errors
    logger = logging.getLogger("asrkd")
    level = logger.level
    logger.addHandler(handler)
    logger.addHandler(console)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(console)
        logger.removeHandler(handler)
        handler.close()


@contextmanager
def step_log(path: Path) -> Iterator[None]:
    """`log_messages` of one step, with the error that stops it."""
    with log_messages(path):
        try:
            yield
        except BaseException as error:
            logging.getLogger("asrkd").error("stopped: %s: %s", type(error).__name__, error)
            raise


def current_log_file() -> Path | None:
    """The file of the `log_messages` that this process is in; None outside."""
    files = [one.baseFilename for one in logging.getLogger("asrkd").handlers if isinstance(one, _LogHandler)]
    return Path(files[-1]) if files else None
