"""Corpora: one module each turns a corpus's own layout into Lhotse manifests, split by a fixed rule.

MNIST's module reads images instead, for which nobody needs lhotse: it is imported only by those that use it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lhotse import RecordingSet, SupervisionSet

PART_KEY = "part"
"""Of a supervision's `custom` entries: the part of the corpus that it comes from, where WER is told by part."""


@dataclass(frozen=True)
class Rejected:
    """An utterance that cannot be used, and why."""

    utt_id: str
    reason: str

    def __str__(self) -> str:
        return f"{self.utt_id}: {self.reason}"


@dataclass(frozen=True)
class CorpusSplit:
    """One part (train, dev or test) of a corpus.

    A recording and its supervision share the utt_id; a supervision's text is upper-case words, and its
    speaker is set. `excluded` counts what the corpus's rules leave out (no fault of the data), by rule;
    `rejected` lists what is so faulty that it has no recording. `asrkd.data.validate` finds other faults.
    `missing` names what the corpus' own table has and its folder has not, `missing_share` is the share of the speech.
    """

    recordings: RecordingSet
    supervisions: SupervisionSet
    excluded: dict[str, int] = field(default_factory=dict)
    rejected: tuple[Rejected, ...] = ()
    missing: tuple[str, ...] = ()
    missing_share: float = 0.0

    @property
    def num_utterances(self) -> int:
        """Utterances spoken of anywhere: in a recording, in a supervision or among the dropped."""
        rejected = {fault.utt_id for fault in self.rejected}
        return len({*self.recordings.ids, *(s.recording_id for s in self.supervisions), *rejected})

    def texts(self) -> list[list[str]]:
        """The words of each utterance, in order of utt_id."""
        return [s.text.split() for s in sorted(self.supervisions, key=lambda s: str(s.id))]


def total_excluded(splits: Mapping[str, CorpusSplit]) -> dict[str, int]:
    """Utterances left out of the whole corpus, by rule."""
    total: Counter[str] = Counter()
    for split in splits.values():
        total.update(split.excluded)
    return dict(sorted(total.items()))
