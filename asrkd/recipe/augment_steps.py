"""Stage 2 of noise and rooms: which recordings are good, and what students' distortions read of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lhotse import Recording

from asrkd.data.audio import AudioError, read_samples
from asrkd.data.manifests import load_split
from asrkd.data.rejects import require_few_rejected
from asrkd.data.resample import can_resample
from asrkd.data.segments import COPY_FORMAT, require_distinct, split_from_segments
from asrkd.data.splits import CorpusSplit, Rejected
from asrkd.data.untranscribed import read_untranscribed, untranscribed_files, with_speakers
from asrkd.data.validate import validate, without
from asrkd.errors import InputError
from asrkd.features.distortions import write_impulse_responses, write_noise, write_speech_statistics
from asrkd.features.fbank import sample_energies
from asrkd.features.options import MS_PER_SEC
from asrkd.files import file_fingerprint, write_json
from asrkd.nnet.augment_options import AugmentOptions
from asrkd.recipe.corpus import REJECTED_FILE, list_audio
from asrkd.recipe.features import prior_steps, read_prior, split_features
from asrkd.recipe.folders import STORE_FOLDER, TRANSFER, RunFolders
from asrkd.recipe.options import SpeechOptions
from asrkd.workflow.steps import Step

NOISE, IMPULSE_RESPONSES = "augment/noise", "augment/reverb"
# Utterances of training speech by which it is measured what a room does to the statistics of features.
MEASURED_UTTERANCES = 16
SECONDS_PER_MINUTE = 60.0


def recordings_steps(options: SpeechOptions) -> list[Step]:
    """The steps of the recordings that the students' distortions use. InputError: no such path."""
    augment = options.students.augment
    steps = []
    if augment.reads_recordings:
        splits = ("train",) if options.transfer.recordings is None else ("train", TRANSFER)
        steps += [_statistics_step(split, options) for split in splits]
    if augment.noise:
        decides = {"window": _window(options), "max_duration": options.max_duration}
        steps.append(_step(NOISE, make_noise, augment.noise_from, decides, (), options))
    if augment.reverb:
        steps.append(
            _step(IMPULSE_RESPONSES, make_impulse_responses, augment.reverb_from, {}, ("manifests/train",), options)
        )
    return steps


def student_inputs(augment: AugmentOptions, uses_transfer: bool) -> tuple[str, ...]:
    """Steps that the training of a student with these distortions reads."""
    if not augment.reads_recordings:
        return ()
    splits = ("train", TRANSFER) if uses_transfer else ("train",)
    return (
        *(_statistics_name(split) for split in splits),
        *((NOISE,) if augment.noise else ()),
        *((IMPULSE_RESPONSES,) if augment.reverb else ()),
    )


def make_speech_statistics(split: str, options: SpeechOptions, out_dir: Path) -> None:
    """How each utterance of a split was normalised, and how loud it is."""
    folders = RunFolders(options.exp_dir)
    write_speech_statistics(
        load_split(folders.manifests(split)),
        split_features(split, options.features),
        out_dir / STORE_FOLDER,
        options.task_executor,
        read_prior(folders, options.features),
    )


def make_noise(options: SpeechOptions, out_dir: Path) -> None:
    """Log-mel energies of the good recordings of noise. InputError if more are bad than `max_bad` allows."""
    found = _read("noise", options.students.augment.noise_from, options)
    good, bad = validate(
        found,
        options.features.sampling_rate,
        "noise",
        max_bad=1.0,  # those that are too short for a window are counted with the others
        num_jobs=options.num_jobs,
        max_duration_sec=options.max_duration,
        has_texts=False,
    )
    shortest_sec = _window(options) * options.features.frame_shift_ms / MS_PER_SEC
    short = [
        Rejected(
            one.id, f"too short: expected at least {shortest_sec:g} s, the network's window, found {one.duration:.3f} s"
        )
        for one in good.recordings
        if round(one.duration * MS_PER_SEC / options.features.frame_shift_ms) < _window(options)
    ]
    good = without(good, short)
    _report("noise", [*good.recordings], [*bad, *short], found.num_utterances, options, out_dir)
    write_noise(good, options.features, out_dir / STORE_FOLDER, options.task_executor)


def make_impulse_responses(options: SpeechOptions, out_dir: Path) -> None:
    """Gains of the good impulse responses. InputError if more are bad than `max_bad` allows."""
    found = _read("reverb", options.students.augment.reverb_from, options)
    faults = {one.id: _fault(one, options.features.sampling_rate) for one in found.recordings}
    bad = [*found.rejected, *(Rejected(utt_id, fault) for utt_id, fault in faults.items() if fault)]
    good = [one for one in found.recordings if not faults[one.id]]
    _report("reverb", good, bad, found.num_utterances, options, out_dir)
    train = load_split(RunFolders(options.exp_dir).manifests("train"))
    speech = list(sample_energies(train, options.features, MEASURED_UTTERANCES, options.task_executor))
    write_impulse_responses(good, speech, options.features, out_dir / STORE_FOLDER)


def _statistics_name(split: str) -> str:
    return f"augment/speech/{split}"


def _statistics_step(split: str, options: SpeechOptions) -> Step:
    return Step(
        2,
        _statistics_name(split),
        partial(make_speech_statistics, split, options),
        {"features": split_features(split, options.features)},
        (f"manifests/{split}", *prior_steps(options.features)),
        resumable=True,
    )


def _step(
    name: str, make: Any, source: Path | None, decides: dict[str, Any], inputs: tuple[str, ...], options: SpeechOptions
) -> Step:
    manifests, audio = untranscribed_files(_given(source), _base(options))
    stamp = {
        "files": list_audio(audio, {str(path.absolute()): file_fingerprint(path) for path in manifests}),
        "copies": COPY_FORMAT,
        "features": options.features.plain,
        "max_bad": options.max_bad,
        **decides,
    }
    return Step(2, name, partial(make, options), stamp, inputs, resumable=True)


def _read(name: str, source: Path | None, options: SpeechOptions) -> CorpusSplit:
    """Manifests of the recordings; of several channels that nobody tells apart, the first one."""
    segments = [
        replace(one, text="", channel=one.channel or 0) for one in read_untranscribed(_given(source), _base(options))
    ]
    named = with_speakers(segments)
    require_distinct({name: named})
    return split_from_segments(named, RunFolders(options.exp_dir).augment_segments / name)


def _report(
    name: str,
    good: Sequence[Recording],
    bad: Sequence[Rejected],
    number: int,
    options: SpeechOptions,
    out_dir: Path,
) -> None:
    """Print and write what is used and what is rejected. InputError if that is too much."""
    require_few_rejected(bad, number, f"--students.augment.{name}-from", options.max_bad)
    write_json(out_dir / REJECTED_FILE, [{"utt_id": one.utt_id, "reason": one.reason} for one in bad])
    minutes = sum(one.duration for one in good) / SECONDS_PER_MINUTE
    print(f"   {name}: {len(good)} recordings, {minutes:.1f} min", flush=True)
    for one in bad:
        print(f"   rejected {one}", flush=True)


def _fault(recording: Recording, sampling_rate: int) -> str | None:
    """What is wrong with an impulse response; None if nothing is."""
    if not can_resample(recording.sampling_rate, sampling_rate):
        return (
            f"expected a sampling rate that can be resampled to {sampling_rate} Hz, found {recording.sampling_rate} Hz"
        )
    try:
        samples = read_samples(recording)
    except AudioError as error:
        return str(error)
    if not np.isfinite(samples).all():
        return "expected finite samples, found NaN or infinity"
    return None if samples.any() else "silence only: all samples are 0"


def _window(options: SpeechOptions) -> int:
    """Frames of a network's input."""
    return options.context.left + 1 + options.context.right


def _given(source: Path | None) -> Path:
    if source is None:
        raise InputError("--students.augment: expected recordings, found none")
    return source


def _base(options: SpeechOptions) -> Path:
    return options.corpus_dir or Path()
