"""A small folder in TIMIT's layout: SPHERE audio with TIMIT's header, and .PHN, .WRD and .TXT files."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from festival_speech import PAUSE, SAMPLING_RATE, Spoken, available_voices, sentences, speak
from numpy.typing import NDArray

HEADER_BYTES = 1024
SENTENCES = ["SA1", "SA2", *(f"SX{n}" for n in (37, 127, 217)), *(f"SI{n}" for n in (1027, 1657, 648))]
NUM_SA = 2
# Speakers of TIMIT: in training; of the development list; of the core test; of the test, but in neither list.
TRAIN = {"DR1": ["FCJF0", "FDAW0", "MCPM0"], "DR2": ["FAEM0", "MARC0", "MBJV0"]}
TEST = {"DR1": ["FAKS0", "MDAB0", "FELC0", "MSJS1"], "DR3": ["MMDB1"]}
# Marks: samples and phones that stand for a word of three, with a pause before the last.
MARKS = [(0, 800, "h#"), (800, 1600, "kcl"), (1600, 2400, "k"), (2400, 4000, "ae"), (4000, 5600, "pau")]
MARKS += [(5600, 6400, "q"), (6400, 7200, "ix"), (7200, 8000, "h#")]

# Festival's phones are nearly TIMIT's, which mark closure and release of a stop apart.
CLOSURES = {"b": "bcl", "d": "dcl", "g": "gcl", "p": "pcl", "t": "tcl", "k": "kcl", "ch": "tcl", "jh": "dcl"}
CLOSURE_SHARE = 0.5
OTHER_NAMES = {"lx": "l"}


def write_sphere(path: Path, samples: NDArray[np.int16], utt_id: str) -> None:
    """As TIMIT's files are: an ASCII header of 1024 bytes, then 16-bit samples, the low byte first."""
    lines = ["NIST_1A", f"{HEADER_BYTES:7d}", "database_id -s5 TIMIT", "database_version -s3 1.0"]
    lines += [f"utterance_id -s{len(utt_id)} {utt_id}", "channel_count -i 1", f"sample_count -i {samples.size}"]
    lines += [f"sample_rate -i {SAMPLING_RATE}", f"sample_min -i {samples.min()}", f"sample_max -i {samples.max()}"]
    lines += ["sample_n_bytes -i 2", "sample_byte_format -s2 01", "sample_sig_bits -i 16", "end_head", ""]
    header = "\n".join(lines).encode("ascii")
    path.write_bytes(header.ljust(HEADER_BYTES) + samples.astype("<i2").tobytes())


def write_rows(path: Path, rows: list[tuple[int, int, str]]) -> None:
    path.write_text("".join(f"{start} {end} {name}\n" for start, end, name in rows), encoding="utf-8")


def speaker_folders(root: Path) -> list[Path]:
    """New folders, one for every speaker."""
    folders = [
        root / part / region / speaker
        for part, regions in (("TRAIN", TRAIN), ("TEST", TEST))
        for region, speakers in regions.items()
        for speaker in speakers
    ]
    for folder in folders:
        folder.mkdir(parents=True)
    return folders


def make_noise_tree(root: Path) -> Path:
    """Noise, half a second a sentence, all with the same marks."""
    draw = np.random.default_rng(0)
    for folder in speaker_folders(root):
        for sentence in SENTENCES:
            write_sphere(folder / f"{sentence}.WAV", draw.integers(-5000, 5000, MARKS[-1][1], np.int16), sentence)
            write_rows(folder / f"{sentence}.PHN", MARKS)
            write_rows(folder / f"{sentence}.WRD", [(800, 4000, "cat"), (5600, 7200, "a")])
            (folder / f"{sentence}.TXT").write_text(f"0 {MARKS[-1][1]} Cat a.\n")
    return root


def make_spoken_tree(root: Path, scratch: Path) -> Path:
    """Sentences spoken by festival, each speaker at a pace of its own, its times as the marks."""
    voice = available_voices()[0]
    folders = speaker_folders(root)
    texts = sentences(len(folders) * len(SENTENCES))
    for number, folder in enumerate(folders):
        mine = texts[number * len(SENTENCES) : (number + 1) * len(SENTENCES)]
        speech_dir = scratch / folder.name
        speech_dir.mkdir()
        for sentence, spoken in zip(SENTENCES, speak(mine, voice, speech_dir, 0.9 + 0.05 * (number % 5)), strict=True):
            write_spoken(folder / sentence, spoken)
    return root


def write_spoken(stem: Path, spoken: Spoken) -> None:
    samples = (spoken.samples.numpy() * 32767).round().astype(np.int16)
    write_sphere(stem.with_suffix(".WAV"), samples, stem.name)
    write_rows(stem.with_suffix(".PHN"), marks_of(spoken, samples.size))
    write_rows(stem.with_suffix(".WRD"), words_of(spoken))
    stem.with_suffix(".TXT").write_text(f"0 {samples.size} {spoken.text.capitalize()}.\n")


def words_of(spoken: Spoken) -> list[tuple[int, int, str]]:
    """Words with their samples; between pauses no word comes twice in a row."""
    ends = [0, *(round(end_sec * SAMPLING_RATE) for _, end_sec, _ in spoken.phones)]
    rows = []
    for word, of_word in itertools.groupby(range(len(spoken.phones)), key=lambda index: spoken.phones[index][2]):
        indices = list(of_word)
        if word is not None:
            rows.append((ends[indices[0]], ends[indices[-1] + 1], word.lower()))
    return rows


def marks_of(spoken: Spoken, num_samples: int) -> list[tuple[int, int, str]]:
    """TIMIT's phones with their samples: h# at the ends, stops as closure and release."""
    rows = []
    start = 0
    for index, (phone, end_sec, _) in enumerate(spoken.phones):
        end = min(round(end_sec * SAMPLING_RATE), num_samples)
        if phone == PAUSE:
            rows.append((start, end, "h#" if index in (0, len(spoken.phones) - 1) else "pau"))
        elif phone in CLOSURES:
            middle = start + round(CLOSURE_SHARE * (end - start))
            rows += [(start, middle, CLOSURES[phone]), (middle, end, phone)]
        else:
            rows.append((start, end, OTHER_NAMES.get(phone, phone)))
        start = end
    return rows
