"""Manifests at rest: the bytes are those of Lhotse's own dictionaries, and transcripts can be read alone."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet
from lhotse.audio import AudioSource
from lhotse.supervision import AlignmentItem

from asrkd.data.manifests import (
    RECORDINGS_FILE,
    SUPERVISIONS_FILE,
    Transcript,
    load_split,
    load_transcripts,
    save_split,
)
from asrkd.data.splits import CorpusSplit
from asrkd.errors import InputError

CUSTOM = {"part": "other", "nothing": None, "pair": (1, 2), "inner": {"none": None, "list": [None, 1.5]}}
SPLIT = CorpusSplit(
    RecordingSet.from_recordings(
        Recording(name, [AudioSource("file", [0], f"/audio/{name}.flac")], 16000, 8000, 0.5) for name in "ab"
    ),
    SupervisionSet.from_segments(
        [
            SupervisionSegment("a", "a", 0.0, 0.5, 0, "GRÜẞE GO", speaker="ann", custom=CUSTOM),
            SupervisionSegment(
                "b", "b", 0.0, 0.5, 0, speaker="bob", alignment={"word": [AlignmentItem("GO", 0.0, 0.5)]}
            ),
        ]
    ),
)


def test_items_are_those_of_lhotse(tmp_path: Path) -> None:
    save_split(SPLIT, tmp_path)
    for name, items in ((RECORDINGS_FILE, SPLIT.recordings), (SUPERVISIONS_FILE, SPLIT.supervisions)):
        lines = gzip.decompress((tmp_path / name).read_bytes()).decode().splitlines()
        assert lines == [json.dumps(item, ensure_ascii=False) for item in items.to_dicts()]
    assert [one.to_dict() for one in load_split(tmp_path).recordings] == list(SPLIT.recordings.to_dicts())


def test_transcripts_alone(tmp_path: Path) -> None:
    save_split(SPLIT, tmp_path)
    assert load_transcripts(tmp_path) == [Transcript("a", "ann", "GRÜẞE GO"), Transcript("b", "bob", "")]
    (tmp_path / SUPERVISIONS_FILE).write_text('{"speaker": "ann"}\n')
    with pytest.raises(InputError, match="expected a Lhotse manifest, found something else"):
        load_transcripts(tmp_path)
