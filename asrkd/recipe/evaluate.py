"""Stages 9 to 11: decoding graph, words of every system, results.json."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from asrkd.data.manifests import load_split
from asrkd.decode import DecodeOptions, Hypotheses, Scales, Searcher, decode, tune
from asrkd.decode.rescore import Piece, Rescored, Rescorer
from asrkd.distil.ensemble import AveragedEnsemble, Mean
from asrkd.features.store import FrameStore
from asrkd.files import fingerprint, read_json, tensor_digest, write_json
from asrkd.graph.build import build_hclg
from asrkd.graph.decoding_graph import DecodingGraph
from asrkd.graph.grammar import grammar_fst
from asrkd.graph.on_demand import GrammarWalk
from asrkd.graph.pronunciations import backoff_label, word_labels
from asrkd.lang.lexicon import Lexicon
from asrkd.lang.ngram import read_arpa
from asrkd.nnet.models import AcousticDnn, StackedEnsemble
from asrkd.recipe.folders import RunFolders
from asrkd.recipe.labels import load_hmm
from asrkd.recipe.lang import sentences
from asrkd.recipe.language import rescoring_model
from asrkd.recipe.networks import MODEL_FILE, LabelledFrames, students, teachers
from asrkd.recipe.options import SpeechOptions
from asrkd.recipe.scoring import Scoring
from asrkd.scoring.bootstrap import UtteranceMetric
from asrkd.scoring.frames import FrameMetrics, frame_metrics
from asrkd.workflow.cache import ResultCache

GRAPH_FOLDER = "graph"
TUNING_FILE = "tuning.json"
FRAMES_FILE = "frames.json"
CACHE_FILE = "found.sqlite"
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
    """Every system that is decoded; students of the sweep are compared by their development figures alone."""
    members = tuple(teachers(options))
    found = [Run(f"teacher_{member}", 0, (step,)) for member, step in enumerate(members)]
    if members:
        found.append(Run("ensemble", 0, members))
    for student in students(options):
        if not student.is_sweep:
            found.append(Run(student.system, student.seed, (f"students/{student.name}",)))
    return found


class Acoustics(Mapping[str, Tensor]):
    """utt_id -> scaled log-likelihoods [T, S] of a run, computed when asked for."""

    def __init__(self, run: Run, frames: LabelledFrames, log_prior: Tensor, exp_dir: Path, mean: Mean) -> None:
        self.run = run
        models = [AcousticDnn.load(exp_dir / step / MODEL_FILE) for step in run.models]
        self.model = AveragedEnsemble(StackedEnsemble(models), mean) if len(models) > 1 else models[0]
        self.frames = frames
        self.log_prior = log_prior
        self.mean = mean

    def digests(self) -> list[str]:
        """What tells these scores from others."""
        weights = [tensor_digest(tensor) for tensor in (*self.model.parameters(), self.log_prior)]
        return [self.frames.store.fingerprint, self.mean, *weights]

    @torch.no_grad()
    def log_probs(self, utt_id: str) -> Tensor:
        """Log-posteriors [T, S] at temperature 1."""
        return F.log_softmax(self.model(self.frames.inputs.utt_batch(utt_id)), dim=1)

    def __getitem__(self, utt_id: str) -> Tensor:
        return self.log_probs(utt_id) - self.log_prior

    def __iter__(self) -> Iterator[str]:
        return iter(self.frames.store.utt_ids)

    def __len__(self) -> int:
        return len(self.frames.store.utt_ids)


@dataclass(frozen=True)
class Decoder:
    """What decoding one split needs, whichever the system."""

    split: str
    graph: DecodingGraph
    frames: LabelledFrames
    log_prior: Tensor
    exp_dir: Path
    options: SpeechOptions
    rescorer: Rescorer | None

    @classmethod
    def open(cls, exp_dir: Path, split: str, options: SpeechOptions) -> Decoder:
        options = replace(options, exp_dir=exp_dir)
        folders = RunFolders(exp_dir)
        frames = LabelledFrames.open_to_decode(split, options)
        _, _, log_prior = load_hmm(folders.tree)
        rescorer = open_rescorer(exp_dir) if options.lang.rescore_arpa else None
        graph = DecodingGraph.load(folders.graph / GRAPH_FOLDER)
        return cls(split, graph, frames, log_prior, exp_dir, options, rescorer)

    def acoustics(self, run: Run) -> Acoustics:
        return Acoustics(run, self.frames, self.log_prior, self.exp_dir, self.options.posteriors.mean)

    def words(
        self, acoustics: Acoustics, options: DecodeOptions, name: str, out_dir: Path
    ) -> tuple[Hypotheses, Hypotheses]:
        """What the graph recognises, and the same rescored (the same again where nothing rescores); a file in `out_dir`
        keeps it as it comes."""
        num_jobs, jobs = self.options.num_jobs, self.options.jobs
        work = DecodeWork(acoustics.run, options, self.split, self.exp_dir, self.options)
        search = fingerprint([acoustics.digests(), self.graph.fingerprint, replace(options, num_jobs=1)])
        first = decode(
            self.graph,
            acoustics,
            replace(options, num_jobs=num_jobs),
            self.frames.store.frame_shift_ms,
            name=name,
            elsewhere=partial(jobs.map, work) if jobs.on_cluster else None,
            kept=ResultCache(out_dir / CACHE_FILE, search),
        )
        if self.rescorer is None:
            return first, first
        beam = None if options.whole_lattices else options.lattice_beam
        again = RescoreWork(self.exp_dir, options.scales, beam)
        elsewhere = partial(jobs.map, again) if jobs.on_cluster else None
        grammars = [grammar.fst.digest() for grammar in (self.rescorer.old, self.rescorer.new)]
        kept = ResultCache(out_dir / CACHE_FILE, fingerprint([search, grammars]))
        return first, self.rescorer(first, options.scales, beam, num_jobs, f"rescore {name}", elsewhere, kept)


def open_rescorer(exp_dir: Path) -> Rescorer:
    """The two grammars of stage 9."""
    return Rescorer(*(GrammarWalk.load(exp_dir / "graph" / name) for name in (OLD_GRAMMAR_FILE, NEW_GRAMMAR_FILE)))


def references(exp_dir: Path, split: str, scoring: Scoring) -> dict[str, list[str]]:
    """What was said in each utterance of a held-out split, as it is scored."""
    folders = RunFolders(exp_dir)
    said = {s.id: scoring.fold(scoring.reference(s)) for s in load_split(folders.manifests(split)).supervisions}
    # in the store's order: the bootstrap's draws depend on it
    return {utt_id: said[utt_id] for utt_id in FrameStore.open(folders.features(split)).utt_ids}


@dataclass(frozen=True)
class RescoreWork:
    """Rescoring utterances on a cluster: paths and options."""

    exp_dir: Path
    scales: Scales
    beam: float | None

    def open(self) -> Callable[[Piece], Rescored]:
        rescorer = open_rescorer(self.exp_dir)
        sequences = DecodingGraph.load(self.exp_dir / "graph" / GRAPH_FOLDER).word_sequences
        return lambda piece: rescorer.piece(piece, sequences, self.scales, self.beam)


@dataclass(frozen=True)
class DecodeWork:
    """Searching utterances of a split on a cluster: paths and options."""

    run: Run
    decode: DecodeOptions
    split: str
    exp_dir: Path
    options: SpeechOptions

    def open(self) -> Searcher:
        decoder = Decoder.open(self.exp_dir, self.split, self.options)
        return Searcher(decoder.graph, decoder.acoustics(self.run), self.decode).open()


def make_graph(options: SpeechOptions, out_dir: Path) -> None:
    """Stage 9: HCLG of the lexicon, the language model, the tree and its transitions."""
    folders = RunFolders(options.exp_dir)
    tree, transitions, _ = load_hmm(folders.tree)
    lexicon, model = Lexicon.load(folders.decode_lexicon), read_arpa(folders.arpa)
    graph = build_hclg(lexicon, model, tree, transitions, options.graph)
    graph.save(out_dir / GRAPH_FOLDER)
    print(f"   {graph.num_states} states, {graph.num_arcs} arcs", flush=True)
    if options.lang.rescore_arpa:
        larger = rescoring_model(sentences(folders, "train"), options.lang, model)
        for name, one in {OLD_GRAMMAR_FILE: model, NEW_GRAMMAR_FILE: larger}.items():
            grammar = grammar_fst(one, word_labels(lexicon), backoff_label(lexicon))
            GrammarWalk(grammar.fst).save(out_dir / name)


def decode_dev(run: Run, options: SpeechOptions, out_dir: Path) -> None:
    """Stage 10, first: lattices of one system on the development speakers, to tune the scales by."""
    decoder = Decoder.open(options.exp_dir, "dev", options)
    _, last = decoder.words(decoder.acoustics(run), options.decode, f"{run.name}, dev", out_dir)
    last.save(out_dir)
    (out_dir / CACHE_FILE).unlink(missing_ok=True)


def tune_scales(chosen: Sequence[Run], scoring: Scoring, options: SpeechOptions, out_dir: Path) -> None:
    """Stage 10, next: one set of scales for all systems, from their lattices of the development speakers."""
    lattices = {run.name: Hypotheses.load(options.exp_dir / run.dev_step).lattices for run in chosen}
    tuning = tune(
        lattices,
        references(options.exp_dir, "dev", scoring),
        options.tune.acoustic_scales,
        options.tune.insertion_scores,
        options.tune.lm_scales or (options.decode.lm_scale,),
        count_errors=scoring.count_errors,
    )
    write_json(out_dir / TUNING_FILE, {"scales": tuning.scales, "rows": tuning.rows})
    best = next(row for row in tuning.rows if row["chosen"])
    print(
        f"   development {scoring.unit} error rate {best['wer']:.2f} at acoustic scale {best['acoustic_scale']}, "
        f"LM scale {best['lm_scale']}, insertion score {best['insertion_score']}",
        flush=True,
    )


def tuned(tuning_dir: Path, options: SpeechOptions) -> DecodeOptions:
    """The decoding options with the scales that tuning chose."""
    return replace(options.decode, **read_json(tuning_dir / TUNING_FILE)["scales"])


def decode_test(run: Run, options: SpeechOptions, out_dir: Path) -> None:
    """Stage 10: words, lattices and frame scores of one system on the test set."""
    decoder = Decoder.open(options.exp_dir, "test", options)
    acoustics = decoder.acoustics(run)
    first, last = decoder.words(acoustics, tuned(options.exp_dir / "decode" / "tuning", options), run.name, out_dir)
    last.save(out_dir)
    if decoder.rescorer is not None:
        write_json(out_dir / FIRST_PASS_FILE, {"words": first.words, "rtf": first.rtf})
    labels = {utt_id: decoder.frames.labels_of(utt_id) for utt_id in decoder.frames.aligned_utt_ids()}
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
