"""Utterances without labels and doubtful transcripts: tables, and cards with audio that the page can hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from report_reader import rendered
from sample_run import doubtful, wav_bytes

from asrkd.errors import InputError
from asrkd.report import write_results_md
from asrkd.report.lost_sections import SHOWN_CARDS, doubtful_section
from asrkd.report.lost_tables import doubtful_table, unaligned_table, worst_first

pytestmark = pytest.mark.needs("matplotlib", "jinja2", "soundfile")


def rows(number: int, **more: Any) -> dict[str, Any]:
    return {"doubtful": [{**doubtful("train", f"u{n:02}", -1.0, 30.0 - n, n < 2), **more} for n in range(number)]}


def test_a_run_without_them_has_no_section_and_no_tables() -> None:
    for results in ({}, {"doubtful": [], "unaligned": []}):
        assert doubtful_section(results) is None
        assert doubtful_table(results) is None and unaligned_table(results) is None


def test_all_are_in_the_table_and_the_worst_can_be_heard() -> None:
    section = doubtful_section(rows(SHOWN_CARDS + 3, audio=wav_bytes(), speaker="ann"))
    assert section is not None
    assert len(section.tables[0].rows) == SHOWN_CARDS + 3
    assert section.tables[0].rows[0] == ("u00", "train", "−1.00", "3.53", "30.0", "excluded", "RUBOUT FIFTY THREE")
    assert [card.utt_id for card in section.utterances] == [f"u{n:02}" for n in range(SHOWN_CARDS)]
    card = section.utterances[2]
    assert card.audio is not None and card.audio.startswith("data:audio/flac") and not card.link
    assert (card.words, card.speaker) == ("RUBOUT FIFTY THREE", "ann")
    assert card.note.startswith("train, used: −1.00 nats per frame where the median is 3.53")


def test_audio_that_is_too_large_for_the_page_is_linked(tmp_path: Path) -> None:
    path = tmp_path / "half an hour.wav"
    soundfile.write(path, np.zeros(600_000, np.int16), 16000)
    section = doubtful_section(rows(1, audio=str(path), words="GO " * 5000))
    assert section is not None
    (card,) = section.utterances
    assert card.audio is None and card.link == path.as_uri() and card.link.endswith("half%20an%20hour.wav")
    assert len(card.words) <= 1000 and len(section.tables[0].rows[0][-1]) <= 100
    with pytest.raises(InputError, match="u00: cannot read its audio"):
        doubtful_section(rows(1, audio=str(tmp_path / "gone.wav")))


def test_they_are_on_the_page_and_in_results_md(results: dict[str, Any], tmp_path: Path) -> None:
    with_audio = [{**row, "audio": wav_bytes()} for row in results["doubtful"]]
    markup, page = rendered(results, {"doubtful": with_audio}, tmp_path)
    assert "doubtful" in page.ids and markup.count("<audio") == len(with_audio)
    assert "no pronunciation: 1984" in page.text
    write_results_md(results, tmp_path / "RESULTS.md")
    text = (tmp_path / "RESULTS.md").read_text()
    assert "**Doubtful transcripts**" in text and "| an254-fash-b | train   |" in text
    assert "**Utterances without frame labels**" in text


def test_the_worst_of_all_splits_come_first() -> None:
    mixed = [doubtful("dev", "b", 1.0, 5.0, False), doubtful("test", "a", 1.0, 9.0, False)]
    assert [row["utt_id"] for row in worst_first(mixed)] == ["a", "b"]
