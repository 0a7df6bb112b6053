"""All networks of a run are trained with one file of precision choices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from asrkd.files import read_json, write_json
from asrkd.nnet import ArrayInputs, HardTargets, TrainOptions
from asrkd.recipe import networks
from asrkd.recipe.folders import RunFolders
from asrkd.recipe.options import SpeechOptions
from asrkd.workflow.provenance import processor_name


@pytest.mark.parametrize("choice", ["float32", "bfloat16"])
def test_networks_of_a_run_follow_its_recorded_choice(tmp_path: Path, choice: str) -> None:
    x, labels = torch.randn(64, 5), torch.arange(64) % 3
    frames = SimpleNamespace(inputs=ArrayInputs(x), num_pdfs=3, labels=labels, tree_fingerprint="tree", extra=None)
    frames.store = SimpleNamespace(num_features=5)
    training = TrainOptions(epochs=1, batch_size=32, num_threads=1, show_progress=False)
    options = replace(SpeechOptions(), exp_dir=tmp_path, device="cpu", train=training)
    write_json(RunFolders(tmp_path).precision_choices, {processor_name("cpu"): choice})
    out_dir = tmp_path / "teachers" / "0"
    networks._train_model(frames, frames, options.teacher, HardTargets(labels), 0, options, out_dir, "teacher 0")
    assert read_json(out_dir / networks.SUMMARY_FILE)["precision"] == choice
