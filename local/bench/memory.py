"""Memory: the peak of every step from stage 4 to stage 8, for training sets of several sizes.

The frames are random, around a mean for each phone, and their transcripts are of a small lexicon; there is no audio.
Each step is a process of its own that may have `limit_gb` gigabytes of data (RLIMIT_DATA). A step that was measured is
not run again, and a step that was killed is resumed, so a long measurement can be repeated until it ends.

.venv/bin/python local/bench/memory.py --frames 500000 2000000 8000000
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from bench import Table, main, verdict
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # local/, for same_run
from lhotse import AudioSource, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from same_run import differences, num_compared

from asrkd.align import FlatStartOptions
from asrkd.align.flat_start import GaussianTask
from asrkd.align.viterbi import AlignedBatch, AlignedUtterance, Batch
from asrkd.data.manifests import save_split
from asrkd.data.splits import CorpusSplit
from asrkd.distil.loss import DistilOptions
from asrkd.errors import InputError
from asrkd.features.store import FrameStore, Utterance
from asrkd.files import read_object, write_json
from asrkd.hmm.alignment import Alignment, Columns
from asrkd.hmm.tree import TreeOptions
from asrkd.lang.lexicon import Lexicon
from asrkd.nnet import TrainOptions
from asrkd.nnet.model_options import ModelOptions
from asrkd.recipe import labels, networks
from asrkd.recipe.corpus import REJECTED_FILE
from asrkd.recipe.cost_estimate import CostOptions, Rates, cost_estimate
from asrkd.recipe.folders import ALIGNMENT_FILE, RunFolders
from asrkd.recipe.options import ContextOptions, EnsembleOptions, LabelOptions, SpeechOptions, StudentsOptions
from asrkd.recipe.students import students

PHONES = tuple("ABCDEFGHIJKL")
NUM_FEATURES = 40
SAMPLING_RATE = 16000
DEV_FRAMES = 20_000
MIN_STATE_FRAMES, MAX_STATE_FRAMES = 1, 4
MIN_WORDS, MAX_WORDS = 10, 60
SPREAD = 2.0  # of the phones' means, in standard deviations of their frames
TRUTH_FILE = "truth.safetensors"
SAMPLE_SEC = 0.02
FRAMES_PER_HOUR = 360_000
MEAN_FRAMES = 630  # of an utterance: 34.5 words of 9 states, and two pauses, of 2 frames each
MAX_ERROR = 0.2
DONE_FILE = "memory.json"


@dataclass(frozen=True)
class Options:
    """What is run."""

    frames: tuple[int, ...] = (500_000, 2_000_000, 8_000_000)
    """training frames, a run for each"""
    limit_gb: float = 3.0
    """gigabytes of data that a process may have (RLIMIT_DATA)"""
    shard_frames: int = 250_000
    """training frames in a shard; two shards are in memory"""
    search: bool = True
    """align with k2; else alignments are those that the frames were made from, which takes a fraction of the time"""
    same_frames: int = 100_000
    """frames of two runs, one with the limit and one without, whose results are compared; 0: none"""
    work_dir: Path = Path("exp/memory")
    """folder of the runs"""


def measure(options: Options) -> Table:
    """The table of this benchmark."""
    measured = {}
    for frames in options.frames:
        measured[frames] = run_all(options.work_dir / str(frames), frames, options)
        shutil.rmtree(options.work_dir / str(frames) / "posteriors", ignore_errors=True)
    largest = measured[options.frames[-1]]
    estimate = estimated(options.frames[-1], options)
    rows = [
        [
            step,
            *(_gb(steps[step]["bytes"]) for steps in measured.values()),
            _gb(estimate[step]) if step in estimate else "",
            f"{largest[step]['seconds']:,.0f}",
        ]
        for step in largest
    ]
    sizes = [f"{frames / 1e6:g} M frames: GB" for frames in options.frames]
    errors = {
        f"{step} of {frames / 1e6:g} M frames": abs(estimated(frames, options)[step] / steps[step]["bytes"] - 1.0)
        for frames, steps in measured.items()
        for step in estimate
    }
    worst = max(errors, key=errors.__getitem__)
    return Table(
        f"Peak memory of each step's largest process, limited to {options.limit_gb:g} GB of data; tiny networks, one "
        f"epoch, shards of {options.shard_frames:,} frames",
        ("step", *sizes, "estimated", "s"),
        rows,
        (
            "Memory is RssAnon: what a process has allocated, without the mapped files, which the system may drop.",
            "Estimated memory (`asrkd estimate`) and seconds are of the last size.",
            f"Goal: an estimate within {MAX_ERROR:.0%}: the largest error is {errors[worst]:.0%} ({worst}), "
            f"{verdict(errors[worst], MAX_ERROR, more_is_better=False)}.",
            *([] if options.search else ["k2 aligned nothing: alignments are those that the frames were made from."]),
            *_same_results(options),
        ),
        {f"{frames} {step}": value for frames, steps in measured.items() for step, value in steps.items()},
    )


def estimated(frames: int, options: Options) -> dict[str, int]:
    """Bytes of memory by `asrkd estimate`, of the steps that it covers."""
    run = _run_options(Path(), options)
    chosen = CostOptions(
        hours=frames / FRAMES_PER_HOUR,
        utterance_sec=MEAN_FRAMES / FRAMES_PER_HOUR * 3600,
        features=NUM_FEATURES,
        context=run.context.left + 1 + run.context.right,
        senones=run.tree.num_leaves,
        phones=len(PHONES) + 1,
        teachers=run.ensemble.size,
        teacher=run.teacher,
        student=run.student,
        posteriors=run.posteriors,
        train=run.train,
        device="cpu",
    )
    costs = {cost.part: cost.memory_bytes for cost in cost_estimate(chosen, Rates(1.0, 1.0, 1.0, measured=False))}
    of_step = {"align": "align", "tree": "tree"} if options.search else {}  # of a process that searches
    of_step |= {"teachers/0": "teachers", "teachers/1": "teachers"}
    of_step |= {"posteriors": "posteriors", "students/distilled": "student"}
    return {step: costs[part] for step, part in of_step.items()}


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.2f}"


def _same_results(options: Options) -> tuple[str, ...]:
    """A note on two runs of a small set, with and without the limit."""
    if not options.same_frames:
        return ()
    limited, free = (options.work_dir / f"same_{name}" for name in ("limited", "free"))
    for folder, limit in ((limited, options.limit_gb), (free, None)):
        run_all(folder, options.same_frames, options, limit)
    changes = [line for line in differences(free, limited) if not line.startswith((DONE_FILE, "config"))]
    found = f"{len(changes)} differ: {changes[0]}" if changes else "all the same"
    return (f"{num_compared(free)} files of {options.same_frames:,} frames with the limit and without: {found}.",)


def run_all(folder: Path, frames: int, options: Options, limit_gb: float | None = -1.0) -> dict[str, dict[str, float]]:
    """Seconds and peak bytes of each step of a run; -1: the limit of the options."""
    limit = options.limit_gb if limit_gb == -1.0 else limit_gb
    done_file = folder / DONE_FILE
    done: dict[str, dict[str, float]] = read_object(done_file) if done_file.is_file() else {}
    for name, step in _steps(folder, frames, options):
        if name not in done:
            print(f"== {folder}: {name}", file=sys.stderr, flush=True)
            done[name] = run_limited(step, limit)
            print(f"   {done[name]}", file=sys.stderr, flush=True)
            write_json(done_file, done)
    return {name: value for name, value in done.items() if name != "data"}


def _steps(folder: Path, frames: int, options: Options) -> Iterator[tuple[str, Callable[[], None]]]:
    """The steps of stages 4 to 8, by the name of the folder that each writes."""
    run = _run_options(folder, options)

    def step(name: str, function: Callable[[Path], None]) -> tuple[str, Callable[[], None]]:
        def in_folder() -> None:
            (folder / name).mkdir(parents=True, exist_ok=True)
            if not options.search:
                _align_without_search()
            function(folder / name)

        return name, in_folder

    yield "data", partial(make_data, folder, frames)
    yield step("align", partial(labels.make_alignment, run))
    yield step("tree", partial(labels.make_tree, run))
    yield step("labels/dev", partial(_label_dev, run))
    for member in range(run.ensemble.size):
        yield step(f"teachers/{member}", partial(networks.train_teacher, member, run))
    yield step("posteriors", partial(networks.make_posteriors, run))
    distilled = next(student for student in students(run) if student.system == "distilled")
    yield step("students/distilled", partial(networks.train_student, distilled, run))


def _run_options(folder: Path, options: Options) -> SpeechOptions:
    """Tiny networks, one epoch, one round of everything."""
    return SpeechOptions(
        exp_dir=folder,
        device="cpu",
        num_jobs=1,
        max_bad=0.05,
        context=ContextOptions(2, 1),
        align=FlatStartOptions(num_phone_rounds=1, num_state_rounds=0),
        labels=LabelOptions(mono_rounds=1, tree_rounds=1, epochs=1),
        tree=TreeOptions(num_leaves=60),
        teacher=ModelOptions(16, 1, dropout=0.0),
        student=ModelOptions(16, 1, dropout=0.0),
        ensemble=EnsembleOptions(2),
        students=StudentsOptions(sweep_temperatures=()),
        distil=DistilOptions(temperature=2.0),
        train=TrainOptions(
            epochs=1, batch_size=4096, precision="float32", shard_frames=options.shard_frames, show_progress=False
        ),
    )


def _align_without_search() -> None:
    """In this process, let tasks that align batches give the paths that the frames were made from."""

    def open_truth(task: GaussianTask | labels.RealignTask) -> Callable[[Batch], AlignedBatch]:
        truth = Alignment.load(task.features.with_name(TRUTH_FILE))

        def paths(batch: Batch) -> AlignedBatch:
            spans = [truth.span(transcript.utt_id) for transcript in batch]
            columns = (truth.phone_id, truth.state, truth.segment)
            arrays = ([column[span].clone().numpy() for column in columns] for span in spans)
            return [AlignedUtterance(*of_frames, 0.0, False) for of_frames in arrays]

        return paths

    for task in (GaussianTask, labels.RealignTask):
        task.open = open_truth  # type: ignore[assignment,method-assign]


def _label_dev(run: SpeechOptions, out_dir: Path) -> None:
    """Labels of the development set, as `labels.label_split` makes them, without a corpus."""
    folders = RunFolders(run.exp_dir)
    aligner = folders.tree / labels.ALIGNER_FOLDER
    task = labels.RealignTask(folders.features("dev"), folders.lexicon, aligner, run.context, run.realign)
    labels.realign(task, run, out_dir / labels.CACHE_FILE, "align dev").save(out_dir / ALIGNMENT_FILE)
    (out_dir / labels.CACHE_FILE).unlink()


def make_data(folder: Path, frames: int) -> None:
    """What stages 1 to 3 leave: frames of both sets, a lexicon; one training utterance is excluded from training."""
    folders = RunFolders(folder)
    generator = np.random.default_rng(0)
    words = {"".join(generator.choice(PHONES, 3)): None for _ in range(60)}
    prons = {word: (tuple(word),) for word in words}
    lexicon = Lexicon(prons)
    folders.lexicon.parent.mkdir(parents=True, exist_ok=True)
    lexicon.save(folders.lexicon)
    means = generator.standard_normal((len(PHONES) + 1, NUM_FEATURES), dtype=np.float32) * SPREAD
    for split, number in (("train", frames), ("dev", DEV_FRAMES)):
        path = folders.features(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        paths: list[NDArray[np.int8]] = []
        utterances = _utterances(split, number, sorted(words), means, generator, paths)
        store = FrameStore.write(path, utterances, {"frame_shift_ms": 10.0}, f"{split} {number}")
        _truth(store, lexicon.phones, paths).save(path.with_name(TRUTH_FILE))
        folders.losses(split).parent.mkdir(parents=True, exist_ok=True)
        excluded = {"train-000001": "doubtful"} if split == "train" else {}
        write_json(folders.losses(split), {"excluded": excluded})
        save_split(_manifests(store), folders.manifests(split))
        write_json(folders.manifests(split) / REJECTED_FILE, [])


def _utterances(
    split: str,
    frames: int,
    words: list[str],
    means: NDArray[np.float32],
    generator: np.random.Generator,
    paths: list[NDArray[np.int8]],
) -> Iterator[Utterance]:
    """Utterances of random words until there are so many frames. The first has too few frames for its words.

    `paths` gets phone and state of each frame, [2, T].
    """
    made = 0
    number = 0
    while made < frames:
        text = generator.choice(words, generator.integers(MIN_WORDS, MAX_WORDS))
        phones = [0, *(PHONES.index(phone) + 1 for word in text for phone in word), 0]
        lengths = generator.integers(MIN_STATE_FRAMES, MAX_STATE_FRAMES, 3 * len(phones))
        states = np.repeat(np.arange(3 * len(phones)), lengths)
        phone_id = np.asarray(phones)[states // 3]
        feats = means[phone_id]
        feats += generator.standard_normal(feats.shape, dtype=np.float32)
        if split == "train" and number == 0:
            feats, phone_id, states = feats[:20], phone_id[:20], states[:20]
        paths.append(np.stack([phone_id, states % 3]).astype(np.int8))
        yield f"{split}-{number:06d}", f"speaker{number % 100}", " ".join(text), torch.from_numpy(feats)
        made += len(feats)
        number += 1


def _truth(store: FrameStore, phones: tuple[str, ...], paths: list[NDArray[np.int8]]) -> Alignment:
    """The alignment that the frames were made from."""
    columns = Columns.create(len(store), None)
    for begin, path in zip(store.offsets.tolist(), paths, strict=False):
        phone_id, state = torch.from_numpy(path)
        frames = slice(begin, begin + len(state))
        columns.phone_id[frames], columns.state[frames] = phone_id, state
        starts = (state == 0) & (torch.nn.functional.pad(state[:-1], (1, 0), value=-1) != 0)
        columns.segment[frames] = starts.cumsum(0).int() - 1
    log_like = torch.zeros(len(store.utt_ids), dtype=torch.double)
    return Alignment(store.utt_ids, store.offsets, *columns, phones, store.fingerprint, log_like)


def _manifests(store: FrameStore) -> CorpusSplit:
    """Manifests of recordings that do not exist: the steps count their utterances."""
    recordings, supervisions = [], []
    for number, (utt_id, speaker, text) in enumerate(zip(store.utt_ids, store.speakers, store.texts, strict=True)):
        frames = int(store.offsets[number + 1] - store.offsets[number])
        sec = frames * store.frame_shift_ms / 1000.0
        source = AudioSource("file", [0], f"{utt_id}.wav")
        recordings.append(Recording(utt_id, [source], SAMPLING_RATE, int(sec * SAMPLING_RATE), sec))
        supervisions.append(SupervisionSegment(utt_id, utt_id, 0.0, sec, 0, text, speaker=speaker))
    return CorpusSplit(RecordingSet.from_recordings(recordings), SupervisionSet.from_segments(supervisions))


def run_limited(step: Callable[[], None], limit_gb: float | None) -> dict[str, float]:
    """Run a step in a forked process; its seconds, and the peak bytes of it or of one of its own processes."""
    process = multiprocessing.get_context("fork").Process(target=_limited, args=(step, limit_gb))
    start = time.perf_counter()
    process.start()
    peak = 0
    while process.is_alive():
        peak = max(peak, *map(_anonymous_bytes, [process.pid, *_children(process.pid)]))
        time.sleep(SAMPLE_SEC)
    process.join()
    if process.exitcode:
        raise InputError(f"a step's process ended with status {process.exitcode}")
    return {"seconds": time.perf_counter() - start, "bytes": peak}


def _limited(step: Callable[[], None], limit_gb: float | None) -> None:
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a step prints is not of the table
    if limit_gb is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit_gb * 1e9), int(limit_gb * 1e9)))
    step()


def _children(pid: int | None) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]
    except OSError:  # it has ended
        return []


def _anonymous_bytes(pid: int | None) -> int:
    """Memory that a process has allocated, without mapped files; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main(Options, measure, __doc__)
