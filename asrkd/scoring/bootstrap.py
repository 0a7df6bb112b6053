"""Bootstrap confidence intervals over utterances, paired comparisons and the gap recovered.

Every metric is a ratio of per-utterance sums (errors over words, correct frames over frames). One bootstrap over
utterances (Bisani and Ney, ICASSP 2004) therefore serves all metrics. A drawn utterance carries the counts of every
system, so that intervals of differences are paired. The draws are those of a seeded numpy generator.

Utterances of one speaker are not independent. Where a test set has speakers enough, `by_speaker` makes a metric whose
rows are speakers: everything here then draws speakers, each with all of its utterances (a block bootstrap: Liu and
Peng, Statistical testing on ASR performance via blockwise bootstrap, Interspeech 2020).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asrkd.errors import InputError

NUM_REPLICATES = 10_000
# Rows of resampling weights in memory at once: 500 x 2,600 utterances x 8 bytes is 10 MB. Fewer for larger test sets:
# at most 80 MB, twice.
REPLICATE_CHUNK = 500
WEIGHTS_AT_ONCE = 10_000_000
# Percentiles that bound a 95% interval.
CI95 = (2.5, 97.5)


@dataclass(frozen=True)
class UtteranceMetric:
    """A ratio of sums over utterances: value = scale * sum(numerator) / sum(denominator)."""

    name: str
    """Key in results.json: wer, cer, frame_accuracy or cross_entropy."""
    utt_ids: tuple[str, ...]
    """Utterance of each row, or speaker (`by_speaker`). Two systems are compared only over the same rows."""
    numerator: NDArray[np.float64]
    """Word or character errors, correct frames or summed cross-entropy (nats) per utterance, float64 [N]."""
    denominator: NDArray[np.float64]
    """Words, characters or frames per utterance, float64 [N]."""
    scale: float = 1.0
    """100 for a percentage."""
    higher_is_better: bool = False
    """True for accuracies."""

    def __post_init__(self) -> None:
        shape = (len(self.utt_ids),)
        if self.numerator.shape != shape or self.denominator.shape != shape:
            raise ValueError(
                f"{self.name}: expected {shape[0]} rows, found {self.numerator.shape} and {self.denominator.shape}"
            )
        if not self.denominator.sum() > 0:
            raise InputError(
                f"{self.name}: expected something to score, found no word or frame in {shape[0]} utterances"
            )

    @property
    def value(self) -> float:
        """The metric over all utterances."""
        return float(self.scale * self.numerator.sum() / self.denominator.sum())


def mean_over_seeds(metrics: Sequence[UtteranceMetric]) -> UtteranceMetric:
    """The metric with the mean per-utterance sums of several seeds of one system.

    An interval of it covers the choice of utterances, with these seeds averaged. It does not cover the choice of seeds.
    InputError or ValueError unless all are the same metric of the same utterances.
    """
    first = metrics[0]
    for other in metrics[1:]:
        _require_comparable(first, other)
    numerator = np.mean([metric.numerator for metric in metrics], axis=0)
    return UtteranceMetric(first.name, first.utt_ids, numerator, first.denominator, first.scale, first.higher_is_better)


def by_speaker(metric: UtteranceMetric, speakers: Mapping[str, str]) -> UtteranceMetric:
    """The metric with a row for each speaker, in order of first appearance: sums over the speaker's utterances.

    Its value is the same. A resample of it draws as many speakers as there are, with replacement, and with each all of
    its utterances, so that intervals allow for what the utterances of a speaker have in common. `speakers`: utt_id ->
    speaker, at least of the metric's utterances. InputError for an utterance without a speaker.
    """
    rows: dict[str, int] = {}
    index = []
    for utt_id in metric.utt_ids:
        if not speakers.get(utt_id):
            raise InputError(f"{utt_id}: expected a speaker, to draw speakers by, found none")
        index.append(rows.setdefault(speakers[utt_id], len(rows)))
    numerator: NDArray[np.float64] = np.bincount(index, weights=metric.numerator).astype(np.float64)
    denominator: NDArray[np.float64] = np.bincount(index, weights=metric.denominator).astype(np.float64)
    return UtteranceMetric(metric.name, tuple(rows), numerator, denominator, metric.scale, metric.higher_is_better)


def interval(metric: UtteranceMetric, num_replicates: int = NUM_REPLICATES, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap 95% interval (low, high) of the metric over utterances."""
    low, high = np.percentile(_replicate([metric], num_replicates, seed)[0], CI95)
    return float(low), float(high)


@dataclass(frozen=True)
class Comparison:
    """Difference of systems a and b on the same utterances, with a paired interval."""

    a: str
    """Name of the first system."""
    b: str
    """Name of the second system."""
    metric: str
    """wer (points), frame_accuracy (fraction) or cross_entropy (nats)."""
    delta: float
    """value(a) - value(b)."""
    ci95: tuple[float, float]
    """Percentile bootstrap 95% interval of delta over utterances."""
    p: float
    """Two-sided bootstrap p-value of delta = 0; at least 2 / (replicates + 1)."""

    def as_json(self) -> dict[str, Any]:
        """An entry of `comparisons` in results.json."""
        return {
            "a": self.a,
            "b": self.b,
            "metric": self.metric,
            "delta": self.delta,
            "ci95": list(self.ci95),
            "p": self.p,
        }


def compare(
    a: tuple[str, UtteranceMetric],
    b: tuple[str, UtteranceMetric],
    num_replicates: int = NUM_REPLICATES,
    seed: int = 0,
) -> Comparison:
    """Paired bootstrap of two (name, metric) systems.

    p is twice the smaller share of replicates on either side of zero (Efron and Tibshirani 1993, section 15.4). Zeros
    count on both sides. One is added to numerator and denominator, so that p is never 0. InputError if the systems were
    scored on different utterances.
    """
    _require_comparable(a[1], b[1])
    replicates = _replicate([a[1], b[1]], num_replicates, seed)
    delta = replicates[0] - replicates[1]
    low, high = np.percentile(delta, CI95)
    smaller = min(int((delta <= 0).sum()), int((delta >= 0).sum()))
    p = min(1.0, 2.0 * (smaller + 1) / (num_replicates + 1))
    return Comparison(a[0], b[0], a[1].name, a[1].value - b[1].value, (float(low), float(high)), p)


@dataclass(frozen=True)
class GapRecovered:
    """(distilled - baseline) / (teacher - baseline): the share of the teacher's gain that the student has.

    The teacher is an ensemble or a single network.
    """

    value: float | None
    """The share, None when the teacher is no better than the baseline."""
    ci95: tuple[float, float] | None
    """Percentile bootstrap 95% interval, None when the teacher has no gain in too many replicates."""
    reason: str | None
    """Why `value` or `ci95` is None."""

    def as_json(self) -> dict[str, Any]:
        """value, ci95 and reason."""
        return {
            "value": self.value,
            "ci95": None if self.ci95 is None else list(self.ci95),
            "reason": self.reason,
        }


def gap_recovered(
    baseline: UtteranceMetric,
    ensemble: UtteranceMetric,
    distilled: UtteranceMetric,
    num_replicates: int = NUM_REPLICATES,
    seed: int = 0,
    teacher: str = "ensemble",
    reference: str = "the baseline",
) -> GapRecovered:
    """The share of the ensemble's gain over the baseline that the distilled student recovers.

    The interval is over utterances (`share_interval`). `teacher` and `reference` are what a reason calls the two.
    InputError if the systems were scored on different utterances.
    """
    _require_comparable(baseline, ensemble)
    _require_comparable(baseline, distilled)
    sign = 1.0 if baseline.higher_is_better else -1.0
    gain = sign * (ensemble.value - baseline.value)
    if gain <= 0:
        values = f"{ensemble.value:.4g} is no better than {reference}'s {baseline.value:.4g}"
        return GapRecovered(None, None, f"the {teacher}'s {baseline.name} {values}")
    value = (distilled.value - baseline.value) / (ensemble.value - baseline.value)
    base, top, student = _replicate([baseline, ensemble, distilled], num_replicates, seed)
    return share_interval(value, sign * (top - base), sign * (student - base), teacher, reference)


def share_interval(
    value: float,
    gains: NDArray[np.float64],
    recovered: NDArray[np.float64],
    teacher: str = "ensemble",
    reference: str = "the baseline",
) -> GapRecovered:
    """`value`, a share of a gain, with the percentile 95% interval of recovered [R] / gains [R] over R replicates.

    A replicate without a gain has no meaningful ratio. If more than 2.5% of the replicates have none, the interval has
    no finite end (Fieller 1954) and is None with the reason. Fewer of them are excluded from the percentiles.
    """
    has_gain = gains > 0
    without = float((~has_gain).mean())
    if without > CI95[0] / 100:
        reason = f"in {100 * without:.1f}% of resamples the {teacher} is no better than {reference}"
        return GapRecovered(value, None, f"no finite interval: {reason}")
    low, high = np.percentile(recovered[has_gain] / gains[has_gain], CI95)
    return GapRecovered(value, (float(low), float(high)), None)


def draw_counts(rng: np.random.Generator, num_items: int, num_replicates: int) -> NDArray[np.int64]:
    """How often each item is drawn in each replicate, [num_replicates, num_items].

    A replicate draws `num_items` items with replacement, which is one multinomial draw of the counts.
    """
    return rng.multinomial(num_items, np.full(num_items, 1.0 / num_items), size=num_replicates)


def _require_comparable(a: UtteranceMetric, b: UtteranceMetric) -> None:
    if a.name != b.name or a.scale != b.scale:
        raise ValueError(f"expected the same metric, found {a.name} and {b.name}")
    if a.utt_ids != b.utt_ids:
        differing = next(
            (pair for pair in zip(a.utt_ids, b.utt_ids, strict=False) if pair[0] != pair[1]),
            ("one more", "none"),
        )
        raise InputError(
            f"{a.name}: expected the same utterances, found {len(a.utt_ids)} and {len(b.utt_ids)}, "
            f"first differing {differing[0]} and {differing[1]}"
        )
    if not np.array_equal(a.denominator, b.denominator):
        row = int(np.flatnonzero(a.denominator != b.denominator)[0])
        raise InputError(
            f"{a.utt_ids[row]}: expected equally many words or frames in both systems, found "
            f"{a.denominator[row]:g} and {b.denominator[row]:g}"
        )


def _replicate(metrics: Sequence[UtteranceMetric], num_replicates: int, seed: int) -> NDArray[np.float64]:
    """[metrics, replicates] values under the same resampled utterances."""
    numerators = np.stack([metric.numerator for metric in metrics])
    denominators = np.stack([metric.denominator for metric in metrics])
    scales = np.array([metric.scale for metric in metrics])
    chunks = [
        (numerators @ weights.T) / np.maximum(denominators @ weights.T, np.finfo(np.float64).tiny)
        for weights in _resampling_weights(numerators.shape[1], num_replicates, seed)
    ]
    return scales[:, None] * np.concatenate(chunks, axis=1)


def _resampling_weights(num_utts: int, num_replicates: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each utterance is drawn, in chunks of [replicates, N]."""
    rng = np.random.default_rng(seed)
    chunk = max(1, min(REPLICATE_CHUNK, WEIGHTS_AT_ONCE // num_utts))
    for start in range(0, num_replicates, chunk):
        size = min(chunk, num_replicates - start)
        yield draw_counts(rng, num_utts, size).astype(np.float64)
