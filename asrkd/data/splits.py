"""Train, dev and test: what every corpus module returns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lhotse import RecordingSet, SupervisionSet

PART_KEY = "part"
"""Key of a supervision's `custom` entries: the part of the corpus that it comes from, where WER is reported by part."""


@dataclass(frozen=True)
class Rejected:
    """An utterance that cannot be used, and why."""

    utt_id: str
    reason: str
    """A kind of fault; a colon or a comma; details of this utterance."""

    @property
    def kind(self) -> str:
        """The reason without the details: equal kinds are counted together."""
        return re.split(r"[:,]", self.reason, maxsplit=1)[0]

    def __str__(self) -> str:
        return f"{self.utt_id}: {self.reason}"


@dataclass(frozen=True)
class CorpusSplit:
    """One part (train, dev or test) of a corpus.

    A recording and its supervision share the utt_id. A supervision's text is upper-case words, and its speaker is set.
    """

    recordings: RecordingSet
    supervisions: SupervisionSet
    excluded: dict[str, int] = field(default_factory=dict)
    """Utterances that each rule of the corpus excludes; no fault of the data."""
    rejected: tuple[Rejected, ...] = ()
    """Utterances that are so faulty that they have no recording. `asrkd.data.validate` finds other faults."""
    missing: tuple[str, ...] = ()
    """What the corpus' own table lists and its folder lacks."""
    missing_share: float = 0.0
    """The share of the speech that is missing."""

    @property
    def num_utterances(self) -> int:
        """Utterances that appear anywhere: in a recording, in a supervision or among the rejected."""
        rejected = {fault.utt_id for fault in self.rejected}
        return len({*self.recordings.ids, *(s.recording_id for s in self.supervisions), *rejected})

    def texts(self) -> list[list[str]]:
        """The words of each utterance, in order of utt_id."""
        return [s.text.split() for s in sorted(self.supervisions, key=lambda s: str(s.id))]


def total_excluded(splits: Mapping[str, CorpusSplit]) -> dict[str, int]:
    """Number of utterances that each rule excludes from the whole corpus."""
    total: Counter[str] = Counter()
    for split in splits.values():
        total.update(split.excluded)
    return dict(sorted(total.items()))
