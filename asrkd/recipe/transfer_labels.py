"""Stage 5 of the transfer set: labels by the words of another recogniser, for the utterances that have some."""

from __future__ import annotations

from pathlib import Path

from asrkd.data.rejects import describe
from asrkd.data.splits import Rejected
from asrkd.files import read_object, write_json
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.folders import ALIGNMENT_FILE, LEXICON_FILE, TRANSFER, RunFolders
from asrkd.recipe.labels import ALIGNER_FOLDER, CACHE_FILE, RealignTask, realign
from asrkd.recipe.lang import held_out_words
from asrkd.recipe.losses import split_texts
from asrkd.recipe.options import SpeechOptions

LABELLED_FILE = "labelled.json"


def label_transfer(corpus: Corpus, options: SpeechOptions, out_dir: Path) -> None:
    """Align the utterances that have words, by the network of the last round.

    Those that cannot be aligned stay without labels, as those without words, and count against nothing: their frames
    have soft targets. InputError if none can be aligned.
    """
    folders = RunFolders(options.exp_dir)
    lexicon_file = out_dir / LEXICON_FILE
    held_out_words(corpus, TRANSFER, options).lexicon.save(lexicon_file)
    aligner = folders.tree / ALIGNER_FOLDER
    task = RealignTask(folders.features(TRANSFER), lexicon_file, aligner, options.context, options.realign)
    alignment = realign(task, options, out_dir / CACHE_FILE, f"align {TRANSFER}")
    alignment.save(out_dir / ALIGNMENT_FILE)
    spoken = {utt_id for utt_id, words in split_texts(folders, TRANSFER).items() if words}
    lost = [Rejected(utt_id, reason) for utt_id, reason in alignment.rejected.items() if utt_id in spoken]
    write_json(out_dir / LABELLED_FILE, {"transcribed": len(spoken), "labelled": len(alignment.utt_ids)})
    print(
        f"   {TRANSFER}: {len(alignment.utt_ids)} of {len(spoken)} utterances with words have labels"
        + (f"; {len(lost)} have none: {describe(lost)}" if lost else ""),
        flush=True,
    )
    (out_dir / CACHE_FILE).unlink(missing_ok=True)


def labelled_counts(folders: RunFolders) -> dict[str, int]:
    """How many utterances of the transfer set have words of another recogniser, and how many of them labels."""
    found = read_object(folders.alignment(TRANSFER).parent / LABELLED_FILE, transcribed=int, labelled=int)
    return {"transcribed": found["transcribed"], "labelled": found["labelled"]}
