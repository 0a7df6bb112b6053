"""Stages 4 and 5: frame labels, from a flat start to the senones of the final tree.

No Gaussian mixtures (Senior, Heigold, Bacchiani and Liao, ICASSP 2014): single-Gaussian rounds, monophone networks,
then networks on the senones of a tree that is grown again after each realignment.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from asrkd.align import Alignment, cepstra, flat_start, viterbi
from asrkd.align.alignment import NO_LABEL
from asrkd.files import load_tensors, save_tensors, write_json
from asrkd.frames import FrameStore, SplicedFrames
from asrkd.hmm.priors import log_priors
from asrkd.hmm.statistics import accumulate
from asrkd.hmm.topology import TransitionModel
from asrkd.hmm.tree import SenoneTree, build_tree
from asrkd.lang.lexicon import Lexicon
from asrkd.models import AcousticDnn
from asrkd.speech.data import ALIGN_LEXICON_FILE, LEXICON_FILE
from asrkd.speech.options import SpeechOptions
from asrkd.train import HardTargets, train

TREE_FILE = "tree.json"
HMM_FILE = "hmm.safetensors"
ROUNDS_FILE = "rounds.json"
MONO = "mono"


@dataclass(frozen=True)
class LabelMaker:
    """What the rounds share: the frames, the words and the options."""

    store: FrameStore
    inputs: SplicedFrames
    lexicon: Lexicon
    options: SpeechOptions

    @classmethod
    def open(cls, features: Path, lang: Path, options: SpeechOptions, split: str = "train") -> LabelMaker:
        store = FrameStore.open(features / split)
        inputs = SplicedFrames(store, options.context.left, options.context.right)
        lexicon = LEXICON_FILE if split == "train" else ALIGN_LEXICON_FILE
        return cls(store, inputs, Lexicon.load(lang / lexicon), options)

    def network_round(self, alignment: Alignment, tree: SenoneTree, name: str, scratch: Path) -> Round:
        """Train a network on an alignment's labels and realign with it."""
        labels = alignment.store_labels(self.store, tree)
        frame_ids = (labels != NO_LABEL).nonzero().squeeze(1)
        model = AcousticDnn(self.inputs.dim, tree.num_pdfs, self.options.teacher, seed=self.options.seed)
        train_options = replace(
            self.options.train, epochs=self.options.labels.epochs, seed=self.options.seed, device=self.options.device
        )
        objective = HardTargets(labels.clamp(min=0))
        train(model, self.inputs, objective, None, None, train_options, scratch / name, frame_ids, description=name)
        log_prior = log_priors(labels[frame_ids], tree.num_pdfs)
        transitions = TransitionModel.estimate(alignment, tree)
        realigned = viterbi(
            self.store,
            self.lexicon,
            tree,
            scorer(model, self.inputs, log_prior),
            transitions,
            self.options.realign,
            desc=f"realign {name}",
        )
        return Round(name, model, log_prior, transitions, realigned)

    def grow_tree(self, alignment: Alignment) -> SenoneTree:
        feats = cepstra(self.store, alignment.utt_ids)
        return build_tree(accumulate(alignment, feats), self.lexicon.phones, self.options.tree)


@dataclass(frozen=True)
class Round:
    """A network, the statistics it was scored with, and the alignment that it gave."""

    name: str
    model: AcousticDnn
    log_prior: Tensor
    transitions: TransitionModel
    alignment: Alignment

    def as_row(self) -> dict[str, object]:
        kind = "monophone network" if self.name.startswith(MONO) else "senone network"
        return {"round": self.name, "kind": kind, "log_like_per_frame": self.alignment.log_like_per_frame}


def scorer(model: AcousticDnn, inputs: SplicedFrames, log_prior: Tensor) -> Callable[[str], Tensor]:
    """utt_id -> scaled log-likelihoods [T, S]: log p(s|x) - log p(s), Bayes' rule without the constant log p(x)."""

    @torch.no_grad()
    def score(utt_id: str) -> Tensor:
        return F.log_softmax(model(inputs.utt_batch(utt_id)), dim=1) - log_prior

    return score


def make_alignment(features: Path, lang: Path, options: SpeechOptions, out_dir: Path) -> None:
    """Stage 4: flat start and monophone rounds. Leaves align.safetensors and the log-likelihood of every round."""
    maker = LabelMaker.open(features, lang, options)
    alignment = flat_start(maker.store, maker.lexicon, options.align)
    rows: list[dict[str, object]] = [
        {"round": f"gauss_{number}", "kind": "single Gaussian", "log_like_per_frame": value}
        for number, value in enumerate(alignment.log_like_rounds)
    ]
    monophones = SenoneTree.monophone(maker.lexicon.phones)
    scratch = out_dir / "scratch"
    for number in range(options.labels.mono_rounds):
        done = maker.network_round(alignment, monophones, f"{MONO}_{number}", scratch)
        alignment = done.alignment
        rows.append(done.as_row())
    shutil.rmtree(scratch, ignore_errors=True)
    _report_dropped(alignment)
    alignment.save(out_dir / "train.safetensors")
    write_json(out_dir / ROUNDS_FILE, rows)


def make_tree(features: Path, lang: Path, align: Path, options: SpeechOptions, out_dir: Path) -> None:
    """Stage 5: tree, network, realignment, again; then the labels of every split by the last network."""
    maker = LabelMaker.open(features, lang, options)
    alignment = Alignment.load(align / "train.safetensors")
    rows = []
    scratch = out_dir / "scratch"
    for number in range(options.labels.tree_rounds):
        tree = maker.grow_tree(alignment)
        done = maker.network_round(alignment, tree, f"tree_{number}", scratch)
        alignment = done.alignment
        rows.append(done.as_row())
    shutil.rmtree(scratch, ignore_errors=True)
    print(f"   {tree.num_pdfs} senones, {len(maker.lexicon.phones)} phones", flush=True)
    _save_labels(maker, tree, done, features, lang, out_dir)
    write_json(out_dir / ROUNDS_FILE, rows)


def _save_labels(
    maker: LabelMaker, tree: SenoneTree, last: Round, features: Path, lang: Path, out_dir: Path
) -> None:
    """The tree, the HMM's priors and transitions, and the alignment of train, dev and test."""
    tree.save(out_dir / TREE_FILE)
    train_labels = last.alignment.pdf_ids(tree)
    tensors = {
        "log_prior": log_priors(train_labels, tree.num_pdfs),
        **TransitionModel.estimate(last.alignment, tree).to_tensors(),
    }
    save_tensors(out_dir / HMM_FILE, tensors, {"tree": tree.fingerprint})
    last.alignment.save(out_dir / "train.safetensors")
    for split in ("dev", "test"):
        held_out = LabelMaker.open(features, lang, maker.options, split)
        alignment = viterbi(
            held_out.store,
            held_out.lexicon,
            tree,
            scorer(last.model, held_out.inputs, last.log_prior),
            last.transitions,
            maker.options.realign,
            desc=f"align {split}",
        )
        _report_dropped(alignment)
        alignment.save(out_dir / f"{split}.safetensors")


def load_hmm(tree_dir: Path) -> tuple[SenoneTree, TransitionModel, Tensor]:
    """Tree, transitions and log-priors [S] of a finished stage 5."""
    tree = SenoneTree.load(tree_dir / TREE_FILE)
    tensors, _ = load_tensors(tree_dir / HMM_FILE)
    return tree, TransitionModel.from_tensors(tensors), tensors["log_prior"]


def _report_dropped(alignment: Alignment) -> None:
    for utt_id, reason in alignment.dropped.items():
        print(f"   not aligned: {utt_id}: {reason}", flush=True)
