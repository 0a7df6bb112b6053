"""Students of a part of the training utterances: which ones, for how long, and what is shown of them."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from tiny_recipe import TinyRecipe

from asrkd.config import parse
from asrkd.errors import InputError
from asrkd.features.speeds import original_id, speed_id
from asrkd.features.store import FrameStore
from asrkd.files import read_json
from asrkd.nnet import AugmentOptions, TrainOptions
from asrkd.options import added_later
from asrkd.recipe.evaluate import runs, tuning_runs
from asrkd.recipe.fit import measured_students
from asrkd.recipe.options import SpeechOptions, StudentsOptions
from asrkd.recipe.run_options import config_sha
from asrkd.recipe.students import Student, student_training, students
from asrkd.recipe.subset import subset_frames, subset_utterances
from asrkd.recipe.transfer_options import TransferOptions
from asrkd.report.training_tables import subset_table

UTT_IDS = [speed_id(f"u{n:02}", speed) for speed in (0.9, 1.0, 1.1) for n in range(50)]


def options_with(**changes: object) -> SpeechOptions:
    chosen = StudentsOptions(subset=0.1, **changes)  # type: ignore[arg-type]
    return replace(SpeechOptions(), students=chosen, train=TrainOptions(epochs=6))


def by_name(options: SpeechOptions) -> dict[str, Student]:
    return {student.name: student for student in students(options)}


@pytest.mark.parametrize(("fraction", "expected"), [(0.1, 5), (0.5, 25), (0.99, 50), (0.001, 1)])
def test_copies_of_an_utterance_go_together(fraction: float, expected: int) -> None:
    chosen = subset_utterances(UTT_IDS, fraction, 0)
    copies = Counter(map(original_id, chosen))
    assert len(copies) == expected and set(copies.values()) == {3}
    assert chosen == [utt_id for utt_id in UTT_IDS if utt_id in set(chosen)], "they stay in order"


def test_a_larger_subset_has_the_smaller_one_and_another_seed_another_one() -> None:
    fewer, more = (set(subset_utterances(UTT_IDS, fraction, 0)) for fraction in (0.1, 0.3))
    assert fewer < more
    assert set(subset_utterances(UTT_IDS, 0.1, 1)) != fewer
    assert set(subset_utterances(reversed(UTT_IDS), 0.1, 0)) == fewer, "whatever the order"


def test_frames_of_the_subset_are_those_of_its_utterances(tmp_path: Path) -> None:
    utterances = [(utt_id, "s", "GO", torch.zeros(3 + n, 2)) for n, utt_id in enumerate(UTT_IDS[:20])]
    store = FrameStore.write(tmp_path / "store", utterances, {"frame_shift_ms": 10.0}, "x")
    options = StudentsOptions(subset=0.25)
    chosen = subset_utterances(store.utt_ids, 0.25, 0)
    frames = subset_frames(store, options)
    assert len(chosen) == 5
    assert frames.tolist() == [frame for utt_id in chosen for frame in range(*store.span(utt_id))]
    among = torch.arange(0, len(store), 2)
    assert subset_frames(store, options, among).tolist() == [frame for frame in frames.tolist() if frame % 2 == 0]


def test_the_two_students_differ_in_their_targets_alone_and_take_as_many_steps_as_the_others() -> None:
    options = options_with(soft_learning_rate=3e-3, augment=AugmentOptions(mask=0.5))
    hard, soft = (by_name(options)[name] for name in ("subset_hard", "subset_soft"))
    assert hard.distil is None and soft.distil is not None and soft.choice == "choice/distilled"
    assert (hard.model, hard.augment, hard.speech) == (soft.model, soft.augment, soft.speech)
    assert student_training(hard, options) == replace(options.train, epochs=60)
    assert student_training(soft, options) == replace(options.train, epochs=60, learning_rate=3e-3)
    shorter = options_with(subset_epochs=7)
    assert student_training(by_name(shorter)["subset_soft"], shorter).epochs == 7


def test_the_subset_alone_is_what_they_learn_from() -> None:
    options = replace(options_with(), transfer=TransferOptions(recordings=Path("speech")))
    assert by_name(options)["distilled"].uses_transfer and not by_name(options)["subset_soft"].uses_transfer


def test_every_seed_has_them_and_they_do_not_choose_the_scales() -> None:
    options = options_with(seeds=2)
    names = {run.name for run in runs(options)}
    added = {"subset_hard", "subset_soft", "subset_hard_seed1", "subset_soft_seed1"}
    assert added <= names and {run.name for run in tuning_runs(options)} == names - added
    measured = [student.name for student in measured_students(options)]
    assert measured[:4] == ["baseline", "baseline_seed1", "subset_hard", "subset_hard_seed1"] and len(measured) == 8
    assert measured_students(SpeechOptions()) == []


@dataclass(frozen=True)
class LaterOptions(SpeechOptions):
    """Options of a later version."""

    later: int = field(default=3, metadata=added_later())


def test_an_option_that_earlier_runs_did_not_have_is_in_no_fingerprint_at_its_default() -> None:
    assert config_sha(SpeechOptions()) == config_sha(LaterOptions()) != config_sha(LaterOptions(later=4))
    assert config_sha(SpeechOptions()) != config_sha(options_with()) != config_sha(options_with(subset_seed=1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--students.subset=1", "--students.subset: expected a fraction above 0 and below 1, found 1"),
        ("--students.subset=0.1 --students.subset-epochs=0", "--students.subset-epochs: expected at least 1, found 0"),
        ("--students.subset-seed=1", "--students.subset-seed: it has no effect without --students.subset: give it"),
    ],
)
def test_options_that_cannot_work_are_refused(arguments: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        parse(SpeechOptions(), arguments.split(), "run.sh", "")


def test_the_table_has_training_and_test_figures_side_by_side() -> None:
    row = {"system": "subset_hard", "speech": "subset", "targets": "hard", "utterances": 28, "frames": 9000}
    system = {"frame_accuracy": 0.445, "cross_entropy": 2.5, "wer": {"percent": 30.0, "ins": 1, "del": 2, "sub": 3}}
    results = {
        "subset": {
            "fraction": 0.03,
            "seed": 0,
            "rows": [{**row, "train_frame_accuracy": 0.673, "train_cross_entropy": 1.25}],
        },
        "systems": {"subset_hard": {**system, "wer": {**system["wer"], "words": 20}}},  # type: ignore[dict-item]
    }
    table = subset_table(results)
    assert table is not None
    assert table.rows == (("subset_hard", "hard", "3%", "28", "67.30", "44.50", "1.2500", "2.5000", "30.00"),)
    assert subset_table({"systems": {}}) is None


@pytest.mark.slow
def test_a_subset_is_overfitted_on_hard_labels_and_less_on_soft_targets(
    tiny: TinyRecipe, finished: Path, tmp_path: Path
) -> None:
    """The paper's section 6.1 on a tiny run, whose other systems stay as they are, to the bit."""
    exp = Path(shutil.copytree(finished, tmp_path / "exp"))
    done = tiny.run(exp, "--students.subset=0.3")
    assert done.returncode == 0, done.stderr[-2000:]
    for step in ("students/baseline", "choice/distilled", "decode/tuning", "decode/distilled"):
        assert read_json(exp / step / "stamp.json") == read_json(finished / step / "stamp.json")
    results = read_json(exp / "results.json")
    rows = {row["system"]: row for row in results["subset"]["rows"]}
    assert list(rows) == ["baseline", "subset_hard", "subset_soft", "distilled"]
    assert rows["baseline"]["utterances"] == results["corpus"]["train"]["utterances"]
    assert rows["subset_hard"]["utterances"] == round(0.3 * rows["baseline"]["utterances"])
    assert rows["subset_hard"]["frames"] == rows["subset_soft"]["frames"] < 0.5 * rows["baseline"]["frames"]
    hard, soft = (results["systems"][name]["cross_entropy"] for name in ("subset_hard", "subset_soft"))
    assert rows["subset_hard"]["train_cross_entropy"] < rows["subset_soft"]["train_cross_entropy"] < soft < hard
    assert "30% of the utterances, 10 epochs" in results["systems"]["subset_soft"]["description"]
    assert {("subset_soft", "subset_hard")} <= {(row["a"], row["b"]) for row in results["comparisons"]}
    assert "Part of the training speech" in (exp / "report" / "RESULTS.md").read_text()
    assert "Part of the training speech" in (exp / "report" / "report.html").read_text()
