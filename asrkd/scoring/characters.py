"""Character errors: the error rate of texts whose words are not marked, and a finer one of all others.

The characters are the Unicode code points of an utterance's words, joined without spaces: so count sclite (`-c` in
SCTK's manual) and Kaldi (steps/scoring/score_kaldi_cer.sh). The rate does not depend on where words end. jiwer counts
each space as one more character, which is another rate.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import kaldialign
import numpy as np

from asrkd.errors import require_same_utterances
from asrkd.scoring.bootstrap import NUM_REPLICATES, UtteranceMetric, by_speaker, interval


@dataclass(frozen=True)
class CharacterErrors:
    """Edit counts of a test set in characters, by utterance: arrays [N] in the order of `utt_ids`."""

    utt_ids: tuple[str, ...]
    """The utterances."""
    counts: Mapping[str, np.ndarray]
    """`ins`, `del`, `sub`, and `characters` of the reference."""
    speakers: Mapping[str, str] | None = None
    """utt_id -> speaker, where the bootstrap draws speakers; None: it draws utterances."""

    @property
    def metric(self) -> UtteranceMetric:
        """The character error rate as a ratio that the bootstrap can resample."""
        errors = sum(self.counts[name] for name in ("ins", "del", "sub"))
        metric = UtteranceMetric("cer", self.utt_ids, np.asarray(errors), self.counts["characters"], scale=100.0)
        return metric if self.speakers is None else by_speaker(metric, self.speakers)

    @property
    def percent(self) -> float:
        """Character error rate in percent: 100 * (ins + del + sub) / characters."""
        return self.metric.value

    def of_utterances(self, utt_ids: Collection[str]) -> CharacterErrors:
        """The counts of some of the utterances."""
        chosen = set(utt_ids)
        index = [number for number, utt_id in enumerate(self.utt_ids) if utt_id in chosen]
        return CharacterErrors(
            tuple(self.utt_ids[number] for number in index),
            {name: values[index] for name, values in self.counts.items()},
            self.speakers,
        )

    def as_json(self, num_replicates: int = NUM_REPLICATES, seed: int = 0) -> dict[str, Any]:
        """The `cer` entry of results.json: percent, ins, del, sub, characters, ci95."""
        totals = {name: int(values.sum()) for name, values in self.counts.items()}
        return {"percent": self.percent, **totals, "ci95": list(interval(self.metric, num_replicates, seed))}


def cer(refs: Mapping[str, Sequence[str]], hyps: Mapping[str, Sequence[str]]) -> CharacterErrors:
    """Levenshtein character errors of `hyps` against `refs`, both utt_id -> words.

    InputError if a reference has no hypothesis or a hypothesis has no reference. References have words (`wer`).
    """
    require_same_utterances(refs, hyps)
    rows = []
    for utt_id, words in refs.items():
        ref = list("".join(words))
        found = kaldialign.edit_distance(ref, list("".join(hyps[utt_id])))
        rows.append((found["ins"], found["del"], found["sub"], len(ref)))
    columns = np.array(rows, dtype=np.float64).reshape(-1, 4).T
    return CharacterErrors(tuple(refs), dict(zip(("ins", "del", "sub", "characters"), columns, strict=True)))
