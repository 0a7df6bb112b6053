"""Artefacts on disk: whole or absent, JSON or safetensors (never pickle), and carrying a fingerprint."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from asrkd.errors import InputError

FINGERPRINT_DIGITS = 16
_BLOCK_BYTES = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"


def canonical(obj: Any) -> Any:
    """`obj` as plain JSON values, dataclasses and paths included, so that equal values read the same."""
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return {field.name: canonical(getattr(obj, field.name)) for field in dataclasses.fields(obj)}
    if isinstance(obj, Mapping):
        return {str(key): canonical(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [canonical(value) for value in obj]
    if isinstance(obj, Path):
        return str(obj)
    if obj is None or isinstance(obj, (bool, int, float, str)):
        return obj
    raise TypeError(f"cannot write a {type(obj).__name__} as JSON")


def fingerprint(obj: Any) -> str:
    """First 16 hexadecimal digits of the SHA-256 of `obj` as canonical JSON."""
    text = json.dumps(canonical(obj), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_DIGITS]


def tensor_digest(tensor: torch.Tensor, prefix: str = "") -> str:
    """First 16 hexadecimal digits of the SHA-256 of a tensor's bytes and type."""
    digest = hashlib.sha256(f"{prefix} {tensor.dtype} {list(tensor.shape)}".encode())
    flat = tensor.detach().cpu().contiguous().view(-1)
    if flat.dtype == torch.bfloat16:
        flat = flat.view(torch.int16)
    digest.update(flat.numpy().tobytes())
    return digest.hexdigest()[:16]


def file_fingerprint(path: Path | str) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a file's bytes. InputError if it is missing."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path}: no such file") from None
    return digest.hexdigest()[:FINGERPRINT_DIGITS]


def read_json(path: Path | str) -> Any:
    """The value in a JSON file. InputError if it is missing or is not JSON."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected JSON, found something else ({error})") from None


def read_lines(path: Path | str) -> list[str]:
    """The lines of a text file in UTF-8, without line ends; gzip is recognised by its content.

    InputError if the file is missing, cannot be read, is a damaged gzip, or is not UTF-8 (naming the first bad line).
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: expected a file that can be read, found none ({error.strerror})") from None
    if data.startswith(_GZIP_MAGIC):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: expected gzip, found a damaged one ({error})") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        byte = error.object[error.start]
        raise InputError(f"{path}:{number}: expected UTF-8, found byte 0x{byte:02x}") from None
    # Not splitlines(): it also splits at U+0085 and U+2028, which a word may hold.
    lines = text.replace("\r\n", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    return lines


def write_json(path: Path | str, obj: Any) -> None:
    """Write `obj` as JSON, whole or not at all."""
    text = json.dumps(canonical(obj), indent=1, ensure_ascii=False) + "\n"
    with atomic_file(Path(path)) as beside:
        beside.write_text(text, encoding="utf-8")


def save_tensors(path: Path | str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and string metadata as one safetensors file, whole or not at all."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_file(Path(path)) as beside:
        try:
            save_file(contiguous, str(beside), metadata=dict(metadata))
        except SafetensorError as error:
            raise _system_error(error, path) from error


def _system_error(error: SafetensorError, path: Path | str) -> Exception:
    """The OSError (a full disk, say) that safetensors tells of in its message alone; else the error itself."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    if number is None:
        return error
    code = int(number.group(1))
    return OSError(code, os.strerror(code), str(path))


def load_tensors(path: Path | str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors (memory-mapped, CPU) and metadata of a safetensors file. InputError if missing or damaged."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with safe_open(str(path), framework="pt") as archive:
            names = archive.keys()
            return {name: archive.get_tensor(name) for name in names}, dict(archive.metadata() or {})
    except SafetensorError as error:
        raise InputError(f"{path}: expected a safetensors file, found a damaged one ({error})") from None


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A path to write beside `path`; renamed onto it, synced, when the block ends well."""
    beside = path.with_name(f".{path.name}.partial")
    try:
        yield beside
        sync(beside)
        os.replace(beside, path)
        sync(path.parent)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """An empty folder to fill beside `path`; takes its place, synced, when the block ends well."""
    beside = path.with_name(f".{path.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    yield beside
    publish_dir(beside, path)


def publish_dir(beside: Path, path: Path) -> None:
    """Sync everything under `beside` and rename it to `path`, replacing what stood there."""
    sync_tree(beside)
    if path.exists():
        # A folder cannot be renamed over a full one: move the old away first, then drop it.
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(path, old)
        os.replace(beside, path)
        shutil.rmtree(old)
    else:
        os.replace(beside, path)
    sync(path.parent)


def sync_tree(folder: Path) -> None:
    """Flush a folder and everything under it to the disk."""
    for file in sorted(folder.rglob("*")):
        sync(file)
    sync(folder)


def sync(path: Path) -> None:
    """Flush a file or folder to the disk, so that a rename never outruns its contents."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
