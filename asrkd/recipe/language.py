"""Pronunciations of words, and the language models that decode and rescore."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from asrkd.errors import InputError, name_some
from asrkd.lang.g2p import pronounce
from asrkd.lang.interpolation import interpolate
from asrkd.lang.kneser_ney import NgramArrays, estimate_arrays, estimate_kneser_ney
from asrkd.lang.lexicon import CMUDICT, Lexicon, build_lexicon, explain_missing, is_arpabet, lexicon_notes
from asrkd.lang.ngram import EOS, NEVER_LOG10, NgramModel, read_arpa
from asrkd.lang.options import LangOptions
from asrkd.lang.pruning import prune_arrays, prune_by_entropy, restrict, top_words
from asrkd.lang.sphinx_lm import is_sphinx_lm, read_sphinx_lm
from asrkd.lang.subword import subword_lexicon
from asrkd.lang.tags import is_tag, noise_phones, parse_tags
from asrkd.lang.text_file import read_sentences
from asrkd.lang.text_rules import TextRules
from asrkd.lang.unigrams import require_unigram_probabilities
from asrkd.unicode import upper_case

log = logging.getLogger(__name__)

MOST_NGRAMS = 20_000_000  # of a model as dictionaries, which then takes 6 GB

# Segmentations to look for one whose units are all in the training lexicon.
OTHER_SEGMENTATIONS = 50


class SplitWords(NamedTuple):
    """What the words of a split are aligned with."""

    lexicon: Lexicon
    unheard: frozenset[str] = frozenset()
    """Words outside the lexicon that have a pronunciation, with units that training never heard."""


@dataclass(frozen=True)
class LexiconSource:
    """Where pronunciations come from: a dictionary and guesses, or SentencePiece pieces."""

    file: Path | str
    """A dictionary, or the SentencePiece model."""
    lang: LangOptions

    def build(self, words: Collection[str], guess: bool = True) -> tuple[Lexicon, list[str]]:
        """Lexicon of the words, and the words whose pronunciation is a guess. A word without either is excluded.

        Noises of `lang.tags` have the phone that is given there. InputError if that is a phone of other words.
        """
        noises = {word: phone for word, phone in self.noises.items() if word in words}
        lexicon, guessed = self._build_words([word for word in words if word not in noises], guess)
        return (_with_noises(lexicon, noises) if noises else lexicon), guessed

    def _build_words(self, words: Collection[str], guess: bool) -> tuple[Lexicon, list[str]]:
        if not self.has_dictionary:
            return subword_lexicon(words, self.file, self.lang.samples, self.lang.seed, on_unknown="exclude"), []
        return build_lexicon(words, self.file, pronounce if guess else None, on_unknown="exclude")

    def notes(self) -> list[str]:
        """What a person should know of a dictionary that is not an error, a line each."""
        return lexicon_notes(self.file) if self.has_dictionary else []

    def coverage_notes(self, texts: Sequence[Sequence[str]]) -> list[str]:
        """A warning where a dictionary lacks most words of the training text, which get guesses. It may be of another
        language, or write words in another way. InputError where a dictionary that is a file has none of the words.
        """
        counts = Counter(word for text in texts for word in text if word not in self.noises and not is_tag(word))
        if not self.has_dictionary or not counts:
            return []
        known = self.known_words(counts.keys())
        unknown = sorted(counts.keys() - known, key=lambda word: (-counts[word], word))
        if not known and self.file != CMUDICT:
            raise InputError(
                f"{self.file}: expected words of the training text, such as {name_some(unknown)}, found none of its "
                f"{len(unknown)} words, but such as {name_some(self._spoken_words())} (words are upper case here)"
            )
        guessed = sum(counts[word] for word in unknown)
        if max(2 * len(unknown) - len(counts), 2 * guessed - counts.total()) <= 0 or not is_arpabet(self.file):
            return []
        own = f"; the lexicon has words such as {name_some(self._spoken_words())}" if self.file != CMUDICT else ""
        return [
            f"{self.file}: {len(unknown)} of {len(counts)} words of the training text ({guessed} of {counts.total()} "
            f"running words) are not in the lexicon and get guesses by English spelling: {name_some(unknown)}{own}"
        ]

    def _spoken_words(self) -> list[str]:
        return [word for word in self.dictionary_words() if not is_tag(word)]

    @property
    def noises(self) -> dict[str, str]:
        """Word -> phone of the tags that `lang.tags` makes noises."""
        return noise_phones(parse_tags(self.lang.tags))

    @property
    def has_dictionary(self) -> bool:
        """Whether pronunciations come from a dictionary, which a person can add words to."""
        return self.lang.units != "subword"

    def known_words(self, words: Collection[str]) -> set[str]:
        """Those of the words that a dictionary or `lang.tags` has."""
        if not self.has_dictionary:
            return self.noises.keys() & words
        return set(self.build(words, guess=False)[0].prons)

    def dictionary_words(self) -> Collection[str]:
        """Every word of a dictionary that is a file; none of others."""
        return Lexicon.load(self.file).words if self.has_dictionary and self.file != CMUDICT else ()

    def build_known(self, words: Collection[str]) -> Lexicon:
        """Lexicon of the words that have a pronunciation, or a guess where the phones are ARPAbet."""
        guess = self.has_dictionary and is_arpabet(self.file)
        return self.build(words, guess)[0]

    def build_held_out(self, training: Lexicon, words: Collection[str]) -> SplitWords:
        """Lexicon to align held-out words with: the training lexicon's words, and those of `words` that can be said.

        A pronunciation with a phone that training never heard is not in it, nor is a word that has no other.
        """
        wider = self.build_known({*training.words, *words})
        heard = wider.restrict_prons(training.phones)
        if self.has_dictionary:
            return SplitWords(heard, frozenset(wider.prons.keys() - heard.prons.keys()))
        missing = wider.prons.keys() - heard.prons.keys() - self.noises.keys()
        spelled = subword_lexicon(missing, self.file, OTHER_SEGMENTATIONS, self.lang.seed).restrict_prons(
            training.phones
        )
        heard = heard.updated(Lexicon({word: prons[:1] for word, prons in spelled.prons.items()}))
        # A character that no piece has is as unheard as a piece that training never used.
        return SplitWords(heard, frozenset({*words} - heard.prons.keys()))

    def explain_missing(self, training: Lexicon, words: Sequence[str]) -> str:
        """What to do about words that are not in the lexicon of a split."""
        known = self.build_known(words)
        unheard = known.prons.keys() - known.restrict_prons(training.phones).prons.keys()
        missing = [word for word in words if word not in known.prons]
        parts = []
        if missing:
            parts.append(self._explain_unknown(missing))
        if unheard:
            named = name_some([word for word in words if word in unheard])
            parts.append(f"{len(unheard)} words have phones that the training text does not have ({named})")
        return "; ".join(parts)

    def _explain_unknown(self, words: Sequence[str]) -> str:
        if not self.has_dictionary:
            return f"{len(words)} words have characters that the training text does not have ({name_some(words)})"
        return explain_missing(words, self.file)


def _with_noises(lexicon: Lexicon, noises: Mapping[str, str]) -> Lexicon:
    """The lexicon with the words of noises, each of one phone."""
    spoken = {word: prons for word, prons in lexicon.prons.items() if not is_tag(word)}
    word_with = {phone: word for word, prons in spoken.items() for pron in prons for phone in pron}
    for noise, phone in noises.items():
        if phone in word_with:
            raise InputError(
                f"--lang.tags: expected a phone for {noise} that no word has, such as SPN, found {phone}, which is in "
                f"{word_with[phone]}"
            )
    return lexicon.updated(Lexicon({word: ((phone,),) for word, phone in noises.items()}))


def read_language_model(path: Path | str) -> NgramModel:
    """An ARPA file, plain or gzip, or a binary model of CMU Sphinx. InputError if its numbers are no probabilities."""
    model = read_sphinx_lm(path) if is_sphinx_lm(path) else read_arpa(path)
    require_unigram_probabilities(path, model)
    return model


def decoding_language(
    train_text: Sequence[Sequence[str]],
    lexicon: Lexicon,
    source: LexiconSource,
    tmp_dir: Path | None = None,
    option: str = "--lang.max-unpronounced",
) -> tuple[Lexicon, NgramModel]:
    """The words that can be recognised and the model of them: the training text's, or those of `lang.arpa` or
    `lang.text`.

    `lexicon` is the training lexicon. The result has its words too, and only its phones, because no network is trained
    on others. Counts of a large text are written to `tmp_dir` for a time. InputError if the model has none of its
    words, or too many words without a pronunciation; `option` is what the message names.
    """
    lang = source.lang
    if lang.model_file is None:
        return lexicon, estimate_kneser_ney(train_text, lang.order, vocabulary=lexicon.words)
    file = lang.model_file
    model = _pruned_model(file, train_text, lang, tmp_dir)
    _require_end(file, model)
    if model.possible_words.isdisjoint(lexicon.words):
        raise InputError(
            f"{file}: expected words of the lexicon, such as {min(lexicon.words)}, found none of them "
            f"but such as {min(model.possible_words, default='none')} (words are upper case here)"
        )
    _warn_of_missing(file, train_text, model)
    words = top_words(model, lang.max_words)
    impossible = sorted(words - model.possible_words)
    if impossible:
        log.warning(
            "%s: %d words have probability 0 (-99 or less) and cannot be recognised: %s",
            file,
            len(impossible),
            name_some(impossible),
        )
    found, _ = source.build(words, guess=False)
    decoded = found.restrict_phones(lexicon.phones).updated(lexicon)
    _require_pronounced(words, decoded, lang, option)
    return decoded, restrict(model, words & decoded.prons.keys())


def _warn_of_missing(path: str, train_text: Sequence[Sequence[str]], model: NgramModel) -> None:
    """Name the words of the training text that a model does not have, or has in another case alone."""
    counts = Counter(word for sentence in train_text for word in sentence if not is_tag(word))
    missing = sorted(counts.keys() - model.vocabulary, key=lambda word: (-counts[word], word))
    if not missing:
        return
    spelled = {upper_case(word): word for word in model.vocabulary}
    other_case = [f"{spelled[word]} for {word}" for word in missing if word in spelled]
    log.warning(
        "%s: %d of %d words of the training text are not in the model and cannot be recognised: %s%s",
        *(path, len(missing), len(counts), name_some(missing)),
        f"; {len(other_case)} are there in another case ({name_some(other_case)}): words are upper case here"
        if other_case
        else "",
    )


def rescoring_model(train_text: Sequence[Sequence[str]], lang: LangOptions, decoding: NgramModel) -> NgramModel:
    """The model of `lang.rescore_arpa` for the words of decoding, interpolated like that one."""
    assert lang.rescore_arpa is not None
    whole = _interpolated(read_language_model(lang.rescore_arpa), train_text, lang)
    _require_end(lang.rescore_arpa, whole)
    _require_words(lang.rescore_arpa, whole.possible_words, decoding)
    return restrict(whole, decoding.vocabulary)


def require_rescorable(train_text: Sequence[Sequence[str]], lang: LangOptions, decoding: NgramModel) -> None:
    """InputError, naming some, if words of decoding are missing from `lang.rescore_arpa`: before anything trains."""
    if lang.rescore_arpa is not None and lang.rescore_arpa != lang.arpa:
        spoken = _spoken(train_text) if lang.interpolation_weight else frozenset()
        model = read_language_model(lang.rescore_arpa)
        _require_words(lang.rescore_arpa, model.possible_words | spoken, decoding)
        if not lang.interpolation_weight:
            _require_end(lang.rescore_arpa, model)


def _require_words(path: str, known: frozenset[str], decoding: NgramModel) -> None:
    # A word of probability 0 in the larger model is missing there too: each path of a lattice with it would vanish.
    missing = sorted(decoding.possible_words - known)
    if missing:
        raise InputError(
            f"{path}: expected every word that is decoded with, and a probability above 0 of it, found {len(missing)} "
            f"missing: {name_some(missing)} "
            "(--lang.rescore-arpa None: no rescoring)"
        )


def _require_end(path: str, model: NgramModel) -> None:
    if model.tables[0][EOS].log10_prob <= NEVER_LOG10:
        raise InputError(
            f"{path}: expected a unigram {EOS} with a probability above 0, found -99: no sentence would end"
        )


def _spoken(train_text: Sequence[Sequence[str]]) -> frozenset[str]:
    return frozenset(word for sentence in train_text for word in sentence)


def _model_of_text(path: str, lang: LangOptions, tmp_dir: Path | None) -> NgramModel:
    """The model of a text, pruned. InputError if more n-grams remain than memory has room for."""
    with TemporaryDirectory(dir=tmp_dir, prefix="asrkd-lm-") as folder:
        arrays = estimate_arrays(read_sentences(path, TextRules.of(lang)), lang.order, None, Path(folder))
        number = sum(len(table.word) for table in arrays.tables)
        log.info("%s: %d words, %d n-grams", path, len(arrays.words), number)
        if not lang.prune and number > MOST_NGRAMS:
            raise InputError(
                f"{path}: expected a text with at most {MOST_NGRAMS:,} n-grams, found {number:,}: give --lang.prune, "
                "such as 1e-8"
            )
        return prune_arrays(arrays, lang.prune)


def _pruned_model(
    file: str, train_text: Sequence[Sequence[str]], lang: LangOptions, tmp_dir: Path | None
) -> NgramModel:
    """The model of `lang.arpa` or `lang.text`, interpolated and pruned. Pruning keeps every word.

    A text's model is pruned before it is interpolated: the whole one may be larger than memory.
    """
    if lang.text is not None:
        return _interpolated(_model_of_text(file, lang, tmp_dir), train_text, lang)
    whole = read_language_model(file)
    if not lang.interpolation_weight:
        return prune_by_entropy(whole, lang.prune) if lang.prune else whole
    return prune_arrays(_mixed(whole, train_text, lang), lang.prune)


def _interpolated(whole: NgramModel, train_text: Sequence[Sequence[str]], lang: LangOptions) -> NgramModel:
    return _mixed(whole, train_text, lang).model() if lang.interpolation_weight else whole


def _mixed(whole: NgramModel, train_text: Sequence[Sequence[str]], lang: LangOptions) -> NgramArrays:
    words = whole.vocabulary | _spoken(train_text)
    own = estimate_kneser_ney(train_text, lang.order, vocabulary=words)
    return interpolate(whole, own, lang.interpolation_weight)


def _require_pronounced(words: Collection[str], lexicon: Lexicon, lang: LangOptions, option: str) -> None:
    missing = sorted(set(words) - lexicon.prons.keys())
    if len(missing) > lang.max_unpronounced * len(words):
        raise InputError(
            f"{lang.model_file}: expected words of the lexicon, all but {lang.max_unpronounced:.1%} of them "
            f"({option}), found {len(missing)} of {len(words)} outside it: {name_some(missing)}"
        )
    if missing:
        log.warning(
            "%s: %d of %d words have no pronunciation and cannot be recognised: %s",
            *(lang.model_file, len(missing), len(words), name_some(missing)),
        )
