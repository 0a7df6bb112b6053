"""The section with doubtful transcripts to listen to."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from asrkd.report.lost_tables import doubtful_table
from asrkd.report.page import Section, Utterance, audio_uri
from asrkd.report.tables import Row, number

SHOWN_CARDS = 10
# Bytes of audio to embed for an utterance: half a minute at 16 kHz. Longer audio is linked.
LARGEST_AUDIO = 1_000_000
SHOWN_CHARACTERS = 1_000


def doubtful_section(results: Row) -> Section | None:
    """Doubtful transcripts: a table of all, and the worst ones to listen to."""
    table = doubtful_table(results)
    if table is None:
        return None
    rows = results["doubtful"]
    text = [
        "The frames of these utterances fit their transcripts far worse than those of other utterances of their split: "
        "the log-likelihood per frame lies many robust standard deviations below the median. Listen whether the words "
        "are what is said. Wrong transcripts are the usual cause; noise, music and rare pronunciations are others.",
        "Excluded utterances train no network and tune no scale. Test utterances are never excluded.",
    ]
    if len(rows) > SHOWN_CARDS:
        text.append(f"The worst {SHOWN_CARDS} of {len(rows)} are below the table.")
    cards = tuple(_card(row) for row in rows[:SHOWN_CARDS])
    return Section("doubtful", "Doubtful transcripts", text=tuple(text), tables=(table,), utterances=cards)


def _card(row: Row) -> Utterance:
    utt_id = str(row["utt_id"])
    audio, link = _audio(row.get("audio"), utt_id)
    state = "excluded from training and tuning" if row["excluded"] else "used"
    note = (
        f"{row['split']}, {state}: {number(row['log_like_per_frame'], 2)} nats per frame where the median is "
        f"{number(row['median'], 2)}, {number(row['deviations_below'], 1)} deviations below"
    )
    words = textwrap.shorten(str(row["words"]), SHOWN_CHARACTERS, placeholder=" ...")
    return Utterance(utt_id, str(row.get("speaker") or ""), audio, (), note=note, words=words, link=link)


def _audio(source: Any, utt_id: str) -> tuple[str | None, str]:
    """A data URI, or where the audio is too large for the page the path of its file."""
    if source is None:
        return None, ""
    size = len(source) if isinstance(source, bytes) else _size(Path(source))
    if size > LARGEST_AUDIO and not isinstance(source, bytes):
        return None, Path(source).resolve().as_uri()
    return audio_uri(source, utt_id), ""


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0  # a missing file is reported where it is read
