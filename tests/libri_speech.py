"""A small LibriSpeech, in its own layout: a few short utterances of some speakers."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import soundfile
from real_speech import Utterance
from scipy.signal import resample_poly

PART = "train-clean-5"
# Four women and four men; 7312 and 669 are the mini set's development set.
SPEAKERS = {"163": 10, "19": 10, "1088": 10, "118": 10, "226": 10, "6272": 10, "7312": 4, "669": 4}
WOMEN = ("19", "1088", "118", "7312")
SAMPLING_RATE = 16000


def copy_mini_set(source: Path, root: Path) -> Path:
    """`root`/PART with the shortest utterances of each speaker of the mini set, as many as in SPEAKERS."""
    for speaker, number in SPEAKERS.items():
        found = sorted((source / PART / speaker).rglob("*.ogg"), key=lambda path: (path.stat().st_size, path.name))
        for path in found[:number]:
            chapter = root / PART / speaker / path.parent.name
            chapter.mkdir(parents=True, exist_ok=True)
            samples, _ = soundfile.read(path, dtype="int16")
            soundfile.write(chapter / f"{path.stem}.flac", samples, SAMPLING_RATE, subtype="PCM_16")
        for chapter in sorted((root / PART / speaker).iterdir()):
            name = f"{speaker}-{chapter.name}.trans.txt"
            lines = (source / PART / speaker / chapter.name / name).read_text().splitlines()
            copied = [line for line in lines if (chapter / f"{line.split()[0]}.flac").is_file()]
            (chapter / name).write_text("\n".join(copied) + "\n")
    shutil.copy(source / "SPEAKERS.TXT", root)
    return root


def prompts_as_librispeech(utterances: Iterable[Utterance], root: Path) -> Path:
    """The same from prompts, as if these speakers had read them: one voice, at twice its sampling rate."""
    prompts = iter([one for one in utterances if len(one.words) > 1])
    rows = []
    for speaker, number in SPEAKERS.items():
        chapter = root / PART / speaker / "77"
        chapter.mkdir(parents=True)
        lines, seconds = [], 0.0
        for position in range(number):
            one = next(prompts)
            name = f"{speaker}-77-{position:04}"
            samples, rate = soundfile.read(one.path)
            soundfile.write(chapter / f"{name}.flac", resample_poly(samples, SAMPLING_RATE // rate, 1), SAMPLING_RATE)
            lines.append(f"{name} {' '.join(one.words)}\n")
            seconds += len(samples) / rate
        (chapter / f"{speaker}-77.trans.txt").write_text("".join(lines))
        sex = "F" if speaker in WOMEN else "M"
        # Like the real table, which has the readers of the mini set in the part that it was taken from.
        rows.append(f"{speaker:<5}| {sex} | train-clean-100  | {seconds / 60:5.2f} | Reader {speaker}\n")
    (root / "SPEAKERS.TXT").write_text("".join(rows))
    return root
