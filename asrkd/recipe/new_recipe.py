"""`asrkd init`: a recipe for a corpus of one's own, checked before it is written."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from asrkd.data.corpora.user import UserCorpusOptions, prepare_user_corpus
from asrkd.data.splits import CorpusSplit
from asrkd.data.validate import MAX_BAD, validate
from asrkd.errors import InputError
from asrkd.files import atomic_dir
from asrkd.lang.lexicon import CMUDICT, require_guessable

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
LONGEST_NAME = 60

_RECIPE = '''"""{title}: made by `asrkd init`. Values only; every option is listed by run.sh --help."""

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
    where="--corpus-dir is the folder that relative paths of audio start from",
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
    # Chosen on AN4's development speakers: little dropout in the teachers, soft targets alone, at a rate of their own.
    teacher=replace(_BASE.teacher, dropout=0.1),
    distil=replace(_BASE.distil, alpha=1.0),
    students=replace(_BASE.students, soft_learning_rate=3e-3),
)

if __name__ == "__main__":
    main(CORPUS, DEFAULT)
'''
_RUN = """#!/usr/bin/env bash
# The {name} recipe: numbered stages, as in Kaldi. Its --help lists them and every option.
[ -t 2 ] || export TQDM_MININTERVAL="${{TQDM_MININTERVAL:-30}}"
exec "${{ASRKD_PYTHON:-{python}}}" "$(dirname "${{BASH_SOURCE[0]}}")/recipe.py" "$@"
"""


def write_recipe(
    name: str, corpora: UserCorpusOptions, lexicon: str | None, out: Path | None = None, max_bad: float = MAX_BAD
) -> Path:
    """Write recipe.py and run.sh into `out` (default recipes/NAME), which must not be there; that folder.

    The manifests, the lexicon and the headers of all audio are read first, and nothing else is written: InputError
    where they would stop the recipe, as words of the training text would that can neither be found nor guessed, or
    more than `max_bad` of the utterances without audio, words or speaker.
    """
    if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise InputError(
            f"{name!r}: expected a name of at most {LONGEST_NAME} letters, digits, - and _ that begins with a letter"
        )
    folder = out if out is not None else Path("recipes") / name
    if folder.exists():
        raise InputError(f"{folder}: there is something already; choose another name or --out")
    corpora = _absolute(replace(corpora, pieces_dir=Path("data") / name / "pieces"))
    base = corpora.recordings if corpora.recordings.is_dir() else corpora.recordings.parent
    splits = prepare_user_corpus(base, corpora, only_probe=True)
    sampling_rate = _sampling_rate(splits)
    good = {}
    for split_name, split in splits.items():
        good[split_name], _ = validate(split, sampling_rate, split_name, max_bad, read_audio=False)
    values = {
        "title": name,
        "name": name,
        "base": str(base),
        "run": "" if out is None else f"    run={str(out / 'run.sh')!r},\n",
        "exp_dir": f"exp/{name}",
        "corpora": _arguments(corpora),
        "sampling_rate": sampling_rate,
        "max_bad": "" if max_bad == MAX_BAD else f"    max_bad={max_bad!r},\n",
        "lang": _lang(lexicon, good["train"].texts(), max_bad),
    }
    with atomic_dir(folder) as beside:
        (beside / "recipe.py").write_text(_RECIPE.format(**values), encoding="utf-8")
        run = beside / "run.sh"
        run.write_text(_RUN.format(name=name, python=_in_double_quotes(sys.executable)), encoding="utf-8")
        run.chmod(0o755)
    return folder


def _absolute(corpora: UserCorpusOptions) -> UserCorpusOptions:
    """Manifests by their full paths: a recipe is run from anywhere. What it makes stays where it is run."""
    given = {field.name: getattr(corpora, field.name) for field in fields(corpora) if field.name != "pieces_dir"}
    paths: dict[str, Any] = {name: value.absolute() for name, value in given.items() if isinstance(value, Path)}
    return replace(corpora, **paths)


def _arguments(corpora: UserCorpusOptions) -> str:
    """The lines of what is not as by default."""
    lines = []
    for field in fields(corpora):
        value = getattr(corpora, field.name)
        if value != field.default:
            lines.append(f"{field.name}=" + (f"Path({str(value)!r})," if isinstance(value, Path) else f"{value!r},"))
    return "\n".join(" " * 8 + line for line in lines)


def _sampling_rate(splits: Mapping[str, CorpusSplit]) -> int:
    """The one of most recordings: validation tells which have another. InputError where none can be read."""
    rates = [recording.sampling_rate for split in splits.values() for recording in split.recordings]
    if not rates:
        faults = [fault for split in splits.values() for fault in split.rejected]
        raise InputError(f"corpus: expected readable audio, found none: {faults[0] if faults else 'no utterances'}")
    return max(sorted(set(rates)), key=rates.count)


def _lang(lexicon: str | None, spoken: Sequence[Sequence[str]], max_bad: float) -> str:
    """The units. InputError where the lexicon lacks words of too many utterances and they cannot be guessed."""
    if lexicon is None:
        return 'units="subword"'
    require_guessable(spoken, lexicon, max_bad)
    named = lexicon if lexicon == CMUDICT else str(Path(lexicon).absolute())
    return f"lexicon={named!r}"


def _in_double_quotes(text: str) -> str:
    """For a shell, inside ${...:-...} in double quotes."""
    if shlex.quote(text) != text:
        raise InputError(f"{text}: expected a Python whose path a shell takes as it is")
    return text
