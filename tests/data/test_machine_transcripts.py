"""Words of another recogniser, with confidences: lines that are read, chosen and refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from asrkd.data.machine_transcripts import read_machine_transcripts
from asrkd.errors import InputError


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_words_are_those_of_enough_confidence(tmp_path: Path) -> None:
    path = write(tmp_path, "text", "a go  on\nb\tstop\nc wait\nd\n")
    assert read_machine_transcripts(path, None, None) == {"a": "go on", "b": "stop", "c": "wait"}
    confidences = write(tmp_path, "conf", "a 0.5\nb 0.49\nz 1\n")
    assert read_machine_transcripts(path, confidences, 0.5) == {"a": "go on"}
    with pytest.raises(
        InputError, match=r"text: expected words .* confidence of at least 0.9 \(by .*conf\), found none"
    ):
        read_machine_transcripts(path, confidences, 0.9)


@pytest.mark.parametrize(
    ("text", "conf", "message"),
    [
        ("a go\na stop\n", None, "text:2: expected one transcript of a, found two"),
        ("a go\n\n", None, "text:2: expected an utt_id and its words"),
        ("a go\n", "a sure\n", "conf:1: expected an utt_id and a number, found 'a sure'"),
        ("a go\n", "a nan\n", "conf:1: expected an utt_id and a finite number"),
        ("a go\n", "a 1 2\n", "conf:1: expected an utt_id and a number"),
        ("a\n", None, "text: expected words of at least one utterance, found none"),
    ],
)
def test_other_lines_are_refused(text: str, conf: str | None, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, "text", text)
    confidences = None if conf is None else write(tmp_path, "conf", conf)
    with pytest.raises(InputError, match=message):
        read_machine_transcripts(path, confidences, 0.5)
