"""Stages 4 and 5: frame labels, from a flat start to the senones of the final tree.

No Gaussian mixtures (Senior, Heigold, Bacchiani and Liao, ICASSP 2014): single-Gaussian rounds, monophone networks,
then networks on the senones of a tree that is grown again after each realignment.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from asrkd.align import Alignment, ViterbiOptions, cepstra, flat_start, viterbi
from asrkd.align.flat_start import GaussianScorer
from asrkd.align.gaussians import DiagonalMixtures
from asrkd.align.labels import NO_LABEL, store_labels
from asrkd.align.viterbi import AlignedUtterance, Batch, Batches, Keep, align_batch
from asrkd.features.store import FrameStore, SplicedFrames
from asrkd.files import load_tensors, read_json, save_tensors, tensor_digest, write_json
from asrkd.hmm.estimate import accumulate_stats, estimate_transitions
from asrkd.hmm.priors import log_priors
from asrkd.hmm.topology import TransitionModel
from asrkd.hmm.tree import SenoneTree, build_tree, require_leaves
from asrkd.lang.lexicon import Lexicon
from asrkd.nnet import HardTargets, TrainOptions, train
from asrkd.nnet.models import AcousticDnn
from asrkd.nnet.result import MODEL_NAME
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.folders import LEXICON_FILE, RunFolders
from asrkd.recipe.lang import held_out_lexicon
from asrkd.recipe.options import SpeechOptions

TREE_FILE = "tree.json"
HMM_FILE = "hmm.safetensors"
ROUNDS_FILE = "rounds.json"
CACHE_FILE = "aligned.sqlite"
ALIGNMENT_FILE = "alignment.safetensors"
ALIGNER_FOLDER = "aligner"
PRECISION_FILE = "precision.json"
MONO = "mono"
MIXTURE_PARTS = ("mean", "variance", "log_weight")


@dataclass(frozen=True)
class LabelMaker:
    """What the rounds share: the frames, the words and the options."""

    features: Path
    lexicon_file: Path
    store: FrameStore
    inputs: SplicedFrames
    lexicon: Lexicon
    options: SpeechOptions

    @classmethod
    def open(cls, options: SpeechOptions, split: str = "train", lexicon_file: Path | None = None) -> LabelMaker:
        """Of a split; with the training lexicon unless another is given."""
        folders = RunFolders(options.exp_dir)
        features, lexicon_file = folders.features(split), lexicon_file or folders.lexicon
        store = FrameStore.open(features)
        inputs = SplicedFrames(store, options.context.left, options.context.right)
        return cls(features, lexicon_file, store, inputs, Lexicon.load(lexicon_file), options)

    def network_round(self, alignment: Alignment, tree: SenoneTree, name: str, scratch: Path) -> Round:
        """Train a network on an alignment's labels and realign with it."""
        labels = store_labels(alignment, self.store, tree)
        frame_ids = (labels != NO_LABEL).nonzero().squeeze(1)
        model = AcousticDnn(self.inputs.dim, tree.num_pdfs, self.options.teacher, seed=self.options.seed)
        train_options = label_training(self.options)
        objective = HardTargets(labels.clamp(min=0))
        result = train(
            model, self.inputs, objective, None, None, train_options, scratch / name, frame_ids, description=name
        )
        model.cpu()  # aligned by processes forked from this one, where there is no GPU
        log_prior = log_priors(labels[frame_ids], tree.num_pdfs)
        transitions = estimate_transitions(alignment, tree)
        save_hmm(scratch / name, tree, log_prior, transitions)
        aligner = RoundAligner(scratch / name, model, result.precision, tree, log_prior, transitions)
        return Round(name, aligner, self.realigned(aligner, f"realign {name}", scratch))

    def realigned(self, aligner: RoundAligner, desc: str, scratch: Path) -> Alignment:
        """The alignment of this maker's frames by a round's network; `scratch` keeps it as it comes."""
        jobs = self.options.jobs
        work = RealignWork(self.features, self.lexicon_file, aligner.folder, aligner.precision, self.options)
        return viterbi(
            self.store,
            self.lexicon,
            aligner.tree,
            scorer(aligner.model, self.inputs, aligner.log_prior, aligner.precision),
            aligner.transitions,
            replace(self.options.realign, num_jobs=self.options.num_jobs),
            desc=desc,
            elsewhere=partial(jobs.map, work) if jobs.on_cluster else None,
            kept=Keep(scratch / CACHE_FILE, aligner.digests()),
        )

    def grow_tree(self, alignment: Alignment) -> SenoneTree:
        feats = cepstra(self.store, alignment.utt_ids)
        return build_tree(accumulate_stats(alignment, feats), self.lexicon.phones, self.options.tree)


@dataclass(frozen=True)
class RoundAligner:
    """A network and the statistics it is scored with; `folder` holds the same."""

    folder: Path
    model: AcousticDnn
    precision: str
    """Arithmetic of its matrix products: it aligns in that which it was trained in."""
    tree: SenoneTree
    log_prior: Tensor
    transitions: TransitionModel

    def digests(self) -> list[str]:
        """What tells its acoustic scores from others."""
        return [self.precision, *(tensor_digest(tensor) for tensor in (*self.model.parameters(), self.log_prior))]


@dataclass(frozen=True)
class Round:
    """A network and the alignment that it gave."""

    name: str
    aligner: RoundAligner
    alignment: Alignment

    def as_row(self) -> dict[str, object]:
        kind = "monophone network" if self.name.startswith(MONO) else "senone network"
        return {"round": self.name, "kind": kind, "log_like_per_frame": self.alignment.log_like_per_frame}


@dataclass(frozen=True)
class RealignWork:
    """Aligning batches of utterances by a round's network, on a cluster: paths and options."""

    features: Path
    lexicon: Path
    folder: Path
    precision: str
    options: SpeechOptions

    def open(self) -> Callable[[Batch], list[AlignedUtterance | None]]:
        store, lexicon = FrameStore.open(self.features), Lexicon.load(self.lexicon)
        model = AcousticDnn.load(self.folder / MODEL_NAME)
        tree, transitions, log_prior = load_hmm(self.folder)
        context = self.options.context

        def align(batch: Batch) -> list[AlignedUtterance | None]:
            held = store.subset(batch)
            score = scorer(model, SplicedFrames(held, context.left, context.right), log_prior, self.precision)
            return align_batch(held, lexicon, tree, score, transitions, self.options.realign, batch)

        return align


@dataclass(frozen=True)
class GaussianWork:
    """Aligning batches of utterances by Gaussians of a flat start's round, on a cluster."""

    features: Path
    lexicon: Path
    cepstra: Path
    round: Path
    options: ViterbiOptions

    def open(self) -> Callable[[Batch], list[AlignedUtterance | None]]:
        store, lexicon = FrameStore.open(self.features), Lexicon.load(self.lexicon)
        feats = load_tensors(self.cepstra)[0]["cepstra"]
        tensors, _ = load_tensors(self.round)
        mixtures = DiagonalMixtures(*(tensors[name] for name in MIXTURE_PARTS))
        tree, transitions = SenoneTree.monophone(lexicon.phones), TransitionModel.from_tensors(tensors)
        score = GaussianScorer(store, feats, mixtures)
        return partial(align_batch, store, lexicon, tree, score, transitions, self.options)


@dataclass
class GaussiansElsewhere:
    """Puts each round of a flat start into `folder`, where a cluster's workers find it."""

    maker: LabelMaker
    folder: Path
    rounds: int = 0

    def __call__(self, scorer: GaussianScorer, transitions: TransitionModel, options: ViterbiOptions) -> Batches:
        self.folder.mkdir(parents=True, exist_ok=True)
        cepstra, this_round = self.folder / "cepstra.safetensors", self.folder / f"gauss_{self.rounds}.safetensors"
        if self.rounds == 0:
            save_tensors(cepstra, {"cepstra": scorer.feats}, {})
        mixtures = {name: getattr(scorer.mixtures, name) for name in MIXTURE_PARTS}
        save_tensors(this_round, {**mixtures, **transitions.to_tensors()}, {})
        self.rounds += 1
        work = GaussianWork(self.maker.features, self.maker.lexicon_file, cepstra, this_round, options)
        return partial(self.maker.options.jobs.map, work)


def scorer(
    model: AcousticDnn, inputs: SplicedFrames, log_prior: Tensor, precision: str = "float32"
) -> Callable[[str], Tensor]:
    """utt_id -> scaled log-likelihoods [T, S]: log p(s|x) - log p(s), Bayes' rule without the constant log p(x)."""
    # What autocast would make of the weights for each utterance, a seventh of the time, made once.
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    scoring = copy.deepcopy(model).to(dtype)

    @torch.no_grad()
    def score(utt_id: str) -> Tensor:
        logits = scoring(inputs.utt_batch(utt_id, dtype))
        return F.log_softmax(logits.float(), dim=1) - log_prior

    return score


def make_alignment(options: SpeechOptions, out_dir: Path) -> None:
    """Stage 4: flat start and monophone rounds. Leaves an alignment and the log-likelihood of every round."""
    maker = LabelMaker.open(options)
    require_leaves(options.tree, maker.lexicon.phones)  # stage 5 would refuse it, after this stage has trained
    scratch = out_dir / "scratch"
    alignment = flat_start(
        maker.store,
        maker.lexicon,
        replace(options.align, num_jobs=options.num_jobs),
        GaussiansElsewhere(maker, scratch / "flat_start") if options.jobs.on_cluster else None,
        kept_in=scratch / CACHE_FILE,
    )
    rows: list[dict[str, object]] = [
        {"round": f"gauss_{number}", "kind": "single Gaussian", "log_like_per_frame": value}
        for number, value in enumerate(alignment.log_like_rounds)
    ]
    monophones = SenoneTree.monophone(maker.lexicon.phones)
    for number in range(options.labels.mono_rounds):
        done = maker.network_round(alignment, monophones, f"{MONO}_{number}", scratch)
        alignment = done.alignment
        rows.append(done.as_row())
    _report_rejected(alignment)
    alignment.save(out_dir / ALIGNMENT_FILE)
    write_json(out_dir / ROUNDS_FILE, rows)
    shutil.rmtree(scratch, ignore_errors=True)


def make_tree(options: SpeechOptions, out_dir: Path) -> None:
    """Stage 5: tree, network, realignment, again. Leaves the labels of the training split, and the last network to
    align other speech with."""
    maker = LabelMaker.open(options)
    alignment = Alignment.load(options.exp_dir / "align" / ALIGNMENT_FILE)
    rows = []
    scratch = out_dir / "scratch"
    for number in range(options.labels.tree_rounds):
        tree = maker.grow_tree(alignment)
        done = maker.network_round(alignment, tree, f"tree_{number}", scratch)
        alignment = done.alignment
        rows.append(done.as_row())
    print(f"   {tree.num_pdfs} senones, {len(maker.lexicon.phones)} phones", flush=True)
    log_prior = log_priors(alignment.pdf_ids(tree), tree.num_pdfs)
    save_hmm(out_dir, tree, log_prior, estimate_transitions(alignment, tree))
    alignment.save(out_dir / ALIGNMENT_FILE)
    save_aligner(done.aligner, out_dir / ALIGNER_FOLDER)
    write_json(out_dir / ROUNDS_FILE, rows)
    shutil.rmtree(scratch, ignore_errors=True)


def label_split(corpus: Corpus, split: str, options: SpeechOptions, out_dir: Path) -> None:
    """Stage 5: labels of a held-out split, by the network of the last round."""
    lexicon_file = out_dir / LEXICON_FILE
    held_out_lexicon(corpus, split, options).save(lexicon_file)
    maker = LabelMaker.open(options, split, lexicon_file)
    aligner = load_aligner(RunFolders(options.exp_dir).tree / ALIGNER_FOLDER)
    alignment = maker.realigned(aligner, f"align {split}", out_dir)
    _report_rejected(alignment)
    alignment.save(out_dir / ALIGNMENT_FILE)
    (out_dir / CACHE_FILE).unlink(missing_ok=True)


def save_aligner(aligner: RoundAligner, folder: Path) -> None:
    """Write a network and what its scores need."""
    folder.mkdir(parents=True, exist_ok=True)
    aligner.model.save(folder / MODEL_NAME)
    save_hmm(folder, aligner.tree, aligner.log_prior, aligner.transitions)
    write_json(folder / PRECISION_FILE, {"precision": aligner.precision})


def load_aligner(folder: Path) -> RoundAligner:
    """Read what `save_aligner` wrote."""
    tree, transitions, log_prior = load_hmm(folder)
    model, precision = AcousticDnn.load(folder / MODEL_NAME), read_json(folder / PRECISION_FILE)["precision"]
    return RoundAligner(folder, model, precision, tree, log_prior, transitions)


def label_training(options: SpeechOptions) -> TrainOptions:
    """How the rounds' networks train: without development data, and so without what asks for it."""
    schedule = "cosine" if options.train.schedule == "newbob" else options.train.schedule
    return replace(
        options.train,
        epochs=options.labels.epochs,
        schedule=schedule,
        patience=None,
        seed=options.seed,
        device=options.device,
    )


def save_hmm(folder: Path, tree: SenoneTree, log_prior: Tensor, transitions: TransitionModel) -> None:
    """Tree, log-priors [S] and transitions, as `load_hmm` reads them."""
    tree.save(folder / TREE_FILE)
    tensors = {"log_prior": log_prior, **transitions.to_tensors()}
    save_tensors(folder / HMM_FILE, tensors, {"tree": tree.fingerprint})


def load_hmm(tree_dir: Path) -> tuple[SenoneTree, TransitionModel, Tensor]:
    """Tree, transitions and log-priors [S] of a finished stage 5, or of one of its rounds."""
    tree = SenoneTree.load(tree_dir / TREE_FILE)
    tensors, _ = load_tensors(tree_dir / HMM_FILE)
    return tree, TransitionModel.from_tensors(tensors), tensors["log_prior"]


def _report_rejected(alignment: Alignment) -> None:
    for utt_id, reason in alignment.rejected.items():
        print(f"   not aligned: {utt_id}: {reason}", flush=True)
