"""Run functions for a process of another interpreter, each in a forked process, until that process ends.

`asrkd.workflow.interpreter` starts it and talks to it over a pipe. It imports once what the functions need, and never
computes, so that it can be forked (`asrkd.workflow.child_process`).
"""

from __future__ import annotations

import pickle
import signal
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from asrkd.terminal import print_anything
from asrkd.workflow.child_process import Outcome, outcome_in_subprocess, outcome_of
from asrkd.workflow.step_log import log_messages

UNFIT = "unfit"
"""Kind of an outcome: this interpreter cannot import what is needed. The value says what."""


@dataclass(frozen=True)
class Request:
    """A function to run."""

    function: bytes
    """Pickled: what it needs is imported here, where that can fail in one line."""
    log_file: Path | None
    """Where its log messages go."""
    trains: bool
    """Whether it makes an optimiser."""


def serve(pipe: int) -> None:
    """Answer the requests that come through a file descriptor. The first message is this environment's versions."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends this process without a traceback
    print_anything()
    with Connection(pipe) as parent:
        parent.send(_loaded(_code_record))
        while True:
            try:
                request = parent.recv()
            except (EOFError, ConnectionError):
                return
            outcome = _answer(request, parent)
            try:
                parent.send(outcome)
            except ConnectionError:  # it ended while the function ran, and so did the function
                return


def import_optimisers() -> None:
    """Import once what torch 2 imports when it makes an optimiser: each step's process would take 2 seconds for it."""
    if find_spec("torch._dynamo"):
        import_module("torch._dynamo")


def _loaded(load: Callable[[], Any]) -> Outcome:
    """What a function that imports comes to; UNFIT where something is missing here."""
    try:
        value = load()
    except (ImportError, AttributeError) as error:
        return UNFIT, str(error)
    return outcome_of(lambda: value)


def _code_record() -> dict[str, str]:
    from asrkd.workflow.provenance import code_record  # here: it needs torch

    return code_record()


def _answer(request: Request, parent: Connection) -> Outcome:
    loaded = _loaded(partial(pickle.loads, request.function))
    function = loaded[1]
    if not callable(function):
        return loaded
    if request.trains:
        import_optimisers()
    return outcome_in_subprocess(partial(_run, function, request.log_file), parent)


def _run(function: Callable[[], Any], log_file: Path | None) -> Any:
    with log_messages(log_file) if log_file else nullcontext():
        return function()
