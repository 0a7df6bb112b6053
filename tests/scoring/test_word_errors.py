"""Word errors against hand counts, brute force, sclite's costs and kaldialign's own bootstrap."""

from __future__ import annotations

import random

import kaldialign
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrkd.errors import InputError
from asrkd.scoring.bootstrap import interval
from asrkd.scoring.results import worst_rows
from asrkd.scoring.words import confusions, wer, worst_utterances

REFS = {"u1": "THE CAT SAT".split(), "u2": "A B C D".split(), "u3": ["YES"]}
HYPS = {"u1": "THE CAT SAT".split(), "u2": "A X C D E".split(), "u3": []}


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


def test_interval_agrees_with_kaldialigns() -> None:
    generator = np.random.default_rng(3)
    refs = {f"u{n}": list(generator.choice(list("ABCD"), 6)) for n in range(80)}
    hyps = {utt: [w if generator.random() < 0.8 else "Z" for w in ref] for utt, ref in refs.items()}
    low, high = interval(wer(refs, hyps).metric)
    peer = kaldialign.bootstrap_wer_ci(list(refs.values()), list(hyps.values()))
    assert low == pytest.approx(100 * peer["ci95min"], abs=0.6)
    assert high == pytest.approx(100 * peer["ci95max"], abs=0.6)
