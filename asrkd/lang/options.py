"""Options of the language stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from asrkd.errors import InputError
from asrkd.lang.tags import parse_tags


@dataclass(frozen=True)
class LangOptions:
    """Modelling units, lexicon and language model."""

    units: Literal["phones", "subword"] = "phones"
    """Units of the acoustic models: phones of a lexicon, or SentencePiece pieces of the training text."""
    lexicon: str | None = None
    """Dictionary file (lexicon.txt or CMU format), or "cmudict"; default: the corpus's own. For phones only."""
    arpa: str | None = None
    """N-gram model for decoding: ARPA (may be gzip) or Sphinx binary; default: estimated from the training text."""
    text: str | None = None
    """Text that the n-gram model for decoding is estimated from instead, one sentence a line (may be gzip), of any
    size."""
    interpolation_weight: float = 0.0
    """Weight (0 to 1) of the model of the training text, which is interpolated with `arpa` or `text`, and with
    `rescore_arpa`; 0: no interpolation."""
    prune: float = 0.0
    """Remove n-grams of `arpa` or `text` that each change the perplexity by less than this fraction (Stolcke 1998),
    e.g. 1e-7."""
    max_words: int | None = None
    """Decode only the most probable words of `arpa` or `text`, this many; default: all of them."""
    max_unpronounced: float = 0.1
    """Fraction of these words that may have no pronunciation; the run stops if more have none."""
    rescore_arpa: str | None = None
    """Larger n-gram model of the same words that rescores the lattices; default: no rescoring."""
    order: int = 3
    """Longest n-gram of an estimated language model, in words."""
    vocab_size: int = 80
    """Number of SentencePiece pieces, with `<unk>` and the word-start mark; for subword units only."""
    samples: int = 1
    """Pronunciations per word: the best segmentation, and others drawn at random; for subword units only."""
    seed: int = 0
    """Seed of the drawn segmentations; for subword units only."""
    tags: tuple[str, ...] = ()
    """What the tags of the texts are: NOISE=SPN gives [NOISE], <NOISE>, ... the phone SPN, NOISE=SIL makes it a pause,
    NOISE= removes it. Commas or spaces separate several. Tags that are not named are refused."""
    strip_punctuation: bool = False
    """Remove the punctuation of the texts, except apostrophes and hyphens between letters."""
    split_characters: bool = False
    """Make each character of Chinese, Japanese, Thai, Lao, Khmer and Burmese a word: their texts have no spaces."""

    def __post_init__(self) -> None:
        for name in ("order", "vocab_size", "samples"):
            value = getattr(self, name)
            if value < 1:
                raise InputError(f"{_option(name)}: expected 1 or more, found {value}")
        if self.max_words is not None and self.max_words < 1:
            raise InputError(f"--lang.max-words: expected 1 or more, found {self.max_words}")
        if self.arpa is not None and self.text is not None:
            raise InputError(
                f"--lang.text: expected it or --lang.arpa, found both ({self.text} and {self.arpa}); --lang.arpa None "
                "decodes with the model of the text"
            )
        for name in ("interpolation_weight", "prune", "max_unpronounced"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise InputError(f"{_option(name)}: expected 0 to 1, found {value}")
        parse_tags(self.tags)

    @property
    def model_file(self) -> str | None:
        """The file that the decoding model comes from; None: from the training text."""
        return self.arpa if self.text is None else self.text


def _option(name: str) -> str:
    return f"--lang.{name.replace('_', '-')}"
