"""Call a function in a forked process of its own.

Thread pools do not survive a fork: after OpenMP or k2 has computed in a process, its forked workers can wait for ever
for threads that they do not have. So workers are forked from a process that has not computed yet.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

from asrkd.errors import InputError

_PR_SET_PDEATHSIG = 1  # Linux, prctl(2): the signal that a process gets when its parent ends
_DONE, _BAD_INPUT, _OS_ERROR, _INTERRUPTED, _DEFECT = "done", "bad input", "os error", "interrupted", "defect"


def run_in_subprocess(function: Callable[[], None]) -> None:
    """Run `function()` in a forked process and wait for it. The process ends when this one ends, in whatever way.

    Raises:
        InputError, OSError, KeyboardInterrupt: the function raised it.
        InputError: the process was killed; the message names the signal.
        RuntimeError: the function raised another exception; the message has its traceback.
    """
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(function, send, os.getpid()))
    process.start()
    send.close()
    try:
        kind, value = receive.recv()
    except EOFError:
        process.join()
        kind, value = _BAD_INPUT, _how_it_ended(process.exitcode or 0)
    except BaseException:  # Ctrl-C here: outputs are whole or absent, so the process may end anywhere
        process.terminate()
        raise
    finally:
        process.join()
        receive.close()
    if kind == _BAD_INPUT:
        raise InputError(value)
    if kind == _OS_ERROR:
        raise OSError(*value)
    if kind == _INTERRUPTED:
        raise KeyboardInterrupt
    if kind == _DEFECT:
        raise RuntimeError(f"in a subprocess:\n{value}")


def _work(function: Callable[[], None], send: Connection, parent: int) -> None:
    _end_with(parent)
    try:
        function()
        send.send((_DONE, None))
    except InputError as error:
        send.send((_BAD_INPUT, str(error)))
    except OSError as error:
        if error.errno is None:  # a library raised it: all it has is the message
            send.send((_BAD_INPUT, str(error)))
        else:
            send.send((_OS_ERROR, (error.errno, error.strerror, error.filename)))
    except KeyboardInterrupt:
        send.send((_INTERRUPTED, None))
    except Exception:  # noqa: BLE001 - raised again in the parent, with this traceback
        send.send((_DEFECT, traceback.format_exc()))


def _end_with(parent: int) -> None:
    """Have the system end this process when its parent ends, so that nothing computes on after a kill -9."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)


def _how_it_ended(exit_code: int) -> str:
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        return f"a step's process was ended by {name} (out of memory?); run the same command again to continue"
    return f"a step's process ended with status {exit_code}; run the same command again to continue"
