"""LibriSpeech: books read aloud. The training speech is 100 or 960 hours, or the mini set of five hours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from asrkd.data.corpora.librispeech import WHERE_TO_GET, librispeech_files, prepare_librispeech
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.options import LibrispeechSpeechOptions
from asrkd.recipe.pipeline import main

# It knows 72,545 words of news, web text and talk. The CMU dictionary has all of them.
DEBIAN_LM = "/usr/share/pocketsphinx/model/en-us/en-us.lm.bin"

CORPUS = Corpus(
    name="librispeech",
    prepare=prepare_librispeech,
    read=librispeech_files,
    dictionary=lambda corpus_dir: "cmudict",
    closed_vocabulary=False,
    plain_words=True,
    where=WHERE_TO_GET,
    where_model="on Debian or Ubuntu: apt-get install pocketsphinx-en-us; or LibriSpeech's own by --lang.arpa "
    "(https://www.openslr.org/11)",
)

_BASE = LibrispeechSpeechOptions(exp_dir=Path("exp/librispeech"))
DEFAULT = replace(
    _BASE,
    lang=replace(_BASE.lang, arpa=DEBIAN_LM, prune=1e-7, rescore_arpa=DEBIAN_LM),
    # Sized for 100 hours, and not run on them yet. README has values for the mini set.
    tree=replace(_BASE.tree, num_leaves=3000),
    teacher=replace(_BASE.teacher, num_layers=5, hidden_dim=1024, dropout=0.1),
    student=replace(_BASE.student, num_layers=5, hidden_dim=1024),
    # As on AN4 (LOG.md): students learn soft targets alone, at a learning rate of their own.
    distil=replace(_BASE.distil, alpha=1.0),
    students=replace(_BASE.students, soft_learning_rate=3e-3),
    # A graph of ten million arcs decodes in a quarter of the time that a beam of 16 and 10,000 states take. A barely
    # trained network made no more errors.
    decode=replace(_BASE.decode, beam=13.0, max_active=3000, acoustic_scale=0.15),
)

if __name__ == "__main__":
    main(CORPUS, DEFAULT)
