"""Flat start: from words and features alone to an alignment of monophone states.

Uniform segmentation between the silences that the energy shows, then rounds of Viterbi with a Gaussian a
state (Young et al., *The HTK Book*, "flat start"); no alignment, model or time mark is needed beforehand.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from asrkd.align.alignment import Alignment
from asrkd.align.cepstra import cepstra
from asrkd.align.gaussians import DiagonalMixtures
from asrkd.align.graphs import SILENCE_ID, SILENCE_PROB
from asrkd.align.viterbi import TrainingCorpus, ViterbiOptions
from asrkd.errors import InputError
from asrkd.frames import FrameStore
from asrkd.hmm.topology import NUM_STATES, TransitionModel
from asrkd.hmm.tree import SenoneTree
from asrkd.lang.lexicon import Lexicon

log = logging.getLogger(__name__)

QUIET, LOUD = 0.05, 0.95  # quantiles of an utterance's energy that stand for its silence and its speech
SPEECH_THRESHOLD = 0.3  # of the way from quiet to loud


@dataclass(frozen=True)
class FlatStartOptions:
    """Rounds of Gaussian Viterbi from nothing."""

    num_rounds: int = 8
    """rounds with one Gaussian a state"""
    num_split_rounds: int = 0
    """rounds after them, with twice the Gaussians every other round"""
    silence_prob: float = SILENCE_PROB
    """probability of a pause at each end of an utterance and between two words"""
    batch_utterances: int = 8
    """utterances aligned at once"""
    num_jobs: int = 1
    """batches aligned at the same time, one thread each"""


def flat_start(
    store: FrameStore, lexicon: Lexicon, options: FlatStartOptions = FlatStartOptions()
) -> Alignment:
    """Align a store (log-mel energies, mean and variance normalised) to its words, from scratch.

    The result's `log_like_rounds` has the log-likelihood a frame of each round, under the model that the
    round before gave; `dropped` the utterances that could not be aligned. InputError if none could.
    """
    corpus = TrainingCorpus.build(store, lexicon, lexicon.phones, options.silence_prob)
    tree = SenoneTree.monophone(lexicon.phones)
    viterbi_options = ViterbiOptions(
        silence_prob=options.silence_prob,
        batch_utterances=options.batch_utterances,
        num_jobs=options.num_jobs,
    )
    feats = cepstra(store)
    alignment = uniform_alignment(corpus, lexicon)
    transitions = TransitionModel.uniform(tree.num_pdfs)
    mixtures: DiagonalMixtures | None = None
    num_rounds = options.num_rounds + options.num_split_rounds
    log_likes: list[float] = []
    for number in range(num_rounds):
        labels = alignment.pdf_ids(tree)
        frames = feats[alignment.frame_ids(store)]
        if mixtures is None:
            mixtures = DiagonalMixtures.estimate(frames, labels, tree.num_pdfs)
        else:
            transitions = TransitionModel.estimate(alignment, tree)
            past_single = number - options.num_rounds
            if past_single >= 0 and past_single % 2 == 0:
                mixtures = mixtures.split()
            mixtures = mixtures.reestimate(frames, labels)
        scorer = _Scorer(store, feats, mixtures)
        desc = f"flat start, round {number + 1} of {num_rounds}"
        alignment = corpus.align(tree, scorer, transitions, viterbi_options, desc)
        log_likes.append(alignment.log_like_per_frame)
        log.info("%s: log-likelihood %.3f a frame", desc, log_likes[-1])
    return dataclasses.replace(alignment, log_like_rounds=tuple(log_likes))


@dataclass(frozen=True)
class _Scorer:
    store: FrameStore
    feats: Tensor
    mixtures: DiagonalMixtures

    def __call__(self, utt_id: str) -> Tensor:
        begin, end = self.store.span(utt_id)
        return self.mixtures.log_likelihoods(self.feats[begin:end])


def uniform_alignment(corpus: TrainingCorpus, lexicon: Lexicon) -> Alignment:
    """Silence at the ends by energy, the states of each word's first pronunciation evenly between."""
    store = corpus.store
    index = {phone: number for number, phone in enumerate(corpus.phones)}
    utt_ids = sorted(corpus.utt_ids, key=store.index)
    if not utt_ids:
        raise InputError("flat start: expected utterances, found none")
    parts = []
    for utt_id in utt_ids:
        words = store.texts[store.index(utt_id)].split()
        phones = torch.tensor([index[phone] for word in words for phone in lexicon.prons[word][0]])
        parts.append(_uniform(phones, store.utt(utt_id)))
    phone_id, state, segment = (torch.cat(column) for column in zip(*parts, strict=True))
    lengths = torch.tensor([part[0].numel() for part in parts])
    return Alignment(
        utt_ids=tuple(utt_ids),
        offsets=torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]),
        phone_id=phone_id.to(torch.int16),
        state=state.to(torch.int8),
        segment=segment.to(torch.int32),
        phones=corpus.phones,
        store_fingerprint=store.fingerprint,
        dropped=corpus.dropped,
    )


def _uniform(phones: Tensor, feats: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """phone, state and segment [T] of phones [K] laid evenly over the frames [T, F] that are loud."""
    begin, end = speech_span(feats)
    num_frames, num_states = feats.shape[0], NUM_STATES * phones.numel()
    if end - begin < num_states:
        begin, end = 0, num_frames
    parts = [
        (torch.tensor([SILENCE_ID]), begin),
        (phones, end - begin),
        (torch.tensor([SILENCE_ID]), num_frames - end),
    ]
    phone, place = [], []
    first_segment = 0
    for ids, frames in parts:
        if frames:
            states = torch.arange(frames) * (NUM_STATES * ids.numel()) // frames
            phone.append(ids[states // NUM_STATES])
            place.append(states + NUM_STATES * first_segment)
            first_segment += ids.numel()
    places = torch.cat(place)
    return torch.cat(phone), places % NUM_STATES, places // NUM_STATES


def speech_span(feats: Tensor) -> tuple[int, int]:
    """First and one past the last frame [T, F] whose mean energy is well above the utterance's quiet."""
    energy = feats.mean(1)
    quiet, loud = torch.quantile(energy, torch.tensor([QUIET, LOUD]))
    speech = (energy > quiet + SPEECH_THRESHOLD * (loud - quiet)).nonzero()
    return (int(speech[0]), int(speech[-1]) + 1) if speech.numel() else (0, feats.shape[0])
