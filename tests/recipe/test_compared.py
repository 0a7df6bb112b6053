"""Two results side by side: what is read of folders, which utterances count, and what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from decoded_folder import decoded_folder, finish

from asrkd.align import Alignment
from asrkd.commands import main as cli
from asrkd.errors import InputError
from asrkd.files import write_json
from asrkd.hmm.tree import SenoneTree
from asrkd.recipe.compared import compare_results
from asrkd.recipe.folders import TREE_FILE, RunFolders
from asrkd.recipe.scoring import Scoring
from asrkd.report.compared import comparison_text

REFS = {f"u{n}": "A B C D" for n in range(24)}
SPEAKERS = {utt_id: f"s{n % 3}" for n, utt_id in enumerate(REFS)}
WORSE = {utt_id: "A X C D" if n % 2 else "A B C D E" for n, utt_id in enumerate(REFS)}
BETTER = {**WORSE, **{f"u{n}": "A B C D" for n in range(12)}, "u23": "B C D"}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return decoded_folder(tmp_path / "old", REFS, {"baseline": WORSE, "distilled": BETTER}, SPEAKERS)


def test_two_systems_of_one_folder(old: Path) -> None:
    found = compare_results(str(old), None, ["baseline", "distilled"], common=False).as_json()
    assert (found["a"]["label"], found["b"]["label"]) == (f"{old}:baseline", f"{old}:distilled")
    assert (found["a"]["wer"]["percent"], found["b"]["wer"]["percent"]) == (25.0, pytest.approx(100 * 12 / 96))
    assert found["delta"] == found["bootstrap_by_utterance"]["delta"] == found["bootstrap_by_speaker"]["delta"] == -12.5
    assert (found["utterances"], found["speakers"], found["unit"]) == (24, 3, "word")
    changes = found["changes"]
    assert (changes["right_to_wrong"], changes["wrong_to_right"]) == (1, 7)
    assert changes["lost"] == [{"ref": "A", "hyp": None, "times": 1, "utt_ids": ["u23"]}]
    gained = [(row["ref"], row["hyp"], row["times"]) for row in changes["gained"]]
    assert gained == [("B", "X", 7), (None, "E", 6)], "u23 too has B now"


def test_the_text_says_what_differs_and_that_few_speakers_say_little(old: Path) -> None:
    text = comparison_text(compare_results(f"{old}:baseline", str(old), [], common=False).as_json())
    assert "24 utterances of 3 speakers." in text
    assert "matched pairs (MAPSSWE)" in text and "bootstrap by speaker" in text and "B better" in text
    assert "3 speakers only" in text and "not to be trusted" in text
    rows = [line.split(maxsplit=3) for line in text.splitlines()]
    assert ["B", "X", "7", "u1, u3, u5"] in rows and ["—", "E", "6", "u0, u2, u4"] in rows


def test_one_speaker_is_not_drawn(tmp_path: Path) -> None:
    folder = decoded_folder(tmp_path / "one", REFS, {"a": WORSE, "b": BETTER}, dict.fromkeys(REFS, "s"))
    found = compare_results(str(folder), None, ["a", "b"], common=False).as_json()
    assert found["bootstrap_by_speaker"] is None
    assert "One speaker: no interval" in comparison_text(found)


def test_utterances_of_one_side_are_refused_or_counted(old: Path, tmp_path: Path) -> None:
    fewer = {utt_id: text for utt_id, text in REFS.items() if utt_id not in ("u3", "u4")}
    part = decoded_folder(tmp_path / "part", fewer, {"distilled": {one: BETTER[one] for one in fewer}}, SPEAKERS)
    with pytest.raises(InputError, match=r"u3, u4: expected the same utterances in both, found 2 in .*old:distilled"):
        compare_results(str(old), str(part), [], common=False)
    found = compare_results(str(part), str(old), [], common=True).as_json()
    assert found["excluded"] == {"a": 0, "b": 2} and found["utterances"] == 22 and found["delta"] == 0
    assert "22 utterances of 3 speakers, without 2 that B alone has." in comparison_text(found)


def test_other_utterances_other_references_and_other_rules_are_refused(old: Path, tmp_path: Path) -> None:
    others = {f"x{utt_id}": text for utt_id, text in REFS.items()}
    speakers = dict.fromkeys(others, "s")
    other = decoded_folder(tmp_path / "other", others, {"distilled": others}, speakers)
    with pytest.raises(InputError, match=r"found none in both \(the first are u0 and xu0\)"):
        compare_results(str(old), str(other), [], common=True)
    changed = {**REFS, "u7": "A B C E"}
    edited = decoded_folder(tmp_path / "edited", changed, {"distilled": BETTER}, SPEAKERS)
    with pytest.raises(InputError, match=r"^u7: expected the same reference in .* found 'A B C D' and 'A B C E'"):
        compare_results(str(old), str(edited), [], common=False)
    folded = decoded_folder(tmp_path / "folded", REFS, {"distilled": BETTER}, SPEAKERS)
    finish(folded / "score", {"scoring": Scoring(folds={"A": "B"}).rules})
    with pytest.raises(InputError, match="errors counted as in"):
        compare_results(str(old), str(folded), [], common=False)


def test_folds_are_one_test_set(old: Path, tmp_path: Path) -> None:
    for fold in range(2):
        mine = [utt_id for n, utt_id in enumerate(REFS) if n % 2 == fold]
        refs, words = {one: REFS[one] for one in mine}, {one: BETTER[one] for one in mine}
        decoded_folder(tmp_path / "cv" / f"fold_{fold}", refs, {"distilled": words}, SPEAKERS)
    found = compare_results(str(tmp_path / "cv"), str(old), [], common=False).as_json()
    assert found["utterances"] == 24 and found["delta"] == 0 and found["excluded"] == {"a": 0, "b": 0}


def test_the_command_prints_text_or_json(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", str(old), "--systems", "baseline", "distilled", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["delta"] == -12.5
    assert cli.main(["compare", f"{old}:baseline", f"{old}:distilled"]) == 0
    assert "−12.50" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["OLD"], "expected a second result to compare it with, or two --systems of it, found none"),
        (["OLD", "--systems", "baseline"], "found baseline"),
        (["OLD", "OLD", "--systems", "a", "b", "c"], "expected one or two names"),
        (["OLD:baseline", "OLD", "--systems", "distilled"], "expected one or two names, or FOLDER:SYSTEM"),
        (["OLD:destilled", "OLD"], "the nearest is distilled"),
        (["OLD", "OLD", "--systems", "basline"], "the nearest is baseline"),
        (["nowhere", "OLD"], "nowhere: expected the folder of a run or of `asrkd decode`, found none"),
        (["OLD/decode", "OLD"], "found no output of its scoring"),
        ([], "expected A, found none"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str], message: str, old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["compare", *(argument.replace("OLD", str(old)) for argument in arguments)])
    captured = capsys.readouterr()
    assert exit_.value.code == 2 and captured.out == ""
    assert captured.err.count("\n") == 1 and message in captured.err


PHONES = ("SIL", "A")


def with_frames(folder: Path, correct: dict[str, int], phone: str = "A") -> Path:
    """The folder with frame labels and frame scores: ten frames an utterance, so many correct, and as many nats less
    than ten."""
    folders, names = RunFolders(folder), list(REFS)
    tree = SenoneTree.monophone(PHONES)
    folders.tree.mkdir(exist_ok=True)
    tree.save(folders.tree / TREE_FILE)
    frames = 10 * len(names)
    phones = torch.full((frames,), PHONES.index(phone), dtype=torch.int16)
    offsets = torch.arange(0, frames + 1, 10)
    zeros = (torch.zeros(frames, dtype=torch.int8), torch.zeros(frames, dtype=torch.int32))
    like = torch.zeros(len(names), dtype=torch.float64)
    alignment = Alignment(tuple(names), offsets, phones, *zeros, PHONES, "x", like)
    folders.alignment("test").parent.mkdir(parents=True, exist_ok=True)
    alignment.save(folders.alignment("test"))
    for system, number in correct.items():
        rows = {"frames": [10] * len(names), "correct": [number] * len(names), "nats": [10.0 - number] * len(names)}
        write_json(folder / "decode" / system / "frames.json", {"utt_ids": names, **rows})
    return folder


def ceiling_run(tmp_path: Path, **options: str) -> Path:
    folder = decoded_folder(tmp_path / "all", REFS, {"distilled": REFS}, SPEAKERS)
    return with_frames(folder, {"distilled": 9}, **options)


def test_frames_of_equal_labels_are_compared(old: Path) -> None:
    with_frames(old, {"baseline": 5, "distilled": 6})
    found = compare_results(str(old), None, ["baseline", "distilled"], common=False).as_json()
    rows = {row["metric"]: row for row in found["frames"]}
    assert [rows["frame_accuracy"][side] for side in ("a", "b")] == [0.5, 0.6]
    assert rows["cross_entropy"]["bootstrap_by_utterance"]["delta"] == pytest.approx(-0.1)
    assert rows["frame_accuracy"]["bootstrap_by_speaker"]["ci95"] == pytest.approx([0.1, 0.1])
    assert found["way"] is None and "frame accuracy, %" in comparison_text(found)


def test_the_share_of_the_way_to_a_ceiling(old: Path, tmp_path: Path) -> None:
    """(0.6 - 0.5) / (0.9 - 0.5) of the frames; (12.5 - 25) / (0 - 25) of the words."""
    with_frames(old, {"baseline": 5, "distilled": 6})
    found = compare_results(str(old), None, ["baseline", "distilled"], False, str(ceiling_run(tmp_path))).as_json()
    shares = {row["metric"]: row for row in found["way"]["shares"]}
    assert [shares["frame_accuracy"][side] for side in ("a", "b", "ceiling")] == [0.5, 0.6, 0.9]
    for metric, expected in (("frame_accuracy", 0.25), ("cross_entropy", 0.25), ("wer", 0.5)):
        assert shares[metric]["by_utterance"]["value"] == pytest.approx(expected)
        assert shares[metric]["by_speaker"]["value"] == pytest.approx(expected)
    assert shares["frame_accuracy"]["by_utterance"]["ci95"] == pytest.approx([0.25, 0.25])
    text = comparison_text(found)
    assert f"The share of the way from A to {tmp_path / 'all'}:distilled that B goes:" in " ".join(text.split())
    assert ["frame", "accuracy", "50.00", "60.00", "90.00", "25%"] in [line.split()[:6] for line in text.splitlines()]


def test_seeds_count_with_their_mean(tmp_path: Path) -> None:
    """Accuracies of 0.6 and 0.8, and error rates of 25 and 0; the words that changed are those of the first seed."""
    systems = {"baseline": WORSE, "distilled": WORSE, "distilled_seed1": REFS, "distilled_256": REFS}
    folder = decoded_folder(tmp_path / "seeds", REFS, systems, SPEAKERS)
    with_frames(folder, {"baseline": 5, "distilled": 6, "distilled_seed1": 8, "distilled_256": 1})
    found = compare_results(f"{folder}:baseline", str(folder), [], False, str(ceiling_run(tmp_path))).as_json()
    assert found["seeds"] == {"a": 1, "b": 2} and found["delta"] == 0
    assert found["frames"][0]["b"] == pytest.approx(0.7)
    shares = {row["metric"]: row for row in found["way"]["shares"]}
    assert [shares["wer"][side] for side in ("a", "b", "ceiling")] == [25.0, 12.5, 0.0]
    assert shares["frame_accuracy"]["by_utterance"]["value"] == pytest.approx(0.5)
    assert "Frames and the way are means over seeds (A 1, B 2)." in comparison_text(found)


def test_frames_of_other_labels_are_not_compared(old: Path, tmp_path: Path) -> None:
    """Other senones of the same frames, as where each run grows a tree. Words are compared all the same."""
    with_frames(old, {"baseline": 5, "distilled": 6})
    other = ceiling_run(tmp_path, phone="SIL")
    found = compare_results(str(old), None, ["baseline", "distilled"], False, str(other)).as_json()
    assert len(found["frames"]) == 2 and [row["metric"] for row in found["way"]["shares"]] == ["wer"]
    assert "Frames are not compared: the three have other labels (--labels-from)." in comparison_text(found)
    assert compare_results(str(old), str(other), [], common=False).as_json()["frames"] == []


def test_a_ceiling_that_is_no_better_has_no_share_and_says_so(old: Path) -> None:
    found = compare_results(str(old), None, ["distilled", "baseline"], False, f"{old}:baseline")
    (row,) = found.as_json()["way"]["shares"]
    assert row["by_utterance"]["value"] is None
    assert "WER: the ceiling's wer 25 is no better than A's 12.5." in comparison_text(found.as_json())
