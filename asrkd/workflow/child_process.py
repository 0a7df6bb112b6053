"""Call a function in a forked process of its own.

Thread pools do not survive a fork: after OpenMP or k2 has computed in a process, its forked workers can wait for ever
for threads that they do not have. So workers are forked from a process that has not computed yet.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from asrkd.errors import InputError

Result = TypeVar("Result")
Outcome = tuple[str, Any]
"""A kind and a value: what a function returned, or what it raised."""

_PR_SET_PDEATHSIG = 1  # Linux, prctl(2): the signal that a process gets when its parent ends
_DONE, _BAD_INPUT, _OS_ERROR, _INTERRUPTED, _DEFECT = "done", "bad input", "os error", "interrupted", "defect"


def run_in_subprocess(function: Callable[[], object]) -> None:
    """Run `function()` in a forked process and wait for it. The process ends when this one ends, in whatever way.

    Raises:
        InputError, OSError, KeyboardInterrupt: the function raised it.
        InputError: the process was killed; the message names the signal.
        RuntimeError: the function raised another exception; the message has its traceback.
    """

    def run() -> None:
        function()

    call_in_subprocess(run)


def call_in_subprocess(function: Callable[[], Result]) -> Result:
    """What `function()` returns in a forked process, as `run_in_subprocess`. The value is pickled."""
    value: Result = value_of(outcome_in_subprocess(function))
    return value


class ForkedCall:
    """`function()` in a forked process, which ends when this one ends, in whatever way."""

    def __init__(self, function: Callable[[], Any]) -> None:
        context = multiprocessing.get_context("fork")
        self.answer, send = context.Pipe(duplex=False)
        """Is ready, for `multiprocessing.connection.wait`, when the process has ended."""
        self._process = context.Process(target=_work, args=(function, send, os.getpid()))
        self._process.start()
        send.close()

    def outcome(self) -> Outcome:
        """Wait for what becomes of the function, for `value_of` in this process or another one."""
        try:
            outcome: Outcome = self.answer.recv()
        except EOFError:
            self._process.join()
            outcome = (_BAD_INPUT, how_it_ended("a step's process", self._process.exitcode or 0))
        return outcome

    def end(self) -> None:
        """End the process, wherever it is: outputs are whole or absent."""
        self._process.terminate()
        self.close()

    def close(self) -> None:
        """Wait until the process is gone."""
        self._process.join()
        self.answer.close()


def outcome_in_subprocess(function: Callable[[], Any], parent: Connection | None = None) -> Outcome:
    """What becomes of `function()` in a forked process, for `value_of` in this process or another one.

    The process also ends when the other end of `parent` closes or writes.
    """
    call = ForkedCall(function)
    try:
        if parent is not None and call.answer not in wait([call.answer, parent]):
            call.end()
            return _INTERRUPTED, None
        outcome = call.outcome()
    except BaseException:  # Ctrl-C here
        call.end()
        raise
    call.close()
    return outcome


def run_side_by_side(functions: Sequence[Callable[[int], Result]], limit: int) -> Iterator[tuple[int, Result]]:
    """Run functions in forked processes, `limit` at a time, and yield (number, value) as they end.

    Each is given the number of its lane, below `limit`. The first that fails ends the others.

    Raises:
        As `run_in_subprocess`.
    """
    waiting = list(enumerate(functions))[::-1]
    lanes = list(range(limit))[::-1]
    running: dict[object, tuple[int, int, ForkedCall]] = {}
    try:
        while waiting or running:
            while waiting and lanes:
                (number, function), lane = waiting.pop(), lanes.pop()
                call = ForkedCall(partial(function, lane))
                running[call.answer] = number, lane, call
            for answer in wait([call.answer for _, _, call in running.values()]):
                number, lane, call = running[answer]
                outcome = call.outcome()
                del running[answer]
                call.close()
                lanes.append(lane)
                yield number, value_of(outcome)
    finally:
        for _, _, call in running.values():
            call.end()


def value_of(outcome: Outcome) -> Any:
    """The value of a function that ended well; otherwise what it raised, as `run_in_subprocess`."""
    kind, value = outcome
    if kind == _BAD_INPUT:
        raise InputError(value)
    if kind == _OS_ERROR:
        raise OSError(*value)
    if kind == _INTERRUPTED:
        raise KeyboardInterrupt
    if kind == _DEFECT:
        raise RuntimeError(f"in a subprocess:\n{value}")
    return value


def outcome_of(function: Callable[[], Any]) -> Outcome:
    """What becomes of `function()` in this process, in values that can be sent to another one."""
    try:
        return _DONE, function()
    except InputError as error:
        return _BAD_INPUT, str(error)
    except OSError as error:
        if error.errno is None:  # a library raised it: all it has is the message
            return _BAD_INPUT, str(error)
        return _OS_ERROR, (error.errno, error.strerror, error.filename)
    except KeyboardInterrupt:
        return _INTERRUPTED, None
    except Exception:  # noqa: BLE001 - raised again in the parent, with this traceback
        return _DEFECT, traceback.format_exc()


def _work(function: Callable[[], Any], send: Connection, parent: int) -> None:
    end_with(parent)
    send.send(outcome_of(function))


def end_with(parent: int) -> None:
    """Have Linux end this process when its parent ends, so that nothing computes on after a kill -9."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)


def how_it_ended(what: str, exit_code: int) -> str:
    """A sentence for a process that ended without an answer."""
    again = "run the same command again to continue"
    if exit_code < 0:
        return f"{what} was ended by {signal.Signals(-exit_code).name} (out of memory?); {again}"
    return f"{what} ended with status {exit_code}; {again}"
