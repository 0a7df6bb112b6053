"""What a corpus counts as an error: words of the text, or phones that follow from the marks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lhotse import SupervisionSegment

from asrkd.lang.tags import TAG, is_tag
from asrkd.scoring.characters import CharacterErrors, cer
from asrkd.scoring.words import WordErrors, utterance_errors, wer


def words_of_text(supervision: SupervisionSegment) -> list[str]:
    """A text's words."""
    return (supervision.text or "").split()


@dataclass(frozen=True)
class Scoring:
    """How recognised words are compared with the reference."""

    unit: Literal["word", "phone"] = "word"
    """What the words of the texts are; the error rate is named after it."""
    reference: Callable[[SupervisionSegment], Sequence[str]] = words_of_text
    """supervision -> words of the reference."""
    folds: Mapping[str, str] = field(default_factory=dict)
    """Words that are compared as others, on both sides: phones of a larger set as those of a smaller."""
    optional: frozenset[str] = frozenset()
    """Words, folded, that may be missing without an error."""

    @property
    def rules(self) -> dict[str, Any]:
        """What decides the errors, as plain values."""
        name = f"{self.reference.__module__}.{self.reference.__qualname__}"
        rules = {"unit": self.unit, "reference": name, "folds": dict(self.folds), "optional": sorted(self.optional)}
        return {**rules, "ignored": TAG.pattern}

    def fold(self, words: Sequence[str]) -> list[str]:
        """Words as they are compared: without tags, which are noises and no words."""
        return [self.folds.get(word, word) for word in words if not is_tag(word)]

    def errors(self, refs: Mapping[str, Sequence[str]], hyps: Mapping[str, Sequence[str]]) -> WordErrors:
        """Errors of recognised words, utt_id -> words, against folded references."""
        return wer(refs, {utt_id: self.fold(words) for utt_id, words in hyps.items()}, self.optional)

    def character_errors(
        self, refs: Mapping[str, Sequence[str]], hyps: Mapping[str, Sequence[str]]
    ) -> CharacterErrors | None:
        """The same in characters; None where the unit has no characters."""
        if self.unit != "word":
            return None
        return cer(refs, {utt_id: self.fold(words) for utt_id, words in hyps.items()})

    def count_errors(self, ref: Sequence[str], hyp: Sequence[str]) -> int:
        """The same of one utterance, as a number."""
        return utterance_errors("", ref, self.fold(hyp), self.optional).errors
