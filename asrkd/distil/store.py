"""The ensemble's posteriors at rest: for each frame the k likeliest classes, and the mass of the others."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from asrkd.distil.ensemble import Mean, combine
from asrkd.distil.loss import SoftTargets
from asrkd.distil.store_file import INDEX_NAME, ORDER, TENSORS_NAME, Rows, Span, StoreFile
from asrkd.errors import InputError
from asrkd.files import fingerprint, load_tensors, read_json, tensor_digest, write_json
from asrkd.nnet.evaluate import CHUNK, iter_logits
from asrkd.nnet.inputs import InputSource, take
from asrkd.nnet.models import StackedEnsemble
from asrkd.workflow.map import SERIAL, Jobs, Work

MAX_CLASSES = 1 << 16
LEVELS = 255  # of a logit, in a byte
# Nats below the greatest logit at which a class counts as impossible, whatever the temperature: a dump may hold log 0.
DEEPEST = 1000.0
# What a row is made of; a store of another make is refused.
FORMAT = 2


@dataclass(frozen=True)
class StoreOptions:
    """What of the ensemble's posteriors is kept."""

    top_k: int = 28
    """Classes kept for each frame (3 bytes each)."""
    mean: Mean = "geometric"
    """How members are averaged. geometric (of logits) serves every temperature; arithmetic is made at one."""
    temperatures: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0)
    """Temperatures students can learn at (2 bytes a frame each); only one with the arithmetic mean."""

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise InputError(f"posteriors.top_k: expected at least 1, found {self.top_k}")
        if not self.temperatures or min(self.temperatures) <= 0:
            raise InputError(f"posteriors.temperatures: expected positive temperatures, found {self.temperatures}")
        if self.mean == "arithmetic" and len(self.temperatures) != 1:
            # Softmax at T of a mean of probabilities is not the mean of softmaxes at T.
            raise InputError(
                f"posteriors.temperatures: expected one temperature with the arithmetic mean, found {self.temperatures}"
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
    """Rows of a store.

    A kept class' logit, less the row's greatest, is -depth * (level / 255)^2: squares make the steps between levels
    finest where most of the mass is.
    """

    pdf_ids: Tensor
    """int16 [N, k]: bits of an unsigned 16-bit class number, likeliest first."""
    levels: Tensor
    """uint8 [N, k]: 0 is the likeliest class' logit, 255 the last one's that is kept."""
    depth: Tensor
    """float16 [N, 1]: from the greatest logit down to the last that is kept, nats."""
    log_tail: Tensor
    """float16 [N, temperatures]: log of the other classes' sum of exp(logit / T), logits less the row's greatest."""

    @property
    def logits(self) -> Tensor:
        """float32 [N, k], less the row's greatest, so at most 0."""
        return -self.depth.float() * (self.levels.float() / LEVELS).square()


def bytes_of_row(top_k: int, num_temperatures: int) -> int:
    """Bytes a frame takes in a store."""
    return 3 * top_k + 2 + 2 * num_temperatures


def compress(combined: Tensor, options: StoreOptions) -> Compressed:
    """Rows of the store for the ensemble's combined logits [N, S] (see `combined_logits`)."""
    num_classes = combined.shape[1]
    if num_classes > MAX_CLASSES:
        raise InputError(f"posteriors: expected at most {MAX_CLASSES} classes, found {num_classes}")
    relative = (combined - combined.amax(dim=1, keepdim=True)).clamp_(min=-DEEPEST)
    top = relative.topk(min(options.top_k, num_classes), dim=1)
    rest = relative.scatter(1, top.indices, -math.inf)
    log_tail = torch.stack([(rest / t).exp_().sum(dim=1).log() for t in options.temperatures], dim=1)
    depth = (-top.values[:, -1:]).half()
    # Against the depth as it is stored, so that its rounding is not added to that of the levels.
    share = -top.values / depth.float().clamp(min=torch.finfo(torch.float32).tiny)
    levels = share.sqrt_().mul_(LEVELS).round_().clamp_(max=LEVELS).to(torch.uint8)
    return Compressed(top.indices.to(torch.int16), levels, depth, log_tail.half())


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
    scaled = rows.logits / temperature
    log_tail = rows.log_tail[:, column].float()
    normaliser = torch.logaddexp(torch.logsumexp(scaled, dim=1), log_tail)
    probs = (scaled - normaliser.unsqueeze(1)).exp_()
    pdf_ids = rows.pdf_ids.long() & (MAX_CLASSES - 1)
    return SoftTargets(pdf_ids, probs, (log_tail - normaliser).exp_())


class StoredTargets:
    """Soft targets from rows of a store, by their number, at the temperatures they were made for."""

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

        InputError: the store is not kept at `temperature`.
        """
        if temperature not in self.options.temperatures:
            raise InputError(
                f"posterior store {self.fingerprint}: expected a temperature its {self.options.mean} mean "
                f"is kept at, {self.options.temperatures}, found {temperature}"
            )
        rows = Compressed(*(take(part, frame_ids, part.device) for part in self._rows))
        return expand(rows, self.options.temperatures.index(temperature), temperature)

    def part(self, ids: Tensor, device: torch.device) -> StoredTargets:
        """The rows of frames ids [n] alone, then numbered from 0, in the memory of `device`."""
        rows = Compressed(*(take(part, ids, device) for part in self._rows))
        return StoredTargets(rows, self.options, self.fingerprint)


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
        self._utt_index = {utt_id: position for position, utt_id in enumerate(self.utt_ids)}

    @classmethod
    def open(cls, path: Path | str) -> PosteriorStore:
        """The store that `write_store` wrote. InputError if it is missing, damaged or inconsistent."""
        path = Path(path)
        index = read_json(path / INDEX_NAME)
        if index.get("format") != FORMAT:
            raise InputError(
                f"{path}: expected posteriors of format {FORMAT}, found {index.get('format', 1)}: make them again"
            )
        tensors, metadata = load_tensors(path / TENSORS_NAME)
        if metadata.get("fingerprint") != index["fingerprint"]:
            raise InputError(f"{path}: expected posteriors {index['fingerprint']}, found {metadata.get('fingerprint')}")
        store = cls(Compressed(*(tensors[name] for name in ORDER)), index)
        if len(store) != int(store.offsets[-1]):
            raise InputError(f"{path}: expected {int(store.offsets[-1])} frames, found {len(store)}")
        return store

    @property
    def bytes_per_frame(self) -> int:
        return bytes_of_row(self._rows.pdf_ids.shape[1], len(self.options.temperatures))

    def require(self, frames_fingerprint: str, classes_fingerprint: str) -> None:
        """InputError unless the store was made of these frames and these classes (senone tree)."""
        for what, expected, found in (
            ("frames", frames_fingerprint, self.frames_fingerprint),
            ("senone tree", classes_fingerprint, self.classes_fingerprint),
        ):
            if expected != found:
                raise InputError(f"posterior store {self.fingerprint}: expected {what} {expected}, found {found}")

    def utt_targets(self, utt_id: str, temperature: float) -> SoftTargets:
        """Targets of every frame of an utterance."""
        if utt_id not in self._utt_index:
            raise InputError(f"{utt_id}: not in posterior store {self.fingerprint}")
        begin, end = self.offsets[self._utt_index[utt_id] :][:2].tolist()
        return self.targets(torch.arange(begin, end), temperature)


@dataclass(frozen=True)
class EnsemblePosteriors:
    """The rows of spans of frames, as the teachers together have them."""

    ensemble: StackedEnsemble
    inputs: InputSource
    options: StoreOptions
    precision: str = "float32"
    """Arithmetic of the matrix products."""

    def open(self) -> Callable[[Span], Rows]:
        return self.rows

    def rows(self, span: Span) -> Rows:
        """Rows of the frames of a span; its forward pass is one batch."""
        ids = torch.arange(*span)
        ((_, logits),) = iter_logits(self.ensemble, self.inputs, ids, max(1, len(ids)), self.precision)
        return as_rows(compress(combined_logits(logits.float(), self.options), self.options))


def as_rows(compressed: Compressed) -> Rows:
    """The same as numpy arrays, which a pipe carries as bytes."""
    pdf_ids, levels, depth, log_tail = (part.cpu().numpy() for part in compressed)
    return pdf_ids, levels, depth, log_tail


def write_store(
    path: Path | str,
    ensemble: StackedEnsemble,
    inputs: InputSource,
    utterances: Utterances,
    classes_fingerprint: str,
    options: StoreOptions,
    chunk: int = CHUNK,
    show_progress: bool = True,
    jobs: Jobs = SERIAL,
    elsewhere: Work[Span, Rows] | None = None,
    precision: str = "float32",
) -> PosteriorStore:
    """Write the ensemble's posteriors of every frame of `inputs` into the folder `path`, and open them.

    Teachers' forward pass, averaging and top-k go chunk by chunk; nothing dense outlives a chunk. The store
    appears whole or not at all; a writing that was cut short goes on where it stopped. On a cluster, the chunks are
    made by `elsewhere`, which finds the same teachers and inputs by their paths.
    """
    path = Path(path)
    num_frames = len(inputs)
    if int(utterances.offsets[-1]) != num_frames:
        raise InputError(f"{path}: expected {int(utterances.offsets[-1])} inputs, found {num_frames}")
    teachers = fingerprint([precision, *(tensor_digest(parameter) for parameter in ensemble.parameters())])
    shape = (ensemble.num_outputs, ensemble.num_members)
    index = describe_store(teachers, *shape, utterances, classes_fingerprint, options)
    spans = [(begin, min(begin + chunk, num_frames)) for begin in range(0, num_frames, chunk)]
    work = elsewhere or EnsemblePosteriors(ensemble, inputs, options, precision)
    return fill_store(path, index, spans, lambda missing: jobs.map(work, missing), show_progress)


def fill_store(
    path: Path,
    index: dict[str, Any],
    spans: Sequence[Span],
    rows_of: Callable[[Sequence[Span]], Iterable[tuple[int, Rows]]],
    show_progress: bool = True,
) -> PosteriorStore:
    """Write a store as `describe_store` describes it: the rows of each span of frames, in any order.

    `spans` lie end to end. rows_of(spans) -> (number of a span, its rows) is asked for those that an earlier
    writing, cut short, has not left.
    """
    if (path / INDEX_NAME).is_file() and read_json(path / INDEX_NAME) == json.loads(json.dumps(index)):
        return PosteriorStore.open(path)  # made before what comes after it was cut short
    options = index["options"]
    top_k = min(options["top_k"], index["num_classes"])
    file = StoreFile(path, index["fingerprint"], index["offsets"][-1], top_k, len(options["temperatures"]))
    missing = [span for span in spans if span[1] > file.done]
    ended: set[int] = set()
    written = 0
    bar = tqdm(rows_of(missing), desc="posteriors", unit="chunk", total=len(missing), disable=not show_progress)
    for number, rows in bar:
        file.put(missing[number][0], rows)
        ended.add(number)
        while written in ended:
            written += 1
            file.note(missing[written - 1][1])
    file.finish()
    # The index goes last: a folder without it is no store.
    write_json(path / INDEX_NAME, index)
    file.clear_progress()
    return PosteriorStore.open(path)


def store_report(
    ensemble: StackedEnsemble,
    inputs: InputSource,
    options: StoreOptions,
    top_ks: Sequence[int] = (7, 14, 28, 56),
    ids: Tensor | None = None,
    chunk: int = CHUNK,
) -> list[dict[str, Any]]:
    """What a store costs and loses: a row for each k, the options' own among them, and temperature.

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
    names = ("kl_to_dense", "kl_lumped", "tail")
    return [
        {
            "top_k": top_k,
            "temperature": temperature,
            "bytes_per_frame": bytes_of_row(top_k, len(options.temperatures)),
            **dict(zip(names, (total / count).tolist(), strict=True)),
            "chosen": top_k == min(options.top_k, ensemble.num_outputs),
        }
        for (top_k, temperature), total in sums.items()
    ]


def _each_top_k(combined: Tensor, options: StoreOptions, top_ks: Sequence[int]) -> Iterator[tuple[int, Compressed]]:
    for top_k in sorted({min(k, combined.shape[1]) for k in (*top_ks, options.top_k)}):
        yield top_k, compress(combined, StoreOptions(top_k, options.mean, options.temperatures))


def _losses(dense: Tensor, stored: SoftTargets) -> Tensor:
    """Sums over frames of (KL to the tail spread evenly, KL with the tail as one class, tail mass)."""
    assert stored.pdf_ids is not None
    assert stored.tail is not None
    tiny = torch.finfo(torch.float32).tiny
    num_others = max(1, dense.shape[1] - stored.pdf_ids.shape[1])
    log_tail = stored.tail.double().clamp(min=tiny).log()
    log_probs = stored.probs.double().clamp(min=tiny).log()
    spread = (log_tail - math.log(num_others)).unsqueeze(1).expand_as(dense).scatter(1, stored.pdf_ids, log_probs)
    kl_spread = (dense.exp() * (dense - spread)).sum()
    top = dense.gather(1, stored.pdf_ids)
    dense_tail = dense.exp().scatter(1, stored.pdf_ids, 0.0).sum(dim=1)
    kl_top = (top.exp() * (top - log_probs)).sum()
    kl_tail = (dense_tail * (dense_tail.clamp(min=tiny).log() - log_tail)).sum()
    return torch.stack([kl_spread, kl_top + kl_tail, stored.tail.double().sum()]).cpu()


def describe_store(
    teachers_fingerprint: str,
    num_classes: int,
    num_members: int,
    utterances: Utterances,
    classes_fingerprint: str,
    options: StoreOptions,
) -> dict[str, Any]:
    """What the store says of itself; its fingerprint covers teachers, frames, classes and options."""
    index: dict[str, Any] = {
        "format": FORMAT,
        "options": asdict(options),
        "num_classes": num_classes,
        "num_members": num_members,
        "teachers_fingerprint": teachers_fingerprint,
        "frames_fingerprint": utterances.fingerprint,
        "classes_fingerprint": classes_fingerprint,
        "utt_ids": list(utterances.utt_ids),
        "offsets": utterances.offsets.tolist(),
    }
    index["fingerprint"] = fingerprint(index)
    return index
