"""Errors that a user can correct: one clear line on stderr and exit code 2, without a traceback."""

from __future__ import annotations

import errno
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

EXIT_USER_ERROR = 2
# Errors of a path that a user can correct: missing rights, a file instead of a folder, a name that is too long.
PATH_ERRNOS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)


class InputError(Exception):
    """Bad input. The message names the file or utt_id, what was expected and what was found."""


@contextmanager
def one_line_errors(program: str) -> Iterator[None]:
    """Report an error that a user can correct as one line on stderr, and exit with code 2.

    These are InputError, Ctrl-C, a full disk and paths that cannot be read or written. Any other exception is a bug
    and keeps its traceback.
    """
    try:
        yield
    except InputError as error:
        _exit(program, str(error))
    except KeyboardInterrupt:
        _exit(program, "interrupted; finished stages are kept, run the same command again to continue")
    except OSError as error:
        if error.errno in PATH_ERRNOS and error.filename:
            _exit(program, f"{error.filename}: {error.strerror}")
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _exit(program, f"disk full: could not write {error.filename or 'an output'}")


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
    """The first few of some items, and how many more there are: "a, b and 3 more"; "a; b; and 3 more"."""
    named = separator.join(map(str, items[:limit]))
    more = len(items) - limit
    return f"{named}{separator.strip(' ,')} and {more} more" if more > 0 else named


def _exit(program: str, message: str) -> None:
    one_line = " ".join(message.split())
    print(f"{program}: error: {one_line}", file=sys.stderr)
    raise SystemExit(EXIT_USER_ERROR)
