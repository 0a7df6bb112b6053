"""The ensemble's posteriors at rest: for each frame the k likeliest classes, and the mass of the others."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from asrkd.distil.ensemble import Mean, combine
from asrkd.distil.loss import SoftTargets
from asrkd.errors import InputError
from asrkd.files import fingerprint, load_tensors, read_json, sync, write_json
from asrkd.models import StackedEnsemble
from asrkd.train.evaluate import CHUNK, iter_logits
from asrkd.train.inputs import InputSource, tensor_digest

TENSORS_NAME = "posteriors.safetensors"
INDEX_NAME = "store.json"
PROGRESS_NAME = "progress.json"
MAX_CLASSES = 1 << 16
# Frames between two notes of how far the writing has come.
FLUSH_FRAMES = 1 << 17

# (name, safetensors type, numpy type, shape) of each tensor of a store, in the file's order.
Layout = list[tuple[str, str, np.dtype, tuple[int, int]]]


@dataclass(frozen=True)
class StoreOptions:
    """What of the ensemble's posteriors is kept."""

    top_k: int = 20
    """Classes kept for each frame (4 bytes each)."""
    mean: Mean = "geometric"
    """How members are averaged. geometric (of logits) serves every temperature; arithmetic is made at one."""
    temperatures: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0)
    """Temperatures students can learn at (4 bytes a frame each); only one with the arithmetic mean."""

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise InputError(f"posteriors.top_k: expected at least 1, found {self.top_k}")
        if not self.temperatures or min(self.temperatures) <= 0:
            raise InputError(
                f"posteriors.temperatures: expected positive temperatures, found {self.temperatures}"
            )
        if self.mean == "arithmetic" and len(self.temperatures) != 1:
            # Softmax at T of a mean of probabilities is not the mean of softmaxes at T.
            raise InputError(
                "posteriors.temperatures: expected one temperature with the arithmetic mean, "
                f"found {self.temperatures}"
            )


class Utterances(Protocol):
    """What a store needs to know of the frames it answers for, as FrameStore tells it."""

    @property
    def utt_ids(self) -> Sequence[str]: ...

    @property
    def offsets(self) -> Tensor:
        """First frame of each utterance, and the number of all frames, [N+1]."""
        ...

    @property
    def fingerprint(self) -> str: ...


class Compressed(NamedTuple):
    """Rows of a store."""

    pdf_ids: Tensor
    """int16 [N, k]: bits of an unsigned 16-bit class number, likeliest first."""
    logits: Tensor
    """float16 [N, k]: combined logits less the row's greatest, so at most 0."""
    log_tail: Tensor
    """float32 [N, temperatures]: log of the other classes' sum of exp(logit / T), logits as above."""


def compress(combined: Tensor, options: StoreOptions) -> Compressed:
    """Rows of the store for the ensemble's combined logits [N, S] (see `combined_logits`)."""
    num_classes = combined.shape[1]
    if num_classes > MAX_CLASSES:
        raise InputError(f"posteriors: expected at most {MAX_CLASSES} classes, found {num_classes}")
    relative = combined - combined.amax(dim=1, keepdim=True)
    top = relative.topk(min(options.top_k, num_classes), dim=1)
    rest = relative.scatter(1, top.indices, -math.inf)
    log_tail = torch.stack([(rest / t).exp_().sum(dim=1).log() for t in options.temperatures], dim=1)
    return Compressed(top.indices.to(torch.int16), top.values.half(), log_tail.float())


def combined_logits(logits: Tensor, options: StoreOptions) -> Tensor:
    """[N, S], from members' logits [M, N, S], whose softmax at a kept temperature is the mean at it."""
    if options.mean == "geometric":
        return logits.mean(dim=0)
    (temperature,) = options.temperatures
    return combine(logits, temperature, "arithmetic") * temperature


def expand(rows: Compressed, column: int, temperature: float) -> SoftTargets:
    """Targets at `temperature`, whose tails are in `column` of log_tail.

    One normaliser over the rounded logits and the tail, so that the probabilities and the tail sum to one.
    """
    scaled = rows.logits.float() / temperature
    log_tail = rows.log_tail[:, column]
    normaliser = torch.logaddexp(torch.logsumexp(scaled, dim=1), log_tail)
    probs = (scaled - normaliser.unsqueeze(1)).exp_()
    pdf_ids = rows.pdf_ids.long() & (MAX_CLASSES - 1)
    return SoftTargets(pdf_ids, probs, (log_tail - normaliser).exp_())


class PosteriorStore:
    """A store, memory-mapped: soft targets by global frame id, at the temperatures it was made for."""

    def __init__(self, rows: Compressed, index: dict[str, Any]) -> None:
        self._rows = rows
        options = index["options"]
        self.options = StoreOptions(options["top_k"], options["mean"], tuple(options["temperatures"]))
        self.utt_ids: tuple[str, ...] = tuple(index["utt_ids"])
        self.offsets = torch.tensor(index["offsets"], dtype=torch.long)
        self.num_classes: int = index["num_classes"]
        self.frames_fingerprint: str = index["frames_fingerprint"]
        self.classes_fingerprint: str = index["classes_fingerprint"]
        self.fingerprint: str = index["fingerprint"]
        self._utt_index = {utt_id: position for position, utt_id in enumerate(self.utt_ids)}

    @classmethod
    def open(cls, path: Path | str) -> PosteriorStore:
        """The store that `write_store` wrote. InputError if it is missing, damaged or inconsistent."""
        path = Path(path)
        index = read_json(path / INDEX_NAME)
        tensors, metadata = load_tensors(path / TENSORS_NAME)
        if metadata.get("fingerprint") != index["fingerprint"]:
            raise InputError(
                f"{path}: expected posteriors {index['fingerprint']}, found {metadata.get('fingerprint')}"
            )
        store = cls(Compressed(tensors["pdf_ids"], tensors["logits"], tensors["log_tail"]), index)
        if len(store) != int(store.offsets[-1]):
            raise InputError(f"{path}: expected {int(store.offsets[-1])} frames, found {len(store)}")
        return store

    def __len__(self) -> int:
        """Number of frames."""
        return self._rows.pdf_ids.shape[0]

    @property
    def bytes_per_frame(self) -> int:
        return sum(part.shape[1] * part.element_size() for part in self._rows)

    def require(self, frames_fingerprint: str, classes_fingerprint: str) -> None:
        """InputError unless the store was made of these frames and these classes (senone tree)."""
        for what, expected, found in (
            ("frames", frames_fingerprint, self.frames_fingerprint),
            ("senone tree", classes_fingerprint, self.classes_fingerprint),
        ):
            if expected != found:
                raise InputError(
                    f"posterior store {self.fingerprint}: expected {what} {expected}, found {found}"
                )

    def targets(self, frame_ids: Tensor, temperature: float) -> SoftTargets:
        """Targets (pdf_ids [B, k], probs [B, k], tail [B]) of frame_ids [B].

        InputError: the store is not kept at `temperature`.
        """
        if temperature not in self.options.temperatures:
            raise InputError(
                f"posterior store {self.fingerprint}: expected a temperature its {self.options.mean} mean "
                f"is kept at, {self.options.temperatures}, found {temperature}"
            )
        ids = frame_ids.to(self._rows.pdf_ids.device)
        rows = Compressed(*(part.index_select(0, ids) for part in self._rows))
        return expand(rows, self.options.temperatures.index(temperature), temperature)

    def utt_targets(self, utt_id: str, temperature: float) -> SoftTargets:
        """Targets of every frame of an utterance."""
        if utt_id not in self._utt_index:
            raise InputError(f"{utt_id}: not in posterior store {self.fingerprint}")
        begin, end = self.offsets[self._utt_index[utt_id] :][:2].tolist()
        return self.targets(torch.arange(begin, end), temperature)


def write_store(
    path: Path | str,
    ensemble: StackedEnsemble,
    inputs: InputSource,
    utterances: Utterances,
    classes_fingerprint: str,
    options: StoreOptions,
    chunk: int = CHUNK,
    show_progress: bool = True,
) -> PosteriorStore:
    """Write the ensemble's posteriors of every frame of `inputs` into the folder `path`, and open them.

    Teachers' forward pass, averaging and top-k go chunk by chunk; nothing dense outlives a chunk. The store
    appears whole or not at all; a writing that was cut short goes on where it stopped.
    """
    path = Path(path)
    num_frames = len(inputs)
    if int(utterances.offsets[-1]) != num_frames:
        raise InputError(f"{path}: expected {int(utterances.offsets[-1])} inputs, found {num_frames}")
    index = _describe(ensemble, utterances, classes_fingerprint, options)
    layout = _layout(num_frames, min(options.top_k, ensemble.num_outputs), len(options.temperatures))
    partial = path / f"{TENSORS_NAME}.partial"
    done = _resume(path, partial, index["fingerprint"], layout)
    arrays = _map_tensors(partial, index["fingerprint"], layout)
    starts = range(done, num_frames, chunk)
    noted = done
    for begin in tqdm(starts, desc="posteriors", unit="chunk", disable=not show_progress):
        end = min(begin + chunk, num_frames)
        for ids, logits in iter_logits(ensemble, inputs, torch.arange(begin, end), chunk):
            rows = compress(combined_logits(logits.float(), options), options)
            for array, part in zip(arrays, rows, strict=True):
                array[int(ids[0]) : int(ids[-1]) + 1] = part.cpu().numpy()
        if end - noted >= FLUSH_FRAMES:
            _flush(partial, arrays)
            write_json(path / PROGRESS_NAME, {"fingerprint": index["fingerprint"], "done": end})
            noted = end
    _flush(partial, arrays)
    del arrays
    # The index goes last: a folder without it is no store.
    os.replace(partial, path / TENSORS_NAME)
    write_json(path / INDEX_NAME, index)
    (path / PROGRESS_NAME).unlink()
    return PosteriorStore.open(path)


def store_report(
    ensemble: StackedEnsemble,
    inputs: InputSource,
    options: StoreOptions,
    top_ks: Sequence[int] = (5, 10, 20, 40),
    ids: Tensor | None = None,
    chunk: int = CHUNK,
) -> list[dict[str, Any]]:
    """What a store costs and loses: a row for each k and temperature.

    kl_to_dense is KL(dense || stored) in nats a frame, the stored tail spread evenly over the other classes;
    kl_lumped counts the tail as one class, as the objective does: what rounding loses. tail is its mean mass.
    """
    sums: dict[tuple[int, float], Tensor] = {}
    count = 0
    for part_ids, logits in iter_logits(ensemble, inputs, ids, chunk):
        combined = combined_logits(logits.float(), options)
        count += len(part_ids)
        for top_k, rows in _each_top_k(combined, options, top_ks):
            for column, temperature in enumerate(options.temperatures):
                dense = torch.log_softmax(combined.double() / temperature, dim=1)
                losses = _losses(dense, expand(rows, column, temperature))
                key = (top_k, temperature)
                sums[key] = sums.get(key, torch.zeros(3, dtype=torch.float64)) + losses
    temperature_bytes = 4 * len(options.temperatures)
    names = ("kl_to_dense", "kl_lumped", "tail")
    return [
        {
            "top_k": top_k,
            "temperature": temperature,
            "bytes_per_frame": 4 * top_k + temperature_bytes,
            **dict(zip(names, (total / count).tolist(), strict=True)),
            "chosen": top_k == options.top_k,
        }
        for (top_k, temperature), total in sums.items()
    ]


def _each_top_k(
    combined: Tensor, options: StoreOptions, top_ks: Sequence[int]
) -> Iterator[tuple[int, Compressed]]:
    for top_k in sorted({min(k, combined.shape[1]) for k in top_ks}):
        yield top_k, compress(combined, StoreOptions(top_k, options.mean, options.temperatures))


def _losses(dense: Tensor, stored: SoftTargets) -> Tensor:
    """Sums over frames of (KL to the tail spread evenly, KL with the tail as one class, tail mass)."""
    assert stored.pdf_ids is not None
    assert stored.tail is not None
    tiny = torch.finfo(torch.float32).tiny
    num_others = max(1, dense.shape[1] - stored.pdf_ids.shape[1])
    log_tail = stored.tail.double().clamp(min=tiny).log()
    log_probs = stored.probs.double().clamp(min=tiny).log()
    spread = (
        (log_tail - math.log(num_others)).unsqueeze(1).expand_as(dense).scatter(1, stored.pdf_ids, log_probs)
    )
    kl_spread = (dense.exp() * (dense - spread)).sum()
    top = dense.gather(1, stored.pdf_ids)
    dense_tail = dense.exp().scatter(1, stored.pdf_ids, 0.0).sum(dim=1)
    kl_top = (top.exp() * (top - log_probs)).sum()
    kl_tail = (dense_tail * (dense_tail.clamp(min=tiny).log() - log_tail)).sum()
    return torch.stack([kl_spread, kl_top + kl_tail, stored.tail.double().sum()]).cpu()


def _describe(
    ensemble: StackedEnsemble, utterances: Utterances, classes_fingerprint: str, options: StoreOptions
) -> dict[str, Any]:
    """What the store says of itself; its fingerprint covers teachers, frames, classes and options."""
    index: dict[str, Any] = {
        "options": asdict(options),
        "num_classes": ensemble.num_outputs,
        "num_members": ensemble.num_members,
        "teachers_fingerprint": fingerprint(
            [tensor_digest(parameter) for parameter in ensemble.parameters()]
        ),
        "frames_fingerprint": utterances.fingerprint,
        "classes_fingerprint": classes_fingerprint,
        "utt_ids": list(utterances.utt_ids),
        "offsets": utterances.offsets.tolist(),
    }
    index["fingerprint"] = fingerprint(index)
    return index


def _resume(path: Path, partial: Path, made_by: str, layout: Layout) -> int:
    """Frames already written in `partial` by the same making; 0 after starting the file anew."""
    progress_path = path / PROGRESS_NAME
    if progress_path.is_file() and partial.is_file():
        progress = read_json(progress_path)
        if progress["fingerprint"] == made_by:
            return int(progress["done"])
    path.mkdir(parents=True, exist_ok=True)
    for stale in (progress_path, path / INDEX_NAME):
        stale.unlink(missing_ok=True)
    header, size = _header(made_by, layout)
    with open(partial, "wb") as file:
        file.write(header)
        # Taken now, so that a full disk is an error here and not a crash in a memory map later.
        os.posix_fallocate(file.fileno(), 0, len(header) + size)
    write_json(progress_path, {"fingerprint": made_by, "done": 0})
    return 0


def _layout(num_frames: int, top_k: int, num_temperatures: int) -> Layout:
    """The tensors in the file's order: widest values first, so that each tensor is aligned."""
    return [
        ("log_tail", "F32", np.dtype(np.float32), (num_frames, num_temperatures)),
        ("logits", "F16", np.dtype(np.float16), (num_frames, top_k)),
        ("pdf_ids", "I16", np.dtype(np.int16), (num_frames, top_k)),
    ]


def _header(made_by: str, layout: Layout) -> tuple[bytes, int]:
    """Header of a safetensors file of the layout, and the bytes that follow it.

    Written by hand because the library wants whole tensors in memory, and a store may exceed that.
    """
    entries: dict[str, Any] = {"__metadata__": {"fingerprint": made_by}}
    position = 0
    for name, type_name, dtype, shape in layout:
        end = position + math.prod(shape) * dtype.itemsize
        entries[name] = {"dtype": type_name, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, position


def _map_tensors(partial: Path, made_by: str, layout: Layout) -> list[np.memmap]:
    """Writable maps of pdf_ids, logits and log_tail: the order of Compressed."""
    position = len(_header(made_by, layout)[0])
    maps = {}
    for name, _, dtype, shape in layout:
        maps[name] = np.memmap(partial, dtype=dtype, mode="r+", offset=position, shape=shape)
        position += math.prod(shape) * dtype.itemsize
    return [maps[name] for name in Compressed._fields]


def _flush(partial: Path, arrays: list[np.memmap]) -> None:
    for array in arrays:
        array.flush()
    sync(partial)
