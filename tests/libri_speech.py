"""A small LibriSpeech out of the shared mini set: a few short utterances of some speakers, in its own layout."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import soundfile

PART = "train-clean-5"
# Four women and four men; 7312 and 669 are the mini set's development set.
SPEAKERS = {"163": 10, "19": 10, "1088": 10, "118": 10, "226": 10, "6272": 10, "7312": 4, "669": 4}
SAMPLING_RATE = 16000


def write_librispeech(data_dir: Path, root: Path, speakers: Mapping[str, int] = SPEAKERS) -> Path:
    """`root`/PART with so many utterances of each speaker, the shortest ones; skips where the shared set is missing."""
    source = data_dir / "mini_librispeech" / "LibriSpeech"
    if not source.is_dir():
        pytest.skip(f"no mini LibriSpeech: {source} is missing (set ASRKD_DATA)")
    for speaker, number in speakers.items():
        found = sorted((source / PART / speaker).rglob("*.ogg"), key=lambda path: (path.stat().st_size, path.name))
        for path in found[:number]:
            chapter = root / PART / speaker / path.parent.name
            chapter.mkdir(parents=True, exist_ok=True)
            samples, _ = soundfile.read(path, dtype="int16")
            soundfile.write(chapter / f"{path.stem}.flac", samples, SAMPLING_RATE, subtype="PCM_16")
        for chapter in sorted((root / PART / speaker).iterdir()):
            name = f"{speaker}-{chapter.name}.trans.txt"
            lines = (source / PART / speaker / chapter.name / name).read_text().splitlines()
            kept = [line for line in lines if (chapter / f"{line.split()[0]}.flac").is_file()]
            (chapter / name).write_text("\n".join(kept) + "\n")
    shutil.copy(source / "SPEAKERS.TXT", root)
    return root
