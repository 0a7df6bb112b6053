"""Viterbi alignment of a frame store through k2."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from asrkd.align.alignment import Alignment
from asrkd.align.graphs import SILENCE_PROB, CompiledGraphs, TrainingGraphs
from asrkd.errors import InputError
from asrkd.frames import FrameStore
from asrkd.hmm.topology import NUM_STATES, TransitionModel
from asrkd.hmm.tree import SenoneTree
from asrkd.lang.lexicon import Lexicon

ScoreFn = Callable[[str], Tensor]
"""utt_id -> acoustic scores [T, S], log-likelihoods up to a constant a frame."""

IMPOSSIBLE = -1e30  # score of a label that no arc may take


@dataclass(frozen=True)
class ViterbiOptions:
    """How k2 aligns."""

    acoustic_scale: float = 1.0
    """factor of the acoustic scores beside transition scores"""
    silence_prob: float = SILENCE_PROB
    """probability of a pause at each end of an utterance and between two words"""
    batch_utterances: int = 8
    """utterances aligned at once; k2 on the CPU is fastest with 1 to 10"""
    output_beam: float = 0.5
    """nats around the best path that k2 keeps; any number above its rounding will do"""
    num_jobs: int = 1
    """batches aligned at the same time, one thread each"""


def viterbi(
    store: FrameStore,
    lexicon: Lexicon,
    tree: SenoneTree,
    score_fn: ScoreFn,
    transitions: TransitionModel | None = None,
    options: ViterbiOptions = ViterbiOptions(),
    texts: Mapping[str, str] | None = None,
    desc: str = "align",
) -> Alignment:
    """The likeliest state of every frame, given each utterance's words.

    score_fn(utt_id) -> [T, S]. texts: utt_id -> words, the store's own if not given; only those utterances
    are aligned. An utterance that cannot be (a word without pronunciation, fewer frames than states, no path)
    is named, with the reason, in the result's `dropped`. InputError if nothing could be aligned.
    """
    transitions = transitions or TransitionModel.uniform(tree.num_pdfs)
    if transitions.num_pdfs != tree.num_pdfs:
        raise ValueError(f"viterbi: expected transitions of {tree.num_pdfs} pdfs, found {transitions.num_pdfs}")
    corpus = TrainingCorpus.build(
        store, lexicon, tree.phones, options.silence_prob, texts, with_context=not tree.is_monophone
    )
    return corpus.align(tree, score_fn, transitions, options, desc)


@dataclass(frozen=True, eq=False)
class TrainingCorpus:
    """Utterances of a store and their training graphs, for one alignment after another."""

    store: FrameStore
    phones: tuple[str, ...]
    utt_ids: tuple[str, ...]  # longest first: k2 wants a batch in this order, and batches of one length waste nothing
    num_frames: tuple[int, ...]
    graphs: TrainingGraphs
    dropped: Mapping[str, str]

    @staticmethod
    def build(
        store: FrameStore,
        lexicon: Lexicon,
        phones: tuple[str, ...],
        silence_prob: float = SILENCE_PROB,
        texts: Mapping[str, str] | None = None,
        with_context: bool = True,
    ) -> TrainingCorpus:
        """Graphs of the utterances that can be aligned; the others are listed in `dropped`."""
        texts = texts if texts is not None else dict(zip(store.utt_ids, store.texts, strict=True))
        spans = {utt_id: store.span(utt_id) for utt_id in texts}
        frames = {utt_id: end - begin for utt_id, (begin, end) in spans.items()}
        dropped: dict[str, str] = {}
        for utt_id, text in texts.items():
            words = text.split()
            unknown = [word for word in words if word not in lexicon.prons]
            states = NUM_STATES * sum(min(map(len, lexicon.prons[word])) for word in words if word not in unknown)
            if not words:
                dropped[utt_id] = "no words"
            elif unknown:
                dropped[utt_id] = f"word {unknown[0]} is not in the lexicon"
            elif frames[utt_id] < states:
                dropped[utt_id] = f"{frames[utt_id]} frames are too few for {len(words)} words, at least {states}"
        kept = sorted((u for u in texts if u not in dropped), key=lambda u: -frames[u])
        if not kept:
            reasons = "; ".join(f"{utt_id}: {why}" for utt_id, why in list(dropped.items())[:3])
            raise InputError(f"alignment: expected utterances to align, found none ({reasons})")
        graphs = TrainingGraphs.build([texts[u] for u in kept], lexicon, phones, silence_prob, with_context)
        return TrainingCorpus(store, phones, tuple(kept), tuple(frames[u] for u in kept), graphs, dropped)

    def align(
        self,
        tree: SenoneTree,
        score_fn: ScoreFn,
        transitions: TransitionModel,
        options: ViterbiOptions = ViterbiOptions(),
        desc: str = "align",
    ) -> Alignment:
        """The likeliest state of every frame under these acoustic scores and transitions."""
        compiled = self.graphs.compile(tree, transitions)
        batches = [
            range(begin, min(begin + options.batch_utterances, len(self.utt_ids)))
            for begin in range(0, len(self.utt_ids), options.batch_utterances)
        ]

        def run(batch: range) -> list[_Path | None]:
            scores = [options.acoustic_scale * score_fn(self.utt_ids[index]) for index in batch]
            self._check_scores(batch, scores, tree.num_pdfs)
            return _best_paths(compiled, batch, scores, options.output_beam)

        paths: list[_Path | None] = []
        with (
            ThreadPoolExecutor(options.num_jobs) as pool,
            tqdm(total=sum(self.num_frames), desc=desc, unit="frame", unit_scale=True, leave=False) as bar,
        ):
            for batch, found in zip(batches, pool.map(run, batches), strict=True):
                paths.extend(found)
                bar.update(sum(self.num_frames[index] for index in batch))
        return self._collect(paths)

    def _check_scores(self, batch: Sequence[int], scores: Sequence[Tensor], num_pdfs: int) -> None:
        for index, matrix in zip(batch, scores, strict=True):
            expected = (self.num_frames[index], num_pdfs)
            if tuple(matrix.shape) != expected:
                raise ValueError(f"{self.utt_ids[index]}: expected scores {expected}, found {tuple(matrix.shape)}")
            if not bool(torch.isfinite(matrix).all()):
                raise InputError(f"{self.utt_ids[index]}: expected finite acoustic scores, found NaN or infinity")

    def _collect(self, paths: Sequence[_Path | None]) -> Alignment:
        """Paths, longest utterance first, to an alignment in the store's order."""
        dropped = dict(self.dropped)
        found = {}
        for index, (utt_id, path) in enumerate(zip(self.utt_ids, paths, strict=True)):
            if path is None:
                dropped[utt_id] = "no path through its training graph"
            else:
                found[utt_id] = (index, path)
        if not found:
            raise InputError(f"alignment: no path through any of {len(paths)} training graphs")
        utt_ids = sorted(found, key=self.store.index)
        states, segments, log_likes = [], [], []
        for utt_id in utt_ids:
            index, path = found[utt_id]
            instance = path.hmm_state // NUM_STATES
            segments.append(np.cumsum(np.diff(instance, prepend=instance[0]) != 0))
            states.append(path.hmm_state + NUM_STATES * self.graphs.instance_offsets[index])
            log_likes.append(path.log_like)
        lengths = np.asarray([values.size for values in states])
        hmm_state = np.concatenate(states)
        return Alignment(
            utt_ids=tuple(utt_ids),
            offsets=torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)])),
            phone_id=torch.from_numpy(self.graphs.phone[hmm_state // NUM_STATES].astype(np.int16)),
            state=torch.from_numpy((hmm_state % NUM_STATES).astype(np.int8)),
            segment=torch.from_numpy(np.concatenate(segments).astype(np.int32)),
            phones=self.phones,
            store_fingerprint=self.store.fingerprint,
            log_like_rounds=(float(np.sum(log_likes) / lengths.sum()),),
            dropped=dropped,
        )


@dataclass(frozen=True)
class _Path:
    hmm_state: NDArray[np.int64]  # [T], counted within the utterance
    log_like: float


def _best_paths(
    compiled: CompiledGraphs, batch: Sequence[int], scores: Sequence[Tensor], output_beam: float
) -> list[_Path | None]:
    """k2's best path for each utterance of a batch, longest first; None where there is none."""
    import k2  # here, for training's environment has none

    # A frame's best score is taken out and added back in double, or rounding would hide differences.
    best = [matrix.max(1, keepdim=True).values for matrix in scores]
    # Column 0 is epsilon's, so that a label finds its column.
    dense = torch.full((len(scores), scores[0].shape[0], scores[0].shape[1] + 1), IMPOSSIBLE)
    for row, matrix, highest in zip(dense, scores, best, strict=True):
        torch.sub(matrix, highest, out=row[: matrix.shape[0], 1:])
    segments = torch.tensor([[n, 0, matrix.shape[0]] for n, matrix in enumerate(scores)], dtype=torch.int32)
    fsa_vec = compiled.fsa_vec(batch[0], batch[-1] + 1)
    lattice = k2.intersect_dense(fsa_vec, k2.DenseFsaVec(dense, segments), output_beam)
    path = k2.shortest_path(lattice, use_double_scores=True)
    hmm_state = path.hmm_state.numpy().astype(np.int64)
    path_scores = path.scores.double().numpy()
    splits = _arc_splits(path)
    out: list[_Path | None] = []
    for index, (begin, end) in enumerate(itertools.pairwise(splits)):
        if begin == end:
            out.append(None)
            continue
        log_like = path_scores[begin:end].sum() + best[index].double().sum().item()
        out.append(_Path(hmm_state[begin : end - 1], float(log_like)))  # the last arc is the final one
    return out


def _arc_splits(fsa_vec: object) -> NDArray[np.int64]:
    """Where each FSA's arcs begin and end among all arcs."""
    shape = fsa_vec.arcs.shape()  # type: ignore[attr-defined]
    return shape.row_splits(2)[shape.row_splits(1).long()].numpy()
