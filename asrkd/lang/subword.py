"""Subword units for a language without a dictionary: pieces as phones, segmentations as pronunciations."""

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

# SentencePiece's word-start mark, U+2581.
WORD_START = "▁"
# Prefix of units inside words, so that no unit is called "SIL", "#1" or "<eps>".
INSIDE_WORD = "+"
# Segmentations that are considered in sampling (the l of Kudo 2018); few words have more that matter.
NBEST_SIZE = 64

_UNKNOWN_ID = 0


class VocabSizeError(InputError):
    """The text has no vocabulary of this size."""

    def __init__(self, message: str, nearest: int) -> None:
        super().__init__(f"subword units: {message}")
        self.nearest = nearest
        """The nearest size that the text has."""


def train_pieces(texts: Iterable[str], vocab_size: int, out_prefix: Path | str) -> Path:
    """Learn pieces with the unigram model of Kudo (2018); write `<out_prefix>.model` and return its path.

    `texts` are lines of words; a piece never spans two words. `vocab_size` is the number of pieces, with every
    character of the text, the word-start mark and `<unk>`. The same text gives the same bytes. InputError if there is
    no text, or if `vocab_size` is too small or too large for it; the message names the limit.
    """
    import sentencepiece

    words = [word for text in texts for word in text.split()]
    if not words:
        raise InputError("subword units: expected training text, found none")
    marked = next((word for word in words if WORD_START in word), None)
    if marked is not None:
        raise InputError(f"subword units: word {marked!r} contains U+2581, which SentencePiece reserves")
    least = len(set("".join(words))) + 2
    if vocab_size < least:
        message = f"{least - 2} characters, the word-start mark and <unk>"
        raise VocabSizeError(f"--lang.vocab-size is {vocab_size}, expected at least {least}: {message}", least)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            # One word per line: SentencePiece skips lines over 4192 bytes without an error.
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
    with atomic_file(path) as tmp_path:
        tmp_path.write_bytes(model.getvalue())
    return path


def train_nearest_pieces(texts: Iterable[str], vocab_size: int, out_prefix: Path | str) -> int:
    """`train_pieces` with the nearest size to `vocab_size` that the text allows; returns that size.

    A small text has few pieces. A script with many characters, such as Chinese, needs a piece for each. InputError as
    by `train_pieces`, but for sizes.
    """
    lines = list(texts)
    try:
        train_pieces(lines, vocab_size, out_prefix)
    except VocabSizeError as error:
        train_pieces(lines, error.nearest, out_prefix)
        return error.nearest
    return vocab_size


def _size_error(vocab_size: int, message: str) -> InputError:
    if largest := re.search(r"value <= (\d+)", message):
        return VocabSizeError(
            f"--lang.vocab-size is {vocab_size}, this text allows at most {largest[1]}", int(largest[1])
        )
    return InputError(f"subword units: SentencePiece refused --lang.vocab-size {vocab_size}: {message}")


def subword_lexicon(
    words: Iterable[str],
    model: Path | str,
    num_samples: int = 1,
    seed: int = 0,
    on_unknown: Literal["error", "exclude"] = "error",
) -> Lexicon:
    """A lexicon with pieces as phones and segmentations as pronunciations; the most probable one comes first.

    The other `num_samples` - 1 segmentations of a word are drawn without replacement from the NBEST_SIZE most probable
    ones, by the probabilities of the model. A word with fewer segmentations gets fewer. The draws for a word depend
    on `seed` and the word only.

    A unit at the start of a word has SentencePiece's mark (`▁SI`), a unit inside a word has a plus (`+X`). If the mark
    is a piece of its own, it is joined to the next piece, because it has no sound. So the first unit of a word, such
    as a spelled letter, always differs from units inside words, and there may be more units than pieces.

    InputError for words with characters that no piece has; with `on_unknown="exclude"` they are not in the lexicon.
    InputError if the model is missing or damaged.
    """
    if num_samples < 1:
        raise InputError(f"subword units: expected --lang.samples of 1 or more, found {num_samples}")
    processor = _load(model)
    prons: dict[str, tuple[Pronunciation, ...]] = {}
    unknown: list[str] = []
    for word in sorted(set(words)):
        if _UNKNOWN_ID in processor.encode(word, out_type=int):
            unknown.append(word)
        else:
            prons[word] = _segmentations(processor, word, num_samples, seed)
    if on_unknown == "error":
        require_none(unknown, f"{model} (characters that no piece has)")
    return Lexicon(prons)


def _load(model: Path | str) -> SentencePieceProcessor:
    import sentencepiece

    if not Path(model).is_file():
        raise InputError(f"{model}: no such file")
    try:
        processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
        processor.nbest_encode("A", nbest_size=1)  # models of another type than unigram load, and have no segmentations
    except (RuntimeError, OSError) as error:
        raise InputError(f"{model}: expected a unigram model of SentencePiece, found another file ({error})") from None
    return processor


def _segmentations(
    processor: SentencePieceProcessor, word: str, num_samples: int, seed: int
) -> tuple[Pronunciation, ...]:
    log_probs: dict[Pronunciation, float] = {}
    for ids in processor.nbest_encode(word, nbest_size=NBEST_SIZE, out_type=int):
        pron = _units(processor.id_to_piece(ids))
        log_prob = float(sum(processor.get_score(i) for i in ids))
        # `▁` + `S` and `▁S` are the same unit, so their probabilities add.
        log_probs[pron] = float(np.logaddexp(log_probs.get(pron, -math.inf), log_prob))
    best, *others = sorted(log_probs, key=lambda pron: (-log_probs[pron], pron))
    rng = random.Random(f"{seed} {word}")
    # The largest values of log-probability plus Gumbel noise are a draw without replacement.
    noisy = {pron: log_probs[pron] - math.log(rng.expovariate(1.0)) for pron in others}
    return (best, *sorted(others, key=lambda pron: -noisy[pron])[: num_samples - 1])


def _units(pieces: list[str]) -> Pronunciation:
    """Units of the pieces of a word: a single mark is joined to the next piece, all but the first get a `+`."""
    first, *others = [WORD_START + pieces[1], *pieces[2:]] if pieces[0] == WORD_START else pieces
    return (first, *(INSIDE_WORD + piece for piece in others))
