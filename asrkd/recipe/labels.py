"""Stages 4 and 5: frame labels, from a flat start to the senones of the final tree.

No Gaussian mixtures (Senior, Heigold, Bacchiani and Liao, ICASSP 2014): single-Gaussian rounds, then monophone
networks, then networks on the senones of a tree, which is grown again after each realignment.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from asrkd.align import Aligner, Alignment, TrainingCorpus, ViterbiOptions, cepstra, flat_start, viterbi
from asrkd.align.labels import frame_ids, store_labels
from asrkd.align.viterbi import ALIGNED_BATCHES, AlignmentTask
from asrkd.data.rejects import unpronounced
from asrkd.data.splits import Rejected
from asrkd.features.splicing import SplicedFrames
from asrkd.features.store import FrameStore
from asrkd.files import (
    fingerprint,
    folder_fingerprint,
    load_tensors,
    read_object,
    reading,
    safetensors_fingerprint,
    save_tensors,
    tensor_digest,
    write_json,
)
from asrkd.hmm.estimate import accumulate_stats, estimate_transitions
from asrkd.hmm.priors import log_priors
from asrkd.hmm.topology import TransitionModel
from asrkd.hmm.tree import SenoneTree, build_tree, require_leaves
from asrkd.lang.lexicon import Lexicon
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.result import MODEL_NAME
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.folders import ALIGNMENT_FILE, LEXICON_FILE, TREE_FILE, RunFolders
from asrkd.recipe.label_networks import PRECISION_FILE, copies_frames, train_label_network
from asrkd.recipe.lang import held_out_words
from asrkd.recipe.losses import require_few_lost, split_texts
from asrkd.recipe.options import ContextOptions, SpeechOptions
from asrkd.recipe.training_python import training_interpreter
from asrkd.workflow.cache import ResultCache
from asrkd.workflow.steps import PENDING_FILE

HMM_FILE = "hmm.safetensors"
ROUNDS_FILE = "rounds.json"
CACHE_FILE = "aligned.sqlite"
ALIGNER_FOLDER = "aligner"
MONO = "mono"
# Frames that the network scores at once, 82 s. More take memory, for spliced inputs are large, and gain nothing.
SCORED_FRAMES = 8192


@dataclass(frozen=True)
class RealignTask(AlignmentTask):
    """Aligns batches of a split's utterances by the network in an aligner's folder."""

    features: Path
    lexicon: Path
    aligner: Path
    """Folder of a network and what it aligns by: tree, priors, transitions, arithmetic."""
    context: ContextOptions
    options: ViterbiOptions

    def open(self) -> Aligner:
        model = AcousticDnn.load(self.aligner / MODEL_NAME)
        tree, transitions, log_prior = load_hmm(self.aligner)
        inputs = SplicedFrames(FrameStore.open(self.features), self.context.left, self.context.right, utt_ids=())
        score_fn = scorer(model, inputs, log_prior, self.precision)
        return Aligner(Lexicon.load(self.lexicon), tree, transitions, score_fn, self.options).open()

    @property
    def precision(self) -> str:
        """Arithmetic of the network's matrix products: that in which it was trained."""
        return str(read_object(self.aligner / PRECISION_FILE, precision=str)["precision"])

    def digests(self) -> list[str]:
        """Digests of what decides the acoustic and transition scores."""
        tree, transitions, log_prior = load_hmm(self.aligner)
        tensors = (*AcousticDnn.load(self.aligner / MODEL_NAME).parameters(), log_prior)
        return [self.precision, tree.fingerprint, *transitions.digests(), *map(tensor_digest, tensors)]


def realign(task: RealignTask, options: SpeechOptions, cache_file: Path, desc: str) -> Alignment:
    """The alignment of a split, on the disk. A file caches finished batches, for a call that is repeated after a
    kill."""
    store, lexicon = FrameStore.open(task.features), Lexicon.load(task.lexicon)
    tree = SenoneTree.load(task.aligner / TREE_FILE)
    corpus = TrainingCorpus.build(store, lexicon, tree.phones)
    key = fingerprint([corpus.fingerprint, task.context, task.options, task.digests()])
    cache = ResultCache(cache_file, key, ALIGNED_BATCHES)
    return viterbi(corpus, task, tree.num_pdfs, task.options, options.task_executor, cache, desc, cache_file.parent)


def scorer(
    model: AcousticDnn, inputs: SplicedFrames, log_prior: Tensor, precision: str = "float32"
) -> Callable[[str], Iterator[Tensor]]:
    """utt_id -> scaled log-likelihoods [T, S]: log p(s|x) - log p(s), Bayes' rule without the constant log p(x).

    They come in chunks of frames. The inputs are read from their store.
    """
    # Autocast would convert the weights for each utterance, a seventh of the time. Here they are converted once.
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    scoring = copy.deepcopy(model).to(dtype)

    def score(utt_id: str) -> Iterator[Tensor]:
        for frames in inputs.read_chunks(utt_id, SCORED_FRAMES, dtype):
            with torch.no_grad():
                logits = scoring(frames)
            yield F.log_softmax(logits.float(), dim=1) - log_prior

    return score


@dataclass(frozen=True)
class LabelMaker:
    """What the rounds share: the training frames, the words and the options."""

    features: Path
    lexicon_file: Path
    store: FrameStore
    inputs: SplicedFrames
    lexicon: Lexicon
    options: SpeechOptions
    scratch: Path
    """Folder of the rounds' networks and finished batches."""

    @classmethod
    def open(cls, options: SpeechOptions, scratch: Path) -> LabelMaker:
        folders = RunFolders(options.exp_dir)
        store = FrameStore.open(folders.features("train"))
        # Another interpreter reads the frames itself.
        in_memory = () if training_interpreter(options) is not None or copies_frames(options) else None
        inputs = SplicedFrames(store, options.context.left, options.context.right, utt_ids=in_memory)
        lexicon = Lexicon.load(folders.lexicon)
        return cls(folders.features("train"), folders.lexicon, store, inputs, lexicon, options, scratch)

    def network_round(self, alignment: Alignment, tree: SenoneTree, name: str) -> Round:
        """Train a network on an alignment's labels and realign with it."""
        folder = self.scratch / name
        folder.mkdir(parents=True, exist_ok=True)
        labels = store_labels(alignment, self.store, tree, folder).clamp_(min=0)
        chosen = frame_ids(alignment, self.store, folder)
        train_label_network(self.inputs, labels, chosen, tree.num_pdfs, self.options, folder, self.features)
        save_hmm(folder, tree, self.log_priors(alignment, tree), estimate_transitions(alignment, tree))
        task = RealignTask(self.features, self.lexicon_file, folder, self.options.context, self.options.realign)
        return Round(name, folder, realign(task, self.options, self.scratch / CACHE_FILE, f"realign {name}"))

    def log_priors(self, alignment: Alignment, tree: SenoneTree) -> Tensor:
        """Of the senones [S] of an alignment."""
        return log_priors(alignment.pdf_ids(tree, self.scratch), tree.num_pdfs)

    def grow_tree(self, alignment: Alignment) -> SenoneTree:
        self.scratch.mkdir(parents=True, exist_ok=True)
        feats = cepstra(self.store, alignment.utt_ids, self.scratch)
        return build_tree(accumulate_stats(alignment, feats), self.lexicon.phones, self.options.tree)


@dataclass(frozen=True)
class Round:
    """A network and its alignment of the training frames."""

    name: str
    aligner: Path
    """The network's folder."""
    alignment: Alignment

    def as_row(self) -> dict[str, object]:
        kind = "monophone network" if self.name.startswith(MONO) else "senone network"
        return {"round": self.name, "kind": kind, **_log_like_row(self.alignment)}


def _log_like_row(alignment: Alignment, number: int = -1) -> dict[str, object]:
    """What a row of ROUNDS_FILE has of a round of an alignment."""
    return {
        "log_like_per_frame": alignment.log_like_rounds[number],
        "wider_beam": alignment.wider_beam_rounds[number],
    }


def make_alignment(options: SpeechOptions, out_dir: Path) -> None:
    """Stage 4: flat start and monophone rounds. Writes an alignment and the log-likelihood of every round."""
    scratch = out_dir / "scratch"
    maker = LabelMaker.open(options, scratch)
    require_leaves(options.tree, maker.lexicon.phones)  # stage 5 would refuse it, after this stage has trained
    flat = scratch / "flat_start"
    alignment = flat_start(maker.features, maker.lexicon_file, flat, options.align, options.task_executor)
    _require_few_unaligned("train", alignment, options)
    rows: list[dict[str, object]] = [
        {"round": f"gauss_{number}", "kind": "single Gaussian", **_log_like_row(alignment, number)}
        for number in range(len(alignment.log_like_rounds))
    ]
    monophones = SenoneTree.monophone(maker.lexicon.phones)
    for number in range(options.labels.mono_rounds):
        done = maker.network_round(alignment, monophones, f"{MONO}_{number}")
        alignment = done.alignment
        _require_few_unaligned("train", alignment, options)
        rows.append(done.as_row())
    alignment.save(out_dir / ALIGNMENT_FILE)
    write_json(out_dir / ROUNDS_FILE, rows)
    shutil.rmtree(scratch, ignore_errors=True)


def make_tree(options: SpeechOptions, out_dir: Path) -> None:
    """Stage 5: tree, network, realignment, again.

    Writes the tree, its priors and transitions, the labels of the training split, and the last network to align other
    speech with.
    """
    scratch = out_dir / "scratch"
    maker = LabelMaker.open(options, scratch)
    alignment = Alignment.load(options.exp_dir / "align" / ALIGNMENT_FILE)
    _require_few_unaligned("train", alignment, options)
    rows = []
    for number in range(options.labels.tree_rounds):
        tree = maker.grow_tree(alignment)
        done = maker.network_round(alignment, tree, f"tree_{number}")
        alignment = done.alignment
        _require_few_unaligned("train", alignment, options)
        rows.append(done.as_row())
    print(f"   {tree.num_pdfs} senones, {len(maker.lexicon.phones)} phones", flush=True)
    save_hmm(out_dir, tree, maker.log_priors(alignment, tree), estimate_transitions(alignment, tree))
    alignment.save(out_dir / ALIGNMENT_FILE)
    _copy_aligner(done.aligner, out_dir / ALIGNER_FOLDER)
    write_json(out_dir / ROUNDS_FILE, rows)
    shutil.rmtree(scratch, ignore_errors=True)


def label_train(options: SpeechOptions, out_dir: Path) -> None:
    """Stage 5 with `--labels-from`: another run's network aligns the training split with the senones of its tree.

    Priors and transitions are those of this alignment. Everything is written as by `make_tree`.
    """
    assert options.labels_from is not None
    folders, aligner = RunFolders(options.exp_dir), out_dir / ALIGNER_FOLDER
    _copy_aligner(RunFolders(options.labels_from).tree / ALIGNER_FOLDER, aligner)
    tree = SenoneTree.load(aligner / TREE_FILE)
    task = RealignTask(folders.features("train"), folders.lexicon, aligner, options.context, options.realign)
    alignment = realign(task, options, out_dir / CACHE_FILE, "align train")
    _require_few_unaligned("train", alignment, options)
    print(f"   {tree.num_pdfs} senones, {len(tree.phones)} phones of {options.labels_from}", flush=True)
    log_prior = log_priors(alignment.pdf_ids(tree, out_dir), tree.num_pdfs)
    save_hmm(out_dir, tree, log_prior, estimate_transitions(alignment, tree))
    alignment.save(out_dir / ALIGNMENT_FILE)
    write_json(out_dir / ROUNDS_FILE, [Round("tree_0", aligner, alignment).as_row()])
    (out_dir / CACHE_FILE).unlink(missing_ok=True)


def tree_content(folder: Path) -> str:
    """Fingerprint of what stage 5 makes of the training split, without the times in the metadata of its network."""
    weights = safetensors_fingerprint(folder / ALIGNER_FOLDER / MODEL_NAME, with_metadata=False)
    return fingerprint([weights, folder_fingerprint(folder, excluded=(MODEL_NAME, PENDING_FILE))])


def labels_content(folder: Path) -> str:
    """Fingerprint of a held-out split's alignment: no other step reads its lexicon."""
    return safetensors_fingerprint(folder / ALIGNMENT_FILE)


def label_split(corpus: Corpus, split: str, options: SpeechOptions, out_dir: Path) -> None:
    """Stage 5: labels of a held-out split, by the network of the last round."""
    lexicon_file = out_dir / LEXICON_FILE
    words = held_out_words(corpus, split, options)
    words.lexicon.save(lexicon_file)
    folders = RunFolders(options.exp_dir)
    aligner = folders.tree / ALIGNER_FOLDER
    task = RealignTask(folders.features(split), lexicon_file, aligner, options.context, options.realign)
    alignment = realign(task, options, out_dir / CACHE_FILE, f"align {split}")
    texts = split_texts(folders, split)
    missing = unpronounced(texts, words.lexicon.prons, words.unheard)
    alignment = replace(alignment, rejected={**alignment.rejected, **{one.utt_id: one.reason for one in missing}})
    _require_few_unaligned(split, alignment, options)
    alignment.save(out_dir / ALIGNMENT_FILE)
    (out_dir / CACHE_FILE).unlink(missing_ok=True)


def _copy_aligner(source: Path, folder: Path) -> None:
    """Copy a round's network and what it aligns by."""
    folder.mkdir(exist_ok=True)
    for name in (MODEL_NAME, TREE_FILE, HMM_FILE, PRECISION_FILE):
        shutil.copyfile(source / name, folder / name)


def save_hmm(folder: Path, tree: SenoneTree, log_prior: Tensor, transitions: TransitionModel) -> None:
    """Tree, log-priors [S] and transitions, as `load_hmm` reads them."""
    tree.save(folder / TREE_FILE)
    tensors = {"log_prior": log_prior, **transitions.to_tensors()}
    save_tensors(folder / HMM_FILE, tensors, {"tree": tree.fingerprint})


def load_hmm(tree_dir: Path) -> tuple[SenoneTree, TransitionModel, Tensor]:
    """Tree, transitions and log-priors [S] of a finished stage 5, or of one of its rounds."""
    tree = SenoneTree.load(tree_dir / TREE_FILE)
    tensors, _ = load_tensors(tree_dir / HMM_FILE)
    with reading(tree_dir / HMM_FILE, "transitions and priors"):
        return tree, TransitionModel.from_tensors(tensors), tensors["log_prior"]


def _require_few_unaligned(split: str, alignment: Alignment, options: SpeechOptions) -> None:
    """InputError, as early as they are known, where too many utterances of a split could not be aligned.

    The step that checks the losses does this again: `max_bad` is not in the stamps of the steps that align.
    """
    unaligned = [Rejected(utt_id, reason) for utt_id, reason in alignment.rejected.items()]
    require_few_lost(split, unaligned, options, copies=True)
