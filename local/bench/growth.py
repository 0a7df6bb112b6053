"""Corpora, texts and vocabularies of the size of LibriSpeech's: seconds and memory against size, on one core.

    .venv/bin/python local/bench/growth.py --part text --sizes 1 5 20 100          # million words of a text
    .venv/bin/python local/bench/growth.py --part manifests --sizes 20000 281241   # utterances
    .venv/bin/python local/bench/growth.py --part graph --sizes 20000 200000       # words

All of it is synthetic. The text has the words of a Zipf vocabulary, most of which lean on the word before. The speech
is acoustic scores around a random path through the graph. No audio is needed.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar
from unittest.mock import patch

import numpy as np
import torch
from bench import Table, finished_run, main, one_core, verdict
from lhotse import Recording
from lhotse.audio import AudioSource
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from asrkd.data.corpora.user import UserCorpusOptions, prepare_user_corpus, user_corpus_audio, user_corpus_files
from asrkd.data.manifests import AudioFile, content_fingerprint, load_split, load_transcripts, save_split
from asrkd.data.segments import Segment
from asrkd.data.transcripts import SILENCE
from asrkd.data.validate import validate
from asrkd.decode import DecodeOptions, Hypotheses, Searcher, tune
from asrkd.decode.k2_search import K2Search
from asrkd.decode.lattice import Lattices
from asrkd.decode.options import SearchName
from asrkd.decode.rescore import DecodedUtterance, Grammars, Rescorer
from asrkd.errors import InputError
from asrkd.files import write_json
from asrkd.graph.build import GraphOptions, build_hclg
from asrkd.graph.decoding_graph import DecodingGraph
from asrkd.graph.grammar import grammar_fst
from asrkd.graph.hmm_states import FINAL_LABEL
from asrkd.graph.on_demand import GrammarWalk
from asrkd.graph.pronunciations import backoff_label, word_labels
from asrkd.lang.kneser_ney import estimate_arrays
from asrkd.lang.lexicon import Lexicon
from asrkd.lang.ngram import read_arpa
from asrkd.lang.pruning import prune_arrays
from asrkd.recipe.corpus import PATHS_FILE, Corpus, list_sources
from asrkd.recipe.labels import load_hmm
from asrkd.recipe.options import SpeechOptions
from asrkd.scoring.words import wer
from asrkd.workflow.child_process import run_in_subprocess

Result = TypeVar("Result")
Rows = dict[str, Any]
"""What one process measured: gigabytes, seconds by name, and other figures."""

VOCABULARY = 200_000
LETTERS = 26
WORDS_PER_SENTENCE, DRAWN_AT_ONCE = 20, 1_000_000
LEANING, FOLLOWERS = 0.7, 20  # the share of words that are one of so many followers of the word before
SAMPLES = 16_000  # a second of audio
SPEAKERS = 2_338  # of LibriSpeech's training sets
GRAPH_TEXT = 5_000_000
LARGER = 10  # the model that rescores is pruned so many times less than the one that decodes
UTTERANCES, FRAMES = 10, 500  # of speech; an utterance goes on to the next end of a sentence
GAIN, SPREAD = 6.0, 2.0  # of acoustic scores: of the right senone, and the deviation of all
BEAM = 13.0
TESTED = 2_620  # utterances of a test set
MEMORY_GOAL, GOAL_SIZE = 4.0, 100  # GB, million words
BYTES_PER_ARC = 20  # three numbers, a score and a row of words
SAMPLE_SEC = 0.02
# Million words of a text, utterances, words of a graph.
SIZES = {"text": (1, 5, 20, 100), "manifests": (20_000, 281_241), "graph": (20_000, 200_000)}


@dataclass(frozen=True)
class Options:
    """What is measured, at which sizes."""

    part: Literal["text", "manifests", "graph"] = "graph"
    """language model of a text; manifests and listings of a user's corpus; decoding graph"""
    sizes: tuple[int, ...] = ()
    """million words, utterances or words; default: several sizes of each part that take minutes"""
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
    """Processor seconds of the parts of one process, and other figures by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.figures: dict[str, float] = {}

    def __call__(self, name: str, function: Callable[[], Result]) -> Result:
        start = time.process_time()
        result = function()
        self.seconds[name] = time.process_time() - start
        return result


def measured(step: Callable[[Meter], None], folder: Path) -> Rows:
    """Run a step in a forked process: its seconds and figures, and its peak memory without pages of files (RssAnon).

    This process looks at the other one's memory: there, a long call of a library keeps every thread of Python waiting.
    """
    path = folder / "measured.json"

    def run() -> None:
        torch.set_num_threads(1)
        meter = Meter()
        step(meter)
        path.write_text(json.dumps({"seconds": meter.seconds, **meter.figures}), encoding="utf-8")

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    peak = 0
    while process.is_alive():
        peak = max(peak, _anonymous_bytes(process.pid))
        time.sleep(SAMPLE_SEC)
    process.join()
    if process.exitcode:
        raise InputError(f"expected a process that ends without an error, found status {process.exitcode}")
    return {"gigabytes": peak / 1e9, **json.loads(path.read_text(encoding="utf-8"))}


def _anonymous_bytes(pid: int | None) -> int:
    """Memory that a process has allocated, without mapped files; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


# ------------------------------------------------------------------------------------------------------------- texts


def measure_text(size: int, options: Options, folder: Path) -> dict[str, Rows]:
    """Estimate a trigram of `size` million words, and prune it."""

    def estimate(meter: Meter) -> None:
        meter("making the text", lambda: sum(1 for _ in sentences(size * 1_000_000)))
        arrays = meter("estimating", lambda: estimate_arrays(sentences(size * 1_000_000), 3, None, folder))
        meter.figures["disk"] = sum(file.stat().st_size for file in folder.glob("*.bin")) / 1e9
        pruned = meter("pruning", lambda: prune_arrays(arrays, options.threshold))
        meter.seconds["estimating"] -= meter.seconds["making the text"]
        meter.figures["ngrams"] = sum(len(table.word) for table in arrays.tables)
        meter.figures["pruned"] = sum(len(table) for table in pruned.tables)

    return {"trigram": measured(estimate, folder)}


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


def measure_manifests(size: int, _: Options, folder: Path) -> dict[str, Rows]:
    """What the stages read and write of a user's corpus of `size` utterances; headers of audio are as stated."""
    given = write_manifests(size, folder)
    corpus = Corpus(
        "growth", prepare_user_corpus, lambda _: "cmudict", False, "", files=user_corpus_files, audio=user_corpus_audio
    )
    options = RunOptions(corpus_dir=folder, exp_dir=folder / "exp", corpora=given)
    saved = folder / "splits"

    def list_first(meter: Meter) -> None:
        _, paths = meter("first listing", lambda: list_sources(corpus, options))
        (folder / "exp/corpus").mkdir(parents=True)
        write_json(folder / "exp/corpus" / PATHS_FILE, paths)

    def prepare(meter: Meter) -> None:
        with patch("asrkd.data.segments._recording", stated_recording):
            splits = meter("read, hold out, look for copies", lambda: prepare_user_corpus(folder, given))
        meter("write", lambda: [save_split(split, saved / name) for name, split in splits.items()])

    def check(meter: Meter) -> None:
        loaded = meter("read", lambda: {path.name: load_split(path) for path in saved.iterdir()})
        good = {name: meter("validate", lambda one=one: _valid(one)) for name, one in loaded.items()}
        audio = {name: {one.id: stated_file(one) for one in split.recordings} for name, split in good.items()}
        meter("fingerprint", lambda: [content_fingerprint(one, audio[name], []) for name, one in good.items()])

    def read(meter: Meter) -> None:
        meter("transcripts", lambda: [load_transcripts(path) for path in saved.iterdir()])

    def list_again(meter: Meter) -> None:
        meter("listing of a run that has nothing to do", lambda: list_sources(corpus, options))

    steps = {"first run": list_first, "stage 0": prepare, "stage 1": check, "each step of stage 3": read}
    return {name: measured(step, folder) for name, step in {**steps, "later runs": list_again}.items()}


def _valid(split: Any) -> Any:
    return validate(split, SAMPLES, read_audio=False)[0]


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

LEXICON, MODEL, LARGER_MODEL, GRAPH = "lexicon.txt", "lm.arpa", "larger.arpa", "graph.safetensors"
OLD_GRAMMAR, NEW_GRAMMAR, SPEECH = "old.safetensors", "new.safetensors", "speech.safetensors"


def measure_graph(size: int, options: Options, folder: Path) -> dict[str, Rows]:
    """Stages 9 to 11 with `size` words and a pruned trigram, in a process for each row."""
    exp_dir = finished_run(options.exp_dir)
    run_in_subprocess(lambda: make_models(size, options, exp_dir, folder))
    found = {"stage 9: graph": measured(lambda meter: build(meter, exp_dir, folder), folder)}
    found["stage 9: grammars"] = measured(lambda meter: save_grammars(meter, folder), folder)
    run_in_subprocess(lambda: make_speech(folder))
    found["lattices by k2"] = measured(lambda meter: search(meter, "k2", True, folder), folder)
    found["best paths by k2"] = measured(lambda meter: search(meter, "k2", False, folder), folder)
    found["best paths by Kaldi"] = measured(lambda meter: search(meter, "kaldi", False, folder), folder)
    found["rescoring"] = measured(lambda meter: rescore(meter, folder), folder)
    found["words of a test set"] = measured(lambda meter: score(meter, folder), folder)
    return found


def make_models(size: int, options: Options, exp_dir: Path, folder: Path) -> None:
    """A lexicon of random pronunciations and two trigrams of one text: a pruned one, and a larger one to rescore."""
    tree, _, _ = load_hmm(exp_dir / "tree")
    arrays = estimate_arrays(sentences(GRAPH_TEXT, size), 3, word_names(size), folder)
    prune_arrays(arrays, options.threshold).write_arpa(folder / MODEL)
    prune_arrays(arrays, options.threshold / LARGER).write_arpa(folder / LARGER_MODEL)
    rng = np.random.default_rng(0)
    phones = [phone for phone in tree.phones if phone != SILENCE]
    drawn = {word: rng.integers(0, len(phones), rng.integers(3, 11)) for word in word_names(size)}
    Lexicon({word: (tuple(phones[i] for i in ids),) for word, ids in drawn.items()}).save(folder / LEXICON)


def build(meter: Meter, exp_dir: Path, folder: Path) -> None:
    """The graph of a lexicon and a language model in files, into a file."""
    tree, transitions, _ = load_hmm(exp_dir / "tree")
    lexicon = meter("read the lexicon", lambda: Lexicon.load(folder / LEXICON))
    model = meter("read the language model", lambda: read_arpa(folder / MODEL))
    graph = meter("HCLG", lambda: build_hclg(lexicon, model, tree, transitions, GraphOptions()))
    meter("save", lambda: graph.save(folder / GRAPH))
    meter.figures |= {"states": graph.num_states, "arcs": graph.num_arcs}
    meter.figures |= {"ngrams": sum(len(table) for table in model.tables)}


def save_grammars(meter: Meter, folder: Path) -> None:
    """The grammars of decoding and of rescoring, where a larger model rescores."""
    lexicon = Lexicon.load(folder / LEXICON)
    for source, target in ((MODEL, OLD_GRAMMAR), (LARGER_MODEL, NEW_GRAMMAR)):
        model = meter(f"read {source}", lambda source=source: read_arpa(folder / source))
        grammar = meter(f"G of {source}", lambda model=model: grammar_fst(model, *_labels(lexicon)))
        meter("save", lambda grammar=grammar, target=target: GrammarWalk(grammar.fst).save(folder / target))


def _labels(lexicon: Lexicon) -> tuple[dict[str, int], int]:
    return word_labels(lexicon), backoff_label(lexicon)


def make_speech(folder: Path) -> None:
    """Scores of utterances that follow random paths of the graph, and their words."""
    graph, rng = DecodingGraph.load(folder / GRAPH), np.random.default_rng(0)
    source, target, label = (column.numpy() for column in graph.arcs.T)
    first = np.searchsorted(source, np.arange(graph.num_states + 1))
    scores: dict[str, torch.Tensor] = {}
    refs = {}
    for number in range(UTTERANCES):
        state, path = 0, []
        while state != graph.num_states - 1:
            arcs = np.arange(first[state], first[state + 1])
            ends = arcs[label[arcs] == FINAL_LABEL]
            weights = graph.scores[arcs].numpy() + rng.gumbel(size=len(arcs))
            path.append(int(ends[0] if len(ends) and len(path) >= FRAMES else arcs[np.argmax(weights)]))
            state = int(target[path[-1]])
        pdf_ids = torch.from_numpy(label[path[:-1]] - 1).long()
        noise = torch.from_numpy(rng.normal(0.0, SPREAD, (len(pdf_ids), graph.num_pdfs))).float()
        noise[torch.arange(len(pdf_ids)), pdf_ids] += GAIN
        scores[f"utt{number}"] = noise
        refs[f"utt{number}"] = " ".join(graph.text(graph.words_on_arc[path]))
    save_file(scores, str(folder / SPEECH), metadata={"refs": json.dumps(refs)})


def load_speech(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, list[str]]]:
    """Scores and words by utt_id."""
    with safe_open(str(folder / SPEECH), framework="pt") as file:
        refs = json.loads(file.metadata()["refs"])
    return load_file(str(folder / SPEECH)), {utt_id: text.split() for utt_id, text in refs.items()}


def search(meter: Meter, name: SearchName, lattices: bool, folder: Path) -> None:
    """Load the graph and decode the utterances. k2's lattices, as `decode` collects them, go into a file."""
    scores, refs = load_speech(folder)
    graph = meter("load", lambda: DecodingGraph.load(folder / GRAPH))
    options = DecodeOptions(search=name, beam=BEAM)
    searcher = meter("open", lambda: Searcher(graph, scores, options, lattices).open())
    found = meter("decode", lambda: {utt_id: searcher(utt_id) for utt_id in scores})
    meter("an utterance of 3 frames", lambda: searcher.search(scores["utt0"][:3]))
    meter("another one", lambda: searcher.search(scores["utt0"][:3]))
    together = meter("collect", lambda: Lattices.of(graph, {utt_id: one.lattice for utt_id, one in found.items()}))
    words = together.best_paths(options.scales)
    speech = sum(one.num_frames for one in found.values()) / 100.0
    meter.figures |= {"rtf": meter.seconds["decode"] / speech, "wer": wer(refs, words).percent}
    if lattices:
        meter("posteriors of the frames' lattices", lambda: [arc_posteriors(searcher, one) for one in scores.values()])
        meter("save", lambda: Hypotheses(words, together, (), (), speech, 0.0, 0.0).save(folder))


def arc_posteriors(searcher: Searcher, scores: torch.Tensor) -> torch.Tensor:
    """[arcs] log-probability of each arc of the search's lattice, by forward and backward sums."""
    assert isinstance(searcher.search, K2Search)
    lattice = searcher.search.intersect(searcher.search.k2_graph, scores)
    return lattice.get_arc_post(use_double_scores=True, log_semiring=True)


def rescore(meter: Meter, folder: Path) -> None:
    """Lattices with the scores of the larger model."""
    lattices = Hypotheses.load(folder).lattices
    options = DecodeOptions(beam=BEAM)
    grammars = meter(
        "open", lambda: Grammars(*(GrammarWalk.load(folder / name) for name in (OLD_GRAMMAR, NEW_GRAMMAR)))
    )
    rescorer = Rescorer(grammars, lattices.word_sequences, options.scales, options.lattice_beam).open()
    meter("rescore", lambda: [rescorer(DecodedUtterance(lattices.utt(one), True)) for one in lattices.utt_ids])


def score(meter: Meter, folder: Path) -> None:
    """Scales, words and errors of as many utterances as a test set has."""
    few, (_, refs) = Hypotheses.load(folder), load_speech(folder)
    utt_ids = {f"{utt_id} {n}": utt_id for n in range(TESTED // UTTERANCES) for utt_id in refs}
    many = few.lattices.replaced({name: few.lattices.utt(one) for name, one in utt_ids.items()}, "growth")
    all_refs = {name: refs[one] for name, one in utt_ids.items()}
    Hypotheses({}, many, (), (), 1.0, 0.0, 0.0).save(folder)
    loaded = meter("load", lambda: Hypotheses.load(folder))
    meter("tune, a point", lambda: tune({"": loaded.lattices}, all_refs, (0.1,), (0.0,)))
    meter("some of them", lambda: loaded.lattices.without({"utt0 0"}))
    meter("word errors", lambda: wer(all_refs, loaded.lattices.best_paths(DecodeOptions().scales)))


# ------------------------------------------------------------------------------------------------------------ tables

MEASURES = {"text": measure_text, "manifests": measure_manifests, "graph": measure_graph}


def measure(options: Options) -> Table:
    """The table of one part."""
    found = {}
    for size in options.sizes or SIZES[options.part]:
        with tempfile.TemporaryDirectory(dir=options.tmp_dir) as name, one_core():
            found[size] = MEASURES[options.part](size, options, Path(name))
    return TABLES[options.part](found)


def text_table(found: Mapping[int, dict[str, Rows]]) -> Table:
    """Language models of texts."""
    rows = []
    for size, steps in found.items():
        one = steps["trigram"]
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
    reached = "not measured" if largest is None else verdict(largest["trigram"]["gigabytes"], MEMORY_GOAL, False)
    notes = (
        f"Goal: {MEMORY_GOAL:g} GB at {GOAL_SIZE} million words: {reached}.",
        "Memory is without pages of files, which the system takes back when others need it.",
        "Seconds are of the processor.",
    )
    return Table("Trigram of a text with 200,000 words, pruned; one core", columns, rows, notes, {"sizes": found})


def steps_table(title: str, unit: str, notes: Callable[[Mapping[int, dict[str, Rows]]], Sequence[str]]) -> Any:
    """A table with a pair of columns for each size, seconds and memory, and a row for each part of each step."""

    def table(found: Mapping[int, dict[str, Rows]]) -> Table:
        rows = []
        for step, one in next(iter(found.values())).items():
            for number, name in enumerate(one["seconds"]):
                columns = [
                    column
                    for steps in found.values()
                    for column in (
                        f"{steps[step]['seconds'][name]:.2f}",
                        "" if number else f"{steps[step]['gigabytes']:.2f}",
                    )
                ]
                rows.append(["" if number else step, name, *columns])
        columns = [column for size in found for column in (f"{size:,} {unit}: s", "GB")]
        return Table(title, ("step", "part", *columns), rows, (*notes(found), *COMMON_NOTES), {"sizes": found})

    return table


COMMON_NOTES = (
    "Each step is a process of its own, on one core. Seconds are of the processor. Memory is its peak without "
    "pages of files, which the system takes back when others need it.",
)


def manifest_notes(_: Mapping[int, dict[str, Rows]]) -> Sequence[str]:
    """The goal."""
    return ("Goal: a run that has nothing to do lists its corpus in seconds.",)


def graph_notes(found: Mapping[int, dict[str, Rows]]) -> Sequence[str]:
    """Sizes of the graphs, and how fast they decode."""
    notes = []
    for size, steps in found.items():
        graph = steps["stage 9: graph"]
        rtf = {name: steps[name] for name in steps if "rtf" in steps[name]}
        notes.append(
            f"{size:,} words: {graph['ngrams']:,} n-grams, {graph['states']:,} states, {graph['arcs']:,} arcs; floor: "
            f"{BYTES_PER_ARC} bytes an arc, {graph['arcs'] * BYTES_PER_ARC / 1e9:.2f} GB. Real-time factors: "
            + ", ".join(f"{name} {one['rtf']:.3f} ({one['wer']:.1f}% errors)" for name, one in rtf.items())
            + "."
        )
    return notes


TABLES: Mapping[str, Callable[[Mapping[int, Any]], Table]] = {
    "text": text_table,
    "manifests": steps_table("A user's corpus of Lhotse manifests", "utterances", manifest_notes),
    "graph": steps_table("A decoding graph of synthetic words and a pruned trigram", "words", graph_notes),
}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(Options, measure, __doc__)
