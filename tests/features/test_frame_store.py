"""The frame store holds what it was given, and splicing equals its definition."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrkd.errors import InputError
from asrkd.features.splicing import SplicedFrames
from asrkd.features.store import FrameStore
from asrkd.files import load_tensors
from asrkd.workflow import append_store

METADATA = {"frame_shift_ms": 10.0}


def make_store(lengths: list[int], num_features: int = 3, seed: int = 0) -> FrameStore:
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return FrameStore(
        feats=torch.randn(sum(lengths), num_features, generator=generator),
        utt_ids=tuple(f"utt{n}" for n in range(len(lengths))),
        speakers=tuple(f"spk{n % 2}" for n in range(len(lengths))),
        texts=tuple(f"WORD {n}" for n in range(len(lengths))),
        offsets=offsets,
        metadata=METADATA,
        fingerprint="made-by-hand",
    )


def rows_of(store: FrameStore):
    for utt_id, speaker, text in zip(store.utt_ids, store.speakers, store.texts, strict=True):
        yield utt_id, speaker, text, store.utt(utt_id)


def spliced_by_definition(store: FrameStore, utt_id: str, left: int, right: int) -> torch.Tensor:
    feats = store.utt(utt_id)
    last = feats.shape[0] - 1
    neighbours = [
        torch.cat([feats[min(max(t + shift, 0), last)] for shift in range(-left, right + 1)])
        for t in range(feats.shape[0])
    ]
    return torch.stack(neighbours)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    left=st.integers(0, 7),
    right=st.integers(0, 7),
    data=st.data(),
)
def test_splicing_repeats_the_edge_frames_of_each_utterance(lengths, left, right, data):
    store = make_store(lengths)
    spliced = SplicedFrames(store, left, right)
    expected = torch.cat([spliced_by_definition(store, utt_id, left, right) for utt_id in store.utt_ids])
    assert spliced.dim == (left + 1 + right) * 3
    assert len(spliced) == len(store) == sum(lengths)
    for utt_id in store.utt_ids:
        begin, end = store.span(utt_id)
        assert torch.equal(spliced.utt_batch(utt_id), expected[begin:end])
    ids = torch.tensor(data.draw(st.lists(st.integers(0, len(store) - 1), min_size=1, max_size=20)))
    assert torch.equal(spliced.batch(ids), expected[ids])
    out = torch.empty(len(ids), spliced.dim)
    assert spliced.batch(ids, out=out).data_ptr() == out.data_ptr()
    assert torch.equal(out, expected[ids])


def test_a_subset_in_memory_keeps_the_ids_of_the_store():
    store = make_store([4, 5, 6])
    whole, part = SplicedFrames(store, 2, 1), SplicedFrames(store, 2, 1, utt_ids=["utt2", "utt0"])
    assert part.frame_ids.tolist() == [*range(9, 15), *range(4)]
    assert torch.equal(part.batch(part.frame_ids), whole.batch(part.frame_ids))
    assert torch.equal(part.utt_batch("utt2"), whole.utt_batch("utt2"))
    with pytest.raises(InputError, match="frame 5 of store"):
        part.batch(torch.tensor([0, 5]))
    with pytest.raises(InputError, match="utt1"):
        part.utt_batch("utt1")


def test_context_below_zero_is_refused():
    with pytest.raises(InputError, match="context"):
        SplicedFrames(make_store([3]), left=-1)


def test_parts_hold_whole_utterances_and_number_their_examples_from_zero():
    store = make_store([4, 5, 6, 3, 7, 2])
    whole = SplicedFrames(store, 2, 1)
    learnt = torch.arange(0, len(store), 2).flip(0)
    parts = whole.partition(learnt, 3, torch.Generator().manual_seed(0))
    assert sorted(torch.cat(parts).tolist()) == sorted(learnt.tolist())
    utterances = [set(torch.searchsorted(store.offsets, part, right=True).tolist()) for part in parts]
    assert sum(map(len, utterances)) == len(set.union(*utterances)) == 6
    for part in parts:
        assert 3 <= len(part) <= 7
        in_memory = whole.subset(part, torch.device("cpu"), torch.float32)
        assert len(in_memory) == len(part)
        assert torch.equal(in_memory.batch(torch.arange(len(part))), whole.batch(part))
        rounded = whole.subset(part, torch.device("cpu"), torch.bfloat16)
        assert torch.equal(rounded.batch(torch.arange(len(part))), whole.batch(part).bfloat16())


def test_parts_on_the_disk_are_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = SplicedFrames(make_store([4, 5, 6, 3, 7, 2]), 2, 1)
    ids = torch.arange(1, len(whole))
    parts = whole.partition(ids, 3, torch.Generator().manual_seed(0))
    monkeypatch.setattr("asrkd.features.splicing.SHARD_FRAMES", 4)
    on_disk = whole.partition(ids, 3, torch.Generator().manual_seed(0), tmp_path)
    assert [part.tolist() for part in parts] == [part.tolist() for part in on_disk]
    assert all(part.tolist() == sorted(part.tolist()) for part in parts), "in the order given"


def test_a_subset_is_a_view_with_ids_of_its_own():
    store = make_store([4, 5, 6, 3])
    part = store.subset(["utt3", "utt1", "utt0"])
    assert part.feats is store.feats
    assert (part.utt_ids, part.speakers, part.offsets.tolist()) == (
        ("utt3", "utt1", "utt0"),
        ("spk1", "spk1", "spk0"),
        [0, 3, 8, 12],
    )
    assert (len(part), part.span("utt1"), part.num_features) == (12, (3, 8), 3)
    assert torch.equal(part.read(), torch.cat([store.utt(utt_id) for utt_id in part.utt_ids]))
    again = part.subset(["utt0", "utt3"])
    assert torch.equal(again.utt("utt3"), store.utt("utt3")) and again.fingerprint != part.fingerprint
    assert [shard.utt_ids for shard in part.shards(8)] == [("utt3", "utt1"), ("utt0",)]
    expected = torch.cat([SplicedFrames(store, 2, 1).utt_batch(utt_id) for utt_id in part.utt_ids])
    assert torch.equal(SplicedFrames(part, 2, 1).batch(torch.arange(12)), expected)


def test_what_is_not_in_memory_can_still_be_read():
    store = make_store([4, 5, 6])
    whole, none = SplicedFrames(store, 2, 1), SplicedFrames(store, 2, 1, utt_ids=())
    ids = torch.tensor([14, 0, 7])
    assert torch.equal(none.sample(ids), whole.batch(ids))
    assert torch.equal(none.subset(ids, torch.device("cpu"), torch.float32).batch(torch.arange(3)), whole.batch(ids))
    for utt_id in store.utt_ids:
        for chunk in (2, 4, 9):
            chunks = list(none.read_chunks(utt_id, chunk))
            assert max(map(len, chunks)) <= chunk
            assert torch.equal(torch.cat(chunks), whole.utt_batch(utt_id))
        (rounded,) = none.read_chunks(utt_id, 9, torch.bfloat16)
        assert torch.equal(rounded, whole.utt_batch(utt_id, torch.bfloat16))
    with pytest.raises(InputError, match="frame 14 of store"):
        none.batch(ids)


def test_what_is_written_is_read_back(tmp_path: Path):
    made = make_store([4, 1, 6])
    written = FrameStore.write(tmp_path / "store", rows_of(made), METADATA, "abc")
    opened = FrameStore.open(tmp_path / "store")
    for store in (written, opened):
        assert torch.equal(store.feats, made.feats)
        assert store.offsets.tolist() == [0, 4, 5, 11]
        assert (store.utt_ids, store.speakers, store.texts) == (made.utt_ids, made.speakers, made.texts)
        assert store.frame_shift_ms == 10.0
        assert store.fingerprint == "abc"
        assert store.num_features == 3
    assert torch.equal(opened.utt("utt2"), made.feats[5:])
    assert opened.frame_ids(["utt2", "utt0"]).tolist() == [5, 6, 7, 8, 9, 10, 0, 1, 2, 3]


def test_the_file_is_plain_safetensors(tmp_path: Path):
    made = make_store([4, 2])
    FrameStore.write(tmp_path / "store", rows_of(made), METADATA, "abc")
    tensors, metadata = load_tensors(tmp_path / "store" / "feats.safetensors")
    assert list(tensors) == ["feats"]
    assert metadata == {"fingerprint": "abc"}
    assert torch.equal(tensors["feats"], made.feats)


def test_writing_the_same_twice_gives_the_same_bytes(tmp_path: Path):
    for name in ("a", "b"):
        FrameStore.write(tmp_path / name, rows_of(make_store([4, 2])), METADATA, "abc")
    for file in ("feats.safetensors", "frames.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize("torn", ["", '["utt9", "spea'], ids=["whole lines", "a torn line"])
def test_a_writing_that_was_cut_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: str):
    made = make_store([4, 2, 3, 1])
    FrameStore.write(tmp_path / "whole", rows_of(made), METADATA, "abc")
    monkeypatch.setattr(append_store, "COMMIT_BYTES", 2 * 3 * 4)  # of each utterance of two frames or more
    asked_from = []

    def rows_from(first: int, last: int):
        asked_from.append(first)
        yield from list(rows_of(made))[first:last]
        if last < 4:
            raise KeyboardInterrupt

    for last in (2, 4):
        with nullcontext() if last == 4 else pytest.raises(KeyboardInterrupt):
            FrameStore.resume_write(tmp_path / "cut", lambda n, last=last: rows_from(n, last), METADATA, "abc")
        if last == 2:
            assert not (tmp_path / "cut").exists()
            # what a kill may leave behind: frames that no line tells of, and half a line
            with (tmp_path / ".cut.partial" / "feats.safetensors").open("ab") as frames:
                frames.write(b"abcde")
            with (tmp_path / ".cut.partial" / "journal.jsonl").open("a") as journal:
                journal.write(torn)
    assert asked_from == [0, 2]
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["feats.safetensors", "frames.json"]
    for file in ("feats.safetensors", "frames.json"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    again = FrameStore.resume_write(tmp_path / "cut", lambda n: rows_from(n, 4), METADATA, "abc")
    assert asked_from == [0, 2], "a whole store is not written again"
    assert torch.equal(again.feats, made.feats)


def test_a_writing_that_was_killed_while_it_got_its_name_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = make_store([4, 2])
    rows = list(rows_of(made))
    monkeypatch.setattr(append_store, "COMMIT_BYTES", 1)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(append_store, "publish_dir", killed)
        with pytest.raises(KeyboardInterrupt):
            FrameStore.resume_write(tmp_path / "cut", lambda n: rows[n:], METADATA, "abc")
    asked = []
    store = FrameStore.resume_write(tmp_path / "cut", lambda n: asked.append(n) or rows[n:], METADATA, "abc")
    assert asked == [2] and torch.equal(store.feats, made.feats)


def test_another_store_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(append_store, "COMMIT_BYTES", 1)
    rows = [*rows_of(make_store([4, 2])), ("bad", "s", "A", torch.zeros(0, 3))]
    with pytest.raises(InputError, match="bad"):
        FrameStore.resume_write(tmp_path / "store", lambda n: rows[n:], METADATA, "abc")
    asked = []
    FrameStore.resume_write(tmp_path / "store", lambda n: asked.append(n) or rows[n:2], METADATA, "abd")
    assert asked == [0]


def test_frames_are_written_as_they_come_and_mapped_not_read(tmp_path: Path):
    """80 MB of frames pass through without the process growing by half of that."""
    program = f"""
import resource, torch
from asrkd.features.store import FrameStore
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
frames = torch.zeros(5000, 40)
before = peak()
store = FrameStore.write({str(tmp_path / "big")!r}, ((f"u{{n}}", "s", "A", frames) for n in range(100)),
                         {{"frame_shift_ms": 10.0}}, "abc")
assert float(store.utt("u99").sum()) == 0.0
print(peak() - before)
"""
    grown_mb = float(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout)
    assert grown_mb < 40


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.full((2, 3), float("nan")), "bad: expected finite features"),
        (torch.zeros(0, 3), r"bad: expected frames \[T > 0, 3\]"),
        (torch.zeros(2, 4), r"bad: expected frames .* found \[2, 4\]"),
    ],
)
def test_bad_frames_leave_nothing_written(tmp_path: Path, bad: torch.Tensor, message: str):
    rows = [("good", "s", "A", torch.zeros(2, 3)), ("bad", "s", "A", bad)]
    with pytest.raises(InputError, match=message):
        FrameStore.write(tmp_path / "store", iter(rows), METADATA, "abc")
    assert not (tmp_path / "store").exists()


def test_an_utt_id_that_comes_twice_is_refused(tmp_path: Path):
    rows = [("one", "s", "A", torch.zeros(2, 3))] * 2
    with pytest.raises(InputError, match="one: expected one utterance of this id"):
        FrameStore.write(tmp_path / "store", rows, METADATA, "abc")


def test_no_utterances_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="expected at least one utterance"):
        FrameStore.write(tmp_path / "store", [], METADATA, "abc")


def test_a_store_with_another_stores_frames_is_refused(tmp_path: Path):
    for name, mark in (("a", "aaa"), ("b", "bbb")):
        FrameStore.write(tmp_path / name, rows_of(make_store([4, 2])), METADATA, mark)
    (tmp_path / "a" / "feats.safetensors").replace(tmp_path / "b" / "feats.safetensors")
    with pytest.raises(InputError, match="expected fingerprint bbb, found aaa"):
        FrameStore.open(tmp_path / "b")


def test_a_cut_off_store_is_refused(tmp_path: Path):
    FrameStore.write(tmp_path / "store", rows_of(make_store([4, 2])), METADATA, "abc")
    file = tmp_path / "store" / "feats.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(InputError, match="damaged"):
        FrameStore.open(tmp_path / "store")


def test_a_missing_store_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="nowhere"):
        FrameStore.open(tmp_path / "nowhere")


def test_an_unknown_utterance_is_named():
    with pytest.raises(InputError, match="nobody"):
        make_store([3]).utt("nobody")


def test_a_subset_is_a_store_of_its_own():
    store = make_store([4, 5, 6])
    part = store.subset(["utt2", "utt0"])
    assert part.utt_ids == ("utt2", "utt0")
    assert part.texts == ("WORD 2", "WORD 0")
    assert part.offsets.tolist() == [0, 6, 10]
    assert torch.equal(part.utt("utt0"), store.utt("utt0"))
    assert part.fingerprint != store.fingerprint
    assert part.fingerprint == store.subset(["utt2", "utt0"]).fingerprint


def test_neither_lhotse_nor_k2_is_imported():
    program = "import sys, asrkd.features.store; sys.exit(any(m in sys.modules for m in ('lhotse', 'k2')))"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
