"""Words of another recogniser: text by utterance, with confidences where it has some."""

from __future__ import annotations

import math
from pathlib import Path

from asrkd.data.manifest_items import CONTROL
from asrkd.data.transcripts import read_table
from asrkd.errors import InputError
from asrkd.unicode import clean


def read_machine_transcripts(path: Path, confidences: Path | None, min_confidence: float | None) -> dict[str, str]:
    """utt_id -> words, from lines of an utt_id and its words (Kaldi's `text`).

    With a file of confidences (lines of an utt_id and a number), utterances of less than `min_confidence`, or without a
    confidence, are not among them. InputError, naming file and line, for a line of another form and for an utterance
    that comes twice, and where nothing remains.
    """
    texts = read_table(path, _words)
    if confidences is not None and min_confidence is not None:
        known = read_table(confidences, _confidence, kind="confidence")
        texts = {
            utt_id: text for utt_id, text in texts.items() if float(known.get(utt_id, -math.inf)) >= min_confidence
        }
    texts = {utt_id: text for utt_id, text in texts.items() if text}
    if not texts:
        least = "" if confidences is None else f" of a confidence of at least {min_confidence:g} (by {confidences})"
        raise InputError(f"{path}: expected words of at least one utterance{least}, found none")
    return texts


def _words(line: str) -> tuple[str, str]:
    if not line.strip() or CONTROL.search(line.replace("\t", " ")):
        raise ValueError("an utt_id and its words, without control characters")
    utt_id, *words = clean(line).split()
    return utt_id, " ".join(words)


def _confidence(line: str) -> tuple[str, str]:
    utt_id, *values = line.split() or [""]
    try:
        (value,) = map(float, values)
    except ValueError:
        raise ValueError("an utt_id and a number") from None
    if not math.isfinite(value):
        raise ValueError("an utt_id and a finite number")
    return clean(utt_id), values[0]
