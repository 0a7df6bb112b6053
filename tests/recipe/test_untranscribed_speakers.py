"""Training speakers whose transcripts are not read: who they are, who hears them, and what sees none of their words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import SupervisionSet
from lhotse.utils import fastcopy
from speech_stages import step_folder

from asrkd.config import parse
from asrkd.data.corpora.an4 import prepare_an4
from asrkd.data.manifests import load_split, save_split
from asrkd.data.segments import Segment, split_from_segments
from asrkd.data.splits import CorpusSplit, Rejected
from asrkd.errors import InputError
from asrkd.files import read_json
from asrkd.nnet import TrainOptions
from asrkd.recipe.corpus import Corpus, make_manifests
from asrkd.recipe.features import make_features
from asrkd.recipe.folders import RunFolders
from asrkd.recipe.options import SpeechOptions
from asrkd.recipe.pipeline import build_steps
from asrkd.recipe.students import student_training, students
from asrkd.recipe.transfer import make_transfer_manifests, transfer_summary
from asrkd.recipe.transfer_options import TransferOptions
from asrkd.recipe.tried import pairs
from asrkd.recipe.untranscribed import draw_speakers, transcribed_part, untranscribed_part
from asrkd.report.run_tables import transfer_table
from asrkd.workflow.steps import step_stamps

CORPUS = Corpus("an4", prepare_an4, lambda folder: folder / "an4.dic", closed_vocabulary=True, where="get AN4")
RATE = 16000
PEOPLE = [f"p{n}" for n in range(8)]
THREE_QUARTERS = TransferOptions(untranscribed=0.75)
DRAWN = draw_speakers(PEOPLE, 0.75, 0)


def training_split(folder: Path, **texts: str) -> CorpusSplit:
    """Two utterances of each of eight people, of one second of noise; `texts` are other words of some of them."""
    folder.mkdir(parents=True, exist_ok=True)
    segments = []
    for number, name in enumerate(f"{person}_{n}" for person in PEOPLE for n in range(2)):
        path = folder / f"{name}.wav"
        samples = np.random.default_rng(number).integers(-5000, 5000, RATE).astype(np.int16)
        soundfile.write(path, samples, RATE)
        segments.append(Segment(name, path, 0.0, None, name.split("_")[0], texts.get(name, "GO ON")))
    return split_from_segments(segments, None)


@pytest.fixture
def options(tmp_path: Path) -> SpeechOptions:
    """A run of a quarter of the speakers, after stage 0."""
    (tmp_path / "corpus").mkdir()
    options = SpeechOptions(corpus_dir=tmp_path / "corpus", exp_dir=tmp_path / "exp", transfer=THREE_QUARTERS)
    save_split(training_split(tmp_path / "audio"), RunFolders(options.exp_dir).corpus("train"))
    return options


def speakers_of(split: CorpusSplit) -> set[str]:
    return {str(one.speaker) for one in split.supervisions}


class TestDrawing:
    def test_it_is_a_fraction_of_the_speakers_and_a_larger_one_has_a_smaller_one(self) -> None:
        names = [f"s{n}" for n in range(67)]
        half, more = draw_speakers(names, 0.5, 0), draw_speakers(names, 0.75, 0)
        assert (len(half), len(more)) == (34, 50) and half < more
        assert draw_speakers(reversed(names), 0.5, 0) == half != draw_speakers(names, 0.5, 1)  # type: ignore[arg-type]

    @pytest.mark.parametrize(("fraction", "found"), [(0.01, "found 0 of 8"), (0.99, "found 8 of 8")])
    def test_some_speakers_are_on_each_side(self, fraction: float, found: str) -> None:
        with pytest.raises(InputError, match=rf"^--transfer.untranscribed {fraction}: .*{found}"):
            draw_speakers(PEOPLE, fraction, 0)

    def test_the_two_parts_are_all_of_the_split_and_one_has_no_words(self, tmp_path: Path) -> None:
        split = training_split(tmp_path)
        odd = [fastcopy(one, speaker="") if one.id == "p0_0" else one for one in split.supervisions]
        faults = tuple(Rejected(name, "broken") for name in ("p0_9", "p1_0"))
        split = replace(split, supervisions=SupervisionSet.from_segments(odd), rejected=faults, excluded={"rule": 3})
        options = SpeechOptions(transfer=THREE_QUARTERS)
        ours, others = transcribed_part(split, options), untranscribed_part(split, options)
        assert speakers_of(others) == DRAWN and speakers_of(ours) == {*PEOPLE, ""} - DRAWN
        for kind in ("recordings", "supervisions"):
            ids = [{one.id for one in getattr(part, kind)} for part in (ours, others, split)]
            assert ids[0] | ids[1] == ids[2] and not ids[0] & ids[1]
        assert {one.text for one in ours.supervisions} == {"GO ON"}
        assert all(not one.text and one.alignment is None for one in others.supervisions)
        assert sorted([*ours.rejected, *others.rejected], key=str) == list(faults) and ours.excluded == {"rule": 3}
        assert not others.excluded, "what a rule excludes is counted once"
        assert transcribed_part(split, SpeechOptions()) is split

    def test_copies_that_the_corpus_lists_go_with_their_speaker(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        split = training_split(tmp_path)
        renamed = [
            fastcopy(one, speaker=f"sp0.9-{one.speaker}") if str(one.id).endswith("_1") else one
            for one in split.supervisions
        ]
        originals = {f"{person}_1": f"{person}_0" for person in PEOPLE}
        monkeypatch.setattr("asrkd.recipe.untranscribed.listed_copies", lambda options: originals)
        copies = replace(split, supervisions=SupervisionSet.from_segments(renamed))
        others = untranscribed_part(copies, SpeechOptions(transfer=THREE_QUARTERS))
        assert speakers_of(others) == DRAWN | {f"sp0.9-{person}" for person in DRAWN}


def test_stage_1_reads_the_words_of_the_others_alone(
    options: SpeechOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = RunFolders(options.exp_dir)

    def contents() -> dict[str, str]:
        make_manifests(CORPUS, "train", options, step_folder(options, "manifests/train"))
        make_transfer_manifests(options, step_folder(options, "manifests/transfer"))
        names = ("train", "transfer")
        return {name: read_json(folders.manifests(name) / "content.json")["fingerprint"] for name in names}

    before = contents()
    train, transfer = (load_split(folders.manifests(name)) for name in ("train", "transfer"))
    assert speakers_of(train) == set(PEOPLE) - DRAWN and speakers_of(transfer) == DRAWN
    assert [one.text for one in transfer.supervisions] == [""] * 12
    assert "train: 4 utterances; the transcripts of 12 others are not read" in capsys.readouterr().out
    hidden, known = f"{min(DRAWN)}_0", f"{min(set(PEOPLE) - DRAWN)}_0"
    for name, differs in ((hidden, {}), (known, {"train"})):
        save_split(training_split(tmp_path / "audio", **{name: "STOP"}), folders.corpus("train"))
        after = contents()
        assert {split for split in before if before[split] != after[split]} == set(differs)


def test_their_audio_is_normalised_by_speaker_and_counted(options: SpeechOptions) -> None:
    options = replace(options, features=replace(options.features, speed_factors=(0.9, 1.0)))
    make_transfer_manifests(options, step_folder(options, "manifests/transfer"))
    make_features("transfer", options, step_folder(options, "features/transfer"))
    summary = transfer_summary(options)
    assert summary is not None
    counts = {name: summary[name] for name in ("untranscribed", "speakers", "recordings", "pieces", "frames")}
    assert counts == {"untranscribed": 0.75, "speakers": 6, "recordings": 12, "pieces": 12, "frames": 1200}
    table = transfer_table({"transfer": summary})
    assert table is not None and ("speakers of the training set", "6") in table.rows
    assert ("utterances", "12") in table.rows and "transcripts are not read" in table.note


def test_another_recogniser_can_transcribe_them(options: SpeechOptions, tmp_path: Path) -> None:
    heard = tmp_path / "heard.txt"
    heard.write_text(f"{min(DRAWN)}_1 stop\n")
    options = replace(options, transfer=replace(THREE_QUARTERS, transcripts=heard))
    make_transfer_manifests(options, step_folder(options, "manifests/transfer"))
    texts = {one.id: one.text for one in load_split(RunFolders(options.exp_dir).manifests("transfer")).supervisions}
    assert {utt_id: text for utt_id, text in texts.items() if text} == {f"{min(DRAWN)}_1": "STOP"}
    heard.write_text("ghost stop\n")
    with pytest.raises(InputError, match=r"heard.txt: expected utterances of the untranscribed speakers, found none"):
        make_transfer_manifests(options, step_folder(options, "manifests/transfer"))


def test_what_they_change_begins_with_the_training_manifests(options: SpeechOptions) -> None:
    without = step_stamps(build_steps(CORPUS, replace(options, transfer=TransferOptions()), "run.sh"))
    steps = {step.name: step for step in build_steps(CORPUS, options, "run.sh")}
    stamps = step_stamps(list(steps.values()))
    same = {name for name in without if without[name] == stamps[name]}
    assert same == {"corpus", "manifests/dev", "manifests/test", "features/dev", "features/test"}
    names = stamps.keys() - without.keys()
    assert {"manifests/transfer", "features/transfer", "transfer/posteriors"} <= names
    assert "corpus" in steps["manifests/transfer"].inputs
    assert not {name for name in steps["students/distilled_transcribed"].inputs if "transfer" in name}
    other_seed = replace(options, transfer=replace(THREE_QUARTERS, untranscribed_seed=1))
    assert step_stamps(build_steps(CORPUS, other_seed, "run.sh"))["features/transfer"] != stamps["features/transfer"]


def test_a_student_without_their_audio_stands_next_to_the_one_with_it_and_takes_as_many_steps() -> None:
    options = SpeechOptions(transfer=replace(THREE_QUARTERS, share=0.75), train=TrainOptions(epochs=6))
    by_name = {student.name: student for student in students(options)}
    with_it, without = by_name["distilled"], by_name["distilled_transcribed"]
    assert with_it.uses_transfer and not without.uses_transfer and without.choice == "choice/distilled"
    assert (student_training(with_it, options).epochs, student_training(without, options).epochs) == (6, 24)
    assert ("distilled", "distilled_transcribed") in pairs(options, "baseline")
    given = SpeechOptions(transfer=TransferOptions(recordings=Path("speech")))
    assert "distilled_transcribed" not in {student.name for student in students(given)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--transfer.untranscribed=1", "--transfer.untranscribed: expected a fraction above 0 and below 1, found 1"),
        (
            "--transfer.untranscribed=0.5 --transfer.recordings=.",
            "--transfer.untranscribed: expected no --transfer.recordings with it, found both",
        ),
        ("--transfer.untranscribed=0.5 --posteriors-from=x", "--transfer.untranscribed: expected teachers"),
        ("--transfer.untranscribed-seed=1", "--transfer.untranscribed-seed: it has no effect without"),
        ("--transfer.untranscribed=0.5 --distil.alpha=0", "--transfer.untranscribed: it has no effect with"),
    ],
)
def test_options_that_cannot_work_are_refused(arguments: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        parse(SpeechOptions(), arguments.split(), "run.sh", "")
