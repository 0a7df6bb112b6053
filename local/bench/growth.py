"""Corpora, texts and vocabularies of the size of LibriSpeech's: seconds and memory against size, on one core.

    .venv/bin/python local/bench/growth.py --part text --sizes 1 5 20 100        # million words of a text
    .venv/bin/python local/bench/growth.py --part manifests --sizes 10000 281241  # utterances
    .venv/bin/python local/bench/growth.py --part graph --sizes 20000 200000      # words

All of it is synthetic: words of a Zipf vocabulary, in which most words lean on the one before; no audio is needed.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import torch
from bench import Table, finished_run, main, one_core, verdict
from lhotse import Recording
from lhotse.audio import AudioSource

from asrkd.data.corpora.user import UserCorpusOptions, prepare_user_corpus, user_corpus_audio, user_corpus_files
from asrkd.data.manifests import AudioFile, content_fingerprint, load_split, load_transcripts, save_split
from asrkd.data.segments import Segment
from asrkd.data.transcripts import SILENCE
from asrkd.data.validate import validate
from asrkd.files import write_json
from asrkd.graph.build import GraphOptions, build_hclg
from asrkd.graph.decoding_graph import DecodingGraph
from asrkd.graph.grammar import grammar_fst
from asrkd.graph.on_demand import GrammarWalk
from asrkd.graph.pronunciations import backoff_label, word_labels
from asrkd.lang.array_pruning import prune_arrays
from asrkd.lang.kneser_ney import estimate_arrays
from asrkd.lang.lexicon import Lexicon
from asrkd.recipe.corpus import PATHS_FILE, Corpus, list_sources
from asrkd.recipe.labels import load_hmm
from asrkd.recipe.options import SpeechOptions
from asrkd.scoring.words import wer
from asrkd.workflow.child_process import run_in_subprocess

VOCABULARY = 200_000
LETTERS = 26
WORDS_PER_SENTENCE, DRAWN_AT_ONCE = 20, 1_000_000
LEANING, FOLLOWERS = 0.7, 20  # the share of words that are one of so many followers of the word before
SAMPLES = 16_000  # a second of audio
SPEAKERS = 2_338  # of LibriSpeech's training sets
GRAPH_TEXT = 5_000_000  # words of the text of the graph's trigram
WALKED = 20_000  # words
MEMORY_GOAL, GOAL_SIZE = 4.0, 100  # GB, million words
# Million words of a text, utterances, words of a graph.
SIZES = {"text": (1, 5, 20, 100), "manifests": (10_000, 100_000, 281_241), "graph": (20_000, 200_000)}


@dataclass(frozen=True)
class Options:
    """What is measured, at which sizes."""

    part: Literal["text", "manifests", "graph"] = "text"
    """language model of a text; manifests and listings of a user's corpus; decoding graph"""
    sizes: tuple[int, ...] = ()
    """million words, utterances or words; default: three sizes of each part"""
    threshold: float = 1e-7
    """loss of an n-gram below which it is pruned"""
    exp_dir: Path | None = None
    """folder of a finished run, whose senones the graph uses"""
    tmp_dir: Path | None = None
    """folder of temporary files; default: the system's"""


@dataclass(frozen=True)
class RunOptions(SpeechOptions):
    """A run with a user's corpus."""

    corpora: UserCorpusOptions = field(default_factory=lambda: UserCorpusOptions(Path()))


def word_names(number: int) -> list[str]:
    """Distinct words of letters alone, the most frequent first."""
    letters = [chr(ord("A") + i) for i in range(LETTERS)]
    width = 1
    while LETTERS**width < number:
        width += 1
    return ["".join(letters[n // LETTERS**k % LETTERS] for k in range(width)) for n in range(number)]


def sentences(num_words: int, vocabulary: int = VOCABULARY) -> Iterator[list[str]]:
    """A text in which a word is one of a few followers of the word before, or one of the Zipf vocabulary."""
    rng, names = np.random.default_rng(0), np.array(word_names(vocabulary), dtype=object)
    ranks = 1.0 / np.arange(1, vocabulary + 1)
    cumulative = np.cumsum(ranks / ranks.sum())
    for start in range(0, num_words, DRAWN_AT_ONCE):
        rows = min(DRAWN_AT_ONCE, num_words - start) // WORDS_PER_SENTENCE
        shape = (WORDS_PER_SENTENCE, rows)
        free = np.minimum(np.searchsorted(cumulative, rng.random(shape)), vocabulary - 1)
        leans, steps = rng.random(shape) < LEANING, (FOLLOWERS ** rng.random(shape)).astype(np.int64)
        ids, before = np.empty((rows, WORDS_PER_SENTENCE), dtype=np.int64), np.zeros(rows, dtype=np.int64)
        for k in range(WORDS_PER_SENTENCE):
            before = np.where(leans[k], (before * 7919 + steps[k] ** 2 * 104729) % vocabulary, free[k])
            ids[:, k] = before
        yield from names[ids].tolist()


class Meter:
    """Seconds of the parts of one process, and its peak memory without pages of files (RssAnon)."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.figures: dict[str, float] = {}
        self._peak = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def __call__(self, name: str, function: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = function()
        self.seconds[name] = time.process_time() - start
        return result

    def _watch(self) -> None:
        while True:
            lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
            self._peak = max(self._peak, float(next(line.split()[1] for line in lines if line.startswith("RssAnon"))))
            time.sleep(0.1)

    def save(self, path: Path) -> None:
        found = {"seconds": self.seconds, "gigabytes": self._peak * 1024 / 1e9, **self.figures}
        path.write_text(json.dumps(found), encoding="utf-8")


# ------------------------------------------------------------------------------------------------------------- texts


def measure_text(size: int, options: Options, folder: Path) -> None:
    """Estimate a trigram of `size` million words, and prune it."""
    meter = Meter()
    meter("making the text", lambda: sum(1 for _ in sentences(size * 1_000_000)))
    arrays = meter("estimating", lambda: estimate_arrays(sentences(size * 1_000_000), 3, None, folder))
    meter.figures["disk"] = sum(file.stat().st_size for file in folder.glob("*.bin")) / 1e9
    pruned = meter("pruning", lambda: prune_arrays(arrays, options.threshold))
    meter.seconds["estimating"] -= meter.seconds["making the text"]
    meter.figures["ngrams"] = sum(len(table.word) for table in arrays.tables)
    meter.figures["pruned"] = sum(len(table) for table in pruned.tables)
    meter.save(folder / "measured.json")


# --------------------------------------------------------------------------------------------------------- manifests


def write_manifests(size: int, folder: Path) -> UserCorpusOptions:
    """Lhotse manifests of `size` utterances, and an empty file in place of each one's audio."""
    audio = folder / "audio"
    text = sentences(size * WORDS_PER_SENTENCE, 90_000)
    with (folder / "recordings.jsonl").open("w") as recordings, (folder / "supervisions.jsonl").open("w") as texts:
        for number, words in zip(range(size), text, strict=True):
            speaker = f"{number % SPEAKERS}"
            utt_id = f"{speaker}-{number // SPEAKERS // 40:04d}-{number // SPEAKERS:04d}"
            path = audio / speaker / f"{utt_id}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"%d" % number)
            length = {"num_samples": 12 * SAMPLES + number % SAMPLES, "duration": 12 + number % SAMPLES / SAMPLES}
            source = {"type": "file", "channels": [0], "source": str(path)}
            recording = {"id": utt_id, "sources": [source], "sampling_rate": SAMPLES, **length, "channel_ids": [0]}
            recordings.write(json.dumps(recording) + "\n")
            supervision = {"id": utt_id, "recording_id": utt_id, "start": 0.0, "duration": length["duration"]}
            texts.write(json.dumps({**supervision, "channel": 0, "text": " ".join(words), "speaker": speaker}) + "\n")
    return UserCorpusOptions(folder / "recordings.jsonl", folder / "supervisions.jsonl")


def measure_manifests(size: int, _: Options, folder: Path) -> None:
    """What the stages read and write of a user's corpus of `size` utterances; headers of audio are as stated."""
    given = write_manifests(size, folder)
    meter = Meter()
    corpus = Corpus(
        "growth", prepare_user_corpus, lambda _: "cmudict", False, "", files=user_corpus_files, audio=user_corpus_audio
    )
    options = RunOptions(corpus_dir=folder, exp_dir=folder / "exp", corpora=given)
    _, paths = meter("first listing", lambda: list_sources(corpus, options))
    (folder / "exp/corpus").mkdir(parents=True)
    write_json(folder / "exp/corpus" / PATHS_FILE, paths)
    with patch("asrkd.data.segments._recording", stated_recording):
        splits = meter("stage 0: read, hold out, look for copies", lambda: prepare_user_corpus(folder, given))
    saved = {name: folder / name for name in splits}
    meter("stage 0: write", lambda: [save_split(split, saved[name]) for name, split in splits.items()])
    loaded = meter("stage 1: read", lambda: {name: load_split(path) for name, path in saved.items()})
    good = meter(
        "stage 1: validate",
        lambda: {name: validate(one, SAMPLES, read_audio=False)[0] for name, one in loaded.items()},
    )
    audio = {name: {one.id: stated_file(one) for one in split.recordings} for name, split in good.items()}
    meter("stage 1: fingerprint", lambda: [content_fingerprint(one, audio[name], []) for name, one in good.items()])
    meter("each step of stage 3: transcripts", lambda: [load_transcripts(path) for path in saved.values()])
    meter("listing of a run that has nothing to do", lambda: list_sources(corpus, options))
    meter.save(folder / "measured.json")


def stated_recording(segment: Segment, *_: object) -> Recording:
    """The recording of a segment as its manifest states it."""
    assert segment.expected is not None
    source, stated = AudioSource("file", [0], str(segment.path)), segment.expected
    return Recording(segment.utt_id, [source], stated.sampling_rate, stated.num_samples, stated.duration_sec)


def stated_file(recording: Recording) -> AudioFile:
    """An audio file as an earlier run has seen it."""
    path = recording.sources[0].source
    return AudioFile(path=path, bytes=1, mtime_ns=1, ctime_ns=1, fingerprint=f"{hash(path) % 2**64:016x}")


# ------------------------------------------------------------------------------------------------------------ graphs


def measure_graph(size: int, options: Options, folder: Path) -> None:
    """Build and read HCLG of `size` words with a pruned trigram, and walk its grammar."""
    torch.set_num_threads(1)
    tree, transitions, _ = load_hmm(finished_run(options.exp_dir) / "tree")
    arrays = estimate_arrays(sentences(GRAPH_TEXT, size), 3, word_names(size), folder)
    model = prune_arrays(arrays, options.threshold)
    rng = np.random.default_rng(0)
    phones = [phone for phone in tree.phones if phone != SILENCE]
    drawn = {word: rng.integers(0, len(phones), rng.integers(3, 11)) for word in word_names(size)}
    lexicon = Lexicon({word: (tuple(phones[i] for i in ids),) for word, ids in drawn.items()})
    meter = Meter()
    graph = meter("HCLG", lambda: build_hclg(lexicon, model, tree, transitions, GraphOptions()))
    meter("save", lambda: graph.save(folder / "graph.safetensors"))
    meter("load", lambda: DecodingGraph.load(folder / "graph.safetensors"))
    meter.figures |= {"states": graph.num_states, "arcs": graph.num_arcs}
    grammar = meter("G", lambda: grammar_fst(model, word_labels(lexicon), backoff_label(lexicon)))
    walk = meter("walk: index", lambda: GrammarWalk(grammar.fst))
    labels = word_labels(lexicon)
    texts = [[labels[word] for word in sentence] for sentence in sentences(WALKED, size)]
    meter("walk: words", lambda: [walk_through(walk, one) for one in texts])
    refs = {f"{n}": sentence for n, sentence in enumerate(sentences(WALKED, size))}
    hyps = {f"{n}": [*sentence[1:], "X"] for n, sentence in enumerate(sentences(WALKED, size))}
    meter("word errors", lambda: wer(refs, hyps).percent)
    meter.figures |= {"ngrams": sum(len(table) for table in model.tables)}
    meter.save(folder / "measured.json")


def walk_through(walk: GrammarWalk, labels: Sequence[int]) -> float:
    """The cost of a sentence."""
    total, state = walk.start()
    for label in labels:
        cost, state = walk.step(state, label)
        total += cost
    return total + walk.end(state)


MEASURES = {"text": measure_text, "manifests": measure_manifests, "graph": measure_graph}


def measure(options: Options) -> Table:
    """The table of one part, a row for each size; each size in a process of its own."""
    found = {}
    for size in options.sizes or SIZES[options.part]:
        with tempfile.TemporaryDirectory(dir=options.tmp_dir) as name, one_core():
            folder = Path(name)
            run_in_subprocess(lambda size=size, folder=folder: MEASURES[options.part](size, options, folder))
            found[size] = json.loads((folder / "measured.json").read_text(encoding="utf-8"))
    return TABLES[options.part](found)


def text_table(found: Mapping[int, Any]) -> Table:
    """Language models of texts."""
    rows = []
    for size, one in found.items():
        seconds = one["seconds"]
        rows.append((
            f"{size}", f"{one['ngrams'] / 1e6:.1f}", f"{seconds['estimating']:.0f}", f"{seconds['pruning']:.0f}",
            f"{one['gigabytes']:.2f}", f"{one['disk']:.2f}", f"{one['pruned'] / 1e6:.2f}",
        ))  # fmt: skip
    columns = (
        "million words",
        "million n-grams",
        "s to estimate",
        "s to prune",
        "GB memory",
        "GB disk",
        "million left",
    )
    largest = found.get(GOAL_SIZE)
    reached = "not measured" if largest is None else verdict(largest["gigabytes"], MEMORY_GOAL, False)
    notes = (
        f"Goal: {MEMORY_GOAL:g} GB at {GOAL_SIZE} million words: {reached}.",
        "Memory is without pages of files, which the system takes back when others need it.",
        "Seconds are of the processor.",
    )
    return Table("Trigram of a text with 200,000 words, pruned; one core", columns, rows, notes, {"sizes": found})


def seconds_table(title: str, unit: str, goal: str) -> Callable[[Mapping[int, Any]], Table]:
    """A table with a column for each size and a row for each part."""

    def table(found: Mapping[int, Any]) -> Table:
        parts = list(dict.fromkeys(name for one in found.values() for name in one["seconds"]))
        rows = [[f"{name}, s", *(f"{one['seconds'][name]:.1f}" for one in found.values())] for name in parts]
        rows.append(["peak memory, GB", *(f"{one['gigabytes']:.2f}" for one in found.values())])
        for name in ("ngrams", "states", "arcs"):
            if all(name in one for one in found.values()):
                rows.append([name, *(f"{one[name]:,.0f}" for one in found.values())])
        columns = (unit, *(f"{size:,}" for size in found))
        return Table(title, columns, rows, (goal, "Seconds are of the processor."), {"sizes": found})

    return table


TABLES: Mapping[str, Callable[[Mapping[int, Any]], Table]] = {
    "text": text_table,
    "manifests": seconds_table(
        "A user's corpus of Lhotse manifests",
        "utterances",
        "Goal: a run that has nothing to do lists its corpus in seconds.",
    ),
    "graph": seconds_table(
        "Decoding graph of synthetic words and a pruned trigram", "words", "Floor: 20 bytes an arc."
    ),
}


if __name__ == "__main__":
    main(Options, measure, __doc__)
