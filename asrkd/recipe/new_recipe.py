"""`asrkd init`: a recipe for a corpus of the user, checked and sized before it is written."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from asrkd.data.corpora.user import UserCorpusOptions, prepare_user_corpus
from asrkd.data.rejects import describe, missing_words, require_few_rejected, require_max_bad, unpronounced
from asrkd.data.splits import CorpusSplit, Rejected
from asrkd.data.validate import MAX_BAD, validate
from asrkd.errors import InputError
from asrkd.files import atomic_dir
from asrkd.lang.lexicon import CMUDICT, Lexicon
from asrkd.lang.options import LangOptions
from asrkd.lang.subword import train_nearest_pieces
from asrkd.lang.tags import is_tag
from asrkd.lang.text_rules import TextRules
from asrkd.recipe.language import LexiconSource, SplitWords
from asrkd.recipe.sizes import Sizes, choose_sizes, choose_vocab_size
from asrkd.recipe.texts import apply_rules, check_texts

logger = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
LONGEST_NAME = 60
TEXT_OPTIONS = ("tags", "strip_punctuation", "split_characters")  # of LangOptions
SECONDS_PER_HOUR = 3600
RATE_MULTIPLE = 100  # Hz: a whole number of samples in 10 ms
USUAL_RATES = (16000, 8000)  # Hz, of speech

_RECIPE = '''"""{title}: written by `asrkd init`. It holds values alone; run.sh --help-all lists every option."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from asrkd.data.corpora.user import UserCorpusOptions, prepare_user_corpus, user_corpus_audio, user_corpus_files
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.options import UserSpeechOptions
from asrkd.recipe.pipeline import main

CORPUS = Corpus(
    name={name!r},
    prepare=prepare_user_corpus,
    dictionary=lambda corpus_dir: "cmudict",
    closed_vocabulary=False,
    where="--corpus-dir is the folder in which relative paths of audio begin",
    files=user_corpus_files,
    audio=user_corpus_audio,
{run})

_BASE = UserSpeechOptions(
    corpus_dir=Path({base!r}),
    exp_dir=Path({exp_dir!r}),
    corpora=UserCorpusOptions(
{corpora}
    ),
{max_bad})
DEFAULT = replace(
    _BASE,
    features=replace(_BASE.features, sampling_rate={sampling_rate}),
    lang=replace(_BASE.lang, {lang}),
    # Sized for {hours:.1f} hours of training speech and {num_phones} units, silence included.
    tree=replace(_BASE.tree, num_leaves={sizes.num_leaves}),
    labels=replace(_BASE.labels, epochs={sizes.label_epochs}),
    train=replace(_BASE.train, epochs={sizes.epochs}, batch_size={sizes.batch_size}),
    # Chosen on AN4's development speakers: teachers with little dropout; students that learn soft targets alone, at a
    # learning rate of their own. This corpus' development speakers choose among them and five
    # others: hard labels too, or dropout, may suit a small corpus better.
    teacher=replace(_BASE.teacher, hidden_dim={sizes.hidden_dim}, num_layers={sizes.num_layers}, dropout=0.1),
    student=replace(_BASE.student, hidden_dim={sizes.hidden_dim}, num_layers={sizes.num_layers}),
    distil=replace(_BASE.distil, alpha=1.0),
    students=replace(_BASE.students, soft_learning_rate=3e-3, sweep_alphas=(0.5,), sweep_dropouts=(0.1,)),
)

if __name__ == "__main__":
    main(CORPUS, DEFAULT)
'''
_RUN = r"""#!/usr/bin/env bash
# The {name} recipe: numbered stages, as in Kaldi. --help lists the stages, the common options and examples.
python=${{ASRKD_PYTHON:-}}
[ -n "$python" ] || python={python}
if ! command -v -- "$python" >/dev/null; then
  echo "$0: error: $python: no such program; write the recipe again with \`asrkd init\`, or set ASRKD_PYTHON" >&2
  exit 2
fi
# Files are UTF-8 whatever the locale. In a log file, a progress bar needs a new line every 30 seconds only.
export PYTHONUTF8=1
[ -t 2 ] || export TQDM_MININTERVAL="${{TQDM_MININTERVAL:-30}}"
exec "$python" "$(dirname -- "${{BASH_SOURCE[0]}}")/recipe.py" "$@"
"""


@dataclass(frozen=True)
class NewRecipe:
    """A recipe that was written."""

    folder: Path
    hours: float
    """Hours of training speech."""
    num_phones: int
    """Phones or subword units, silence included."""
    sizes: Sizes

    @property
    def described(self) -> str:
        """The corpus and the sizes that it was given, on one line."""
        sizes = self.sizes
        return (
            f"{self.hours:.1f} hours of training speech and {self.num_phones} units: {sizes.num_leaves} tree leaves, "
            f"networks of {sizes.num_layers}x{sizes.hidden_dim}, {sizes.epochs} epochs"
        )


def write_recipe(
    name: str, corpora: UserCorpusOptions, lang: LangOptions, out: Path | None = None, max_bad: float = MAX_BAD
) -> NewRecipe:
    """Write recipe.py and run.sh into `out` (default recipes/NAME), which must not exist.

    Of `lang`, the lexicon (None: subword units) and the rules of texts count. The manifests, the lexicon and the
    headers of all audio are read first. InputError, and nothing is written, where they would stop the recipe: tags that
    are not named, or more than `max_bad` of a split's utterances without audio, words or speaker, or with words that
    are neither in the lexicon nor can be guessed.
    """
    folder = _new_folder(name, out)
    require_max_bad(max_bad)
    corpora = _absolute(replace(corpora, segments_dir=Path("data") / name / "segments"))
    base = corpora.recordings if corpora.recordings.is_dir() else corpora.recordings.parent
    splits = prepare_user_corpus(base, corpora, only_probe=True)
    sampling_rate = _sampling_rate(splits)
    good, bad = {}, {}
    rules = TextRules.of(lang)
    for split_name, split in splits.items():
        read = apply_rules(split, rules, split_name)
        good[split_name], bad[split_name] = validate(read, sampling_rate, split_name, max_bad, read_audio=False)
    lang = replace(lang, units="subword" if lang.lexicon is None else "phones")
    check_texts(good, LexiconSource(lang.lexicon or "", lang), "--")
    hours = sum(recording.duration for recording in good["train"].recordings) / SECONDS_PER_HOUR
    written_lang, num_phones = _units(lang, good, bad, hours, max_bad)
    recipe = NewRecipe(folder, hours, num_phones, choose_sizes(hours, num_phones))
    values = {
        "title": name,
        "name": name,
        "base": str(base),
        "run": "" if out is None else f"    run={str(out / 'run.sh')!r},\n",
        "exp_dir": f"exp/{name}",
        "corpora": _arguments(corpora),
        "sampling_rate": sampling_rate,
        "max_bad": "" if max_bad == MAX_BAD else f"    max_bad={max_bad!r},\n",
        "lang": written_lang,
        **vars(recipe),
    }
    with atomic_dir(folder) as tmp_dir:
        (tmp_dir / "recipe.py").write_text(_RECIPE.format(**values), encoding="utf-8")
        run = tmp_dir / "run.sh"
        run.write_bytes(run_script(name, sys.executable))
        run.chmod(0o755)
    return recipe


def run_script(name: str, python: str) -> bytes:
    """The run.sh of a recipe. Its interpreter may be in any folder, also one whose name is not UTF-8."""
    return os.fsencode(_RUN.format(name=name, python=shlex.quote(python)))


def _new_folder(name: str, out: Path | None) -> Path:
    """The folder to write. InputError for a bad name or an existing folder."""
    if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise InputError(
            f"{name!r}: expected a name of at most {LONGEST_NAME} letters, digits, - and _ that begins with a letter"
        )
    folder = out if out is not None else Path("recipes") / name
    if folder.exists():
        raise InputError(f"{folder}: there is something already; choose another name or --out")
    return folder


def _absolute(corpora: UserCorpusOptions) -> UserCorpusOptions:
    """The options with full paths of the manifests: a recipe can run in any folder, and writes its outputs there."""
    given = {field.name: getattr(corpora, field.name) for field in fields(corpora) if field.name != "segments_dir"}
    paths: dict[str, Any] = {name: value.absolute() for name, value in given.items() if isinstance(value, Path)}
    return replace(corpora, **paths)


def _arguments(corpora: UserCorpusOptions) -> str:
    """A line for each option that has another value than its default."""
    lines = []
    for field in fields(corpora):
        value = getattr(corpora, field.name)
        if value != field.default:
            lines.append(f"{field.name}=" + (f"Path({str(value)!r})," if isinstance(value, Path) else f"{value!r},"))
    return "\n".join(" " * 8 + line for line in lines)


def _sampling_rate(splits: Mapping[str, CorpusSplit]) -> int:
    """The rate of most recordings, or the one below it that features can have; audio of other rates is resampled.

    InputError where no recording can be read.
    """
    rates = [recording.sampling_rate for split in splits.values() for recording in split.recordings]
    if not rates:
        faults = [fault for split in splits.values() for fault in split.rejected]
        raise InputError(f"corpus: expected readable audio, found none: {faults[0] if faults else 'no utterances'}")
    rate = max(sorted(set(rates)), key=rates.count)
    if rate % RATE_MULTIPLE == 0:
        return rate
    lower = next((one for one in USUAL_RATES if one < rate), rate - rate % RATE_MULTIPLE)
    logger.warning(
        "most recordings have %d Hz, at which a frame shift is no whole number of samples: "
        "the recipe resamples to %d Hz",
        *(rate, lower),
    )
    return lower


def _units(
    lang: LangOptions,
    good: Mapping[str, CorpusSplit],
    bad: Mapping[str, Sequence[Rejected]],
    hours: float,
    max_bad: float,
) -> tuple[str, int]:
    """Options of `lang` as they are written into the recipe, and the number of phones or subword units.

    InputError where too many utterances of a split have words without a pronunciation.
    """
    texts = good["train"].texts()
    with tempfile.TemporaryDirectory() as folder:
        if lang.lexicon is None:
            prefix = Path(folder) / "pieces"
            lines = (" ".join(word for word in text if not is_tag(word)) for text in texts)
            vocab_size = train_nearest_pieces(lines, choose_vocab_size(hours), prefix)
            values: dict[str, Any] = {"units": "subword", "vocab_size": vocab_size}
            source = LexiconSource(Path(f"{prefix}.model"), lang)
        else:
            values = {"lexicon": lang.lexicon if lang.lexicon == CMUDICT else str(Path(lang.lexicon).absolute())}
            source = LexiconSource(lang.lexicon, lang)
        for note in (*source.notes(), *source.coverage_notes(texts)):
            logger.warning("%s", note)
        values |= {name: getattr(lang, name) for name in TEXT_OPTIONS if getattr(lang, name)}
        spoken = source.build_known({word for text in texts for word in text})
        for name, split in good.items():
            _require_pronounced(name, split, bad[name], source, spoken, max_bad)
    # Subword units: a piece is one unit at the beginning of words and another inside them.
    return ", ".join(f"{name}={_quoted(value)}" for name, value in values.items()), len(spoken.phones)


def _quoted(value: object) -> str:
    """A value as it is written into the recipe."""
    return f'"{value}"' if value == "subword" else repr(value)


def _require_pronounced(
    name: str, split: CorpusSplit, bad: Sequence[Rejected], source: LexiconSource, spoken: Lexicon, max_bad: float
) -> None:
    """InputError where a split's bad utterances, and those with words that cannot be aligned, are too many.

    `spoken` is the lexicon of the training text.
    """
    texts = {one.id: (one.text or "").split() for one in sorted(split.supervisions, key=lambda one: str(one.id))}
    words = {word for text in texts.values() for word in text}
    lexicon, unheard = SplitWords(spoken) if name == "train" else source.build_held_out(spoken, words)
    lost = unpronounced(texts, lexicon.prons, unheard)
    if lost:
        advice = source.explain_missing(spoken, missing_words(list(texts.values()), lexicon.prons))
        require_few_rejected([*bad, *lost], len(bad) + len(texts), name, max_bad, advice)
        logger.warning("%s: %d utterances will have no frame labels: %s", name, len(lost), describe(lost))
