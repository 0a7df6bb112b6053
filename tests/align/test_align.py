"""Alignment: bookkeeping, training graphs, Viterbi through k2, flat start."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from optional_packages import skip_without
from real_speech import Utterance
from torch import Tensor

from asrkd.align.cepstra import cepstra, dct_matrix, deltas
from asrkd.align.flat_start import FlatStartOptions, flat_start, spread_states
from asrkd.align.gaussians import DiagonalMixtures
from asrkd.align.graphs import TrainingGraphs
from asrkd.align.labels import NO_LABEL, aligned_rows, frame_ids, labels_of, store_labels
from asrkd.align.viterbi import ALIGNED_BATCHES, Aligner, ScoreFn, TrainingCorpus, ViterbiOptions, viterbi
from asrkd.errors import InputError
from asrkd.features.store import FrameStore
from asrkd.hmm.alignment import Alignment
from asrkd.hmm.estimate import accumulate_stats, estimate_transitions
from asrkd.hmm.statistics import accumulate_frames
from asrkd.hmm.topology import NUM_STATES, TransitionModel
from asrkd.hmm.tree import SenoneTree, TreeOptions, build_tree
from asrkd.lang.lexicon import Lexicon
from asrkd.workflow.cache import ResultCache
from asrkd.workflow.executor import Executor

LEXICON = Lexicon({"AB": (("A", "B"), ("B",)), "C": (("C",),), "CAB": (("C", "A", "B"),)})
PHONES = LEXICON.phones
MakeStore = Callable[[list[tuple[str, str, Tensor]]], FrameStore]


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    def make(utterances: list[tuple[str, str, Tensor]], name: str = "store") -> FrameStore:
        rows = [(utt_id, "speaker", text, feats) for utt_id, text, feats in utterances]
        return FrameStore.write(tmp_path / name, rows, {"frame_shift_ms": 10.0}, f"fingerprint of {name}")

    return make


def contextual_tree(seed: int = 0) -> SenoneTree:
    """A tree that asks about both neighbours, grown on noise."""
    generator = torch.Generator().manual_seed(seed)
    columns = [torch.randint(len(PHONES), (4000,), generator=generator) for _ in range(3)]
    state = torch.randint(NUM_STATES, (4000,), generator=generator)
    feats = torch.randn(4000, 3, generator=generator) + columns[0][:, None] - 2.0 * columns[2][:, None]
    return build_tree(accumulate_frames(*columns, state, feats), PHONES, TreeOptions(40, 10))


def hand_made() -> Alignment:
    """Two utterances: SIL A B (frames 2 3 3, with an A of states 0 1 2) and C alone."""
    return Alignment(
        utt_ids=("u", "v"),
        offsets=torch.tensor([0, 8, 11]),
        phone_id=torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3], dtype=torch.int16),
        state=torch.tensor([0, 1, 0, 1, 2, 0, 0, 2, 0, 1, 2], dtype=torch.int8),
        segment=torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 0, 0, 0], dtype=torch.int32),
        phones=PHONES,
        store_fingerprint="fingerprint of store",
        log_like=torch.tensor([-20.0, -2.0], dtype=torch.double),
        log_like_rounds=(-3.0, -2.0),
        wider_beam_rounds=(0, 1),
        rejected={"w": "too short"},
    )


class TestAlignment:
    def test_neighbours_are_the_utterances_own_and_silence_beyond(self) -> None:
        left, phone, right = hand_made().triphones()
        assert left.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0]
        assert phone.tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
        assert right.tolist() == [1, 1, 2, 2, 2, 0, 0, 0, 0, 0, 0]

    def test_segments_have_times(self) -> None:
        segments = hand_made().segments("u", frame_shift_ms=10.0)
        assert [segment.phone for segment in segments] == ["SIL", "A", "B"]
        assert [segment.end_sec for segment in segments] == pytest.approx([0.02, 0.05, 0.08])

    def test_visits_part_states_and_repeated_phones(self) -> None:
        assert hand_made().segment_starts().tolist() == [0, 2, 5, 8]
        assert hand_made().visit_starts().tolist() == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10]

    def test_saved_alignment_is_the_same(self, tmp_path: Path) -> None:
        hand_made().save(tmp_path / "ali.safetensors")
        again = Alignment.load(tmp_path / "ali.safetensors")
        assert again.fingerprint == hand_made().fingerprint
        assert (again.log_like_rounds, again.wider_beam_rounds) == ((-3.0, -2.0), (0, 1))
        assert dict(again.rejected) == {"w": "too short"}
        assert torch.equal(again.segment, hand_made().segment)
        assert torch.equal(again.log_like, hand_made().log_like)

    def test_shards_are_whole_utterances_and_count_the_same(self, tmp_path: Path) -> None:
        tree, whole = contextual_tree(), hand_made()
        first, second = whole.shards(8)
        assert [shard.utt_ids for shard in whole.shards(11)] == [("u", "v")]
        assert (first.utt_ids, second.utt_ids, second.offsets.tolist()) == (("u",), ("v",), [0, 3])
        assert (second.phone_id.tolist(), second.log_like.tolist()) == ([3, 3, 3], [-2.0])
        pdf_ids = tree.pdf_ids(*whole.triphones(), whole.state)
        assert torch.equal(torch.cat([shard.pdf_ids(tree) for shard in whole.shards(1)]), pdf_ids)
        assert torch.equal(whole.pdf_ids(tree, tmp_path), pdf_ids)
        feats = torch.randn(11, 2)
        expected = accumulate_frames(*whole.triphones(), whole.state, feats)
        found = accumulate_stats(whole, feats)
        for name in ("keys", "count", "total", "squares", "floor"):
            assert np.array_equal(getattr(found, name), getattr(expected, name)), name

    def test_a_log_likelihood_for_each_utterance_is_required(self) -> None:
        with pytest.raises(ValueError, match=r"each of 2 utterances, found torch.float64 \[1\]"):
            replace(hand_made(), log_like=torch.zeros(1, dtype=torch.double))

    def test_labels_of_a_store_leave_out_what_was_dropped(self, make_store: MakeStore) -> None:
        store = make_store([(u, "C", torch.randn(n, 2)) for u, n in (("w", 4), ("u", 8), ("v", 3))])
        labels = store_labels(hand_made(), store, SenoneTree.monophone(PHONES))
        assert labels.tolist() == [NO_LABEL] * 4 + [0, 1, 3, 4, 5, 6, 6, 8, 9, 10, 11]

    def test_labels_and_rows_of_some_of_the_utterances(self, make_store: MakeStore, tmp_path: Path) -> None:
        store = make_store([(u, "C", torch.randn(n, 2)) for u, n in (("w", 4), ("u", 8), ("v", 3))])
        tree = SenoneTree.monophone(PHONES)
        assert labels_of(hand_made(), store.subset(["v"]), tree, tmp_path).tolist() == [9, 10, 11]
        assert labels_of(hand_made(), store.subset(["v", "w"]), tree).tolist() == [9, 10, 11] + [NO_LABEL] * 4
        for folder in (None, tmp_path):
            assert frame_ids(hand_made(), store, folder).tolist() == [*range(4, 15)]
            assert torch.equal(aligned_rows(store.feats, hand_made(), store, folder), store.feats[4:])
        whole = replace(hand_made(), utt_ids=("u", "v"), store_fingerprint="fingerprint of part")
        part = make_store([("u", "C", torch.randn(8, 2)), ("v", "C", torch.randn(3, 2))], "part")  # type: ignore[call-arg]
        assert aligned_rows(part.feats, whole, part) is part.feats

    def test_another_store_and_another_tree_are_refused(self, make_store: MakeStore) -> None:
        other = make_store([("u", "C", torch.randn(8, 2))], "other")  # type: ignore[call-arg]
        with pytest.raises(InputError, match="fingerprint of other"):
            frame_ids(hand_made(), other)
        with pytest.raises(InputError, match="senone tree"):
            hand_made().pdf_ids(SenoneTree.monophone(("SIL", "X")))

    def test_asking_for_a_dropped_utterance_says_why(self) -> None:
        with pytest.raises(InputError, match=r"w: not aligned.*too short"):
            hand_made().span("w")

    def test_states_are_spread_evenly(self) -> None:
        state = spread_states(hand_made()).state.tolist()
        assert state == [0, 1, 0, 1, 2, 0, 1, 2, 0, 1, 2]


class TestFeatures:
    def test_dct_is_orthonormal(self) -> None:
        matrix = dct_matrix(8, 8)
        assert torch.allclose(matrix.t() @ matrix, torch.eye(8), atol=1e-5)

    def test_slope_of_a_line_is_its_slope_and_stays_within_the_utterance(self) -> None:
        feats = torch.cat([torch.arange(10.0), torch.full((5,), 100.0)])[:, None]
        slope = deltas(feats, [10, 5]).squeeze(1)
        assert torch.allclose(slope[1:9], torch.ones(8))
        assert torch.equal(slope[10:], torch.zeros(5))

    def test_cepstra_have_unit_variance(self, make_store: MakeStore, tmp_path: Path) -> None:
        store = make_store([("u", "C", torch.randn(50, 20)), ("v", "C", torch.randn(30, 20))])
        feats = cepstra(store)
        assert torch.equal(cepstra(store, folder=tmp_path), feats)
        assert feats.shape == (80, 39)
        assert torch.allclose(feats.var(0, unbiased=False), torch.ones(39), atol=1e-4)


class TestMixtures:
    def test_log_likelihood_is_that_of_the_density(self) -> None:
        mixtures = DiagonalMixtures(
            torch.randn(3, 2, 4), torch.rand(3, 2, 4) + 0.5, torch.tensor([[0.3, 0.7]]).log().expand(3, 2)
        )
        feats = torch.randn(6, 4)
        normal = torch.distributions.Normal(mixtures.mean, mixtures.variance.sqrt())
        density = torch.stack([normal.log_prob(x).sum(2) for x in feats]) + mixtures.log_weight
        assert torch.allclose(mixtures.log_likelihoods(feats), density.logsumexp(2), atol=1e-4)

    def test_splitting_and_reestimating_explains_two_clusters(self) -> None:
        generator = torch.Generator().manual_seed(0)
        feats = torch.randn(2000, 2, generator=generator)
        feats[:1000, 0] += 6.0
        labels = torch.zeros(2000, dtype=torch.long)
        single = DiagonalMixtures.estimate(feats, labels, 1)
        double = single.split()
        for _ in range(60):
            double = double.reestimate(feats, labels)
        assert sorted(double.mean[0, :, 0].tolist()) == pytest.approx([0.0, 6.0], abs=0.2)
        assert double.log_likelihoods(feats).mean() > single.log_likelihoods(feats).mean() + 0.3


def phone_strings(words: list[str]) -> Iterator[tuple[list[int], float]]:
    """Every way to say the words, with silences and variants, and its log-probability: what a graph is."""
    index = {phone: number for number, phone in enumerate(PHONES)}
    for variants in itertools.product(*(LEXICON.prons[word] for word in words)):
        for pauses in itertools.product((False, True), repeat=len(words) + 1):
            phones = [0] if pauses[0] else []
            for variant, pause in zip(variants, pauses[1:], strict=True):
                phones += [index[phone] for phone in variant] + ([0] if pause else [])
            log_variants = -sum(math.log(len(LEXICON.prons[word])) for word in words)
            yield phones, (len(words) + 1) * math.log(0.5) + log_variants


def chain(phones: list[int], tree: SenoneTree) -> np.ndarray:
    """pdf_ids of a phone string's HMM states in turn."""
    left, right = [0, *phones[:-1]], [*phones[1:], 0]
    columns = [torch.tensor(column).repeat_interleave(NUM_STATES) for column in (left, phones, right)]
    return tree.pdf_ids(*columns, torch.arange(NUM_STATES).repeat(len(phones))).numpy()


def best_path(pdfs: np.ndarray, scores: np.ndarray, transitions: TransitionModel) -> tuple[float, list[int]]:
    """Plain dynamic programming in float64 along one chain of states: score and state of each frame."""
    stay = transitions.log_self_loop.double().numpy()[pdfs]
    leave = transitions.log_forward.double().numpy()[pdfs]
    num_frames, num_states = len(scores), len(pdfs)
    best = np.full((num_frames, num_states), -np.inf)
    came = np.zeros((num_frames, num_states), dtype=int)
    best[0, 0] = scores[0, pdfs[0]]
    for t in range(1, num_frames):
        for s in range(num_states):
            options = [best[t - 1, s] + stay[s]] + ([best[t - 1, s - 1] + leave[s - 1]] if s else [])
            came[t, s] = int(np.argmax(options))
            best[t, s] = max(options) + scores[t, pdfs[s]]
    path = [num_states - 1]
    for t in range(num_frames - 1, 0, -1):
        path.append(path[-1] - came[t, path[-1]])
    return best[-1, -1] + leave[-1], path[::-1]


@dataclass(frozen=True)
class Asked:
    """Scores by utterance, up to one; a file lists which were asked for, in whatever process."""

    path: Path
    scores: dict[str, Tensor]
    end: str | None = None

    def __call__(self, utt_id: str) -> Tensor:
        if utt_id == self.end:
            raise InputError(f"{utt_id}: no more")
        with self.path.open("a") as file:
            file.write(f"{utt_id}\n")
        return self.scores[utt_id]

    def utt_ids(self) -> list[str]:
        return self.path.read_text().split()


def align(
    store: FrameStore,
    tree: SenoneTree,
    score_fn: ScoreFn,
    transitions: TransitionModel | None = None,
    options: ViterbiOptions = ViterbiOptions(),  # noqa: B008
    **how: Any,
) -> Alignment:
    """The store's own words with LEXICON, by scores in memory."""
    corpus = TrainingCorpus.build(store, LEXICON, tree.phones)
    aligner = Aligner(LEXICON, tree, transitions or TransitionModel.uniform(tree.num_pdfs), score_fn, options)
    return viterbi(corpus, aligner, tree.num_pdfs, options, **how)


class TestViterbi:
    @pytest.mark.needs("k2")
    @pytest.mark.parametrize("seed", range(6))
    def test_equals_dynamic_programming_over_all_phone_strings(self, seed: int, make_store: MakeStore) -> None:
        tree = contextual_tree(seed)
        generator = torch.Generator().manual_seed(seed)
        stay = 0.1 + 0.8 * torch.rand(tree.num_pdfs, generator=generator)
        transitions = TransitionModel(stay.log(), (1 - stay).log())
        texts = {"u": "AB C", "v": "CAB AB", "w": "C"}
        lengths = {"u": 24, "v": 40, "w": 9}
        store = make_store([(u, text, torch.zeros(lengths[u], 1)) for u, text in texts.items()])
        scores = {u: 3.0 * torch.randn(n, tree.num_pdfs, generator=generator) for u, n in lengths.items()}
        alignment = align(store, tree, scores.__getitem__, transitions, ViterbiOptions(batch_utterances=2))
        total = 0.0
        for utt_id, text in texts.items():
            found = (
                (weight + value, path, phones)
                for phones, weight in phone_strings(text.split())
                if NUM_STATES * len(phones) <= lengths[utt_id]
                for value, path in [best_path(chain(phones, tree), scores[utt_id].double().numpy(), transitions)]
            )
            score, path, phones = max(found)
            total += score
            assert alignment.log_like[alignment.utt_ids.index(utt_id)] == pytest.approx(score, abs=1e-4)
            span = alignment.span(utt_id)
            assert alignment.phone_id[span].tolist() == [phones[state // NUM_STATES] for state in path]
            assert alignment.state[span].tolist() == [state % NUM_STATES for state in path]
            assert alignment.segment[span].tolist() == [state // NUM_STATES for state in path]
            assert torch.equal(alignment.pdf_ids(tree)[span], torch.from_numpy(chain(phones, tree)[path]))
        assert alignment.log_like_per_frame == pytest.approx(total / sum(lengths.values()), abs=1e-5)

    def test_probable_pronunciations_weigh_more(self) -> None:
        """Weights of the first arcs: silence, then the two variants of AB, whose probabilities are made to sum to 1."""
        half = math.log(0.5)
        for lexicon, variants in (
            (LEXICON, (0.5, 0.5)),
            (Lexicon(LEXICON.prons, {"AB": (1.0, 0.25)}), (0.8, 0.2)),
            (Lexicon(LEXICON.prons, {"AB": (0.3, 0.3)}), (0.5, 0.5)),
        ):
            graphs = TrainingGraphs.build(["AB"], lexicon, PHONES)
            first = graphs.weight[graphs.source == 0].tolist()
            assert sorted(first) == pytest.approx(sorted([half, *(half + math.log(prob) for prob in variants)]))

    @pytest.mark.needs("k2")
    def test_graph_holds_exactly_the_ways_to_say_the_words(self) -> None:
        tree = contextual_tree()
        words = ["AB", "C", "AB"]
        graphs = TrainingGraphs.build([" ".join(words)], LEXICON, PHONES)
        graph = graphs.compile(tree, TransitionModel.uniform(tree.num_pdfs)).fsa_vec(0, 1)[0]
        arcs = graph.arcs.values()[:, :3].tolist()
        after: dict[int, list[tuple[int, int]]] = {}
        for source, target, label in arcs:
            if source != target:  # not the self-loops
                after.setdefault(source, []).append((target, label))

        def walk(state: int) -> Iterator[tuple[int, ...]]:
            for target, label in after.get(state, []):
                if label == -1:
                    yield ()
                else:
                    yield from ((label - 1, *rest) for rest in walk(target))

        said = sorted(walk(0))
        assert said == sorted(tuple(chain(phones, tree)) for phones, _ in phone_strings(words))

    @pytest.mark.needs("k2")
    def test_graph_arcs_are_sorted_for_k2_and_name_their_states(self) -> None:
        tree = contextual_tree()
        graphs = TrainingGraphs.build(["AB C", "CAB"], LEXICON, PHONES)
        compiled = graphs.compile(tree, TransitionModel.uniform(tree.num_pdfs))
        fsa_vec = compiled.fsa_vec(0, 2)
        assert "ArcSorted" in fsa_vec.properties_str
        assert fsa_vec.shape[0] == 2
        second = compiled.fsa_vec(1, 2)
        assert torch.equal(second.arcs.values(), fsa_vec[1].arcs.values())
        emitting = second.labels != -1
        assert torch.equal(second.hmm_state[emitting], fsa_vec[1].arcs.values()[emitting][:, 1] - 1)

    @pytest.mark.needs("k2")
    def test_what_cannot_be_aligned_is_named_and_the_rest_goes_on(self, make_store: MakeStore) -> None:
        store = make_store(
            [
                ("short", "CAB CAB", torch.zeros(17, 1)),
                ("good", "CAB", torch.zeros(9, 1)),
                ("stranger", "C XYZZY", torch.zeros(50, 1)),
                ("mute", "", torch.zeros(50, 1)),
            ]
        )
        tree = SenoneTree.monophone(PHONES)
        alignment = align(store, tree, lambda u: torch.zeros(len(store.utt(u)), tree.num_pdfs))
        assert alignment.utt_ids == ("good",)
        assert alignment.phone_id.tolist() == [3] * 3 + [1] * 3 + [2] * 3
        assert set(alignment.rejected) == {"short", "stranger", "mute"}
        assert alignment.rejected["short"] == "too few frames: 17 for 2 words, expected at least 18"
        assert alignment.rejected["stranger"] == "no pronunciation: XYZZY"

    @pytest.mark.needs("k2")
    def test_nothing_to_align_is_an_error(self, make_store: MakeStore) -> None:
        store = make_store([("short", "CAB", torch.zeros(5, 1))])
        tree = SenoneTree.monophone(PHONES)
        with pytest.raises(InputError, match="short: too few frames: 5 for 1 words"):
            align(store, tree, lambda u: torch.zeros(5, tree.num_pdfs))

    @pytest.mark.needs("k2")
    def test_scores_that_are_not_numbers_are_refused_by_utterance(self, make_store: MakeStore) -> None:
        store = make_store([("u", "C", torch.zeros(5, 1))])
        tree = SenoneTree.monophone(PHONES)
        with pytest.raises(InputError, match="u: expected finite"):
            align(store, tree, lambda u: torch.full((5, tree.num_pdfs), math.nan))

    @pytest.mark.needs("k2")
    def test_threads_and_batches_change_nothing(self, make_store: MakeStore) -> None:
        generator = torch.Generator().manual_seed(0)
        store = make_store([(f"u{n}", "AB CAB C", torch.randn(30 + n, 1, generator=generator)) for n in range(9)])
        tree = contextual_tree()
        scores = {u: torch.randn(len(store.utt(u)), tree.num_pdfs, generator=generator) for u in store.utt_ids}
        runs = [
            align(store, tree, scores.__getitem__, None, ViterbiOptions(batch_utterances=b), executor=Executor(j))
            for b, j in ((1, 1), (4, 2), (9, 1))
        ]
        assert len({run.fingerprint for run in runs}) == 1

    @pytest.mark.needs("k2")
    def test_a_beam_that_loses_a_path_is_given_up(self, make_store: MakeStore) -> None:
        """Scores that speak for other states than the words': within a narrow beam nothing reaches the end."""
        generator = torch.Generator().manual_seed(0)
        store = make_store([(f"u{n}", "AB CAB C", torch.zeros(30 + n, 1)) for n in range(4)])
        tree = contextual_tree()
        scores = {u: 30 * torch.randn(len(store.utt(u)), tree.num_pdfs, generator=generator) for u in store.utt_ids}
        wide, narrow = (
            align(store, tree, scores.__getitem__, None, ViterbiOptions(search_beam=beam)) for beam in (1e4, 0.1)
        )
        assert narrow.utt_ids == store.utt_ids
        assert narrow.fingerprint == wide.fingerprint

    @pytest.mark.needs("k2")
    def test_an_alignment_that_is_cut_short_goes_on(self, make_store: MakeStore, tmp_path: Path) -> None:
        generator = torch.Generator().manual_seed(0)
        # The last is too short for any way to say it: what is cached is that it has no path.
        lengths = {f"u{n}": 40 - n for n in range(9)} | {"short": 9}
        store = make_store([(u, "AB" if u == "short" else "AB CAB C", torch.zeros(n, 1)) for u, n in lengths.items()])
        tree = contextual_tree()
        scores = {u: torch.randn(n, tree.num_pdfs, generator=generator) for u, n in lengths.items()}
        options = ViterbiOptions(batch_utterances=2)
        whole = align(store, tree, scores.__getitem__, None, options)
        cache = ResultCache(tmp_path / "aligned.sqlite", "these", ALIGNED_BATCHES)
        asked = Asked(tmp_path / "asked", scores)
        with pytest.raises(InputError, match="u5: no more"):
            align(store, tree, Asked(tmp_path / "first", scores, end="u5"), None, options, cache=cache)
        resumed = align(store, tree, asked, None, options, cache=cache)
        assert sorted(asked.utt_ids()) == ["short", "u4", "u5", "u6", "u7", "u8"], "two batches were done"
        assert resumed.fingerprint == whole.fingerprint
        assert resumed.rejected == whole.rejected
        assert resumed.log_like_per_frame == whole.log_like_per_frame
        again = Asked(tmp_path / "again", scores)
        align(store, tree, again, None, options, cache=replace(cache, key="others"))
        assert sorted(again.utt_ids()) == sorted(lengths), "nothing is taken from an alignment by other scores"

    @pytest.mark.needs("k2")
    def test_rounding_in_long_utterances_moves_nothing(self, make_store: MakeStore) -> None:
        """A constant a frame, of the size of raw log-densities, must not drown the differences."""
        generator = torch.Generator().manual_seed(0)
        store = make_store([("u", "CAB " * 100, torch.zeros(4000, 1))])
        tree = SenoneTree.monophone(PHONES)
        scores = torch.randn(4000, tree.num_pdfs, generator=generator)
        plain = align(store, tree, lambda u: scores)
        shifted = align(store, tree, lambda u: scores - 4096.0)
        agreement = (plain.phone_id == shifted.phone_id).float().mean()
        assert agreement > 0.99
        assert shifted.log_like_per_frame == pytest.approx(plain.log_like_per_frame - 4096.0, abs=1e-3)


# A word's letters are its phones, every one of them in several contexts.
SPELT = "AB BAC CAD DEB EC FADE BED HEAD CAFE GAB HAG FEED ACE G EGG BADGE".split()
SPELLING = Lexicon({word: (tuple(word),) for word in SPELT} | {"BED": (tuple("BED"), tuple("BAD"))})


def draw_speech(num_utterances: int, seed: int = 0) -> tuple[list[tuple[str, str, Tensor]], dict[str, Tensor]]:
    """Utterances of an HMM with known Gaussians over ten bins, silence quiet, and their true states."""
    generator = torch.Generator().manual_seed(seed)
    phones, words = SPELLING.phones, SPELLING.words
    mean = 2.0 * torch.randn(len(phones), 1, 10, generator=generator)
    mean[0] = -6.0
    means = (mean + 2.0 * torch.randn(len(phones), NUM_STATES, 10, generator=generator)).flatten(0, 1)

    def choose(number: int) -> int:
        return int(torch.randint(number, (1,), generator=generator))

    utterances, truth = [], {}
    for number in range(num_utterances):
        text = [words[choose(len(words))] for _ in range(5)]
        said = [0]
        for word in text:
            variants = SPELLING.prons[word]
            said += [phones.index(phone) for phone in variants[choose(len(variants))]]
            said += [0] if choose(5) == 0 else []
        said += [0] if said[-1] != 0 else []
        states = (torch.tensor(said)[:, None] * NUM_STATES + torch.arange(NUM_STATES)).flatten()
        frames = 1 + torch.empty(states.shape).geometric_(0.35, generator=generator).long()
        pdf_ids = states.repeat_interleave(frames)
        feats = means[pdf_ids] + torch.randn(pdf_ids.numel(), 10, generator=generator)
        utterances.append((f"u{number:03d}", " ".join(text), feats))
        truth[f"u{number:03d}"] = pdf_ids
    return utterances, truth


@pytest.fixture
def start(make_store: MakeStore, tmp_path: Path) -> Callable[..., Alignment]:
    """flat_start of utterances drawn by `draw_speech`, whose words are SPELLING's."""
    SPELLING.save(tmp_path / "lexicon.txt")

    def start(utterances: list[tuple[str, str, Tensor]], *how: Any) -> Alignment:
        make_store(utterances)
        return flat_start(tmp_path / "store", tmp_path / "lexicon.txt", tmp_path / "scratch", *how)

    return start


class TestFlatStart:
    @pytest.mark.needs("k2")
    def test_states_drawn_from_known_gaussians_are_recovered(self, start: Callable[..., Alignment]) -> None:
        utterances, truth = draw_speech(60)
        alignment = start(utterances)
        found = alignment.pdf_ids(SenoneTree.monophone(SPELLING.phones))
        true = torch.cat([truth[utt_id] for utt_id in alignment.utt_ids])
        assert not alignment.rejected
        assert (found == true).float().mean() > 0.95
        rounds = alignment.log_like_rounds
        assert all(after > before - 1e-3 for before, after in itertools.pairwise(rounds))
        assert rounds[-1] > rounds[0] + 1.0

    @pytest.mark.needs("k2")
    def test_splitting_goes_on_to_rise(self, start: Callable[..., Alignment]) -> None:
        utterances, _ = draw_speech(20)
        plain = start(utterances, FlatStartOptions(4, 2))
        split = start(utterances, FlatStartOptions(4, 2, num_split_rounds=4))
        assert len(split.log_like_rounds) == 10
        assert split.log_like_per_frame > plain.log_like_per_frame

    def test_no_rounds_are_refused(self) -> None:
        with pytest.raises(InputError, match="one round"):
            FlatStartOptions(num_phone_rounds=0, num_state_rounds=0)


@pytest.fixture(scope="module")
def speech_features(utterances: list[Utterance], lexicon: Lexicon, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of fifty training utterances, mean and variance normalised by speaker."""
    skip_without("lhotse", "soundfile")
    import soundfile
    from lhotse import Fbank, FbankConfig

    rows: list[tuple[str, str, str, Tensor]] = []
    for one in [one for one in utterances if one.split == "train" and lexicon.prons.keys() >= set(one.words)][:50]:
        samples, rate = soundfile.read(one.path, dtype="float32")
        extractor = Fbank(FbankConfig(num_mel_bins=40, sampling_rate=rate))
        feats = torch.from_numpy(extractor.extract(samples, rate))
        rows.append((one.utt_id, one.speaker, " ".join(one.words), feats))
    of_speaker = {row[1]: torch.cat([other[3] for other in rows if other[1] == row[1]]) for row in rows}
    normal = [(u, s, text, (x - of_speaker[s].mean(0)) / of_speaker[s].std(0)) for u, s, text, x in rows]
    features = tmp_path_factory.mktemp("speech") / "store"
    FrameStore.write(features, normal, {"frame_shift_ms": 10.0}, "speech")
    return features


@pytest.fixture(scope="module")
def speech_store(speech_features: Path) -> FrameStore:
    return FrameStore.open(speech_features)


class TestRealSpeech:
    @pytest.fixture(scope="class")
    @staticmethod
    def alignment(speech_features: Path, lexicon: Lexicon) -> Alignment:
        skip_without("k2")
        lexicon_file = speech_features.with_name("lexicon.txt")
        lexicon.save(lexicon_file)
        return flat_start(speech_features, lexicon_file, speech_features.with_name("scratch"))

    def test_log_likelihood_rises_from_round_to_round(self, alignment: Alignment) -> None:
        rounds = alignment.log_like_rounds
        assert len(rounds) == 12
        assert all(after > before for before, after in itertools.pairwise(rounds))
        assert rounds[-1] > rounds[0] + 3.0

    def test_silence_is_at_the_ends_and_quiet(self, alignment: Alignment, speech_store: FrameStore) -> None:
        first, last = alignment.offsets[:-1], alignment.offsets[1:] - 1
        at_ends = torch.stack([alignment.phone_id[first] == 0, alignment.phone_id[last] == 0])
        assert not alignment.rejected
        assert at_ends.float().mean() > 0.95
        energy = speech_store.feats[frame_ids(alignment, speech_store)].mean(1)
        silence = alignment.phone_id == 0
        assert energy[silence].mean() < energy[~silence].mean() - 0.8

    def test_realigning_with_a_tree_of_this_speech(self, alignment: Alignment, speech_store: FrameStore) -> None:
        """A grown tree's senones explain the speech better than monophones do, and agree on most of it."""
        feats = cepstra(speech_store)
        frames = frame_ids(alignment, speech_store)
        columns = (*alignment.triphones(), alignment.state)
        tree = build_tree(accumulate_frames(*columns, feats[frames]), alignment.phones, TreeOptions(160, 40))
        lexicon = Lexicon({word: ((word,),) for word in alignment.phones[1:]})
        senones = DiagonalMixtures.estimate(feats[frames], alignment.pdf_ids(tree), tree.num_pdfs)
        as_words = {
            utt_id: " ".join(s.phone for s in alignment.segments(utt_id, 10.0) if s.phone != "SIL")
            for utt_id in alignment.utt_ids
        }
        aligner = Aligner(
            lexicon,
            tree,
            estimate_transitions(alignment, tree),
            lambda utt_id: senones.log_likelihoods(feats[slice(*speech_store.span(utt_id))]),
        )
        realigned = viterbi(TrainingCorpus.build(speech_store, lexicon, tree.phones, as_words), aligner, tree.num_pdfs)
        assert realigned.log_like_per_frame > alignment.log_like_per_frame
        assert (realigned.phone_id == alignment.phone_id).float().mean() > 0.85
