"""--train.python: which interpreter a run takes, what it refuses, and networks that are the same in both."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from other_python import TRAIN_PYTHON, same_python, train_python
from torchrun_training import frame_store

from asrkd.errors import InputError
from asrkd.features.splicing import SplicedFrames
from asrkd.files import load_tensors, read_json
from asrkd.nnet import TrainOptions
from asrkd.nnet.devices import require_device
from asrkd.nnet.model_options import ModelOptions
from asrkd.recipe import command_line, training_python
from asrkd.recipe.label_networks import PRECISION_FILE, train_label_network
from asrkd.recipe.options import ContextOptions, LabelOptions, SpeechOptions
from asrkd.recipe.trained import other_environment
from asrkd.recipe.training_python import training_interpreter, with_training_python
from asrkd.report.run_tables import environment_table
from asrkd.workflow import provenance
from asrkd.workflow.interpreter import Interpreter
from asrkd.workflow.stages import StageRange, run_steps
from asrkd.workflow.steps import Step


def options(python: str = "auto", **changes: object) -> SpeechOptions:
    made = SpeechOptions(train=TrainOptions(python=python))
    return replace(made, **changes)  # type: ignore[arg-type]


def chosen(given: SpeechOptions) -> str:
    return with_training_python(given).train.python


def test_on_a_cpu_a_run_takes_its_own_interpreter() -> None:
    for python in ("auto", "same", sys.executable):
        resolved = with_training_python(options(python, device="cpu"))
        assert resolved.train.python == "same" and training_interpreter(resolved) is None


def test_a_path_becomes_absolute_and_its_link_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(same_python(tmp_path))
    resolved = with_training_python(options("link", device="cpu"))
    assert training_interpreter(resolved) == tmp_path / "link"


@pytest.mark.parametrize(("python", "found"), [("nowhere/python", "no such file"), ("/", "a folder")])
def test_what_is_no_file_is_refused_in_one_line(python: str, found: str) -> None:
    expected = f"--train.python {python}: expected a Python interpreter, same or auto, found {found}"
    with pytest.raises(InputError) as refused:
        with_training_python(options(python))
    assert str(refused.value) == expected


class FakeInterpreter(Interpreter):
    """One that has code for the GPU, or has not, or cannot start."""

    answer: bool | str = True

    def run(self, function: object, trains: bool = False) -> bool:
        if isinstance(self.answer, str):
            raise InputError(self.answer)
        return self.answer


@pytest.mark.parametrize(
    ("here", "there", "device", "expected"),
    [
        (False, True, "cuda", "found"),
        (False, True, "auto", "found"),
        (False, True, "cpu", "same"),
        (True, True, "auto", "same"),
        (False, False, "cuda", "same"),
        (False, "a broken environment", "auto", "same"),
    ],
)
def test_auto_takes_the_other_torch_for_a_gpu_that_this_one_has_no_code_for(
    here: bool,
    there: bool | str,
    device: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    python = same_python(tmp_path)
    monkeypatch.setattr(training_python, "TRAIN_PYTHON", python)
    monkeypatch.setattr(training_python, "GPU_FILES", (str(tmp_path),))
    monkeypatch.setattr(training_python, "call_in_subprocess", lambda function: here)
    monkeypatch.setattr(training_python, "Interpreter", FakeInterpreter)
    monkeypatch.setattr(FakeInterpreter, "answer", there)
    assert chosen(options(device=device)) == (str(python) if expected == "found" else "same")
    assert (there in capsys.readouterr().err) if isinstance(there, str) else not capsys.readouterr().err


def test_auto_asks_nobody_where_no_gpu_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_python, "GPU_FILES", (str(tmp_path / "none"),))
    monkeypatch.setattr(training_python, "call_in_subprocess", pytest.fail)
    assert chosen(options(device="cuda")) == "same"


def test_a_gpu_without_code_in_torch_is_refused_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_37", "sm_80"])
    with pytest.raises(InputError, match=r"^--device=cuda: expected a torch with code for NVIDIA H200 \(sm_90"):
        require_device("cuda")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80", "sm_90"])
    require_device("cuda")


def test_the_device_is_asked_for_where_networks_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(command_line, "call_in_subprocess", pytest.fail)
    monkeypatch.setattr(Interpreter, "run", lambda self, function, trains=False: asked.append((self.python, function)))
    monkeypatch.setattr(Interpreter, "description", "another")
    steps = [
        Step(6, "teachers/0", lambda folder: None, trains=True, networks_only=True),
        Step(11, "score", lambda folder: None),
    ]
    given = options(device="cuda", exp_dir=tmp_path)
    with Interpreter(tmp_path / "python") as other:
        command_line._required_device(steps, given, StageRange(9, 12), other)
        assert not asked  # scoring reads what the networks' steps recorded
        command_line._required_device(steps, given, StageRange(), other)
    assert [python for python, _ in asked] == [tmp_path / "python"]


def label_network(folder: Path, python: str) -> Path:
    """A network on labels of a small store, some frames without one."""
    store = frame_store(folder.parent / "store")
    labels = (store.feats.sum(dim=1) > 0).long()
    frame_ids = torch.arange(len(labels))[torch.arange(len(labels)) % 7 != 0]
    made = options(
        python,
        device="cpu",
        exp_dir=folder.parent / f"exp_{folder.name}",
        context=ContextOptions(2, 1),
        labels=LabelOptions(epochs=2),
        teacher=ModelOptions(hidden_dim=16, num_layers=2),
    )
    training = replace(made.train, batch_size=32, precision="float32", num_threads=1, show_progress=False)
    inputs = SplicedFrames(store, 2, 1)
    folder.mkdir()
    train_label_network(inputs, labels, frame_ids, 2, replace(made, train=training), folder, folder.parent / "store")
    assert sorted(path.name for path in folder.iterdir()) == ["history.json", "model.safetensors", PRECISION_FILE]
    return folder


def losses(folder: Path) -> list[float]:
    return [epoch["train_loss"] for epoch in read_json(folder / "history.json")]


def test_label_networks_of_the_same_torch_are_the_same_to_the_bit(tmp_path: Path) -> None:
    here = label_network(tmp_path / "here", "same")
    there = label_network(tmp_path / "there", str(same_python(tmp_path)))
    expected, found = (load_tensors(folder / "model.safetensors")[0] for folder in (here, there))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert losses(here) == losses(there)


def test_label_networks_of_another_torch_have_the_same_losses(tmp_path: Path) -> None:
    here = label_network(tmp_path / "here", "same")
    there = label_network(tmp_path / "there", str(train_python()))
    assert losses(there) == pytest.approx(losses(here), rel=1e-4)


def test_results_and_report_name_both_environments(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    copy = partial(shutil.copytree, tmp_path / "source", dirs_exist_ok=True)
    steps = [Step(6, "teachers/0", copy, networks_only=True), Step(8, "students/baseline", copy, networks_only=True)]
    exp = tmp_path / "exp"
    run_steps(steps[:1], exp)
    assert other_environment(exp, steps) == {}
    here = {"environment": provenance.versions()}
    table = environment_table({**here, "training_environment": {}})
    assert table is not None and table.headers == ("name", "version")
    with Interpreter(train_python()) as other:
        run_steps(steps, exp, interpreter=other)
        there = other.code
    found = other_environment(exp, steps)
    assert found["torch"] == f"{here['environment']['torch']}, {there['torch']}"
    table = environment_table({**here, "training_environment": found})
    assert table is not None
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["torch"] == (here["environment"]["torch"], found["torch"])


def test_the_environment_of_setup_train_is_looked_for_in_this_checkout() -> None:
    assert training_python.TRAIN_PYTHON == TRAIN_PYTHON
