"""The precision that `auto` chooses is one choice, whatever a second measurement would say."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest
import torch

from asrkd.files import read_json
from asrkd.nnet import AcousticDnn, ArrayInputs, HardTargets, ModelOptions, TrainOptions, precision, train, trainer
from asrkd.nnet.checkpoint import START_NAME
from asrkd.nnet.precision import PRECISION_FILE, resolve_precision
from asrkd.workflow.provenance import processor_name

CPU = torch.device("cpu")
AUTO = TrainOptions(epochs=3, batch_size=32, learning_rate=0.01, num_threads=1, show_progress=False)


def measured(monkeypatch: pytest.MonkeyPatch, gain: float) -> None:
    """Have the next measurement come out so."""
    monkeypatch.setattr(precision, "bfloat16_gain", lambda device: gain)


def fit(out_dir: Path, options: TrainOptions = AUTO, precision_file: Path | None = None) -> tuple[torch.Tensor, str]:
    """The weights of a small training, and its precision."""
    x = torch.randn(160, 6, generator=torch.Generator().manual_seed(0))
    model = AcousticDnn(6, 3, ModelOptions(hidden_dim=16, num_layers=2), seed=1)
    objective = HardTargets(torch.arange(160) % 3)
    result = train(model, ArrayInputs(x), objective, options, out_dir, precision_file=precision_file)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]), result.precision


def test_a_measurement_chooses_one_of_the_two() -> None:
    assert resolve_precision("bfloat16", CPU) == "bfloat16"
    assert resolve_precision("auto", CPU) in ("float32", "bfloat16")


def test_a_recorded_choice_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choices = tmp_path / "exp" / PRECISION_FILE
    measured(monkeypatch, 2.0)
    assert resolve_precision("auto", CPU, choices) == "bfloat16"
    assert read_json(choices) == {processor_name("cpu"): "bfloat16"}
    measured(monkeypatch, 0.5)
    assert resolve_precision("auto", CPU, choices) == "bfloat16"
    assert resolve_precision("float32", CPU, choices) == "float32", "an option forces it"
    assert resolve_precision("auto", CPU, tmp_path / "other.json") == "float32"
    assert resolve_precision("auto", CPU) == "float32"


def choose(choices: Path, gain: float, results: multiprocessing.Queue) -> None:
    """One process among several: what it would choose alone depends on `gain`."""

    def slowly(device: torch.device) -> float:
        time.sleep(0.1)
        return gain

    precision.bfloat16_gain = slowly
    results.put(resolve_precision("auto", CPU, choices))


def test_processes_that_start_together_make_one_choice(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    gains = (2.0, 0.5, 2.0, 0.5)
    processes = [context.Process(target=choose, args=(tmp_path / "p.json", gain, results)) for gain in gains]
    for process in processes:
        process.start()
    chosen = {results.get(timeout=30) for _ in processes}
    for process in processes:
        process.join()
    assert len(chosen) == 1
    assert list(read_json(tmp_path / "p.json").values()) == list(chosen)


def test_trainings_of_one_experiment_share_the_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, 2.0)
    first, arithmetic = fit(tmp_path / "a", precision_file=tmp_path / PRECISION_FILE)
    assert arithmetic == "bfloat16"
    measured(monkeypatch, 0.5)
    again, arithmetic = fit(tmp_path / "b", precision_file=tmp_path / PRECISION_FILE)
    assert arithmetic == "bfloat16"
    assert torch.equal(first, again)
    other, arithmetic = fit(tmp_path / "c")
    assert arithmetic == "float32"
    assert not torch.equal(first, other)


@pytest.mark.parametrize("killed_in_epoch", [0, 1])
def test_a_killed_training_resumes_in_the_precision_it_began_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_in_epoch: int
) -> None:
    measured(monkeypatch, 2.0)
    whole, _ = fit(tmp_path / "whole")
    original = trainer.run_epoch

    def killed(state, epoch, *rest):
        assert read_json(tmp_path / "torn" / START_NAME)["precision"] == "bfloat16", "recorded before the first step"
        if epoch == killed_in_epoch:
            raise KeyboardInterrupt
        return original(state, epoch, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "run_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "torn")
    measured(monkeypatch, 0.5)
    resumed, arithmetic = fit(tmp_path / "torn")
    assert arithmetic == "bfloat16"
    assert torch.equal(resumed, whole)
    assert sorted(path.name for path in (tmp_path / "torn").iterdir()) == ["history.json", "model.safetensors"]


def test_another_training_in_the_same_folder_chooses_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_):
        raise KeyboardInterrupt

    measured(monkeypatch, 2.0)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "run_epoch", stopped)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path)
    measured(monkeypatch, 0.5)
    assert fit(tmp_path, TrainOptions(epochs=1, batch_size=32, num_threads=1, show_progress=False))[1] == "float32"
