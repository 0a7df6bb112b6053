"""Readers of JSON artefacts check what they read, and name the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from asrkd.errors import InputError
from asrkd.files import read_json, read_object, read_rows, reading, write_json


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"x": nul}', "9" * 10_000 + "x"])
def test_what_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"x\.json: expected JSON, found something else"):
        read_json(written(tmp_path, text))


def test_a_folder_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_json(tmp_path)


def test_an_object_has_values_of_their_types(tmp_path: Path) -> None:
    path = written(tmp_path, '{"rows": [], "rtf": 1}')
    assert read_object(path, rows=list, rtf=float) == {"rows": [], "rtf": 1}
    with pytest.raises(InputError, match=r"x\.json: expected rows \(dict\), found list; make it again"):
        read_object(path, rows=dict)
    with pytest.raises(InputError, match=r"x\.json: expected words \(dict\), found none"):
        read_object(path, words=dict)
    with pytest.raises(InputError, match=r"x\.json: expected a JSON object, found list"):
        read_object(written(tmp_path, "[]"))


def test_rows_are_objects(tmp_path: Path) -> None:
    assert read_rows(written(tmp_path, '[{"utt_id": "u"}]'), utt_id=str) == [{"utt_id": "u"}]
    for text in ("{}", "[1]", '[{"utt_id": 1}]', '[{"id": "u"}]'):
        with pytest.raises(InputError, match=r"x\.json: expected"):
            read_rows(written(tmp_path, text), utt_id=str)


@pytest.mark.parametrize("error", [KeyError("arcs"), IndexError(), TypeError("x\ny"), RuntimeError(), OverflowError()])
def test_what_a_damaged_file_raises_becomes_one_line(error: Exception) -> None:
    expected = "graph: expected a decoding graph, found something else"
    with pytest.raises(InputError, match=expected) as refused, reading("graph", "a decoding graph"):
        raise error
    assert "\n" not in str(refused.value)
    with pytest.raises(OSError, match="full"), reading("graph", "a decoding graph"):
        raise OSError(28, "full")


def test_names_that_are_no_unicode_are_written_and_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"path": "a\udce9"})
    assert (tmp_path / "x.json").read_bytes().decode() == '{\n "path": "a\\udce9"\n}\n'
    assert read_json(tmp_path / "x.json") == {"path": "a\udce9"}
