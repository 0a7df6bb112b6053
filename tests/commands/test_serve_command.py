"""`asrkd serve`: what it refuses before it serves."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from asrkd.commands.main import main

pytestmark = pytest.mark.needs("starlette", "uvicorn", "python_multipart", "onnxruntime", "websockets")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(["serve", *arguments])
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("asrkd: error: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected MODELS"),
        (["model", "--port", "70000"], "--port: expected 0 to 65535, found 70000"),
        (["model", "--max-streams", "0"], "--max-streams: expected a number above 0, found 0"),
        (["model", "--max-upload-mb", "nan"], "--max-upload-mb: expected a number above 0"),
        (["model", "--num-workers", "0"], "--num-workers: expected 1 or more, found 0"),
        (["model", "--host", "no.such.host.invalid", "--port", "0"], "expected an address to listen on"),
        (["model", "--max-stream", "3"], "the nearest is --max-streams"),
    ],
)
def test_options_that_cannot_be(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(capsys, *arguments)


def test_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected a model of `asrkd export`" in refused(capsys, str(tmp_path), "--port", "0")


def test_a_port_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        line = refused(capsys, str(tmp_path), "--port", str(taken.getsockname()[1]))
    assert "Address already in use" in line


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in list(sys.modules):
        # The options stay: the command, which is imported, has them.
        if name.split(".")[0] == "uvicorn" or (name.startswith("asrkd.serve.") and name != "asrkd.serve.options"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "asrkd serve needs uvicorn, which is not installed: pip install 'asrkd[runtime,serve]'" in refused(
        capsys, "model"
    )
