"""Another system as the teacher of a speech recipe: its posteriors instead of those of the recipe's ensemble."""

from __future__ import annotations

import shutil
from pathlib import Path

from asrkd.distil.external_teacher import TrainingFrames
from asrkd.distil.store import STORE_FILES, PosteriorStore
from asrkd.errors import InputError
from asrkd.features.store import FrameStore
from asrkd.files import write_json
from asrkd.recipe.folders import STORE_FOLDER, TREE_FILE, RunFolders
from asrkd.recipe.networks import REPORT_FILE, labelled_store
from asrkd.recipe.options import SpeechOptions


def frames_to_import(exp_dir: Path) -> TrainingFrames:
    """The training frames and senones of a run. InputError if its stage 5 is missing."""
    folders = RunFolders(exp_dir)
    if not (folders.tree / TREE_FILE).is_file():
        raise InputError(f"{exp_dir}: expected a run with senones (--stop-stage 5), found no {TREE_FILE}")
    store, labels, tree = labelled_store(folders, "train")
    not_aligned = set(FrameStore.open(folders.features("train")).utt_ids).difference(store.utt_ids)
    return TrainingFrames(store, labels, tree.num_pdfs, tree.fingerprint, not_aligned, store.frame_shift_ms)


def copy_posteriors(source: Path, options: SpeechOptions, out_dir: Path) -> None:
    """Stage 7: copy a store that `asrkd posteriors import` wrote. InputError unless frames, senones and options fit."""
    frames, _, tree = labelled_store(RunFolders(options.exp_dir), "train")
    store = PosteriorStore.open(source)
    store.require(frames.fingerprint, tree.fingerprint)
    if store.options != options.posteriors:
        raise InputError(f"{source}: expected a store of {options.posteriors}, found one of {store.options}")
    (out_dir / STORE_FOLDER).mkdir(exist_ok=True)
    for name in STORE_FILES:
        shutil.copyfile(source / name, out_dir / STORE_FOLDER / name)
    write_json(out_dir / REPORT_FILE, {"store": [], "disagreement": None})
