"""Decoding of other speech: what is read, what is refused, and on a real run that nothing of it changes."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet

from asrkd.commands import main as cli
from asrkd.commands.decode import command_of
from asrkd.data.manifests import load_split, save_split
from asrkd.data.splits import CorpusSplit
from asrkd.errors import InputError
from asrkd.features.options import FeatureOptions
from asrkd.files import folder_fingerprint, read_json, write_json
from asrkd.recipe.finished_run import FinishedRun
from asrkd.recipe.folders import RunFolders
from asrkd.recipe.new_data import SOURCE_FILE
from asrkd.recipe.new_data_options import NewDataOptions
from asrkd.recipe.new_data_source import NewSpeech, make_manifests
from asrkd.recipe.options import SpeechOptions
from asrkd.report.run_tables import oov_text
from asrkd.scoring.words import wer

RATE = 8000
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def recordings(tmp_path: Path) -> list[Recording]:
    """Three files, the last of which nobody transcribed."""
    found = []
    for number, name in enumerate(("a", "b", "c")):
        samples = np.random.default_rng(number).normal(0, 0.1, RATE)
        (tmp_path / "audio").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "audio" / f"{name}.wav", samples, RATE)
        found.append(Recording.from_file(tmp_path / "audio" / f"{name}.wav"))
    return found


@pytest.fixture
def manifests(recordings: list[Recording], tmp_path: Path) -> tuple[Path, Path]:
    RecordingSet.from_recordings(recordings).to_file(tmp_path / "recordings.jsonl.gz")
    texts = {"a": "yes", "b": "no"}
    spoken = [SupervisionSegment(f"{one}-1", one, 0.0, 0.8, text=text, speaker="s") for one, text in texts.items()]
    SupervisionSet.from_segments(spoken).to_file(tmp_path / "supervisions.jsonl.gz")
    return tmp_path / "recordings.jsonl.gz", tmp_path / "supervisions.jsonl.gz"


def given(**values: Any) -> NewDataOptions:
    return NewDataOptions(run=Path("exp"), out=Path("out"), **values)


def summary(speech: NewSpeech) -> list[tuple[str, str, str | None]]:
    return [(one.utt_id, one.speaker, one.text) for one in speech.segments]


def test_supervisions_name_the_utterances_and_unused_recordings_are_counted(manifests: tuple[Path, Path]) -> None:
    speech = NewSpeech.read(given(recordings=manifests[0], supervisions=manifests[1]))
    assert summary(speech) == [("a-1", "s", "yes"), ("b-1", "s", "no")]
    assert (speech.has_texts, speech.num_unused, speech.manifests) == (True, 1, manifests)


def test_recordings_alone_or_a_folder_of_audio_have_no_texts_and_a_speaker_each(
    manifests: tuple[Path, Path], tmp_path: Path
) -> None:
    expected = [(name, f"recording:{name}", None) for name in ("a", "b", "c")]
    for path in (manifests[0], tmp_path / "audio"):
        speech = NewSpeech.read(given(recordings=path))
        assert summary(speech) == expected and not speech.has_texts and not speech.num_unused


def test_cuts_and_kaldi_directories(recordings: list[Recording], manifests: tuple[Path, Path], tmp_path: Path) -> None:
    cuts = CutSet.from_manifests(RecordingSet.from_recordings(recordings[:2]), SupervisionSet.from_file(manifests[1]))
    cuts.to_file(tmp_path / "cuts.jsonl.gz")
    by_manifests = summary(NewSpeech.read(given(recordings=manifests[0], supervisions=manifests[1])))
    assert summary(NewSpeech.read(given(cuts=tmp_path / "cuts.jsonl.gz"))) == by_manifests
    assert summary(NewSpeech.read(given(recordings=tmp_path / "cuts.jsonl.gz"))) == by_manifests
    folder = tmp_path / "kaldi"
    folder.mkdir()
    (folder / "wav.scp").write_text("".join(f"{one.id} {one.sources[0].source}\n" for one in recordings))
    (folder / "utt2spk").write_text("a s\nb s\nc t\n")
    assert summary(NewSpeech.read(given(kaldi_dir=folder))) == [("a", "s", None), ("b", "s", None), ("c", "t", None)]
    (folder / "text").write_text("a YES\nb NO\nc\n")
    for option in ("kaldi_dir", "recordings"):
        speech = NewSpeech.read(given(**{option: folder}))
        assert summary(speech)[0] == ("a", "s", "YES") and speech.has_texts


def test_speakers_of_the_training_are_named(
    manifests: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    speech = NewSpeech.read(given(recordings=manifests[0], supervisions=manifests[1]))
    spoken = SupervisionSet.from_segments([SupervisionSegment("x", "x", 0.0, 1.0, text="X", speaker="s")])
    save_split(CorpusSplit(RecordingSet.from_recordings([]), spoken), tmp_path / "train")
    run = replace(SpeechOptions(exp_dir=tmp_path / "out"), features=FeatureOptions(sampling_rate=RATE))
    options = given(recordings=manifests[0], supervisions=manifests[1])
    make_manifests(speech, run, options, tmp_path / "train", tmp_path / "segments", tmp_path / "made")
    messages = [record.getMessage() for record in caplog.records]
    assert "1 of 1 speakers have the names of speakers that the run was trained on: s" in messages
    assert "1 recordings without supervisions are not decoded" in messages
    good = load_split(tmp_path / "made")
    assert [(one.id, one.text, one.duration) for one in good.supervisions] == [("a-1", "YES", 0.8), ("b-1", "NO", 0.8)]
    assert all(Path(one.sources[0].source).parent == tmp_path / "segments" for one in good.recordings)


def test_the_stamp_of_speech_follows_manifests_and_audio(manifests: tuple[Path, Path], tmp_path: Path) -> None:
    options = given(recordings=manifests[0], supervisions=manifests[1])
    before = NewSpeech.read(options).stamp()
    assert NewSpeech.read(options).stamp() == before
    os.utime(tmp_path / "audio" / "a.wav", ns=(1, 1))
    assert NewSpeech.read(options).stamp() != before


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "expected one of --recordings, --cuts and --kaldi-dir, found none"),
        ({"recordings": Path("a"), "cuts": Path("b")}, "found --recordings and --cuts"),
        ({"cuts": Path("a"), "supervisions": Path("b")}, "--supervisions: expected --recordings with it"),
        ({"recordings": Path("a"), "max_bad": 2.0}, "--max-bad"),
        ({"recordings": Path("a"), "max_duration": 0.0}, "--max-duration"),
        ({"recordings": Path("a"), "max_unpronounced": float("nan")}, "--max-unpronounced"),
        ({"recordings": Path("a"), "num_jobs": 0}, "--num-jobs"),
        ({"recordings": Path("a"), "lexicon": "cmudict"}, "--lexicon: expected --lm with it"),
    ],
)
def test_options_that_contradict_each_other(values: Mapping[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        given(**values)


@pytest.mark.parametrize(
    ("option", "make", "message"),
    [
        ("recordings", lambda path: None, "no such file or folder"),
        ("recordings", Path.mkdir, "found neither"),
        ("kaldi_dir", Path.mkdir, "expected a folder with wav.scp"),
        ("cuts", Path.mkdir, "expected a Lhotse manifest, found a folder"),
        ("recordings", lambda path: path.write_text(""), "found an empty file"),
        ("cuts", lambda path: path.write_text('{"a": 1}\n'), "expected a Lhotse RecordingSet or a Lhotse CutSet"),
    ],
)
def test_speech_that_cannot_be_read(option: str, make: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    make(tmp_path / "x.jsonl")
    with pytest.raises(InputError, match=message):
        NewSpeech.read(given(**{option: tmp_path / "x.jsonl"}))


def test_audio_files_where_folders_belong_and_names_in_another_encoding(
    manifests: tuple[Path, Path], tmp_path: Path
) -> None:
    audio = next((tmp_path / "audio").iterdir())
    with pytest.raises(InputError, match="expected a manifest or a folder of audio files, found an audio file"):
        NewSpeech.read(given(recordings=audio))
    audio.rename(os.fsdecode(os.fsencode(audio.parent) + b"/\xe9.wav"))
    with pytest.raises(InputError, match="expected a name in UTF-8"):
        NewSpeech.read(given(recordings=audio.parent))


def test_the_command_leaves_out_what_decides_nothing() -> None:
    options = given(recordings=Path("a b"), systems=("baseline", "distilled"), num_jobs=7, overwrite=True)
    assert command_of(options) == "asrkd decode exp --out out --recordings 'a b' --systems baseline distilled"


def test_words_outside_the_vocabulary_are_named() -> None:
    words = [(f"W{n}", 20 - n) for n in range(12)]
    text = oov_text({"oov_rate": {"test": 0.0815}, "oov_words": words, "oov_types": 13})
    assert text is not None
    assert text.startswith("Running words outside the language model: test 8.15%: W0 (20), W1 (19)")
    assert text.endswith("W9 (11) and 3 more.")
    assert (
        oov_text({"oov_rate": {"test": 0.0}, "oov_words": []})
        == "Running words outside the language model: test 0.00%."
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "found no config.json in it"),
        ({"config.json": {"eval_set": 1}}, "expected a run of a speech recipe"),
        ({"config.json": {"decode": {}, "folds": 3}}, r"found a cross-validation: give one of its folds \(.*fold_0\)"),
        ({"config.json": {"decode": {}}}, "found no finished output of tree, graph, decode/tuning, score"),
    ],
)
def test_a_folder_that_is_no_finished_run(files: Mapping[str, Any], message: str, tmp_path: Path) -> None:
    for name, content in files.items():
        write_json(tmp_path / name, content)
    with pytest.raises(InputError, match=message):
        FinishedRun.open(tmp_path)


def decode(run: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """`asrkd decode` in a process of its own: its steps are forked."""
    command = [sys.executable, "-m", "asrkd.commands.main", "decode", str(run), "--out", str(out), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)


def files_and_times(folder: Path) -> dict[str, tuple[int, int]]:
    stats = {str(path.relative_to(folder)): path.lstat() for path in folder.rglob("*")}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


@pytest.mark.slow
def test_a_runs_own_test_set_as_new_speech(finished: Path, tmp_path: Path) -> None:
    """The words are the run's, nothing of a run that cannot be written to changes, and a second call makes nothing."""
    split = load_split(RunFolders(finished).manifests("test"))
    split.recordings.to_file(tmp_path / "recordings.jsonl.gz")
    split.supervisions.to_file(tmp_path / "supervisions.jsonl.gz")
    speech = ["--recordings", str(tmp_path / "recordings.jsonl.gz")]
    texts = ["--supervisions", str(tmp_path / "supervisions.jsonl.gz")]
    before, times = folder_fingerprint(finished), files_and_times(finished)
    modes = {path: path.stat().st_mode for path in (finished, *finished.rglob("*"))}
    try:
        for path in modes:
            path.chmod(0o555 if path.is_dir() else 0o444)
        done = decode(finished, tmp_path / "out", *speech, *texts)
        assert done.returncode == 0, done.stderr[-2000:]
        alone = decode(finished, tmp_path / "alone", *speech, "--systems", "distilled")
        assert alone.returncode == 0, alone.stderr[-2000:]
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    assert folder_fingerprint(finished) == before and files_and_times(finished) == times
    _same_words_and_errors(finished, tmp_path / "out")
    _times_of_words(tmp_path / "out")
    assert "no transcripts" in alone.stdout and not (tmp_path / "alone" / "results.json").exists()
    assert (tmp_path / "alone" / "distilled.trn").is_file()
    again = decode(finished, tmp_path / "out", *speech, *texts, "--systems", "baseline", "distilled")
    made = [line for line in again.stdout.splitlines() if line.startswith("==")]
    assert len(made) == 2 and all("(score" in line or "(report" in line for line in made), "systems changed alone"
    other = decode(finished, tmp_path / "out", *speech)
    assert other.returncode == 2 and "it has results of another speech" in other.stderr
    inside = decode(finished, finished / "new", *speech)
    assert inside.returncode == 2 and "expected a folder outside the run" in inside.stderr


def _same_words_and_errors(run: Path, out: Path) -> None:
    results, of_run = read_json(out / "results.json"), read_json(run / "results.json")
    assert list(results["systems"]) == ["baseline", "ensemble", "distilled"]
    for name, system in results["systems"].items():
        words = [read_json(folder / "decode" / name / "hypotheses.json")["words"] for folder in (run, out)]
        assert words[0] == words[1]
        counts = [
            {key: one[key] for key in one if key != "ci95"} for one in (system["wer"], of_run["systems"][name]["wer"])
        ]
        assert counts[0] == counts[1]
    compared = {(row["a"], row["b"]): row for row in of_run["comparisons"] if row["metric"] == "wer"}
    for row in results["comparisons"]:
        assert row == compared[row["a"], row["b"]]
    assert results["gap_recovered"]["wer"] == of_run["gap_recovered"]["wer"]
    assert results["oov_rate"]["test"] == pytest.approx(of_run["oov_rate"]["test"])
    assert read_json(out / SOURCE_FILE)["run"] == str(run)
    refs, hyps = ({} for _ in range(2))
    for table, file in ((refs, "references.trn"), (hyps, "distilled.trn")):
        for line in (out / file).read_text().splitlines():
            words, _, utt_id = line.removesuffix(")").rpartition("(")
            table[utt_id] = words.split()
    assert wer(refs, hyps).percent == results["systems"]["distilled"]["wer"]["percent"]


def _times_of_words(out: Path) -> None:
    """The words of the CTM are those of the hypotheses, in order, within the utterance, none before another ends."""
    durations = {one.id: one.duration for one in load_split(RunFolders(out).manifests("test")).recordings}
    words: dict[str, list[str]] = {}
    end_of: dict[str, float] = {}
    for line in (out / "distilled.ctm").read_text().splitlines():
        utt_id, channel, start, duration, word = line.split()
        assert channel == "1" and float(duration) > 0
        assert end_of.get(utt_id, 0.0) <= float(start) + 1e-6
        end_of[utt_id] = float(start) + float(duration)
        assert end_of[utt_id] <= durations[utt_id] + 0.01
        words.setdefault(utt_id, []).append(word)
    hypotheses = read_json(out / "decode" / "distilled" / "hypotheses.json")["words"]
    assert {utt_id: " ".join(spoken) for utt_id, spoken in words.items()} == {
        utt_id: text for utt_id, text in hypotheses.items() if text
    }


@pytest.mark.slow
def test_another_language_model(finished: Path, tmp_path: Path) -> None:
    """The run's own model as another one gives the run's words; its graph is made once."""
    split = load_split(RunFolders(finished).manifests("test"))
    split.recordings.to_file(tmp_path / "recordings.jsonl.gz")
    split.supervisions.to_file(tmp_path / "supervisions.jsonl.gz")
    model = tmp_path / "lm.arpa.gz"
    model.write_bytes(gzip.compress(RunFolders(finished).arpa.read_bytes()))
    speech = ["--recordings", str(tmp_path / "recordings.jsonl.gz"), "--systems", "distilled"]
    speech += ["--supervisions", str(tmp_path / "supervisions.jsonl.gz"), "--lm", str(model)]
    done = decode(finished, tmp_path / "out", *speech)
    assert done.returncode == 0, done.stderr[-2000:]
    words = [
        read_json(one / "decode" / "distilled" / "hypotheses.json")["words"] for one in (finished, tmp_path / "out")
    ]
    assert words[0] == words[1]
    added = decode(finished, tmp_path / "out", *speech, "--systems", "baseline")
    assert "(graph, step 3 of 6): up to date" in added.stdout.replace("stage 9 of 12 ", "")


def test_help_names_every_way_to_give_speech(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["decode", "--help"])
    shown = capsys.readouterr().out
    assert all(
        f"--{option}" in shown for option in ("recordings", "supervisions", "cuts", "kaldi-dir", "lm", "systems")
    )
    assert "usage: asrkd decode RUN --out PATH" in shown
