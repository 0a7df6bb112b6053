"""When the words, phones and senones of a given text were said, and whether they were.

The best path through the graph of the text (`asrkd.runtime.align_graph`) is compared, frame by frame, with the best
senone: the misfit. Where words are right it is a few tenths of a nat. Words that were not said, or are missing from
the text, have ten and more.

The limits come from 58 prompts of the demonstration's test set (one speaker, whose speech the model learnt): with the
right words the excess is at most 94 nats; with one word exchanged at least 195 (35 texts); with the second half
exchanged at least 746 (27 texts).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asrkd.errors import InputError
from asrkd.runtime.align_graph import NO_WORD, ContextTree, GraphWeights, TextGraph, text_graph
from asrkd.runtime.align_search import Path as BestPath
from asrkd.runtime.align_search import best_path
from asrkd.runtime.align_text import Dictionary
from asrkd.runtime.audio import AUTO, MIX, channels_to_read, open_input, read_blocks, require_rate
from asrkd.runtime.features import OnlineLogMel
from asrkd.runtime.inputs import AudioInput
from asrkd.runtime.model import Model, Precision, assemble_folder, model_folder
from asrkd.runtime.package import TREE
from asrkd.runtime.segmentation import DigitalSilence, sure_of_silence
from asrkd.runtime.transcript import Seconds

MAX_MISFIT = 3.0
"""Nats per frame: what the right words rarely reach for long."""
MAX_EXCESS = 120.0
"""Nats: how far a stretch of frames may exceed MAX_MISFIT in total."""


@dataclass(frozen=True)
class Interval:
    """A word, a phone or a senone of a recording."""

    name: str
    start: Seconds
    end: Seconds
    misfit: float
    """Mean over its frames of log p(frame | best senone) - log p(frame | its senone), nats."""


@dataclass(frozen=True)
class Misfit:
    """A stretch in which the text does not fit."""

    start: Seconds
    end: Seconds
    word: str | None
    """The first word of the text that is mostly within it; None: silence, so that words are missing in the text."""
    index: int | None
    """The number of that word in the text, from 0."""

    def __str__(self) -> str:
        where = "between words" if self.index is None else f"word {self.index + 1}, {self.word}"
        return f"{self.start:.2f} to {self.end:.2f} s ({where})"


@dataclass(frozen=True)
class Alignment:
    """A text and when it was said."""

    name: str
    duration: Seconds
    words: tuple[Interval, ...]
    """Without the silence between them."""
    phones: tuple[Interval, ...]
    """From begin to end of the recording, silence among them."""
    senones: tuple[Interval, ...]
    """Names are phone.state.pdf_id, with the HMM state from 0."""
    misfit: float
    """Mean over all frames, nats."""
    misfits: tuple[Misfit, ...] = ()
    channel: int = 0


@dataclass(frozen=True, eq=False)
class Aligner:
    """A model that aligns texts. Processes that are forked can share it."""

    model: Model
    tree: ContextTree
    weights: GraphWeights
    dictionary: Dictionary
    max_misfit: float = MAX_MISFIT

    @staticmethod
    def load(
        path: Path | str,
        lexicon: Path | None = None,
        precision: Precision = "auto",
        max_misfit: float = MAX_MISFIT,
    ) -> Aligner:
        """The aligner of a model of `asrkd export`. `lexicon`: more pronunciations, in the phones of the model.

        InputError as of `asrkd.load`, and for a model without a senone tree and a lexicon of other phones.
        """
        if not max_misfit > 0.0:
            raise InputError(f"--max-misfit: expected a number above 0, found {max_misfit}")
        with model_folder(path) as folder:
            model = assemble_folder(folder, precision)
            tree = ContextTree.load(folder / TREE)
        graph = model.search.graph
        weights = GraphWeights.of(graph.senones, model.description.graph)
        return Aligner(model, tree, weights, Dictionary.of(graph, lexicon), max_misfit)

    def align_input(
        self, source: AudioInput, words: Sequence[str], channel: str = AUTO, tmp_dir: Path | None = None
    ) -> Alignment:
        """The alignment of a file, a part of one, or standard input with words of the dictionary.

        InputError as of `asrkd.runtime.transcribe.transcribe_input`, and as of `align_blocks`.
        """
        with open_input(source, tmp_dir) as audio:
            require_rate(audio.sampling_rate, self.model.sampling_rate, audio.label)
            channels = channels_to_read(audio, channel)
            if len(channels) > 1:
                raise InputError(f"{source}: expected one channel to align, found --channel {channel}: choose one")
            blocks = read_blocks(audio, self.model.sampling_rate, channels[0])
            number = 0 if channels[0] == MIX else int(channels[0])
            return self.align_blocks(source.name, str(source), blocks, audio.duration_sec, words, number)

    def align_samples(self, samples: NDArray[np.float32], words: Sequence[str], name: str = "audio") -> Alignment:
        """The alignment of samples [N] float32 in ±1, mono, at the model's rate. InputError as of `align_blocks`."""
        return self.align_blocks(name, name, [samples], len(samples) / self.model.sampling_rate, words)

    def align_blocks(
        self,
        name: str,
        label: str,
        blocks: Iterable[NDArray[np.float32]],
        duration: Seconds,
        words: Sequence[str],
        channel: int = 0,
    ) -> Alignment:
        """The alignment of blocks of samples. `label` is what errors name.

        InputError for words without pronunciation, no words, audio that is too short for them, and audio and text that
        together are too long.
        """
        prons = self.dictionary.pronunciations(words, label)
        if not prons:
            raise InputError(f"{label}: expected a text of at least one word, found none")
        feats = self._log_mel(blocks)
        graph = text_graph(prons, self.tree, self.weights)
        scale = self.model.description.search.acoustic_scale
        try:
            path = best_path(self._scores(feats), len(feats), graph, self.weights, scale)
        except MemoryError:
            raise InputError(
                f"{label}: expected audio and text that are shorter, found {duration:.0f} s and {len(words)} words: "
                "cut both at a pause"
            ) from None
        if path is None:
            shift = self.model.frame_shift_sec
            least = f"{graph.min_frames * shift:.2f} s of audio or more for {len(words)} words"
            if graph.min_frames <= len(feats):
                least = "a text that fits the audio"
            raise InputError(f"{label}: expected {least}, found {duration:.2f} s: is it the text of this audio?")
        return self._alignment(name, duration, words, graph, path, channel)

    def _log_mel(self, blocks: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
        """The log-mel frames [T, F] of the whole recording: 58 MB an hour."""
        front_end = OnlineLogMel(self.model.description.front_end)
        return np.concatenate([*(front_end.accept(block) for block in blocks), front_end.finish()])

    def _scores(self, feats: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Scores [t, C] of one part after the other, normalised with the statistics of the whole recording."""
        flags = DigitalSilence(self.model.frame_shift_sec).accept(feats)
        silence, num_scored = np.array(self.model.silence_classes), 0
        for scores in self.model.acoustic.score_parts(feats):
            yield sure_of_silence(scores, flags[num_scored : num_scored + len(scores)], silence)
            num_scored += len(scores)

    def _alignment(
        self,
        name: str,
        duration: Seconds,
        words: Sequence[str],
        graph: TextGraph,
        path: BestPath,
        channel: int,
    ) -> Alignment:
        shift = self.model.frame_shift_sec
        pdfs, misfit = graph.pdfs[path.units, path.states], path.misfit
        word_of = graph.word[path.units]
        phones, names = self.model.search.graph.senones.phone, self.model.search.graph.phones

        def time(frame: int) -> Seconds:
            return duration if frame == len(pdfs) else round(frame * shift, 6)

        def interval(text: str, first: int, last: int) -> Interval:
            return Interval(text, time(first), time(last), float(misfit[first:last].mean()))

        def senone(frame: int) -> str:
            return f"{phones[pdfs[frame]]}.{path.states[frame]}.{pdfs[frame]}"

        def stretch(first: int, last: int) -> Misfit:
            index = _first_word(word_of, first, last)
            return Misfit(time(first), time(last), None if index is None else words[index], index)

        return Alignment(
            name,
            duration,
            tuple(interval(words[word_of[a]], a, b) for a, b in _runs(word_of) if word_of[a] != NO_WORD),
            tuple(interval(names[graph.phone[path.units[a]]], a, b) for a, b in _runs(path.units)),
            tuple(interval(senone(a), a, b) for a, b in _runs(path.units * 8 + path.states)),
            float(misfit.mean()),
            tuple(stretch(a, b) for a, b in excesses(misfit, self.max_misfit)),
            channel,
        )


def excesses(misfit: NDArray[np.floating], max_misfit: float) -> list[tuple[int, int]]:
    """The stretches of frames, as (first, last + 1), in which the sum of misfit - `max_misfit` exceeds MAX_EXCESS.

    Page's cumulative sum test (1954): a stretch begins where the sum last was 0 and ends at its maximum, once it has
    fallen by MAX_EXCESS from there.
    """
    found = []
    total = peak = 0.0
    begin = end = 0
    for frame, value in enumerate((misfit - max_misfit).tolist()):
        if total <= 0.0:
            begin, total, peak = frame, 0.0, 0.0
        total += value
        if total > peak:
            peak, end = total, frame + 1
        if peak > MAX_EXCESS and (total <= 0.0 or total < peak - MAX_EXCESS):
            found.append((begin, end))
            total = peak = 0.0
    if peak > MAX_EXCESS:
        found.append((begin, end))
    return found


def _first_word(word_of: NDArray[np.integer], first: int, last: int) -> int | None:
    """The first word that has half of its frames in a stretch; None where that is silence. `word_of`: [T]."""
    inside, counts = np.unique(word_of[first:last], return_counts=True)
    for word, count in zip(inside.tolist(), counts.tolist(), strict=True):
        if word != NO_WORD and 2 * count >= (word_of == word).sum():
            return int(word)
    return None


def _runs(values: NDArray[np.integer]) -> Iterator[tuple[int, int]]:
    """The stretches of equal values, as (first, last + 1)."""
    limits = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    yield from itertools.pairwise(limits)
