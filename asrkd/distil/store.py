"""The ensemble's posteriors at rest: soft targets by frame id, memory-mapped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from asrkd.distil.compression import (
    MAX_CLASSES,
    Compressed,
    Rows,
    StoreOptions,
    bytes_of_row,
    combined_logits,
    compress,
    expand,
)
from asrkd.distil.loss import SoftTargets
from asrkd.errors import InputError
from asrkd.files import fingerprint, map_tensors, read_object, reading, tensor_digest
from asrkd.nnet.ensembles import Ensemble
from asrkd.nnet.evaluate import CHUNK, iter_logits
from asrkd.nnet.inputs import InputSource, load_rows, take_rows
from asrkd.workflow.append_store import AppendStore, column_file, is_finished
from asrkd.workflow.executor import SERIAL, Executor
from asrkd.workflow.memory import release_freed_memory
from asrkd.workflow.task import Task, in_order

# Version of the files and of a row's layout. A store of another format is refused.
FORMAT = 3
INDEX_FILE = "store.json"
# The parts of `Compressed` and their types.
COLUMNS = {"pdf_ids": "int16", "levels": "uint8", "depth": "float16", "log_tail": "float16"}
STORE_FILES = (*map(column_file, COLUMNS), INDEX_FILE)

Span = tuple[int, int]
"""First frame, and the one after the last."""


class Utterances(Protocol):
    """The frames of a store: a FrameStore has these attributes."""

    @property
    def utt_ids(self) -> Sequence[str]: ...

    @property
    def offsets(self) -> Tensor:
        """First frame of each utterance, and the number of all frames, [N+1]."""
        ...

    @property
    def fingerprint(self) -> str: ...


@dataclass(frozen=True)
class StoreDescription:
    """What decides a store's contents."""

    options: StoreOptions
    teachers_fingerprint: str
    num_classes: int
    num_members: int
    classes_fingerprint: str
    """Of the senone tree."""
    utterances: Utterances

    @property
    def index(self) -> dict[str, Any]:
        """The store's index, without the fingerprint, which covers all of it."""
        return {
            "format": FORMAT,
            "options": asdict(self.options),
            "num_classes": self.num_classes,
            "num_members": self.num_members,
            "teachers_fingerprint": self.teachers_fingerprint,
            "frames_fingerprint": self.utterances.fingerprint,
            "classes_fingerprint": self.classes_fingerprint,
            "utt_ids": list(self.utterances.utt_ids),
            "offsets": self.utterances.offsets.tolist(),
        }


class StoredTargets:
    """Soft targets from rows of a store, by row number, at the temperatures that they were stored for."""

    def __init__(self, rows: Compressed, options: StoreOptions, fingerprint: str) -> None:
        self._rows = rows
        self.options = options
        self.fingerprint = fingerprint

    def __len__(self) -> int:
        """Number of frames."""
        return self._rows.pdf_ids.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self._rows.pdf_ids.device

    def targets(self, frame_ids: Tensor, temperature: float) -> SoftTargets:
        """Targets (pdf_ids [B, k], probs [B, k], tail [B]) of frame_ids [B].

        InputError: the store has no tails at `temperature`.
        """
        tail = self.tail_index(temperature)
        rows = Compressed(*(take_rows(part, frame_ids, part.device) for part in self._rows))
        return expand(rows, tail, temperature)

    def tail_index(self, temperature: float) -> int:
        """Which of the stored tails is that of `temperature`. InputError if there is none."""
        if temperature not in self.options.temperatures:
            raise InputError(
                f"posterior store {self.fingerprint}: expected a temperature its {self.options.mean} mean "
                f"is stored at, {self.options.temperatures}, found {temperature} (distil.targets online takes any)"
            )
        return self.options.temperatures.index(temperature)

    def has_targets(self) -> Tensor:
        """Whether each frame [T] has a target, bool: those of utterances without a lattice have none (NaN)."""
        return ~self._rows.depth[:, 0].isnan()

    @property
    def layout(self) -> tuple[StoreOptions, int]:
        """The options, and the number of stored classes: stores that agree in both can be joined."""
        return self.options, self._rows.pdf_ids.shape[1]

    def subset(self, ids: Tensor, device: torch.device) -> StoredTargets:
        """The rows of frames ids [n] alone, then numbered from 0, in the memory of `device`."""
        return StoredTargets(self.rows(ids, device), self.options, self.fingerprint)

    def rows(self, ids: Tensor, device: torch.device) -> Compressed:
        """The rows of frames ids [n] as they are stored, in the memory of `device`."""
        return Compressed(*(load_rows(part, ids, device) for part in self._rows))


class PosteriorStore(StoredTargets):
    """A store, memory-mapped: soft targets by global frame id."""

    def __init__(self, rows: Compressed, index: dict[str, Any]) -> None:
        options = index["options"]
        options = StoreOptions(options["top_k"], options["mean"], tuple(options["temperatures"]))
        super().__init__(rows, options, index["fingerprint"])
        self.utt_ids: tuple[str, ...] = tuple(index["utt_ids"])
        self.offsets = torch.tensor(index["offsets"], dtype=torch.long)
        self.num_classes: int = index["num_classes"]
        self.frames_fingerprint: str = index["frames_fingerprint"]
        self.classes_fingerprint: str = index["classes_fingerprint"]

    @classmethod
    def open(cls, path: Path | str) -> PosteriorStore:
        """The store that `write_store` wrote. InputError if it is missing, damaged or inconsistent."""
        path = Path(path)
        index = read_object(path / INDEX_FILE)
        if index.get("format") != FORMAT:
            raise InputError(
                f"{path}: expected posteriors of format {FORMAT}, found {index.get('format', 1)}: make them again"
            )
        parts = []
        for name in COLUMNS:
            tensors, metadata = map_tensors(path / column_file(name))
            if metadata.get("fingerprint") != index.get("fingerprint"):
                raise InputError(
                    f"{path / column_file(name)}: expected posteriors {index.get('fingerprint')}, "
                    f"found {metadata.get('fingerprint')}"
                )
            with reading(path / column_file(name), "posteriors"):
                parts.append(tensors[name])
        with reading(path / INDEX_FILE, "a posterior store's index"):
            store = cls(Compressed(*parts), index)
            _check_parts(store, parts)
        if any(len(part) != int(store.offsets[-1]) for part in parts):
            raise InputError(f"{path}: expected {int(store.offsets[-1])} frames, found {len(store)}")
        return store

    @property
    def bytes_per_frame(self) -> int:
        return bytes_of_row(self._rows.pdf_ids.shape[1], len(self.options.temperatures))

    @property
    def utt_ids_without_targets(self) -> list[str]:
        """Utterances whose rows are no targets: those of lattice targets without any path (their depth is NaN)."""
        first = self.offsets[:-1]
        missing = self._rows.depth[first.clamp(max=len(self) - 1), 0].isnan() & (first < self.offsets[1:])
        return [utt_id for utt_id, is_missing in zip(self.utt_ids, missing.tolist(), strict=True) if is_missing]

    def top_classes(self, begin: int, end: int) -> Tensor:
        """The most probable class [end - begin] of the frames begin … end-1, int64."""
        return self._rows.pdf_ids[begin:end, 0].long() & (MAX_CLASSES - 1)

    def require(self, frames_fingerprint: str, classes_fingerprint: str) -> None:
        """InputError unless the store was made of these frames and these classes (senone tree)."""
        for what, expected, found in (
            ("frames", frames_fingerprint, self.frames_fingerprint),
            ("senone tree", classes_fingerprint, self.classes_fingerprint),
        ):
            if expected != found:
                raise InputError(f"posterior store {self.fingerprint}: expected {what} {expected}, found {found}")


def _check_parts(store: PosteriorStore, parts: Sequence[Tensor]) -> None:
    """ValueError for columns of another type or width, and for utterances that lie in no order."""
    widths = (None, None, 1, len(store.options.temperatures))
    for part, (name, type_name), width in zip(parts, COLUMNS.items(), widths, strict=True):
        if part.dim() != 2 or str(part.dtype) != f"torch.{type_name}" or width not in (None, part.shape[1]):
            raise ValueError(f"{name} {part.dtype} {list(part.shape)}")
    if parts[0].shape[1] != parts[1].shape[1]:
        raise ValueError(f"{parts[0].shape[1]} classes and {parts[1].shape[1]} levels")
    if len(store.offsets) != len(store.utt_ids) + 1 or bool((store.offsets.diff() < 0).any()):
        raise ValueError(f"{len(store.utt_ids)} utterances, and offsets that do not fit them")
    texts = (store.fingerprint, store.frames_fingerprint, store.classes_fingerprint, *store.utt_ids)
    if not all(isinstance(text, str) for text in texts) or type(store.num_classes) is not int:
        raise ValueError("names of another type")


@dataclass(frozen=True)
class EnsemblePosteriors:
    """A task that makes the rows of spans of frames, by teachers and inputs in memory."""

    ensemble: Ensemble
    inputs: InputSource
    options: StoreOptions
    precision: str = "float32"
    """Arithmetic of the matrix products."""

    def describe(self, utterances: Utterances, classes_fingerprint: str) -> StoreDescription:
        """The store of these posteriors. InputError unless there is an input for each frame of the utterances."""
        num_frames = int(utterances.offsets[-1])
        if num_frames != len(self.inputs):
            raise InputError(f"posteriors: expected {num_frames} inputs, found {len(self.inputs)}")
        digests = [tensor_digest(one) for one in (*self.ensemble.parameters(), *self.ensemble.buffers())]
        return StoreDescription(
            self.options,
            fingerprint([self.precision, *digests]),
            self.ensemble.num_outputs,
            self.ensemble.num_members,
            classes_fingerprint,
            utterances,
        )

    def open(self) -> Callable[[Span], Rows]:
        return self.rows

    def rows(self, span: Span) -> Rows:
        """Rows of the frames of a span; its forward pass is one batch."""
        ids = torch.arange(*span)
        ((_, logits),) = iter_logits(self.ensemble, self.inputs, ids, max(1, len(ids)), self.precision)
        return compress(combined_logits(logits.float(), self.options), self.options).as_rows()


def chunks(num_frames: int, chunk: int = CHUNK) -> list[Span]:
    """Spans of `chunk` frames that cover all."""
    return [(begin, min(begin + chunk, num_frames)) for begin in range(0, num_frames, chunk)]


def write_store(
    path: Path | str,
    description: StoreDescription,
    task: Task[Span, Rows],
    spans: Sequence[Span] | None = None,
    executor: Executor = SERIAL,
    show_progress: bool = True,
) -> PosteriorStore:
    """Write the store of this description to the folder `path`, and open it.

    The task makes the rows of each span of frames: an `EnsemblePosteriors`, or one that opens it from files. `spans`
    lie end to end (`chunks` by default); the rows of a few of them are in memory at a time. The store appears whole or
    not at all, in place of what was at `path`. A writing that was killed is resumed, and a whole store of this
    description stays.
    """
    path, index = Path(path), description.index
    made_by = fingerprint(index)
    if is_finished(path / INDEX_FILE, made_by):
        return PosteriorStore.open(path)
    release_freed_memory()  # of what the process did before: those that make rows are forked from it
    with closing(AppendStore(path, made_by, COLUMNS)) as store:
        done = store.num_rows
        all_spans = chunks(index["offsets"][-1]) if spans is None else spans
        missing = [(max(begin, done), end) for begin, end in all_spans if end > done]
        rows = in_order(executor.map(task, missing))
        for columns in tqdm(rows, desc="posteriors", unit="chunk", total=len(missing), disable=not show_progress):
            store.append(columns)
        store.finish(INDEX_FILE, index)
    return PosteriorStore.open(path)
