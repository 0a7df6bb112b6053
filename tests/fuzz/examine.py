"""Read a damaged file in a process of its own, with little memory and little time, and say what went wrong."""

from __future__ import annotations

import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from asrkd.errors import InputError, system_error

# A reader may take ten times the file, and what it allocates for the first time: libraries, tables, threads.
FILE_FACTOR, SPARE_BYTES = 10, 256 << 20
# Seconds of computing: other work on the machine is no fault. A reader that waits for its children has more of them.
LONGEST_SEC, WAIT_FACTOR = 10.0, 12
# Of a traceback; a message can have the whole file in it. A pipe holds all of this.
LINES, LINE_CHARACTERS = 40, 300
_GOOD, _FAULT = 0, 1


@dataclass(frozen=True)
class Target:
    """A reader, and a valid file or folder for it. One line in `targets.TARGETS` adds a reader."""

    name: str
    write: Callable[[Path], object]
    """Writes the valid files into an empty folder."""
    read: Callable[[Path], object]
    """Reads them. Called in a copy of the folder in which one file is damaged."""
    files: tuple[str, ...] = ()
    """The files that are damaged, as patterns; none: every file."""
    is_ours: bool = True
    """Whether this file is written by asrkd. Users' files have readers of their own tests."""


def fault(read: Callable[[Path], object], folder: Path, num_bytes: int, longest_sec: float = LONGEST_SEC) -> str | None:
    """What is wrong with reading a folder; None where it is read, or refused by an InputError of one line.

    Wrong are any other exception, a crash, more memory than FILE_FACTOR times `num_bytes`, and more time than a few
    seconds.
    """
    torch.set_num_threads(1)  # a fork has no other threads
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        _read_and_exit(read, folder, num_bytes, longest_sec, send)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        message = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGPROF:
            return f"no end after {longest_sec:g} s of computing"
        if number == signal.SIGALRM:
            return f"no end after {WAIT_FACTOR * longest_sec:g} s"
        return f"ended by {signal.Signals(number).name}"
    return message or None if os.WEXITSTATUS(status) == _FAULT else None


def _read_and_exit(read: Callable[[Path], object], folder: Path, num_bytes: int, longest_sec: float, pipe: int) -> None:
    status = _FAULT
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        for timer, number, seconds in (
            (signal.ITIMER_PROF, signal.SIGPROF, longest_sec),
            (signal.ITIMER_REAL, signal.SIGALRM, WAIT_FACTOR * longest_sec),
        ):
            signal.signal(number, signal.SIG_DFL)
            signal.setitimer(timer, seconds)
        limit = _address_space() + SPARE_BYTES + FILE_FACTOR * num_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            read(folder)
            status = _GOOD
        except InputError:  # its line breaks are removed where it is printed
            status = _GOOD
        except OSError as error:
            status = _GOOD if system_error(error) is not None else _FAULT  # a line too: `one_line_errors`
            if status == _FAULT:
                os.write(pipe, repr(error)[:LINE_CHARACTERS].encode(errors="replace"))
        except BaseException:  # noqa: BLE001 - it is what is looked for
            lines = [line[:LINE_CHARACTERS] for line in traceback.format_exc().splitlines()]
            os.write(pipe, "\n".join(lines[-LINES:]).encode(errors="replace"))
    finally:
        sys.stdout = sys.stderr = None  # type: ignore[assignment]
        os._exit(status)


def _address_space() -> int:
    """Bytes of this process's address space."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize()
