"""New speech, searched by the networks of a finished run with the scales that it has tuned, and the times of words."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from asrkd.align.viterbi import (
    ALIGNED_BATCHES,
    AlignedBatch,
    Aligner,
    AlignmentTask,
    NothingAligned,
    TrainingCorpus,
    viterbi,
)
from asrkd.align.word_times import TimedWord, spread_evenly, word_times
from asrkd.errors import InputError, name_some
from asrkd.features.store import FrameStore
from asrkd.files import fingerprint, write_json
from asrkd.graph.build import build_hclg
from asrkd.graph.decoding_graph import DecodingGraph
from asrkd.hmm.alignment import Alignment
from asrkd.lang.lexicon import CMUDICT, Lexicon
from asrkd.recipe.evaluate import CACHE_FILE, GRAPH_FOLDER, DecodeTask, decode_split
from asrkd.recipe.folders import LEXICON_FILE, PIECES_NAME, RunFolders
from asrkd.recipe.labels import load_hmm
from asrkd.recipe.language import LexiconSource, decoding_language
from asrkd.recipe.new_data_options import NewDataOptions
from asrkd.recipe.options import SpeechOptions
from asrkd.recipe.scoring import Scoring
from asrkd.scoring.sclite_files import write_ctm, write_trn
from asrkd.workflow.cache import ResultCache

log = logging.getLogger(__name__)

TRN_FILE, CTM_FILE, TIMES_CACHE = "words.trn", "words.ctm", "times.sqlite"
LM_FILE = "graph.json"
MS_PER_SEC = 1000.0


def make_graph(run: SpeechOptions, options: NewDataOptions, out_dir: Path) -> None:
    """Stage 9: the decoding graph of another language model, with the run's lexicon, tree and weights.

    InputError if the model has none of the run's words, or if more than `max_unpronounced` of its words have no
    pronunciation.
    """
    assert options.lm is not None
    folders = RunFolders(run.exp_dir)
    known = Lexicon.load(folders.decode_lexicon)
    lang = replace(
        run.lang,
        arpa=str(options.lm),
        text=None,
        rescore_arpa=None,
        max_words=None,
        prune=0.0,
        interpolation_weight=0.0,
        max_unpronounced=options.max_unpronounced,
    )
    source = LexiconSource(lexicon_file(run, options), lang)
    advice = "--max-unpronounced; --lexicon gives pronunciations"
    lexicon, model = decoding_language([], known, source, option=advice)
    graph = build_hclg(lexicon, model, *load_hmm(folders.tree)[:2], run.graph)
    graph.save(out_dir / GRAPH_FOLDER)
    lexicon.save(out_dir / LEXICON_FILE)
    write_json(out_dir / LM_FILE, {"words": len(vocabulary(graph)), "states": graph.num_states, "arcs": graph.num_arcs})
    print(f"   {len(vocabulary(graph))} words, {graph.num_states} states, {graph.num_arcs} arcs", flush=True)


def lexicon_file(run: SpeechOptions, options: NewDataOptions) -> Path | str:
    """Where words of another language model get pronunciations: as the run's words, or from `--lexicon`."""
    folders = RunFolders(run.exp_dir)
    if run.lang.units == "subword":
        if options.lexicon is not None:
            raise InputError("--lexicon: expected none, because the run's units are subword pieces; found a dictionary")
        return folders.lexicon.parent / f"{PIECES_NAME}.model"
    named = options.lexicon or run.lang.lexicon
    if options.lexicon is None and named is not None and named != CMUDICT and not Path(named).is_file():
        named = None
    return named or folders.decode_lexicon


def vocabulary(graph: DecodingGraph) -> frozenset[str]:
    """The words that a graph can emit: those on its arcs, where its lexicon may have more."""
    rows = graph.words_on_arc.unique().tolist()
    return frozenset(graph.words[word] for row in rows for word in graph.word_sequences[row])


def decode_system(task: DecodeTask, lexicon: Path, scoring: Scoring, out_dir: Path) -> None:
    """Stage 10: what a system recognises of the new speech, and when. Files cache what is finished.

    TRN and CTM have the words as they are scored, without tags, so that other programs count the same errors.
    """
    name = task.run.name
    _, hypotheses = decode_split(task, name, out_dir)
    hypotheses.save(out_dir)
    times = timed_words(task, lexicon, hypotheses.words, name, out_dir)
    write_trn({utt_id: scoring.fold(words) for utt_id, words in hypotheses.words.items()}, out_dir / TRN_FILE)
    scored = {
        utt_id: [one._replace(word=word) for one in timed for word in scoring.fold([one.word])]
        for utt_id, timed in times.items()
    }
    write_ctm(scored, out_dir / CTM_FILE)
    for cache in (CACHE_FILE, TIMES_CACHE):
        (out_dir / cache).unlink(missing_ok=True)


@dataclass(frozen=True)
class TimesTask(AlignmentTask):
    """Aligns batches of recognised words by the scores of the system that recognised them."""

    decoding: DecodeTask
    lexicon: Path

    def open(self) -> Aligner:
        options = self.decoding.options
        tree, transitions, _ = load_hmm(RunFolders(options.exp_dir).tree)
        scores = self.decoding.acoustics().__getitem__
        return Aligner(Lexicon.load(self.lexicon), tree, transitions, scores, options.realign).open()


def timed_words(
    task: DecodeTask, lexicon: Path, words: Mapping[str, Sequence[str]], name: str, out_dir: Path
) -> dict[str, list[TimedWord]]:
    """The words of each utterance with their times: aligned with its frames, apart from the search.

    The words of an utterance that has no alignment get equal parts of it; a warning counts such utterances.
    """
    store = task.store
    prons = Lexicon.load(lexicon)
    alignment = _align(TimesTask(task, lexicon), store, prons, words, f"times {name}", out_dir)
    aligned = set(alignment.utt_ids) if alignment is not None else set()
    times, unaligned = {}, []
    for utt_id, spoken in words.items():
        begin, end = store.span(utt_id)
        if alignment is not None and utt_id in aligned:
            times[utt_id] = word_times(spoken, alignment.segments(utt_id, store.frame_shift_ms), prons.prons)
            continue
        times[utt_id] = spread_evenly(spoken, (end - begin) * store.frame_shift_ms / MS_PER_SEC)
        unaligned += [utt_id] if spoken else []
    if unaligned:
        log.warning(
            "%s: the words of %d utterances have no alignment; their times are equal parts: %s",
            *(name, len(unaligned), name_some(unaligned)),
        )
    return times


def _align(
    task: TimesTask, store: FrameStore, lexicon: Lexicon, words: Mapping[str, Sequence[str]], name: str, out_dir: Path
) -> Alignment | None:
    """The alignment of recognised words; None where no utterance can have one."""
    tree, _, _ = load_hmm(RunFolders(task.decoding.options.exp_dir).tree)
    texts = {utt_id: " ".join(spoken) for utt_id, spoken in words.items() if spoken}
    options = task.decoding.options
    try:
        corpus = TrainingCorpus.build(store, lexicon, tree.phones, texts)
        key = fingerprint([corpus.fingerprint, options.realign, task.decoding.acoustics().digests()])
        cache: ResultCache[AlignedBatch] = ResultCache(out_dir / TIMES_CACHE, key, ALIGNED_BATCHES)
        return viterbi(corpus, task, tree.num_pdfs, options.realign, options.task_executor, cache, name, out_dir)
    except NothingAligned:
        return None
