"""A tiny recipe whole, in one environment and with its networks in another one: the same words, and losses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from other_python import train_python
from tiny_recipe import TinyRecipe

from asrkd.files import read_json
from asrkd.workflow.steps import Record

pytestmark = pytest.mark.slow

# With the same labels, torch 1.13.1 and 2.13 differ in the order of their float sums. Training makes more of it.
LOSS_TOLERANCE = 0.01
# Of a label network's own alignment: the labels of a few frames in a hundred differ.
LOG_LIKE_TOLERANCE = 0.02
# Tiny networks are unsure: between two seeds a third of the utterances have other words.
SAME_WORDS = 0.7
NETWORKS = ("teachers", "posteriors", "students")


@pytest.fixture(scope="module")
def one(tiny: TinyRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    train_python()
    exp_dir = tmp_path_factory.mktemp("one") / "exp"
    done = tiny.run(exp_dir)
    assert done.returncode == 0, done.stderr
    return exp_dir


def test_networks_of_another_interpreter_give_the_same_words_and_losses(
    tiny: TinyRecipe, one: Path, tmp_path: Path
) -> None:
    two = tmp_path / "exp"
    shutil.copytree(one, two)
    for name in NETWORKS:
        shutil.rmtree(two / name)
    done = tiny.run(two, "--train.python", str(train_python()))
    assert done.returncode == 0, done.stderr
    assert f"networks: {train_python()} (Python " in done.stdout
    for name in ("align", "tree", "labels/test"):
        assert f"({name}, step " in done.stdout and not (two / f"{name}.partial").exists()
        assert Record.read(two / name) == Record.read(one / name)  # no stamp knows the option
    results = {exp_dir: read_json(exp_dir / "results.json") for exp_dir in (one, two)}
    assert results[one]["training_environment"] == {}
    there = results[two]["training_environment"]
    assert there["torch"] != results[two]["environment"]["torch"]
    assert f"| torch         | {results[two]['environment']['torch']}" in (two / "report" / "RESULTS.md").read_text()
    for name, system in results[one]["systems"].items():
        other = results[two]["systems"][name]
        assert (system["torch"], other["torch"]) == (results[one]["environment"]["torch"], there["torch"])
        if "history" in system:
            expected, found = ([epoch["train_loss"] for epoch in made["history"]] for made in (system, other))
            assert found == pytest.approx(expected, rel=LOSS_TOLERANCE), name
        assert other["cross_entropy"] == pytest.approx(system["cross_entropy"], rel=LOSS_TOLERANCE), name
        words = [read_json(exp_dir / "decode" / name / "hypotheses.json")["words"] for exp_dir in (one, two)]
        same = sum(words[1][utt_id] == hyp for utt_id, hyp in words[0].items())
        assert same >= SAME_WORDS * len(words[0]), name


def test_label_networks_train_there_too(tiny: TinyRecipe, one: Path, tmp_path: Path) -> None:
    two = tmp_path / "exp"
    shutil.copytree(one, two)
    shutil.rmtree(two / "tree")
    done = tiny.run(two, "--only", "tree", "--train.python", str(train_python()))
    assert done.returncode == 0, done.stderr
    rounds = [read_json(exp_dir / "tree" / "rounds.json")[-1]["log_like_per_frame"] for exp_dir in (one, two)]
    assert rounds[1] == pytest.approx(rounds[0], rel=LOG_LIKE_TOLERANCE)
