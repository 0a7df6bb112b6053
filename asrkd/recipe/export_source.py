"""What a model is exported from: a finished run and one of its systems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from lhotse import Recording
from numpy.typing import NDArray

from asrkd import __version__
from asrkd.data.audio import AudioError, read_samples
from asrkd.data.manifests import load_split
from asrkd.data.resample import resample
from asrkd.data.transcripts import SILENCE
from asrkd.decode.options import DecodeOptions
from asrkd.errors import InputError
from asrkd.features.cmvn import PRIOR_FRAMES
from asrkd.features.fbank import measure_prior
from asrkd.features.options import FeatureOptions
from asrkd.recipe.evaluate import Acoustics, Run, open_graph, tuned
from asrkd.recipe.features import read_prior
from asrkd.recipe.finished_run import FinishedRun, require_system
from asrkd.recipe.folders import RunFolders
from asrkd.recipe.options import SpeechOptions
from asrkd.runtime.package import Description, FrontEnd, Normalisation, SearchSettings


@dataclass(frozen=True)
class Source:
    """A system of a finished run."""

    finished: FinishedRun
    run: Run
    search: DecodeOptions
    """With the scales that the run tuned."""

    @classmethod
    def open(cls, exp_dir: Path, system: str) -> Source:
        """InputError for a folder without a finished run, and for a system that the run does not have."""
        finished = FinishedRun.open(exp_dir)
        require_system(system, finished.systems, exp_dir, "--system")
        return cls(finished, finished.systems[system], tuned(finished.exp_dir / "decode" / "tuning", finished.options))

    @property
    def options(self) -> SpeechOptions:
        """Those of the run."""
        return self.finished.options

    @property
    def results(self) -> Mapping[str, Any]:
        """The run's results.json."""
        return self.finished.results

    @property
    def folders(self) -> RunFolders:
        """Where the run's files are."""
        return RunFolders(self.options.exp_dir)

    @property
    def front_end(self) -> FrontEnd:
        """The front end of the run's features."""
        features: FeatureOptions = self.options.features
        names = FrontEnd.__dataclass_fields__
        return FrontEnd(**{name: getattr(features, name) for name in names})

    @cached_property
    def acoustics(self) -> Acoustics:
        """The run's own scores of its test set."""
        return Acoustics(self.run, "test", self.options)

    def samples(self, recording: Recording) -> NDArray[np.float32]:
        """The samples [N] of a recording of the run, at the rate of its features. InputError where there are none."""
        try:
            samples = read_samples(recording)
        except AudioError as error:
            raise InputError(f"{recording.id}: {error}; export reads the audio of the run's corpus") from None
        return resample(samples, recording.sampling_rate, self.options.features.sampling_rate)[0]

    def describe(self) -> Description:
        """What model.json says of the system; without files."""
        search = self.search
        settings = {name: getattr(search, name) for name in SearchSettings.__dataclass_fields__}
        of_run = {name: self.results.get(name) for name in ("recipe", "command", "git_sha", "config_sha", "seed")}
        return Description(
            name=f"{self.results['recipe']} {self.run.name}",
            front_end=self.front_end,
            normalisation=self._normalisation(),
            left_context=self.options.context.left,
            right_context=self.options.context.right,
            num_pdfs=open_graph(self.options.exp_dir).num_pdfs,
            search=SearchSettings(**settings),
            silence_phones=(SILENCE,),
            graph={name: float(value) for name, value in vars(self.options.graph).items()},
            run={**of_run, "system": self.run.name, "asrkd": __version__},
            files={},
        )

    def _normalisation(self) -> Normalisation:
        """The run's kind, and the moments of training speech before normalisation."""
        features = self.options.features
        prior = read_prior(self.folders, features)
        if prior is None:  # what the run has is normalised
            prior = measure_prior(load_split(self.folders.manifests("train")), features)
        return Normalisation(features.cmvn, prior.mean, prior.mean_square, PRIOR_FRAMES)
