"""What a command line names: files, folders, manifests, standard input."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from asrkd.errors import InputError
from asrkd.runtime.inputs import AudioInput, find_inputs


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def recording(name: str, **changes: Any) -> dict[str, Any]:
    sources = [{"type": "file", "channels": [0, 1], "source": f"audio/{name}.wav"}]
    fields = {"id": name, "sources": sources, "sampling_rate": 8000, "num_samples": 80000, "duration": 10.0}
    return fields | changes


def cut(name: str, **changes: Any) -> dict[str, Any]:
    fields = {"id": name, "start": 2.0, "duration": 1.5, "channel": 1, "recording": recording("call")}
    return fields | {"type": "MonoCut"} | changes


def manifest(path: Path, *items: object) -> str:
    text = "".join(f"{json.dumps(item)}\n" for item in items)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def test_files_folders_and_standard_input(tmp_path: Path) -> None:
    touch(tmp_path, "d/b/two.FLAC", "d/a.wav", "d/notes.txt", "d/.hidden/x.wav", "d/._a.wav", "named.data")
    found = find_inputs([str(tmp_path / "named.data"), str(tmp_path / "d"), "-"])
    assert [one.name for one in found] == ["named", "a", "b/two", "stdin"]
    assert found[2].path == tmp_path / "d" / "b" / "two.FLAC"
    assert found[3].path is None and str(found[3]) == "standard input"


def test_recordings_and_cuts(tmp_path: Path) -> None:
    recordings = manifest(tmp_path / "recordings.jsonl.gz", recording("one"), recording("a/../two"))
    assert find_inputs([recordings]) == [
        AudioInput("one", Path("audio/one.wav")),
        AudioInput("a/two", Path("audio/a/../two.wav")),
    ]
    cuts = manifest(tmp_path / "cuts.jsonl", cut("c"), cut("both", channel=[0, 1], type="MultiCut"))
    assert find_inputs([cuts]) == [
        AudioInput("c", Path("audio/call.wav"), 2.0, 3.5, 1),
        AudioInput("both", Path("audio/call.wav"), 2.0, 3.5, None),
    ]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (recording("x", sources=[]), "expected one file in `sources`, found 0"),
        (recording("x", sources=[{"type": "command", "channels": [0], "source": "rm -rf /"}]), "found the text 'comm"),
        (recording("x", sources=[{"type": "file", "channels": [0], "source": "s3://a/b.wav"}]), "found a URL"),
        (recording("x", sources=[{"type": "file", "channels": 1, "source": "b.wav"}]), "expected channels"),
        (recording("x", transforms=[{"name": "Speed"}]), "found transforms"),
        (recording("x") | {"id": 3}, "as `id`, found the number 3"),
        (cut("x", start=None), "as `start`, found null"),
        (cut("x", duration="1"), "as `duration`, found the text"),
        (cut("x", channel=4), "expected one of the channels"),
        ({"id": "x", "type": "MixedCut", "tracks": []}, "found MixedCut"),
        ({"id": "x", "recording_id": "y"}, "found an item without audio"),
    ],
)
def test_items_that_name_no_plain_file(item: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = manifest(tmp_path / "m.jsonl", recording("good"), item)
    with pytest.raises(InputError, match=message) as error:
        find_inputs([path])
    assert f"{path}:2" in str(error.value)


def test_nothing_to_transcribe(tmp_path: Path) -> None:
    touch(tmp_path, "d/notes.txt", "empty.jsonl")
    for arguments, message in (
        ([], "found none"),
        ([str(tmp_path / "d")], "expected files with a suffix of audio"),
        ([str(tmp_path / "missing.wav")], "no such file or folder"),
        ([str(tmp_path / "empty.jsonl")], "found an empty file"),
        (["/dev/null"], "/dev/null: expected a file or folder, found a device"),
        (["", "a.wav"], "expected the name of a file or folder, found an empty one"),
    ):
        with pytest.raises(InputError, match=message):
            find_inputs(arguments)


def test_equal_names_get_folders_or_suffixes_or_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "d/a.wav", "d/a.mp3", "d/b.wav", "e/a.wav", "e/f/c.wav", "c.wav")

    def names(*paths: str) -> list[str]:
        return [one.name for one in find_inputs([str(tmp_path / path) for path in paths])]

    assert names("d") == ["a.mp3", "a.wav", "b"]
    assert names("d/a.wav", "d/b.wav", "e/a.wav") == ["d/a", "b", "e/a"]
    assert names("e/f/c.wav", "c.wav") == ["e/f/c", "c"]
    assert names("d", "e/a.wav") == ["a.mp3", "d/a.wav", "b", "e/a.wav"]
    assert names("e/f", "c.wav") == ["e/f/c", "c"]
    with pytest.raises(InputError, match="give their folder"):
        names("d/a.wav", "d/a.wav")
    with pytest.raises(InputError, match="found 2 of the id r"):
        find_inputs([manifest(tmp_path / "m.jsonl", recording("r"), recording("r"))])


def test_inputs_from_a_part_of_a_file_are_named_by_id_and_file(tmp_path: Path) -> None:
    (one,) = find_inputs([manifest(tmp_path / "m.jsonl", cut("the cut"))])
    assert str(one) == f"the cut ({one.path})"
