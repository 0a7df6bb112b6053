"""An exported model: from samples to words."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from asrkd.errors import InputError
from asrkd.files import require_expansion
from asrkd.runtime.acoustic import AcousticModel, Scores, Statistics
from asrkd.runtime.features import log_mel
from asrkd.runtime.graph import WordGraph
from asrkd.runtime.package import NETWORK, NETWORK_INT8, Description, read_description, verify
from asrkd.runtime.search import Found, Search
from asrkd.runtime.transcript import Segment, Transcript, Word

if TYPE_CHECKING:
    from asrkd.runtime.segmentation import EndpointRules
    from asrkd.runtime.stream import Stream

Precision = Literal["auto", "float32", "int8"]


@dataclass(frozen=True, eq=False)
class Model:
    """A model in memory. Threads can share it."""

    description: Description
    acoustic: AcousticModel
    search: Search

    @property
    def name(self) -> str:
        """Recipe and system that it comes from."""
        return self.description.name

    @property
    def sampling_rate(self) -> int:
        """Hz of the samples that it takes."""
        return self.description.front_end.sampling_rate

    @property
    def frame_shift_sec(self) -> float:
        """Seconds from one frame to the next."""
        return self.description.frame_shift_sec

    @cached_property
    def silence_classes(self) -> tuple[int, ...]:
        """The columns of `scores` in which nothing is said."""
        return self.search.graph.silence_pdfs

    def scores(self, samples: NDArray[np.float32], statistics: Statistics | None = None) -> Scores:
        """log p(frame | senone) [T, C], up to a constant, of samples [N] in ±1 at the model's rate.

        `statistics`: what frames are normalised with, as in `AcousticModel.scores`.
        """
        return self.acoustic.scores(self.log_mel(samples), statistics)

    def log_mel(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Log-mel frames [T, F] of samples [N]. `Statistics.of` has their statistics."""
        return log_mel(_checked(samples), self.description.front_end)

    def decode_segment(
        self,
        samples: NDArray[np.float32],
        *,
        confidences: bool = True,
        nbest: int = 1,
        beam: float | None = None,
        statistics: Statistics | None = None,
    ) -> Segment:
        """The words of one segment: samples [N] float32 in ±1, mono, at `sampling_rate`. Times count from its begin.

        `nbest` hypotheses at most: the words and `nbest` - 1 alternatives. `beam`: nats; the run's without it.
        `statistics`: as in `scores`. InputError for samples that are not finite or not one channel.
        """
        found = self.search.decode(self.scores(samples, statistics), confidences=confidences, nbest=nbest, beam=beam)
        return self.segment(found, len(samples) / self.sampling_rate)

    def segment(self, found: Found, duration: float) -> Segment:
        """What a search found in `duration` seconds, with times in seconds from their begin."""
        shift = self.frame_shift_sec

        def time(frame: int) -> float:
            return min(round(frame * shift, 6), duration)  # the last frame can reach past the end

        words = tuple(Word(word.text, time(word.begin), time(word.end), word.confidence) for word in found.words)
        return Segment(0.0, duration, words, found.alternatives)

    def transcribe(
        self,
        audio: str | Path | NDArray[Any],
        *,
        sampling_rate: int | None = None,
        confidences: bool = True,
        nbest: int = 1,
        beam: float | None = None,
        channel: str = "auto",
    ) -> Transcript:
        """The words of a recording of any length: an audio file of any format, or samples [N] at `sampling_rate` Hz.

        Samples are 16-bit integers or floating-point ones in ±1; `sampling_rate` is the model's where it is not given.
        `channel`: auto (the only one, or the mean of two), mix, split or a number from 0. InputError for what is no
        audio, has samples that are not finite, or has less than half of the model's sampling rate.
        """
        from asrkd.runtime.inputs import AudioInput
        from asrkd.runtime.transcribe import TranscribeOptions, transcribe_input, transcribe_samples

        options = TranscribeOptions(beam=beam, nbest=nbest, confidences=confidences, channel=channel)
        if isinstance(audio, (str, Path)):
            return transcribe_input(self, AudioInput(Path(audio).stem, Path(audio)), options)
        rate = self.sampling_rate if sampling_rate is None else sampling_rate
        return transcribe_samples(self, np.asarray(audio), rate, options)

    def stream(
        self,
        *,
        sampling_rate: int | None = None,
        rules: EndpointRules | None = None,
        confidences: bool = True,
        beam: float | None = None,
    ) -> Stream:
        """Speech while it is spoken: `accept(pcm)`, `partial`, `final()`. See `asrkd.runtime.stream`."""
        from asrkd.runtime.stream import Stream

        return Stream(self, sampling_rate=sampling_rate, rules=rules, confidences=confidences, beam=beam)


def load(path: Path | str, *, precision: Precision = "auto", num_threads: int = 1) -> Model:
    """The model that `asrkd export` wrote: a folder, or a .tar.gz of it.

    `precision`: auto takes int8 where the model has it. `num_threads` are those of the network; the search has one.
    InputError, in one line, for what is no model, damaged, or of another version.
    """
    with model_folder(path) as folder:
        return assemble_folder(folder, precision, num_threads)


@contextmanager
def model_folder(path: Path | str) -> Iterator[Path]:
    """The folder of a model; that of a .tar.gz is there until the block ends. InputError for what is neither."""
    path = Path(path)
    if path.is_dir():
        yield path
        return
    if not path.is_file():
        raise InputError(f"{path}: expected a model of `asrkd export`, found no such folder or file")
    with tempfile.TemporaryDirectory(prefix="asrkd-model-") as folder:
        _unpack(path, Path(folder))
        yield Path(folder)


def assemble_folder(folder: Path, precision: Precision = "auto", num_threads: int = 1) -> Model:
    """As `load`, for a folder."""
    description = read_description(folder)
    verify(folder, description)
    if precision == "int8" and NETWORK_INT8 not in description.files:
        raise InputError(f"{folder}: expected a model with {NETWORK_INT8}, found none (export says why); use float32")
    network = NETWORK if precision == "float32" or NETWORK_INT8 not in description.files else NETWORK_INT8
    return assemble(folder, description, network, num_threads)


def assemble(folder: Path, description: Description, network: str, num_threads: int = 1) -> Model:
    """The model of the files in a folder, with one of its networks. InputError for files that do not fit together."""
    acoustic = AcousticModel(folder / network, description, num_threads)
    graph = WordGraph.load(folder, description.silence_phones)
    if len(graph.senones.phone) != description.num_pdfs:
        found = len(graph.senones.phone)
        raise InputError(f"{folder}: expected {description.num_pdfs} senones, found {found}; export it again")
    return Model(description, acoustic, Search(graph, description.search, description.confidence))


def _unpack(path: Path, folder: Path) -> None:
    """The files of an archive into a folder: those at its top, or those of one folder, as tar packs a whole model.

    InputError if it is no such archive.
    """
    size, parents = 0, set()
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                size += member.size
                require_expansion(path, size, path.stat().st_size)
                *parent, name = PurePosixPath(member.name).parts or ("",)
                if member.isdir() and not parent and name != "..":
                    continue
                parents.add("/".join(parent))
                # Plain files of one folder alone: nothing is written outside `folder`.
                if not member.isfile() or len(parent) > 1 or len(parents) > 1 or {*parent, name} & {"/", "..", ""}:
                    raise InputError(f"{path}: expected the files of a model, found {member.name!r:.80}")
                source = archive.extractfile(member)
                assert source is not None
                with source, (folder / name).open("wb") as file:
                    shutil.copyfileobj(source, file)
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        message = " ".join(str(error).split())
        raise InputError(f"{path}: expected a model as .tar.gz, found something else ({message:.100})") from None


def _checked(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    samples = np.asarray(samples, dtype=np.float32)
    if samples.ndim != 1:
        raise InputError(f"audio: expected one channel of samples, found an array of shape {samples.shape}")
    if not np.isfinite(samples).all():
        raise InputError("audio: expected finite samples, found NaN or infinity")
    return samples
