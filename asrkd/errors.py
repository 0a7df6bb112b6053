"""Errors that a user can correct: one clear line on stderr and exit code 2, without a traceback."""

from __future__ import annotations

import errno
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from asrkd.terminal import STDOUT_NAME, drop_stdout, flush_stdout, print_anything

if TYPE_CHECKING:
    from torch import Tensor

EXIT_USER_ERROR = 2
EXIT_PIPE_CLOSED = 141  # what a shell reports of a program that SIGPIPE ended, 128 + 13
DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
# What the system refuses to the process as a whole. An error of one file has the file's name.
_OF_DISKS = (*DISK_FULL_ERRNOS, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE)
SYSTEM_ERRNOS = (*_OF_DISKS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
_NO_TMP_DIR = "No usable temporary directory"  # Python's words, where no folder for them can be written
# Damaged texts have words of megabytes: a message has the beginning of such a word.
_LONG_WORD = re.compile(r"(?<!\S)([^\s/]{40})[^\s/]{60}[^\s/]*(?!\S)")


class InputError(Exception):
    """Bad input. The message names the file or utt_id, what was expected and what was found."""


@contextmanager
def one_line_errors(program: str) -> Iterator[None]:
    """Report an error that a user can correct as one line on stderr, and exit with code 2.

    These are InputError, Ctrl-C, and what the system refuses: a full disk, a path that cannot be read or written, too
    little memory. Any other exception is a bug and keeps its traceback. A reader of stdout that goes away, as `head`
    does, ends the program without a word. Messages and stdout are written whatever their encoding.
    """
    print_anything()
    try:
        yield
        flush_stdout()
    except InputError as error:
        _exit(program, str(error))
    except KeyboardInterrupt:
        _exit(program, "interrupted; what is finished is kept, run the same command again to continue")
    except MemoryError:
        _exit(program, "out of memory; what is finished is kept, run the same command again to continue")
    except OSError as error:
        if error.errno == errno.EPIPE and error.filename == STDOUT_NAME:
            drop_stdout()
            raise SystemExit(EXIT_PIPE_CLOSED) from None
        message = system_error(error)
        if message is None:
            raise
        _exit(program, message)


def system_error(error: OSError) -> str | None:
    """What the system refused, as one line that names the file; None where the error says neither file nor reason."""
    if error.errno in DISK_FULL_ERRNOS:
        return f"disk full: could not write {_name(error) or 'an output'}: {error.strerror}"
    if error.errno == errno.ENOENT and not error.filename and _NO_TMP_DIR in str(error.strerror):
        return f"{error.strerror}: is the disk full?"
    if error.errno is None or error.strerror is None or not (error.filename or error.errno in SYSTEM_ERRNOS):
        return None
    return f"{_name(error)}: {error.strerror}" if error.filename else error.strerror


@contextmanager
def naming(path: object) -> Iterator[None]:
    """Give an OSError of the block, such as a full disk, the name of a file, for the system names none in a write."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def _name(error: OSError) -> str:
    name = error.filename or ""
    return os.fsdecode(name) if isinstance(name, bytes) else str(name)


def require_same_utterances(refs: Iterable[str], hyps: Iterable[str]) -> None:
    """InputError, naming the first utterance that is missing on one side."""
    expected, found = dict.fromkeys(refs), dict.fromkeys(hyps)
    for utt_id in expected:
        if utt_id not in found:
            raise InputError(f"{utt_id}: expected a hypothesis, found none")
    for utt_id in found:
        if utt_id not in expected:
            raise InputError(f"{utt_id}: expected a reference, found none")


def require_finite_scores(utt_id: str, scores: Tensor) -> None:
    """InputError unless an utterance's acoustic scores [T, S] have a frame and are all finite.

    NaN or infinity anywhere makes the sum NaN or infinite. `torch.isfinite` takes thirty times as long (torch 1.13).
    """
    if len(scores) == 0:
        raise InputError(f"{utt_id}: expected acoustic scores of at least one frame, found none")
    if not math.isfinite(float(scores.sum())):
        raise InputError(f"{utt_id}: expected finite acoustic scores, found NaN or infinity")


def name_some(items: Sequence[object], limit: int = 5, separator: str = ", ") -> str:
    """The first few of some items, and how many more there are: "a, b and 3 more"; "a; b; and 3 more".

    Words of more than a hundred characters are shortened, but no paths.
    """
    named = separator.join(_LONG_WORD.sub(r"\1...", str(item)) for item in items[:limit])
    more = len(items) - limit
    return f"{named}{separator.strip(' ,')} and {more} more" if more > 0 else named


def _exit(program: str, message: str) -> None:
    one_line = " ".join(message.split())
    try:
        flush_stdout()
    except OSError:  # Python would try once more at its exit, and print a traceback
        drop_stdout()
    print(f"{program}: error: {one_line}", file=sys.stderr)
    raise SystemExit(EXIT_USER_ERROR)
