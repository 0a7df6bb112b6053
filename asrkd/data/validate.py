"""Check every utterance of a corpus before anything is computed from it, and continue with the good ones."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet
from tqdm import tqdm

from asrkd.data.audio import AudioError, read_scaled
from asrkd.data.manifests import AudioFile, is_unchanged
from asrkd.data.rejects import MAX_DURATION_SEC, require_few_rejected
from asrkd.data.resample import can_resample
from asrkd.data.splits import CorpusSplit, Rejected
from asrkd.errors import name_some

logger = logging.getLogger(__name__)

MIN_DURATION_SEC = 0.1  # three phones of three states, 10 ms each, are 0.09 s
MAX_BAD = 0.01
# Standard deviation of the samples, relative to full scale. Dithered 16-bit silence is at -96 dB, the
# quietest utterance of AN4 at -48 dB.
SILENCE_DB = -75.0
SILENCE = "silence only"
"""Kind of fault of an utterance without sound."""


def validate(
    split: CorpusSplit,
    sampling_rate: int,
    name: str = "",
    max_bad: float = MAX_BAD,
    num_jobs: int = 2,
    known: Mapping[str, AudioFile] = MappingProxyType({}),
    read_audio: bool = True,
    max_duration_sec: float = MAX_DURATION_SEC,
    has_texts: bool = True,
) -> tuple[CorpusSplit, list[Rejected]]:
    """The good utterances of a split called `name`, and the bad ones with the reason of each.

    Bad is: missing, unreadable or truncated audio, a sampling rate that cannot be resampled to `sampling_rate` (Hz),
    more than one channel, a transcript without audio, audio without a transcript, an empty transcript, less than
    MIN_DURATION_SEC or more than `max_duration_sec`, NaN or infinite samples, silence. All audio is read but that of
    utterances whose file is `known` to be good and unchanged; without `read_audio` none is. Without `has_texts` an
    empty transcript is no fault. InputError naming the first few if more than `max_bad` of the split's utterances are
    bad.
    """
    bad = _check_split(split, name, sampling_rate, max_duration_sec, num_jobs, known, read_audio, has_texts)
    require_few_rejected(bad, split.num_utterances, name, max_bad)
    good = without(split, bad)
    _report_rates(good.recordings, sampling_rate, name)
    return good, bad


def _report_rates(recordings: Iterable[Recording], sampling_rate: int, name: str) -> None:
    """Report the utterances that are resampled; a lower rate has nothing in the upper bands."""
    rates = Counter(recording.sampling_rate for recording in recordings)
    others = {rate: number for rate, number in sorted(rates.items()) if rate != sampling_rate}
    if not others:
        return
    part = f"{name}: " if name else ""
    counts = ", ".join(f"{number} from {rate} Hz" for rate, number in others.items())
    logger.warning(
        "%s%d of %d utterances are resampled to %d Hz (--features.sampling-rate): %s",
        *(part, sum(others.values()), sum(rates.values()), sampling_rate, counts),
    )
    lower = {rate: number for rate, number in others.items() if rate < sampling_rate}
    if lower:
        logger.warning(
            "%s%d utterances have a lower sampling rate than %d Hz: their mel bands above %d Hz are empty. "
            "--features.sampling-rate %d computes no such bands",
            *(part, sum(lower.values()), sampling_rate, min(lower) // 2, min(lower)),
        )


def _check_split(
    split: CorpusSplit,
    name: str,
    sampling_rate: int,
    max_duration_sec: float,
    num_jobs: int,
    known: Mapping[str, AudioFile],
    read_audio: bool,
    has_texts: bool,
) -> list[Rejected]:
    """The bad utterances of a split, in order of utt_id, with one reason each."""
    recordings = {recording.id: recording for recording in split.recordings}
    supervised: dict[str, list[SupervisionSegment]] = {}
    for supervision in split.supervisions:
        supervised.setdefault(supervision.recording_id, []).append(supervision)
    reasons: dict[str, str] = {fault.utt_id: fault.reason for fault in split.rejected}
    for utt_id in sorted({*recordings, *supervised} - reasons.keys()):
        given = recordings.get(utt_id), supervised.get(utt_id, [])
        reason = _manifest_error(*given, sampling_rate, max_duration_sec, has_texts)
        if reason:
            reasons[utt_id] = reason
    to_read = [
        recording
        for utt_id, recording in sorted(recordings.items())
        if utt_id not in reasons and not is_unchanged(Path(recording.sources[0].source), known.get(utt_id))
    ]
    if read_audio:
        reasons |= _sample_errors(to_read, name, num_jobs)
    return [Rejected(utt_id, reason) for utt_id, reason in sorted(reasons.items())]


def _sample_errors(to_read: list[Recording], name: str, num_jobs: int) -> dict[str, str]:
    """utt_id -> fault of the samples."""
    with ThreadPoolExecutor(num_jobs) as pool:  # libsndfile and numpy release the interpreter
        checks = pool.map(_check_samples, to_read)
        checked = list(tqdm(checks, total=len(to_read), desc=f"check {name}".strip(), unit="utt"))
    _report_scales([(one.id, scale) for one, (_, scale) in zip(to_read, checked, strict=True)], name)
    return {recording.id: reason for recording, (reason, _) in zip(to_read, checked, strict=True) if reason}


def _report_scales(scales: Sequence[tuple[str, float]], name: str) -> None:
    """Report the utterances that are divided by a number, and by which."""
    scaled = [utt_id for utt_id, scale in scales if scale != 1.0]
    if not scaled:
        return
    numbers = Counter(f"{scale:.0f}" for _, scale in scales if scale != 1.0)
    divided = ", ".join(f"{count} by {number}" for number, count in numbers.most_common())
    # Quiet 24-bit samples look like loud 16-bit ones.
    doubt = "; if all are of one kind, some are wrong: convert them to integers" if len(numbers) > 1 else ""
    logger.warning(
        "%s%d of %d utterances have floating-point samples in an integer's range; they are scaled to ±1 (%s%s): %s",
        *(f"{name}: " if name else "", len(scaled), len(scales), divided, doubt, name_some(scaled)),
    )


def _manifest_error(
    recording: Recording | None,
    supervisions: list[SupervisionSegment],
    sampling_rate: int,
    max_duration_sec: float,
    has_texts: bool,
) -> str | None:
    """The fault that the manifests show; None if there is none."""
    if recording is None:
        return "missing audio: it has a transcript only"
    if not supervisions:
        return "missing transcript: it has audio only"
    if len(supervisions) > 1:
        return f"expected one transcript, found {len(supervisions)}"
    if has_texts and not (supervisions[0].text or "").split():
        return "empty transcript"
    if not supervisions[0].speaker:
        return "no speaker given"
    if not can_resample(recording.sampling_rate, sampling_rate):
        return (
            f"expected a sampling rate that can be resampled to {sampling_rate} Hz, "
            f"found {recording.sampling_rate} Hz: they have no large common divisor; resample the file with sox"
        )
    if recording.num_channels != 1:
        return f"expected one channel, or an utterance that names its channel, found {recording.num_channels}"
    if recording.duration < MIN_DURATION_SEC:
        return f"too short: expected at least {MIN_DURATION_SEC:g} s, found {recording.duration:.3f} s"
    if recording.duration > max_duration_sec:
        return f"too long: expected at most {max_duration_sec:g} s (--max-duration), found {recording.duration:.1f} s"
    return None


def _check_samples(recording: Recording) -> tuple[str | None, float]:
    """The fault of the samples (None if there is none), and the number that they are divided by when they are read."""
    try:
        samples, scale = read_scaled(recording)
    except AudioError as error:
        return str(error), 1.0
    return _sample_error(samples), scale


def _sample_error(samples: np.ndarray) -> str | None:
    """The fault of samples [channels, num_samples]; None if there is none."""
    if not np.isfinite(samples).all():
        return f"expected finite samples, found {np.count_nonzero(~np.isfinite(samples))} NaN or infinite"
    deviation = float(samples.std(dtype=np.float64))
    if deviation == 0.0:
        return f"{SILENCE}: all samples are equal"
    level_db = 20.0 * np.log10(deviation)
    if level_db < SILENCE_DB:
        return f"{SILENCE}: expected above {SILENCE_DB:g} dB of full scale, found {level_db:.1f}"
    return None


def without(split: CorpusSplit, faults: Iterable[Rejected]) -> CorpusSplit:
    """The split without these recordings and what was said in them."""
    bad = {fault.utt_id for fault in faults}
    return replace(
        split,
        recordings=RecordingSet.from_recordings(r for r in split.recordings if r.id not in bad),
        supervisions=SupervisionSet.from_segments(s for s in split.supervisions if s.recording_id not in bad),
        rejected=(),
    )
