"""Options of the language stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from asrkd.errors import InputError


@dataclass(frozen=True)
class LangOptions:
    """Modelling units, lexicon and language model."""

    units: Literal["phones", "subword"] = "phones"
    """What acoustic models tell apart: phones of a lexicon, or SentencePiece pieces of the training text."""
    lexicon: str | None = None
    """Dictionary file (lexicon.txt or CMU format), or "cmudict"; none: the corpus's own. With phones only."""
    arpa: str | None = None
    """ARPA n-gram model to decode with (may be gzip); none: estimated from the training text."""
    order: int = 3
    """Longest n-gram of an estimated language model, in words."""
    vocab_size: int = 80
    """SentencePiece pieces to learn, `<unk>` and the mark of word beginnings included; with subword only."""
    samples: int = 1
    """Pronunciations of a word: its best segmentation and others drawn at random; with subword only."""
    seed: int = 0
    """Seed of the drawn segmentations; with subword only."""

    def __post_init__(self) -> None:
        for name in ("order", "vocab_size", "samples"):
            value = getattr(self, name)
            if value < 1:
                raise InputError(f"lang.{name}: expected 1 or more, found {value}")
