"""Untranscribed speech in a run: who sees it, what is refused, what is dropped and warned of."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from speech_stages import step_folder

from asrkd.config import parse
from asrkd.data.corpora.an4 import prepare_an4
from asrkd.data.corpora.options import UserCorpusOptions
from asrkd.data.manifests import load_split, save_split
from asrkd.data.segments import Segment, split_from_segments
from asrkd.errors import InputError
from asrkd.features.store import FrameStore
from asrkd.files import read_json
from asrkd.nnet import ExtraExamples
from asrkd.recipe import networks
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.features import make_features
from asrkd.recipe.folders import HELD_OUT, RunFolders
from asrkd.recipe.options import SpeechOptions, StudentsOptions, UserSpeechOptions
from asrkd.recipe.pipeline import build_steps
from asrkd.recipe.results import config_sha
from asrkd.recipe.students import students
from asrkd.recipe.transfer import SILENT_PIECES, make_transfer_manifests, transfer_summary
from asrkd.recipe.transfer_options import TransferOptions
from asrkd.report.run_tables import transfer_table
from asrkd.workflow.steps import step_stamps

RATE = 16000
CORPUS = Corpus("an4", prepare_an4, lambda folder: folder / "an4.dic", closed_vocabulary=True, where="get AN4")


def write_noise(path: Path, seconds: float, seed: int, silent_from: float | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).integers(-5000, 5000, int(seconds * RATE)).astype(np.int16)
    if silent_from is not None:
        samples[int(silent_from * RATE) :] = 0
    soundfile.write(path, samples, RATE)
    return path


@pytest.fixture
def options(tmp_path: Path) -> SpeechOptions:
    """A run with untranscribed speech, whose held-out utterances have manifests."""
    (tmp_path / "corpus").mkdir()
    for n in range(3):
        write_noise(tmp_path / "audio" / f"a{n}.wav", 1.0, n)
    options = SpeechOptions(corpus_dir=tmp_path / "corpus", exp_dir=tmp_path / "exp")
    for number, split in enumerate(HELD_OUT):
        path = write_noise(tmp_path / "held" / f"{split}.wav", 1.0, 90 + number)
        segment = Segment(split, path, 0.0, None, f"speaker of {split}", "GO")
        save_split(split_from_segments([segment], None), RunFolders(options.exp_dir).manifests(split))
    return replace(options, transfer=TransferOptions(recordings=tmp_path / "audio"))


def without(options: SpeechOptions) -> SpeechOptions:
    return replace(options, transfer=TransferOptions())


def stamps(options: SpeechOptions) -> dict[str, str]:
    return step_stamps(build_steps(CORPUS, options, "run.sh"))


@pytest.mark.parametrize("targets", ["stored", "online"])
def test_an_untranscribed_set_changes_nothing_in_the_labels_statistics(targets: str, options: SpeechOptions) -> None:
    """Language model, alignment, tree, priors, teachers and baselines do not depend on it, nor the other splits."""
    options = replace(options, distil=replace(options.distil, targets=targets))
    before, after = stamps(without(options)), stamps(options)
    assert after.keys() - before.keys() == {
        "manifests/transfer",
        "features/transfer",
        *(["transfer/posteriors"] if targets == "stored" else []),
    }
    changed = {name for name in before if before[name] != after[name]}
    distilled = {student.name for student in students(options) if student.distil}
    assert {name for name in changed if name.startswith("students/")} == {f"students/{name}" for name in distilled}
    assert {name.split("/")[0] for name in changed} == {"students", "choice", "decode", "score", "report"}
    assert not changed & {"decode/dev/baseline", "decode/dev/ensemble", "decode/dev/teacher_0"}


def test_other_speech_or_another_share_re_makes_distilled_students_alone(options: SpeechOptions) -> None:
    before = stamps(options)
    other_share = stamps(replace(options, transfer=replace(options.transfer, share=0.25)))
    changed = {name for name in before if before[name] != other_share[name]}
    assert "students/distilled" in changed and not changed & {"transfer/posteriors", "students/baseline"}
    write_noise(options.exp_dir.parent / "audio" / "b.wav", 1.0, 7)
    assert {name for name, stamp in stamps(options).items() if stamp != before[name]} >= {
        "manifests/transfer",
        "features/transfer",
        "transfer/posteriors",
        "students/distilled",
    }


def test_a_student_of_hard_labels_alone_does_not_read_it(options: SpeechOptions) -> None:
    options = replace(options, students=StudentsOptions(sweep_alphas=(0.0, 1.0)))
    by_name = {student.name: student for student in students(options)}
    assert by_name["distilled"].uses_transfer and by_name["sweep_T2_alpha1"].uses_transfer
    assert not by_name["sweep_T2_alpha0"].uses_transfer and not by_name["baseline_dropout"].uses_transfer


def test_folders_decide_nothing_of_the_results_and_the_set_does(options: SpeechOptions, tmp_path: Path) -> None:
    moved = replace(options, transfer=TransferOptions(recordings=tmp_path / "moved"))
    assert config_sha(options) == config_sha(moved) != config_sha(without(options))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--transfer.share=0.5"], "--transfer.share: it has no effect without --transfer.recordings: give it"),
        (
            ["--transfer.share=1", "--transfer.recordings=."],
            "--transfer.share: expected a fraction above 0 and below 1",
        ),
        (["--transfer.recordings=.", "--posteriors-from=x"], "--transfer.recordings: .* found --posteriors-from"),
        (["--transfer.transcripts=x"], "--transfer.transcripts: it has no effect without --transfer.recordings"),
        (
            ["--transfer.recordings=.", "--transfer.transcripts=x", "--transfer.confidences=y"],
            "expected --transfer.min-confidence with it, found --transfer.confidences alone",
        ),
        (
            ["--transfer.recordings=.", "--transfer.transcripts=x", "--distil.alpha=1"],
            "--transfer.transcripts: it has no effect with --distil.alpha=1",
        ),
        (
            ["--transfer.recordings=.", "--distil.alpha=0"],
            "--transfer.recordings: it has no effect with --distil.alpha=0",
        ),
    ],
)
def test_options_without_effect_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(SpeechOptions(), arguments, "run.sh", "")


def test_a_path_that_is_not_there_is_refused_before_any_stage(options: SpeechOptions) -> None:
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        stamps(replace(options, transfer=TransferOptions(recordings=Path("nowhere"))))


def make(options: SpeechOptions) -> Path:
    out_dir = step_folder(options, "manifests/transfer")
    make_transfer_manifests(options, out_dir)
    return out_dir


def test_bad_files_are_dropped_and_counted(options: SpeechOptions, capsys: pytest.CaptureFixture[str]) -> None:
    (options.exp_dir.parent / "audio" / "broken.wav").write_bytes(b"RIFF")
    write_noise(options.exp_dir.parent / "audio" / "silent.wav", 1.0, 8, silent_from=0.0)
    with pytest.raises(
        InputError, match=r"expected at most 1.0% bad utterances in transfer \(--max-bad\), found 2 of 5"
    ):
        make(options)
    options = replace(options, max_bad=0.5)
    out_dir = make(options)
    assert [row["utt_id"] for row in read_json(out_dir / "rejected.json")] == ["broken", "silent"]
    assert sorted(load_split(out_dir).recordings.ids) == ["a0", "a1", "a2"]
    assert "transfer: 3 pieces of 5 recordings" in capsys.readouterr().out


def test_silence_in_a_long_recording_is_excluded_and_not_counted(options: SpeechOptions) -> None:
    write_noise(options.exp_dir.parent / "audio" / "long.wav", 90.0, 8, silent_from=29.0)
    out_dir = make(options)
    split = load_split(out_dir)
    assert sorted(split.recordings.ids) == ["a0", "a1", "a2", "long-p1"] and split.excluded == {SILENT_PIECES: 2}
    make_features("transfer", options, step_folder(options, "features/transfer"))
    store = FrameStore.open(RunFolders(options.exp_dir).features("transfer"))
    assert set(store.speakers) == {"recording:a0", "recording:a1", "recording:a2", "recording:long-p1"}
    for utt_id in store.utt_ids:  # each recording is normalised separately
        assert float(store.utt(utt_id).mean(dim=0).abs().max()) < 1e-5
    summary = transfer_summary(options)
    assert summary is not None and (summary["recordings"], summary["pieces"], summary["silent"]) == (4, 4, 2)
    assert summary["hours"] == pytest.approx(33 / 3600) and summary["frames"] == 3300
    table = transfer_table({"transfer": summary})
    assert table is not None and ("recordings", "4") in table.rows and ("hours", "0.01") in table.rows
    assert transfer_table({}) is None and transfer_summary(without(options)) is None


def test_held_out_audio_in_it_is_warned_of(options: SpeechOptions, caplog: pytest.LogCaptureFixture) -> None:
    audio = options.exp_dir.parent / "audio"
    (audio / "copy.wav").write_bytes((options.exp_dir.parent / "held" / "test.wav").read_bytes())
    with caplog.at_level(logging.WARNING):
        make(options)
    assert "1 utterances of test have the same audio as others in the transfer set: test (copy)" in caplog.text
    assert "of dev" not in caplog.text


def test_held_out_segments_of_a_longer_recording_are_warned_of(
    options: SpeechOptions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A user's corpus copies its segments; the recording that they come from is compared."""
    kaldi = tmp_path / "kaldi"
    write_noise(kaldi / "talk.wav", 6.0, 70)
    speakers = ("ann", "bob", "cyd")
    (kaldi / "wav.scp").write_text("talk talk.wav\n")
    (kaldi / "segments").write_text("".join(f"{name}-1 talk {n} {n + 1}\n" for n, name in enumerate(speakers)))
    (kaldi / "text").write_text("".join(f"{name}-1 go\n" for name in speakers))
    (kaldi / "utt2spk").write_text("".join(f"{name}-1 {name}\n" for name in speakers))
    corpora = UserCorpusOptions(kaldi, segments_dir=tmp_path / "segments")
    user = UserSpeechOptions(corpora=corpora, exp_dir=options.exp_dir, transfer=options.transfer)
    with caplog.at_level(logging.WARNING):
        make(user)
    assert "same audio" not in caplog.text
    (tmp_path / "audio" / "renamed.wav").write_bytes((kaldi / "talk.wav").read_bytes())
    with caplog.at_level(logging.WARNING):
        make(user)
    assert "1 utterances of test have the same audio as others in the transfer set" in caplog.text
    assert "1 utterances of dev have the same audio as others in the transfer set" in caplog.text


def with_transcripts(options: SpeechOptions, text: str, **changes: object) -> SpeechOptions:
    path = options.exp_dir.parent / "heard.txt"
    path.write_text(text)
    return replace(options, transfer=replace(options.transfer, transcripts=path, **changes))  # type: ignore[arg-type]


def test_words_of_another_recogniser_are_those_of_their_utterances(
    options: SpeechOptions, caplog: pytest.LogCaptureFixture
) -> None:
    write_noise(options.exp_dir.parent / "audio" / "long.wav", 45.0, 8)
    (options.exp_dir.parent / "sure.txt").write_text("a0 0.9\na1 0.2\nlong 1\nghost 1\n")
    options = with_transcripts(
        options,
        "a0 go on\na1 stop\na2 wait\nlong a long one\nghost boo\n",
        confidences=options.exp_dir.parent / "sure.txt",
        min_confidence=0.5,
    )
    with caplog.at_level(logging.WARNING):
        out_dir = make(options)
    texts = {one.id: one.text for one in load_split(out_dir).supervisions}
    assert texts == {"a0": "GO ON", "a1": "", "a2": "", "long": "A LONG ONE"}  # with words, it is not cut
    assert "heard.txt: 1 of 3 utterances are not in" in caplog.text and caplog.text.count("ghost") == 1
    before, after = stamps(without(options)), stamps(options)
    assert after.keys() - before.keys() >= {"labels/transfer"}
    steps = {step.name: step for step in build_steps(CORPUS, options, "run.sh")}
    assert "labels/transfer" in steps["students/sweep_T2_alpha0.7"].inputs
    assert not any("labels/transfer" in steps[name].inputs for name in before if not name.startswith("students/"))


def test_words_of_other_speech_are_refused(options: SpeechOptions) -> None:
    with pytest.raises(InputError, match=r"heard.txt: expected utterances of .*audio, found none: ghost"):
        make(with_transcripts(options, "ghost boo\n"))


def test_a_part_of_the_transfer_set_can_have_labels() -> None:
    labels = torch.cat([torch.zeros(10, dtype=torch.long), torch.tensor([-1, -1, -1, 5])])
    frames = networks.LabelledFrames(None, None, labels, 9, "", ExtraExamples(10, 0.5))  # type: ignore[arg-type]
    assert frames.labelled_share == 0.5 + 0.5 / 4
    assert replace(frames, extra=None).labelled_share == 1.0
