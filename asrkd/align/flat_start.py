"""Flat start: from words and features alone to an alignment of monophone states.

Uniform segmentation between the silences that the energy shows, then rounds of Viterbi with a Gaussian a
state (Young et al., *The HTK Book*, "flat start"). No alignment, model or time mark is needed beforehand.

The first rounds give all states of a phone one Gaussian. With a Gaussian a state from the first, a
consonant's last state learns the onset of the vowels after it and keeps it: from phones of equal length,
rounds of Viterbi never move those boundaries back. On 120 sentences whose phone times are known (two voices)
they came 15 ms late, 81% and 94% of them within 30 ms; with phones first 5 to 9 ms, and 92% and 99%.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from asrkd.align.cepstra import cepstra
from asrkd.align.gaussians import DiagonalMixtures
from asrkd.align.graphs import SILENCE_PROB
from asrkd.align.labels import frame_ids
from asrkd.align.viterbi import Batches, Keep, TrainingCorpus, ViterbiOptions, check_batches
from asrkd.errors import InputError
from asrkd.features.store import FrameStore
from asrkd.files import tensor_digest
from asrkd.hmm.alignment import Alignment
from asrkd.hmm.estimate import estimate_transitions
from asrkd.hmm.topology import NUM_STATES, SILENCE_ID, TransitionModel
from asrkd.hmm.tree import SenoneTree
from asrkd.lang.lexicon import Lexicon

log = logging.getLogger(__name__)

QUIET, LOUD = 0.05, 0.95  # quantiles of an utterance's energy that stand for its silence and its speech
SPEECH_THRESHOLD = 0.3  # of the way from quiet to loud


@dataclass(frozen=True)
class FlatStartOptions:
    """Rounds of Gaussian Viterbi from nothing."""

    num_phone_rounds: int = 6
    """rounds with one Gaussian a phone"""
    num_state_rounds: int = 6
    """rounds after them, with one Gaussian a state"""
    num_split_rounds: int = 0
    """rounds after those, with twice the Gaussians every other round"""
    silence_prob: float = SILENCE_PROB
    """probability of a pause at each end of an utterance and between two words"""
    batch_utterances: int = 8
    """utterances aligned at once"""
    num_jobs: int = 1
    """processes, one thread each"""

    def __post_init__(self) -> None:
        if self.num_phone_rounds + self.num_state_rounds < 1:
            raise InputError("flat start: expected at least one round, found none")
        check_batches(self.silence_prob, self.batch_utterances)


def flat_start(
    store: FrameStore,
    lexicon: Lexicon,
    options: FlatStartOptions = FlatStartOptions(),
    elsewhere: Callable[[GaussianScorer, TransitionModel, ViterbiOptions], Batches] | None = None,
    kept_in: Path | None = None,
) -> Alignment:
    """Align a store (log-mel energies, mean and variance normalised) to its words, from scratch.

    The result's `log_like_rounds` has the log-likelihood a frame of each round, under the model that the
    round before gave; `rejected` the utterances that could not be aligned. `elsewhere` says, for the Gaussians and
    transitions of a round, what aligns in place of this machine; `kept_in` is a file that keeps what each round has
    aligned, for a call that is cut short and made again. InputError if nothing could be aligned.
    """
    corpus = TrainingCorpus.build(store, lexicon, lexicon.phones, options.silence_prob, with_context=False)
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
    log_likes: list[float] = []
    rounds = list(_rounds(options))
    for number, (kind, split) in enumerate(rounds, start=1):
        labels = alignment.pdf_ids(tree)
        frames = feats[frame_ids(alignment, store)]
        if kind == "phone":
            scorer = GaussianScorer(store, feats, _one_gaussian_a_phone(frames, labels, tree.num_pdfs))
        else:
            mixtures = _improve(mixtures, frames, labels, tree.num_pdfs, split)
            scorer = GaussianScorer(store, feats, mixtures)
        if number > 1:
            transitions = estimate_transitions(alignment, tree)
        desc = f"flat start, round {number} of {len(rounds)}"
        batches = elsewhere and elsewhere(scorer, transitions, viterbi_options)
        kept = Keep(kept_in, [desc, *scorer.digests()]) if kept_in else None
        alignment = corpus.align(tree, scorer, transitions, viterbi_options, desc, batches, kept)
        log_likes.append(alignment.log_like_per_frame)
        log.info("%s: log-likelihood %.3f a frame", desc, log_likes[-1])
        if kind == "phone":
            # States that score alike leave the way between them to chance.
            alignment = spread_states(alignment)
    return dataclasses.replace(alignment, log_like_rounds=tuple(log_likes))


def _rounds(options: FlatStartOptions) -> Iterator[tuple[str, bool]]:
    """What a Gaussian stands for in each round, and whether Gaussians are split before it."""
    for _ in range(options.num_phone_rounds):
        yield "phone", False
    for _ in range(options.num_state_rounds):
        yield "state", False
    for number in range(options.num_split_rounds):
        yield "state", number % 2 == 0


def _one_gaussian_a_phone(frames: Tensor, labels: Tensor, num_pdfs: int) -> DiagonalMixtures:
    """Mixtures of all monophone states [num_pdfs], those of a phone alike."""
    phones = DiagonalMixtures.estimate(frames, labels // NUM_STATES, num_pdfs // NUM_STATES)
    return DiagonalMixtures(
        *(x.repeat_interleave(NUM_STATES, dim=0) for x in (phones.mean, phones.variance, phones.log_weight))
    )


def _improve(
    mixtures: DiagonalMixtures | None, frames: Tensor, labels: Tensor, num_pdfs: int, split: bool
) -> DiagonalMixtures:
    if mixtures is None:
        return DiagonalMixtures.estimate(frames, labels, num_pdfs)
    return (mixtures.split() if split else mixtures).reestimate(frames, labels)


def spread_states(alignment: Alignment) -> Alignment:
    """The same phones at the same times, the frames of each shared evenly among its states."""
    starts = alignment.segment_starts()
    lengths = torch.diff(starts, append=torch.tensor([len(alignment)]))
    frame = torch.arange(len(alignment)) - starts.repeat_interleave(lengths)
    state = frame * NUM_STATES // lengths.repeat_interleave(lengths)
    return dataclasses.replace(alignment, state=state.to(torch.int8))


@dataclass(frozen=True)
class GaussianScorer:
    """utt_id -> log-likelihoods [T, S] of an utterance's cepstra, which are rows of `feats`."""

    store: FrameStore
    feats: Tensor
    mixtures: DiagonalMixtures

    def digests(self) -> list[str]:
        """What tells these mixtures from others."""
        mixtures = self.mixtures
        return [tensor_digest(part) for part in (mixtures.mean, mixtures.variance, mixtures.log_weight)]

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
        rejected=corpus.rejected,
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
