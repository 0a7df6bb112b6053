"""The text that is aligned: which words belong to which recording, and how they are pronounced."""

from __future__ import annotations

import string
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from asrkd.errors import InputError, name_some
from asrkd.files import read_lines
from asrkd.lang.lexicon_lines import read_lexicon_lines
from asrkd.runtime.graph import WordGraph
from asrkd.runtime.inputs import MANIFEST_SUFFIXES, STDIN, AudioInput
from asrkd.runtime.word_times import Pronunciations
from asrkd.unicode import clean, upper_case

PUNCTUATION = string.punctuation + "“”„‘’«»…–—¿¡"


@dataclass(frozen=True, eq=False)
class Dictionary:
    """Words and their pronunciations, in the phones of a model."""

    prons: Pronunciations
    """Upper-case word -> pronunciations."""
    phone_ids: Mapping[str, int]

    @staticmethod
    def of(graph: WordGraph, lexicon: Path | None = None) -> Dictionary:
        """The words of a model, and those of a file of pronunciations. InputError for phones that it does not have."""
        prons = {word: list(of_word) for word, of_word in graph.prons.items()}
        if lexicon is not None:
            for line in read_lexicon_lines(lexicon, inventory=graph.phones, any_format=True):
                of_word = prons.setdefault(line.word, [])
                if line.pron not in of_word:
                    of_word.append(line.pron)
        return Dictionary(prons, {phone: number for number, phone in enumerate(graph.phones)})

    def key(self, word: str) -> str | None:
        """The entry of a word, None where there is none.

        It is looked up in upper case; where that is no entry, without the punctuation at its ends.
        """
        upper = upper_case(word)
        stripped = upper.strip(PUNCTUATION)
        return next((one for one in (upper, stripped) if one in self.prons), None)

    def words(self, text: str) -> list[str]:
        """The words of a text, without dashes and dots that stand alone."""
        return [word for word in text.split() if word in self.prons or word.strip(PUNCTUATION)]

    def missing(self, words: Sequence[str]) -> list[str]:
        """The words without pronunciation, each once."""
        return [word for word in dict.fromkeys(words) if self.key(word) is None]

    def pronunciations(self, words: Sequence[str], label: str) -> list[list[list[int]]]:
        """Of each word its pronunciations as phone ids. InputError, in one line, for words that have none."""
        missing = self.missing(words)
        if missing:
            raise InputError(f"{label}: {_advice(missing)}")
        entries = [self.prons[self.key(word) or word] for word in words]
        return [[[self.phone_ids[phone] for phone in pron] for pron in entry] for entry in entries]


def _advice(missing: Sequence[str]) -> str:
    count = f"{len(missing)} others: " if len(missing) > 1 else ""
    return f"expected words of the model's lexicon, found {count}{name_some(missing)}; --lexicon adds pronunciations"


@dataclass(frozen=True)
class Text:
    """The words of a recording, as they are written."""

    where: str
    """What errors name: a file, with the line where it has several texts."""
    words: Sequence[str]


def find_texts(argument: str, audio: str, inputs: Sequence[AudioInput], dictionary: Dictionary) -> Mapping[str, Text]:
    """Name of an input -> its words; inputs without a text are not in it. `argument`: a file, or - for standard input.

    For one audio file the file is its text, however many lines it has. For a folder or a manifest its lines are those
    of Kaldi's `text`: the name of an input, and its words. A file for one audio file may be one, too, if a line begins
    with the file's name and this name is no word.

    InputError for a text that is empty or has no line of any input, for a name twice, and for words that have no
    pronunciation.
    """
    label = "standard input" if argument == STDIN else argument
    lines = _standard_input() if argument == STDIN else read_lines(argument)
    by_name = _texts_by_name(lines, label, {one.name for one in inputs}, dictionary)
    if not _is_folder_or_manifest(audio):
        (name,) = (one.name for one in inputs)
        if name not in by_name or dictionary.key(name) is not None:
            by_name = {name: Text(label, dictionary.words(" ".join(lines)))}
    elif not by_name:
        raise InputError(
            f"{label}: expected lines of a name and its words, such as `{inputs[0].name} WORD WORD`, found no name of "
            f"the {len(inputs)} inputs"
        )
    for text in by_name.values():
        if not text.words:
            raise InputError(f"{text.where}: expected a text of at least one word, found none")
    _require_pronunciations(by_name.values(), dictionary)
    return by_name


def _is_folder_or_manifest(audio: str) -> bool:
    return audio != STDIN and (Path(audio).is_dir() or audio.lower().endswith(MANIFEST_SUFFIXES))


def _texts_by_name(lines: Sequence[str], label: str, names: set[str], dictionary: Dictionary) -> dict[str, Text]:
    found: dict[str, Text] = {}
    for number, line in enumerate(lines, start=1):
        name, _, rest = line.strip().partition(" ") if "\t" not in line else line.strip().partition("\t")
        if name not in names:
            continue
        if name in found:
            if dictionary.key(name) is not None:
                continue  # a plain text, whose lines may begin with any word
            raise InputError(f"{label}:{number}: expected each name once, found {name} again")
        found[name] = Text(f"{label}:{number}", dictionary.words(rest))
    return found


def _require_pronunciations(texts: Iterable[Text], dictionary: Dictionary) -> None:
    """InputError that names all words without pronunciation, and the first line that has one."""
    where: dict[str, str] = {}
    for text in texts:
        for word in dictionary.missing(text.words):
            where.setdefault(word, text.where)
    if where:
        raise InputError(f"{next(iter(where.values()))}: {_advice(list(where))}")


def _standard_input() -> list[str]:
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError("standard input: expected a text, found a terminal: `asrkd align MODEL a.wav - < a.txt`")
    try:
        return clean(sys.stdin.buffer.read().decode("utf-8-sig")).split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"standard input: expected UTF-8, found byte 0x{error.object[error.start]:02x}") from None
