"""The folder of a model: what is damaged, foreign or of another version is refused in one line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from toy_model import describe, write_toy_model

from asrkd.errors import InputError
from asrkd.files import write_json
from asrkd.runtime import package
from asrkd.runtime.package import MODEL_JSON, describe_file, read_description, to_json, verify


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_model(tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture
def model(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def check(folder: Path) -> None:
    verify(folder, read_description(folder))


def test_a_description_is_read_back(model: Path) -> None:
    check(model)
    files = {path.name: describe_file(path) for path in sorted(model.iterdir()) if path.name != MODEL_JSON}
    assert read_description(model) == replace(describe(), files=files)


def test_every_file_is_checked(model: Path) -> None:
    for name in read_description(model).files:
        path = model / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(InputError, match=rf"{name}: expected the SHA-256 of model.json, found another"):
            check(model)
        path.write_bytes(content[:-1])
        with pytest.raises(InputError, match=rf"{name}: expected {len(content)} bytes, found {len(content) - 1}"):
            check(model)
        path.unlink()
        with pytest.raises(InputError, match=rf"{name}: expected a file of the model, found none"):
            check(model)
        path.write_bytes(content)
    check(model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "expected a model of version 1, found version 2; install a newer asrkd"),
        ({"version": 0}, "expected a model of version 1, found version 0; export it again"),
        ({"version": "1"}, "expected a version, found '1'"),
        ({"format": "other"}, "expected a model of `asrkd export`"),
        ({"num_pdfs": 7}, "expected a file that nobody changed"),
    ],
)
def test_other_kinds_and_changes(changes: dict[str, object], message: str, model: Path) -> None:
    content = json.loads((model / MODEL_JSON).read_text())
    (model / MODEL_JSON).write_text(json.dumps(content | changes))
    with pytest.raises(InputError, match=message):
        check(model)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": "asrkd model"}', "\0" * 50])
def test_a_model_json_that_is_none(text: str, model: Path) -> None:
    (model / MODEL_JSON).write_text(text)
    with pytest.raises(InputError, match=r"model\.json: expected"):
        check(model)


def test_a_value_that_is_missing_or_unknown(model: Path) -> None:
    values = to_json(read_description(model))
    for changed in ({k: v for k, v in values.items() if k != "num_pdfs"}, {**values, "later": 1}):
        changed["sha256"] = package._digest(changed)
        write_json(model / MODEL_JSON, changed)
        with pytest.raises(InputError, match=r"model\.json: .*(num_pdfs|later)"):
            check(model)


def test_a_model_without_a_needed_file(model: Path) -> None:
    description = read_description(model)
    files = {name: file for name, file in description.files.items() if name != "HCLG.fst"}
    write_json(model / MODEL_JSON, to_json(replace(description, files=files)))
    with pytest.raises(InputError, match=r"expected HCLG\.fst among its files, found none"):
        check(model)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a model of `asrkd export` with a model\.json, found none"):
        read_description(tmp_path)
