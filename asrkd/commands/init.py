"""`asrkd init`: a recipe for a corpus of the user."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from asrkd.commands.command import Command
from asrkd.options import first_word


@dataclass(frozen=True)
class InitOptions:
    """The corpus, and the recipe to write for it."""

    name: str = field(metadata=first_word())
    """Name of the recipe: letters, digits, - and _. `asrkd init NAME` is enough."""
    recordings: Path
    """Lhotse manifest of recordings or cuts, or a Kaldi data directory (wav.scp, text, utt2spk, segments)."""
    supervisions: Path | None = None
    """Lhotse manifest of supervisions; none with cuts or a Kaldi data directory."""
    lexicon: str | None = None
    """Pronunciations (Kaldi's lexicon.txt or the CMU format), or "cmudict"; none: the units are subwords."""
    tags: tuple[str, ...] = ()
    """What tags of the texts are: NOISE=SPN (a noise with the phone SPN), NOISE=SIL (a pause), NOISE= (removed)."""
    strip_punctuation: bool = False
    """Remove the punctuation of the texts, except apostrophes and hyphens between letters."""
    split_characters: bool = False
    """Make each character of Chinese, Japanese, Thai, Lao, Khmer and Burmese a word: their texts have no spaces."""
    dev_recordings: Path | None = None
    """Recordings that scales are tuned on; none: some speakers are held out."""
    dev_supervisions: Path | None = None
    """Supervisions of --dev-recordings."""
    test_recordings: Path | None = None
    """Recordings that are decoded and scored; none: some speakers are held out."""
    test_supervisions: Path | None = None
    """Supervisions of --test-recordings."""
    num_dev_speakers: int = 0
    """Speakers to hold out for tuning; 0: a tenth, at least one."""
    num_test_speakers: int = 0
    """Speakers to hold out for the test; 0: a tenth, at least one."""
    max_bad: float = 0.01
    """Fraction of the utterances of each split that may be bad, here and in the recipe's runs."""
    out: Path | None = None
    """Folder to write, which must not exist yet; none: recipes/NAME."""


def run(options: InitOptions) -> int:
    from asrkd.data.corpora.user import UserCorpusOptions
    from asrkd.lang.options import LangOptions
    from asrkd.recipe.new_recipe import write_recipe

    corpora = UserCorpusOptions(
        recordings=options.recordings,
        supervisions=options.supervisions,
        dev_recordings=options.dev_recordings,
        dev_supervisions=options.dev_supervisions,
        test_recordings=options.test_recordings,
        test_supervisions=options.test_supervisions,
        num_dev_speakers=options.num_dev_speakers,
        num_test_speakers=options.num_test_speakers,
    )
    lang = LangOptions(
        lexicon=options.lexicon,
        tags=options.tags,
        strip_punctuation=options.strip_punctuation,
        split_characters=options.split_characters,
    )
    recipe = write_recipe(options.name, corpora, lang, options.out, options.max_bad)
    print(f"wrote {recipe.folder / 'recipe.py'} for {recipe.described}")
    print(f"run {shlex.quote(str(recipe.folder / 'run.sh'))} (--help lists its options)")
    return 0


COMMAND = Command(
    name="init",
    summary="Write a recipe for your own corpus.",
    description="""
The corpus is given as Lhotse manifests, as Lhotse cuts or as a Kaldi data directory. The command reads the manifests,
the lexicon and the headers of all audio first, and writes nothing when they would stop the recipe.

Sizes (tree leaves, subword pieces, networks, epochs) are chosen by the hours of training speech and the number of
units. Change them in the recipe.py that is written. docs/own_corpus.md has a worked example.""",
    examples=(
        "asrkd init books --recordings recordings.jsonl.gz --supervisions supervisions.jsonl.gz --lexicon cmudict",
        "asrkd init books --recordings cuts.jsonl.gz --lexicon cmudict",
        "asrkd init books --recordings data/train --test-recordings data/test     # Kaldi data directories",
        "recipes/books/run.sh",
    ),
    options=lambda: InitOptions,
    run=run,
)
