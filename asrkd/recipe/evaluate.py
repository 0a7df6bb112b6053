"""Stages 9 and 10: decoding graph, scales, words and frame scores of every system."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from asrkd.data.manifests import load_split
from asrkd.decode import DecodeOptions, Hypotheses, Scales, Searcher, decode, tune
from asrkd.decode.rescore import RESCORED_UTTERANCES, Grammars, Rescorer, rescore
from asrkd.decode.search import SEARCH_RESULTS, DecodingTask
from asrkd.distil.ensemble import AveragedEnsemble
from asrkd.features.store import FrameStore
from asrkd.files import fingerprint, read_object, reading, tensor_digest, write_json
from asrkd.graph.build import build_hclg
from asrkd.graph.decoding_graph import DecodingGraph
from asrkd.graph.grammar import grammar_fst
from asrkd.graph.on_demand import GrammarWalk
from asrkd.graph.pronunciations import backoff_label, word_labels
from asrkd.lang.lexicon import Lexicon
from asrkd.lang.ngram import read_arpa
from asrkd.nnet.models import load_model
from asrkd.recipe.excluded import excluded_utterances
from asrkd.recipe.folders import RunFolders
from asrkd.recipe.labels import SCORED_FRAMES, load_hmm
from asrkd.recipe.lang import sentences
from asrkd.recipe.language import rescoring_model
from asrkd.recipe.networks import MODEL_FILE, LabelledFrames, open_ensemble, teachers
from asrkd.recipe.options import SpeechOptions
from asrkd.recipe.scoring import Scoring
from asrkd.recipe.students import SUBSET_HARD, SUBSET_SOFT, students
from asrkd.report.decoding_tables import scales_texts
from asrkd.scoring.bootstrap import UtteranceMetric
from asrkd.scoring.frames import FrameMetrics, frame_metrics
from asrkd.workflow.cache import ResultCache

GRAPH_FOLDER = "graph"
TUNING_FILE = "tuning.json"
FRAMES_FILE = "frames.json"
CACHE_FILE = "decoded.sqlite"
FIRST_PASS_FILE = "first_pass.json"
OLD_GRAMMAR_FILE = "decoding_grammar"
NEW_GRAMMAR_FILE = "rescoring_grammar"


@dataclass(frozen=True)
class Run:
    """One decoded system of one seed: a model, or several whose posteriors are averaged."""

    system: str
    """Name in results.json; runs of several seeds share it."""
    seed: int
    models: tuple[str, ...]
    """Steps that trained its models."""

    @property
    def name(self) -> str:
        return self.system if self.seed == 0 else f"{self.system}_seed{self.seed}"

    @property
    def step(self) -> str:
        """Step that decodes the test set."""
        return f"decode/{self.name}"

    @property
    def dev_step(self) -> str:
        """Step that decodes the development speakers."""
        return f"decode/dev/{self.name}"


def runs(options: SpeechOptions) -> list[Run]:
    """Every system that is decoded; students of a sweep are compared by their development figures alone."""
    members = tuple(teachers(options))
    name = source_of_gain(options)
    chosen = [Run(f"teacher_{member}", 0, (step,)) for member, step in enumerate(members) if len(members) > 1]
    chosen += [Run(name, 0, members)] if name else []
    chosen += [
        Run(student.system, student.seed, (student.step,)) for student in students(options) if not student.is_sweep
    ]
    return chosen


def tuning_runs(options: SpeechOptions) -> list[Run]:
    """The systems whose errors choose the scales: all but students of a part of the speech, which err far more."""
    return [run for run in runs(options) if run.system not in (SUBSET_HARD, SUBSET_SOFT)]


def source_of_gain(options: SpeechOptions) -> str | None:
    """The system that the distilled student learns from; None where another system's posteriors teach it."""
    members = teachers(options)
    return ("ensemble" if len(members) > 1 else "teacher") if members else None


class Acoustics(Mapping[str, Tensor]):
    """utt_id -> scaled log-likelihoods [T, S] of a run on a held-out split, computed on access.

    With `data_dir` the split is that of another folder, without labels. `device` computes the networks.
    """

    def __init__(
        self, run: Run, split: str, options: SpeechOptions, data_dir: Path | None = None, device: str = "cpu"
    ) -> None:
        folders = [options.exp_dir / step for step in run.models]
        self.mean = options.posteriors.mean
        self.model = (
            AveragedEnsemble(open_ensemble(folders), self.mean)
            if len(folders) > 1
            else load_model(folders[0] / MODEL_FILE)
        )
        self.model.to(device)
        self.device = device
        self.frames = (
            LabelledFrames.open_to_decode(split, options)
            if data_dir is None
            else LabelledFrames.open_unlabelled(RunFolders(data_dir).features(split), options)
        )
        _, _, self.log_prior = load_hmm(RunFolders(options.exp_dir).tree)

    def digests(self) -> list[str]:
        """Digests of what decides the scores."""
        weights = [
            tensor_digest(tensor) for tensor in (*self.model.parameters(), *self.model.buffers(), self.log_prior)
        ]
        return [self.frames.store.fingerprint, self.mean, *weights]

    @torch.no_grad()
    def log_probs(self, utt_id: str) -> Tensor:
        """Log-posteriors [T, S] at temperature 1."""
        chunks = self.frames.inputs.read_chunks(utt_id, SCORED_FRAMES)
        return torch.cat([F.log_softmax(self.model(frames.to(self.device)), dim=1).cpu() for frames in chunks])

    def __getitem__(self, utt_id: str) -> Tensor:
        return self.log_probs(utt_id) - self.log_prior

    def __iter__(self) -> Iterator[str]:
        return iter(self.frames.store.utt_ids)

    def __len__(self) -> int:
        return len(self.frames.store.utt_ids)


@dataclass(frozen=True)
class DecodeTask(DecodingTask):
    """Searches utterances of a held-out split with the acoustic model of a run."""

    run: Run
    split: str
    search: DecodeOptions
    options: SpeechOptions
    lattices: bool = True
    """Whether all paths near the best one are wanted, or the best one alone."""
    ends_anywhere: bool = False
    """Whether k2's paths may end in any state."""
    data_dir: Path | None = None
    """Folder whose split it is, unlabelled; None: the run's own."""
    graph_dir: Path | None = None
    """Folder of another decoding graph than the run's."""
    device: str = "cpu"
    """What computes the networks."""

    @property
    def graph(self) -> DecodingGraph:
        """The decoding graph, loaded again."""
        return open_graph(self.options.exp_dir if self.graph_dir is None else self.graph_dir)

    @property
    def store(self) -> FrameStore:
        """The frames of the split."""
        return FrameStore.open(RunFolders(self.data_dir or self.options.exp_dir).features(self.split))

    @property
    def uses_k2(self) -> bool:
        """Whether k2 searches; it may where that depends on the graph."""
        return self.search.search != "kaldi"

    def ending_anywhere(self) -> DecodeTask | None:
        """As `Searcher.ending_anywhere`."""
        return replace(self, ends_anywhere=True) if self.uses_k2 and self.search.allow_partial else None

    def open(self) -> Searcher:
        return Searcher(self.graph, self.acoustics(), self.search, self.lattices, self.ends_anywhere).open()

    def acoustics(self) -> Acoustics:
        """The acoustic scores, loaded again."""
        return Acoustics(self.run, self.split, self.options, self.data_dir, self.device)


@dataclass(frozen=True)
class RescoreTask:
    """Rescores decoded utterances with the two grammars of stage 9."""

    exp_dir: Path
    scales: Scales
    beam: float | None

    def open(self) -> Rescorer:
        word_sequences = open_graph(self.exp_dir).word_sequences
        return Rescorer(open_grammars(self.exp_dir), word_sequences, self.scales, self.beam).open()


def open_graph(exp_dir: Path) -> DecodingGraph:
    """The decoding graph of stage 9."""
    return DecodingGraph.load(RunFolders(exp_dir).graph / GRAPH_FOLDER)


def open_grammars(exp_dir: Path) -> Grammars:
    """The two grammars of stage 9."""
    folder = RunFolders(exp_dir).graph
    return Grammars(*(GrammarWalk.load(folder / name) for name in (OLD_GRAMMAR_FILE, NEW_GRAMMAR_FILE)))


def decode_split(task: DecodeTask, name: str, out_dir: Path) -> tuple[Hypotheses, Hypotheses]:
    """What the graph recognises, and the same rescored (the same object where nothing rescores).

    A file in `out_dir` caches finished utterances, for a call that is repeated after a kill.
    """
    exp_dir, executor = task.options.exp_dir, task.options.task_executor
    graph, store = task.graph, task.store
    search = replace(task.search, search=task.search.choose_search(graph.num_arcs, task.lattices))
    task = replace(task, search=search)
    key = fingerprint([task.acoustics().digests(), graph.fingerprint, search, task.lattices])
    cache = ResultCache(out_dir / CACHE_FILE, key, SEARCH_RESULTS)
    first = decode(task, store.utt_ids, graph, search.scales, store.frame_shift_ms, name, executor, cache)
    if not task.options.lang.rescore_arpa or task.graph_dir is not None:
        return first, first
    again = RescoreTask(exp_dir, search.scales, None if search.whole_lattices else search.lattice_beam)
    digests = open_grammars(exp_dir).digests
    rescored = ResultCache(out_dir / CACHE_FILE, fingerprint([key, digests]), RESCORED_UTTERANCES)
    return first, rescore(first, again, digests, search.scales, f"rescore {name}", executor, rescored)


def references(exp_dir: Path, split: str, scoring: Scoring) -> dict[str, list[str]]:
    """The reference words of each utterance of a held-out split, as they are scored."""
    folders = RunFolders(exp_dir)
    refs = {s.id: scoring.fold(scoring.reference(s)) for s in load_split(folders.manifests(split)).supervisions}
    # in the store's order: the bootstrap's draws depend on it
    return {utt_id: refs[utt_id] for utt_id in FrameStore.open(folders.features(split)).utt_ids}


def make_graph(options: SpeechOptions, out_dir: Path) -> None:
    """Stage 9: HCLG of the lexicon, the language model, the tree and its transitions."""
    folders = RunFolders(options.exp_dir)
    tree, transitions, _ = load_hmm(folders.tree)
    lexicon = Lexicon.load(folders.decode_lexicon)
    graph = build_hclg(lexicon, folders.arpa, tree, transitions, options.graph)
    graph.save(out_dir / GRAPH_FOLDER)
    print(f"   {graph.num_states} states, {graph.num_arcs} arcs", flush=True)
    del graph
    if options.lang.rescore_arpa:
        model = read_arpa(folders.arpa)  # again: the graph has had its memory
        larger = rescoring_model(sentences(folders, "train"), options.lang, model)
        for name, one in {OLD_GRAMMAR_FILE: model, NEW_GRAMMAR_FILE: larger}.items():
            grammar = grammar_fst(one, word_labels(lexicon), backoff_label(lexicon))
            GrammarWalk(grammar.fst).save(out_dir / name)


def decode_dev(run: Run, options: SpeechOptions, out_dir: Path) -> None:
    """Stage 10, first: lattices of one system on the development speakers, to tune the scales by."""
    _, last = decode_split(DecodeTask(run, "dev", options.decode, options), f"{run.name}, dev", out_dir)
    last.save(out_dir)
    (out_dir / CACHE_FILE).unlink(missing_ok=True)


def tune_scales(chosen: Sequence[Run], scoring: Scoring, options: SpeechOptions, out_dir: Path) -> None:
    """Stage 10, second: one set of scales for all systems, from their lattices of the development speakers."""
    doubtful = excluded_utterances(RunFolders(options.exp_dir), "dev").keys()
    decoded = {run.name: Hypotheses.load(options.exp_dir / run.dev_step).lattices for run in chosen}
    refs = references(options.exp_dir, "dev", scoring)
    tuning = tune(
        {name: lattices.without(doubtful) for name, lattices in decoded.items()},
        {utt_id: words for utt_id, words in refs.items() if utt_id not in doubtful},
        options.tune.acoustic_scales,
        options.tune.insertion_scores,
        options.tune.lm_scales or (options.decode.lm_scale,),
        count_errors=scoring.count_errors,
        max_added=options.tune.max_added,
    )
    content = {
        "scales": tuning.scales,
        "at_grid_end": tuning.at_edge,
        "added": tuning.added,
        "flat": tuning.flat,
        "rows": tuning.rows,
    }
    write_json(out_dir / TUNING_FILE, content)
    best = next(row for row in tuning.rows if row["chosen"])
    print(
        f"   development {scoring.unit} error rate {best['wer']:.2f} at acoustic scale {best['acoustic_scale']}, "
        f"LM scale {best['lm_scale']}, insertion score {best['insertion_score']}",
        flush=True,
    )
    for text in scales_texts({"unit": scoring.unit, **tuning_results(out_dir)}):
        print(f"   {text}", flush=True)


def tuning_results(folder: Path) -> dict[str, Any]:
    """What results.json states about the scales, from what `tune_scales` wrote in `folder`."""
    saved = read_object(folder / TUNING_FILE, rows=list, at_grid_end=list, added=dict, flat=bool)
    return {
        "tuning": saved["rows"],
        "scales_at_grid_end": saved["at_grid_end"],
        "scales_added": saved["added"],
        "scales_flat": saved["flat"],
    }


def tuned_content(folder: Path) -> str:
    """Fingerprint of the scales: decoding reads nothing else. Scoring reads all rows, and has the inputs of tuning."""
    return fingerprint(read_object(folder / TUNING_FILE, scales=dict)["scales"])


def tuned(tuning_dir: Path, options: SpeechOptions) -> DecodeOptions:
    """The decoding options with the scales that tuning chose."""
    path = tuning_dir / TUNING_FILE
    scales = read_object(path, scales=dict)["scales"]
    with reading(path, "scales"):
        return replace(options.decode, **scales)


def decode_test(run: Run, options: SpeechOptions, out_dir: Path) -> None:
    """Stage 10: words, lattices or best paths, and frame scores of one system on the test set."""
    search = tuned(options.exp_dir / "decode" / "tuning", options)
    lattices = search.test_lattices or options.lang.rescore_arpa is not None
    task = DecodeTask(run, "test", search, options, lattices)
    first, last = decode_split(task, run.name, out_dir)
    last.save(out_dir)
    if options.lang.rescore_arpa:
        write_json(out_dir / FIRST_PASS_FILE, {"words": first.words, "rtf": first.rtf})
    acoustics = task.acoustics()
    labels = {utt_id: acoustics.frames.labels_of(utt_id) for utt_id in acoustics.frames.aligned_utt_ids()}
    frames = frame_metrics(((utt_id, acoustics.log_probs(utt_id)) for utt_id in labels), labels)
    accuracy, nats = frames.accuracy, frames.cross_entropy
    write_json(
        out_dir / FRAMES_FILE,
        {
            "utt_ids": accuracy.utt_ids,
            "frames": accuracy.denominator.tolist(),
            "correct": accuracy.numerator.tolist(),
            "nats": nats.numerator.tolist(),
            "parameters": acoustics.model.num_parameters,
            "macs_per_frame": acoustics.model.macs_per_frame,
        },
    )
    (out_dir / CACHE_FILE).unlink(missing_ok=True)


def load_frame_metrics(saved: Mapping[str, Any]) -> FrameMetrics:
    """Back from what `decode_test` wrote."""
    utt_ids = tuple(saved["utt_ids"])
    frames = np.array(saved["frames"])
    return FrameMetrics(
        UtteranceMetric("frame_accuracy", utt_ids, np.array(saved["correct"]), frames, higher_is_better=True),
        UtteranceMetric("cross_entropy", utt_ids, np.array(saved["nats"]), frames),
    )
