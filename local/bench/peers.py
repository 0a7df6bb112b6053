"""Recognisers that people would take instead: errors and real-time factors on the test set of a finished run.

    local/setup_tools.sh peers
    .venv/bin/python local/bench/peers.py --exp-dir exp/mini_librispeech

pocketsphinx 5 comes with its model, dictionary and trigram of English, and decodes whole utterances with its defaults.
It also decodes with the language model and the dictionary of the run, if its model has the run's phones. Against it
stand the distilled student, as the recipe decodes it, and its exported model, as `asrkd transcribe` does. All have
one core, and their processor seconds count from samples to words: features, scores and search, without loading.
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
from bench import Table, main, one_core, verdict
from exported import model_of
from lhotse import RecordingSet, SupervisionSet

from asrkd.data.audio import read_samples
from asrkd.data.manifests import load_split
from asrkd.data.resample import resample
from asrkd.data.splits import CorpusSplit
from asrkd.decode import Searcher, decode
from asrkd.errors import InputError
from asrkd.features.fbank import compute_features
from asrkd.features.store import FrameStore
from asrkd.lang.lexicon import Lexicon
from asrkd.recipe.evaluate import Acoustics, Run, open_graph, tuned
from asrkd.recipe.features import read_prior, split_features
from asrkd.recipe.folders import RunFolders
from asrkd.recipe.options import SpeechOptions, options_of_run
from asrkd.runtime.model import Model, load
from asrkd.runtime.transcribe import TranscribeOptions, transcribe_samples
from asrkd.scoring.words import WordErrors, wer
from asrkd.workflow.executor import SERIAL

PEER_RATE = 16_000  # of pocketsphinx's model, Hz
PEER_SCRIPT = Path(__file__).with_name("pocketsphinx_words.py")
# Speech of the bandwidth and kind that the peer was trained for, measured where it was run.
BROADBAND = Path("exp/mini_librispeech")
SAME, FASTER = "pocketsphinx, language model of the run", "asrkd transcribe --no-confidences"
RTF_GOAL = 0.4
# Of pocketsphinx's model of English.
PEER_PHONES = frozenset(
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH".split()
)
DISTILLED = Run("distilled", 0, ("students/distilled",))


@dataclass(frozen=True)
class Options:
    """What is recognised, and by what."""

    exp_dir: Path | None = None
    """folder of a finished run of English; none: exp/mini_librispeech where it is, else a small one"""
    model: Path | None = None
    """its exported model; none: RUN_model, which is exported where it is missing"""
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


def by_pocketsphinx(split: CorpusSplit, python: Path, options: Mapping[str, str]) -> Recognised:
    """By pocketsphinx with options of its decoder, in a process of the interpreter that has it."""
    if not python.is_file():
        raise InputError(f"{python}: no such interpreter; local/setup_tools.sh peers makes it")
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for one in split.supervisions:
            recording = split.recordings[one.recording_id]
            samples = resample(read_samples(recording)[0], recording.sampling_rate, PEER_RATE)
            files[one.id] = str(Path(folder, f"{len(files)}.raw"))
            np.clip(np.rint(samples * 2**15), -(2**15), 2**15 - 1).astype("<i2").tofile(files[one.id])
        given = json.dumps({"files": files, "options": dict(options)})
        done = subprocess.run([str(python), str(PEER_SCRIPT)], input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"{python} {PEER_SCRIPT.name}: expected words, found an error: {done.stderr.strip()[-300:]}")
    answer = json.loads(done.stdout)
    words = {utt_id: text.upper().split() for utt_id, text in answer["words"].items()}
    return Recognised(words, answer["seconds"])


def by_transcribe(split: CorpusSplit, model: Model, confidences: bool) -> Recognised:
    """By the exported model, each utterance as a file of its own."""
    options, words, seconds = TranscribeOptions(confidences=confidences), {}, 0.0
    for one in split.supervisions:
        recording = split.recordings[one.recording_id]
        samples = read_samples(recording)[0]
        start = time.process_time()
        transcript = transcribe_samples(model, samples, recording.sampling_rate, options)
        seconds += time.process_time() - start
        words[one.id] = transcript.text.split()
    return Recognised(words, seconds)


def write_dictionary(lexicon: Lexicon, path: Path) -> bool:
    """The run's pronunciations as pocketsphinx reads them; False where the peer does not have their phones."""
    lines = []
    for word, prons in lexicon.prons.items():
        for number, pron in enumerate(prons, start=1):
            if not PEER_PHONES.issuperset(pron):
                return False
            lines.append(f"{word}{f'({number})' if number > 1 else ''} {' '.join(pron)}\n")
    path.write_text("".join(lines), encoding="utf-8")
    return True


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
    exp, model_path = model_of(options.exp_dir or (BROADBAND if BROADBAND.is_dir() else None), options.model)
    run = options_of_run(exp)
    store = FrameStore.open(RunFolders(exp).features("test"))
    split = first_minutes(load_split(RunFolders(exp).manifests("test")), store.utt_ids, options.minutes)
    refs = {one.id: store.texts[store.index(one.id)].split() for one in split.supervisions}
    audio_sec = sum(one.duration for one in split.supervisions)
    model = load(model_path)
    recognised = {}
    with one_core(), tempfile.TemporaryDirectory() as folder:
        recognised["pocketsphinx"] = by_pocketsphinx(split, options.python, {})
        dictionary = Path(folder, "dictionary")
        if write_dictionary(Lexicon.load(RunFolders(exp).decode_lexicon), dictionary):
            given = {"lm": str(RunFolders(exp).arpa), "dict": str(dictionary)}
            recognised[SAME] = by_pocketsphinx(split, options.python, given)
        recognised["distilled student, recipe"] = by_student(split, run)
        recognised["asrkd transcribe"] = by_transcribe(split, model, confidences=True)
        recognised[FASTER] = by_transcribe(split, model, confidences=False)
    errors = {name: wer(refs, one.words) for name, one in recognised.items()}
    rtfs = {name: one.seconds / audio_sec for name, one in recognised.items()}
    rows = [row(name, errors[name], rtfs[name]) for name in recognised]
    if SAME in rtfs:
        ratio = rtfs[FASTER] / rtfs[SAME]
        met = verdict(ratio, RTF_GOAL, more_is_better=False)
        goal = (
            f"With the same language model and no confidences, transcribe takes {ratio:.2f} of pocketsphinx's time: "
            f"the goal of {RTF_GOAL:g} is {met}.",
        )
    else:
        goal = ("pocketsphinx does not have the phones of this run, so it cannot take its dictionary.",)
    rate = next(iter(split.recordings)).sampling_rate
    resampled = f"The speech of {rate:,} Hz is resampled to {PEER_RATE:,} Hz, as its model wants it: not its own field."
    return Table(
        f"{exp.name}: test set, {len(refs)} utterances, {audio_sec / 60:.1f} minutes, one core",
        ("recogniser", "WER %", "ins", "del", "sub", "RTF"),
        rows,
        (
            "pocketsphinx has its own model, dictionary and trigram, trained on other and far more speech and text.",
            *goal,
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
