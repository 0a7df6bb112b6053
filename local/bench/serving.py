"""The server under load: the delay of words with many streams, and clients that do what none should.

    .venv/bin/python local/bench/serving.py --part delay
    .venv/bin/python local/bench/serving.py --part abuse --minutes 10

The distilled student of a finished run, as `asrkd export` makes it, is served on two cores with the server's defaults.
Clients share the cores; their processor time is stated.

delay: each stream is one client that says the utterances of the test set, one after the other and each client from
another one on, in blocks of 0.1 s in real time. The delay of a word is the time from its end to the first message
that has it.

abuse: two hundred connections that are silent, half-open, slow or send garbage, and uploads of 1 GB, while others talk.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

import numpy as np
from bench import Table, finished_run, main, verdict
from serving_abuse import Abuse, mistreat
from serving_clients import Heard, Server, Talk, Usage, converse, delays_ms, serving

import asrkd
from asrkd.data.audio import read_samples
from asrkd.data.manifests import load_split
from asrkd.errors import InputError
from asrkd.recipe.folders import RunFolders
from asrkd.runtime.model import Model

MEDIAN_GOAL_MS = 500.0
GOAL_STREAMS = 20
GROWTH_GOAL = 0.1
"""Of resident memory, from the end of the warm-up to the end: what counts as flat."""
LEAST_MINUTES = 0.5
"""Less has no memory after the warm-up."""
SAMPLE_SEC = 1.0


@dataclass(frozen=True)
class Options:
    """What is served, and to how many."""

    part: Literal["delay", "abuse"] = "delay"
    """what is measured"""
    exp_dir: Path | None = None
    """folder of a finished run, with the speech of its test set; none: exp/an4, else exp/prompts"""
    model: Path | None = None
    """its exported model; none: RUN_model, which is exported where it is missing"""
    streams: tuple[int, ...] = (1, GOAL_STREAMS)
    """delay: numbers of streams, measured one after the other"""
    seconds: float = 60.0
    """delay: length of each stream"""
    minutes: float = 10.0
    """abuse: how long it lasts"""
    connections: int = 200
    """abuse: bad clients at a time"""
    talkers: int = 8
    """abuse: good streams at a time"""
    cores: int = 2
    """of the server"""

    def server_cores(self) -> set[int]:
        return set(sorted(os.sched_getaffinity(0))[: self.cores])


def measure(options: Options) -> Table:
    """The table of this benchmark."""
    if options.minutes < LEAST_MINUTES:
        raise InputError(f"--minutes: expected {LEAST_MINUTES:g} or more, found {options.minutes:g}")
    exp = finished_run(options.exp_dir)
    path = options.model or exp.with_name(f"{exp.name}_model")
    if not path.exists():
        export = [sys.executable, "-m", "asrkd.commands.main", "export", str(exp), "--out", str(path)]
        subprocess.run(export, check=True, stdout=subprocess.DEVNULL)
    part = delay_table if options.part == "delay" else abuse_table
    return part(options, exp.name, path, speech(exp))


def speech(exp: Path) -> list[Talk]:
    """The test set of a run."""
    split = load_split(RunFolders(exp).manifests("test"))
    talks = []
    for one in split.supervisions:
        recording = split.recordings[one.recording_id]
        samples = np.clip(np.rint(read_samples(recording)[0] * 2.0**15), -(2**15), 2**15 - 1)
        first, last = (round(sec * recording.sampling_rate) for sec in (one.start, one.end))
        talks.append(Talk(one.id, samples[first:last].astype("<i2").tobytes(), recording.sampling_rate))
    return talks


def expected_text(model: Model, talk: Talk) -> str:
    """The words of a talk by the library, without a server."""
    stream = model.stream(sampling_rate=talk.sampling_rate)
    stream.accept(talk.pcm)
    return stream.final().text


def long_talks(talks: Sequence[Talk], number: int, seconds: float) -> list[Talk]:
    """`number` talks of so many seconds, of all utterances in turn, each from another one on."""
    chosen = []
    for one in range(number):
        first = one * len(talks) // number
        utterances = islice(cycle(talks), first, None)
        rate, pcm = talks[first].sampling_rate, bytearray()
        while len(pcm) < 2 * round(seconds * rate):
            pcm += next(utterances).pcm
        chosen.append(Talk(talks[first].utt_id, bytes(pcm[: 2 * round(seconds * rate)]), rate))
    return chosen


@dataclass(frozen=True)
class Load:
    """What so many streams cost and get."""

    delays: list[float]
    dropped: list[str]
    """Why each stream that is not whole ended."""
    num_wrong: int
    """Whole streams with other words than the library's."""
    cores: float
    """Processor seconds of the server in a second."""
    idle_mb: float
    peak_mb: float
    client_cores: float


def delay_table(options: Options, name: str, path: Path, talks: Sequence[Talk]) -> Table:
    """Delays by the number of streams."""
    model, loads = asrkd.load(path), {}
    for number in options.streams:
        loads[number] = load_of(options, path, model, long_talks(talks, number, options.seconds))
    rows = [
        (
            str(number),
            f"{len(one.delays):,}",
            *(f"{_percentile(one.delays, percent):.0f}" for percent in (50, 95)),
            str(len(one.dropped)),
            f"{one.cores:.2f}",
            f"{one.cores / number:.3f}",
            f"{one.peak_mb:,.0f}",
            f"{(one.peak_mb - one.idle_mb) / number:.1f}",
            f"{one.client_cores:.2f}",
        )
        for number, one in loads.items()
    ]
    number = min((one for one in loads if one >= GOAL_STREAMS), default=max(loads))
    load = loads[number]
    median = _percentile(load.delays, 50)
    num_whole = sum(loads) - sum(len(one.dropped) for one in loads.values())
    num_right = num_whole - sum(one.num_wrong for one in loads.values())
    kept = verdict(len(load.dropped), 0, more_is_better=False)
    columns = (
        *("streams", "words", "delay: median ms", "95% ms", "dropped", "server: cores", "cores a stream"),
        *("MB", "MB a stream", "clients: cores"),
    )
    notes = (
        f"Goal: a median of {MEDIAN_GOAL_MS:.0f} ms with {GOAL_STREAMS} streams on two cores: {median:.0f} ms with "
        f"{number} on {options.cores}, {verdict(median, MEDIAN_GOAL_MS, more_is_better=False)}; none dropped: {kept}.",
        f"The library has the same words in {num_right} of {num_whole} whole streams.",
        *(f"Dropped: {reason}." for reason in sorted({one for each in loads.values() for one in each.dropped})),
        "A word's delay is counted from its end in the final result; it is below 0 where the word is guessed before.",
        f"MB are resident, of the server and its processes, at their peak; {load.idle_mb:,.0f} MB without streams.",
    )
    title = f"{name}: delay of words, {options.seconds:g} s of speech in real time"
    return Table(title, columns, rows, notes, {str(number): vars(one) for number, one in loads.items()})


def load_of(options: Options, path: Path, model: Model, talks: Sequence[Talk]) -> Load:
    """Measure these talks at the same time."""
    arguments = ["--max-streams", str(len(talks) + 1)]
    with serving(path, options.server_cores(), arguments) as server:
        asyncio.run(converse(server.port, long_talks(talks, 1, 3.0)[0]))  # what is loaded once is not of a stream
        heard, before, after, peak_mb, seconds, client_sec = asyncio.run(_talk_at_once(server, talks))
    whole = [(one, talk) for one, talk in zip(heard, talks, strict=True) if one.is_whole(talk)]
    return Load(
        [delay for one in heard for delay in delays_ms(one)],
        [one.refusal for one, talk in zip(heard, talks, strict=True) if not one.is_whole(talk)],
        sum(one.text != expected_text(model, talk) for one, talk in whole),
        (after.cpu_sec - before.cpu_sec) / seconds,
        before.rss_mb,
        peak_mb,
        client_sec / seconds,
    )


async def _talk_at_once(server: Server, talks: Sequence[Talk]) -> tuple[list[Heard], Usage, Usage, float, float, float]:
    """What is heard; usage before and after; the peak in MB; seconds, and the clients' processor seconds."""
    before, begin, client = server.usage(), time.monotonic(), time.process_time()

    async def one(number: int, talk: Talk) -> Heard:
        await asyncio.sleep(number / len(talks))  # people do not speak in step
        return await converse(server.port, talk)

    clients = asyncio.gather(*(one(number, talk) for number, talk in enumerate(talks)))
    peak_mb = before.rss_mb
    while not clients.done():
        await asyncio.wait([clients], timeout=SAMPLE_SEC)
        peak_mb = max(peak_mb, server.usage().rss_mb)
    client_sec, seconds = time.process_time() - client, time.monotonic() - begin
    return await clients, before, server.usage(), peak_mb, seconds, client_sec


def _percentile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent)) if len(values) else float("nan")


def abuse_table(options: Options, name: str, path: Path, talks: Sequence[Talk]) -> Table:
    """What bad clients get, and what they leave of the server."""
    model = asrkd.load(path)
    expected = {talk.utt_id: expected_text(model, talk) for talk in talks}
    with serving(path, options.server_cores()) as server:
        found = asyncio.run(mistreat(server, talks, expected, options))
        tracebacks = sum("Traceback" in line for line in server.log)
        if tracebacks:
            print("\n".join(server.log[-200:]), file=sys.stderr)
    rows = [
        (kind, str(found.num_clients[kind]), f"{sum(answers.values()):,}", _shown(answers))
        for kind, answers in found.answers.items()
    ]
    answers = {kind: dict(one) for kind, one in found.answers.items()}
    figures = {"samples": found.samples, "answers": answers, "talks": dict(found.talks), "tracebacks": tracebacks}
    title = f"{name}: {options.minutes:g} minutes of {options.connections} bad connections"
    return Table(title, ("client", "at a time", "attempts", "answers"), rows, _abuse_notes(found, tracebacks), figures)


def _shown(answers: dict[str, int]) -> str:
    ordered = sorted(answers.items(), key=lambda item: -item[1])
    return ", ".join(f"{answer}: {number:,}" for answer, number in ordered)


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in values)


def _abuse_notes(found: Abuse, tracebacks: int) -> tuple[str, ...]:
    first, last = found.settled[0], found.settled[-1]
    growth, most_mb = last.rss_mb / first.rss_mb - 1.0, max(one.rss_mb for one in found.samples)
    most_files = max(one.num_files for one in found.samples)
    slope = statistics.linear_regression(
        [one.at_sec / 60.0 for one in found.settled], [one.rss_mb for one in found.settled]
    ).slope
    talks, text = found.talks, ", ".join(f"{number} {kind}" for kind, number in found.talks.items() if number)
    faultless = tracebacks == 0 and found.has_recovered and talks["wrong"] == talks["dropped"] == 0
    return (
        f"Good streams and files meanwhile: {text}. Goal: no crash, all right: {verdict(faultless, True)}; "
        f"{tracebacks} tracebacks in the log; afterwards {found.afterwards}.",
        f"Goal: resident memory flat (within {GROWTH_GOAL:.0%}): {first.rss_mb:,.0f} MB after {first.at_sec:.0f} s, "
        f"{last.rss_mb:,.0f} MB after {last.at_sec:.0f} s, {growth:+.1%} ({slope:+.2f} MB a minute), "
        f"{verdict(growth, GROWTH_GOAL, more_is_better=False)}; at most {most_mb:,.0f} MB.",
        f"The server's own process: {first.by_process[0]:.0f} and {last.by_process[0]:.0f} MB; its workers: "
        f"{_list(first.by_process[1:])} and {_list(last.by_process[1:])} MB.",
        f"Open files and sockets of the server: {found.files_before} before, {most_files} at most, "
        f"{found.files_afterwards} afterwards.",
        f"Clients took {found.client_cores:.2f} cores, the server {found.server_cores:.2f}.",
    )


if __name__ == "__main__":
    main(Options, measure, __doc__)
