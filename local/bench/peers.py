"""Recognisers that people would take instead: errors and real-time factors on the test set of a finished run.

    local/setup_tools.sh peers
    .venv/bin/python local/bench/peers.py --exp-dir exp/mini_librispeech

pocketsphinx 5 comes with its model, dictionary and trigram of English, and decodes whole utterances with its defaults.
Beside it stands the run's distilled student, with the run's dictionary and language model. Both have one core, and
their processor seconds count from samples to words: features, scores and search, without loading the models.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from bench import Table, finished_run, main, one_core
from lhotse import RecordingSet, SupervisionSet

from asrkd.data.audio import read_samples
from asrkd.data.manifests import load_split
from asrkd.data.resample import resample
from asrkd.data.splits import CorpusSplit
from asrkd.decode import Searcher, decode
from asrkd.errors import InputError
from asrkd.features.fbank import compute_features
from asrkd.features.store import FrameStore
from asrkd.recipe.evaluate import Acoustics, Run, open_graph, tuned
from asrkd.recipe.features import read_prior, split_features
from asrkd.recipe.folders import RunFolders
from asrkd.recipe.options import SpeechOptions, options_of_run
from asrkd.scoring.words import WordErrors, wer
from asrkd.workflow.executor import SERIAL

PEER_RATE = 16_000  # of pocketsphinx's model, Hz
PEER_SCRIPT = Path(__file__).with_name("pocketsphinx_words.py")
# Speech of the bandwidth and kind that the peer was trained for, measured where it was run.
BROADBAND = Path("exp/mini_librispeech")
DISTILLED = Run("distilled", 0, ("students/distilled",))


@dataclass(frozen=True)
class Options:
    """What is recognised, and by what."""

    exp_dir: Path | None = None
    """folder of a finished run of English; none: exp/mini_librispeech where it is, else a small one"""
    python: Path = Path(".venv-peers/bin/python")
    """an interpreter that has pocketsphinx"""
    minutes: float | None = None
    """speech, from the first utterance of the test set on; None: all"""


@dataclass(frozen=True)
class Recognised:
    """Words by utt_id, and processor seconds."""

    words: Mapping[str, Sequence[str]]
    seconds: float


def by_student(split: CorpusSplit, options: SpeechOptions) -> Recognised:
    """By the run's student: features of the split, then decoding from the run's own features, which are the same."""
    torch.set_num_threads(1)
    utt_ids = [one.id for one in split.supervisions]
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        compute_features(
            split,
            split_features("test", options.features),
            Path(folder, "frames"),
            SERIAL,
            read_prior(RunFolders(options.exp_dir), options.features),
        )
    seconds = time.process_time() - start
    search, graph = tuned(options.exp_dir / "decode" / "tuning", options), open_graph(options.exp_dir)
    searcher = Searcher(graph, Acoustics(DISTILLED, "test", options), search, lattices=False)
    hypotheses = decode(searcher, utt_ids, graph, search.scales, name="student")
    return Recognised(hypotheses.words, seconds + hypotheses.score_sec + hypotheses.search_sec)


def by_pocketsphinx(split: CorpusSplit, python: Path) -> Recognised:
    """By pocketsphinx, in a process of the interpreter that has it."""
    if not python.is_file():
        raise InputError(f"{python}: no such interpreter; local/setup_tools.sh peers makes it")
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for one in split.supervisions:
            recording = split.recordings[one.recording_id]
            samples = resample(read_samples(recording)[0], recording.sampling_rate, PEER_RATE)
            files[one.id] = str(Path(folder, f"{len(files)}.raw"))
            np.clip(np.rint(samples * 2**15), -(2**15), 2**15 - 1).astype("<i2").tofile(files[one.id])
        done = subprocess.run(
            [str(python), str(PEER_SCRIPT)], input=json.dumps(files), capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise InputError(f"{python} {PEER_SCRIPT.name}: expected words, found an error: {done.stderr.strip()[-300:]}")
    answer = json.loads(done.stdout)
    words = {utt_id: text.upper().split() for utt_id, text in answer["words"].items()}
    return Recognised(words, answer["seconds"])


def first_minutes(split: CorpusSplit, utt_ids: Sequence[str], minutes: float | None) -> CorpusSplit:
    """The utterances of a split in this order, up to so much speech."""
    by_id = {one.id: one for one in split.supervisions}
    chosen, seconds = [], 0.0
    for utt_id in utt_ids:
        if minutes is None or seconds < 60 * minutes:
            chosen.append(by_id[utt_id])
            seconds += by_id[utt_id].duration
    recordings = [split.recordings[one.recording_id] for one in chosen]
    return CorpusSplit(RecordingSet.from_recordings(recordings), SupervisionSet.from_segments(chosen))


def measure(options: Options) -> Table:
    """The table of this benchmark."""
    exp = finished_run(options.exp_dir or (BROADBAND if BROADBAND.is_dir() else None))
    run = options_of_run(exp)
    store = FrameStore.open(RunFolders(exp).features("test"))
    split = first_minutes(load_split(RunFolders(exp).manifests("test")), store.utt_ids, options.minutes)
    refs = {one.id: store.texts[store.index(one.id)].split() for one in split.supervisions}
    audio_sec = sum(one.duration for one in split.supervisions)
    with one_core():
        recognised = {
            "pocketsphinx": by_pocketsphinx(split, options.python),
            "distilled student": by_student(split, run),
        }
    errors = {name: wer(refs, one.words) for name, one in recognised.items()}
    rtfs = {name: one.seconds / audio_sec for name, one in recognised.items()}
    rows = [row(name, errors[name], rtfs[name]) for name in recognised]
    rate = next(iter(split.recordings)).sampling_rate
    resampled = f"The speech of {rate:,} Hz is resampled to {PEER_RATE:,} Hz, as its model wants it: not its own field."
    return Table(
        f"{exp.name}: test set, {len(refs)} utterances, {audio_sec / 60:.1f} minutes, one core",
        ("recogniser", "WER %", "ins", "del", "sub", "RTF"),
        rows,
        (
            "pocketsphinx has its own model, dictionary and trigram, trained on other and far more speech and text.",
            *((resampled,) if rate != PEER_RATE else ()),
        ),
        {name: {"wer": errors[name].percent, "rtf": rtfs[name]} for name in recognised},
    )


def row(name: str, errors: WordErrors, rtf: float) -> tuple[str, ...]:
    """A row of the table."""
    counts = (errors.ins, errors.dels, errors.subs)
    return (name, f"{errors.percent:.2f}", *(str(count) for count in counts), f"{rtf:.3f}")


if __name__ == "__main__":
    main(Options, measure, __doc__)
