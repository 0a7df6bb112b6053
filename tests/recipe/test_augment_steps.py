"""Recordings of noise and rooms in a run: who reads them, what is dropped and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from speech_stages import step_folder

from asrkd.config import parse
from asrkd.data.corpora.an4 import prepare_an4
from asrkd.data.manifests import save_split
from asrkd.data.segments import Segment, split_from_segments
from asrkd.errors import InputError
from asrkd.features.splicing import SplicedFrames
from asrkd.features.store import FrameStore
from asrkd.files import read_json
from asrkd.nnet import AugmentOptions, Batch
from asrkd.recipe.augment_steps import make_impulse_responses, make_noise, make_speech_statistics
from asrkd.recipe.augmentation import augmentation, history_frames
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.features import make_features, make_prior
from asrkd.recipe.folders import RunFolders
from asrkd.recipe.options import SpeechOptions, StudentsOptions
from asrkd.recipe.pipeline import build_steps
from asrkd.recipe.transfer_options import TransferOptions
from asrkd.workflow.steps import Step, step_stamps

RATE = 16000
CORPUS = Corpus("an4", prepare_an4, lambda folder: folder / "an4.dic", closed_vocabulary=True, where="get AN4")


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)
    return path


def hiss(seconds: float, seed: int, rate: int = RATE) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).normal(size=int(seconds * rate))


def response(seed: int) -> np.ndarray:
    tail = 0.3 * hiss(0.2, seed) * np.exp(-np.arange(int(0.2 * RATE)) / 600)
    tail[0] = 0.5
    return tail


@pytest.fixture
def options(tmp_path: Path) -> SpeechOptions:
    """A run whose training utterances have manifests, with noise and rooms."""
    (tmp_path / "corpus").mkdir()
    segments = []
    for n in range(4):
        path = write(tmp_path / "speech" / f"u{n}.wav", hiss(0.7, n) * np.sin(np.arange(int(0.7 * RATE)) / 900))
        segments.append(Segment(f"u{n}", path, 0.0, None, f"speaker {n % 2}", "GO"))
    exp_dir = tmp_path / "exp"
    save_split(split_from_segments(segments, None), RunFolders(exp_dir).manifests("train"))
    for n in range(3):
        write(tmp_path / "noise" / f"n{n}.wav", hiss(0.5 + n, n))
        write(tmp_path / "rooms" / f"r{n}.wav", response(n))
    augment = AugmentOptions(noise=0.5, noise_from=tmp_path / "noise", reverb=0.5, reverb_from=tmp_path / "rooms")
    return SpeechOptions(
        corpus_dir=tmp_path / "corpus", exp_dir=exp_dir, num_jobs=1, students=StudentsOptions(augment=augment)
    )


def noise_of(options: SpeechOptions) -> FrameStore:
    make_noise(options, step_folder(options, "augment/noise"))
    return FrameStore.open(RunFolders(options.exp_dir).noise)


def rooms_of(options: SpeechOptions) -> FrameStore:
    make_impulse_responses(options, step_folder(options, "augment/reverb"))
    return FrameStore.open(RunFolders(options.exp_dir).impulse_responses)


def rejected(options: SpeechOptions, name: str) -> dict[str, str]:
    rows = read_json(options.exp_dir / "augment" / name / "rejected.json")
    return {row["utt_id"]: row["reason"] for row in rows}


def test_bad_noise_is_dropped_and_named(
    options: SpeechOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "noise"
    write(folder / "silent.wav", np.zeros(RATE))
    write(folder / "short.wav", hiss(0.25, 7))
    (folder / "broken.wav").write_bytes(b"RIFF")
    (folder / "empty.wav").write_bytes(b"")
    write(folder / "phone.wav", hiss(1.0, 8, 8000), 8000)
    write(folder / "stereo.wav", np.stack([hiss(1.0, 9), np.zeros(RATE)], axis=1))
    store = noise_of(replace(options, max_bad=0.5))
    assert set(store.utt_ids) == {"n0", "n1", "n2", "phone", "stereo"}
    assert store.utt("phone").shape == store.utt("stereo").shape == (100, 40)
    found = rejected(options, "noise")
    assert found.keys() == {"silent", "short", "broken", "empty"}
    assert found["short"] == "too short: expected at least 0.26 s, the network's window, found 0.250 s"
    assert found["silent"].startswith("silence only")
    assert "noise: 5 recordings, 0.1 min" in capsys.readouterr().out


def test_too_much_bad_noise_is_refused_in_one_line(options: SpeechOptions, tmp_path: Path) -> None:
    (tmp_path / "noise" / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(
        InputError, match=r"^corpus: .*bad utterances in --students.augment.noise-from .*1 of 4: broken"
    ) as error:
        noise_of(options)
    assert "\n" not in str(error.value)
    for n in range(3):
        write(tmp_path / "noise" / f"n{n}.wav", np.zeros(RATE))
    with pytest.raises(InputError, match="found 4 of 4"):
        noise_of(replace(options, max_bad=1.0))


def test_bad_impulse_responses_are_dropped_and_named(options: SpeechOptions, tmp_path: Path) -> None:
    folder = tmp_path / "rooms"
    write(folder / "silent.wav", np.zeros(800))
    write(folder / "click.wav", np.eye(1, 160)[0] * 1e-3)  # quiet and short, and sound
    write(folder / "array.wav", np.stack([response(4), np.zeros(3200)], axis=1))
    write(folder / "phone.wav", response(5)[::2], 8000)
    (folder / "broken.wav").write_bytes(b"RIFF")
    store = rooms_of(replace(options, max_bad=0.5))
    assert set(store.utt_ids) == {"r0", "r1", "r2", "click", "array", "phone"}
    assert rejected(options, "reverb").keys() == {"silent", "broken"}
    assert rejected(options, "reverb")["silent"] == "silence only: all samples are 0"
    click = store.utt("click")
    torch.testing.assert_close(click[2], torch.ones(40))
    assert float(click[3:].abs().max()) < 1e-6
    with pytest.raises(InputError, match=r"bad utterances in --students.augment.reverb-from .*found 2 of 8"):
        rooms_of(options)


@pytest.mark.parametrize("name", ["noise", "reverb"])
def test_a_source_without_audio_is_refused(name: str, options: SpeechOptions, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    for path, message in (
        (tmp_path / "none", "no such file or folder"),
        (tmp_path / "nothing", "expected audio files"),
    ):
        augment = replace(options.students.augment, **{f"{name}_from": path})
        with pytest.raises(InputError, match=message):
            build_steps(CORPUS, replace(options, students=StudentsOptions(augment=augment)), "run.sh")


def test_fractions_need_recordings() -> None:
    for name in ("noise", "reverb"):
        with pytest.raises(InputError, match=rf"^--students.augment.{name}: expected --students.augment.{name}-from"):
            parse(SpeechOptions(), [f"--students.augment.{name}=0.5"], "run.sh", "")


def steps_of(options: SpeechOptions) -> dict[str, Step]:
    return {step.name: step for step in build_steps(CORPUS, options, "run.sh")}


def test_only_distorted_students_read_the_recordings(options: SpeechOptions, tmp_path: Path) -> None:
    recordings = {"augment/speech/train", "augment/noise", "augment/reverb"}
    steps = steps_of(options)
    assert {name for name in steps if name.startswith("augment/")} == recordings
    assert {steps[name].stage for name in recordings} == {2}
    readers = {name for name, step in steps.items() if recordings <= set(step.inputs)}
    assert {"students/baseline_augmented"} < readers and "students/baseline" not in readers
    assert {name for name in readers if not name.startswith("students/sweep_T")} == {"students/baseline_augmented"}
    plain = steps_of(replace(options, students=StudentsOptions()))
    assert not [name for name in plain if name.startswith("augment/")]
    noise_alone = replace(options.students.augment, reverb=0.0)
    found = steps_of(replace(options, students=StudentsOptions(augment=noise_alone)))
    assert "augment/reverb" not in found and "augment/noise" in found["students/baseline_augmented"].inputs
    with_transfer = steps_of(replace(options, transfer=TransferOptions(recordings=tmp_path / "speech")))
    assert "augment/speech/transfer" in with_transfer["students/sweep_T2_alpha0.7"].inputs
    assert "augment/speech/transfer" not in with_transfer["students/baseline_augmented"].inputs


def test_other_recordings_make_what_depends_on_them_anew(options: SpeechOptions, tmp_path: Path) -> None:
    before = step_stamps(list(steps_of(options).values()))
    write(tmp_path / "noise" / "n0.wav", hiss(1.5, 77))
    after = step_stamps(list(steps_of(options).values()))
    changed = {name for name in before if before[name] != after[name]}
    assert {"augment/noise", "students/baseline_augmented", "students/sweep_T2_alpha0.7"} <= changed
    assert not changed & {"augment/reverb", "augment/speech/train", "teachers/0", "students/baseline", "posteriors"}


@pytest.mark.parametrize("cmvn", ["speaker", "online", "none"])
def test_a_run_distorts_its_windows(cmvn: str, options: SpeechOptions) -> None:
    """Statistics, noise and rooms of a run together, with every kind of normalisation."""
    options = replace(options, features=replace(options.features, cmvn=cmvn))
    folders = RunFolders(options.exp_dir)
    if cmvn == "online":
        make_prior(options, step_folder(options, "features/prior"))
    make_features("train", options, step_folder(options, "features/train"))
    make_speech_statistics("train", options, step_folder(options, "augment/speech/train"))
    noise_of(options)
    rooms_of(options)
    augment = options.students.augment
    store = FrameStore.open(folders.features("train")).subset(["u3", "u0"])
    history = history_frames(augment, folders)
    assert 2 < history <= 50
    distortions = augmentation(augment, options.features, store, folders)
    assert distortions is not None and distortions.history == history
    inputs = SplicedFrames(store, 20 + history, 5)
    ids = torch.arange(len(store))
    given = Batch(inputs.batch(ids), ids)
    found = distortions(given, torch.Generator().manual_seed(0)).inputs
    narrow = SplicedFrames(store, 20, 5).batch(ids)
    is_same = (found == narrow).all(dim=1)
    assert found.shape == narrow.shape and torch.isfinite(found).all()
    assert 0.1 < float(is_same.float().mean()) < 0.45
    if cmvn == "speaker":  # normalised again
        predicted = found[:, 20 * 40 : 21 * 40]
        assert float(predicted.mean(0).abs().mean()) < 0.2 and 0.7 < float(predicted.std()) < 1.2
