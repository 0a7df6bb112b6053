"""Scores against hand counts, brute force, and kaldialign's own bootstrap."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

kaldialign = pytest.importorskip("kaldialign")

from asrkd.errors import InputError  # noqa: E402 - after the check for kaldialign
from asrkd.scoring import (  # noqa: E402
    UtteranceMetric,
    assemble_results,
    compare,
    comparisons,
    confusions,
    frame_metrics,
    gap_recovered,
    gaps_recovered,
    interval,
    mean_over_seeds,
    seed_rows,
    system_entry,
    system_metrics,
    wer,
    worst_rows,
    worst_utterances,
)

REFS = {"u1": "THE CAT SAT".split(), "u2": "A B C D".split(), "u3": ["YES"]}
HYPS = {"u1": "THE CAT SAT".split(), "u2": "A X C D E".split(), "u3": []}


def metric(errors: list[float], words: list[float], name: str = "wer", higher: bool = False) -> UtteranceMetric:
    utt_ids = tuple(f"u{n}" for n in range(len(errors)))
    return UtteranceMetric(name, utt_ids, np.array(errors), np.array(words), higher_is_better=higher)


def edit_distance(ref: list[str], hyp: list[str]) -> int:
    row = list(range(len(hyp) + 1))
    for i, word in enumerate(ref, start=1):
        before, row[0] = row[0], i
        for j, heard in enumerate(hyp, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != heard))
    return row[-1]


def sclite_errors(ref: list[str], hyp: list[str], optional: set[str]) -> int:
    """As sclite: the alignment of least cost (substitution 4, insertion and deletion 3, of an optional word 2)."""
    row = [(3 * j, j) for j in range(len(hyp) + 1)]
    for word in ref:
        lost = (2, 0) if word in optional else (3, 1)
        before, row[0] = row[0], (row[0][0] + lost[0], row[0][1] + lost[1])
        for j, heard in enumerate(hyp, start=1):
            met = before if word == heard else (before[0] + 4, before[1] + 1)
            gone = (row[j][0] + lost[0], row[j][1] + lost[1])
            added = (row[j - 1][0] + 3, row[j - 1][1] + 1)
            before, row[j] = row[j], min(met, gone, added)
    return row[-1][1]


def test_errors_counted_by_hand() -> None:
    errors = wer(REFS, HYPS)
    assert (errors.ins, errors.dels, errors.subs, errors.words) == (1, 1, 1, 8)
    assert errors.percent == pytest.approx(100 * 3 / 8)
    assert errors.utterances[1].pairs == (("A", "A"), ("B", "X"), ("C", "C"), ("D", "D"), (None, "E"))
    assert set(confusions(errors)) == {("B", "X", 1), (None, "E", 1), ("YES", None, 1)}
    # u3 lost its only word; u2 has two errors in four.
    assert [utt.utt_id for utt in worst_utterances(errors, 5)] == ["u3", "u2"]
    row = worst_rows("baseline", errors, 2)[1]
    assert row["alignment"][1] == ["B", "X"] and (row["errors"], row["words"]) == (2, 4)


def test_worst_utterances_of_one_error_rate_go_by_their_errors() -> None:
    errors = wer({"a": ["X"], "b": ["X", "Y"], "c": list("VWXY")}, {"a": ["Y"], "b": [], "c": list("VWX")})
    assert [utt.utt_id for utt in worst_utterances(errors, 5)] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("ref", "hyp", "counts"),
    [
        ("sil a b sil", "a b", (0, 0, 0)),  # left out for nothing
        ("sil a b sil", "sil a b sil", (0, 0, 0)),
        ("a b", "a sil b", (1, 0, 0)),  # but not put in
        ("a b", "a", (0, 1, 0)),
        ("sil a c", "b c", (0, 0, 1)),  # of two alignments the one that leaves out the silence
        ("a sil b", "a c b", (0, 0, 1)),
        ("sil a sil b sil c", "c", (0, 2, 0)),
        ("a sil", "sil a", (1, 0, 0)),  # left out behind a match, where an insertion before it is no substitution
        ("sil a", "a sil", (1, 0, 0)),
    ],
)
def test_an_optional_word_may_be_missing(ref: str, hyp: str, counts: tuple[int, int, int]) -> None:
    errors = wer({"u": ref.split()}, {"u": hyp.split()}, optional={"sil"})
    assert (errors.ins, errors.dels, errors.subs) == counts
    assert errors.words == len(ref.split())
    assert [b for _, b in errors.utterances[0].pairs if b is not None] == hyp.split()


def test_optional_words_are_counted_as_sclite_does() -> None:
    """On phones with a quarter of errors; the silences that are missing are no errors."""
    draw = random.Random(0)
    phones = [*(f"p{n}" for n in range(38)), *["sil"] * 6]
    refs, hyps = {}, {}
    for utt in range(200):
        ref = ["sil", *(draw.choice(phones) for _ in range(36)), "sil"]
        kept = [phone for phone in ref[1:-1] if draw.random() > 0.06]
        refs[f"u{utt}"] = ref
        hyps[f"u{utt}"] = [phone if draw.random() > 0.12 else draw.choice(phones) for phone in kept]
    found = wer(refs, hyps, optional={"sil"}).errors
    theirs = sum(sclite_errors(ref, hyps[utt_id], {"sil"}) for utt_id, ref in refs.items())
    assert theirs > 800
    assert found == theirs
    assert wer(refs, hyps).errors > 1.3 * found


words = st.lists(st.sampled_from("A B C".split()), max_size=7)


@given(st.lists(st.tuples(words, words), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_counts_are_the_edit_distance_and_agree_with_the_alignment(
    pairs: list[tuple[list[str], list[str]]],
) -> None:
    refs = {f"u{n}": ref for n, (ref, _) in enumerate(pairs)} | {"last": ["A"]}
    hyps = {f"u{n}": hyp for n, (_, hyp) in enumerate(pairs)} | {"last": ["A"]}
    for utt in wer(refs, hyps).utterances:
        ref, hyp = refs[utt.utt_id], hyps[utt.utt_id]
        assert utt.errors == edit_distance(ref, hyp)
        assert [a for a, _ in utt.pairs if a is not None] == ref
        assert [b for _, b in utt.pairs if b is not None] == hyp
        assert utt.ins == sum(a is None for a, _ in utt.pairs)
        assert utt.dels == sum(b is None for _, b in utt.pairs)
        assert utt.subs == sum(None not in (a, b) and a != b for a, b in utt.pairs)


def test_one_sided_utterances_are_named() -> None:
    with pytest.raises(InputError, match="u3: expected a hypothesis"):
        wer(REFS, {key: HYPS[key] for key in ("u1", "u2")})
    with pytest.raises(InputError, match="u4: expected a reference"):
        wer(REFS, {**HYPS, "u4": []})
    with pytest.raises(InputError, match="found none"):
        wer({"u1": []}, {"u1": ["A"]})


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


def test_interval_agrees_with_kaldialigns() -> None:
    generator = np.random.default_rng(3)
    refs = {f"u{n}": list(generator.choice(list("ABCD"), 6)) for n in range(80)}
    hyps = {utt: [w if generator.random() < 0.8 else "Z" for w in ref] for utt, ref in refs.items()}
    low, high = interval(wer(refs, hyps).metric)
    peer = kaldialign.bootstrap_wer_ci(list(refs.values()), list(hyps.values()))
    assert low == pytest.approx(100 * peer["ci95min"], abs=0.6)
    assert high == pytest.approx(100 * peer["ci95max"], abs=0.6)


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


def test_frame_metrics_by_hand() -> None:
    log_probs = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3]]).log()
    found = frame_metrics(
        [("a", log_probs[:2]), ("b", log_probs[2:])], {"a": torch.tensor([0, 1]), "b": torch.tensor([1])}
    )
    assert found.accuracy.value == pytest.approx(2 / 3)
    assert found.cross_entropy.value == pytest.approx(-(math.log(0.7) + math.log(0.1) + math.log(0.4)) / 3)
    assert found.accuracy.numerator.tolist() == [1.0, 1.0]
    assert found.accuracy.denominator.tolist() == [2.0, 1.0]


def test_frame_metrics_refuse_logits_and_wrong_lengths() -> None:
    labels = {"a": torch.tensor([0, 1])}
    with pytest.raises(InputError, match="a: expected log-probabilities that sum to one, found logits"):
        frame_metrics([("a", torch.ones(2, 3))], labels)
    with pytest.raises(InputError, match="a: expected one label a frame"):
        frame_metrics([("a", torch.zeros(3, 1))], labels)
    with pytest.raises(InputError, match="b: expected labels"):
        frame_metrics([("b", torch.zeros(2, 1))], labels)


def test_mean_over_seeds_averages_sums() -> None:
    first, second = metric([1.0, 3.0], [4.0, 4.0]), metric([3.0, 1.0], [4.0, 4.0])
    mean = mean_over_seeds([first, second])
    assert mean.numerator.tolist() == [2.0, 2.0]
    assert mean.value == pytest.approx((first.value + second.value) / 2)
    assert interval(mean) == (0.5, 0.5)


def test_results_have_the_agreed_keys() -> None:
    errors = wer(REFS, HYPS)
    frames = frame_metrics(
        [(utt, torch.log_softmax(torch.randn(4, 3), 1)) for utt in REFS],
        {utt: torch.zeros(4) for utt in REFS},
    )
    entry = system_entry(1000, 900, frames, {"test": errors}, {"test": 0.05}, description="4x512")
    runs = {
        "baseline": [system_metrics(frames, errors)] * 2,
        "distilled": [system_metrics(frames, errors)] * 2,
        "ensemble": [system_metrics(frames, errors)],
    }
    rows = comparisons(runs, [("distilled", "baseline")])
    results = assemble_results(
        recipe="an4",
        command="recipes/an4/run.sh",
        git_sha="0" * 7,
        config_sha="1" * 7,
        seed=0,
        device="cpu",
        systems=dict.fromkeys(runs, entry),
        comparisons=rows,
        gap_recovered=gaps_recovered(runs),
        seeds=seed_rows(runs, (0, 1)),
    )
    assert json.loads(json.dumps(results)) == results
    system = results["systems"]["baseline"]
    assert set(system) == {
        "parameters", "macs_per_frame", "frame_accuracy", "frame_accuracy_ci95", "cross_entropy", "cross_entropy_ci95",
        "wer", "rtf", "description",
    }  # fmt: skip
    assert system["frame_accuracy_ci95"] == list(interval(frames.accuracy))
    assert system["cross_entropy_ci95"] == list(interval(frames.cross_entropy))
    assert set(system["wer"]) == {"percent", "ins", "del", "sub", "words", "ci95"}
    assert [row["metric"] for row in results["comparisons"]] == ["frame_accuracy", "cross_entropy", "wer"]
    assert set(results["comparisons"][0]) == {"a", "b", "metric", "delta", "ci95", "p"}
    assert results["gap_recovered"]["wer"]["value"] is None
    assert [(row["seed"], row["system"]) for row in results["seeds"]] == [
        (0, "baseline"), (1, "baseline"), (0, "distilled"), (1, "distilled"),
    ]  # fmt: skip
    two = system_entry(1, 1, frames, {"clean": errors, "other": errors}, {"clean": 0.1, "other": 0.2})
    assert two["rtf"] == {"clean": 0.1, "other": 0.2}
    assert two["wer"]["other"]["words"] == 8


def test_results_name_only_systems_that_are_there() -> None:
    base, *_ = random_metrics(0)
    row = compare(("distilled", base), ("baseline", base))
    with pytest.raises(InputError, match="expected a system named distilled"):
        assemble_results("an4", "", "", "", 0, "cpu", {"baseline": {}}, [row], {})
