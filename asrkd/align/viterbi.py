"""Viterbi alignment of a frame store through k2."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from asrkd.align.graphs import SILENCE_PROB, TrainingGraphs
from asrkd.align.search import Beams, BestPath, best_paths
from asrkd.data.rejects import NO_PATH, NO_PRONUNCIATION, TOO_FEW_FRAMES, missing_words
from asrkd.errors import InputError, name_some, require_finite_scores
from asrkd.features.store import FrameStore
from asrkd.files import fingerprint
from asrkd.hmm.alignment import Alignment, Columns
from asrkd.hmm.topology import NUM_STATES, TransitionModel
from asrkd.hmm.tree import SenoneTree
from asrkd.lang.lexicon import Lexicon
from asrkd.workflow.cache import Arrays, Codec, ResultCache
from asrkd.workflow.executor import SERIAL, Executor
from asrkd.workflow.memory import keep_freed_memory, named_memory_error, release_freed_memory
from asrkd.workflow.task import Task

ScoreFn = Callable[[str], Tensor | Iterable[Tensor]]
"""utt_id -> acoustic scores [T, S], whole or in chunks of frames: log-likelihoods up to a constant per frame."""

BATCH_UTTERANCES = 8
BYTES_OF_SCORE = 4  # float32


@dataclass(frozen=True)
class ViterbiOptions:
    """How k2 aligns."""

    acoustic_scale: float = 1.0
    """Factor of the acoustic scores; transition scores have the factor 1."""
    silence_prob: float = SILENCE_PROB
    """Probability of a pause at each end of an utterance and between two words."""
    batch_utterances: int = BATCH_UTTERANCES
    """Utterances aligned at once. Fewer are slower; more take memory and gain nothing."""
    batch_gb: float = 0.5
    """Gigabytes of acoustic scores in a batch; an utterance that has more is aligned alone."""
    search_beam: float = 200.0
    """Nats below a frame's best state at which k2 drops a state. Where that loses the best path, it searches again."""
    output_beam: float = 0.5
    """Nats around the best path that k2 keeps; any number above its rounding will do."""

    def __post_init__(self) -> None:
        check_batches(self.silence_prob, self.batch_utterances)
        for name in ("batch_gb", "search_beam", "output_beam"):
            if not getattr(self, name) > 0.0:
                raise InputError(f"alignment: expected a {name} above 0, found {getattr(self, name)}")

    def batch_frames(self, num_pdfs: int) -> int:
        """Frames of a batch whose scores for so many senones take `batch_gb`."""
        return int(self.batch_gb * 1e9 / (BYTES_OF_SCORE * num_pdfs))


def check_batches(silence_prob: float, batch_utterances: int) -> None:
    """InputError for options that allow no training graph or no batch."""
    if not 0.0 < silence_prob < 1.0:
        raise InputError(f"alignment: expected a silence_prob between 0 and 1, found {silence_prob}")
    if batch_utterances < 1:
        raise InputError(f"alignment: expected batch_utterances of at least 1, found {batch_utterances}")


class NothingAligned(InputError):
    """No utterance has an alignment."""


class Transcript(NamedTuple):
    """The words of one utterance, and how long it is."""

    utt_id: str
    text: str
    """Words separated by spaces."""
    num_frames: int


Batch = tuple[Transcript, ...]
"""Utterances aligned together, longest first: k2 wants that order, and equal lengths waste nothing."""


@dataclass(frozen=True)
class AlignedUtterance:
    """The best path of one utterance, as `Alignment` has it."""

    phone_id: NDArray[np.int16]  # [T]
    state: NDArray[np.int8]  # [T]
    segment: NDArray[np.int32]  # [T]
    log_like: float
    wider_beam: bool
    """Whether the search lost it and a wider one gave it."""

    @property
    def columns(self) -> tuple[NDArray[np.int16], NDArray[np.int8], NDArray[np.int32]]:
        """The values of each frame, in the order of `asrkd.hmm.alignment.Columns`."""
        return self.phone_id, self.state, self.segment


AlignedBatch = list[AlignedUtterance | None]
"""Paths of a batch's utterances; None where there is none."""


@dataclass(frozen=True, eq=False)
class TrainingCorpus:
    """Utterances of a store that can be aligned, longest first."""

    store: FrameStore
    phones: tuple[str, ...]
    """Phones that the alignment numbers, silence first."""
    transcripts: tuple[Transcript, ...]
    rejected: Mapping[str, str]
    """Utterances that cannot be aligned, and why."""
    lexicon_fingerprint: str

    @staticmethod
    def build(
        store: FrameStore, lexicon: Lexicon, phones: tuple[str, ...], texts: Mapping[str, str] | None = None
    ) -> TrainingCorpus:
        """The utterances of `texts` (utt_id -> words; the store's own by default). InputError if there are none."""
        texts = texts if texts is not None else dict(zip(store.utt_ids, store.texts, strict=True))
        transcripts: list[Transcript] = []
        rejected: dict[str, str] = {}
        for utt_id, text in texts.items():
            begin, end = store.span(utt_id)
            reason = why_not_aligned(text.split(), end - begin, lexicon)
            if reason is None:
                transcripts.append(Transcript(utt_id, text, end - begin))
            else:
                rejected[utt_id] = reason
        if not transcripts:
            reasons = "; ".join(f"{utt_id}: {why}" for utt_id, why in list(rejected.items())[:3])
            raise NothingAligned(f"alignment: expected utterances to align, found none ({reasons})")
        transcripts.sort(key=lambda one: -one.num_frames)
        return TrainingCorpus(store, phones, tuple(transcripts), rejected, lexicon.fingerprint)

    @cached_property
    def fingerprint(self) -> str:
        """Of the frames, the words and their pronunciations."""
        return fingerprint([self.store.fingerprint, self.lexicon_fingerprint, self.phones, self.transcripts])

    def batches(self, options: ViterbiOptions, num_pdfs: int) -> list[Batch]:
        """The utterances in batches; one that alone has more scores than a batch may have is a batch of its own."""
        limit = options.batch_frames(num_pdfs)
        batches: list[Batch] = []
        begin, num_frames = 0, 0
        for number, transcript in enumerate(self.transcripts):
            is_full = number - begin == options.batch_utterances or num_frames + transcript.num_frames > limit
            if is_full and number > begin:
                batches.append(self.transcripts[begin:number])
                begin, num_frames = number, 0
            num_frames += transcript.num_frames
        return [*batches, self.transcripts[begin:]]


def why_not_aligned(words: list[str], num_frames: int, lexicon: Lexicon) -> str | None:
    """Why an utterance cannot be aligned; None if it can (but for a path, which its scores may not have)."""
    if not words:
        return "no words"
    unknown = missing_words([words], lexicon.prons)
    if unknown:
        return f"{NO_PRONUNCIATION}: {name_some(unknown)}"
    states = NUM_STATES * sum(min(map(len, lexicon.prons[word])) for word in words)
    if num_frames < states:
        return f"{TOO_FEW_FRAMES}: {num_frames} for {len(words)} words, expected at least {states}"
    return None


def viterbi(
    corpus: TrainingCorpus,
    task: Task[Batch, AlignedBatch],
    num_pdfs: int,
    options: ViterbiOptions = ViterbiOptions(),
    executor: Executor = SERIAL,
    cache: ResultCache[AlignedBatch] | None = None,
    desc: str = "align",
    folder: Path | None = None,
) -> Alignment:
    """The best state of every frame, given each utterance's words; on the disk of a folder where one is given.

    The task aligns batches: an `Aligner`, or one that opens an `Aligner` from files, with these options and so many
    senones. An utterance that cannot be aligned (a word without pronunciation, fewer frames than states, no path) is in
    the result's `rejected`, with the reason. InputError if nothing could be aligned.
    """
    batches = corpus.batches(options, num_pdfs)
    paths = _Paths(corpus, folder)
    release_freed_memory()  # of what the process did before: those that search are forked from it
    with tqdm(total=paths.num_frames, desc=desc, unit="frame", unit_scale=True, leave=False) as bar:
        for number, aligned in executor.map(task, batches, cache):
            for transcript, path in zip(batches[number], aligned, strict=True):
                paths.add(transcript.utt_id, path)
                bar.update(transcript.num_frames)
    alignment = paths.as_alignment()
    wider = [utt_id for utt_id in alignment.utt_ids if paths.wider_beam[utt_id]]
    if wider:
        print(
            f"   {desc}: {len(wider):,} of {len(alignment.utt_ids):,} utterances needed a beam wider than "
            f"{options.search_beam:g}: {name_some(wider)}",
            flush=True,
        )
    return alignment


class _Paths:
    """The paths of a corpus, which come in any order, as columns of frames in the store's order."""

    def __init__(self, corpus: TrainingCorpus, folder: Path | None) -> None:
        self.corpus = corpus
        in_order = sorted(corpus.transcripts, key=lambda transcript: corpus.store.index(transcript.utt_id))
        ends = list(itertools.accumulate(transcript.num_frames for transcript in in_order))
        self.num_frames = ends[-1]
        self.columns = Columns.create(self.num_frames, folder)
        self.spans = {one.utt_id: slice(end - one.num_frames, end) for one, end in zip(in_order, ends, strict=True)}
        """Frames of each utterance, in the store's order."""
        self.log_like: dict[str, float] = {}
        self.wider_beam: dict[str, bool] = {}

    def add(self, utt_id: str, path: AlignedUtterance | None) -> None:
        """Store the path of an utterance; None if there is none."""
        if path is None:
            return
        for column, values in zip(self.columns.rows(self.spans[utt_id]), path.columns, strict=True):
            column.copy_(torch.from_numpy(values))
        self.log_like[utt_id], self.wider_beam[utt_id] = path.log_like, path.wider_beam

    def as_alignment(self) -> Alignment:
        """The alignment of the utterances that have a path. InputError if none has."""
        missing = f"{NO_PATH}: none through its training graph"
        rejected = {one.utt_id: missing for one in self.corpus.transcripts if one.utt_id not in self.log_like}
        if not self.log_like:
            raise NothingAligned(f"alignment: no path through any of {len(self.spans)} training graphs")
        offsets = [0]
        for utt_id, frames in self.spans.items():
            if utt_id in rejected:
                continue
            begin, end = offsets[-1], offsets[-1] + frames.stop - frames.start
            if begin < frames.start:  # an utterance before it has no path: close the gap
                for column in self.columns:
                    column[begin:end] = column[frames].clone()
            offsets.append(end)
        utt_ids = tuple(utt_id for utt_id in self.spans if utt_id not in rejected)
        log_like = [self.log_like[utt_id] for utt_id in utt_ids]
        return Alignment(
            utt_ids=utt_ids,
            offsets=torch.tensor(offsets),
            **self.columns.rows(slice(offsets[-1]))._asdict(),
            phones=self.corpus.phones,
            store_fingerprint=self.corpus.store.fingerprint,
            log_like=torch.tensor(log_like, dtype=torch.double),
            log_like_rounds=(float(np.sum(log_like) / offsets[-1]),),
            wider_beam_rounds=(sum(self.wider_beam.values()),),
            rejected={**self.corpus.rejected, **rejected},
        )


class AlignmentTask:
    """What all tasks that align batches have in common."""

    uses_k2: ClassVar[bool] = True

    def out_of_memory(self, batch: Batch) -> str:
        """Which utterance a process could not align, and what may help."""
        longest = batch[0]
        others = f" and {len(batch) - 1} shorter ones" if len(batch) > 1 else ""
        return (
            f"{longest.utt_id}: {longest.num_frames:,} frames{others} need more memory to align than there is: "
            "try fewer jobs (--nj), or refuse long utterances (--max-duration)"
        )


@dataclass(frozen=True, eq=False)
class Aligner(AlignmentTask):
    """A task that aligns batches of utterances by acoustic scores from a function in memory."""

    lexicon: Lexicon
    tree: SenoneTree
    transitions: TransitionModel
    score_fn: ScoreFn
    options: ViterbiOptions = ViterbiOptions()

    def __post_init__(self) -> None:
        if self.transitions.num_pdfs != self.tree.num_pdfs:
            raise ValueError(
                f"viterbi: expected transitions of {self.tree.num_pdfs} pdfs, found {self.transitions.num_pdfs}"
            )

    def open(self) -> Aligner:
        """The aligner itself, a function of a batch."""
        keep_freed_memory()  # k2 asks for large blocks with every batch: worth a quarter of its time
        return self

    def __call__(self, batch: Batch) -> AlignedBatch:
        with named_memory_error(self.out_of_memory(batch)):
            return self._align(batch)

    def _align(self, batch: Batch) -> AlignedBatch:
        graphs = TrainingGraphs.build(
            [transcript.text for transcript in batch],
            self.lexicon,
            self.tree.phones,
            self.options.silence_prob,
            with_context=not self.tree.is_monophone,
        )
        compiled = graphs.compile(self.tree, self.transitions)
        paths = best_paths(
            compiled,
            map(self._scores, batch),
            [transcript.num_frames for transcript in batch],
            self.options.acoustic_scale,
            Beams(self.options.search_beam, self.options.output_beam),
        )
        return [path and _as_aligned(graphs, index, path) for index, path in enumerate(paths)]

    def _scores(self, transcript: Transcript) -> Iterator[Tensor]:
        """An utterance's scores in chunks of frames."""
        scores = self.score_fn(transcript.utt_id)
        expected = (transcript.num_frames, self.tree.num_pdfs)
        num_frames = 0
        for chunk in [scores] if isinstance(scores, Tensor) else scores:
            num_frames += len(chunk)
            if chunk.shape[1:] != expected[1:] or num_frames > expected[0]:
                found = (num_frames, *chunk.shape[1:])
                raise ValueError(f"{transcript.utt_id}: expected scores {expected}, found {found}")
            require_finite_scores(transcript.utt_id, chunk)
            yield chunk
        if num_frames != transcript.num_frames:
            raise ValueError(f"{transcript.utt_id}: expected scores {expected}, found {num_frames} frames")


def _as_aligned(graphs: TrainingGraphs, index: int, path: BestPath) -> AlignedUtterance:
    """The path of utterance `index` of the graphs as phones and states."""
    instance = path.hmm_state // NUM_STATES
    return AlignedUtterance(
        graphs.phone[instance + graphs.instance_offsets[index]].astype(np.int16),
        (path.hmm_state % NUM_STATES).astype(np.int8),
        np.cumsum(np.diff(instance, prepend=instance[0]) != 0).astype(np.int32),
        path.log_like,
        path.wider_beam,
    )


def _pack(paths: AlignedBatch) -> Arrays:
    """Paths of a batch end to end; the length of a missing one is -1."""
    found = [path for path in paths if path is not None]
    return {
        "length": np.asarray([-1 if path is None else path.phone_id.size for path in paths]),
        "log_like": np.asarray([path.log_like for path in found]),
        "wider_beam": np.asarray([path.wider_beam for path in found], dtype=np.bool_),
        "phone_id": np.concatenate([path.phone_id for path in found] or [np.empty(0, np.int16)]),
        "state": np.concatenate([path.state for path in found] or [np.empty(0, np.int8)]),
        "segment": np.concatenate([path.segment for path in found] or [np.empty(0, np.int32)]),
    }


def _unpack(arrays: Arrays) -> AlignedBatch:
    lengths = arrays["length"]
    ends = np.cumsum(lengths[lengths >= 0])[:-1]
    columns = [np.split(arrays[name], ends) for name in ("phone_id", "state", "segment")]
    found = iter(zip(*columns, arrays["log_like"].tolist(), arrays["wider_beam"].tolist(), strict=True))
    return [None if length < 0 else AlignedUtterance(*next(found)) for length in lengths]


ALIGNED_BATCHES = Codec(_pack, _unpack)
