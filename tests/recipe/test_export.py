"""`asrkd export`: the model of a finished run, how it is checked, and what is refused before anything is computed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from toy_model import TREE

from asrkd.commands.main import dispatch
from asrkd.data.manifests import load_split
from asrkd.errors import InputError
from asrkd.files import read_object
from asrkd.nnet import AcousticDnn
from asrkd.recipe import export as exporter
from asrkd.recipe.export import export
from asrkd.recipe.export_card import check_table
from asrkd.recipe.export_confidence import Outcomes, fit, reliability
from asrkd.recipe.export_files import pdf_owners
from asrkd.recipe.export_network import ScoresOfFrames, write_onnx
from asrkd.recipe.export_options import ExportOptions
from asrkd.recipe.export_source import Source
from asrkd.runtime.lattice import calibrated
from asrkd.runtime.model import load
from asrkd.runtime.package import Calibration

pytest.importorskip("onnxruntime")


def test_a_senone_belongs_to_a_state_of_a_phone() -> None:
    owners = pdf_owners(TREE)
    assert owners[:4] == [("SIL", 0), ("SIL", 1), ("SIL", 2), ("A", 0)]
    assert len(owners) == TREE.num_pdfs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-wer-loss=-1"], "--max-wer-loss: expected points of WER, 0 or more, found -1"),
        (["--check-utterances=0"], "--check-utterances: expected at least 1, found 0"),
        (["--license="], "--license: expected a name"),
        (["--sytem=x"], "unknown option --sytem; the nearest is --system"),
        ([], "expected the folder of a finished run, found no config.json in it"),
    ],
)
def test_bad_options_are_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        dispatch(["export", str(tmp_path), "--out", str(tmp_path / "model"), *arguments])
    assert not list(tmp_path.iterdir())


def test_packages_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else object())
    with pytest.raises(
        InputError, match=r"expected the packages of asrkd\[.*export\], found no onnx: run `make setup`"
    ):
        dispatch(["export", str(tmp_path), "--out", str(tmp_path / "model")])


def test_a_run_that_is_not_of_speech(tmp_path: Path) -> None:
    for name in ("config.json", "results.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match="expected a run of a speech recipe, found another one"):
        export(ExportOptions(tmp_path, tmp_path / "model"))


def test_other_files_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("years of work")
    (tmp_path / "a.tar.gz").mkdir()
    expected = {
        "folder": "expected a new folder, or a model to replace, found another folder with files",
        "folder/thesis.txt": r"expected a folder, or a file that ends in \.tar\.gz, found a file",
        "a.tar.gz": "expected a file to write, found a folder",
    }
    for name, message in expected.items():
        with pytest.raises(InputError, match=message):
            export(ExportOptions(tmp_path / "run", tmp_path / name))
    assert (tmp_path / "folder" / "thesis.txt").read_text() == "years of work"


def made_up_words(number: int = 4000) -> Outcomes:
    """Posteriors that are too sure: the odds of being right are the root of theirs."""
    rng = np.random.default_rng(0)
    odds = rng.normal(2.0, 3.0, number)
    right = rng.random(number) < 1.0 / (1.0 + np.exp(-0.5 * odds))
    return np.clip(1.0 / (1.0 + np.exp(-odds)), 0.0, 1.0), right


def test_calibrated_confidences_are_shares_of_right_words() -> None:
    posteriors, right = made_up_words()
    calibration = fit((posteriors, right))
    assert calibration.slope == pytest.approx(0.5, abs=0.05) and calibration.intercept == pytest.approx(0.0, abs=0.1)
    after = np.array([calibrated(value, calibration) for value in posteriors])
    before, found = reliability((posteriors, right)), reliability((after, right))
    assert found["calibration_error"] < 0.03 < before["calibration_error"]
    assert found["normalised_cross_entropy"] > before["normalised_cross_entropy"]
    assert sum(one["words"] for one in found["bins"]) == found["words"] == len(right)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_posterior_is_never_certain(value: float) -> None:
    assert 0.0 < calibrated(value, Calibration()) < 1.0
    assert calibrated(0.7, Calibration()) == pytest.approx(0.7)


def test_too_few_words_are_not_calibrated() -> None:
    posteriors, right = made_up_words(50)
    assert fit((posteriors, right)) == Calibration()
    assert fit((np.ones(500), np.ones(500, dtype=bool))) == Calibration()
    assert reliability((np.zeros(0), np.zeros(0, dtype=bool))) == {"words": 0}


def test_a_system_that_the_run_does_not_have(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--system distiled: expected a system of .*nearest is distilled"):
        export(ExportOptions(finished, tmp_path / "model", system="distiled"))
    assert not list(tmp_path.iterdir())


def test_a_whole_model(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model"
    options = ExportOptions(finished, out, license="CC-BY-4.0", max_wer_loss=100.0)
    export(options)
    check = read_object(out / "check.json", rows=list, int8=dict)
    rows = {row["name"]: row for row in check["rows"]}
    assert check_table(check) in capsys.readouterr().out
    exact, alike, of_run = rows["model.onnx"], rows["by speaker"], rows["run"]
    assert exact["mean_difference"] < 1e-3
    assert abs(exact["frame_accuracy"] - of_run["frame_accuracy"]) < 1e-3
    results = read_object(finished / "results.json")["systems"]["distilled"]
    assert of_run["wer"]["percent"] == results["wer"]["percent"]
    assert of_run["frame_accuracy"] == pytest.approx(results["frame_accuracy"])
    assert alike["equal_utterances"] >= 0.95 * check["utterances"]
    assert 0 < exact["network_rtf"] < exact["rtf"]
    assert exact["confidences"]["words"] > 0
    card = (out / "model_card.md").read_text()
    assert "CC-BY-4.0" in card and f"{exact['wer']['percent']:.2f}%" in card
    assert list(tmp_path.iterdir()) == [out]
    _require_words_of_the_run(finished, out)


def _require_words_of_the_run(finished: Path, out: Path) -> None:
    """The model, read again, finds about the words that the run found."""
    model = load(out, precision="float32")
    source = Source.open(finished, "distilled")
    hypotheses = json.loads((finished / "decode" / "distilled" / "hypotheses.json").read_text())["words"]
    recordings = list(load_split(source.folders.manifests("test")).recordings)[:5]
    for recording in recordings:
        segment = model.decode_segment(source.samples(recording))
        assert abs(len(segment.words) - len(hypotheses[recording.id].split())) <= 3
        assert segment.end == pytest.approx(recording.duration, abs=0.01)


def test_weights_that_lose_too_much_are_not_written(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def random_network(source: Path, path: Path) -> None:
        of_run = Source.open(finished, "baseline")
        trained = of_run.acoustics.model
        network = AcousticDnn(trained.input_dim, trained.num_outputs, trained.options).eval()
        write_onnx(ScoresOfFrames(network, of_run.acoustics.log_prior), of_run.front_end.num_mel_bins, path)

    monkeypatch.setattr(exporter, "write_int8", random_network)
    out = tmp_path / "model.tar.gz"
    export(ExportOptions(finished, out, system="baseline", check_utterances=10))
    assert "model.int8.onnx: not written: it loses" in caplog.text
    model = load(out)
    assert "model.int8.onnx" not in model.description.files
    assert list(tmp_path.iterdir()) == [out]


def test_a_failure_leaves_nothing(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(source: Path, path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(exporter, "write_int8", full_disk)
    for name in ("model", "model.tar.gz"):
        with pytest.raises(OSError, match="No space left"):
            export(ExportOptions(finished, tmp_path / name))
    assert not list(tmp_path.iterdir())


def test_audio_that_has_changed_since_the_run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Source, "samples", lambda self, recording: np.zeros(recording.num_samples, dtype=np.float32))
    with pytest.raises(InputError, match=r"expected the scores of the run, found other ones|expected scores"):
        export(ExportOptions(finished, tmp_path / "model", check_utterances=3))


def test_ensembles(finished: Path, tmp_path: Path) -> None:
    export(ExportOptions(finished, tmp_path / "model", system="ensemble", check_utterances=4, max_wer_loss=100.0))
    assert load(tmp_path / "model", precision="int8").description.run["system"] == "ensemble"
    assert ", on 4 of the utterances" in (tmp_path / "model" / "model_card.md").read_text()
