"""Tables of utterances that a run lost or doubts."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from asrkd.report.tables import Row, Table, number

SHOWN_CHARACTERS = 100


def unaligned_table(results: Row) -> Table | None:
    """Utterances without frame labels, with the reason."""
    unaligned = results.get("unaligned")
    if not unaligned:
        return None
    rows = tuple((str(row["utt_id"]), str(row["split"]), str(row["reason"])) for row in unaligned)
    note = "They train nothing and have no frame accuracy. Those of held-out splits are decoded, and their words count."
    return Table("Utterances without frame labels", ("utt_id", "split", "reason"), rows, "lll", note=note)


def doubtful_table(results: Row) -> Table | None:
    """Utterances whose frames fit their words badly, the worst first."""
    doubtful = results.get("doubtful")
    if not doubtful:
        return None
    rows = tuple(
        (
            str(row["utt_id"]),
            str(row["split"]),
            number(row["log_like_per_frame"], 2),
            number(row["median"], 2),
            number(row["deviations_below"], 1),
            "excluded" if row["excluded"] else "used",
            textwrap.shorten(str(row["words"]), SHOWN_CHARACTERS, placeholder=" ..."),
        )
        for row in doubtful
    )
    headers = ("utt_id", "split", "nats/frame", "median of the split", "deviations below", "training", "words")
    return Table("Doubtful transcripts", headers, rows, "llrrrll")


def worst_first(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows of all splits, those furthest below their split's median first."""
    return sorted(map(dict, rows), key=lambda row: (-row["deviations_below"], row["split"], row["utt_id"]))
