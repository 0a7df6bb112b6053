"""Many inputs to files of transcripts: what is there is skipped, what is bad is counted, and progress has an ETA."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from asrkd.data.manifest_items import CONTROL
from asrkd.errors import InputError, name_some
from asrkd.runtime.inputs import AudioInput, find_inputs
from asrkd.runtime.outputs import BatchCounts, require_output_options, write_outputs
from asrkd.runtime.progress import AudioProgress, audio_progress
from asrkd.runtime.transcribe import TranscribeOptions, transcribe_input
from asrkd.runtime.transcript import Transcript
from asrkd.runtime.writers import FORMATS, JOINABLE
from asrkd.workflow.fork_map import fork_map
from asrkd.workflow.task import in_order

if TYPE_CHECKING:
    from asrkd.runtime.model import Model, Precision


@dataclass(frozen=True)
class Batch:
    """What to transcribe, and where to."""

    model: Path
    arguments: Sequence[str]
    formats: Sequence[str]
    output_dir: Path | None
    """None: standard output."""
    overwrite: bool = False
    allow_empty: bool = False
    """Write the transcripts of inputs without words."""
    precision: Precision = "auto"
    num_jobs: int = 1
    options: TranscribeOptions = field(default_factory=TranscribeOptions)

    def __post_init__(self) -> None:
        """InputError for options that do not fit each other."""
        require_output_options(self.formats, self.output_dir, self.num_jobs)
        if self.options.nbest > 1 and "json" not in self.formats:
            raise InputError(f"--nbest {self.options.nbest}: it has no effect without --format json, which has them")

    def outputs(self, source: AudioInput) -> Mapping[str, Path]:
        """The file of each format."""
        assert self.output_dir is not None
        return {form: self.output_dir / f"{source.name}.{form}" for form in self.formats}


@dataclass
class BatchResult(BatchCounts):
    """What became of the inputs."""

    done, does = "transcribed", "transcribes"

    without_words: list[str] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """Lines of what was done."""
        lines = [self.counted]
        if self.without_words:
            lines.append(f"no words in {len(self.without_words)} of them: {name_some(sorted(self.without_words))}")
        return "\n".join(lines)


class _Outcome(NamedTuple):
    transcript: Transcript | None
    error: str
    """Why there is no transcript."""


def run_batch(batch: Batch) -> BatchResult:
    """Transcribe what is not transcribed yet. InputError for what no input can be transcribed with.

    Each output appears whole or not at all. Bad inputs are in the result: they do not end the others.
    """
    inputs = find_inputs(batch.arguments)
    _require_places(batch, inputs)
    todo = [source for source in inputs if batch.overwrite or not _exists(batch, source)]
    result = BatchResult(len(inputs), len(inputs) - len(todo))
    if not todo:
        return result
    from asrkd.runtime.model import load  # here: what is already transcribed needs no model

    model = load(batch.model, precision=batch.precision)
    begin = time.monotonic()
    with TemporaryDirectory(prefix="asrkd-") as tmp_dir, audio_progress(todo, "transcribe") as progress:
        outcomes = _outcomes(model, batch, todo, Path(tmp_dir), progress.update)
        # Files are written at once, for an interrupted run goes on from them.
        for number, outcome in outcomes if batch.output_dir else enumerate(in_order(outcomes)):
            _take(batch, result, todo[number], outcome, progress)
    result.elapsed_sec = time.monotonic() - begin
    return result


def _outcomes(
    model: Model, batch: Batch, todo: Sequence[AudioInput], tmp_dir: Path, progress: Callable[[float], object]
) -> Iterator[tuple[int, _Outcome]]:
    """Yield (number of an input, its outcome): in order with one job, as they are finished with several."""

    def outcome_of(source: AudioInput, report: Callable[[float], object] | None = None) -> _Outcome:
        try:
            transcript = transcribe_input(model, source, batch.options, report, tmp_dir)
        except InputError as error:
            return _Outcome(None, str(error))
        if transcript.words or batch.allow_empty:
            return _Outcome(transcript, "")
        found = f"expected speech, found no words in {transcript.duration:.1f} s"
        return _Outcome(None, f"{source}: {found} (--allow-empty writes empty transcripts)")

    # Processes that are forked have no standard input.
    here = [n for n, source in enumerate(todo) if batch.num_jobs == 1 or source.path is None]
    forked = sorted(set(range(len(todo))).difference(here))
    for number in here:
        yield number, outcome_of(todo[number], progress)
    for at, outcome in fork_map(outcome_of, [todo[number] for number in forked], batch.num_jobs):
        progress(outcome.transcript.duration if outcome.transcript else 0.0)
        yield forked[at], outcome


def _take(batch: Batch, result: BatchResult, source: AudioInput, outcome: _Outcome, progress: AudioProgress) -> None:
    """Write the outputs of an input, or note why there are none."""
    transcript, error = outcome
    if transcript is not None:
        try:
            _write(batch, source, transcript, is_named=result.num_inputs > 1, progress=progress)
        except InputError as refused:
            transcript, error = None, str(refused)
    if transcript is None:
        result.fail(source, error, progress)
        return
    result.num_done += 1
    result.audio_sec += transcript.duration
    if not transcript.words:
        result.without_words.append(str(source))


def _write(batch: Batch, source: AudioInput, transcript: Transcript, is_named: bool, progress: AudioProgress) -> None:
    texts = {form: FORMATS[form](transcript) for form in batch.formats}
    if batch.output_dir is not None:
        write_outputs({path: texts[form] for form, path in batch.outputs(source).items()})
        return
    (form,) = texts
    name = CONTROL.sub(" ", transcript.name)  # one line for each input
    progress.print(f"{name}: {transcript.text}\n" if is_named and form == "txt" else texts[form])


def _exists(batch: Batch, source: AudioInput) -> bool:
    return batch.output_dir is not None and all(path.is_file() for path in batch.outputs(source).values())


def _require_places(batch: Batch, inputs: Sequence[AudioInput]) -> None:
    """InputError for several files on standard output in a format that cannot be joined."""
    (form, *_) = batch.formats
    if batch.output_dir is None and len(inputs) > 1 and form not in JOINABLE:
        raise InputError(f"--format {form}: expected --output-dir for {len(inputs)} inputs, found none")
