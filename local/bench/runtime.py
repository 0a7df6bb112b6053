"""`asrkd transcribe` as its users meet it: start, long recordings, the words of the run, 8-bit weights.

    .venv/bin/python local/bench/runtime.py --exp-dir exp/an4

All commands are timed from the shell, on one core. The long recording is the test set, again and again, with half a
second between utterances; the short ones are the same utterances as files. Words, sizes and the network's time are
those of the check that `asrkd export` makes on the run's whole test set.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import soundfile
from bench import Table, main, one_core, verdict
from exported import model_of

from asrkd.data.audio import read_samples
from asrkd.data.manifests import load_split
from asrkd.errors import InputError
from asrkd.files import read_json
from asrkd.recipe.export_card import BY_SPEAKER_ROW, RUN_ROW
from asrkd.recipe.folders import RunFolders
from asrkd.runtime.package import CHECK, NETWORK, NETWORK_INT8

START_GOAL_SEC = 1.5
MEMORY_GOAL_MB = 1000
RTF_GOAL = 1.05
"""Of the long recording, times that of the short ones: measurements differ by as much."""
EQUAL_GOAL, WER_GOAL = 0.99, 0.1
INT8_WER_GOAL, INT8_TIME_GOAL, INT8_SIZE_GOAL = 0.2, 0.6, 0.3
GAP_SEC = 0.5
STARTS = 5
_TIMES = re.compile(r": ([0-9.]+) s of audio in ([0-9.]+) s")


@dataclass(frozen=True)
class Options:
    """What is transcribed, and by what."""

    exp_dir: Path | None = None
    """folder of a finished run; none: exp/an4, else exp/prompts"""
    model: Path | None = None
    """its exported model; none: RUN_model, which is exported where it is missing"""
    hours: float = 3.0
    """of the long recording"""


@dataclass(frozen=True)
class Command:
    """A command that has ended."""

    wall_sec: float
    cpu_sec: float
    peak_mb: float
    rtf: float
    """Of the seconds that it prints: without the start."""


def transcribe(model: Path, audio: Path, folder: Path) -> Command:
    """Run `asrkd transcribe` on a file or a folder. InputError where it fails."""
    command = [sys.executable, "-m", "asrkd.commands.main", "transcribe", str(model), str(audio)]
    start = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--output-dir", str(folder), "--overwrite"], stderr=subprocess.PIPE, text=True, errors="replace"
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall_sec = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise InputError(f"asrkd transcribe {audio}: expected words, found: {errors.strip().splitlines()[-1]}")
    audio_sec, elapsed_sec = map(float, _TIMES.findall(errors)[-1])
    return Command(wall_sec, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, elapsed_sec / audio_sec)


def utterances(exp: Path) -> Iterator[tuple[np.ndarray, int]]:
    """Samples and rate of each utterance of the test set."""
    split = load_split(RunFolders(exp).manifests("test"))
    for one in split.supervisions:
        recording = split.recordings[one.recording_id]
        samples = read_samples(recording)[0]
        first = round(one.start * recording.sampling_rate)
        yield samples[first : first + round(one.duration * recording.sampling_rate)], recording.sampling_rate


def write_long(path: Path, spoken: Sequence[tuple[np.ndarray, int]], hours: float) -> None:
    """The utterances, again and again, with noise as quiet as their quietest stretches between them."""
    rate, num_samples = spoken[0][1], 0
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", rate, 1, "PCM_16") as file:
        for samples, _ in cycle(spoken):
            if num_samples >= hours * 3600 * rate:
                return
            gap = quietest(samples) * rng.standard_normal(round(GAP_SEC * rate)).astype(np.float32)
            file.write(np.concatenate([samples, gap]))
            num_samples += len(samples) + len(gap)


def quietest(samples: np.ndarray, size: int = 400) -> float:
    """Root mean square of the quietest twentieth of stretches of samples."""
    if len(samples) < size:
        return 0.0
    energies = np.square(samples[: len(samples) // size * size].reshape(-1, size)).mean(axis=1)
    return float(np.sqrt(np.quantile(energies, 0.05)))


def measure(options: Options) -> Table:
    """The table of this benchmark."""
    exp, model = model_of(options.exp_dir, options.model)
    spoken = list(utterances(exp))
    with TemporaryDirectory() as name, one_core():
        folder = Path(name)
        (folder / "short").mkdir()
        for number, (samples, rate) in enumerate(spoken):
            soundfile.write(folder / "short" / f"{number}.wav", samples, rate)
        middle = sorted(range(len(spoken)), key=lambda number: len(spoken[number][0]))[len(spoken) // 2]
        first = folder / "short" / f"{middle}.wav"
        starts = [transcribe(model, first, folder / "out") for _ in range(STARTS)]
        short = transcribe(model, folder / "short", folder / "out")
        write_long(folder / "long.wav", spoken, options.hours)
        long = transcribe(model, folder / "long.wav", folder / "out")
    num_words = len((model / "words.txt").read_text(encoding="utf-8").splitlines())
    rows, figures = measured_rows(options.hours, num_words, starts, short, long)
    checked_rows, checked = rows_of_check(read_json(model / CHECK))
    return Table(
        f"{exp.name}: asrkd transcribe, {len(spoken)} utterances of the test set, one core",
        ("measured", "value", "goal", "goal met"),
        [*rows, *checked_rows],
        (
            "Start: wall time of the whole command, the quickest of five, for the utterance of median length.",
            "RTF: of the seconds that the command prints, with confidences, without the start.",
        ),
        {**figures, **checked},
    )


def measured_rows(
    hours: float, num_words: int, starts: Sequence[Command], short: Command, long: Command
) -> tuple[list[tuple[str, ...]], dict[str, float]]:
    """Rows of what was timed here, and the figures by name."""
    start_sec, ratio = min(one.wall_sec for one in starts), long.rtf / short.rtf
    rows = [
        row(f"start, model of {num_words:,} words, s", start_sec, START_GOAL_SEC, "{:.2f}"),
        row(f"{hours:g} hours of audio: peak memory, MB", long.peak_mb, MEMORY_GOAL_MB, "{:.0f}"),
        row(f"{hours:g} hours of audio: RTF, times that of short files", ratio, RTF_GOAL, "{:.2f}"),
        ("RTF of short files; of the long one", f"{short.rtf:.4f}; {long.rtf:.4f}", "", ""),
    ]
    figures = {"start_sec": start_sec, "peak_mb": long.peak_mb, "rtf_short": short.rtf, "rtf_long": long.rtf}
    return rows, {**figures, "cpu_sec_long": long.cpu_sec, "words": num_words}


def rows_of_check(check: dict[str, Any]) -> tuple[list[tuple[str, ...]], dict[str, float]]:
    """Rows of the check that export made, and the figures by name."""
    by_name = {one["name"]: one for one in check["rows"]}
    run, full, small = by_name[RUN_ROW], by_name[NETWORK], by_name[NETWORK_INT8]
    # Of a run that normalises by speaker, the words are compared where the model is given the same statistics.
    alike = by_name.get(BY_SPEAKER_ROW, full)
    equal = alike["equal_utterances"] / check["utterances"]
    figures = {
        "equal": equal,
        "wer_difference": abs(alike["wer"]["percent"] - run["wer"]["percent"]),
        "wer_difference_alone": abs(full["wer"]["percent"] - run["wer"]["percent"]),
        "int8_wer_loss": check["int8"]["wer_loss"],
        "int8_network_time": small["network_rtf"] / full["network_rtf"],
        "int8_size": small["bytes"] / full["bytes"],
    }
    met = verdict(equal, EQUAL_GOAL)
    rows = [
        ("utterances with the words of the run, %", f"{100 * equal:.1f}", f"at least {100 * EQUAL_GOAL:g}", met),
        row("WER: difference from the run, points", figures["wer_difference"], WER_GOAL, "{:.2f}"),
        ("the same, each file normalised alone", f"{figures['wer_difference_alone']:.2f}", "", ""),
        row("int8: WER lost, points", figures["int8_wer_loss"], INT8_WER_GOAL, "{:.2f}"),
        row("int8: network's time, times float32", figures["int8_network_time"], INT8_TIME_GOAL, "{:.2f}"),
        row("int8: size, times float32", figures["int8_size"], INT8_SIZE_GOAL, "{:.2f}"),
    ]
    return rows, figures


def row(name: str, value: float, goal: float, layout: str) -> tuple[str, ...]:
    """A row of a figure that is to be small."""
    return name, layout.format(value), f"at most {goal:g}", verdict(value, goal, more_is_better=False)


if __name__ == "__main__":
    main(Options, measure, __doc__)
