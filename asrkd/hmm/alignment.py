"""An alignment: the phone and the HMM state of each frame."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from asrkd.data.transcripts import SILENCE
from asrkd.errors import InputError
from asrkd.files import DAMAGED, fingerprint, map_tensors, save_tensors
from asrkd.hmm.topology import NUM_STATES, SILENCE_ID
from asrkd.hmm.tree import SenoneTree
from asrkd.workflow.memory import SHARD_FRAMES, new_tensor, spans, utterance_shards


class Columns(NamedTuple):
    """What an alignment has of each of T frames."""

    phone_id: Tensor
    """[T] int16."""
    state: Tensor
    """[T] int8."""
    segment: Tensor
    """[T] int32."""

    @staticmethod
    def create(num_frames: int, folder: Path | None) -> Columns:
        """Columns to fill: in memory without a folder, else on the disk of that folder."""
        types = (torch.int16, torch.int8, torch.int32)
        return Columns(*(new_tensor((num_frames,), dtype, folder) for dtype in types))

    def rows(self, frames: slice) -> Columns:
        """The columns of these frames alone, views."""
        return Columns(*(column[frames] for column in self))


class Segment(NamedTuple):
    """One phone as spoken, with its times in seconds."""

    phone: str
    start_sec: float
    end_sec: float


@dataclass(frozen=True, eq=False)
class Alignment:
    """The T frames of N utterances, aligned. ValueError where the lengths disagree or phone 0 is not silence.

    The frames may be on the disk (mapped, as `load` leaves them). What is computed of every frame is computed for one
    of the `shards` after the other.
    """

    utt_ids: tuple[str, ...]
    """[N] the utterances that could be aligned, in the order of the frame store."""
    offsets: Tensor
    """[N + 1] int64: utterance n has the frames offsets[n] to offsets[n + 1] - 1."""
    phone_id: Tensor
    """[T] int16: index into `phones`."""
    state: Tensor
    """[T] int8: HMM state of the phone, from 0."""
    segment: Tensor
    """[T] int32: which phone of its utterance a frame belongs to, counted from 0."""
    phones: tuple[str, ...]
    """Names of phones, silence first."""
    store_fingerprint: str
    """Of the frame store that was aligned."""
    log_like: Tensor
    """[N] float64: acoustic and transition log-likelihood of each utterance's best path, nats; NaN before any model."""
    log_like_rounds: tuple[float, ...] = ()
    """Acoustic and transition log-likelihood per frame (nats), one value per round of training."""
    wider_beam_rounds: tuple[int, ...] = ()
    """Utterances of each of these rounds whose best path the first search lost and a wider one gave."""
    rejected: Mapping[str, str] = field(default_factory=dict)
    """utt_id -> why it could not be aligned."""

    def __post_init__(self) -> None:
        lengths = {self.phone_id.numel(), self.state.numel(), self.segment.numel(), int(self.offsets[-1])}
        if len(lengths) != 1 or self.offsets.numel() != len(self.utt_ids) + 1:
            raise ValueError(
                f"alignment: expected a phone, state and segment per frame of {len(self.utt_ids)} utterances, "
                f"found lengths {sorted(lengths)} and {self.offsets.numel()} offsets"
            )
        if self.log_like.shape != (len(self.utt_ids),) or self.log_like.dtype != torch.float64:
            raise ValueError(
                f"alignment: expected a float64 log-likelihood for each of {len(self.utt_ids)} utterances, "
                f"found {self.log_like.dtype} {list(self.log_like.shape)}"
            )
        if self.phones[:1] != (SILENCE,):
            raise ValueError(f"alignment: expected {SILENCE} as phone 0, found {self.phones[:1]}")
        if int(self.offsets[0]) != 0 or bool((self.offsets.diff() < 0).any()):
            raise ValueError("alignment: expected offsets that begin at 0 and never fall")
        limits = (("phone", self.phone_id, len(self.phones)), ("state", self.state, NUM_STATES))
        for name, values, limit in limits:
            if len(values) and not 0 <= int(values.min()) <= int(values.max()) < limit:
                raise ValueError(
                    f"alignment: expected each {name} in [0, {limit}), found {values.min()}..{values.max()}"
                )

    def __len__(self) -> int:
        """Number of frames."""
        return self.phone_id.numel()

    @property
    def log_like_per_frame(self) -> float:
        """Log-likelihood per frame of the last round, nats."""
        return self.log_like_rounds[-1]

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the labels and with the frames that they are for."""
        labels = hashlib.sha256()
        for column in (self.phone_id, self.state, self.segment):
            for frames in spans(len(self)):
                labels.update(column[frames].int().numpy().tobytes())
        return fingerprint(
            [
                self.store_fingerprint,
                list(self.utt_ids),
                list(self.phones),
                labels.hexdigest(),
            ]
        )

    def shards(self, max_frames: int = SHARD_FRAMES) -> Iterator[Alignment]:
        """The alignment in parts of whole utterances, of at most so many frames unless one utterance has more."""
        for first, after in utterance_shards(self.offsets, max_frames):
            frames = slice(int(self.offsets[first]), int(self.offsets[after]))
            yield replace(
                self,
                utt_ids=self.utt_ids[first:after],
                offsets=self.offsets[first : after + 1] - self.offsets[first],
                phone_id=self.phone_id[frames],
                state=self.state[frames],
                segment=self.segment[frames],
                log_like=self.log_like[first:after],
                rejected={},
            )

    def segment_starts(self) -> Tensor:
        """Frames [K] int64 at which a phone begins, utterance after utterance."""
        return self._changes(self.segment)

    def visit_starts(self) -> Tensor:
        """Frames [V] int64 at which an HMM state is entered."""
        return self._changes(self.segment * torch.iinfo(torch.int8).max + self.state)

    def _changes(self, values: Tensor) -> Tensor:
        starts = torch.ones(len(self), dtype=torch.bool)
        starts[1:] = values[1:] != values[:-1]
        starts[self.offsets[:-1]] = True
        return starts.nonzero().squeeze(1)

    def triphones(self) -> tuple[Tensor, Tensor, Tensor]:
        """Left neighbour, phone and right neighbour of each frame, [T] int64 each.

        The neighbour beyond either end of an utterance is silence.
        """
        starts = self.segment_starts()
        phone = self.phone_id[starts].long()
        first = torch.isin(starts, self.offsets)
        left, right = torch.zeros_like(phone), torch.zeros_like(phone)
        left[1:] = phone[:-1].masked_fill(first[1:], SILENCE_ID)
        right[:-1] = phone[1:].masked_fill(first[1:], SILENCE_ID)
        lengths = torch.diff(starts, append=torch.tensor([len(self)]))
        left, phone, right = (x.repeat_interleave(lengths) for x in (left, phone, right))
        return left, phone, right

    def pdf_ids(self, tree: SenoneTree, folder: Path | None = None) -> Tensor:
        """Senone [T] int64 of each frame, on the disk of a folder where one is given.

        InputError if the tree has other phones.
        """
        if tree.phones != self.phones:
            raise InputError(
                f"senone tree: expected the alignment's {len(self.phones)} phones, found {len(tree.phones)}"
            )
        pdf_ids = new_tensor((len(self),), torch.long, folder)
        done = 0
        for shard in self.shards():
            pdf_ids[done : done + len(shard)] = tree.pdf_ids(*shard.triphones(), shard.state)
            done += len(shard)
        return pdf_ids

    def span(self, utt_id: str) -> slice:
        """The frames of one utterance. InputError for an utterance that is not in the alignment."""
        index = self._index.get(utt_id)
        if index is None:
            raise InputError(f"{utt_id}: not aligned ({self.rejected.get(utt_id, 'no such utterance')})")
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    @cached_property
    def _index(self) -> dict[str, int]:
        return {utt_id: index for index, utt_id in enumerate(self.utt_ids)}

    def segments(self, utt_id: str, frame_shift_ms: float) -> list[Segment]:
        """The phones of an utterance and their times. InputError for an utterance that is not in the alignment.

        Frame t is centred on (t + 1/2) · shift, because Lhotse pads the ends of an utterance instead of cutting them.
        The boundary before frame t lies half-way between two centres, at t · shift.
        """
        span = self.span(utt_id)
        phone_id, segment = self.phone_id[span], self.segment[span]
        _, lengths = torch.unique_consecutive(segment, return_counts=True)
        ends = lengths.cumsum(0)
        starts = ends - lengths
        shift_sec = frame_shift_ms / 1000.0
        return [
            Segment(self.phones[int(phone_id[start])], int(start) * shift_sec, int(end) * shift_sec)
            for start, end in zip(starts, ends, strict=True)
        ]

    def save(self, path: Path | str) -> None:
        """Write as safetensors."""
        content = {
            "utt_ids": list(self.utt_ids),
            "phones": list(self.phones),
            "store_fingerprint": self.store_fingerprint,
            "log_like_rounds": list(self.log_like_rounds),
            "wider_beam_rounds": list(self.wider_beam_rounds),
            "rejected": dict(self.rejected),
        }
        tensors = {
            "offsets": self.offsets,
            "phone_id": self.phone_id.to(torch.int16),
            "state": self.state.to(torch.int8),
            "segment": self.segment.to(torch.int32),
            "log_like": self.log_like,
        }
        save_tensors(path, tensors, {"alignment": json.dumps(content)})

    @staticmethod
    def load(path: Path | str) -> Alignment:
        """Read what `save` wrote; InputError if it is something else."""
        tensors, metadata = map_tensors(path)
        try:
            content = json.loads(metadata["alignment"])
            return Alignment(
                utt_ids=tuple(content["utt_ids"]),
                phones=tuple(content["phones"]),
                store_fingerprint=content["store_fingerprint"],
                log_like_rounds=tuple(content["log_like_rounds"]),
                wider_beam_rounds=tuple(content["wider_beam_rounds"]),
                rejected=content["rejected"],
                **tensors,
            )
        except DAMAGED as error:
            raise InputError(f"{path}: expected an alignment, found something else ({error!r})") from None
