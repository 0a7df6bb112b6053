"""Features: seconds of log-mel energies from audio files, beside kaldi-native-fbank and torchaudio.

    .venv/bin/python local/bench/features.py --exp-dir exp/an4

All read the same files, with two processes, and their frames take the same way: normalised by speaker, into a store.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

import kaldi_native_fbank
import numpy as np
import soundfile
import torch
from bench import Table, finished_run, main, quickest, verdict

from asrkd.data.manifests import load_split
from asrkd.data.splits import CorpusSplit
from asrkd.features.cmvn import normalise
from asrkd.features.fbank import FeatureOptions, compute_features
from asrkd.features.store import FrameStore, Utterance
from asrkd.recipe.folders import RunFolders
from asrkd.workflow.child_process import run_in_subprocess
from asrkd.workflow.executor import Executor

NUM_JOBS = 2
CHUNK = 16


@dataclass(frozen=True)
class Options:
    """What is computed."""

    exp_dir: Path | None = None
    """folder of a finished run, whose audio is read"""
    split: str = "train"
    """train, dev or test"""


def by_kaldi(path: str) -> np.ndarray:
    """Frames of one file by kaldi-native-fbank."""
    samples, rate = soundfile.read(path, dtype="float32")
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = rate
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = False
    options.mel_opts.num_bins = 40
    bank = kaldi_native_fbank.OnlineFbank(options)
    bank.accept_waveform(rate, samples)
    bank.input_finished()
    return np.stack([bank.get_frame(index) for index in range(bank.num_frames_ready)])


def by_torchaudio(path: str) -> np.ndarray:
    """Frames of one file by torchaudio's Kaldi-compliant filter bank."""
    import torchaudio  # here, for Python 3.11's environment has none

    torch.set_num_threads(1)
    samples, rate = soundfile.read(path, dtype="float32")
    wave = torch.from_numpy(samples).unsqueeze(0)
    bank = torchaudio.compliance.kaldi.fbank(wave, sample_frequency=rate, num_mel_bins=40, dither=0.0, snip_edges=False)
    return bank.numpy()


def peer_store(extract: Callable[[str], np.ndarray], split: CorpusSplit, out_dir: Path) -> None:
    """A frame store of a peer's features."""
    paths = {one.id: str(one.sources[0].source) for one in split.recordings}
    supervisions = sorted(split.supervisions, key=lambda s: (str(s.speaker), s.id))
    with ProcessPoolExecutor(NUM_JOBS) as pool:
        extracted = pool.map(extract, [paths[s.recording_id] for s in supervisions], chunksize=CHUNK)

        def rows() -> Iterator[Utterance]:
            pairs = zip(supervisions, extracted, strict=True)
            for speaker, of_speaker in groupby(pairs, key=lambda pair: str(pair[0].speaker)):
                said, frames = zip(*of_speaker, strict=True)
                for one, feats in zip(said, normalise([torch.from_numpy(f) for f in frames], "speaker"), strict=True):
                    yield one.id, speaker, one.text, feats

        FrameStore.write(out_dir, rows(), {"frame_shift_ms": 10.0}, "peer")


def measure(options: Options) -> Table:
    """The table of this benchmark."""
    exp = finished_run(options.exp_dir)
    split = load_split(RunFolders(exp).manifests(options.split))
    rate = next(iter(split.recordings)).sampling_rate
    seconds = sum(recording.duration for recording in split.recordings)

    def timed(write: Callable[[Path], object]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            run_in_subprocess(lambda: write(Path(folder, "frames")))  # type: ignore[arg-type,return-value]

    options_here = FeatureOptions(sampling_rate=rate)
    rivals = {
        "asrkd": lambda: timed(lambda out: compute_features(split, options_here, out, Executor(NUM_JOBS))),
        "kaldi-native-fbank": lambda: timed(lambda out: peer_store(by_kaldi, split, out)),
        "torchaudio": lambda: timed(lambda out: peer_store(by_torchaudio, split, out)),
    }
    missing = () if find_spec("torchaudio") else ("torchaudio is not in this environment, and left out.",)
    if missing:
        del rivals["torchaudio"]
    taken = quickest(rivals, repeats=5)
    fastest = min(value for name, value in taken.items() if name != "asrkd")
    rows = [
        (name, f"{value:.2f}", f"{seconds / value:,.0f}", f"{value / taken['asrkd']:.2f}")
        for name, value in taken.items()
    ]
    return Table(
        f"{len(split.recordings)} files, {seconds / 60:.1f} minutes of speech, {NUM_JOBS} processes",
        ("features by", "s", "times real time", "relative"),
        rows,
        (f"Goal: no slower than the faster peer: {verdict(taken['asrkd'], fastest, False)}.", *missing),
        {**taken, "audio_sec": seconds},
    )


if __name__ == "__main__":
    main(Options, measure, __doc__)
