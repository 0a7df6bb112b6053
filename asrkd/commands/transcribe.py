"""`asrkd transcribe`: the words of audio files, by an exported model."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from asrkd.commands.command import Command
from asrkd.options import first_word, short_name
from asrkd.terminal import tidy_end

if TYPE_CHECKING:
    from asrkd.runtime.batch import Batch


@dataclass(frozen=True)
class Options:
    """What is transcribed, how, and where to."""

    model: Path = field(metadata=first_word())
    """Model of `asrkd export`: its folder, or the same as one .tar.gz."""
    audio: tuple[str, ...] = field(metadata=first_word())
    """Audio and video files, folders of them, Lhotse manifests of recordings or cuts (JSONL), or - for standard
    input."""
    format: str = "txt"
    """One or several of txt,json,srt,vtt,ctm,trn,stm, with commas between them."""
    output_dir: Path | None = None
    """Folder of the outputs, NAME.txt and so on for each input; none: standard output."""
    overwrite: bool = False
    """Transcribe inputs whose outputs exist, too."""
    allow_empty: bool = False
    """Take an input without words, such as silence, for an empty transcript. It is a bad input otherwise."""
    channel: str = "auto"
    """auto (the only one, or the mean of two), mix (the mean of all), split (each separately) or a number from 0."""
    nbest: int = 1
    """Hypotheses of each segment, fewer where fewer are within the beam. The json has those after the first as
    alternatives."""
    beam: float | None = None
    """Beam of the search in nats; none: that of the model's run. A narrower one is faster and less exact."""
    precision: Literal["auto", "float32", "int8"] = "auto"
    """Weights of the network; auto: int8 where the model has it."""
    confidences: bool = True
    """Estimate how probable each word is, which takes up to as long again."""
    num_jobs: int = field(default=1, metadata=short_name("nj"))
    """Processes. Each transcribes one input at a time."""


def run(options: Options) -> int:
    from asrkd.runtime.batch import run_batch

    with tidy_end():
        result = run_batch(_batch(options))
    if result.num_inputs > len(result.failures):
        print(result.summary, file=sys.stderr)
    result.require_no_failures()
    return 0


def _batch(options: Options) -> Batch:
    from asrkd.runtime.batch import Batch
    from asrkd.runtime.transcribe import TranscribeOptions
    from asrkd.runtime.writers import parse_formats

    return Batch(
        model=options.model,
        arguments=options.audio,
        formats=parse_formats(options.format),
        output_dir=options.output_dir,
        overwrite=options.overwrite,
        allow_empty=options.allow_empty,
        precision=options.precision,
        num_jobs=options.num_jobs,
        options=TranscribeOptions(
            beam=options.beam, nbest=options.nbest, confidences=options.confidences, channel=options.channel
        ),
    )


COMMAND = Command(
    name="transcribe",
    summary="Transcribe audio files with an exported model.",
    description="""
Any format and sampling rate that libsndfile reads, and those of ffmpeg where it is installed. Long recordings are cut
at pauses, so the memory does not grow with the length. Inputs whose outputs exist are skipped.

Words have times and confidences in json and ctm, and times in srt and vtt. One bad input does not end the others: the
command names it and ends with exit code 2.""",
    examples=(
        "asrkd transcribe model/ a.wav",
        "asrkd transcribe model/ recordings/ --format txt,srt,json --output-dir out --num-jobs 4",
        "asrkd transcribe model.tar.gz cuts.jsonl.gz --format ctm --output-dir out",
        "asrkd transcribe model/ call.wav --channel split --format json",
        "ffmpeg -i talk.mp4 -f wav - | asrkd transcribe model/ - --format vtt > talk.vtt",
    ),
    options=lambda: Options,
    run=run,
)
