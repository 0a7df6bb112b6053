"""The sections on recognition errors: confusions, and the worst utterances to listen to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asrkd.report.counts import confusion_tables
from asrkd.report.page import Hypothesis, Section, Utterance, audio_uri
from asrkd.report.tables import Row


def confusions_section(results: Row) -> Section | None:
    """Words taken for other words."""
    tables = confusion_tables(results)
    if not tables:
        return None
    return Section("confusions", "Confusions", tables=tuple(tables))


def utterances_section(results: Row) -> Section | None:
    """The worst utterances, word by word, to listen to."""
    rows = results.get("worst_utterances")
    if not rows:
        return None
    by_utt: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_utt.setdefault(str(row["utt_id"]), []).append(row)
    utterances = tuple(_utterance(utt_id, mine) for utt_id, mine in by_utt.items())
    text = ("What was said above, what was heard below; a dash stands for no word.",)
    return Section("utterances", "Worst utterances", text=text, utterances=utterances)


def _utterance(utt_id: str, rows: Sequence[Row]) -> Utterance:
    audio = next((row["audio"] for row in rows if row.get("audio") is not None), None)
    speaker = next((str(row["speaker"]) for row in rows if row.get("speaker")), "")
    hypotheses = tuple(
        Hypothesis(str(row["system"]), int(row["errors"]), tuple((ref, hyp) for ref, hyp in row["alignment"]))
        for row in rows
    )
    return Utterance(utt_id, speaker, None if audio is None else audio_uri(audio, utt_id), hypotheses)
