"""Stage 3: lexicon and language model, from transcripts alone.

Four steps, so that a change re-makes no more than it must: the check of all texts, the lexicon that networks are
trained with (from the training text), the language model and the words that can be recognised, and how well these cover
each split.
"""

from __future__ import annotations

import logging
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from asrkd.data.manifests import load_split, load_transcripts
from asrkd.files import read_object, write_json
from asrkd.hmm.tree import require_leaves
from asrkd.lang.lexicon import Lexicon
from asrkd.lang.ngram import read_arpa
from asrkd.lang.options import LangOptions
from asrkd.lang.subword import train_nearest_pieces
from asrkd.lang.tags import is_tag
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.folders import ARPA_FILE, LEXICON_FILE, PIECES_NAME, SPLITS, RunFolders
from asrkd.recipe.labels_source import with_phones_of_source
from asrkd.recipe.language import LexiconSource, SplitWords, decoding_language, require_rescorable
from asrkd.recipe.losses import require_pronounced, split_texts
from asrkd.recipe.options import SpeechOptions
from asrkd.recipe.texts import check_texts

log = logging.getLogger(__name__)

NUM_NAMED = 20
LEXICON_SUMMARY = "lexicon.json"
LM_SUMMARY = "lm.json"
COVERAGE_FILE = "coverage.json"
WORDS_FILE = "words.json"
# Options of the lexicon that networks are trained with; the others are the language model's.
_LEXICON_OPTIONS = ("units", "vocab_size", "samples", "seed", "tags")
# Options that name files: these count by their contents.
_FILE_OPTIONS = ("lexicon", "arpa", "text", "rescore_arpa")


def lexicon_options(lang: LangOptions) -> dict[str, Any]:
    """Options of the training lexicon, apart from its file."""
    return {name: getattr(lang, name) for name in _LEXICON_OPTIONS}


def lm_options(lang: LangOptions) -> dict[str, Any]:
    """Options of the language model that decodes, apart from its files."""
    return {field.name: getattr(lang, field.name) for field in fields(lang) if field.name not in _FILE_OPTIONS}


def sentences(folders: RunFolders, split: str) -> list[list[str]]:
    """Words of each utterance of a split, in order of speaker and utt_id."""
    by_speaker = sorted(load_transcripts(folders.manifests(split)), key=lambda one: (one.speaker, one.utt_id))
    return [one.text.split() for one in by_speaker]


def check_words(corpus: Corpus, options: SpeechOptions, out_dir: Path) -> None:
    """Refuse tags and words without a letter in the texts of all splits, and warn of other odd words."""
    folders = RunFolders(options.exp_dir)
    splits = {name: load_split(folders.manifests(name)) for name in SPLITS}
    warnings = check_texts(splits, lexicon_source(corpus, options, folders.lexicon.parent), "--lang.")
    write_json(out_dir / WORDS_FILE, {"warnings": warnings})


def make_lexicon(corpus: Corpus, options: SpeechOptions, out_dir: Path) -> None:
    """Pronunciations of the training text's words, and of the vocabulary where the task has a closed one."""
    text = sentences(RunFolders(options.exp_dir), "train")
    if options.lang.units == "subword":
        words = [[word for word in sentence if not is_tag(word)] for sentence in text]
        _learn_pieces([" ".join(sentence) for sentence in words], options.lang.vocab_size, out_dir / PIECES_NAME)
    source = lexicon_source(corpus, options, out_dir)
    for note in (*source.notes(), *source.coverage_notes(text)):
        log.warning("%s", note)
    spoken = {word for sentence in text for word in sentence}
    built, guessed = source.build(spoken | _closed_vocabulary(corpus, options))
    lexicon = with_phones_of_source(built, options)
    texts = split_texts(RunFolders(options.exp_dir), "train")
    require_pronounced("train", texts, SplitWords(lexicon), partial(source.explain_missing, lexicon), options)
    if options.labels_from is None:
        require_leaves(options.tree, lexicon.phones)
    lexicon.save(out_dir / LEXICON_FILE)
    summary = {"words": len(lexicon.words), "phones": len(lexicon.phones), "guessed_words": guessed}
    write_json(out_dir / LEXICON_SUMMARY, summary)
    if guessed:
        named = ", ".join(guessed[:NUM_NAMED]) + (", ..." if len(guessed) > NUM_NAMED else "")
        print(f"   {len(guessed)} words without a pronunciation were given one: {named}", flush=True)


def _learn_pieces(lines: list[str], vocab_size: int, out_prefix: Path) -> None:
    size = train_nearest_pieces(lines, vocab_size, out_prefix)
    if size != vocab_size:
        print(
            f"   {size} subword pieces, the nearest to --lang.vocab-size {vocab_size} that the text allows", flush=True
        )


def make_lm(corpus: Corpus, options: SpeechOptions, out_dir: Path) -> None:
    """The language model of the decoding graph, and pronunciations of its words."""
    folders = RunFolders(options.exp_dir)
    text = sentences(folders, "train")
    lexicon = Lexicon.load(folders.lexicon)
    source = lexicon_source(corpus, options, folders.lexicon.parent)
    decoded, ngram = decoding_language(text, lexicon, source, tmp_dir=out_dir)
    require_rescorable(text, options.lang, ngram)
    decoded.save(out_dir / LEXICON_FILE)
    ngram.write_arpa(out_dir / ARPA_FILE)
    summary = {
        "decoded_words": len(ngram.vocabulary),
        "ngrams": [len(table) for table in ngram.tables],
        "order": ngram.order,
    }
    write_json(out_dir / LM_SUMMARY, summary)


def measure_coverage(options: SpeechOptions, out_dir: Path) -> None:
    """Out-of-vocabulary rate and perplexity of each split."""
    folders = RunFolders(options.exp_dir)
    ngram = read_arpa(folders.arpa)
    texts = {name: sentences(folders, name) for name in SPLITS}
    # Tags are never scored, so that a model without them lacks no word.
    words = {name: [[word for word in one if not is_tag(word)] for one in text] for name, text in texts.items()}
    rates = {name: ngram.oov_rate(text) for name, text in words.items()}
    perplexities = {name: ngram.perplexity(text) for name, text in texts.items()}
    write_json(out_dir / COVERAGE_FILE, {"oov_rate": rates, "perplexity": perplexities})


def lang_summary(exp_dir: Path) -> dict[str, Any]:
    """What the three steps counted and measured."""
    lang = exp_dir / "lang"
    parts = (lang / "lexicon" / LEXICON_SUMMARY, lang / "lm" / LM_SUMMARY, lang / "coverage" / COVERAGE_FILE)
    return {key: value for part in parts for key, value in read_object(part).items()}


def held_out_words(corpus: Corpus, split: str, options: SpeechOptions) -> SplitWords:
    """Pronunciations to align a held-out split with: frame labels need them.

    It has the training lexicon's words and the split's own. A word without a pronunciation, or with a phone that
    training never heard, is not in it.
    """
    folders = RunFolders(options.exp_dir)
    lexicon = Lexicon.load(folders.lexicon)
    spoken = {word for sentence in sentences(folders, split) for word in sentence}
    return lexicon_source(corpus, options, folders.lexicon.parent).build_held_out(lexicon, spoken)


def lexicon_source(corpus: Corpus, options: SpeechOptions, lexicon_dir: Path) -> LexiconSource:
    """Where pronunciations come from. `lexicon_dir` has the SentencePiece model of subword units."""
    lang = options.lang
    if lang.units == "subword":
        return LexiconSource(lexicon_dir / f"{PIECES_NAME}.model", lang)
    assert options.corpus_dir is not None  # refused before any stage runs
    return LexiconSource(lang.lexicon or corpus.dictionary(options.corpus_dir), lang)


def is_vocabulary_closed(corpus: Corpus, options: SpeechOptions) -> bool:
    """Whether the words of the corpus' own dictionary are the vocabulary."""
    return corpus.closed_vocabulary and not options.lang.lexicon


def _closed_vocabulary(corpus: Corpus, options: SpeechOptions) -> set[str]:
    """Words of the corpus' own dictionary, where that is the task's vocabulary (and is not replaced)."""
    if not is_vocabulary_closed(corpus, options):
        return set()
    assert options.corpus_dir is not None
    return set(Lexicon.load(corpus.dictionary(options.corpus_dir)).words)
