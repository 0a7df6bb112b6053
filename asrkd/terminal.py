"""The process behind a command line: UTF-8 whatever the locale, streams that print anything, and its end by signals."""

from __future__ import annotations

import codecs
import io
import locale
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

STDOUT_NAME = "standard output"
# Which line of the terminal the bars of a process have, where several processes show theirs.
_BAR_LINE = "ASRKD_BAR_LINE"
EXIT_BY_SIGNAL = 128
"""Plus the number of the signal: what a shell reports of a program that a signal ended."""


def require_utf8_mode() -> None:
    """Start this process again in Python's UTF-8 mode (PEP 540) if its locale has another encoding.

    Libraries write in the locale's encoding: Lhotse its manifests, for one. Processes that are started from here
    inherit the mode. Call it where a command line begins, before the work: nothing before it counts.
    """
    encodings = (locale.getpreferredencoding(False), sys.getfilesystemencoding())
    if all(codecs.lookup(name).name == "utf-8" for name in encodings):
        return
    # Where the mode was asked for and is off, a flag of the interpreter forbids it: asking again would go on for ever.
    if not sys.executable or os.environ.get("PYTHONUTF8") == "1":
        return
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def print_anything() -> None:
    """Have stdout and stderr escape what their encoding does not have, and name the stream that cannot be written.

    What stderr refuses (its disk is full, its reader is gone) is dropped: messages never end the work.
    """
    if sys.stdout is not None:
        sys.stdout = _stream(sys.stdout, sys.__stdout__, STDOUT_NAME)
    if sys.stderr is not None:
        sys.stderr = _stream(sys.stderr, sys.__stderr__, None)


def show_bars_on_line(line: int) -> None:
    """Have `bar_line` return this here and in the processes that this one starts."""
    os.environ[_BAR_LINE] = str(line)


def bar_line() -> int | None:
    """The line of a terminal for a progress bar, counted from where the text ends (tqdm's `position`); None: the next.

    Files have no lines to go back to.
    """
    line = os.environ.get(_BAR_LINE)
    return int(line) if line is not None and sys.stderr is not None and sys.stderr.isatty() else None


def flush_stdout() -> None:
    """Write what is still buffered. OSError, with the stream's name, if it is refused."""
    if sys.stdout is not None:
        sys.stdout.flush()


def drop_stdout() -> None:
    """Forget what stdout refused, so that Python does not try again at its exit."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def tidy_end() -> Iterator[None]:
    """End on SIGTERM, and when the terminal is closed, as an exception does: temporary files are removed.

    Forked processes do the same. A signal that is ignored, as by nohup, stays so.
    """
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    chosen = [number for number in numbers if before[number] == signal.SIG_DFL]
    for number in chosen:
        signal.signal(number, _exit_by_signal)
    try:
        yield
    finally:
        for number in chosen:
            signal.signal(number, signal.SIG_DFL)


def _exit_by_signal(number: int, _: object) -> None:
    raise SystemExit(EXIT_BY_SIGNAL + number)


class _Output(io.FileIO):
    """A standard stream. Its errors have its name; without a name there are none."""

    def __init__(self, descriptor: int, label: str | None) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.label = label

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if self.label is None:
                return memoryview(data).nbytes
            error.filename = self.label
            raise


def _stream(stream: TextIO, original: TextIO | None, label: str | None) -> TextIO:
    """A stream of the system with these properties. One that a caller has put in its place only learns to escape."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.reconfigure(errors="backslashreplace")
    if stream is not original:
        return stream
    descriptor = stream.fileno()
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(descriptor, label)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
