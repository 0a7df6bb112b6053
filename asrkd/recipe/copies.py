"""Copies of utterances that a corpus lists, such as Kaldi's `utt2uniq`."""

from __future__ import annotations

from asrkd.data.corpora.options import UserCorpusOptions
from asrkd.data.corpora.user import copies_of
from asrkd.recipe.options import SpeechOptions, corpus_options


def listed_copies(options: SpeechOptions) -> dict[str, str]:
    """utt_id -> the utterance that it is a copy of, where the corpus lists that."""
    user = [one for one in corpus_options(options) if isinstance(one, UserCorpusOptions)]
    return copies_of(user[0]) if user else {}
