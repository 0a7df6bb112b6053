"""A system of a finished run as a model that stands alone: `asrkd export`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asrkd import __version__
from asrkd.data.audio import AudioError, read_samples
from asrkd.data.manifests import load_split
from asrkd.data.resample import resample
from asrkd.data.transcripts import SILENCE
from asrkd.decode.options import DecodeOptions
from asrkd.errors import InputError
from asrkd.features.options import FeatureOptions
from asrkd.files import atomic_dir, read_object, write_json
from asrkd.recipe.evaluate import Acoustics, Run, open_graph, runs, tuned
from asrkd.recipe.export_files import write_graph, write_tables
from asrkd.recipe.export_network import ScoresOfFrames, write_int8, write_onnx
from asrkd.recipe.folders import RunFolders
from asrkd.recipe.options import SpeechOptions, options_of_run
from asrkd.runtime.features import log_mel
from asrkd.runtime.package import (
    GRAPH,
    MODEL_JSON,
    NETWORK,
    NETWORK_INT8,
    Description,
    File,
    FrontEnd,
    Normalisation,
    SearchSettings,
    describe_file,
    to_json,
)

PRIOR_UTTERANCES = 300
PRIOR_FRAMES = 300.0  # three seconds: with 100 and 1,000 the demonstration's WER was higher


@dataclass(frozen=True)
class ExportOptions:
    """A system of a run and the model to make of it."""

    run: Path
    """Folder of a finished run, such as exp/an4."""
    out: Path
    """Folder to write, or a .tar.gz: new, or a model to replace."""
    system: str = "distilled"
    """The system to export, as in RESULTS.md: distilled, baseline, teacher_0, ensemble; distilled_seed1 is one seed."""
    license: str = "not stated"
    """The licence of the model, for its card: that of the corpora may bind it."""
    max_wer_loss: float = 0.3
    """Points of WER that 8-bit weights may lose at most; else only the float32 model is written."""


@dataclass(frozen=True)
class Source:
    """What a model is exported from."""

    run: Run
    options: SpeechOptions
    search: DecodeOptions
    results: Mapping[str, Any]

    @property
    def folders(self) -> RunFolders:
        return RunFolders(self.options.exp_dir)


def open_source(options: ExportOptions) -> Source:
    """The run and its system. InputError for a run that is not finished, and a system that it does not have."""
    if not (options.run / "config.json").is_file():
        raise InputError(f"{options.run}: expected the folder of a finished run, found no config.json there")
    results = read_object(options.run / "results.json", systems=dict)
    of_run = options_of_run(options.run)
    by_name = {run.name: run for run in runs(of_run)}
    if options.system not in by_name:
        nearest = difflib.get_close_matches(options.system, by_name, n=1, cutoff=0.0)[0]
        raise InputError(f"--system {options.system}: expected one of {', '.join(by_name)}; the nearest is {nearest}")
    search = tuned(of_run.exp_dir / "decode" / "tuning", of_run)
    return Source(by_name[options.system], of_run, search, results)


def front_end(features: FeatureOptions) -> FrontEnd:
    """The front end of the run's features."""
    return FrontEnd(
        features.sampling_rate,
        features.num_mel_bins,
        features.frame_length_ms,
        features.frame_shift_ms,
        features.low_freq_hz,
        features.high_freq_hz,
    )


def _normalisation(source: Source) -> Normalisation:
    """The run's normalisation; the mean and the square of log-mel energies over utterances of the training split.

    The run's frames are normalised already, so these are computed again from audio.
    """
    features = source.options.features
    manifest = load_split(source.folders.manifests("train")).recordings
    recordings = sorted(manifest, key=lambda recording: str(recording.id))
    step = max(len(recordings) // PRIOR_UTTERANCES, 1)
    sums = np.zeros((2, features.num_mel_bins))
    count = 0
    for recording in recordings[::step]:
        try:
            samples = read_samples(recording)
        except AudioError as error:
            raise InputError(f"{recording.id}: {error}: export needs audio of the run's corpus") from None
        samples = resample(samples, recording.sampling_rate, features.sampling_rate)
        frames = log_mel(samples[0], front_end(features)).astype(np.float64)
        sums += np.stack([frames.sum(0), (frames * frames).sum(0)])
        count += len(frames)
    mean, square = (tuple(float(f"{value:.7g}") for value in row) for row in (sums / count).tolist())
    return Normalisation(features.cmvn, mean, square, PRIOR_FRAMES)


def describe(source: Source, files: Mapping[str, File]) -> Description:
    """What model.json says of the system."""
    options, search = source.options, source.search
    return Description(
        name=f"{source.results['recipe']} {source.run.name}",
        front_end=front_end(options.features),
        normalisation=_normalisation(source),
        left_context=options.context.left,
        right_context=options.context.right,
        num_pdfs=open_graph(options.exp_dir).num_pdfs,
        search=SearchSettings(
            search.acoustic_scale,
            search.beam,
            search.max_active,
            search.min_active,
            search.lattice_beam,
            search.lm_scale,
            search.insertion_score,
        ),
        silence_phones=(SILENCE,),
        graph={
            "silence_prob": options.graph.silence_prob,
            "self_loop_scale": options.graph.self_loop_scale,
            "transition_scale": options.graph.transition_scale,
        },
        run={
            **{name: source.results[name] for name in ("recipe", "command", "git_sha", "config_sha", "seed")},
            "system": source.run.name,
            "asrkd": __version__,
        },
        files=files,
    )


def export(options: ExportOptions) -> None:
    """Write the model, whole or not at all."""
    source = open_source(options)
    with atomic_dir(options.out) as folder:
        write_files(source, folder)
        finish(source, folder)


def write_files(source: Source, folder: Path) -> None:
    """The networks, the graph and the tables."""
    options = source.options
    acoustics = Acoustics(source.run, "test", options)
    normalises = options.features.cmvn != "none"
    context = options.context
    scores = ScoresOfFrames(acoustics.model, acoustics.log_prior, context.left, context.right, normalises)
    write_onnx(scores, options.features.num_mel_bins, folder / NETWORK)
    write_int8(folder / NETWORK, folder / NETWORK_INT8)
    graph = open_graph(options.exp_dir)
    write_graph(graph, source.search, folder / GRAPH)
    write_tables(source.folders, graph, folder)


def finish(source: Source, folder: Path) -> None:
    """model.json, with all other files as they are now."""
    files = {path.name: describe_file(path) for path in sorted(folder.iterdir()) if path.name != MODEL_JSON}
    write_json(folder / MODEL_JSON, to_json(describe(source, files)))
