"""What is odd about the words of texts, found before anything is trained on them.

Tags and words without a letter are refused: they would be spelled out and aligned as if somebody had said that.
Other odd words are named in warnings: punctuation, digits, words that look alike, sentences without spaces.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from asrkd.errors import InputError, name_some
from asrkd.lang.lookalikes import look_alikes, mixed_letters
from asrkd.lang.phones import SILENCE
from asrkd.lang.scripts import sentence_like
from asrkd.lang.tags import BRACKETS, TAG, tag_name
from asrkd.lang.text_rules import is_punctuation, is_word_character, strip_punctuation
from asrkd.unicode import code_points

NUM_NAMED = 20
NUM_EXAMPLES = 8
_INITIALS = re.compile(r"(?:[^\W\d_]\.)+")  # A., U.S.
LONGEST_SHOWN = 30  # characters of an item in a message
_LONGEST_NAME = 60  # of a tag that the advice names
# Names of noises that some corpora write without brackets.
_BARE_NAMES = frozenset(("SIL", "SPN", "NSN", "UNK", "XXX"))
# What a tag of this name usually is; others are taken for noises.
_USUAL_PHONES = {"SIL": SILENCE, "SILENCE": SILENCE, "PAUSE": SILENCE, "S": "", "/S": ""}
# How names of tags begin that nobody says: [LAUGHTER] is one also where the texts have the word LAUGHTER.
_NOISES = (
    *("NOIS", "LAUGH", "BREATH", "COUGH", "MUSIC", "SILEN", "BACKGROUND", "SPEECH", "SPEAKER", "UNK", "PAUSE"),
    *("CLICK", "SNEEZ", "SIGH", "LIP", "SMACK", "INHAL", "EXHAL", "APPLAU", "RING", "BEEP", "PHONE"),
    *("DOOR", "CROSS", "FOREIGN", "UNINTELLIGIBLE", "INAUDIBLE", "HESITATION", "VOCALIZED", "STATIC", "THROAT", "CRY"),
)
_NUMERAL = "\u3007"  # the zero of Chinese: Unicode has it as a number, the language as a character like the others


class Utterances(Counter[str]):
    """Number of utterances of each item, and one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[str, str] = {}

    def add(self, item: str, utt_id: str) -> None:
        self[item] += 1
        self.first.setdefault(item, utt_id)

    def named(self, limit: int) -> str:
        """`[NOISE] (4, first in utt1), <SIL> (2, first in utt7)`, the most frequent first."""
        ranked = sorted(self, key=lambda item: (-self[item], item))
        return name_some([f"{_short(item)} ({self[item]}, first in {self.first[item]})" for item in ranked], limit)


@dataclass
class OddWords:
    """Items of texts that are no plain words, by kind."""

    num_texts: int = 0
    tags: Utterances = field(default_factory=Utterances)
    numbers: Utterances = field(default_factory=Utterances)
    marks: Utterances = field(default_factory=Utterances)
    """Words of punctuation and symbols alone."""
    punctuated: Utterances = field(default_factory=Utterances)
    unread: Utterances = field(default_factory=Utterances)
    """Words of letters with digits, or with symbols that are read aloud."""
    bare: Utterances = field(default_factory=Utterances)
    """Names of noises that no bracket marks."""
    refused_texts: int = 0
    words: set[str] = field(default_factory=set)
    """All words outside of tags."""

    @classmethod
    def of(cls, texts: Mapping[str, str], known: Collection[str]) -> OddWords:
        """The odd words of texts by utt_id. Words that are `known` are none."""
        odd = cls(len(texts))
        for utt_id, text in texts.items():
            odd._add(utt_id, text, known)
        return odd

    def _add(self, utt_id: str, text: str, known: Collection[str]) -> None:
        tags, words = _tags_and_words(text, known)
        self.words.update(words)
        kinds = {word: self._kind(word) for word in set(words) - set(known)}
        for tag in set(tags):
            self.tags.add(tag, utt_id)
        for word, kind in kinds.items():
            if kind is not None:
                kind.add(word, utt_id)
        refused = (self.tags, self.numbers, self.marks)
        self.refused_texts += bool(tags) or any(kind is one for kind in kinds.values() for one in refused)

    def _kind(self, word: str) -> Utterances | None:
        if BRACKETS.intersection(word):
            return self.tags
        if not any(letter.isalpha() or letter == _NUMERAL for letter in word):
            return self.numbers if any(map(_is_digit, word)) else self.marks
        if any(_is_digit(letter) or not (is_word_character(letter) or is_punctuation(letter)) for letter in word):
            return self.unread
        if word in _BARE_NAMES:
            return self.bare
        return self.punctuated if _is_punctuated(word) else None


def require_words(texts: Mapping[str, str], known: Collection[str], options: str, has_lexicon: bool) -> None:
    """InputError, naming them all, for tags and words without a letter that are not `known`.

    `options` is what the names of options begin with: `--lang.`, or `--` of `asrkd init`.
    """
    odd = OddWords.of(texts, known)
    kinds = [kind for kind in (odd.tags, odd.numbers, odd.marks) if kind]
    if not kinds:
        return
    advice = _advice_on_tags(odd, options)
    if odd.numbers:
        advice.append("write numbers as words")
    if odd.marks:
        others = sorted(mark for mark in odd.marks if strip_punctuation(mark).strip())
        if len(others) < len(odd.marks):
            advice.append(f"remove punctuation by {options}strip-punctuation")
        if others:
            named = name_some([_short(one) for one in others])
            advice.append(f"write symbols that are read as words, and remove the others ({named}) from the texts")
    if has_lexicon:
        advice.append("or add them to the lexicon")
    named = ", ".join(kind.named(NUM_NAMED) for kind in kinds)
    raise InputError(
        f"texts: expected words, found {sum(map(len, kinds))} tags or words without a letter in {odd.refused_texts} of "
        f"{odd.num_texts} utterances: {named}: {'; '.join(advice)}"
    )


def _advice_on_tags(odd: OddWords, options: str) -> list[str]:
    advice = []
    spoken = sorted(tag for tag in odd.tags if _is_spoken(tag, odd.words))
    names = sorted({tag_name(tag) for tag in odd.tags if tag not in spoken})
    long_names = [name for name in names if len(name) > _LONGEST_NAME]
    names = [name for name in names if len(name) <= _LONGEST_NAME]
    if spoken:
        advice.append(
            "in the texts, take the words that somebody says out of their brackets, and remove the other brackets, "
            f"such as {name_some([_short(tag) for tag in spoken])}"
        )
    if long_names:
        advice.append(f"remove these brackets from the texts: {name_some([_short(name) for name in long_names])}")
    if names:
        every = ",".join(f"{name}={_USUAL_PHONES.get(name, 'SPN')}" for name in names)
        advice.append(
            f"say what each tag is, such as {options}tags {shlex.quote(every)} (NAME=SPN is a noise with a phone SPN, "
            "NAME=SIL a pause, NAME= removes it)"
        )
    return advice


def warnings_of(
    texts: Mapping[str, str], known: Collection[str], dictionary: Collection[str], options: str
) -> list[str]:
    """A sentence for each kind of odd words that a run accepts. `dictionary` has words to compare shapes with."""
    words = [word for text in texts.values() for word in text.split()]
    odd = OddWords.of(texts, known)
    found = (
        _sentences_warning([word for word in words if word not in known], len(words), options),
        _punctuation_warning(odd, set(words), options),
        _look_alike_warning(set(words), known, dictionary),
    )
    return [warning for warning in found if warning]


def _is_spoken(tag: str, words: Collection[str]) -> bool:
    """Whether a tag has words that somebody says: (( YES )) of Fisher, [LAUGHTER-YES] of Switchboard."""
    if tag.startswith("(("):
        return True
    if tag_name(tag) in _USUAL_PHONES:
        return False
    parts = [part for part in re.split(r"[\W_]+", tag) if len(part) > 1]
    return any(part in words and not part.startswith(_NOISES) for part in parts)


def candidates(texts: Iterable[str]) -> set[str]:
    """Words of texts that are no plain ones: of these, a caller finds out which are known."""
    words = {word for text in texts for word in text.split()}
    return {word for word in words if word in _BARE_NAMES or not (word.isalpha() and word.isascii())}


def _tags_and_words(text: str, known: Collection[str]) -> tuple[list[str], list[str]]:
    """The unknown tags of a text, and its words outside of them."""
    tags: list[str] = []
    words: list[str] = []
    end = 0
    text = " ".join(text.split())
    for match in TAG.finditer(text):
        start = text.rfind(" ", 0, match.start()) + 1
        stop = text.find(" ", match.end())
        whole = text[start : stop if stop >= 0 else len(text)]
        words += text[end : max(start, end)].split()
        end = max(end, start + len(whole))
        if whole not in known:
            tags.append(match[0])
    return tags, words + text[end:].split()


def _is_digit(letter: str) -> bool:
    return unicodedata.category(letter).startswith("N") and letter != _NUMERAL


def _is_punctuated(word: str) -> bool:
    """Whether a word has punctuation that words do not have: it is no apostrophe at an end and no point of initials."""
    inner = word[word.startswith("'") : len(word) - word.endswith("'")]
    return strip_punctuation(inner) != inner and not _INITIALS.fullmatch(word)


def _punctuation_warning(odd: OddWords, words: set[str], options: str) -> str:
    parts = []
    if odd.punctuated:
        twins = {word: strip_punctuation(word).strip() for word in odd.punctuated}
        twins = {word: plain for word, plain in twins.items() if plain in words and plain != word}
        pairs = name_some([f"{word} and {plain}" for word, plain in sorted(twins.items())], NUM_EXAMPLES)
        parts.append(
            f"{len(odd.punctuated)} words with punctuation ({odd.punctuated.named(NUM_EXAMPLES)})"
            + (f", which are other words than those without ({pairs})" if twins else "")
            + f": {options}strip-punctuation removes it"
        )
    if odd.unread:
        named = odd.unread.named(NUM_EXAMPLES)
        parts.append(f"{len(odd.unread)} words with digits or symbols ({named}): write them as they are said")
    if odd.bare:
        named = odd.bare.named(NUM_EXAMPLES)
        parts.append(f"{len(odd.bare)} words that are names of noises ({named}): write tags as [SIL] if they are")
    return f"texts: {'; '.join(parts)}" if parts else ""


def _look_alike_warning(words: set[str], known: Collection[str], dictionary: Collection[str]) -> str:
    pairs = look_alikes(words, dictionary)
    named = [f"{word} ({_points(word, other)}) and {other} ({_points(other, word)})" for word, other in pairs]
    paired = {word for pair in pairs for word in pair}
    mixed = sorted(word for word in words - paired - set(known) if mixed_letters(word))
    named += [f"{word} ({code_points(mixed_letters(word))} in a word of other letters)" for word in mixed]
    if not named:
        return ""
    return f"texts: {len(named)} words look like others but have other letters: {name_some(named, NUM_EXAMPLES)}"


def _points(word: str, other: str) -> str:
    """The characters of a word that another one lacks."""
    return code_points([letter for letter in word if letter not in other] or word)


def _sentences_warning(unknown: list[str], num_words: int, options: str) -> str:
    sentences = sentence_like(unknown)
    if not sentences:
        return ""
    return (
        f"texts: sentences would become words: {len(sentences)} of {num_words} words are long and of a script without "
        f"spaces, such as {name_some([_short(word) for word in dict.fromkeys(sentences)], 3)}: "
        f"{options}split-characters makes each character a word; or put spaces between the words"
    )


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
