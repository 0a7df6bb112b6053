"""Stage 7: targets from the ensemble's lattices of the training speech, as a posterior store for stage 8.

The lattices are the whole ones of the search, frame by frame, of one utterance at a time: they are never on the disk.
k2 makes them in the recipe's interpreter, which also scores the speech, as it does in stage 10.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from asrkd.align.graphs import TrainingGraphs
from asrkd.decode import DecodeOptions
from asrkd.decode.k2_search import K2Search, frame_lattice
from asrkd.decode.occupation import Occupations
from asrkd.distil.compression import Compressed, Rows, StoreOptions
from asrkd.distil.ensemble import AveragedEnsemble
from asrkd.distil.lattice_targets import averaged, rows_without_targets, target_rows
from asrkd.distil.store import FORMAT, PosteriorStore, Span, StoreDescription, write_store
from asrkd.errors import InputError, name_some
from asrkd.features.splicing import SplicedFrames
from asrkd.features.store import FrameStore
from asrkd.files import fingerprint, tensor_digest, write_json
from asrkd.lang.lexicon import Lexicon
from asrkd.recipe.evaluate import Run, open_graph, runs, tuned
from asrkd.recipe.folders import STORE_FOLDER, TRANSFER, RunFolders
from asrkd.recipe.labels import SCORED_FRAMES, load_hmm
from asrkd.recipe.networks import REPORT_FILE, labelled_store, open_ensemble, target_frames, teacher_folders, teachers
from asrkd.recipe.options import SpeechOptions
from asrkd.workflow.memory import keep_freed_memory, named_memory_error

if TYPE_CHECKING:
    import k2

log = logging.getLogger(__name__)

SCALES_STEP, TARGETS_STEP, TRANSFER_STEP = "lattices/scales", "lattices/targets", "lattices/transfer"
# Frames of an utterance whose senones are all in memory at once.
DENSE_FRAMES = 1024

Lattice = Callable[[str, Tensor], "k2.Fsa"]
"""utt_id and acoustic scores [T, S] -> k2's lattice, frame by frame; without arcs where there is no path."""


def ensemble_run(options: SpeechOptions) -> Run:
    """The system that decodes: all teachers."""
    members = tuple(teachers(options))
    return next(run for run in runs(options) if run.models == members)


def tunes_scales(options: SpeechOptions) -> bool:
    """Whether the scales of the lattices are those that the development speakers choose."""
    return options.transfer.acoustic_scale is None


def is_transcript(options: SpeechOptions, split: str) -> bool:
    """Whether the lattices of a split are those of its transcripts. Untranscribed speech has lattices of words."""
    return options.transfer.lattices == "transcript" and split != TRANSFER


def needs_graph(options: SpeechOptions) -> bool:
    """Whether stage 7 decodes with the decoding graph."""
    has_transfer = options.transfer.has_speech
    return has_transfer or tunes_scales(options) or not is_transcript(options, "train")


def lattice_search(options: SpeechOptions, split: str) -> DecodeOptions:
    """The search of a split's lattices. Its scales are those of the options, which tuned ones replace.

    k2 makes them whatever `decode.search` is. Graphs of transcripts are small, and are searched as for alignment.
    """
    transfer, decode = options.transfer, options.decode
    of_transcript = is_transcript(options, split)
    return replace(
        decode,
        search="k2",
        test_lattices=False,
        whole_lattices=False,
        allow_partial=False,
        beam=options.realign.search_beam if of_transcript else decode.beam,
        max_active=None if of_transcript else decode.max_active,
        lattice_beam=transfer.lattice_beam,
        acoustic_scale=transfer.acoustic_scale or decode.acoustic_scale,
    )


def deciding_options(options: SpeechOptions, split: str) -> dict[str, Any]:
    """What decides a split's targets, apart from the inputs of their step."""
    of_transcript = is_transcript(options, split)
    silence = {"silence_prob": options.realign.silence_prob} if of_transcript else {}
    return {
        "lattices": "transcript" if of_transcript else "words",
        "weight": options.transfer.lattice_weight,
        "search": asdict(lattice_search(options, split)),
        "posteriors": asdict(options.posteriors),
        "format": FORMAT,
        **silence,
    }


@dataclass(frozen=True)
class LatticeTask:
    """Makes the targets of spans of a split's frames, each of one utterance."""

    split: str
    options: SpeechOptions
    search: DecodeOptions
    uses_k2: ClassVar[bool] = True

    def out_of_memory(self, span: Span) -> str:
        """Which utterance a process could not decode, and what may help."""
        return out_of_memory(utt_id_at(target_frames(RunFolders(self.options.exp_dir), self.split), span))

    def open(self) -> LatticeTargets:
        keep_freed_memory()  # k2 asks for large blocks at every frame
        folders, options = RunFolders(self.options.exp_dir), self.options
        frames, ensemble = target_frames(folders, self.split), open_ensemble(teacher_folders(options))
        _, _, log_prior = load_hmm(folders.tree)
        return LatticeTargets(
            frames,
            SplicedFrames(frames, options.context.left, options.context.right, utt_ids=()),
            AveragedEnsemble(ensemble, options.posteriors.mean),
            log_prior,
            self._transcript_lattice(frames) if is_transcript(options, self.split) else self._word_lattice(),
            options.transfer.lattice_weight,
            options.posteriors,
        )

    def describe(self, frames: FrameStore) -> StoreDescription:
        """The store of these targets."""
        options, folders = self.options, RunFolders(self.options.exp_dir)
        ensemble = open_ensemble(teacher_folders(options))
        tree, transitions, log_prior = load_hmm(folders.tree)
        made_by = [
            deciding_options(options, self.split),
            asdict(self.search),
            [tensor_digest(tensor) for tensor in (*ensemble.parameters(), log_prior)],
            Lexicon.load(folders.lexicon).fingerprint,
            transitions.digests(),
            None if is_transcript(options, self.split) else open_graph(options.exp_dir).fingerprint,
        ]
        return StoreDescription(
            options.posteriors, fingerprint(made_by), tree.num_pdfs, ensemble.num_members, tree.fingerprint, frames
        )

    def _word_lattice(self) -> Lattice:
        """Lattices of the decoding graph."""
        search = K2Search(open_graph(self.options.exp_dir), self.search).open()
        return lambda utt_id, scores: search.intersect(search.k2_graph, scores)

    def _transcript_lattice(self, frames: FrameStore) -> Lattice:
        """Lattices of the training graph of each utterance's transcript."""
        folders, silence_prob = RunFolders(self.options.exp_dir), self.options.realign.silence_prob
        lexicon, search = Lexicon.load(folders.lexicon), self.search
        tree, transitions, _ = load_hmm(folders.tree)
        phones, with_context = tree.phones, not tree.is_monophone

        def lattice(utt_id: str, scores: Tensor) -> k2.Fsa:
            text = frames.texts[frames.index(utt_id)]
            graphs = TrainingGraphs.build([text], lexicon, phones, silence_prob, with_context)
            graph = graphs.compile(tree, transitions).fsa_vec(0, 1)
            graph.scores = search.lm_scale * graph.scores
            return frame_lattice(graph, scores, search, search.lattice_beam)

        return lattice


@dataclass(frozen=True, eq=False)
class LatticeTargets:
    """Rows of the store of a span: the opened task."""

    frames: FrameStore
    inputs: SplicedFrames
    model: AveragedEnsemble
    log_prior: Tensor
    lattice: Lattice
    weight: float
    options: StoreOptions

    def __call__(self, span: Span) -> Rows:
        utt_id = utt_id_at(self.frames, span)
        with named_memory_error(out_of_memory(utt_id)):
            return self._targets(utt_id).as_rows()

    def _targets(self, utt_id: str) -> Compressed:
        log_probs = self.log_probs(utt_id)
        num_pdfs = log_probs.shape[1]
        lattice = self.lattice(utt_id, log_probs - self.log_prior)
        if not lattice.num_arcs:
            return rows_without_targets(len(log_probs), num_pdfs, self.options)
        return self._rows(Occupations.of(lattice, num_pdfs), log_probs)

    @torch.no_grad()
    def log_probs(self, utt_id: str) -> Tensor:
        """Log-posteriors [T, S] of the ensemble at temperature 1."""
        chunks = self.inputs.read_chunks(utt_id, SCORED_FRAMES)
        return torch.cat([F.log_softmax(self.model(frames), dim=1) for frames in chunks])

    def _rows(self, occupations: Occupations, log_probs: Tensor) -> Compressed:
        num_frames, num_pdfs = log_probs.shape
        parts = []
        for begin in range(0, num_frames, DENSE_FRAMES):
            end = min(begin + DENSE_FRAMES, num_frames)
            occupation = occupations.dense(begin, end, num_pdfs)
            parts.append(target_rows(averaged(occupation, log_probs[begin:end], self.weight), self.options))
        return Compressed(*(torch.cat(column) for column in zip(*parts, strict=True)))


def out_of_memory(utt_id: str) -> str:
    """Which utterance has too large a lattice, and what may help."""
    return (
        f"{utt_id}: its lattice needs more memory than there is: try fewer jobs (--nj), a smaller "
        "--transfer.lattice-beam or --decode.max-active, or refuse long utterances (--max-duration)"
    )


def utt_id_at(frames: FrameStore, span: Span) -> str:
    """The utterance of a span of frames."""
    return frames.utt_ids[int(torch.searchsorted(frames.offsets, span[0], right=True)) - 1]


def make_lattice_targets(split: str, options: SpeechOptions, out_dir: Path) -> None:
    """Stage 7: lattice targets of the training frames or of the transfer set, and which utterances have none."""
    search = lattice_search(options, split)
    if tunes_scales(options):
        search = replace(search, **asdict(tuned(options.exp_dir / SCALES_STEP, options).scales))
    folders = RunFolders(options.exp_dir)
    frames = target_frames(folders, split)
    task = LatticeTask(split, options, search)
    spans = list(itertools.pairwise(frames.offsets.tolist()))
    store = write_store(out_dir / STORE_FOLDER, task.describe(frames), task, spans, options.task_executor)
    missing = _without_path(store, split)
    report: dict[str, Any] = {"utterances": len(store.utt_ids), "without_path": missing, **asdict(search.scales)}
    if split != TRANSFER:
        report["top_is_label"] = _agreement(store, missing, labelled_store(folders, split)[1])
        print(f"   the targets' most probable senone is the label in {100 * report['top_is_label']:.1f}% of the frames")
    write_json(out_dir / REPORT_FILE, report)


def _without_path(store: PosteriorStore, split: str) -> list[str]:
    """The utterances without a lattice, counted and named in one line. InputError if none has one."""
    missing, total = store.utt_ids_without_targets, len(store.utt_ids)
    if len(missing) == total:
        raise InputError(
            f"{split}: expected lattices, found no path for any of {total} utterances: wider --decode.beam?"
        )
    if missing:
        log.warning(
            "%s: no path to a final state in the lattices of %d of %d utterances, which distilled students do not "
            "learn from: %s",
            *(split, len(missing), total, name_some(missing)),
        )
    return missing


def _agreement(store: PosteriorStore, missing: Sequence[str], labels: Tensor) -> float:
    """Share of the frames [T] with targets in which the most probable senone is the label."""
    excluded, num_frames, num_right = set(missing), 0, 0
    for utt_id, (begin, end) in zip(store.utt_ids, itertools.pairwise(store.offsets.tolist()), strict=True):
        if utt_id not in excluded:
            num_frames += end - begin
            num_right += int((store.top_classes(begin, end) == labels[begin:end]).sum())
    return num_right / num_frames
