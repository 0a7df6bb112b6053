"""Frame metrics of decoded systems, where two results have the same labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asrkd.align import Alignment
from asrkd.files import fingerprint, read_object, reading, tensor_digest
from asrkd.hmm.tree import SenoneTree
from asrkd.recipe.evaluate import FRAMES_FILE, load_frame_metrics
from asrkd.recipe.folders import TREE_FILE, RunFolders
from asrkd.scoring.bootstrap import UtteranceMetric, mean_over_seeds

SPLIT = "test"


@dataclass(frozen=True)
class ScoredFrames:
    """Frame accuracy and cross-entropy of a system, and what identifies the labels that they are of."""

    metrics: Mapping[str, UtteranceMetric]
    """By name."""
    labels: Mapping[str, str]
    """utt_id -> digest of its senones; the tree decides it, too."""

    def has_labels_of(self, other: ScoredFrames, utt_ids: Collection[str]) -> bool:
        """Whether these utterances have the same senones in both, or no labels in both."""
        return all(self.labels.get(utt_id) == other.labels.get(utt_id) for utt_id in utt_ids)

    def of(self, utt_ids: Collection[str]) -> dict[str, UtteranceMetric]:
        """The metrics of those of the utterances that have labels, in the order of utt_id."""
        return {name: _of_utterances(metric, utt_ids) for name, metric in self.metrics.items()}


def common_metrics(
    systems: Sequence[ScoredFrames | None], utt_ids: Collection[str]
) -> dict[str, list[UtteranceMetric]]:
    """The metrics of several systems on these utterances; none where one has no labels, or others than the first."""
    scored = [one for one in systems if one is not None]
    if len(scored) < len(systems) or not all(one.has_labels_of(scored[0], utt_ids) for one in scored):
        return {}
    if scored[0].labels.keys().isdisjoint(utt_ids):
        return {}
    found = [one.of(utt_ids) for one in scored]
    return {name: [one[name] for one in found] for name in found[0]}


def read_frames(folder: Path, seeds: Sequence[str]) -> ScoredFrames | None:
    """Frame metrics of a system, means over its seeds; None where nothing was labelled, as by `asrkd decode`."""
    files = [folder / "decode" / seed / FRAMES_FILE for seed in seeds]
    alignment_file = RunFolders(folder).alignment(SPLIT)
    if not all(path.is_file() for path in (*files, alignment_file)):
        return None
    found = [_saved_metrics(path) for path in files]
    metrics = {name: mean_over_seeds([one[name] for one in found]) for name in found[0]}
    return ScoredFrames(metrics, _label_digests(folder, Alignment.load(alignment_file)))


def _saved_metrics(path: Path) -> dict[str, UtteranceMetric]:
    saved = read_object(path, utt_ids=list, frames=list, correct=list, nats=list)
    with reading(path, "frame scores"):
        found = load_frame_metrics(saved)
    return {metric.name: metric for metric in (found.accuracy, found.cross_entropy)}


def _label_digests(folder: Path, alignment: Alignment) -> dict[str, str]:
    tree = SenoneTree.load(RunFolders(folder).tree / TREE_FILE)
    pdf_ids = alignment.pdf_ids(tree).split(alignment.offsets.diff().tolist())
    return {
        utt_id: fingerprint([tree.fingerprint, tensor_digest(one)])
        for utt_id, one in zip(alignment.utt_ids, pdf_ids, strict=True)
    }


def _of_utterances(metric: UtteranceMetric, utt_ids: Collection[str]) -> UtteranceMetric:
    wanted = set(utt_ids)
    rows = sorted((utt_id, row) for row, utt_id in enumerate(metric.utt_ids) if utt_id in wanted)
    order = np.array([row for _, row in rows], dtype=np.int64)
    return UtteranceMetric(
        metric.name,
        tuple(utt_id for utt_id, _ in rows),
        metric.numerator[order],
        metric.denominator[order],
        metric.scale,
        metric.higher_is_better,
    )
