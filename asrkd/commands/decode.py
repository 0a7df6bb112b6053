"""`asrkd decode`: other speech, decoded with a finished run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from asrkd.commands.command import Command

if TYPE_CHECKING:
    from asrkd.recipe.new_data_options import NewDataOptions

# Options that decide nothing of the results.
_OF_THIS_CALL = ("run", "num_jobs", "device", "overwrite")


def _options() -> Any:
    from asrkd.recipe.new_data_options import NewDataOptions  # here: `asrkd doctor` works where torch does not import

    return NewDataOptions


def run(options: NewDataOptions) -> int:
    from asrkd.recipe.new_data import decode_new_data

    decode_new_data(options, command_of(options))
    return 0


def command_of(options: NewDataOptions) -> str:
    """The command line that makes the results."""
    return shlex.join(["asrkd", "decode", str(options.run), *_given(options)])


def _given(options: NewDataOptions) -> Iterator[str]:
    for field in fields(options):
        value = getattr(options, field.name)
        default = field.default if field.default is not MISSING else None
        if field.name in _OF_THIS_CALL or value == default:
            continue
        yield f"--{field.name.replace('_', '-')}"
        yield from map(str, value if isinstance(value, tuple) else (value,))


COMMAND = Command(
    name="decode",
    summary="Decode other speech with a finished run, and score it.",
    description="""
The networks, the graph and the scales are those of the run, which is not changed. --out has hypotheses of each system
as TRN and CTM, and, where there are transcripts, the references, results.json, RESULTS.md and report.html: error rates
with intervals, paired comparisons of the systems, and the words that no system can recognise.

The audio may have another sampling rate: it is resampled. Features are normalised by speaker, as in the run; where
speakers are unknown, a recording is one.

What is finished in --out is not made again: the same command continues after a kill, and other --systems are added.""",
    examples=(
        "asrkd decode exp/an4 --recordings recordings.jsonl.gz --supervisions supervisions.jsonl.gz --out exp/an4_new",
        "asrkd decode exp/an4 --kaldi-dir data/test --systems baseline distilled --out exp/an4_new --nj 8",
        "asrkd decode exp/an4 --cuts cuts.jsonl.gz --lm larger.arpa.gz --lexicon cmudict --out exp/an4_larger_lm",
        "asrkd decode exp/an4 --recordings folder/of/audio --out exp/an4_words     # no transcripts, no error rates",
    ),
    options=_options,
    run=run,
)
