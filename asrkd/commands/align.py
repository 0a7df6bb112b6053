"""`asrkd align`: when the words, phones and senones of a given text were said."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from asrkd.commands.command import Command
from asrkd.options import first_word, short_name
from asrkd.terminal import tidy_end


@dataclass(frozen=True)
class Options:
    """What is aligned, how, and where to."""

    model: Path = field(metadata=first_word())
    """Model of `asrkd export`: its folder, or the same as one .tar.gz."""
    audio: str = field(metadata=first_word())
    """Audio or video file, a folder of them, a Lhotse manifest of recordings or cuts (JSONL), or - for standard
    input."""
    text: str = field(metadata=first_word())
    """File with the words of an audio file, or - for standard input. For a folder or a manifest: lines of a name
    and its words, as Kaldi's `text`."""
    format: str = "ctm"
    """One or several of ctm,textgrid,json, with commas between them."""
    output_dir: Path | None = None
    """Folder of the outputs: NAME.ctm (words), NAME.phones.ctm, NAME.senones.ctm, NAME.TextGrid, NAME.json; none:
    standard output, of ctm the words alone."""
    lexicon: Path | None = None
    """More pronunciations: lines of a word and its phones, with the phones of the model."""
    overwrite: bool = False
    """Align inputs whose outputs exist, too."""
    channel: str = "auto"
    """auto (the only one, or the mean of two), mix (the mean of all) or a number from 0."""
    precision: Literal["auto", "float32", "int8"] = "auto"
    """Weights of the network; auto: int8 where the model has it."""
    max_misfit: float = 3.0
    """Nats per frame by which right words may score below the best senones: the text is reported where they exceed
    it. Higher for speech that the model hardly knows."""
    num_jobs: int = field(default=1, metadata=short_name("nj"))
    """Processes. Each aligns one input at a time."""


def run(options: Options) -> int:
    from asrkd.runtime.align_batch import AlignBatch, run_align
    from asrkd.runtime.align_writers import parse_formats

    batch = AlignBatch(
        model=options.model,
        audio=options.audio,
        text=options.text,
        formats=parse_formats(options.format),
        output_dir=options.output_dir,
        lexicon=options.lexicon,
        overwrite=options.overwrite,
        channel=options.channel,
        precision=options.precision,
        max_misfit=options.max_misfit,
        num_jobs=options.num_jobs,
    )
    with tidy_end():
        result = run_align(batch)
    if result.num_inputs > len(result.failures):
        print(result.summary, file=sys.stderr)
    result.require_no_failures()
    return 0


COMMAND = Command(
    name="align",
    summary="Find when the words and phones of a text were said, with an exported model.",
    description="""
The text is all that is said in the audio. Words have their pronunciations of the model's lexicon, with optional silence
between them. They are looked up in upper case and without punctuation at their ends. Words without a pronunciation are
named, and nothing is aligned; --lexicon adds them.

A text that does not fit the audio is reported with the time and the word where it stops fitting. Its alignment is
written all the same. One bad input does not end the others: the command names it and ends with exit code 2.""",
    examples=(
        "asrkd align model/ a.wav a.txt",
        "asrkd align model/ a.wav a.txt --format ctm,textgrid,json --output-dir out",
        "asrkd align model.tar.gz recordings/ text --format textgrid --output-dir out --num-jobs 4",
        "asrkd align model/ a.wav a.txt --lexicon names.txt --format textgrid > a.TextGrid",
        "echo 'hello world' | asrkd align model/ hello.wav -",
    ),
    options=lambda: Options,
    run=run,
)
