"""A corpus of one's own: manifests and Kaldi directories, what is wrong with them, `asrkd init`, and a whole run."""

from __future__ import annotations

import gzip
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from lhotse import AudioSource, CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from real_speech import Utterance
from speech_stages import step_folder

from asrkd.commands import main as cli
from asrkd.data.audio import make_supervision, probe, read_samples
from asrkd.data.corpora.user import UserCorpusOptions, prepare_user_corpus, user_corpus_audio, user_corpus_files
from asrkd.data.hold_out import held_out_speakers
from asrkd.data.manifests import save_split
from asrkd.data.splits import CorpusSplit
from asrkd.data.validate import validate
from asrkd.errors import InputError
from asrkd.files import read_json
from asrkd.lang.lexicon import Lexicon
from asrkd.lang.options import LangOptions
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.folders import HELD_OUT, RunFolders
from asrkd.recipe.lang import held_out_words, make_lexicon
from asrkd.recipe.new_recipe import write_recipe
from asrkd.recipe.options import SpeechOptions

SPEAKERS = ("ann", "bob", "cyd", "dan", "eve")
RATE = 16000
ENVIRONMENT = {**os.environ, "ASRKD_PYTHON": sys.executable}


def noise(seed: int, seconds: float = 0.5) -> np.ndarray:
    return np.random.default_rng(seed).integers(-5000, 5000, int(seconds * RATE)).astype(np.int16)


def write_kaldi(folder: Path, speakers: Sequence[str] = SPEAKERS) -> Path:
    """A Kaldi data directory of two utterances a speaker. The first has all words, so that every split has them."""
    folder.mkdir(parents=True)
    utterances = [(f"{speaker}-{number}", speaker) for speaker in speakers for number in (1, 2)]
    for seed, (utt_id, _) in enumerate(utterances):
        soundfile.write(folder / f"{utt_id}.wav", noise(seed), RATE)
    (folder / "wav.scp").write_text("".join(f"{utt_id} {utt_id}.wav\n" for utt_id, _ in utterances))
    names = " ".join(SPEAKERS)
    texts = [f"{utt_id} go {names if utt_id.endswith('1') else speaker}\n" for utt_id, speaker in utterances]
    (folder / "text").write_text("".join(texts))
    (folder / "utt2spk").write_text("".join(f"{utt_id} {speaker}\n" for utt_id, speaker in utterances))
    return folder


def write_manifests(folder: Path, kaldi: Path) -> tuple[Path, Path]:
    """The same as Lhotse manifests."""
    splits = prepare_user_corpus(kaldi, UserCorpusOptions(kaldi))
    recordings, supervisions = folder / "recordings.jsonl.gz", folder / "supervisions.jsonl.gz"
    RecordingSet.from_recordings(r for split in splits.values() for r in split.recordings).to_file(recordings)
    SupervisionSet.from_segments(s for split in splits.values() for s in split.supervisions).to_file(supervisions)
    return recordings, supervisions


@pytest.fixture
def kaldi(tmp_path: Path) -> Path:
    return write_kaldi(tmp_path / "kaldi")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_kaldi_and_lhotse_give_the_same_splits(kaldi: Path, tmp_path: Path) -> None:
    options = UserCorpusOptions(kaldi, num_dev_speakers=1, num_test_speakers=2)
    recordings, supervisions = write_manifests(tmp_path, kaldi)
    by_kaldi = prepare_user_corpus(kaldi, options)
    by_lhotse = prepare_user_corpus(
        tmp_path, UserCorpusOptions(recordings, supervisions, num_dev_speakers=1, num_test_speakers=2)
    )
    for name, split in by_kaldi.items():
        assert split.texts() == by_lhotse[name].texts()
        assert list(split.recordings) == list(by_lhotse[name].recordings)
    speakers = {name: {s.speaker for s in split.supervisions} for name, split in by_kaldi.items()}
    assert speakers["test"] == held_out_speakers(SPEAKERS, 2)
    assert speakers["dev"] == held_out_speakers(set(SPEAKERS) - speakers["test"], 1)
    assert speakers["train"] == set(SPEAKERS) - speakers["test"] - speakers["dev"]
    assert by_kaldi["train"].texts()[0][0] == "GO"
    assert user_corpus_files(options) == [kaldi / name for name in ("wav.scp", "text", "utt2spk")]


def test_named_dev_and_test_leave_all_speakers_to_training(kaldi: Path, tmp_path: Path) -> None:
    others = [write_kaldi(tmp_path / name, (name,)) for name in ("fay", "gus")]
    splits = prepare_user_corpus(kaldi, UserCorpusOptions(kaldi, dev_recordings=others[0], test_recordings=others[1]))
    assert [sorted({s.speaker for s in split.supervisions}) for split in splits.values()] == [
        list(SPEAKERS),
        ["fay"],
        ["gus"],
    ]
    with pytest.raises(InputError, match="utterance ann-1: expected it once, found it in train and dev"):
        prepare_user_corpus(kaldi, UserCorpusOptions(kaldi, dev_recordings=kaldi, test_recordings=others[1]))


@pytest.mark.parametrize(("form", "subtype"), [("kaldi", "FLOAT"), ("lhotse", "PCM_16")])
def test_segments_of_a_recording_are_copied_to_separate_files(
    kaldi: Path, tmp_path: Path, form: str, subtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`quiet` is a recording that is in no other table."""
    monkeypatch.chdir(tmp_path)
    long = noise(99, 4.0)
    soundfile.write(kaldi / "long.wav", long / 32768, RATE, subtype=subtype)
    starts = {f"{speaker}-{n}": 0.5 * i + 0.1 * n for i, speaker in enumerate(SPEAKERS) for n in (1, 2)}
    times = {utt_id: (start, start + 0.2) for utt_id, start in starts.items()}
    if form == "kaldi":
        (kaldi / "wav.scp").write_text("tape kaldi/long.wav\nquiet kaldi/ann-1.wav\n")
        (kaldi / "segments").write_text("".join(f"{utt_id} tape {a} {b}\n" for utt_id, (a, b) in times.items()))
        options = UserCorpusOptions(Path("kaldi"), segments_dir=Path("segments"))
    else:
        source = AudioSource("file", [0], "long.wav")
        recording = Recording("tape", [source], RATE, len(long), len(long) / RATE)
        quiet = Recording("quiet", [AudioSource("file", [0], "ann-1.wav")], RATE, 8000, 0.5)
        RecordingSet.from_recordings([recording, quiet]).to_file(tmp_path / "r.jsonl")
        SupervisionSet.from_segments(
            SupervisionSegment(utt_id, "tape", a, b - a, text="go", speaker=utt_id.split("-")[0])
            for utt_id, (a, b) in times.items()
        ).to_file(tmp_path / "s.jsonl")
        options = UserCorpusOptions(Path("r.jsonl"), Path("s.jsonl"), segments_dir=Path("segments"))
    probed = prepare_user_corpus(kaldi, options, only_probe=True)
    assert not (tmp_path / "segments").exists()
    splits = prepare_user_corpus(kaldi, options)
    found = {recording.id: recording for split in splits.values() for recording in split.recordings}
    assert found.keys() == {*times, "quiet"}
    assert all(Path(recording.sources[0].source).is_absolute() for recording in found.values())
    for recording in [one for split in probed.values() for one in split.recordings]:
        assert recording.num_samples == found[recording.id].num_samples
    rejected = [one for split in splits.values() for one in validate(split, RATE, max_bad=0.999)[1]]
    assert [str(fault) for fault in rejected] == ["quiet: missing transcript: it has audio only"]
    for utt_id, (start, end) in times.items():
        expected = long[round(start * RATE) : round(end * RATE)].astype(np.float32) / 32768
        assert np.array_equal(read_samples(found[utt_id])[0], expected)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "segments").iterdir()}
    prepare_user_corpus(kaldi, options)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "segments").iterdir()} == written


def test_a_command_in_wav_scp_is_refused_and_not_run(kaldi: Path, tmp_path: Path) -> None:
    edit(kaldi / "wav.scp", "ann-1.wav", f"touch {tmp_path / 'ran'}; cat ann-1.wav |")
    with pytest.raises(InputError, match=r"wav.scp: ann-1: expected a file, found the command 'touch"):
        prepare_user_corpus(kaldi, UserCorpusOptions(kaldi))
    recording = Recording("x", [AudioSource("command", [0], f"touch {tmp_path / 'ran'}")], RATE, 8000, 0.5)
    RecordingSet.from_recordings([recording]).to_file(tmp_path / "r.jsonl")
    SupervisionSet.from_segments([]).to_file(tmp_path / "s.jsonl")
    with pytest.raises(InputError, match=r"r.jsonl:1: x: expected one unchanged file, found a command"):
        prepare_user_corpus(tmp_path, UserCorpusOptions(tmp_path / "r.jsonl", tmp_path / "s.jsonl"))
    assert not (tmp_path / "ran").exists()


def test_speakers_in_both_train_and_test_are_reported(
    kaldi: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    test = write_kaldi(tmp_path / "test", ("zoe",))
    edit(test / "utt2spk", "zoe-1 zoe", "zoe-1 bob")
    prepare_user_corpus(kaldi, UserCorpusOptions(kaldi, test_recordings=test), only_probe=True)
    assert caplog.messages == ["1 speakers of test are in train too: bob"]


def add_copies(kaldi: Path, speakers: Sequence[str], name: str = "sp0.9-{}", table: str = "utt2uniq") -> None:
    """Copies of the utterances of these speakers under other names, as Kaldi's tools make them."""
    originals = [f"{speaker}-{number}" for speaker in speakers for number in (1, 2)]
    for seed, utt_id in enumerate(originals, start=100):
        soundfile.write(kaldi / f"{name.format(utt_id)}.wav", noise(seed), RATE)
    rows = {
        "wav.scp": [f"{name.format(one)} {name.format(one)}.wav" for one in originals],
        "text": [f"{name.format(one)} go {one.split('-')[0]}" for one in originals],
        "utt2spk": [f"{name.format(one)} {name.format(one.split('-')[0])}" for one in originals],
        "utt2uniq": [f"{name.format(one)} {one}" for one in originals],
        "uniq2utt": [f"{one} {one} {name.format(one)}" for one in originals],
    }
    for file in ("wav.scp", "text", "utt2spk", table):
        with (kaldi / file).open("a") as stream:
            stream.writelines(f"{row}\n" for row in rows[file])


@pytest.mark.parametrize(
    ("name", "table"), [("sp0.9-{}", "utt2uniq"), ("rev1_{}", "uniq2utt"), ("{}-noise", "utt2uniq")]
)
def test_copies_of_held_out_speakers_are_neither_trained_on_nor_tested(
    kaldi: Path, name: str, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    plain = prepare_user_corpus(kaldi, UserCorpusOptions(kaldi))
    add_copies(kaldi, SPEAKERS, name, table)
    splits = prepare_user_corpus(kaldi, UserCorpusOptions(kaldi))
    for held_out in HELD_OUT:
        assert list(splits[held_out].recordings) == list(plain[held_out].recordings)
    trained = {supervision.speaker for supervision in splits["train"].supervisions}
    speakers = {supervision.speaker for supervision in plain["train"].supervisions}
    assert trained == {*speakers, *(name.format(speaker) for speaker in speakers)}
    assert splits["train"].excluded == {"copies of utterances of dev or test": 4}
    assert caplog.messages == ["4 copies of utterances of dev and test are excluded (utt2uniq)"]
    assert kaldi / table in user_corpus_files(UserCorpusOptions(kaldi))


def test_copies_of_named_test_utterances_are_not_trained_on(
    kaldi: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    test = write_kaldi(tmp_path / "test", ("zoe",))
    add_copies(kaldi, ("zoe",))
    splits = prepare_user_corpus(kaldi, UserCorpusOptions(kaldi, test_recordings=test), only_probe=True)
    assert not [one for one in splits["train"].recordings if "zoe" in one.id]
    assert splits["train"].excluded == {"copies of utterances of dev or test": 2}
    (kaldi / "utt2uniq").unlink()
    caplog.clear()
    prepare_user_corpus(kaldi, UserCorpusOptions(kaldi, test_recordings=test), only_probe=True)
    (line,) = caplog.messages
    assert line.startswith("1 speakers of test seem to be in train under another name: zoe (sp0.9-zoe)")


def test_only_copies_of_one_speaker_cannot_be_held_out(kaldi: Path, tmp_path: Path) -> None:
    lone = write_kaldi(tmp_path / "lone", ("ann",))
    add_copies(lone, ("ann",))
    with pytest.raises(InputError, match="test speakers: expected more than 1 to hold out 1, found 1"):
        prepare_user_corpus(lone, UserCorpusOptions(lone))


def test_cuts_give_the_same_splits_as_their_manifests(kaldi: Path, tmp_path: Path) -> None:
    manifests = write_manifests(tmp_path, kaldi)
    cuts = CutSet.from_manifests(RecordingSet.from_file(manifests[0]), SupervisionSet.from_file(manifests[1]))
    cuts.to_file(tmp_path / "cuts.jsonl.gz")
    expected = prepare_user_corpus(tmp_path, UserCorpusOptions(*manifests))
    splits = prepare_user_corpus(tmp_path, UserCorpusOptions(tmp_path / "cuts.jsonl.gz"))
    for name, split in splits.items():
        assert list(split.recordings) == list(expected[name].recordings)
        assert list(split.supervisions) == list(expected[name].supervisions)
    assert (
        cli.main(["init", "mine", "--recordings", str(tmp_path / "cuts.jsonl.gz"), "--out", str(tmp_path / "r")]) == 0
    )


@pytest.mark.parametrize("utt_id", ["../../up", "/etc/passwd", "a/b", "."])
def test_an_utt_id_that_is_a_path_is_refused(kaldi: Path, tmp_path: Path, utt_id: str) -> None:
    """Copies of segments are named by utt_ids."""
    recordings, supervisions = write_manifests(tmp_path, kaldi)
    one = SupervisionSegment(utt_id, "ann-1", 0.1, 0.2, text="go", speaker="ann")
    SupervisionSet.from_segments([one]).to_file(supervisions)
    options = UserCorpusOptions(recordings, supervisions, segments_dir=tmp_path / "data" / "segments")
    with pytest.raises(InputError, match="expected an utt_id without slashes and spaces"):
        prepare_user_corpus(tmp_path, options)
    assert not (tmp_path / "data").exists()


def test_a_recording_that_ends_before_its_manifest_says_is_rejected(kaldi: Path, tmp_path: Path) -> None:
    recordings, supervisions = write_manifests(tmp_path, kaldi)
    soundfile.write(kaldi / "bob-1.wav", noise(1, 0.5)[:800], RATE)
    long = [replace(one, duration=2.0) for one in SupervisionSet.from_file(supervisions)]
    SupervisionSet.from_segments(long).to_file(supervisions)
    splits = prepare_user_corpus(tmp_path, UserCorpusOptions(recordings, supervisions), only_probe=True)
    assert sum(len(split.rejected) for split in splits.values()) == len(long)


def test_commands_that_only_decode_a_file_are_read_as_the_file(kaldi: Path) -> None:
    plain = prepare_user_corpus(kaldi, UserCorpusOptions(kaldi))
    edit(kaldi / "wav.scp", "ann-1.wav", "flac -c -d -s ann-1.wav |")
    edit(kaldi / "wav.scp", "bob-2.wav", "/opt/kaldi/tools/sph2pipe -f wav -p bob-2.wav|")
    decoded = prepare_user_corpus(kaldi, UserCorpusOptions(kaldi))
    for name, split in plain.items():
        assert list(decoded[name].recordings) == list(split.recordings)
    edit(kaldi / "wav.scp", "bob-1.wav", "sph2pipe -f wav -t 0:1 bob-1.wav |")
    with pytest.raises(InputError, match=r"bob-1: expected a file, found the command 'sph2pipe -f wav -t 0:1"):
        prepare_user_corpus(kaldi, UserCorpusOptions(kaldi))


def test_a_segment_that_ends_too_late_ends_with_its_recording(kaldi: Path) -> None:
    rows = [row.split()[0] for row in (kaldi / "utt2spk").read_text().splitlines()]
    text = "".join(f"{utt_id} {utt_id} 0 {'-1' if utt_id != 'bob-2' else '0.9'}\n" for utt_id in rows)
    (kaldi / "segments").write_text(text)
    splits = prepare_user_corpus(kaldi, UserCorpusOptions(kaldi), only_probe=True)
    assert not any(split.rejected for split in splits.values())
    durations = {recording.id: recording.duration for split in splits.values() for recording in split.recordings}
    assert durations["bob-2"] == 0.5


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "segments",
            "bob-2 bob-2 0 -1\n",
            "bob-2 bob-2 0 -1 left\n",
            r"segments: bob-2: expected a channel \(A, B or a",
        ),
        ("utt2spk", "bob-2 bob\n", "", r"utt2spk: expected a speaker of bob-2, found none"),
        ("utt2spk", "bob-2 bob", "bob-2", r"utt2spk:4: expected an utterance and its speaker, found 'bob-2'"),
        ("text", "bob-2 go bob", "bob-1 go bob", r"text:4: expected one line of bob-1, found two"),
        ("wav.scp", "bob-2 bob-2.wav\n", "", r"wav.scp: expected a recording bob-2 of bob-2, found none"),
        ("utt2spk", "eve-2 eve\n", "eve-2 eve\nzoe-1 zoe\n", r"wav.scp: expected a recording zoe-1 of zoe-1"),
        ("segments", "bob-2 bob-2 0 -1\n", "", r"segments: expected a segment of a recording for bob-2, found none"),
    ],
)
def test_a_bad_line_of_a_kaldi_directory_is_named(kaldi: Path, file: str, old: str, new: str, message: str) -> None:
    if file == "segments":
        rows = (kaldi / "utt2spk").read_text().splitlines()
        (kaldi / "segments").write_text("".join(f"{row.split()[0]} {row.split()[0]} 0 -1\n" for row in rows))
    edit(kaldi / file, old, new)
    with pytest.raises(InputError, match=message):
        prepare_user_corpus(kaldi, UserCorpusOptions(kaldi))


def test_files_that_are_missing_or_something_else_are_named(kaldi: Path, tmp_path: Path) -> None:
    recordings, supervisions = write_manifests(tmp_path, kaldi)
    with pytest.raises(InputError, match=r"supervisions.jsonl.gz: expected a Lhotse RecordingSet, found a Supervis"):
        prepare_user_corpus(tmp_path, UserCorpusOptions(supervisions, supervisions))
    with pytest.raises(InputError, match=r"nowhere.jsonl: no such file"):
        prepare_user_corpus(tmp_path, UserCorpusOptions(recordings, tmp_path / "nowhere.jsonl"))
    with pytest.raises(InputError, match=r"recordings.jsonl.gz: expected --supervisions"):
        prepare_user_corpus(tmp_path, UserCorpusOptions(recordings))
    damaged = bytearray(gzip.compress(b"{}"))
    damaged[10] = 0xFF  # where gzip's header ends: no such kind of block
    (tmp_path / "damaged.jsonl.gz").write_bytes(damaged)
    (tmp_path / "damaged.yaml").write_text("- id: [a\n  b: {")
    for name in ("damaged.jsonl.gz", "damaged.yaml"):
        with pytest.raises(InputError, match=f"{name}: expected a Lhotse RecordingSet, found something else"):
            prepare_user_corpus(tmp_path, UserCorpusOptions(tmp_path / name, supervisions))
    (kaldi / "spk2utt").write_text("ann ann-1 ann-2\nzoe\n")
    with pytest.raises(InputError, match=r"spk2utt:2: expected utterances of speaker zoe, found none"):
        prepare_user_corpus(kaldi, UserCorpusOptions(kaldi))
    (kaldi / "spk2utt").unlink()
    (kaldi / "utt2spk").unlink()
    with pytest.raises(InputError, match=r"utt2spk: no such file"):
        prepare_user_corpus(kaldi, UserCorpusOptions(kaldi))


def test_a_recording_that_is_there_twice_is_named(kaldi: Path, tmp_path: Path) -> None:
    """Which of the two was meant? One would be paired with the other's words."""
    recordings, supervisions = write_manifests(tmp_path, kaldi)
    found = list(RecordingSet.from_file(recordings))
    lines = [json.dumps(recording.to_dict()) for recording in (*found, replace(found[1], id=found[0].id))]
    (tmp_path / "twice.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError, match=f"twice.jsonl: expected one recording {found[0].id}, found two"):
        prepare_user_corpus(tmp_path, UserCorpusOptions(tmp_path / "twice.jsonl", supervisions))


@pytest.mark.parametrize(
    ("start", "end"), [("nan", "0.4"), ("0", "nan"), ("0.1", "inf"), ("-1", "0.4"), ("0.3", "0.2")]
)
def test_a_segment_outside_its_recording_is_rejected_and_named(kaldi: Path, start: str, end: str) -> None:
    rows = [row.split()[0] for row in (kaldi / "utt2spk").read_text().splitlines()]
    text = "".join(f"{utt_id} {utt_id} 0 {'-1' if utt_id != 'bob-2' else end}\n" for utt_id in rows)
    (kaldi / "segments").write_text(text.replace("bob-2 bob-2 0", f"bob-2 bob-2 {start}"))
    splits = prepare_user_corpus(kaldi, UserCorpusOptions(kaldi), only_probe=True)
    rejected = [fault for split in splits.values() for fault in split.rejected]
    assert [fault.utt_id for fault in rejected] == ["bob-2"]
    assert "expected a segment of the 0.50 s" in rejected[0].reason


def test_an_utt_id_too_long_for_a_file_name_is_refused(kaldi: Path) -> None:
    for name in ("text", "utt2spk", "wav.scp"):
        edit(kaldi / name, "bob-2 ", "b" * 201 + " ")
    with pytest.raises(InputError, match="expected an utt_id of at most 200 bytes, found 201"):
        prepare_user_corpus(kaldi, UserCorpusOptions(kaldi))


@pytest.mark.parametrize("name", ["dev", "test"])
def test_options_that_would_be_ignored_are_refused(name: str) -> None:
    given = {f"{name}_recordings": Path("r"), f"num_{name}_speakers": 2}
    with pytest.raises(InputError, match=f"--{name}-recordings: expected it or --num-{name}-speakers, found both"):
        UserCorpusOptions(Path("all"), **given)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"--{name}-supervisions: expected --{name}-recordings with it, found none"):
        UserCorpusOptions(Path("all"), **{f"{name}_supervisions": Path("s")})  # type: ignore[arg-type]


def test_too_few_speakers_to_hold_some_out(tmp_path: Path) -> None:
    lone = write_kaldi(tmp_path / "lone", ("ann",))
    with pytest.raises(InputError, match="expected more than 1 to hold out 1, found 1: give --test-recordings"):
        prepare_user_corpus(lone, UserCorpusOptions(lone))


def asrkd(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code of a command of `asrkd`, and its one line of complaint."""
    try:
        code = cli.main(arguments)
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    complaint = capsys.readouterr().err
    assert len(complaint.splitlines()) == (code != 0), complaint
    return code, complaint


@pytest.mark.parametrize("name", ["../up", "a b", "", "1st", "-x", "a;b", "é", "x" * 61])
def test_names_that_are_no_folder_are_refused(
    kaldi: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, complaint = asrkd(capsys, "init", f"--name={name}", "--recordings", str(kaldi), "--out", str(tmp_path / "r"))
    assert code == 2 and "expected a name of at most" in complaint
    assert not (tmp_path / "r").exists()


def test_init_refuses_what_would_stop_the_recipe(
    kaldi: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["init", "mine", "--out", str(tmp_path / "mine"), "--recordings", str(kaldi)]
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_bytes("GO G OW\nCAFÉ K AE F EY\n".encode("latin-1"))
    code, complaint = asrkd(capsys, *given, "--lexicon", str(lexicon))
    assert code == 2 and f"{lexicon}:2: expected UTF-8" in complaint
    lexicon.write_text("GO x1 x2\n")
    code, complaint = asrkd(capsys, *given, "--lexicon", str(lexicon))
    assert code == 2 and "words are missing" in complaint and "dictionary has other phones (x1, x2)" in complaint
    code, complaint = asrkd(capsys, *given, "--lexicon", f"{lexicon}/more")
    assert code == 2 and "expected a file that can be read, found none (Not a directory)" in complaint
    (kaldi / "bob-1.wav").rename(tmp_path / "bob-1.wav")
    code, complaint = asrkd(capsys, *given)
    assert code == 2 and "in dev (--max-bad), found 1 of 2: bob-1: missing audio: expected" in complaint
    for path in kaldi.glob("*.wav"):
        path.rename(tmp_path / path.name)
    code, complaint = asrkd(capsys, *given)
    assert code == 2 and re.search(r"missing audio: expected \S+-1.wav", complaint)
    assert not (tmp_path / "mine").exists()
    (tmp_path / "mine").mkdir()
    code, complaint = asrkd(capsys, *given)
    assert code == 2 and "there is something already" in complaint


@pytest.mark.parametrize(
    ("rate", "expected"), [(8000, 8000), (11025, 8000), (22050, 16000), (44100, 44100), (7350, 7300)]
)
def test_init_writes_a_sampling_rate_of_whole_frame_shifts(
    kaldi: Path, tmp_path: Path, rate: int, expected: int
) -> None:
    for path in kaldi.glob("*.wav"):
        soundfile.write(path, soundfile.read(path)[0], rate)
    recipe = write_recipe("mine", UserCorpusOptions(kaldi), LangOptions(), tmp_path / "mine")
    assert f"sampling_rate={expected})" in (recipe.folder / "recipe.py").read_text()


def test_init_refuses_speech_to_tune_on_without_words(
    kaldi: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each split has its own limit, and not all of a split's utterances may be bad."""
    dev = write_kaldi(tmp_path / "dev", ("fay",))
    for name in ("text", "utt2spk", "wav.scp"):
        (dev / name).write_text((dev / name).read_text().splitlines()[0] + "\n")
    (dev / "text").write_text("fay-1\n")
    given = ["init", "mine", "--out", str(tmp_path / "mine"), "--recordings", str(kaldi), "--dev-recordings", str(dev)]
    code, complaint = asrkd(capsys, *given)
    assert code == 2 and "bad utterances in dev (--max-bad), found 1 of 1: fay-1: empty transcript" in complaint
    code, complaint = asrkd(capsys, *given, "--max-bad=1")
    assert code == 2 and "found 1 of 1: fay-1: empty transcript" in complaint
    (dev / "text").write_text("fay-1 go fay\n")
    code, complaint = asrkd(capsys, *given)
    assert code == 2 and complaint.endswith(
        "in dev (--max-bad), found 1 of 1: fay-1: units that training never heard: FAY; 1 words have characters that "
        "the training text does not have (FAY)\n"
    )
    (dev / "text").write_text("fay-1 go bob\n")
    assert asrkd(capsys, *given, "--max-bad=0.1") == (0, "")
    assert "    max_bad=0.1,\n" in (tmp_path / "mine" / "recipe.py").read_text()


@pytest.mark.parametrize(("phones", "aligned"), [(("G", "OW"), {"GO", "BOB"}), (("x1", "x2"), {"GO"})])
def test_words_of_held_out_speech_may_be_missing_from_any_lexicon(
    tmp_path: Path, phones: tuple[str, str], aligned: set[str]
) -> None:
    (tmp_path / "lexicon.txt").write_text(f"GO {' '.join(phones)}\nBIB B IH B\nAH AA\n")
    lang = LangOptions(lexicon=str(tmp_path / "lexicon.txt"))
    options = SpeechOptions(corpus_dir=tmp_path, exp_dir=tmp_path / "exp", lang=lang)
    for split, text in (("train", "GO BIB AH"), ("dev", "GO BOB"), ("test", "GO")):
        soundfile.write(tmp_path / f"{split}-1.wav", noise(0), RATE)
        recording = probe(tmp_path / f"{split}-1.wav", f"{split}-1")
        pair = [recording], [make_supervision(recording, "ann", text)]
        manifests = CorpusSplit(RecordingSet.from_recordings(pair[0]), SupervisionSet.from_segments(pair[1]))
        save_split(manifests, step_folder(options, f"manifests/{split}"))
    corpus = Corpus("mine", prepare_user_corpus, lambda corpus_dir: "cmudict", closed_vocabulary=False, where="")
    make_lexicon(corpus, options, step_folder(options, "lang/lexicon"))
    words = {word for split in HELD_OUT for word in held_out_words(corpus, split, options).lexicon.words}
    assert words == {*aligned, "BIB", "AH"}


def run_recipe(folder: Path, where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(folder / "run.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=where, env=ENVIRONMENT)


def test_audio_that_moved_since_is_named_by_utterance(kaldi: Path, tmp_path: Path) -> None:
    recordings, supervisions = write_manifests(tmp_path, kaldi)
    out = tmp_path / "a 'quoted' folder"
    given = ["--recordings", str(recordings), "--supervisions", str(supervisions), "--out", str(out)]
    assert cli.main(["init", "mine", *given]) == 0
    assert run_recipe(out, tmp_path, "--stop-stage=1").returncode == 0
    (kaldi / "bob-1.wav").rename(tmp_path / "bob-1.wav")
    done = run_recipe(out, tmp_path, "--stop-stage=1", "--max-bad=0.01", "--exp-dir=exp/again")
    assert done.returncode == 2
    assert "bob-1: missing audio: expected" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def written_options(folder: Path) -> SpeechOptions:
    """The options of a recipe that `asrkd init` wrote."""
    return runpy.run_path(str(folder / "recipe.py"))["DEFAULT"]


def test_init_without_a_lexicon_sizes_units_and_tree_for_the_text(
    kaldi: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The text allows fewer pieces than usual; stage 3 finds the units that `init` counted."""
    out = tmp_path / "mine"
    assert cli.main(["init", "mine", "--recordings", str(kaldi), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    options = written_options(out)
    assert options.lang.units == "subword" and options.lang.vocab_size < 80
    assert options.tree.num_leaves == 300 and f"{options.tree.num_leaves} tree leaves" in printed
    assert run_recipe(out, tmp_path, "--stop-stage=3").returncode == 0
    num_units = len(Lexicon.load(RunFolders(tmp_path / "exp" / "mine").lexicon).phones)
    assert f" {num_units} units" in printed


def test_many_units_get_more_leaves_than_for_their_hours_only(kaldi: Path, tmp_path: Path) -> None:
    """A script of 120 characters: more units than 300 leaves have states for."""
    letters = [chr(code) for code in range(0x4E00, 0x4E00 + 120)]
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(letters, size=3)) for _ in range(2000)]
    utterances = (kaldi / "text").read_text().splitlines()
    lines = [
        f"{line.split()[0]} {' '.join(words[number :: len(utterances)])}" for number, line in enumerate(utterances)
    ]
    (kaldi / "text").write_text("\n".join(lines) + "\n")
    out = tmp_path / "mine"
    assert cli.main(["init", "mine", "--recordings", str(kaldi), "--out", str(out)]) == 0
    options = written_options(out)
    assert options.lang.vocab_size == len(letters) + 2
    assert options.tree.num_leaves > 1.5 * 3 * len(letters)


def test_too_few_leaves_are_refused_before_anything_trains(kaldi: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    assert cli.main(["init", "mine", "--recordings", str(kaldi), "--out", str(out)]) == 0
    message = r"error: --tree.num-leaves: expected at least \d+, for 3 states of each of \d+ phones .*, found 20\n"
    done = run_recipe(out, tmp_path, "--tree.num-leaves=20")
    assert done.returncode == 2 and re.search(message, done.stderr)
    assert "== stage 3" in done.stdout and "stage 4" not in done.stdout
    assert run_recipe(out, tmp_path, "--stop-stage=3").returncode == 0
    done = run_recipe(out, tmp_path, "--tree.num-leaves=20")
    assert done.returncode == 2 and re.search(message, done.stderr)
    assert "== stage 4" in done.stdout and not list((tmp_path / "exp" / "mine").glob("align*/scratch/*"))


def test_a_language_model_of_words_outside_the_lexicon_is_refused(kaldi: Path, tmp_path: Path) -> None:
    lexicon, arpa, out = tmp_path / "lexicon.txt", tmp_path / "strange.arpa", tmp_path / "mine"
    lexicon.write_text("".join(f"{word} G OW\n" for word in ("GO", *(name.upper() for name in SPEAKERS))))
    unigrams = "".join(f"-1 {word}\n" for word in ("<s>", "</s>", "GO", "ANN", "ZZXQ", "QXJZV"))
    arpa.write_text(f"\\data\\\nngram 1=6\n\n\\1-grams:\n{unigrams}\n\\end\\\n")
    assert cli.main(["init", "mine", "--recordings", str(kaldi), "--lexicon", str(lexicon), "--out", str(out)]) == 0
    done = run_recipe(out, tmp_path, "--stop-stage=3", f"--lang.arpa={arpa}")
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{arpa}: expected words of the lexicon" in last and "found 2 of 4 outside it: QXJZV, ZZXQ" in last


TINY = [
    *("--student.hidden-dim=64", "--student.num-layers=2", "--teacher.hidden-dim=64", "--teacher.num-layers=2"),
    *("--train.epochs=2", "--labels.epochs=2", "--labels.mono-rounds=1", "--labels.tree-rounds=1"),
    *("--ensemble.size=2", "--students.sweep-temperatures", "2.0"),
    *("--align.num-phone-rounds=2", "--align.num-state-rounds=2"),
    *("--train.learning-rate=0.003", "--train.batch-size=256"),
    *("--decode.beam=8", "--decode.max-active=800", "--decode.lattice-beam=2"),
    *("--tune.acoustic-scales", "0.1", "0.2", "--tune.insertion-scores", "-3.0"),
]


NUM_SPEAKERS = 8
PROMPTS_PER_SPEAKER = 10
# What the prompts need for more phones, and for more subword units, than AN4 has.
LEAVES = {"an4": ("110", "200"), "prompts": ("130", "300")}


def eight_speakers(corpus: str, utterances: list[Utterance]) -> dict[str, list[Utterance]]:
    """Training utterances of eight speakers of AN4; or prompts, all of one voice, as if eight had spoken them."""
    training = [one for one in utterances if one.split == "train"]
    if corpus == "prompts":
        phrases = [one for one in training if 1 < len(one.words) <= 6]
        return {name: phrases[n::NUM_SPEAKERS][:PROMPTS_PER_SPEAKER] for n, name in enumerate("abcdefgh")}
    speakers = sorted({one.speaker for one in training})[:NUM_SPEAKERS]
    return {name: sorted((one for one in training if one.speaker == name), key=lambda u: u.utt_id) for name in speakers}


@pytest.mark.needs("k2")
@pytest.mark.slow
def test_whole_recipe_of_a_kaldi_directory_with_one_long_recording(
    speech_corpus: str, utterances: list[Utterance], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """What each of eight speakers said laid end to end, with segments, as a corpus one brings along."""
    folder = tmp_path / "kaldi"
    folder.mkdir()
    tables: dict[str, list[str]] = {"wav.scp": [], "segments": [], "text": [], "utt2spk": []}
    for speaker, spoken in eight_speakers(speech_corpus, utterances).items():
        samples, start = [], 0.0
        for one in spoken:
            audio, rate = soundfile.read(one.path, dtype="int16")
            samples.append(audio)
            end = start + len(audio) / rate
            tables["segments"].append(f"{one.utt_id} {speaker}-tape {start:.6f} {end:.6f}")
            tables["text"].append(f"{one.utt_id} {' '.join(one.words)}")
            tables["utt2spk"].append(f"{one.utt_id} {speaker}")
            start = end
        soundfile.write(folder / f"{speaker}.flac", np.concatenate(samples), rate)
        tables["wav.scp"].append(f"{speaker}-tape {folder / speaker}.flac")
    for name, rows in tables.items():
        (folder / name).write_text("\n".join(rows) + "\n")
    by_phones, by_pieces = LEAVES[speech_corpus]
    options = [*TINY, f"--tree.num-leaves={by_phones}"]
    out = tmp_path / "mine"
    lexicon = "cmudict" if speech_corpus == "prompts" else str(request.getfixturevalue("an4_dir") / "etc" / "an4.dic")
    assert cli.main(["init", "mine", "--recordings", str(folder), "--lexicon", lexicon, "--out", str(out)]) == 0
    done = run_recipe(out, tmp_path, *options)
    assert done.returncode == 0, done.stderr[-2000:]
    results = read_json(tmp_path / "exp" / "mine" / "results.json")
    counts = {name: (split["speakers"], split["utterances"]) for name, split in results["corpus"].items()}
    assert [speakers for speakers, _ in counts.values()] == [6, 1, 1]
    assert sum(utterances for _, utterances in counts.values()) == len(tables["text"])
    assert results["recipe"] == "mine" and not results["rejected"]
    assert results["command"] == shlex.join([str(out / "run.sh"), *options])
    assert all(0.2 < system["frame_accuracy"] < 1.0 for system in results["systems"].values())
    manifests = tmp_path / "exp" / "mine" / "manifests"
    require_the_same_corpus_from_manifests(manifests, results["corpus"], tmp_path, by_pieces)


def require_the_same_corpus_from_manifests(
    manifests: Path, corpus: dict[str, Any], where: Path, num_leaves: str
) -> None:
    """Its Lhotse manifests, named for each split, without a lexicon: words are spelt in subword pieces."""
    given = []
    for split, prefix in (("train", "--"), ("dev", "--dev-"), ("test", "--test-")):
        for kind in ("recordings", "supervisions"):
            given += [f"{prefix}{kind}", str(manifests / split / f"{kind}.jsonl.gz")]
    out = where / "spelt"
    assert cli.main(["init", "spelt", *given, "--out", str(out)]) == 0
    done = run_recipe(out, where, *TINY, "--lang.vocab-size=60", f"--tree.num-leaves={num_leaves}")
    assert done.returncode == 0, done.stderr[-2000:]
    results = read_json(where / "exp" / "spelt" / "results.json")
    assert results["variant"] == "subword"
    for split, found in results["corpus"].items():
        assert {key: found[key] for key in ("utterances", "speakers", "words")} == {
            key: corpus[split][key] for key in ("utterances", "speakers", "words")
        }
    assert all(0.1 < system["frame_accuracy"] < 1.0 for system in results["systems"].values())


def test_one_manifest_of_recordings_serves_three_of_supervisions(tmp_path: Path, kaldi: Path):
    """A recording that no split has an utterance of is missing its transcript, once."""
    recordings, supervisions = write_manifests(tmp_path, kaldi)
    rows = [json.loads(line) for line in gzip.decompress(supervisions.read_bytes()).splitlines()]
    parts = {}
    for name, speakers in {"train": ("ann", "bob", "cyd"), "dev": ("dan",), "test": ("eve",)}.items():
        parts[name] = tmp_path / f"{name}.jsonl"
        of_part = [row for row in rows if row["speaker"] in speakers and row["id"] != "bob-2"]
        parts[name].write_text("".join(json.dumps(row) + "\n" for row in of_part))
    options = UserCorpusOptions(
        recordings,
        parts["train"],
        dev_recordings=recordings,
        dev_supervisions=parts["dev"],
        test_recordings=recordings,
        test_supervisions=parts["test"],
    )
    splits = prepare_user_corpus(tmp_path, options)
    heard = {name: sorted(one.id for one in split.supervisions if one.text) for name, split in splits.items()}
    assert heard == {
        "train": ["ann-1", "ann-2", "bob-1", "cyd-1", "cyd-2"],
        "dev": ["dan-1", "dan-2"],
        "test": ["eve-1", "eve-2"],
    }
    assert [one.id for one in splits["train"].recordings] == ["ann-1", "ann-2", "bob-1", "bob-2", "cyd-1", "cyd-2"]
    assert [len(splits[name].recordings) for name in ("dev", "test")] == [2, 2]
    assert len(user_corpus_audio(tmp_path, options)) == 10


def test_speakers_that_utt2uniq_makes_one_are_counted_in_the_error(kaldi: Path):
    names = [line.split()[0] for line in (kaldi / "utt2spk").read_text().splitlines()]
    (kaldi / "utt2uniq").write_text("".join(f"{name} same\n" for name in names))
    with pytest.raises(
        InputError, match=r"found 1 \(5 whose utterances are copies of each other's by utt2uniq\): give"
    ):
        prepare_user_corpus(kaldi, UserCorpusOptions(kaldi))


@pytest.mark.parametrize("split", ["dev", "test"])
def test_fewer_than_no_speakers_are_refused(split: str) -> None:
    with pytest.raises(InputError, match=f"--num-{split}-speakers: expected 0 or more, found -1"):
        UserCorpusOptions(Path(), **{f"num_{split}_speakers": -1})
