"""A recipe on a Dask cluster, under torchrun, in single jobs, taught by another system: the same results."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from loopback_cluster import cluster
from optional_packages import skip_without
from tiny_recipe import TinyRecipe
from torchrun_training import torchrun

from asrkd.align import TrainingCorpus, viterbi
from asrkd.data.manifests import load_split
from asrkd.decode import decode
from asrkd.distil.store import STORE_FILES, EnsemblePosteriors, PosteriorStore, write_store
from asrkd.features.fbank import compute_features
from asrkd.features.store import FrameStore
from asrkd.files import load_tensors, read_json
from asrkd.lang.lexicon import Lexicon
from asrkd.nnet.evaluate import iter_logits
from asrkd.recipe.evaluate import DecodeTask, Run, open_graph, tuned
from asrkd.recipe.folders import SPLITS, RunFolders
from asrkd.recipe.labels import RealignTask, load_hmm
from asrkd.recipe.networks import LabelledFrames, PosteriorTask, open_ensemble, teacher_folders
from asrkd.recipe.options import options_of_run
from asrkd.recipe.trained import trained_precision
from asrkd.workflow.executor import SERIAL, Executor
from asrkd.workflow.task import one_thread

pytestmark = pytest.mark.slow

TIMEOUT_SEC = 300


@pytest.fixture
def exp_dir(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to take steps away from."""
    return Path(shutil.copytree(finished, tmp_path / "exp"))


def run(tiny: TinyRecipe, exp_dir: Path, *more: str) -> str:
    done = tiny.run(exp_dir, *more)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def remove(exp_dir: Path, *steps: str) -> None:
    for step in steps:
        shutil.rmtree(exp_dir / step)


def require_same_bytes(found: Path, expected: Path, *names: str) -> None:
    for name in names:
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name


def words(exp_dir: Path, system: str) -> dict[str, str]:
    return read_json(exp_dir / "decode" / system / "hypotheses.json")["words"]


@pytest.mark.needs("distributed")
def test_a_cluster_that_loses_a_worker_makes_the_same(tiny: TinyRecipe, finished: Path, exp_dir: Path) -> None:
    """Features, alignments, posteriors and words; a worker is killed while the flat start aligns, another comes.

    Paths are relative to where the recipe runs; the workers run in another folder.
    """
    parent = exp_dir.parent
    remove(exp_dir, "manifests", "features", "align", "tree", "labels", "posteriors")
    remove(exp_dir, "decode/dev/distilled", "decode/tuning", "decode/teacher_0", "decode/distilled")
    folder = parent / "dask"
    folder.mkdir()
    with cluster(folder) as started:
        relative = replace(tiny, corpus_dir=Path(os.path.relpath(tiny.corpus_dir, parent)))
        command = [sys.executable, str(tiny.script)]
        command += relative.arguments(exp_dir.relative_to(parent), "--stop-stage", "10")
        command += ["--executor", "dask", "--scheduler", started.address]
        with (folder / "run.log").open("w") as log:
            recipe = subprocess.Popen(command, stdout=log, stderr=log, cwd=parent)
        deadline = time.monotonic() + TIMEOUT_SEC
        try:
            while not list(exp_dir.glob("align.partial/scratch/flat_start/gauss_1.*")) and recipe.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            started.kill(started.processes[1].pid)
            started.add_worker("another")
            assert recipe.wait(timeout=TIMEOUT_SEC) == 0, (folder / "run.log").read_text()[-2000:]
        finally:
            recipe.kill()
            recipe.wait()
    made = [line for line in (folder / "run.log").read_text().splitlines() if line.startswith("==")]
    # Those that were removed; and stage 0, for the corpus has another path, with the counts of losses that read it.
    assert len(made) == 19, "\n".join(made)
    here, there = RunFolders(exp_dir), RunFolders(finished)
    for split in SPLITS:
        require_same_bytes(here.features(split), there.features(split), "feats.safetensors")
        require_same_bytes(here.alignment(split).parent, there.alignment(split).parent, "alignment.safetensors")
    require_same_bytes(exp_dir / "align", finished / "align", "alignment.safetensors", "rounds.json")
    require_same_bytes(here.tree, there.tree, "tree.json", "hmm.safetensors")
    require_same_bytes(here.posteriors, there.posteriors, *STORE_FILES)
    require_same_bytes(exp_dir / "decode" / "tuning", finished / "decode" / "tuning", "tuning.json")
    for system in ("teacher_0", "distilled"):
        assert words(exp_dir, system) == words(finished, system)


def test_any_executor_makes_the_same_features_posteriors_and_alignment(finished: Path, tmp_path: Path) -> None:
    """Processes that were started, not forked, and know paths alone: what any executor of concurrent.futures can do."""
    options, folders = options_of_run(finished), RunFolders(finished)
    members = teacher_folders(options)
    frames = LabelledFrames.open("train", options)
    precision = trained_precision(members)
    posteriors = EnsemblePosteriors(open_ensemble(members), frames.inputs, options.posteriors, precision)
    aligner, lexicon_file = folders.tree / "aligner", folders.alignment("test").with_name("lexicon.txt")
    tree = load_hmm(aligner)[0]
    corpus = TrainingCorpus.build(FrameStore.open(folders.features("test")), Lexicon.load(lexicon_file), tree.phones)
    realign = RealignTask(folders.features("test"), lexicon_file, aligner, options.context, options.realign)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        executor = Executor(pool=pool)
        split = load_split(folders.manifests("test"))
        compute_features(split, replace(options.features, speed_factors=(1.0,)), tmp_path / "features", executor)
        description = posteriors.describe(frames.store, frames.tree_fingerprint)
        write_store(tmp_path / "posteriors", description, PosteriorTask(options), executor=executor)
        there = viterbi(corpus, realign, tree.num_pdfs, executor=executor)
    here = viterbi(corpus, realign, tree.num_pdfs, executor=SERIAL)
    require_same_bytes(tmp_path / "features", folders.features("test"), "feats.safetensors")
    require_same_bytes(tmp_path / "posteriors", folders.posteriors, *STORE_FILES)
    for alignment, name in ((there, "there"), (here, "here")):
        alignment.save(tmp_path / name)
        assert (tmp_path / name).read_bytes() == folders.alignment("test").read_bytes()


def test_any_executor_decodes_the_same(finished: Path) -> None:
    options = options_of_run(finished)
    search = tuned(finished / "decode" / "tuning", options)
    task = DecodeTask(Run("distilled", 0, ("students/distilled",)), "test", search, options)
    utt_ids = FrameStore.open(RunFolders(finished).features("test")).utt_ids
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        executor = Executor(pool=pool)
        hypotheses = decode(task, utt_ids, open_graph(finished), search.scales, executor=executor)
    assert {utt_id: " ".join(text) for utt_id, text in hypotheses.words.items()} == words(finished, "distilled")


def test_torchrun_trains_a_student_as_one_process_does(tiny: TinyRecipe, exp_dir: Path) -> None:
    """Without dropout: the same losses and WER; the whole run takes what they left."""
    configured = "--students.choose=configured"  # a student that is trained under its own name
    run(tiny, exp_dir, configured)
    expected = read_json(exp_dir / "students" / "distilled" / "summary.json")
    before = read_json(exp_dir / "results.json")["systems"]["distilled"]["wer"]
    remove(exp_dir, "students/distilled", "decode/distilled")
    refused = torchrun([str(tiny.script), *tiny.arguments(exp_dir, configured)])
    assert refused.returncode != 0
    assert "torchrun: expected --only with a step that processes can share" in refused.stderr
    done = torchrun([str(tiny.script), *tiny.arguments(exp_dir, configured, "--only", "students/distilled")])
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("== stage 8 of 12 (students/distilled") == 1, "one of the two speaks"
    found = read_json(exp_dir / "students" / "distilled" / "summary.json")
    for epoch, wanted in zip(found["history"], expected["history"], strict=True):
        assert epoch["train_loss"] == pytest.approx(wanted["train_loss"], rel=1e-4)
        assert epoch["dev_loss"] == pytest.approx(wanted["dev_loss"], rel=1e-3)
    shown = run(tiny, exp_dir, configured)
    assert "students/distilled, step" in shown and "== stage 8" not in shown
    wer = read_json(exp_dir / "results.json")["systems"]["distilled"]["wer"]
    assert wer["percent"] == pytest.approx(before["percent"], abs=1.0)


def test_teachers_train_as_independent_jobs(tiny: TinyRecipe, finished: Path, exp_dir: Path) -> None:
    remove(exp_dir, "teachers/0", "teachers/1")
    jobs = [
        subprocess.Popen(
            [sys.executable, str(tiny.script), *tiny.arguments(exp_dir, "--only", f"teachers/{member}")],
            stdout=subprocess.DEVNULL,  # as many threads as the finished run had: the same bits
        )
        for member in range(2)
    ]
    try:
        assert [job.wait(timeout=TIMEOUT_SEC) for job in jobs] == [0, 0]
    finally:
        for job in jobs:
            job.kill()
            job.wait()
    shown = run(tiny, exp_dir, "--stop-stage", "10")
    assert "==" not in shown, "the whole run finds nothing to do"
    for member in range(2):
        losses = [
            [epoch["train_loss"] for epoch in read_json(folder / "teachers" / str(member) / "history.json")]
            for folder in (exp_dir, finished)
        ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def dumped(finished: Path, folder: Path) -> list[str]:
    """What another system would leave: logits of one teacher as numpy files, of the other as a Kaldi archive."""
    skip_without("kaldi_native_io")
    import kaldi_native_io

    options = options_of_run(finished)
    frames = LabelledFrames.open("train", options)
    (folder / "npy").mkdir(parents=True)
    members = teacher_folders(options)
    with one_thread():
        chunks = iter_logits(open_ensemble(members), frames.inputs, precision=trained_precision(members))
        logits = torch.cat([chunk.float() for _, chunk in chunks], dim=1)
    numpy_member, kaldi_member = logits.numpy()
    with kaldi_native_io.FloatMatrixWriter(f"ark,scp:{folder}/a.ark,{folder}/a.scp") as writer:
        for utt_id in frames.store.utt_ids:
            span = slice(*frames.store.span(utt_id))
            np.save(folder / "npy" / f"{utt_id}.npy", numpy_member[span])
            writer.write(utt_id, kaldi_member[span])
    return [str(folder / "npy"), str(folder / "a.scp")]


def test_another_systems_posteriors_teach_like_ones_own(tiny: TinyRecipe, finished: Path, exp_dir: Path) -> None:
    """The recipe's own teachers, dumped and imported: the same bits in the store, and the same student from it."""
    teachers = dumped(finished, exp_dir.parent / "dump")
    store = exp_dir.parent / "store"
    command = [sys.executable, "-m", "asrkd.commands.main", "posteriors", "import"]
    command += ["--exp-dir", str(exp_dir), "--out", str(store)]
    wrong = subprocess.run([*command, "--teachers", *teachers], capture_output=True, text=True, timeout=TIMEOUT_SEC)
    assert wrong.returncode == 2 and "--kind logits" in wrong.stderr.splitlines()[-1]
    done = subprocess.run(
        [*command, "--kind", "logits", "--teachers", *teachers], capture_output=True, text=True, timeout=TIMEOUT_SEC
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found, expected = (PosteriorStore.open(folder) for folder in (store, RunFolders(finished).posteriors))
    assert all(torch.equal(a, b) for a, b in zip(found._rows, expected._rows, strict=True))
    assert (found.utt_ids, found.options) == (expected.utt_ids, expected.options)

    remove(exp_dir, "teachers")
    taught = replace(tiny, without=("--ensemble.size",))  # refused with --posteriors-from, where it has no effect
    shown = run(taught, exp_dir, "--posteriors-from", str(store))
    assert "stage 6" not in shown
    systems, wanted = (read_json(folder / "results.json")["systems"] for folder in (exp_dir, finished))
    assert set(systems) == {"baseline", "baseline_dropout", "distilled"}
    assert systems["distilled"]["cross_entropy"] == wanted["distilled"]["cross_entropy"]
    models = (folder / "students" / "distilled" / "model.safetensors" for folder in (exp_dir, finished))
    tensors, own = (load_tensors(model)[0] for model in models)
    for name, tensor in tensors.items():
        assert torch.equal(tensor, own[name]), name
    refused = taught.run(exp_dir, "--posteriors-from", str(store), "--posteriors.top-k=9")
    assert refused.returncode == 2 and "expected a store of StoreOptions(top_k=9" in refused.stderr
