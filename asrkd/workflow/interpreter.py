"""Another Python interpreter, with another torch, that runs the steps which only train or score networks.

It runs this package's own sources, whatever version of asrkd is installed there: outputs do not depend on which
interpreter finds which code. It needs torch and what networks need, neither k2 nor Lhotse.
"""

from __future__ import annotations

import os
import pickle
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from asrkd.errors import InputError
from asrkd.workflow.child_process import Outcome, how_it_ended, value_of
from asrkd.workflow.distributed import rendezvous_environment
from asrkd.workflow.step_log import current_log_file
from asrkd.workflow.step_server import UNFIT, Request

OPTION = "--train.python"
PACKAGE = Path(__file__).resolve().parents[1]
START_TIMEOUT_SEC = 300.0  # importing torch from a busy file system takes a minute
END_TIMEOUT_SEC = 10.0
_OLD_PYTHON = 86
# The package is loaded from its folder, and nothing else of this environment gets there. Any Python can read this.
_START = f"""
import sys
if sys.version_info < (3, 10): sys.exit({_OLD_PYTHON})
import importlib.util
sys.path[:] = [folder for folder in sys.path if folder]
found = importlib.util.spec_from_file_location(
    "asrkd", sys.argv[1] + "/__init__.py", submodule_search_locations=[sys.argv[1]])
sys.modules["asrkd"] = importlib.util.module_from_spec(found)
found.loader.exec_module(sys.modules["asrkd"])
from asrkd.workflow.step_server import serve
serve(int(sys.argv[2]))
"""


class Interpreter:
    """An interpreter that runs functions of this package, each in a process of its own, as `run_in_subprocess` does.

    It starts with the first of them and ends with this object (a context manager) or with this process, in whatever
    way. InputError, in one line, where it cannot run them.
    """

    def __init__(self, python: Path) -> None:
        self.python = python
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._code: Mapping[str, str] = {}

    def __enter__(self) -> Interpreter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def code(self) -> Mapping[str, str]:
        """Revision, digest of the sources, and versions there, as `provenance.code_record` has them here."""
        self._started()
        return self._code

    @property
    def description(self) -> str:
        """The interpreter and its versions."""
        return f"{self.python} (Python {self.code['python']}, torch {self.code.get('torch', 'unknown')})"

    def run(self, function: Callable[[], Any], trains: bool = False) -> Any:
        """What `function()` returns there; its log messages go where this process' go. `trains`: it makes an optimiser.

        Raises:
            InputError, OSError, KeyboardInterrupt: the function raised it.
            InputError: the interpreter has not what the function needs, or was killed.
            RuntimeError: the function raised another exception; the message has its traceback.
        """
        pipe = self._started()
        request = Request(pickle.dumps(function), current_log_file(), trains)
        try:
            pipe.send(request)
            outcome: Outcome = pipe.recv()
        except (EOFError, ConnectionError):
            self._refuse_ended()
        except BaseException:  # Ctrl-C here: the interpreter ends what it runs when the pipe closes
            self.close()
            raise
        return self._value_of(outcome)

    def close(self) -> None:
        """End the interpreter and what it runs."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_TIMEOUT_SEC)
            self._process.kill()
            self._process.wait()
        self._process, self._pipe = None, None

    def _started(self) -> Connection:
        if self._pipe is not None:
            return self._pipe
        self._pipe, theirs = Pipe()
        command = [str(self.python), "-c", _START, str(PACKAGE), str(theirs.fileno())]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONUTF8": "1", **rendezvous_environment()},
            )
        except OSError as error:
            self.close()
            reason = (error.strerror or str(error)).lower()
            raise InputError(f"{OPTION} {self.python}: expected a Python interpreter, found {reason}") from None
        finally:
            theirs.close()
        try:
            self._code = self._greeting(self._pipe)
        except BaseException:
            self.close()
            raise
        return self._pipe

    def _greeting(self, pipe: Connection) -> Mapping[str, str]:
        try:
            if not pipe.poll(START_TIMEOUT_SEC):
                raise InputError(f"{OPTION} {self.python}: no answer within {START_TIMEOUT_SEC:g} s")
            code: Mapping[str, str] = self._value_of(pipe.recv())
        except (EOFError, ConnectionError):
            self._refuse_ended(starting=True)
        return code

    def _value_of(self, outcome: Outcome) -> Any:
        kind, value = outcome
        if kind == UNFIT:
            raise InputError(
                f"{OPTION} {self.python}: expected torch and what networks need (`make setup-train` installs both), "
                f"found {value}"
            )
        return value_of(outcome)

    def _refuse_ended(self, starting: bool = False) -> NoReturn:
        """InputError that says how the interpreter ended."""
        assert self._process is not None
        status = self._process.wait()
        self.close()
        if status == _OLD_PYTHON:
            raise InputError(f"{OPTION} {self.python}: expected Python 3.10 or later, found an earlier one")
        if starting:
            raise InputError(
                f"{OPTION} {self.python}: expected a Python interpreter, found a program that ended with status "
                f"{status} instead of running Python"
            )
        raise InputError(how_it_ended(f"{OPTION} {self.python}: the interpreter", status))
