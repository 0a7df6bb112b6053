"""Subword units for a language without a dictionary: pieces for phones, segmentations for pronunciations."""

from __future__ import annotations

import io
import math
import random
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from asrkd.errors import InputError
from asrkd.files import atomic_file
from asrkd.lang.lexicon import Lexicon, Pronunciation, require_none

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

# SentencePiece's mark of a word's beginning, U+2581.
WORD_START = "▁"
# Ours of a piece that begins inside a word: no piece's name then equals "SIL", "#1" or "<eps>".
INSIDE_WORD = "+"
# Segmentations considered when sampling (the l of Kudo 2018); words here have few more that are worth having.
NBEST_SIZE = 64

_UNKNOWN_ID = 0


class VocabSizeError(InputError):
    """The text has no vocabulary of this size."""

    def __init__(self, message: str, nearest: int) -> None:
        super().__init__(f"subword units: {message}")
        self.nearest = nearest
        """The nearest size that the text has."""


def train_pieces(texts: Iterable[str], vocab_size: int, out_prefix: Path | str) -> Path:
    """Learn pieces with the unigram model of Kudo (2018); write and return the path `<out_prefix>.model`.

    `texts` are lines of words; pieces never cross from word to word. `vocab_size` counts the pieces, every
    character of the text, the mark of a word's beginning and `<unk>` among them. The same text gives the
    same bytes. InputError if there is no text, or naming the least or the largest vocabulary that it has
    pieces for.
    """
    import sentencepiece

    words = [word for text in texts for word in text.split()]
    if not words:
        raise InputError("subword units: expected training text, found none")
    marked = next((word for word in words if WORD_START in word), None)
    if marked is not None:
        raise InputError(f"subword units: word {marked!r} holds U+2581, which SentencePiece keeps for itself")
    least = len(set("".join(words))) + 2
    if vocab_size < least:
        message = f"{least - 2} characters, the mark of a word's beginning and <unk>"
        raise VocabSizeError(f"lang.vocab_size is {vocab_size}, expected at least {least}: {message}", least)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            # A word a line: lines over 4192 bytes would be left out without an error.
            sentence_iterator=iter(words),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            character_coverage=1.0,
            normalization_rule_name="identity",
            unk_id=_UNKNOWN_ID,
            bos_id=-1,
            eos_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _size_error(vocab_size, str(error)) from None
    path = Path(f"{out_prefix}.model")
    with atomic_file(path) as beside:
        beside.write_bytes(model.getvalue())
    return path


def _size_error(vocab_size: int, message: str) -> InputError:
    if largest := re.search(r"value <= (\d+)", message):
        return VocabSizeError(
            f"lang.vocab_size is {vocab_size}, this text allows at most {largest[1]}", int(largest[1])
        )
    return InputError(f"subword units: SentencePiece refused lang.vocab_size {vocab_size}: {message}")


def subword_lexicon(
    words: Iterable[str],
    model: Path | str,
    num_samples: int = 1,
    seed: int = 0,
    on_unknown: Literal["error", "leave-out"] = "error",
) -> Lexicon:
    """The lexicon whose phones are pieces and whose pronunciations are segmentations, the likeliest first.

    The other `num_samples` - 1 are drawn without replacement from the likeliest NBEST_SIZE, by the model's
    own probabilities; a word with fewer segmentations has fewer. A word's draw depends on `seed` and the
    word alone.

    A piece that begins a word is named with SentencePiece's mark (`▁SI`), one inside with a plus (`+X`). A
    mark that is a piece by itself has no sound of its own and joins the piece behind it: a word's first
    unit, a spelled letter above all, is then never the same as within words. So there may be more units than
    pieces.

    InputError, or with `on_unknown="leave-out"` no entry, for words with characters that the pieces lack;
    InputError if the model is missing or damaged.
    """
    if num_samples < 1:
        raise InputError(f"subword units: expected lang.samples of 1 or more, found {num_samples}")
    processor = _load(model)
    prons: dict[str, tuple[Pronunciation, ...]] = {}
    unknown: list[str] = []
    for word in sorted(set(words)):
        if _UNKNOWN_ID in processor.encode(word, out_type=int):
            unknown.append(word)
        else:
            prons[word] = _segmentations(processor, word, num_samples, seed)
    if on_unknown == "error":
        require_none(unknown, f"{model} (characters that its pieces lack)")
    return Lexicon(prons)


def _load(model: Path | str) -> SentencePieceProcessor:
    import sentencepiece

    if not Path(model).is_file():
        raise InputError(f"{model}: no such file")
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(model))
    except (RuntimeError, OSError) as error:
        raise InputError(f"{model}: expected a SentencePiece model, found something else ({error})") from None


def _segmentations(
    processor: SentencePieceProcessor, word: str, num_samples: int, seed: int
) -> tuple[Pronunciation, ...]:
    log_probs: dict[Pronunciation, float] = {}
    for ids in processor.nbest_encode(word, nbest_size=NBEST_SIZE, out_type=int):
        pron = _named(processor.id_to_piece(ids))
        log_prob = float(sum(processor.get_score(i) for i in ids))
        # `▁` + `S` and `▁S` have become one: their probabilities add.
        log_probs[pron] = float(np.logaddexp(log_probs.get(pron, -math.inf), log_prob))
    best, *others = sorted(log_probs, key=lambda pron: (-log_probs[pron], pron))
    rng = random.Random(f"{seed} {word}")
    # Drawing without replacement is taking the largest of log-probability plus Gumbel noise.
    noisy = {pron: log_probs[pron] - math.log(rng.expovariate(1.0)) for pron in others}
    return (best, *sorted(others, key=lambda pron: -noisy[pron])[: num_samples - 1])


def _named(pieces: list[str]) -> Pronunciation:
    """A word's pieces as phones: a lone mark joins the piece behind it, all but the first take a `+`."""
    first, *others = [WORD_START + pieces[1], *pieces[2:]] if pieces[0] == WORD_START else pieces
    return (first, *(INSIDE_WORD + piece for piece in others))
