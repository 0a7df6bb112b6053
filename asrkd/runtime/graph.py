"""The decoding graph of an exported model, with its words, pronunciations and senones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from asrkd.errors import InputError
from asrkd.files import reading
from asrkd.runtime.package import GRAPH, LEXICON, PHONES, SENONES, WORDS
from asrkd.runtime.word_times import Pronunciations, Span, phone_spans, word_spans

if TYPE_CHECKING:
    import kaldifst

EPSILON = "<eps>"
WORD_JOINER = "\u00a0"
"""Between the words of an output label that stands for several: no word has a space of any kind."""


@dataclass(frozen=True)
class Senones:
    """What is known of each senone, by pdf_id."""

    phone: tuple[str, ...]
    state: tuple[int, ...]
    """HMM state of the phone, from 0."""
    log_self_loop: NDArray[np.float32]
    """[C] log-probability of staying."""
    log_prior: NDArray[np.float32]
    """[C] natural log; the exported network has it subtracted."""

    def of_phones(self, phones: Sequence[str]) -> tuple[int, ...]:
        """The senones of these phones."""
        return tuple(pdf_id for pdf_id, phone in enumerate(self.phone) if phone in phones)


@dataclass(frozen=True, eq=False)
class WordGraph:
    """HCLG and what its labels mean."""

    fst: kaldifst.StdConstFst
    words: tuple[tuple[str, ...], ...]
    """Words by output label: none for 0, mostly one."""
    prons: Pronunciations
    senones: Senones
    phones: tuple[str, ...]
    silence_phones: tuple[str, ...]

    @staticmethod
    def load(folder: Path, silence_phones: tuple[str, ...]) -> WordGraph:
        """The graph of a model's folder. InputError for a damaged file."""
        import kaldifst

        words = tuple(() if word == EPSILON else tuple(word.split(WORD_JOINER)) for word in _symbols(folder / WORDS))
        phones = tuple(_symbols(folder / PHONES)[1:])
        path = folder / GRAPH
        with reading(path, "a graph of OpenFst's"):
            fst = kaldifst.StdConstFst.read(str(path))
        if fst is None:
            raise InputError(f"{path}: expected a graph of OpenFst's, found something else")
        return WordGraph(fst, words, _lexicon(folder / LEXICON), _senones(folder / SENONES), phones, silence_phones)

    @cached_property
    def silence_pdfs(self) -> tuple[int, ...]:
        """The senones in which nothing is said."""
        return self.senones.of_phones(self.silence_phones)

    def text(self, labels: Sequence[int]) -> list[str]:
        """The words of output labels along a path."""
        return [word for label in labels for word in self.words[label]]

    def phone_spans(self, pdf_ids: NDArray[np.integer]) -> list[Span]:
        """The phones of a path of senones [T], silence among them."""
        return phone_spans(pdf_ids, self.senones.phone, self.senones.state)

    def word_spans(self, words: Sequence[str], pdf_ids: NDArray[np.integer]) -> list[Span]:
        """The words of a path with their frames."""
        return word_spans(words, self.phone_spans(pdf_ids), self.prons, self.silence_phones)


def _symbols(path: Path) -> list[str]:
    """The names of an OpenFst symbol table, by number."""
    names = []
    with reading(path, "lines of a name and a number, from 0"):
        for expected, line in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1]):
            name, number = line.split(" ")
            if int(number) != expected:
                raise ValueError(f"number {number} in line {expected + 1}")
            names.append(name)
    return names


def _lexicon(path: Path) -> Mapping[str, list[tuple[str, ...]]]:
    prons: dict[str, list[tuple[str, ...]]] = {}
    with reading(path, "lines of a word and its phones"):
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
            word, *phones = line.split(" ")
            prons.setdefault(word, []).append(tuple(phones))
    return prons


def _senones(path: Path) -> Senones:
    with reading(path, "lines of pdf_id, phone, state, log_self_loop and log_prior"):
        rows = [line.split(" ") for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
        if [int(row[0]) for row in rows] != list(range(len(rows))):
            raise ValueError("pdf_ids that do not count from 0")
        loops, priors = (np.array([row[column] for row in rows], dtype=np.float32) for column in (3, 4))
        return Senones(tuple(row[1] for row in rows), tuple(int(row[2]) for row in rows), loops, priors)
