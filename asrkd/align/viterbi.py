"""Viterbi alignment of a frame store through k2."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from asrkd.align.graphs import SILENCE_PROB, CompiledGraphs, TrainingGraphs
from asrkd.errors import InputError, require_finite_scores
from asrkd.features.store import FrameStore
from asrkd.files import fingerprint
from asrkd.hmm.alignment import Alignment
from asrkd.hmm.topology import NUM_STATES, TransitionModel
from asrkd.hmm.tree import SenoneTree
from asrkd.lang.lexicon import Lexicon
from asrkd.workflow.cache import Arrays, Codec, ResultCache
from asrkd.workflow.k2_threads import k2_jobs
from asrkd.workflow.map import InMemory
from asrkd.workflow.memory import keep_freed_memory

ScoreFn = Callable[[str], Tensor]
"""utt_id -> acoustic scores [T, S], log-likelihoods up to a constant a frame."""

Batch = tuple[str, ...]
"""Utterances aligned together, longest first."""

Batches = Callable[[Sequence[Batch]], Iterable[tuple[int, list["AlignedUtterance | None"]]]]
"""Aligns batches somewhere: gives (number of a batch, the path of each of its utterances), in any order."""


@dataclass(frozen=True)
class Keep:
    """Where an alignment keeps what it has, for a call that is cut short and made again."""

    path: Path
    scores: Sequence[str]
    """Digests of what makes the acoustic scores."""


MIN_ACTIVE_STATES, UNLIMITED_STATES = 1, 2**30
IMPOSSIBLE = -1e30  # score of a label that no arc may take


@dataclass(frozen=True)
class ViterbiOptions:
    """How k2 aligns."""

    acoustic_scale: float = 1.0
    """factor of the acoustic scores beside transition scores"""
    silence_prob: float = SILENCE_PROB
    """probability of a pause at each end of an utterance and between two words"""
    batch_utterances: int = 8
    """utterances aligned at once; fewer are slower, more take memory and gain nothing"""
    search_beam: float = 200.0
    """nats below a frame's best state at which k2 gives a state up; what has no path then is searched without a beam"""
    output_beam: float = 0.5
    """nats around the best path that k2 keeps; any number above its rounding will do"""
    num_jobs: int = 1
    """processes, one thread each"""

    def __post_init__(self) -> None:
        check_batches(self.silence_prob, self.batch_utterances)


def check_batches(silence_prob: float, batch_utterances: int) -> None:
    """InputError for what no training graph can be made with, or no batch."""
    if not 0.0 < silence_prob < 1.0:
        raise InputError(f"alignment: expected a silence_prob between 0 and 1, found {silence_prob}")
    if batch_utterances < 1:
        raise InputError(f"alignment: expected batch_utterances of at least 1, found {batch_utterances}")


def viterbi(
    store: FrameStore,
    lexicon: Lexicon,
    tree: SenoneTree,
    score_fn: ScoreFn,
    transitions: TransitionModel | None = None,
    options: ViterbiOptions = ViterbiOptions(),
    texts: Mapping[str, str] | None = None,
    desc: str = "align",
    elsewhere: Batches | None = None,
    kept: Keep | None = None,
) -> Alignment:
    """The likeliest state of every frame, given each utterance's words.

    score_fn(utt_id) -> [T, S]. texts: utt_id -> words, the store's own if not given; only those utterances
    are aligned. An utterance that cannot be (a word without pronunciation, fewer frames than states, no path)
    is named, with the reason, in the result's `rejected`. `elsewhere` aligns the batches in place of this machine;
    `kept` holds what an earlier call of the same arguments aligned before it was cut short. InputError if nothing
    could be aligned.
    """
    transitions = transitions or TransitionModel.uniform(tree.num_pdfs)
    if transitions.num_pdfs != tree.num_pdfs:
        raise ValueError(f"viterbi: expected transitions of {tree.num_pdfs} pdfs, found {transitions.num_pdfs}")
    corpus = TrainingCorpus.build(
        store, lexicon, tree.phones, options.silence_prob, texts, with_context=not tree.is_monophone
    )
    return corpus.align(tree, score_fn, transitions, options, desc, elsewhere, kept)


def align_batch(
    store: FrameStore,
    lexicon: Lexicon,
    tree: SenoneTree,
    score_fn: ScoreFn,
    transitions: TransitionModel,
    options: ViterbiOptions,
    batch: Batch,
) -> list[AlignedUtterance | None]:
    """The paths of one batch of utterances, longest first, with graphs made for it alone: work for `elsewhere`."""
    texts = {utt_id: store.texts[store.index(utt_id)] for utt_id in batch}
    corpus = TrainingCorpus.build(
        store, lexicon, tree.phones, options.silence_prob, texts, with_context=not tree.is_monophone
    )
    return corpus.aligner(tree, score_fn, transitions, options)(range(len(batch)))


@dataclass(frozen=True, eq=False)
class TrainingCorpus:
    """Utterances of a store and their training graphs, for one alignment after another."""

    store: FrameStore
    lexicon: Lexicon
    phones: tuple[str, ...]
    utt_ids: tuple[str, ...]  # longest first: k2 wants a batch in this order, and batches of one length waste nothing
    texts: tuple[str, ...]
    num_frames: tuple[int, ...]
    rejected: Mapping[str, str]
    silence_prob: float
    with_context: bool

    @staticmethod
    def build(
        store: FrameStore,
        lexicon: Lexicon,
        phones: tuple[str, ...],
        silence_prob: float = SILENCE_PROB,
        texts: Mapping[str, str] | None = None,
        with_context: bool = True,
    ) -> TrainingCorpus:
        """The utterances that can be aligned; the others are listed in `rejected`."""
        texts = texts if texts is not None else dict(zip(store.utt_ids, store.texts, strict=True))
        spans = {utt_id: store.span(utt_id) for utt_id in texts}
        frames = {utt_id: end - begin for utt_id, (begin, end) in spans.items()}
        rejected: dict[str, str] = {}
        for utt_id, text in texts.items():
            words = text.split()
            unknown = [word for word in words if word not in lexicon.prons]
            states = NUM_STATES * sum(min(map(len, lexicon.prons[word])) for word in words if word not in unknown)
            if not words:
                rejected[utt_id] = "no words"
            elif unknown:
                rejected[utt_id] = f"word {unknown[0]} is not in the lexicon"
            elif frames[utt_id] < states:
                rejected[utt_id] = f"{frames[utt_id]} frames are too few for {len(words)} words, at least {states}"
        kept = sorted((u for u in texts if u not in rejected), key=lambda u: -frames[u])
        if not kept:
            reasons = "; ".join(f"{utt_id}: {why}" for utt_id, why in list(rejected.items())[:3])
            raise InputError(f"alignment: expected utterances to align, found none ({reasons})")
        return TrainingCorpus(
            store,
            lexicon,
            phones,
            tuple(kept),
            tuple(texts[u] for u in kept),
            tuple(frames[u] for u in kept),
            rejected,
            silence_prob,
            with_context,
        )

    @cached_property
    def graphs(self) -> TrainingGraphs:
        """Made when first wanted: where other machines align, this one needs none."""
        return TrainingGraphs.build(self.texts, self.lexicon, self.phones, self.silence_prob, self.with_context)

    def align(
        self,
        tree: SenoneTree,
        score_fn: ScoreFn,
        transitions: TransitionModel,
        options: ViterbiOptions = ViterbiOptions(),
        desc: str = "align",
        elsewhere: Batches | None = None,
        kept: Keep | None = None,
    ) -> Alignment:
        """The likeliest state of every frame under these acoustic scores and transitions."""
        size = options.batch_utterances
        batches = [range(n, min(n + size, len(self.utt_ids))) for n in range(0, len(self.utt_ids), size)]

        def align(batches: Sequence[range]) -> Iterable[tuple[int, list[AlignedUtterance | None]]]:
            if elsewhere is not None:
                return elsewhere([self.utt_ids[batch.start : batch.stop] for batch in batches])
            aligner = self.aligner(tree, score_fn, transitions, options)  # before the fork: processes share the graphs
            return k2_jobs(options.num_jobs, desc).map(InMemory(aligner), batches)

        if kept is None:
            results = align(batches)
        else:
            results = self._kept(kept, tree, transitions, options).map(batches, align, PATHS)
        paths: list[AlignedUtterance | None] = [None] * len(self.utt_ids)
        with tqdm(total=sum(self.num_frames), desc=desc, unit="frame", unit_scale=True, leave=False) as bar:
            for number, found in results:
                for index, path in zip(batches[number], found, strict=True):
                    paths[index] = path
                    bar.update(self.num_frames[index])
        return self._collect(paths)

    def _kept(self, keep: Keep, tree: SenoneTree, transitions: TransitionModel, options: ViterbiOptions) -> ResultCache:
        """The results of this very alignment in the file of `keep`."""
        work = [
            self.store.fingerprint,
            self.lexicon.fingerprint,
            [self.utt_ids, self.texts, self.silence_prob],
            tree.fingerprint,
            transitions.digests(),
            dataclasses.replace(options, num_jobs=1),
            keep.scores,
        ]
        return ResultCache(keep.path, fingerprint(work))

    def aligner(
        self, tree: SenoneTree, score_fn: ScoreFn, transitions: TransitionModel, options: ViterbiOptions
    ) -> Callable[[range], list[AlignedUtterance | None]]:
        """A function of a range of utterances that aligns them together."""
        keep_freed_memory()  # k2 asks for large blocks with every batch: worth a quarter of its time
        compiled = self.graphs.compile(tree, transitions)

        def align(batch: range) -> list[AlignedUtterance | None]:
            scores = [options.acoustic_scale * score_fn(self.utt_ids[index]) for index in batch]
            self._check_scores(batch, scores, tree.num_pdfs)
            paths = _best_paths(compiled, batch, scores, options)
            return [path and self._path(index, *path) for index, path in zip(batch, paths, strict=True)]

        return align

    def _path(self, index: int, hmm_state: NDArray[np.int64], log_like: float) -> AlignedUtterance:
        """A path through states counted within the utterance, as phones and their states."""
        instance = hmm_state // NUM_STATES
        return AlignedUtterance(
            self.graphs.phone[instance + self.graphs.instance_offsets[index]].astype(np.int16),
            (hmm_state % NUM_STATES).astype(np.int8),
            np.cumsum(np.diff(instance, prepend=instance[0]) != 0).astype(np.int32),
            log_like,
        )

    def _check_scores(self, batch: Sequence[int], scores: Sequence[Tensor], num_pdfs: int) -> None:
        for index, matrix in zip(batch, scores, strict=True):
            expected = (self.num_frames[index], num_pdfs)
            if tuple(matrix.shape) != expected:
                raise ValueError(f"{self.utt_ids[index]}: expected scores {expected}, found {tuple(matrix.shape)}")
            require_finite_scores(self.utt_ids[index], matrix)

    def _collect(self, paths: Sequence[AlignedUtterance | None]) -> Alignment:
        """Paths, longest utterance first, to an alignment in the store's order."""
        rejected = dict(self.rejected)
        found = {}
        for utt_id, path in zip(self.utt_ids, paths, strict=True):
            if path is None:
                rejected[utt_id] = "no path through its training graph"
            else:
                found[utt_id] = path
        if not found:
            raise InputError(f"alignment: no path through any of {len(paths)} training graphs")
        utt_ids = sorted(found, key=self.store.index)
        in_order = [found[utt_id] for utt_id in utt_ids]
        lengths = np.asarray([path.phone_id.size for path in in_order])
        return Alignment(
            utt_ids=tuple(utt_ids),
            offsets=torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)])),
            phone_id=torch.from_numpy(np.concatenate([path.phone_id for path in in_order])),
            state=torch.from_numpy(np.concatenate([path.state for path in in_order])),
            segment=torch.from_numpy(np.concatenate([path.segment for path in in_order])),
            phones=self.phones,
            store_fingerprint=self.store.fingerprint,
            log_like_rounds=(float(np.sum([path.log_like for path in in_order]) / lengths.sum()),),
            rejected=rejected,
        )


@dataclass(frozen=True)
class AlignedUtterance:
    """One utterance's frames, aligned: what `Alignment` holds of it."""

    phone_id: NDArray[np.int16]  # [T]
    state: NDArray[np.int8]  # [T]
    segment: NDArray[np.int32]  # [T]
    log_like: float


def _packed(paths: list[AlignedUtterance | None]) -> Arrays:
    """Paths of a batch end to end; one that was not found has no length."""
    found = [path for path in paths if path is not None]
    return {
        "length": np.asarray([-1 if path is None else path.phone_id.size for path in paths]),
        "log_like": np.asarray([path.log_like for path in found]),
        "phone_id": np.concatenate([path.phone_id for path in found] or [np.empty(0, np.int16)]),
        "state": np.concatenate([path.state for path in found] or [np.empty(0, np.int8)]),
        "segment": np.concatenate([path.segment for path in found] or [np.empty(0, np.int32)]),
    }


def _unpacked(arrays: Arrays) -> list[AlignedUtterance | None]:
    lengths = arrays["length"]
    ends = np.cumsum(lengths[lengths >= 0])[:-1]
    columns = [np.split(arrays[name], ends) for name in ("phone_id", "state", "segment")]
    found = iter(zip(*columns, arrays["log_like"].tolist(), strict=True))
    return [None if length < 0 else AlignedUtterance(*next(found)) for length in lengths]


PATHS = Codec(_packed, _unpacked)
"""Of a batch's paths."""


def _best_paths(
    compiled: CompiledGraphs, batch: Sequence[int], scores: Sequence[Tensor], options: ViterbiOptions
) -> list[tuple[NDArray[np.int64], float] | None]:
    """k2's best path for each utterance of a batch, longest first: the state, counted within the utterance, of each
    frame, and the log-likelihood; None where there is no path.

    Without a beam k2 holds every state at every frame: with one that loses no path it takes a third of the time
    (LOG.md).
    """
    import k2  # here, for training's environment has none

    # A frame's best score is taken out and added back in double, or rounding would hide differences.
    best = [matrix.max(1, keepdim=True).values for matrix in scores]
    # Column 0 is epsilon's, so that a label finds its column.
    dense = torch.full((len(scores), scores[0].shape[0], scores[0].shape[1] + 1), IMPOSSIBLE)
    for row, matrix, highest in zip(dense, scores, best, strict=True):
        torch.sub(matrix, highest, out=row[: matrix.shape[0], 1:])
    segments = torch.tensor([[n, 0, matrix.shape[0]] for n, matrix in enumerate(scores)], dtype=torch.int32)
    graphs, frames = compiled.fsa_vec(batch[0], batch[-1] + 1), k2.DenseFsaVec(dense, segments)
    lattice = k2.intersect_dense_pruned(
        graphs,
        frames,
        search_beam=options.search_beam,
        output_beam=options.output_beam,
        min_active_states=MIN_ACTIVE_STATES,
        max_active_states=UNLIMITED_STATES,
    )
    paths = _shortest_paths(lattice)
    if None in paths:
        paths = _shortest_paths(k2.intersect_dense(graphs, frames, options.output_beam))
    constants = [highest.double().sum().item() for highest in best]
    return [path and (path[0], path[1] + constant) for path, constant in zip(paths, constants, strict=True)]


def _shortest_paths(lattice: object) -> list[tuple[NDArray[np.int64], float] | None]:
    """The state of each frame and the score of the best path through each of a vector of lattices."""
    import k2

    path = k2.shortest_path(lattice, use_double_scores=True)
    hmm_state = path.hmm_state.numpy().astype(np.int64)
    scores = path.scores.double().numpy()
    return [
        # the last arc is the final one
        None if begin == end else (hmm_state[begin : end - 1], float(scores[begin:end].sum()))
        for begin, end in itertools.pairwise(_arc_splits(path))
    ]


def _arc_splits(fsa_vec: object) -> NDArray[np.int64]:
    """Where each FSA's arcs begin and end among all arcs."""
    shape = fsa_vec.arcs.shape()  # type: ignore[attr-defined]
    return shape.row_splits(2)[shape.row_splits(1).long()].numpy()
