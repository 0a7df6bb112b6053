"""Files that appear whole or not at all: JSON and safetensors, and fingerprints of their content.

A file is written under another name in the same folder, synced to the disk and renamed. A reader, or a run after a
crash, therefore sees the old file or the new one, never half a file. Nothing is pickled.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import math
import mmap
import os
import re
import shutil
import stat
import struct
import warnings
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from asrkd.errors import InputError, naming
from asrkd.unicode import clean

if TYPE_CHECKING:
    # The functions that need torch import it: exported models run where it is not installed.
    import torch

FINGERPRINT_DIGITS = 16
_BLOCK_BYTES = 1 << 20
_PLAIN = frozenset({str, int, float, bool, type(None)})
GZIP_MAGIC = b"\x1f\x8b"
# Tables and manifests shrink to a twentieth or so. A gzip of zeros expands a thousand times, and never seems to end.
MAX_EXPANSION = 250
FREE_EXPANSION = 64 << 20
"""Bytes below which a file may expand as it will."""


def canonical(obj: Any) -> Any:
    """`obj` as plain JSON values. Dataclasses become dicts, paths strings, tuples lists.

    A dataclass with a method `json_values` chooses its values itself.
    """
    if type(obj) in _PLAIN:  # first, because manifests have millions of them
        return obj
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        if hasattr(obj, "json_values"):
            return canonical(obj.json_values())
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
    return hashlib.sha256(utf8(text)).hexdigest()[:FINGERPRINT_DIGITS]


def utf8(text: str) -> bytes:
    """`text` in UTF-8. What is no character, as in a file name of another encoding, becomes an escape as of JSON."""
    return text.encode("utf-8", "backslashreplace")


def require_utf8(text: str) -> None:
    """InputError for a name of a file or folder in another encoding: libraries and JSON have no way to write it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{text!r}: expected a name in UTF-8, found bytes of another encoding; rename it") from None


def tensor_digest(tensor: torch.Tensor, prefix: str = "") -> str:
    """First 16 hexadecimal digits of the SHA-256 of a tensor's bytes and type."""
    import torch

    digest = hashlib.sha256(f"{prefix} {tensor.dtype} {list(tensor.shape)}".encode())
    flat = tensor.detach().cpu().contiguous().view(-1)
    if flat.dtype == torch.bfloat16:
        flat = flat.view(torch.int16)
    digest.update(flat.numpy().data)  # the bytes themselves, not a copy: the tensor may be larger than the memory
    return digest.hexdigest()[:FINGERPRINT_DIGITS]


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


def folder_fingerprint(folder: Path, excluded: Collection[str] = ()) -> str:
    """Fingerprint of the names and contents of the files under a folder. Files named `excluded` do not count."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in excluded]
    return fingerprint({path.relative_to(folder): _content_fingerprint(path) for path in files})


def _content_fingerprint(path: Path) -> str:
    try:
        return safetensors_fingerprint(path)
    except InputError:  # another kind of file
        return file_fingerprint(path)


def safetensors_fingerprint(path: Path, with_metadata: bool = True) -> str:
    """Fingerprint of the tensors and metadata in a safetensors file. The metadata have no order, which bytes have.

    The file is read in blocks, because it can be larger than the memory. InputError if it is missing or damaged.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(file.read(length))
            if not with_metadata:
                header.pop("__metadata__", None)
            digest.update(json.dumps(header, sort_keys=True).encode())
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (struct.error, ValueError, AttributeError, RecursionError, MemoryError) as error:
        raise InputError(f"{path}: expected a safetensors file, found something else ({error})") from None
    return digest.hexdigest()[:FINGERPRINT_DIGITS]


# What a reader raises where a file's parts are missing, of another type or at odds with each other.
DAMAGED = (ArithmeticError, AttributeError, LookupError, RecursionError, RuntimeError, TypeError, ValueError)


@contextmanager
def reading(path: Path | str, what: str) -> Iterator[None]:
    """Read an artefact in the block: what a damaged one makes it raise becomes an InputError that names the file."""
    try:
        yield
    except DAMAGED as error:
        found = f"{type(error).__name__}: {' '.join(str(error).split()):.200}"
        raise InputError(f"{path}: expected {what}, found something else ({found}); make it again") from None


def read_json(path: Path | str) -> Any:
    """The value in a JSON file. InputError if it is missing or is not JSON."""
    path = Path(path)
    if not path.is_file():  # a pipe would be waited for
        raise InputError(f"{path}: no such file")
    try:
        return json.loads(path.read_bytes().decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected JSON, found something else ({error})") from None


def read_object(path: Path | str, **kinds: type) -> dict[str, Any]:
    """The object in a JSON file. InputError if it is missing, is something else, or has no value `name` of type `kind`.

    A whole number counts as a float.
    """
    value = read_json(path)
    _require_object(value, path, kinds)
    return dict(value)


def read_rows(path: Path | str, **kinds: type) -> list[dict[str, Any]]:
    """The list of objects in a JSON file, each as `read_object` reads one."""
    rows = read_json(path)
    if not isinstance(rows, list):
        raise InputError(f"{path}: expected a JSON list, found {type(rows).__name__}; make it again")
    for row in rows:
        _require_object(row, path, kinds)
    return rows


def _require_object(value: Any, path: Path | str, kinds: Mapping[str, type]) -> None:
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(value).__name__}; make it again")
    for name, kind in kinds.items():
        found = value.get(name)
        if not isinstance(found, (int, float) if kind is float else kind):
            what = type(found).__name__ if name in value else "none"
            raise InputError(f"{path}: expected {name} ({kind.__name__}), found {what}; make it again")


def read_lines(path: Path | str) -> list[str]:
    """The lines of a text file in UTF-8, cleaned (`asrkd.unicode`), without line ends; gzip is recognised by content.

    InputError if the file is missing, cannot be read, is a damaged gzip, or is not UTF-8 (naming the first bad line).
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: expected a file that can be read, found none ({error.strerror})") from None
    if data.startswith(GZIP_MAGIC):
        data = _unpacked(path, data)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        byte = error.object[error.start]
        raise InputError(f"{path}:{number}: expected UTF-8, found byte 0x{byte:02x}") from None
    # Not splitlines(): it also splits at U+0085 and U+2028, which a word may hold.
    lines = clean(text).replace("\r\n", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    return lines


def _unpacked(path: Path, packed: bytes) -> bytes:
    """The contents of a gzip. InputError if it is damaged, or expands without end."""
    blocks, size = [], 0
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            while block := file.read(_BLOCK_BYTES):
                blocks.append(block)
                size += len(block)
                require_expansion(path, size, len(packed))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: expected gzip, found a damaged one ({error})") from None
    return b"".join(blocks)


def require_expansion(path: Path, size: int, packed_size: int) -> None:
    """InputError if a gzip of `packed_size` bytes expands to more than is credible."""
    if size > FREE_EXPANSION + MAX_EXPANSION * packed_size:
        raise InputError(f"{path}: expected a gzip that expands at most {MAX_EXPANSION} times, found one with more")


def find_file(path: Path) -> Path | None:
    """The file of a path that was read from a text, as the disk spells its name; None if there is none.

    Texts are read in one spelling (`asrkd.unicode`). Names on the disk can have another one: archives made on macOS
    have, and names with typographic apostrophes.
    """
    return path if path.is_file() else next((one for one in _spellings(path) if one.is_file()), None)


def _spellings(path: Path) -> Iterator[Path]:
    """The existing paths whose cleaned names are those of `path`."""
    if path.exists() or path == path.parent:
        yield path
        return
    for folder in _spellings(path.parent):
        if folder.is_dir():
            for name in _names_in(folder, folder.stat().st_mtime_ns).get(clean(path.name), ()):
                yield folder / name


@lru_cache(maxsize=64)
def _names_in(folder: Path, mtime_ns: int) -> Mapping[str, Sequence[str]]:
    """Cleaned name -> names in a folder, which `mtime_ns` says to be unchanged."""
    names: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)) if os.access(folder, os.R_OK) else ():
        names.setdefault(clean(name), []).append(name)
    return names


def write_json(path: Path | str, obj: Any) -> None:
    """Write `obj` as JSON, whole or not at all."""
    text = json.dumps(canonical(obj), indent=1, ensure_ascii=False) + "\n"
    with atomic_file(Path(path)) as tmp_path:
        tmp_path.write_bytes(utf8(text))


def save_tensors(path: Path | str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and string metadata as one safetensors file, whole or not at all.

    OSError, with the file's name, if the system refuses the write (a full disk).
    """
    from safetensors.torch import save_file

    path = Path(path)
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # safetensors writes to a temporary file of its own, with a random name. In a separate folder, the next call
    # removes what a killed process left of it.
    tmp_dir = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(tmp_dir, ignore_errors=True)
    try:
        with naming(path):
            tmp_dir.mkdir()
            tmp_path = tmp_dir / path.name
            tmp_path.touch()
            mode = stat.S_IMODE(tmp_path.stat().st_mode)  # the mode that the umask gives a new file
            save_file(contiguous, str(tmp_path), metadata=dict(metadata))
            tmp_path.chmod(mode)  # safetensors makes its file readable by the owner alone
            _publish_file(tmp_path, path)
    except SafetensorError as error:
        raise _system_error(error, path) from error
    finally:
        shutil.rmtree(tmp_dir, ignore_errors=True)  # an error here would replace the first one


def _system_error(error: SafetensorError, path: Path | str) -> Exception:
    """The OSError, such as a full disk, that safetensors reports only in its message; otherwise the error itself."""
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
    except (SafetensorError, *DAMAGED) as error:
        raise InputError(f"{path}: expected a safetensors file, found a damaged one ({error})") from None


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path next to `path`, synced and renamed to it when the block ends without error."""
    tmp_path = path.with_name(f".{path.name}.partial")
    try:
        with naming(path):
            yield tmp_path
            _publish_file(tmp_path, path)
    finally:
        with suppress(OSError):  # an error here would replace the first one
            tmp_path.unlink(missing_ok=True)


def _publish_file(tmp_path: Path, path: Path) -> None:
    """Sync a file and rename it to `path`, replacing a file that exists there."""
    sync(tmp_path)
    os.replace(tmp_path, path)
    sync(path.parent)


# Names of torch's types by those of safetensors.
_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
}


def map_tensors(path: Path | str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """As `load_tensors`, for files that can be larger than the memory. Writing to these tensors ends the process.

    safetensors maps a file so that it could be written to, and a limit on the data of a process (`ulimit -d`) then
    counts all of it. These pages are read alone, and count as none.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with safe_open(str(path), framework="np"), path.open("rb") as file:  # it checks the header
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        metadata = header.pop("__metadata__", {})
        return {name: _mapped(mapped, 8 + length, entry) for name, entry in header.items()}, metadata
    except (SafetensorError, struct.error, *DAMAGED) as error:
        raise InputError(f"{path}: expected a safetensors file, found a damaged one ({error})") from None


def _mapped(mapped: mmap.mmap, data_begin: int, entry: Mapping[str, Any]) -> torch.Tensor:
    """A tensor of a mapped safetensors file, by its entry in the header."""
    import torch

    dtype, shape, (begin, end) = getattr(torch, _TYPES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
    if begin == end:
        return torch.empty(shape, dtype=dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        return torch.frombuffer(mapped, dtype=dtype, count=math.prod(shape), offset=data_begin + begin).view(shape)


@contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """An empty temporary folder next to `path`, synced and renamed to it when the block ends without error."""
    tmp_dir = path.with_name(f".{path.name}.partial")
    shutil.rmtree(tmp_dir, ignore_errors=True)
    with naming(path):
        tmp_dir.mkdir(parents=True)
        yield tmp_dir
        publish_dir(tmp_dir, path)


def publish_dir(tmp_dir: Path, path: Path) -> None:
    """Sync everything in `tmp_dir` and rename it to `path`, replacing a folder that exists there."""
    sync_tree(tmp_dir)
    if path.exists():
        # A folder cannot be renamed over one that is not empty: move the old one away first, then delete it.
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(path, old)
        os.replace(tmp_dir, path)
        shutil.rmtree(old)
    else:
        os.replace(tmp_dir, path)
    sync(path.parent)


def sync_tree(folder: Path) -> None:
    """Flush a folder and everything under it to the disk."""
    for file in sorted(folder.rglob("*")):
        sync(file)
    sync(folder)


def sync(path: Path) -> None:
    """Flush a file or folder to the disk, so that a rename never reaches it before the contents."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
