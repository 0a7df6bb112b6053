"""`asrkd compare`: two systems on the same utterances."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from asrkd.commands.command import Command
from asrkd.options import first_word


@dataclass(frozen=True)
class CompareOptions:
    """The two results."""

    a: str = field(metadata=first_word())
    """Folder of a finished run or of `asrkd decode`, or FOLDER:SYSTEM."""
    b: str | None = field(default=None, metadata=first_word())
    """The other one; none: two --systems of the first are compared."""
    systems: tuple[str, ...] = ()
    """The system of both folders, or that of each; none: distilled, or the only one."""
    common: bool = False
    """Compare the utterances that both have, where one has others too. Their number is printed."""
    ceiling: str | None = None
    """FOLDER:SYSTEM of a third system, such as that of all transcripts: which share of the way from A to it B goes."""
    json: bool = False
    """Print JSON."""


def run(options: CompareOptions) -> int:
    from asrkd.recipe.compared import compare_results
    from asrkd.report.compared import comparison_text

    found = compare_results(options.a, options.b, options.systems, options.common, options.ceiling).as_json()
    print(json.dumps(found, ensure_ascii=False, indent=1) if options.json else comparison_text(found))
    return 0


COMMAND = Command(
    name="compare",
    summary="Compare two systems on the same utterances: tests, and words that became right or wrong.",
    description="""
Differences are B minus A: negative where B has fewer errors. The matched-pairs test is sctk's MAPSSWE. The bootstrap by
speaker draws speakers with all of their utterances, which are not independent; with few speakers its intervals, and
more so those by utterance, are not to be trusted.

Frame accuracy and cross-entropy are compared where both have the same frame labels: in one run, and in runs of
--labels-from. Both sides need the same references. A cross-validation (--folds) counts with the test sets of all its
folds.""",
    examples=(
        "asrkd compare exp/an4 exp/an4_wide",
        "asrkd compare exp/an4 --systems baseline distilled",
        "asrkd compare exp/an4_quarter --systems distilled_transcribed distilled --ceiling exp/an4_all:distilled",
        "asrkd compare exp/an4_new:distilled exp/an4_larger_lm:distilled --json > compared.json",
    ),
    options=lambda: CompareOptions,
    run=run,
)
