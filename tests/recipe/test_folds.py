"""Cross-validation over speakers: who is in which fold, the steps of all folds, and what they measured together."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet
from speech_stages import step_folder
from tiny_recipe import TinyRecipe

from asrkd import config
from asrkd.data import validate
from asrkd.data.corpora.an4 import prepare_an4
from asrkd.data.manifests import load_split
from asrkd.data.splits import CorpusSplit, Rejected
from asrkd.errors import InputError
from asrkd.files import read_json, write_json
from asrkd.recipe import folds, folds_results
from asrkd.recipe.corpus import Corpus, make_manifests, prepare_corpus
from asrkd.recipe.evaluate import runs
from asrkd.recipe.folders import SPLITS, RunFolders
from asrkd.recipe.options import SpeechOptions, StudentsOptions, options_of_folds, options_of_run
from asrkd.recipe.pipeline import build_steps
from asrkd.recipe.results import Scored
from asrkd.scoring.bootstrap import NUM_REPLICATES, UtteranceMetric, by_speaker, compare
from asrkd.scoring.characters import cer
from asrkd.scoring.frames import FrameMetrics
from asrkd.scoring.words import wer
from asrkd.workflow.stages import StageRange, list_steps
from asrkd.workflow.steps import step_stamps

CORPUS = Corpus("an4", prepare_an4, lambda corpus_dir: "cmudict", closed_vocabulary=False, where="get AN4")


def corpus_split(speakers: dict[str, str], **more: Any) -> CorpusSplit:
    """utt_id -> speaker; a word for each character of the utt_id."""
    return CorpusSplit(
        RecordingSet.from_recordings(Recording(name, [], 16000, 16000, 1.0) for name in speakers),
        SupervisionSet.from_segments(
            SupervisionSegment(name, name, 0.0, 1.0, text=" ".join(name), speaker=speaker)
            for name, speaker in speakers.items()
        ),
        **more,
    )


def speakers_of(split: CorpusSplit) -> set[str]:
    return {str(one.speaker) for one in split.supervisions}


class TestDivision:
    def test_the_test_sets_of_all_folds_are_the_whole_corpus(self) -> None:
        parts = [
            corpus_split({f"{name}{n}": name for name in names for n in range(4)}) for names in ("abcdefgh", "ij", "kl")
        ]
        tested: list[str] = []
        for fold in range(3):
            divided = folds.divide(parts, 3, fold).splits
            assert [len(divided[name].supervisions) for name in SPLITS] == [28, 4, 16]
            assert all({*one.recordings.ids} == {s.id for s in one.supervisions} for one in divided.values())
            found = [speakers_of(divided[name]) for name in SPLITS]
            assert not found[0] & found[1] and not found[0] & found[2] and not found[1] & found[2]
            tested += [one.id for one in divided["test"].supervisions]
        assert sorted(tested) == sorted(one.id for part in parts for one in part.supervisions)

    def test_bad_utterances_and_what_nobody_transcribed_count_with_train(self) -> None:
        bad = (Rejected("x", "missing audio"),)
        tape = replace(
            corpus_split({f"{name}1": name for name in "abcd"}, rejected=bad, excluded={"tone": 2}),
            recordings=RecordingSet.from_recordings(
                Recording(name, [], 16000, 16000, 1.0) for name in ("a1", "b1", "c1", "tape")
            ),
        )
        divided = folds.divide([tape, corpus_split({"e1": "e"}, excluded={"tone": 1})], 2, 0).splits
        assert divided["train"].rejected == bad and divided["train"].excluded == {"tone": 3}
        assert "tape" in divided["train"].recordings.ids
        # A transcript without audio stays where its speaker is: validation reports it there.
        assert sorted(one.id for split in divided.values() for one in split.supervisions) == [
            *("a1", "b1", "c1", "d1", "e1")
        ]

    def test_utterances_of_unknown_speakers_train_in_every_fold(self) -> None:
        whole = corpus_split({"a1": "a", "b1": "b", "c1": "c", "u1": "", "u2": ""})
        for fold in range(3):
            divided = folds.divide([whole], 3, fold)
            assert {"u1", "u2"} < {one.id for one in divided.splits["train"].supervisions}
            assert sum(map(len, divided.speakers.values())) == 3

    def test_copies_are_of_one_speaker_and_are_not_tested(self) -> None:
        originals = {f"sp0.9-{name}": name for name in "abcdef"}
        whole = corpus_split(
            {**{name: f"of_{name}" for name in "abcdef"}, **{one: f"sp0.9-{one}" for one in originals}}
        )
        for fold in range(3):
            divided = folds.divide([whole], 3, fold, originals=originals).splits
            held_out = {one.id for name in ("dev", "test") for one in divided[name].supervisions}
            trained = {one.id for one in divided["train"].supervisions}
            assert len(held_out) == 3 and not held_out & originals.keys()
            assert not {originals.get(one, one) for one in trained} & held_out
            assert len(trained) == 6 and divided["train"].excluded == {folds.COPIES: 3}

    def test_a_corpus_of_one_speaker_has_no_folds(self) -> None:
        with pytest.raises(InputError, match=r"--folds 3: expected at least 3 speakers, found 1 \(allison\)"):
            folds.divide([corpus_split({"u1": "allison"})], 3, 0)


@pytest.fixture
def options(tmp_path: Path) -> SpeechOptions:
    (tmp_path / "corpus").mkdir()
    return SpeechOptions(corpus_dir=tmp_path / "corpus", exp_dir=tmp_path / "exp", folds=3)


class TestSteps:
    def test_each_fold_has_the_steps_of_a_run(self, options: SpeechOptions) -> None:
        steps = build_steps(CORPUS, options, "run.sh")
        names = [step.name for step in steps]
        one_run = [step.name for step in build_steps(CORPUS, replace(options, folds=None), "run.sh")]
        expected = [f"fold_{fold}/{name}" for fold in range(3) for name in one_run]
        assert names == ["corpus", *expected, "score", "report"]
        for number, step in enumerate(steps):
            assert set(step.inputs) <= set(names[:number]), step.name
        by_name = {step.name: step for step in steps}
        assert by_name["fold_1/corpus"].inputs == ("corpus",)
        assert {"fold_0/score", "fold_2/decode/distilled", "fold_1/manifests/test"} <= set(by_name["score"].inputs)
        assert by_name["fold_2/teachers/0"].networks_only and by_name["fold_2/teachers/0"].torchrun

    def test_without_folds_nothing_changes(self, options: SpeechOptions) -> None:
        """An option of the folds is in no stamp but those of the folds and of what has all options."""
        plain = replace(options, folds=None)
        stamps = step_stamps(build_steps(CORPUS, plain, "run.sh"))
        other = step_stamps(build_steps(CORPUS, replace(plain, fold_seed=1), "run.sh"))
        assert {name for name in stamps if stamps[name] != other[name]} == {"score", "report"}

    @pytest.mark.parametrize("change", [{"folds": 4}, {"fold_seed": 1}])
    def test_another_division_is_seen_by_every_fold(self, change: dict[str, int], options: SpeechOptions) -> None:
        before, after = (
            step_stamps(build_steps(CORPUS, one, "run.sh")) for one in (options, replace(options, **change))
        )
        assert {name for name in before if before[name] == after[name]} == {"corpus"}

    def test_another_seed_has_the_same_folds(self, options: SpeechOptions) -> None:
        before, after = (step_stamps(build_steps(CORPUS, replace(options, seed=seed), "run.sh")) for seed in (0, 1))
        assert before["fold_2/features/train"] == after["fold_2/features/train"]
        assert before["fold_2/teachers/0"] != after["fold_2/teachers/0"]

    def test_a_fold_or_one_of_its_steps_is_listed_alone(self, options: SpeechOptions) -> None:
        steps = build_steps(CORPUS, options, "run.sh")
        alone = list_steps(steps, options.exp_dir, StageRange(only="fold_2/teachers/0"))
        assert len(alone) == 1 and alone[0].split()[:2] == ["6", "fold_2/teachers/0"]
        whole = list_steps(steps, options.exp_dir, StageRange(only="fold_2"))
        assert len(whole) == (len(steps) - 3) / 3 and all(" fold_2/" in line for line in whole)

    def test_each_fold_has_its_options_as_a_run(self, options: SpeechOptions) -> None:
        options.exp_dir.mkdir()
        folds.save_configs(options)
        for fold in range(3):
            folder = options.exp_dir / f"fold_{fold}"
            assert options_of_run(folder) == replace(options, exp_dir=folder)
        assert options_of_run(options.exp_dir) == options

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ("--folds=1", "--folds: expected at least 2, found 1"),
            ("--folds=3 --posteriors-from=store", "--folds: expected no --posteriors-from"),
            ("--fold-seed=1", "--fold-seed: it has no effect without --folds"),
        ],
    )
    def test_folds_that_cannot_be_run_are_refused(self, arguments: str, message: str) -> None:
        with pytest.raises(InputError, match=f"^{message}"):
            config.parse(SpeechOptions(), arguments.split(), "recipe", "")


def test_audio_is_read_once_for_all_folds(tiny: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages 0 and 1 of real folds; the test sets are all of the corpus but its bad utterance."""
    recipe = runpy.run_path(str(tiny.script))
    if recipe["CORPUS"].name != "an4":
        pytest.skip("the other corpus has one speaker")
    options = replace(
        recipe["DEFAULT"], corpus_dir=tiny.corpus_dir, exp_dir=tmp_path / "exp", max_bad=0.05, folds=3, num_jobs=1
    )
    read: list[str] = []
    check: Callable[[Recording], Any] = validate._check_samples
    monkeypatch.setattr(validate, "_check_samples", lambda one: read.append(one.id) or check(one))
    prepare_corpus(recipe["CORPUS"], {}, options, step_folder(options, "corpus"))
    whole = [one.id for split in SPLITS for one in load_split(RunFolders(options.exp_dir).corpus(split)).supervisions]
    tested: list[str] = []
    for fold, one in enumerate(options_of_folds(options)):
        folds.divide_corpus(options, fold, step_folder(one, "corpus"))
        for split in SPLITS:
            make_manifests(folds._of_fold(recipe["CORPUS"], fold), split, one, step_folder(one, f"manifests/{split}"))
        tested += [s.id for s in load_split(RunFolders(one.exp_dir).manifests("test")).supervisions]
        rejected = [
            row["utt_id"]
            for name in SPLITS
            for row in read_json(RunFolders(one.exp_dir).manifests(name) / "rejected.json")
        ]
        assert len(rejected) == 1
    assert sorted([*tested, *rejected]) == sorted(whole)
    # The bad one is no known good audio: each fold reads it again.
    assert sorted(read) == sorted([*whole, *rejected * 2])


SYSTEMS = {"baseline": 0.35, "baseline_dropout": 0.32, "ensemble": 0.2, "distilled": 0.25}


class MadeUp:
    """Two folds of three speakers with five utterances each, and systems that garble a share of the words."""

    def __init__(self, options: SpeechOptions) -> None:
        self.options = options
        rng = np.random.default_rng(0)
        self.speakers = {f"{name}{n}": name for name in "fabced" for n in range(5)}
        self.refs = {utt_id: list(rng.choice(["GO", "STOP", "LEFT"], 6)) for utt_id in self.speakers}
        self.hyps = {
            name: {
                utt_id: [word if rng.random() > rate else "RIGHT" for word in words]
                for utt_id, words in self.refs.items()
            }
            for name, rate in SYSTEMS.items()
        }
        self.correct = {name: rng.binomial(50, 1 - rate, 30).astype(float) for name, rate in SYSTEMS.items()}
        self.by_fold = [list(self.speakers)[:15], list(self.speakers)[15:]]

    def scored(self, run: Any, utt_ids: list[str], size: int = 100) -> Scored:
        refs = {one: self.refs[one] for one in utt_ids}
        hyps = {one: self.hyps[run.system][one] for one in utt_ids}
        errors = wer(refs, hyps)
        return Scored(
            run,
            self.frames(run.system, utt_ids),
            errors,
            {"test": errors},
            {"test": cer(refs, hyps)},
            {"test": 0.1},
            size,
            7,
        )

    def frames(self, system: str, utt_ids: list[str]) -> FrameMetrics:
        rows = [list(self.speakers).index(one) for one in utt_ids]
        correct = self.correct[system][rows]
        frames = np.full(len(rows), 50.0)
        return FrameMetrics(
            UtteranceMetric("frame_accuracy", tuple(utt_ids), correct, frames, higher_is_better=True),
            UtteranceMetric("cross_entropy", tuple(utt_ids), 50 - correct, frames),
        )

    def folds(self) -> folds_results.Folds:
        scored = {
            run: [self.scored(run, utt_ids, 100 + 10 * fold) for fold, utt_ids in enumerate(self.by_fold)]
            for run in folds_results.combined_runs(self.options)
        }
        refs = [{one: self.refs[one] for one in utt_ids} for utt_ids in self.by_fold]
        split = {"utterances": 15, "speakers": 3, "hours": 0.5, "words": 90, "copies": 1, "frames": 750}
        result = {
            "systems": {name: {"description": "2×64"} for name in SYSTEMS},
            "comparisons": [{"a": "distilled", "b": "baseline"}, {"a": "ensemble", "b": "teacher_0"}],
            "baselines": [
                {"system": name, "dev_cross_entropy": loss}
                for name, loss in (("baseline", 0.8), ("baseline_dropout", 0.7), (None, 0.1))
            ],
            "corpus": {"train": split, "dev": split, "test": split},
            "oov_rate": {"test": 0.1},
            "excluded": {},
            "rejected": [["bad", "silence"]],
            "unaligned": [{"split": "train", "utt_id": "x"}],
            "doubtful": [],
            "training_environment": {},
            "tuning": [{"acoustic_scale": 0.1, "lm_scale": 1.0, "insertion_score": 0.0, "wer": 3.0, "chosen": True}],
            "worst_utterances": [],
        }
        return folds_results.Folds(
            options_of_folds(self.options), [result, cast(dict[str, Any], result)], self.speakers, refs, scored
        )


def test_folds_are_scored_together_by_speakers(
    options: SpeechOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = replace(options, folds=2)
    made_up = MadeUp(options)
    monkeypatch.setattr(folds_results.Folds, "of", lambda corpus, options: made_up.folds())
    monkeypatch.setattr(folds_results, "training_provenance", lambda folders: {"device": f"{len(folders)} networks"})
    for one in options_of_folds(options):
        names = {"test": ["a", "b", "c"], "dev": ["d"], "train": ["e", "f"]}
        write_json(step_folder(one, "corpus") / "fold.json", {"speakers": names, "words": {}})
    folds_results.score(CORPUS, "run.sh --folds 2", [], options, tmp_path)
    results = read_json(tmp_path / "results.json")
    assert list(results["systems"]) == ["ensemble", "baseline", "baseline_dropout", "distilled"]
    assert not any(run.system.startswith("teacher") for run in folds_results.combined_runs(options))
    assert len(folds_results.combined_runs(options)) == len(runs(options)) - options.ensemble.size
    whole = {name: wer(made_up.refs, made_up.hyps[name]) for name in SYSTEMS}
    for name, system in results["systems"].items():
        assert system["wer"]["percent"] == pytest.approx(whole[name].percent)
        assert system["wer"]["words"] == 180 and system["parameters"] == 105 and system["rtf"] == pytest.approx(0.1)
        assert system["frame_accuracy"] == pytest.approx(made_up.correct[name].sum() / 1500)
    blocks = {name: by_speaker(errors.metric, made_up.speakers) for name, errors in whole.items()}
    expected = compare(("distilled", blocks["distilled"]), ("baseline", blocks["baseline"]), NUM_REPLICATES)
    row = next(row for row in results["comparisons"] if row["metric"] == "wer")
    assert row == expected.as_json() and {one["b"] for one in results["comparisons"]} == {"baseline"}
    strongest = results["strongest_baseline"]
    assert strongest["system"] == "baseline_dropout" and strongest["gap_recovered"].keys() >= {"wer", "frame_accuracy"}
    assert [one["speaker"] for one in results["speakers"]] == list("fabced")
    assert sum(one["errors"]["distilled"] for one in results["speakers"]) == whole["distilled"].errors
    assert [one["fold"] for one in results["speakers"]] == [0, 0, 0, 1, 1, 1]
    assert results["corpus"] == {"test": {"utterances": 30, "speakers": 6, "hours": 1.0, "words": 180, "frames": 1500}}
    assert results["rejected"] == [["bad", "silence"]] and results["unaligned"] == []
    write_json(step_folder(options, "score") / "results.json", results)
    monkeypatch.setattr(folds_results, "load_split", lambda folder: corpus_split({}))
    folds_results.report(options, tmp_path)
    markdown = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert "## Folds" in markdown and "Intervals are over speakers." in markdown
    fewer = sum(row["errors"]["distilled"] < row["errors"]["baseline"] for row in results["speakers"])
    assert f"Of 6 speakers, distilled makes fewer errors with {fewer} and more with" in markdown
    assert "Caution: Intervals are over 6 speakers only" in markdown
    assert "95% intervals over speakers" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_fold_alone_has_the_figures_of_its_run(
    tiny: TinyRecipe, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outputs of a real run, combined as if it were the only fold, and then as if it were two."""
    recipe = runpy.run_path(str(tiny.script))
    default = recipe["DEFAULT"]
    options = replace(
        default,
        exp_dir=tmp_path / "exp",
        folds=2,
        ensemble=replace(default.ensemble, size=2),
        students=StudentsOptions(),
    )
    shutil.copytree(finished, options.exp_dir / "fold_0")
    write_json(options.exp_dir / "fold_0" / "corpus" / "fold.json", {"speakers": {name: ["a"] for name in SPLITS}})
    monkeypatch.setattr(folds_results, "options_of_folds", lambda options: options_of_folds(options)[:1])
    folds_results.score(recipe["CORPUS"], "run.sh", [], options, tmp_path)
    whole, run = (read_json(folder / "results.json") for folder in (tmp_path, finished / "score"))
    assert whole["systems"].keys() == {"ensemble", "baseline", "baseline_dropout", "distilled"}
    for name, system in whole["systems"].items():
        for key in ("percent", "ins", "del", "sub", "words"):
            assert system["wer"][key] == run["systems"][name]["wer"][key]
        for key in ("frame_accuracy", "cross_entropy", "rtf", "parameters", "description"):
            assert system[key] == pytest.approx(run["systems"][name][key]), (name, key)
    assert {(row["a"], row["b"]) for row in whole["comparisons"]} == {
        (row["a"], row["b"]) for row in run["comparisons"]
    }
    worst = [{(row["utt_id"], row["system"], row["errors"]) for row in one["worst_utterances"]} for one in (whole, run)]
    assert worst[0] == {row for row in worst[1] if row[1] in whole["systems"]}
    assert whole["oov_rate"]["test"] == run["oov_rate"]["test"]
    shutil.copytree(options.exp_dir / "fold_0", options.exp_dir / "fold_1")
    monkeypatch.setattr(folds_results, "options_of_folds", options_of_folds)
    with pytest.raises(InputError, match="fold_1: expected test utterances of no other fold, found"):
        folds_results.score(recipe["CORPUS"], "run.sh", [], options, tmp_path)
