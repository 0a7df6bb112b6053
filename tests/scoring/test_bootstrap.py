"""Intervals, paired comparisons and the gap recovered, against plain resampling and known rates."""

from __future__ import annotations

import random

import numpy as np
import pytest

from asrkd.errors import InputError
from asrkd.scoring import bootstrap
from asrkd.scoring.bootstrap import (
    UtteranceMetric,
    by_speaker,
    compare,
    draw_counts,
    gap_recovered,
    interval,
    mean_over_seeds,
)


def metric(errors: list[float], words: list[float], name: str = "wer", higher: bool = False) -> UtteranceMetric:
    utt_ids = tuple(f"u{n}" for n in range(len(errors)))
    return UtteranceMetric(name, utt_ids, np.array(errors), np.array(words), higher_is_better=higher)


def random_metrics(seed: int, number: int = 200) -> tuple[UtteranceMetric, UtteranceMetric, UtteranceMetric]:
    """Three systems, each better than the one before, with errors in common."""
    generator = np.random.default_rng(seed)
    count = generator.integers(3, 12, number).astype(float)
    hard = generator.beta(1, 4, number)
    rates = [hard, hard * 0.7, hard * 0.75]
    base, top, student = (generator.binomial(count.astype(int), rate).astype(float) for rate in rates)
    return tuple(metric(list(errors), list(count)) for errors in (base, top, student))


def test_interval_agrees_with_resampling_one_by_one() -> None:
    base, *_ = random_metrics(0)
    generator = random.Random(1)
    rows = range(len(base.utt_ids))
    values = []
    for _ in range(4000):
        drawn = generator.choices(rows, k=len(rows))
        values.append(base.numerator[drawn].sum() / base.denominator[drawn].sum())
    expected = np.percentile(values, [2.5, 97.5])
    np.testing.assert_allclose(interval(base), expected, atol=0.004)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    # 300 data sets with a known rate of 0.2: a 95% interval misses it in about 15.
    generator = np.random.default_rng(0)
    missed = 0
    for _ in range(300):
        count = generator.integers(3, 12, 100)
        errors = generator.binomial(count, 0.2)
        low, high = interval(metric(list(errors.astype(float)), list(count.astype(float))), num_replicates=500)
        missed += not low <= 0.2 <= high
    assert 4 <= missed <= 32


def test_same_seed_same_interval() -> None:
    base, *_ = random_metrics(0)
    assert interval(base, seed=4) == interval(base, seed=4)
    assert interval(base, seed=4) != interval(base, seed=5)


def test_paired_comparison_is_sharper_than_two_intervals() -> None:
    base, top, _ = random_metrics(0)
    found = compare(("ensemble", top), ("baseline", base))
    assert found.delta == pytest.approx(top.value - base.value)
    assert found.ci95[0] < found.delta < found.ci95[1] < 0
    assert found.p < 0.01
    back = compare(("baseline", base), ("ensemble", top))
    assert back.delta == -found.delta
    assert back.ci95 == pytest.approx((-found.ci95[1], -found.ci95[0]))
    assert back.p == found.p


def test_a_system_does_not_differ_from_itself() -> None:
    base, *_ = random_metrics(0)
    found = compare(("a", base), ("b", base))
    assert (found.delta, found.ci95, found.p) == (0.0, (0.0, 0.0), 1.0)


def test_p_values_of_equal_systems_are_spread_evenly() -> None:
    generator = np.random.default_rng(0)
    p_values = []
    for _ in range(300):
        count = np.full(60, 10.0)
        a, b = (generator.binomial(10, 0.3, 60).astype(float) for _ in range(2))
        p_values.append(
            compare(("a", metric(list(a), list(count))), ("b", metric(list(b), list(count))), num_replicates=500).p
        )
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.11
    assert 0.4 <= np.mean(np.array(p_values) < 0.5) <= 0.6


def test_systems_over_other_utterances_are_not_compared() -> None:
    base, *_ = random_metrics(0)
    fewer = UtteranceMetric("wer", base.utt_ids[1:], base.numerator[1:], base.denominator[1:])
    with pytest.raises(InputError, match="the same utterances"):
        compare(("a", base), ("b", fewer))
    longer = UtteranceMetric("wer", base.utt_ids, base.numerator, base.denominator + 1)
    with pytest.raises(InputError, match="u0: expected equally many words"):
        compare(("a", base), ("b", longer))
    with pytest.raises(ValueError, match="same metric"):
        compare(("a", base), ("b", metric([1.0], [2.0], "cross_entropy")))


def test_gap_recovered_by_hand_and_with_an_interval() -> None:
    base, top, student = random_metrics(0, 600)
    found = gap_recovered(base, top, student)
    assert found.value == pytest.approx((base.value - student.value) / (base.value - top.value))
    assert found.ci95 is not None
    assert found.ci95[0] < found.value < found.ci95[1]
    assert gap_recovered(base, top, top).ci95 == pytest.approx((1.0, 1.0))
    assert gap_recovered(base, top, base).ci95 == pytest.approx((0.0, 0.0))


def test_gap_recovered_of_an_accuracy_rises() -> None:
    base = metric([5.0, 6.0, 5.0], [10.0] * 3, "frame_accuracy", higher=True)
    top = metric([7.0, 8.0, 7.0], [10.0] * 3, "frame_accuracy", higher=True)
    student = metric([6.5, 7.5, 6.5], [10.0] * 3, "frame_accuracy", higher=True)
    found = gap_recovered(base, top, student)
    assert found.value == pytest.approx(0.75)
    assert found.ci95 == pytest.approx((0.75, 0.75))


def test_no_gap_is_null_with_the_reason() -> None:
    base, top, student = random_metrics(0)
    found = gap_recovered(top, base, student)
    assert (found.value, found.ci95) == (None, None)
    assert found.reason is not None
    assert "no better than the baseline" in found.reason
    # Better by so little that many resamples say otherwise: a value, and no interval.
    nearly = UtteranceMetric("wer", base.utt_ids, base.numerator.copy(), base.denominator)
    nearly.numerator[0] += 1
    found = gap_recovered(nearly, base, student)
    assert found.value is not None
    assert found.ci95 is None
    assert "no finite interval" in (found.reason or "")


def test_counts_of_a_replicate_are_those_of_as_many_draws() -> None:
    """The mean count of an item is 1 and its variance 1 - 1/N, as of N draws with replacement."""
    counts = draw_counts(np.random.default_rng(2), 20, 50_000)
    assert counts.shape == (50_000, 20) and (counts.sum(axis=1) == 20).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(20), abs=0.03)
    assert counts.var(axis=0) == pytest.approx(np.full(20, 1 - 1 / 20), abs=0.05)


def test_mean_over_seeds_averages_sums() -> None:
    first, second = metric([1.0, 3.0], [4.0, 4.0]), metric([3.0, 1.0], [4.0, 4.0])
    mean = mean_over_seeds([first, second])
    assert mean.numerator.tolist() == [2.0, 2.0]
    assert mean.value == pytest.approx((first.value + second.value) / 2)
    assert interval(mean) == (0.5, 0.5)


def test_weights_of_many_utterances_are_drawn_in_smaller_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    base, top, _ = random_metrics(3)
    expected = interval(base), compare(("a", base), ("b", top)).as_json()
    sizes: list[int] = []

    def recorded(rng: np.random.Generator, num_items: int, num_replicates: int) -> np.ndarray:
        sizes.append(num_items * num_replicates)
        return draw_counts(rng, num_items, num_replicates)

    monkeypatch.setattr(bootstrap, "draw_counts", recorded)
    monkeypatch.setattr(bootstrap, "WEIGHTS_AT_ONCE", 2000)
    found = interval(base), compare(("a", base), ("b", top)).as_json()
    assert found == expected, "the draws are the same"
    assert max(sizes) == 2000


def of_speakers(metric: UtteranceMetric, num_speakers: int, seed: int = 5) -> dict[str, str]:
    """A speaker for each utterance, in no order, some with many utterances and some with few."""
    drawn = np.random.default_rng(seed).zipf(1.5, len(metric.utt_ids)) % num_speakers
    return {utt_id: f"s{number}" for utt_id, number in zip(metric.utt_ids, drawn, strict=True)}


def test_a_resample_by_speakers_is_that_of_a_direct_loop() -> None:
    """The same draws of speakers, and every utterance of a speaker that is drawn, one by one."""
    base, top, _ = random_metrics(0)
    speakers = of_speakers(base, 12)
    names = list(dict.fromkeys(speakers.values()))
    replicates = 300
    counts = draw_counts(np.random.default_rng(9), len(names), replicates)
    deltas, values = [], []
    for row in counts:
        errors, others, words = 0.0, 0.0, 0.0
        for name, times in zip(names, row, strict=True):
            for number, utt_id in enumerate(base.utt_ids):
                if speakers[utt_id] == name:
                    errors += times * base.numerator[number]
                    others += times * top.numerator[number]
                    words += times * base.denominator[number]
        values.append(errors / words)
        deltas.append((others - errors) / words)
    blocks = by_speaker(base, speakers), by_speaker(top, speakers)
    np.testing.assert_allclose(interval(blocks[0], replicates, 9), np.percentile(values, [2.5, 97.5]), rtol=1e-12)
    found = compare(("top", blocks[1]), ("base", blocks[0]), replicates, 9)
    np.testing.assert_allclose(found.ci95, np.percentile(deltas, [2.5, 97.5]), rtol=1e-12)
    assert found.delta == pytest.approx(top.value - base.value, rel=1e-12)


def test_speakers_of_one_utterance_each_are_the_bootstrap_over_utterances() -> None:
    """To the bit: values, intervals, paired differences, the gap recovered."""
    metrics = random_metrics(1)
    alone = {utt_id: f"speaker of {utt_id}" for utt_id in metrics[0].utt_ids}
    blocks = [by_speaker(one, alone) for one in metrics]
    assert [one.value for one in blocks] == [one.value for one in metrics]
    assert interval(blocks[0]) == interval(metrics[0])
    assert compare(("a", blocks[0]), ("b", blocks[1])) == compare(("a", metrics[0]), ("b", metrics[1]))
    assert gap_recovered(*blocks) == gap_recovered(*metrics)


def test_intervals_by_speakers_are_wider_where_speakers_differ() -> None:
    """An interval over utterances misses the rate of all speakers far more often than it says; one over speakers does
    not: 40 speakers of ten utterances, with error rates of their own."""
    generator = np.random.default_rng(0)
    speakers = {f"u{number}": f"s{number // 10}" for number in range(400)}
    missed = {"utterances": 0, "speakers": 0}
    for _ in range(200):
        rates = np.repeat(generator.beta(2, 8, 40), 10)
        errors = generator.binomial(10, rates).astype(float)
        one = metric(list(errors), [10.0] * 400)
        for name, shown in (("utterances", one), ("speakers", by_speaker(one, speakers))):
            low, high = interval(shown, num_replicates=300)
            missed[name] += not low <= 0.2 <= high
    assert missed["utterances"] > 50
    assert missed["speakers"] < 26


def test_an_utterance_without_a_speaker_is_in_no_block() -> None:
    base, *_ = random_metrics(0)
    with pytest.raises(InputError, match="u1: expected a speaker"):
        by_speaker(base, {"u0": "ann", "u1": ""})
