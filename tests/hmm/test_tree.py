"""Senone tree: what it asks, what it gains, and what becomes of triphones never seen."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asrkd.errors import InputError
from asrkd.hmm.questions import cluster_questions
from asrkd.hmm.statistics import TriphoneStats, accumulate_frames, log_likelihood
from asrkd.hmm.topology import NUM_STATES
from asrkd.hmm.tree import SenoneTree, TreeOptions, build_tree

PHONES = ("SIL", "A", "E", "K", "T", "M", "N")
VOWELS, STOPS, NASALS = (1, 2), (3, 4), (5, 6)
NUM_ROOTS = len(PHONES) * NUM_STATES
FRAMES_EACH = 20


def draw_frames(seed: int, excluded: tuple[int, int, int] | None = None) -> tuple[Tensor, ...]:
    """Frames of all triphones; a vowel's first state leans on whether a stop or a nasal comes before it.

    A phone's own mean sets its kind (vowel, stop, nasal) far apart, so that questions can be found.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for left, phone, right, state in itertools.product(range(7), range(7), range(7), range(NUM_STATES)):
        if (left, phone, right) != excluded:
            rows += [(left, phone, right, state)] * FRAMES_EACH
    left, phone, right, state = torch.tensor(rows).t()
    kind = torch.tensor([0, 1, 1, 2, 2, 3, 3])
    mean = torch.zeros(len(rows), 3)
    mean[:, 0] = 20.0 * kind[phone] + phone + 3.0 * state
    affected = (kind[phone] == 1) & (state == 0)
    mean[:, 1] = torch.where(affected, 4.0 * (kind[left] == 3) - 4.0 * (kind[left] == 2), torch.zeros(()))
    return left, phone, right, state, mean + torch.randn(len(rows), 3, generator=generator)


@pytest.fixture(scope="module")
def stats() -> TriphoneStats:
    return accumulate_frames(*draw_frames(0))


@pytest.fixture(scope="module")
def tree(stats: TriphoneStats) -> SenoneTree:
    return build_tree(stats, PHONES, TreeOptions(num_leaves=NUM_ROOTS + 4, min_count=10))


def one(tree: SenoneTree, left: int, phone: int, right: int, state: int) -> int:
    return int(tree.pdf_ids(*(torch.tensor(x) for x in (left, phone, right, state))))


def test_monophone_tree_knows_no_context() -> None:
    tree = SenoneTree.monophone(PHONES)
    assert tree.num_pdfs == NUM_ROOTS
    assert one(tree, 0, 2, 5, 1) == one(tree, 6, 2, 0, 1) == 2 * NUM_STATES + 1


def test_statistics_are_those_of_the_frames(stats: TriphoneStats) -> None:
    left, phone, right, state, feats = draw_frames(0)
    row = 777
    mine = torch.stack([left, phone, right, state], dim=1) == torch.from_numpy(stats.keys[row])
    frames = feats[mine.all(1)].double()
    assert stats.count[row] == FRAMES_EACH
    np.testing.assert_allclose(stats.total[row], frames.sum(0).numpy(), rtol=1e-12)
    np.testing.assert_allclose(stats.squares[row], frames.square().sum(0).numpy(), rtol=1e-12)


def test_likelihood_is_that_of_the_frames_under_their_own_gaussian() -> None:
    frames = torch.randn(50, 4, generator=torch.Generator().manual_seed(1)).double() * 3 + 1
    gaussian = torch.distributions.Normal(frames.mean(0), frames.std(0, unbiased=False))
    sums = (np.array(50.0), frames.sum(0).numpy(), frames.square().sum(0).numpy())
    assert log_likelihood(*sums, np.zeros(4)) == pytest.approx(gaussian.log_prob(frames).sum().item())


def test_clustering_finds_the_kinds_of_phones(stats: TriphoneStats) -> None:
    sets = {frozenset(np.flatnonzero(row).tolist()) for row in cluster_questions(stats, len(PHONES))}
    assert {frozenset(VOWELS), frozenset(STOPS), frozenset(NASALS)} <= sets
    assert {frozenset([phone]) for phone in range(len(PHONES))} <= sets


@pytest.mark.parametrize("seed", range(5))
def test_clustering_merges_the_pair_that_loses_least(seed: int) -> None:
    """The questions are those of a plain search over all pairs at each step."""
    generator = torch.Generator().manual_seed(seed)
    columns = [torch.randint(12, (3000,), generator=generator) for _ in range(3)]
    state = torch.randint(NUM_STATES, (3000,), generator=generator)
    mean = torch.randn(12, 5, generator=generator)
    stats = accumulate_frames(*columns, state, mean[columns[1]] + torch.randn(3000, 5, generator=generator))
    expected = {frozenset([phone]) for phone in range(12)}
    for states in (range(NUM_STATES), [0], [NUM_STATES - 1]):
        used = np.isin(stats.keys[:, 3], states)
        sets = [frozenset([phone]) for phone in range(1, 12)]

        def likelihood(members: frozenset[int], used: np.ndarray = used) -> float:
            rows = used & np.isin(stats.keys[:, 1], list(members))
            sums = (values[rows].sum(0) for values in (stats.count, stats.total, stats.squares))
            return float(log_likelihood(*sums, stats.floor))

        while len(sets) > 2:
            first, second = min(
                itertools.combinations(sets, 2),
                key=lambda pair: likelihood(pair[0]) + likelihood(pair[1]) - likelihood(pair[0] | pair[1]),
            )
            sets = [one for one in sets if one not in (first, second)] + [first | second]
            expected.add(first | second)
    everything = frozenset(range(12))
    found = {frozenset(np.flatnonzero(row).tolist()) for row in cluster_questions(stats, 12)}
    assert {frozenset((one, everything - one)) for one in found} == {
        frozenset((one, everything - one)) for one in expected
    }


def test_tree_recovers_the_context_that_matters(tree: SenoneTree) -> None:
    for vowel in VOWELS:
        after = [one(tree, left, vowel, right, 0) for left in range(7) for right in range(7)]
        by_kind = {
            kind: {after[7 * left + right] for left in members for right in range(7)}
            for kind, members in {"stop": STOPS, "nasal": NASALS, "other": (0, *VOWELS)}.items()
        }
        assert all(len(leaves) == 1 for leaves in by_kind.values())
        assert len(set.union(*by_kind.values())) == 3
    # Nothing else leans on its neighbours, and the four leaves to spare went to the two vowels.
    assert one(tree, 3, 1, 0, 1) == one(tree, 5, 1, 2, 1)
    assert tree.num_pdfs == NUM_ROOTS + 4


def test_gain_is_the_likelihood_of_leaves_less_that_of_roots(stats: TriphoneStats, tree: SenoneTree) -> None:
    keys = torch.from_numpy(stats.keys)
    leaf = tree.pdf_ids(*keys.t()).numpy()
    root = (keys[:, 1] * NUM_STATES + keys[:, 3]).numpy()

    def pooled(group: np.ndarray) -> float:
        total = 0.0
        for value in np.unique(group):
            rows = group == value
            sums = (x[rows].sum(0) for x in (stats.count, stats.total, stats.squares))
            total += float(log_likelihood(*sums, stats.floor))
        return total

    assert tree.log_likelihood_gain > 0
    assert tree.log_likelihood_gain == pytest.approx(pooled(leaf) - pooled(root), rel=1e-9)


def test_unseen_triphone_answers_the_questions_like_its_kin() -> None:
    unseen = (3, 1, 5)  # K A N
    tree = build_tree(accumulate_frames(*draw_frames(0, excluded=unseen)), PHONES, TreeOptions(NUM_ROOTS + 4, 10))
    assert one(tree, *unseen, 0) == one(tree, 4, 1, 5, 0)  # as after T, the other stop
    assert one(tree, *unseen, 0) != one(tree, 6, 1, 5, 0)


def test_silence_has_no_context(stats: TriphoneStats) -> None:
    left, phone, right, state, feats = draw_frames(0)
    feats = feats.clone()
    feats[:, 2] += 50.0 * (phone == 0) * left  # silence leans on its neighbour more than anything
    large = build_tree(accumulate_frames(left, phone, right, state, feats), PHONES, TreeOptions(60, 10))
    assert large.num_pdfs == 60
    assert len({one(large, near, 0, far, 1) for near in range(7) for far in range(7)}) == 1


def test_every_leaf_keeps_its_count() -> None:
    stats = accumulate_frames(*draw_frames(3))
    tree = build_tree(stats, PHONES, TreeOptions(num_leaves=10_000, min_count=150))
    count = np.bincount(tree.pdf_ids(*torch.from_numpy(stats.keys).t()).numpy(), stats.count, tree.num_pdfs)
    assert NUM_ROOTS < tree.num_pdfs < 10_000
    assert count.min() >= 150


def test_fewer_leaves_than_states_are_refused(stats: TriphoneStats) -> None:
    with pytest.raises(InputError, match=r"--tree.num-leaves: expected at least 21, .*, found 20"):
        build_tree(stats, PHONES, TreeOptions(num_leaves=20))


def test_saved_tree_is_the_same_and_a_changed_file_is_refused(tree: SenoneTree, tmp_path: Path) -> None:
    path = tmp_path / "tree.json"
    tree.save(path)
    again = SenoneTree.load(path)
    grid = torch.cartesian_prod(*(torch.arange(7) for _ in range(3)), torch.arange(NUM_STATES)).t()
    assert torch.equal(again.pdf_ids(*grid), tree.pdf_ids(*grid))
    assert again.fingerprint == tree.fingerprint != SenoneTree.monophone(PHONES).fingerprint
    content = json.loads(path.read_text())
    content["yes"], content["no"] = content["no"], content["yes"]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"tree\.json.*fingerprint"):
        SenoneTree.load(path)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), extra=st.integers(0, 40))
def test_leaves_part_all_triphone_states_among_them(seed: int, extra: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    columns = [torch.randint(len(PHONES), (1500,), generator=generator) for _ in range(3)]
    state = torch.randint(NUM_STATES, (1500,), generator=generator)
    stats = accumulate_frames(*columns, state, torch.randn(1500, 2, generator=generator))
    tree = build_tree(stats, PHONES, TreeOptions(NUM_ROOTS + extra, min_count=5))
    grid = torch.cartesian_prod(*(torch.arange(7) for _ in range(3)), torch.arange(NUM_STATES)).t()
    pdf_ids = tree.pdf_ids(*grid)
    assert set(pdf_ids.tolist()) == set(range(tree.num_pdfs))
    owners = {pdf: set() for pdf in range(tree.num_pdfs)}
    for pdf, phone, state_ in zip(pdf_ids.tolist(), grid[1].tolist(), grid[3].tolist(), strict=True):
        owners[pdf].add((phone, state_))
    assert all(len(states) == 1 for states in owners.values())


def test_ids_out_of_range_are_refused(tree: SenoneTree) -> None:
    with pytest.raises(ValueError, match=r"left in \[0, 7\)"):
        tree.pdf_ids(torch.tensor([7]), torch.tensor([1]), torch.tensor([1]), torch.tensor([0]))
