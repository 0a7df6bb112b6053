"""Stages 0 to 3: corpus, manifests, features, lang."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lhotse import RecordingSet, SupervisionSet

from asrkd.data.splits import CorpusSplit, Rejected, total_excluded
from asrkd.data.validate import first_few, require_utterances, validate_corpus
from asrkd.errors import InputError
from asrkd.features.fbank import compute_features
from asrkd.features.store import FrameStore
from asrkd.files import file_fingerprint, fingerprint, read_json, write_json
from asrkd.lang.lexicon import Lexicon
from asrkd.lang.subword import train_pieces
from asrkd.recipe.language import LexiconSource, decoding_language, require_rescorable
from asrkd.recipe.options import SpeechOptions, corpus_options
from asrkd.recipe.scoring import Scoring

SPLITS = ("train", "dev", "test")
NUM_NAMED = 20
LEXICON_FILE = "lexicon.txt"
ALIGN_LEXICON_FILE = "align_lexicon.txt"
DECODE_LEXICON_FILE = "decode_lexicon.txt"
ARPA_FILE = "lm.arpa"


@dataclass(frozen=True)
class Corpus:
    """What a recipe says of its corpus."""

    name: str
    """Name of the recipe, e.g. `an4`."""
    prepare: Callable[..., Mapping[str, CorpusSplit]]
    """Source layout -> train, dev and test: of the folder, and of the `corpora` options where the recipe has them."""
    dictionary: Callable[[Path], Path | str]
    """The pronunciation dictionary that goes with the corpus: a file of it, or "cmudict"."""
    closed_vocabulary: bool
    """Whether the dictionary's words are the vocabulary (else the training text's words are)."""
    where: str
    """Where a person gets the corpus."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Utterances that the whole corpus has in each split, where that is known: a partial copy is refused."""
    speakers: Mapping[str, Collection[str]] = field(default_factory=dict)
    """Who speaks in a split of the whole corpus, where that is listed: those missing from a partial copy are named."""
    scoring: Scoring = field(default_factory=Scoring)
    """What counts as an error."""
    where_model: str = ""
    """Where a person gets the language model that the recipe names, if it names one."""
    read: Callable[..., Sequence[Path]] | None = None
    """Of a folder that holds more than a run reads: the files and folders that it does, of the folder and the `corpora`
    options. Others may come and go."""
    files: Callable[[Any], Sequence[Path]] | None = None
    """Of a corpus that is no folder: the files that tell of it, by the `corpora` options."""
    run: str = ""
    """The recipe's command; empty: recipes/NAME/run.sh."""

    @property
    def program(self) -> str:
        """The command that a person types, which results tell."""
        return self.run or f"recipes/{self.name}/run.sh"


def list_files(paths: Sequence[Path]) -> dict[str, Any]:
    """Count, bytes and fingerprint (contents) of the files. InputError if one is missing."""
    found = {str(path): file_fingerprint(path) for path in paths}
    return {"files": len(found), "bytes": sum(path.stat().st_size for path in paths), "fingerprint": fingerprint(found)}


def list_corpus(corpus: Corpus, options: SpeechOptions) -> dict[str, Any]:
    """Count, bytes and fingerprint (names and sizes) of the corpus' files. InputError if there is no such folder."""
    corpus_dir = options.corpus_dir
    if corpus_dir is None:
        raise InputError(f"no --corpus-dir: {corpus.where}")
    if not corpus_dir.is_dir():
        raise InputError(f"--corpus-dir {corpus_dir}: no such folder; {corpus.where}")
    sizes = {}
    for part in corpus.read(corpus_dir, *corpus_options(options)) if corpus.read else [corpus_dir]:
        for path in [part] if part.is_file() else _files_under(part):
            sizes[os.path.relpath(path, corpus_dir)] = path.stat().st_size if path.exists() else -1
    return {"files": len(sizes), "bytes": sum(sizes.values()), "fingerprint": fingerprint(sizes)}


def _files_under(folder: Path) -> Iterator[Path]:
    for where, _, names in os.walk(folder, followlinks=True):
        yield from (Path(where, name) for name in names)


def make_manifests(corpus: Corpus, options: SpeechOptions, out_dir: Path) -> None:
    """Validated Lhotse manifests of each split, with what was left out by rule and what was dropped as bad."""
    splits = corpus.prepare(_folder(options), *corpus_options(options))
    _require_whole(corpus, splits, options)
    kept, bad = validate_corpus(
        splits, options.features.sampling_rate, max_bad=options.max_bad, num_jobs=options.num_jobs
    )
    require_utterances(kept)
    for name, split in kept.items():
        split.recordings.to_file(out_dir / f"{name}_recordings.jsonl.gz")
        split.supervisions.to_file(out_dir / f"{name}_supervisions.jsonl.gz")
        whole = f" of {corpus.sizes[name]}" if name in corpus.sizes else ""
        print(f"   {name}: {len(split.supervisions)}{whole} utterances", flush=True)
    for fault in bad:
        print(f"   dropped {fault}", flush=True)
    write_json(out_dir / "excluded.json", total_excluded(splits))
    write_json(out_dir / "rejected.json", [{"utt_id": fault.utt_id, "reason": fault.reason} for fault in bad])


def _require_whole(corpus: Corpus, splits: Mapping[str, CorpusSplit], options: SpeechOptions) -> None:
    """InputError if a split lacks more utterances, or more of its speech, than may be bad, with what is known of it."""
    for name, expected in corpus.sizes.items():
        found = splits[name].num_utterances
        if found < (1 - options.max_bad) * expected:
            faults = _known_rejects(splits[name], corpus.speakers.get(name, ()))
            raise InputError(
                f"{options.corpus_dir}: expected {expected} utterances in {name}, found {found}: is the copy whole? "
                f"(--max-bad {options.max_bad:g} may be missing)" + (f": {first_few(faults)}" if faults else "")
            )
    for name, split in splits.items():
        _require_speech(name, split, options)


def _require_speech(name: str, split: CorpusSplit, options: SpeechOptions) -> None:
    """InputError where more of the speech that the corpus' own table has is missing than may be bad."""
    if split.missing_share > options.max_bad:
        raise InputError(
            f"{options.corpus_dir}: expected at most {options.max_bad:.1%} of the speech of {name} to be missing "
            f"(--max-bad), found {split.missing_share:.1%}: {first_few(split.missing)}: is the copy whole?"
        )
    for line in split.missing:
        print(f"   not whole: {line}", flush=True)


def _known_rejects(split: CorpusSplit, speakers: Collection[str]) -> list[Rejected]:
    """What is dropped, and those of the speakers of whom nothing is there, not even that."""
    heard = {supervision.speaker for supervision in split.supervisions}
    rejected = [fault.utt_id for fault in split.rejected]  # a speaker's name, or begins with it
    absent = [name for name in sorted(set(speakers) - heard) if not any(one.startswith(name) for one in rejected)]
    return [*(Rejected(name, "speaker without files") for name in absent), *split.rejected]


def _folder(options: SpeechOptions) -> Path:
    """The corpus folder; `list_corpus` has refused its absence before any stage runs."""
    assert options.corpus_dir is not None
    return options.corpus_dir


def load_split(manifests: Path, name: str) -> CorpusSplit:
    return CorpusSplit(
        RecordingSet.from_file(manifests / f"{name}_recordings.jsonl.gz"),
        SupervisionSet.from_file(manifests / f"{name}_supervisions.jsonl.gz"),
        read_json(manifests / "excluded.json"),
    )


def make_features(manifests: Path, options: SpeechOptions, out_dir: Path) -> None:
    """One frame store a split; only the training split is perturbed in speed."""
    for name in SPLITS:
        factors = options.features.speed_factors if name == "train" else (1.0,)
        store = compute_features(
            load_split(manifests, name),
            replace(options.features, speed_factors=factors),
            out_dir / name,
            options.jobs,
        )
        print(f"   {name}: {len(store.utt_ids)} utterances, {len(store)} frames", flush=True)


def make_lang(corpus: Corpus, features: Path, options: SpeechOptions, out_dir: Path) -> None:
    """Three lexicons, lm.arpa, and lang.json (guessed words, OOV rates, perplexities).

    lexicon.txt has the words that training learns from, decode_lexicon.txt those that can be recognised. Held-out
    splits are aligned for the sake of their frame labels, so align_lexicon.txt also holds their words; those without a
    pronunciation, or with a phone that training never heard, stay out.
    """
    texts = {name: sentences(FrameStore.open(features / name)) for name in SPLITS}
    spoken = {name: {word for sentence in text for word in sentence} for name, text in texts.items()}
    source = lexicon_source(corpus, texts["train"], options, out_dir)
    vocabulary = spoken["train"] | _closed_vocabulary(corpus, options)
    source.require_guessable(texts["train"], options.max_bad)
    lexicon, guessed = source.build(vocabulary)
    wider = source.build_known(vocabulary.union(*spoken.values()))
    heard = set(lexicon.phones)
    lexicon.save(out_dir / LEXICON_FILE)
    wider.restrict(word for word, prons in wider.prons.items() if all(heard.issuperset(pron) for pron in prons)).save(
        out_dir / ALIGN_LEXICON_FILE
    )
    decoded, ngram = decoding_language(texts["train"], lexicon, source)
    require_rescorable(texts["train"], options.lang, ngram)
    decoded.save(out_dir / DECODE_LEXICON_FILE)
    ngram.write_arpa(out_dir / ARPA_FILE)
    summary = {
        "words": len(lexicon.words),
        "decoded_words": len(ngram.vocabulary),
        "ngrams": [len(table) for table in ngram.tables],
        "phones": len(lexicon.phones),
        "guessed_words": guessed,
        "order": ngram.order,
        "oov_rate": {name: ngram.oov_rate(texts[name]) for name in SPLITS},
        "perplexity": {name: ngram.perplexity(texts[name]) for name in SPLITS},
    }
    write_json(out_dir / "lang.json", summary)
    if guessed:
        named = ", ".join(guessed[:NUM_NAMED]) + (", ..." if len(guessed) > NUM_NAMED else "")
        print(f"   {len(guessed)} words without a pronunciation were given one: {named}", flush=True)


def lexicon_source(corpus: Corpus, train_text: list[list[str]], options: SpeechOptions, out_dir: Path) -> LexiconSource:
    lang = options.lang
    if lang.units == "subword":
        lines = [" ".join(sentence) for sentence in train_text]
        return LexiconSource(train_pieces(lines, lang.vocab_size, out_dir / "pieces"), lang)
    return LexiconSource(lang.lexicon or corpus.dictionary(_folder(options)), lang)


def _closed_vocabulary(corpus: Corpus, options: SpeechOptions) -> set[str]:
    """Words of the corpus' own dictionary, where that is the task's vocabulary (and is not replaced)."""
    if not corpus.closed_vocabulary or options.lang.lexicon:
        return set()
    return set(Lexicon.load(corpus.dictionary(_folder(options))).words)


def sentences(store: FrameStore) -> list[list[str]]:
    """Words of each utterance, once an utterance however many speed-perturbed copies it has.

    A store of `compute_features` holds all utterances at one speed, then all of them at the next.
    """
    num_speeds = len(store.metadata["options"]["speed_factors"])
    return [text.split() for text in store.texts[: len(store.texts) // num_speeds]]
