"""Errors that a user can mend: one clear line and exit code 2, never a traceback."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

EXIT_USER_ERROR = 2
# What a user can mend about a path: rights, a file where a folder should be, a name that is too long.
OF_A_PATH = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)


class InputError(Exception):
    """Bad input: the message names the file or utt_id, what was expected and what was found."""


@contextmanager
def one_line_errors(program: str) -> Iterator[None]:
    """Turn what a user can mend into one line on stderr and exit code 2.

    Covers InputError, Ctrl-C, a full disk and paths that cannot be read or written. Anything else is a defect of ours
    and keeps its traceback.
    """
    try:
        yield
    except InputError as error:
        _leave(program, str(error))
    except KeyboardInterrupt:
        _leave(program, "interrupted; finished stages are kept, run the same command again to go on")
    except OSError as error:
        if error.errno in OF_A_PATH and error.filename:
            _leave(program, f"{error.filename}: {error.strerror}")
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _leave(program, f"disk full: could not write {error.filename or 'an output'}")


def require_same_utterances(refs: Iterable[str], hyps: Iterable[str]) -> None:
    """InputError, naming the first utterance, where one side lacks what the other has."""
    expected, found = dict.fromkeys(refs), dict.fromkeys(hyps)
    for utt_id in expected:
        if utt_id not in found:
            raise InputError(f"{utt_id}: expected a hypothesis, found none")
    for utt_id in found:
        if utt_id not in expected:
            raise InputError(f"{utt_id}: expected a reference, found none")


def name_some(items: Sequence[object], limit: int = 5, separator: str = ", ") -> str:
    """The first few of some items, and how many more there are: "a, b and 3 more"; "a; b; and 3 more"."""
    named = separator.join(map(str, items[:limit]))
    more = len(items) - limit
    return f"{named}{separator.strip(' ,')} and {more} more" if more > 0 else named


def _leave(program: str, message: str) -> None:
    one_line = " ".join(message.split())
    print(f"{program}: error: {one_line}", file=sys.stderr)
    raise SystemExit(EXIT_USER_ERROR)
