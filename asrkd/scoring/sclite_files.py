"""Words as files that sclite and Kaldi's scoring read: TRN without times, CTM with times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from asrkd.files import atomic_file

CHANNEL = "1"
Timed = tuple[str, float, float]
"""Word, start and end (seconds)."""


def write_trn(words: Mapping[str, Sequence[str]], path: Path) -> None:
    """A line of each utterance: its words, then its utt_id in parentheses (sclite's manual, "trn")."""
    _write([f"{' '.join([*spoken, ''])}({utt_id})" for utt_id, spoken in words.items()], path)


def write_ctm(times: Mapping[str, Sequence[Timed]], path: Path) -> None:
    """A line of each word: utt_id, channel, start and duration (seconds in the utterance), word (sclite's "ctm")."""
    _write(
        [
            f"{utt_id} {CHANNEL} {start:.3f} {end - start:.3f} {word}"
            for utt_id, spoken in sorted(times.items())
            for word, start, end in spoken
        ],
        path,
    )


def _write(lines: Sequence[str], path: Path) -> None:
    with atomic_file(path) as tmp_path:
        tmp_path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
