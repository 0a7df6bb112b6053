"""Two runs with one aligner, so that their frame accuracies are comparable; a quarter of the speakers transcribed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from decoded_folder import finish
from tiny_recipe import TinyRecipe

from asrkd.config import parse
from asrkd.data.corpora.an4 import prepare_an4
from asrkd.errors import InputError
from asrkd.files import canonical, read_json, write_json
from asrkd.hmm.tree import SenoneTree
from asrkd.lang.lexicon import Lexicon
from asrkd.recipe.compared import compare_results
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.folders import TREE_FILE, RunFolders
from asrkd.recipe.labels_source import with_phones_of_source
from asrkd.recipe.options import SpeechOptions
from asrkd.recipe.pipeline import build_steps
from asrkd.workflow.steps import Step, step_stamps

CORPUS = Corpus("an4", prepare_an4, lambda folder: folder / "an4.dic", closed_vocabulary=True, where="get AN4")
NEEDED = ("tree", "labels/test", "features/test")


@pytest.fixture
def options(tmp_path: Path) -> SpeechOptions:
    """Options of a run whose frames a finished one in `source` labels."""
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "an4.dic").write_text("GO G OW\n")
    options = SpeechOptions(corpus_dir=tmp_path / "corpus", exp_dir=tmp_path / "exp")
    for step in build_steps(CORPUS, options, "run.sh"):
        if step.name in NEEDED:
            (tmp_path / "source" / step.name).mkdir(parents=True)
            finish(tmp_path / "source" / step.name, canonical(step.options))
    return replace(options, labels_from=tmp_path / "source")


def steps_of(options: SpeechOptions) -> dict[str, Step]:
    return {step.name: step for step in build_steps(CORPUS, options, "run.sh")}


def test_nothing_is_aligned_from_a_flat_start(options: SpeechOptions) -> None:
    own, borrowed = steps_of(replace(options, labels_from=None)), steps_of(options)
    assert own.keys() - borrowed.keys() == {"align"} and borrowed.keys() <= own.keys()
    assert borrowed["tree"].inputs == ("features/train", "lang/lexicon") and not borrowed["tree"].networks_only
    assert "align" not in borrowed["score"].inputs
    stamps = step_stamps(list(borrowed.values()))
    source = options.exp_dir.parent / "source"
    path = source / "tree" / "stamp.json"
    write_json(path, {**read_json(path), "stamp": "1" * 16})
    changed = step_stamps(list(steps_of(options).values()))
    kinds = {name.split("/")[0] for name in stamps if stamps[name] != changed[name]}
    assert {"tree", "labels", "teachers", "students", "decode"} <= kinds and not kinds & {"features", "manifests"}


@pytest.mark.parametrize("missing", NEEDED)
def test_the_other_run_has_to_have_labels(missing: str, options: SpeechOptions) -> None:
    (options.exp_dir.parent / "source" / missing / "stamp.json").unlink()
    with pytest.raises(InputError, match=rf"source: expected a run with frame labels .*, found no finished {missing}"):
        steps_of(options)


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("features", {"num_mel_bins": 20}, r"expected the options of its features/test, .*num_mel_bins 40 -> 20"),
        ("context", {"left": 3}, r"expected the options of its labels/test, found others: context.left 20 -> 3"),
        ("realign", {"silence_prob": 0.1}, r"expected the options of its labels/test, .*realign.silence_prob"),
    ],
)
def test_it_has_to_label_as_the_other_run(
    section: str, change: dict[str, Any], message: str, options: SpeechOptions
) -> None:
    other = replace(options, **{section: replace(getattr(options, section), **change)})
    with pytest.raises(InputError, match=message):
        steps_of(other)


def test_copies_at_other_speeds_are_the_runs_own(options: SpeechOptions) -> None:
    speeds = replace(options, features=replace(options.features, speed_factors=(0.9, 1.0)))
    assert step_stamps(list(steps_of(speeds).values()))["tree"] != step_stamps(list(steps_of(options).values()))["tree"]


def test_words_have_the_phones_of_the_other_run(options: SpeechOptions) -> None:
    assert options.labels_from is not None
    SenoneTree.monophone(("SIL", "G", "OW")).save(RunFolders(options.labels_from).tree / TREE_FILE)
    lexicon = Lexicon.of({"GO": {("G", "OW"): 1.0}, "OH": {("OW",): 1.0}, "ZOO": {("Z", "UW"): 1.0}})
    assert with_phones_of_source(lexicon, options).words == ("GO", "OH")
    assert with_phones_of_source(lexicon, replace(options, labels_from=None)) is lexicon
    fewer = Lexicon.of({"OH": {("OW",): 1.0}})
    with pytest.raises(InputError, match=r"source: expected words with every phone of that run, found none with G$"):
        with_phones_of_source(fewer, options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--labels-from=x --tree.num-leaves=9", "--tree.num-leaves: it has no effect with --labels-from"),
        ("--labels-from=x --align.num-phone-rounds=3", "--align.num-phone-rounds: it has no effect with --labels-from"),
        ("--labels-from=x --labels.epochs=3", "--labels.epochs: it has no effect with --labels-from"),
        ("--labels-from=x --lang.units=subword", "--labels-from: expected --lang.units phones"),
        ("--labels-from=x --features.cmvn=online", "--labels-from: expected another --features.cmvn"),
        ("--labels-from=x --folds=3", "--folds: expected no --labels-from"),
    ],
)
def test_options_that_cannot_work_are_refused(arguments: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        parse(SpeechOptions(), arguments.split(), "run.sh", "")


# One teacher, and nothing to choose from: the two runs take two minutes.
SHORT = ("--ensemble.size=1", "--students.choose=configured")
# Options of a tiny run that nothing reads where another run labels the frames.
OF_OWN_LABELS = (
    *("--labels.epochs", "--labels.mono-rounds", "--labels.tree-rounds", "--tree.num-leaves"),
    *("--align.num-phone-rounds", "--align.num-state-rounds"),
)


@pytest.mark.slow
def test_a_part_of_the_speakers_transcribed_and_all_of_them_have_the_same_test_labels(
    tiny: TinyRecipe, tmp_path: Path
) -> None:
    if tiny.name == "prompts":
        pytest.skip("one person speaks all prompts")
    part, whole = tmp_path / "part", tmp_path / "whole"
    done = tiny.run(part, *SHORT, "--transfer.untranscribed=0.4")
    assert done.returncode == 0, done.stderr[-2000:]
    results = read_json(part / "results.json")
    counts, transfer = results["corpus"]["train"], results["transfer"]
    assert transfer["speakers"] == round(0.4 * (transfer["speakers"] + counts["speakers"]))
    assert "transcribed speech alone, 6 epochs" in results["systems"]["distilled_transcribed"]["description"]
    assert ("distilled", "distilled_transcribed") in {(row["a"], row["b"]) for row in results["comparisons"]}
    borrows = replace(tiny, without=(*tiny.without, *OF_OWN_LABELS))
    done = borrows.run(whole, *SHORT, f"--labels-from={part}")
    assert done.returncode == 0, done.stderr[-2000:]
    labels = [(run / "labels" / "test" / "alignment.safetensors").read_bytes() for run in (part, whole)]
    assert labels[0] == labels[1]
    systems = ["distilled_transcribed", "distilled"]
    found = compare_results(str(part), None, systems, common=False, ceiling=f"{whole}:distilled").as_json()
    levels = {row["metric"]: (row["a"], row["b"], row["ceiling"]) for row in found["way"]["shares"]}
    assert levels.keys() == {"frame_accuracy", "cross_entropy", "wer"}
    assert max(levels["cross_entropy"][:2]) > levels["cross_entropy"][2], "more transcripts, a better student"
    assert levels["cross_entropy"][2] == read_json(whole / "results.json")["systems"]["distilled"]["cross_entropy"]
