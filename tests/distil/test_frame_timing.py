"""Posteriors at another frame shift: where their rows lie, and what stands between them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_posteriors import Frames

from asrkd.distil.compression import StoreOptions
from asrkd.distil.external_teacher import TrainingFrames, import_posteriors
from asrkd.distil.frame_timing import FrameTiming
from asrkd.errors import InputError

ROWS = torch.tensor([[0.0, 9.0], [3.0, 6.0], [6.0, 0.0]])


def test_rows_by_hand() -> None:
    between = FrameTiming(3, "interpolate", offset=1).fitted(ROWS, 8)
    torch.testing.assert_close(between.T, torch.tensor([[0.0, 0, 1, 2, 3, 4, 5, 6], [9.0, 9, 8, 7, 6, 4, 2, 0]]))
    repeated = FrameTiming(3, "repeat", offset=1).fitted(ROWS, 8)
    assert repeated[:, 0].tolist() == [0, 0, 0, 3, 3, 3, 6, 6]
    assert FrameTiming(3, "repeat", offset=0).nearest(ROWS, 8)[:, 0].tolist() == [0, 0, 3, 3, 3, 6, 6, 6]
    assert FrameTiming(2, "repeat", offset=0).nearest(torch.arange(3), 6).tolist() == [0, 1, 1, 2, 2, 2]


@given(st.integers(1, 8), st.integers(1, 40), st.sampled_from(["interpolate", "repeat"]))
def test_frames_with_a_row_have_its_values(factor: int, num_rows: int, upsampling: str) -> None:
    rows = torch.randn(num_rows, 2, generator=torch.Generator().manual_seed(0))
    for timing in FrameTiming(factor, upsampling).candidates():  # type: ignore[arg-type]
        num_frames = (num_rows - 1) * factor + timing.offset + 1
        assert torch.equal(timing.fitted(rows, num_frames)[timing.offset :: factor], rows)
        assert abs(FrameTiming(factor).num_rows(num_frames) - num_rows) <= 1


@pytest.mark.parametrize("shift", [15.0, 0.0, -10.0, 5.0, 90.0, float("nan"), float("inf")])
def test_shifts_between_frames_are_refused(shift: float) -> None:
    with pytest.raises(InputError, match="--frame-shift-ms: expected 1 to 8 times the run's 10 ms, found"):
        FrameTiming.of(shift, 10.0, "repeat")


@pytest.mark.parametrize("upsampling", ["interpolate", "repeat"])
@pytest.mark.parametrize("offset", [0, 1, 2])
def test_a_teacher_of_30_ms(tmp_path: Path, offset: int, upsampling: str) -> None:
    """Of a teacher that knows every label, each third row is written: the labels say where the first one lies."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(2, 7, (600,), generator=generator)
    labels = torch.randint(8, (600,), generator=generator).repeat_interleave(lengths)[:1500]
    utterances = Frames(tuple(f"u{n}" for n in range(10)), torch.arange(0, 1501, 150))
    logits = 6.0 * torch.nn.functional.one_hot(labels, 8) + torch.randn(1500, 8, generator=generator)
    dump = {f"u{n}": logits[150 * n : 150 * (n + 1)][offset::3].numpy() for n in range(10)}
    np.savez(tmp_path / "dump.npz", **dump)
    frames = TrainingFrames(utterances, labels, 8, "tree0")
    with pytest.raises(InputError, match=r"a third of the frames.*--frame-shift-ms 30"):
        import_posteriors([tmp_path / "dump.npz"], "logits", frames, StoreOptions(), tmp_path / "store", False)
    store, (report,) = import_posteriors(
        [tmp_path / "dump.npz"],
        *("logits", frames, StoreOptions(top_k=8), tmp_path / "store", False),
        frame_shift_ms=30.0,
        upsampling=upsampling,  # type: ignore[arg-type]
    )
    assert report.timing.offset == offset and report.accuracy > 0.8
    assert report.notes() == [report.timing.note] and f"the first at frame {offset}" in report.timing.note
    probs = store.targets(torch.arange(1500), 1.0)
    best = (
        probs.probs.argmax(1)
        if probs.pdf_ids is None
        else probs.pdf_ids.gather(1, probs.probs.argmax(1)[:, None])[:, 0]
    )
    in_utterance = torch.arange(1500) % 150
    assert torch.equal(best[in_utterance % 3 == offset], labels[in_utterance % 3 == offset])
