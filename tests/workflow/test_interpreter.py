"""Another interpreter runs functions as a forked process does: values, errors, logs, nothing left behind."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from other_python import ROOT, same_python, script, train_python
from processes import DEADLINE_SEC, is_running, wait_until
from torchrun_training import torchrun

from asrkd.errors import InputError
from asrkd.files import read_json
from asrkd.nnet.devices import resolve_device
from asrkd.workflow import interpreter as interpreters
from asrkd.workflow import provenance
from asrkd.workflow.interpreter import Interpreter
from asrkd.workflow.stages import list_steps, run_steps
from asrkd.workflow.step_log import step_log
from asrkd.workflow.steps import Record, Step


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreter]:
    with Interpreter(same_python(tmp_path_factory.mktemp("bin"))) as started:
        yield started


def test_it_returns_what_a_function_returns_from_a_process_of_its_own(other: Interpreter) -> None:
    first, second = other.run(os.getpid), other.run(os.getpid)
    assert len({first, second, os.getpid()}) == 3
    assert other.code == provenance.code_record()
    assert other.description.startswith(f"{other.python} (Python {provenance.versions()['python']}, torch ")


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (partial(resolve_device, "abacus"), InputError, "--device=abacus: expected cpu, cuda or auto"),
        (partial(os.stat, "/no/such/file"), FileNotFoundError, "/no/such/file"),
        (partial(int, "x"), RuntimeError, r"in a subprocess:\n(.*\n)*ValueError: invalid literal"),
        (partial(signal.raise_signal, signal.SIGKILL), InputError, r"a step's process was ended by SIGKILL \(out of"),
        (partial(os._exit, 3), InputError, "a step's process ended with status 3"),
        (partial(signal.raise_signal, signal.SIGUSR1), InputError, "was ended by SIGUSR1"),
    ],
)
def test_errors_are_those_of_a_forked_process(
    other: Interpreter, function: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        other.run(function)
    assert other.run(partial(abs, -1)) == 1  # it serves on


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("exit 0", "expected a Python interpreter, found a program that ended with status 0"),
        (f"exit {interpreters._OLD_PYTHON}", "expected Python 3.10 or later, found an earlier one"),
        (f'exec {sys.executable} -I -S "$@"', "expected torch and what networks need .*found No module named 'torch'"),
    ],
)
def test_an_interpreter_that_cannot_run_them_is_refused_in_one_line(tmp_path: Path, body: str, found: str) -> None:
    python = script(tmp_path / "python", body)
    with Interpreter(python) as unfit, pytest.raises(InputError, match=found) as refused:
        unfit.run(os.getpid)
    assert str(refused.value).startswith(f"--train.python {python}: ") and "\n" not in str(refused.value)


@pytest.mark.parametrize(("mode", "found"), [(None, "no such file or directory"), (0o644, "permission denied")])
def test_a_file_that_cannot_be_run_is_refused(tmp_path: Path, mode: int | None, found: str) -> None:
    python = tmp_path / "python"
    if mode is not None:
        script(python, "exit").chmod(mode)
    with Interpreter(python) as missing, pytest.raises(InputError, match=f"found {found}$"):
        missing.run(os.getpid)


def test_a_program_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreters, "START_TIMEOUT_SEC", 0.2)
    monkeypatch.setattr(interpreters, "END_TIMEOUT_SEC", 0.2)
    with Interpreter(script(tmp_path / "python", "exec sleep 600")) as silent:
        with pytest.raises(InputError, match=r"no answer within 0.2 s"):
            silent.run(os.getpid)
        assert silent._process is None


def test_what_it_lacks_is_named_when_it_is_needed(tmp_path: Path, other: Interpreter) -> None:
    class Local:
        """What another interpreter cannot import."""

    Local.__qualname__, Local.__module__ = "Local", "asrkd.errors"
    sys.modules["asrkd.errors"].Local = Local  # type: ignore[attr-defined]
    try:
        with pytest.raises(InputError, match=r"expected torch and what networks need .*found .*'Local'"):
            other.run(Local)
    finally:
        del sys.modules["asrkd.errors"].Local  # type: ignore[attr-defined]
    assert other.run(partial(abs, -1)) == 1


def test_it_runs_these_sources_whatever_asrkd_is_installed_there(tmp_path: Path) -> None:
    (tmp_path / "asrkd").mkdir()
    (tmp_path / "asrkd" / "__init__.py").write_text("raise RuntimeError('an older asrkd')\n")
    with Interpreter(same_python(tmp_path, f"export PYTHONPATH={tmp_path}")) as another:
        assert another.code["asrkd"] == provenance.code()["asrkd"]


def test_log_messages_of_a_step_are_in_its_log(tmp_path: Path, other: Interpreter) -> None:
    say = partial(logging.getLogger("asrkd.nnet").info, "from process %d", 7)
    with step_log(tmp_path / "log" / "step.log"):
        other.run(say)
    assert (tmp_path / "log" / "step.log").read_text().endswith("INFO asrkd.nnet: from process 7\n")


def test_an_interpreter_that_is_killed_stops_the_run_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with Interpreter(same_python(tmp_path)) as killed:
        parent = killed.run(os.getppid)
        with pytest.raises(InputError, match=r"the interpreter was ended by SIGKILL \(out of memory\?\)"):
            killed.run(partial(os.kill, parent, signal.SIGKILL))
        assert killed.run(partial(abs, -1)) == 1  # started anew


# A test that runs in the background of a shell starts with SIGINT ignored.
RUN_AND_WAIT = """
import os, signal, sys, time
from functools import partial
from pathlib import Path
from asrkd.workflow.interpreter import Interpreter
signal.signal(signal.SIGINT, signal.default_int_handler)
with Interpreter(Path(sys.argv[1])) as other:
    print(other.run(os.getppid), flush=True)
    other.run(partial(time.sleep, 600))
"""


@pytest.mark.parametrize("start", ["exec", ""], ids=["exec", "child of a shell"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_no_process_is_left_when_the_run_ends(tmp_path: Path, number: signal.Signals, start: str) -> None:
    python = same_python(tmp_path, start=start)
    run = subprocess.Popen(
        [sys.executable, "-c", RUN_AND_WAIT, str(python)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        text=True,
    )
    assert run.stdout is not None
    server = int(run.stdout.readline())
    wait_until(lambda: len(children(server)) == 1)
    job = children(server)[0]
    run.send_signal(number)
    assert run.wait(DEADLINE_SEC) != 0
    wait_until(lambda: not is_running(server) and not is_running(job))


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
    return [int(one) for one in text.split()]


def copying_steps(source: Path) -> list[Step]:
    """A step that needs networks alone, and one that cannot be sent to another process."""

    def here(out_dir: Path) -> None:
        (out_dir / "text").write_text(str(os.getppid()))

    copy = partial(shutil.copytree, source, dirs_exist_ok=True)
    return [Step(0, "corpus", here), Step(6, "teachers/0", copy, {"rate": 1}, ("corpus",), networks_only=True)]


def test_steps_of_networks_alone_run_there_and_their_records_say_so(tmp_path: Path) -> None:
    source, exp = tmp_path / "source", tmp_path / "exp"
    source.mkdir()
    (source / "weights").write_text("1")
    steps = copying_steps(source)
    with Interpreter(train_python()) as another:
        run_steps(steps, exp, interpreter=another)
    records = [Record.read(exp / step.name) for step in steps]
    assert records[0] is not None and records[1] is not None
    assert records[0].code == provenance.code_record()
    assert records[1].code == another.code and records[1].code["torch"] != records[0].code["torch"]
    assert (exp / "teachers/0/weights").read_text() == "1" and (exp / "log/teachers_0.log").is_file()
    assert list_steps(steps, exp, stale_only=True) == ["every step is up to date"]


def test_the_list_of_steps_names_their_interpreter(tmp_path: Path) -> None:
    lines = list_steps(copying_steps(tmp_path), tmp_path / "exp", python=Path("/opt/python"))
    assert lines[0] == f" 0  {'corpus':<28} no output yet"
    assert lines[1] == f" 6  {'teachers/0':<28} no output yet  [/opt/python]"


JOB = """
import json, sys
import torch
from asrkd.workflow.distributed import ProcessGroup
ranks = ProcessGroup.from_environment()
with ranks.joined(torch.device("cpu")):
    total = ranks.all_reduce(torch.tensor([1.0 + ranks.rank])).item()
    if ranks.is_main:
        json.dump([total, torch.__version__], open({out!r}, "w"))
    ranks.require_same(total, "the sum")
"""
RANK = """
import sys
from functools import partial
from pathlib import Path
from asrkd.workflow.interpreter import Interpreter
with Interpreter(Path(sys.argv[1])) as other:
    other.run(partial(exec, Path(sys.argv[2]).read_text(), {}))
"""


def test_processes_of_torchrun_meet_in_another_torch(tmp_path: Path) -> None:
    """torchrun's own store is of this torch: the processes of the other one have theirs."""
    python, out = train_python(), tmp_path / "sum.json"
    (tmp_path / "job.py").write_text(JOB.format(out=str(out)))
    (tmp_path / "rank.py").write_text(RANK)
    done = torchrun([str(tmp_path / "rank.py"), str(python), str(tmp_path / "job.py")])
    assert done.returncode == 0, done.stderr
    total, version = read_json(out)
    assert total == 3.0 and version != provenance.versions()["torch"]
