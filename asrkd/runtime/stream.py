"""Speech while it is spoken: partial words, and segments that are final where somebody pauses.

    samples -> log-mel frames -> scores, in chunks of 0.2 s -> search -> partial words
                                        posteriors of silence -> end of a segment -> final words

The chunks are counted from the segment's begin, so the sizes in which samples come change nothing. Each segment is
normalised with running statistics, which begin with those of the segments before it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from asrkd.errors import InputError
from asrkd.runtime.audio import Resampler, as_float, require_rate
from asrkd.runtime.features import OnlineLogMel
from asrkd.runtime.segmentation import (
    DigitalSilence,
    Endpointer,
    EndpointRules,
    silence_posteriors,
    sure_of_silence,
)
from asrkd.runtime.speaker import Speaker
from asrkd.runtime.transcribe import Rows, moved
from asrkd.runtime.transcript import Segment, Transcript, Word

if TYPE_CHECKING:
    from asrkd.runtime.model import Model

CHUNK_SEC = 0.2
"""Of the network and the search: half of it is the mean delay that it adds."""
LOOK_BACK_SEC = 5.0
"""A segment that is too long ends between two words of its last five seconds; what follows is searched again."""


class Stream:
    """One speaker's stream. It belongs to one thread at a time; the model can be shared."""

    def __init__(
        self,
        model: Model,
        *,
        sampling_rate: int | None = None,
        rules: EndpointRules | None = None,
        beam: float | None = None,
        confidences: bool = True,
    ) -> None:
        """`sampling_rate`: Hz of the samples that come; None: the model's. `beam`: nats; None: the model's.

        InputError for less than half of the model's rate, and for another rate where soxr is not installed.
        """
        rate = model.sampling_rate if sampling_rate is None else sampling_rate
        require_rate(rate, model.sampling_rate, "stream")
        self._model, self._beam, self._with_confidences = model, beam, confidences
        self._shift_sec = model.frame_shift_sec
        self._resampler = Resampler(rate, model.sampling_rate)
        self._front_end = OnlineLogMel(model.description.front_end)
        self._speaker = Speaker(model.acoustic)
        self._digital = DigitalSilence(self._shift_sec)
        self._chunk_frames = max(1, round(CHUNK_SEC / self._shift_sec))
        self._look_back = round(LOOK_BACK_SEC / self._shift_sec)
        self._endpointer = Endpointer(rules or EndpointRules(), self._shift_sec)
        self._log_priors = model.search.graph.senones.log_prior
        self._silence_classes = np.array(model.silence_classes)
        self._odd_byte = b""
        self._num_samples = 0
        """At the model's rate."""
        self._rows = Rows()
        """Log-mel frames of the unfinished segment, with a flag of digital silence as last column."""
        self._num_accepted = 0
        """Frames that the network was given."""
        self._segments: list[Segment] = []
        self._is_finished = False
        self._partial: tuple[Word, ...] | None = None
        """Of the best path so far; None: not looked up since the search went on."""
        self._begin_segment(0)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments that are final. They never change."""
        return tuple(self._segments)

    @property
    def partial(self) -> str:
        """The words of the segment that is not final; they can still change."""
        return " ".join(word.text for word in self.partial_words)

    @property
    def partial_words(self) -> tuple[Word, ...]:
        """The same words with times in the stream, without confidences."""
        if self._partial is None:
            start, shift = self._first_frame * self._shift_sec, self._shift_sec
            words = self._search.partial()
            self._partial = tuple(Word(one.text, start + one.begin * shift, start + one.end * shift) for one in words)
        return self._partial

    @property
    def duration(self) -> float:
        """Seconds that have come."""
        return self._num_samples / self._model.sampling_rate

    def accept(self, pcm: bytes | np.ndarray) -> tuple[Segment, ...]:
        """Take samples: bytes of little-endian 16-bit integers, or an array [N] of them or of numbers in ±1.

        Returns the segments that became final. InputError for samples that are not finite, for another type, and
        after `final()`.
        """
        if self._is_finished:
            raise InputError("stream: expected no samples after its end; begin another one")
        before = len(self._segments)
        self._add(self._resampler.resample(self._samples(pcm)))
        return tuple(self._segments[before:])

    def final(self) -> Transcript:
        """End the stream: all segments, the last one among them. The same again when it is called again."""
        if not self._is_finished:
            self._add(self._resampler.resample(np.zeros(0, np.float32), is_last=True))
            self._add_frames(self._front_end.finish())
            self._is_finished = True
            self._search_on(self._score(self._rows.last))
            self._end_segment(self._num_searched)
        return Transcript("stream", self.duration, self.segments)

    def _samples(self, pcm: bytes | np.ndarray) -> np.ndarray:
        """Samples [N] float32. A sample may begin in one message and end in the next."""
        if isinstance(pcm, (bytes, bytearray, memoryview)):
            data = self._odd_byte + bytes(pcm)
            even = len(data) - len(data) % 2
            self._odd_byte = data[even:]
            return as_float(np.frombuffer(data[:even], dtype="<i2"))
        samples = as_float(np.asarray(pcm))
        if samples.ndim != 1:
            raise InputError(f"stream: expected samples of one channel [N], found an array {list(samples.shape)}")
        if not np.isfinite(samples).all():
            raise InputError(f"stream: expected finite samples, found NaN or infinity after {self.duration:.2f} s")
        return samples

    def _add(self, samples: np.ndarray) -> None:
        self._num_samples += len(samples)
        self._add_frames(self._front_end.accept(samples))
        while self._rows.last - self._num_accepted >= self._chunk_frames:
            self._search_on(self._score(self._num_accepted + self._chunk_frames))

    def _add_frames(self, feats: np.ndarray) -> None:
        self._rows.append(np.column_stack([feats, self._digital.accept(feats)]).astype(np.float32))

    def _score(self, last: int) -> np.ndarray:
        """The scores [t, C] that are complete with the frames to `last` - 1; all of them at the end of the stream."""
        parts = [self._score_stream.accept(self._rows.between(self._num_accepted, last)[:, :-1])]
        self._num_accepted = last
        if self._is_finished and last == self._rows.last:
            parts.append(self._score_stream.finish())
        scores = np.concatenate(parts)
        flags = self._rows.between(self._num_searched, self._num_searched + len(scores))[:, -1] > 0
        return sure_of_silence(scores, flags, self._silence_classes)

    def _search_on(self, scores: np.ndarray) -> None:
        """Search with the next scores [t, C], and end the segments that end within them."""
        while len(scores):
            number = self._endpointer.accept(silence_posteriors(scores, self._log_priors, self._silence_classes))
            used = scores if number is None else scores[:number]
            self._search.advance(used)
            self._num_searched += len(used)
            self._partial = None
            if number is None:
                return
            self._end_segment(self._num_searched if self._endpointer.is_paused else self._cut_between_words())
            # The frames after the cut belong to the next segment, with new statistics.
            scores = self._score(self._last_accepted)

    def _cut_between_words(self) -> int:
        """Frame in the longest gap between two words near the end of a segment that is too long; else its end."""
        earliest = max(self._num_searched - self._look_back, self._first_frame + 1)
        gaps = []
        for word, following in pairwise(self._search.partial()):
            middle = self._first_frame + (word.end + following.begin) // 2
            if middle >= earliest:
                gaps.append((following.begin - word.end, middle))
        return max(gaps)[1] if gaps else self._num_searched

    def _end_segment(self, cut: int) -> None:
        """Make the words before frame `cut` final, and begin a segment there."""
        start = self._first_frame * self._shift_sec
        found = self._search.final(confidences=self._with_confidences)
        duration = max(0.0, min(self._num_searched * self._shift_sec, self.duration) - start)
        segment = moved(self._model.segment(found, duration), start)
        end = min(cut * self._shift_sec, segment.end)
        words = tuple(word for word in segment.words if word.end <= end + self._shift_sec / 2)
        if words:
            self._segments.append(Segment(segment.start, max(end, words[-1].end), words))
            self._speaker.add(self._rows.between(self._first_frame, cut)[:, :-1])
        self._begin_segment(cut)

    def _begin_segment(self, frame: int) -> None:
        self._endpointer.reset()
        self._search = self._model.search.stream(beam=self._beam, confidences=self._with_confidences)
        self._score_stream = self._speaker.stream()
        self._last_accepted, self._num_accepted = self._num_accepted, frame
        self._rows.drop_before(frame)
        self._partial = ()
        self._first_frame = self._num_searched = frame
