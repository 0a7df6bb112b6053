"""Many recordings and their texts to files of alignments; what is bad is counted, and progress has an ETA."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from asrkd.errors import InputError, name_some
from asrkd.runtime.align import MAX_MISFIT, Aligner, Alignment
from asrkd.runtime.align_text import Text, find_texts
from asrkd.runtime.align_writers import FORMATS, SUFFIXES
from asrkd.runtime.audio import AUTO, SPLIT, require_channel_choice
from asrkd.runtime.inputs import STDIN, AudioInput, find_inputs
from asrkd.runtime.model import Precision
from asrkd.runtime.outputs import BatchCounts, require_output_options, write_outputs
from asrkd.runtime.progress import AudioProgress, audio_progress
from asrkd.workflow.fork_map import fork_map
from asrkd.workflow.task import in_order


@dataclass(frozen=True)
class AlignBatch:
    """What to align, and where to."""

    model: Path
    audio: str
    text: str
    formats: Sequence[str]
    output_dir: Path | None
    """None: standard output."""
    lexicon: Path | None = None
    overwrite: bool = False
    channel: str = AUTO
    precision: Precision = "auto"
    max_misfit: float = MAX_MISFIT
    num_jobs: int = 1

    def __post_init__(self) -> None:
        """InputError for options that do not fit each other."""
        require_channel_choice(self.channel)
        if self.channel == SPLIT:
            raise InputError("--channel: expected auto, mix or a number from 0, found split: one text has one channel")
        if self.audio == self.text == STDIN:
            raise InputError("expected a file as AUDIO or as TEXT, found standard input (-) as both")
        require_output_options(self.formats, self.output_dir, self.num_jobs)

    def outputs(self, source: AudioInput) -> Mapping[str, Path]:
        """The files of an input by suffix."""
        assert self.output_dir is not None
        suffixes = [suffix for form in self.formats for suffix in SUFFIXES[form]]
        return {suffix: self.output_dir / f"{source.name}.{suffix}" for suffix in suffixes}


@dataclass
class AlignResult(BatchCounts):
    """What became of the inputs that have a text."""

    done, does = "aligned", "aligns"

    without_text: list[str] = field(default_factory=list)
    misfits: list[str] = field(default_factory=list)
    """Lines about texts that do not fit their audio."""

    @property
    def summary(self) -> str:
        """Lines of what was done."""
        lines = [self.counted]
        if self.without_text:
            lines.append(f"no text for {len(self.without_text)} inputs: {name_some(self.without_text)}")
        if self.misfits:
            names = name_some(self.misfits, separator="; ")
            lines.append(f"texts that do not fit their audio: {len(self.misfits)} of {self.num_done}: {names}")
        return "\n".join(lines)


class _Outcome(NamedTuple):
    alignment: Alignment | None
    error: str
    """Why there is none."""


def run_align(batch: AlignBatch) -> AlignResult:
    """Align what is not aligned yet. InputError for what no input can be aligned with, and words without pronunciation.

    Each output appears whole or not at all. Bad inputs are in the result: they do not end the others.
    """
    inputs = find_inputs([batch.audio])
    aligner = Aligner.load(batch.model, batch.lexicon, batch.precision, batch.max_misfit)
    texts = find_texts(batch.text, batch.audio, inputs, aligner.dictionary)
    with_text = [source for source in inputs if source.name in texts]
    if batch.output_dir is None and len(with_text) > 1 and batch.formats[0] != "ctm":
        form = batch.formats[0]
        raise InputError(f"--format {form}: expected --output-dir for {len(with_text)} inputs, found none")
    todo = [source for source in with_text if batch.overwrite or not _exists(batch, source)]
    result = AlignResult(len(with_text), len(with_text) - len(todo))
    result.without_text = [str(source) for source in inputs if source.name not in texts]
    begin = time.monotonic()
    with TemporaryDirectory(prefix="asrkd-") as tmp_dir, audio_progress(todo, "align") as progress:
        outcomes = _outcomes(aligner, batch, texts, todo, Path(tmp_dir), progress.update)
        for number, outcome in outcomes if batch.output_dir else enumerate(in_order(outcomes)):
            _take(batch, result, todo[number], outcome, progress)
    result.elapsed_sec = time.monotonic() - begin
    return result


def _outcomes(
    aligner: Aligner,
    batch: AlignBatch,
    texts: Mapping[str, Text],
    todo: Sequence[AudioInput],
    tmp_dir: Path,
    progress: Callable[[float], object],
) -> Iterator[tuple[int, _Outcome]]:
    """Yield (number of an input, its outcome): in order with one job, as they are finished with several."""

    def outcome_of(source: AudioInput) -> _Outcome:
        try:
            return _Outcome(aligner.align_input(source, texts[source.name].words, batch.channel, tmp_dir), "")
        except InputError as error:
            return _Outcome(None, str(error))

    # Processes that are forked have no standard input.
    is_serial = batch.num_jobs == 1 or any(source.path is None for source in todo)
    outcomes = enumerate(map(outcome_of, todo)) if is_serial else fork_map(outcome_of, todo, batch.num_jobs)
    for number, outcome in outcomes:
        progress(outcome.alignment.duration if outcome.alignment else 0.0)
        yield number, outcome


def _take(
    batch: AlignBatch, result: AlignResult, source: AudioInput, outcome: _Outcome, progress: AudioProgress
) -> None:
    """Write the outputs of an input, or note why there are none."""
    alignment, error = outcome
    if alignment is not None:
        try:
            _write(batch, source, alignment, progress)
        except InputError as refused:
            alignment, error = None, str(refused)
    if alignment is None:
        result.fail(source, error, progress)
        return
    result.num_done += 1
    result.audio_sec += alignment.duration
    if alignment.misfits:
        places = name_some([str(one) for one in alignment.misfits], 3)
        result.misfits.append(f"{source} from {places}, misfit {alignment.misfit:.1f} nats a frame")


def _write(batch: AlignBatch, source: AudioInput, alignment: Alignment, progress: AudioProgress) -> None:
    if batch.output_dir is None:
        (form,) = batch.formats
        progress.print(FORMATS[form](alignment)[SUFFIXES[form][0]])
        return
    files = {suffix: text for form in batch.formats for suffix, text in FORMATS[form](alignment).items()}
    write_outputs({path: files[suffix] for suffix, path in batch.outputs(source).items()})


def _exists(batch: AlignBatch, source: AudioInput) -> bool:
    return batch.output_dir is not None and all(path.is_file() for path in batch.outputs(source).values())
