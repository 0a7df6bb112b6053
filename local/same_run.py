"""Whether two runs of one recipe have the same outputs, whatever their times.

Every file of a run is compared. What differs between two runs that nobody disturbed is listed here, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from asrkd.errors import InputError
from asrkd.files import load_tensors, read_json

# Folders and files that are no results: logs and locks.
NOT_COMPARED = ("log/", ".lock", ".locks/")
# Pages that print times among their figures. They are made of results.json and of the networks, which are compared.
PAGES = ("report/",)
# JSON keys, anywhere in a file, with measured times, and with what is computed of them.
TIMES = {
    "seconds": "how long a step or an epoch took",
    "finished": "when a step ended",
    "frames_per_sec": "speed of a training",
    "rtf": "speed of a search",
    "score_sec": "how long an utterance's scores took",
    "search_sec": "how long an utterance's search took",
    "timing": "how long each stage took",
    "content": "a step's fingerprint of its files, where one of them has times; the files are compared",
    "inputs": "the fingerprints of the steps it read, as above",
    "stamp": "a hash of the inputs, as above",
}


def differences(expected: Path, found: Path) -> list[str]:
    """What differs between two folders of runs: a line for each file."""
    names = _files(expected) | _files(found)
    lines = []
    for name in sorted(names):
        if not (expected / name).is_file() or not (found / name).is_file():
            lines.append(f"{name}: {'missing' if (expected / name).is_file() else 'left over'}")
        elif not name.startswith(PAGES) and (change := _difference(expected / name, found / name)) is not None:
            lines.append(f"{name}: {change}")
    return lines


def num_compared(folder: Path) -> int:
    """How many files of a run are compared."""
    return len(_files(folder))


def _files(folder: Path) -> set[str]:
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name for name in paths if not name.startswith(NOT_COMPARED)}


def _difference(expected: Path, found: Path) -> str | None:
    if expected.read_bytes() == found.read_bytes():
        return None
    if expected.suffix == ".json":
        return next(_of_values(read_json(expected), read_json(found)), None)
    try:
        return _of_tensors(load_tensors(expected), load_tensors(found))
    except InputError:
        return "other bytes"


def _of_tensors(expected: tuple[dict[str, torch.Tensor], dict[str, str]], found: Any) -> str | None:
    """The bytes of the tensors, and the metadata as JSON values: safetensors writes those in no order."""
    if expected[0].keys() != found[0].keys():
        return f"tensors {sorted(expected[0])} and {sorted(found[0])}"
    for name, tensor in expected[0].items():
        other = found[0][name]
        # Bytes, not values: NaN is unlike itself, and -0.0 is like 0.0.
        if tensor.dtype != other.dtype or tensor.shape != other.shape or _raw(tensor) != _raw(other):
            return f"tensor {name}"
    metadata = ({key: _parsed(value) for key, value in one.items()} for one in (expected[1], found[1]))
    return next(_of_values(*metadata), None)


def _raw(tensor: torch.Tensor) -> bytes:
    flat = tensor.contiguous().view(-1)
    return (flat.view(torch.int16) if flat.dtype == torch.bfloat16 else flat).numpy().tobytes()


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _of_values(expected: Any, found: Any, path: str = "") -> Iterator[str]:
    """The first values that differ, but for times."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key in dict.fromkeys([*expected, *found]):
            if key not in TIMES:
                yield from _of_values(expected.get(key), found.get(key), f"{path}.{key}" if path else key)
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for number, (left, right) in enumerate(zip(expected, found, strict=True)):
            yield from _of_values(left, right, f"{path}[{number}]")
    elif expected != found and not (expected != expected and found != found):  # NaN
        yield f"{path} {expected!s:.60} and {found!s:.60}"
