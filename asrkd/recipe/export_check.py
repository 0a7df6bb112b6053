"""How an exported model compares with the run that it comes from: scores, frames, words and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lhotse import Recording
from numpy.typing import NDArray
from tqdm import tqdm

from asrkd.align.labels import NO_LABEL
from asrkd.data.manifests import load_split
from asrkd.decode.search import Hypotheses
from asrkd.errors import InputError
from asrkd.recipe.evaluate import references
from asrkd.recipe.export_source import Source
from asrkd.runtime.acoustic import AcousticModel, Statistics
from asrkd.runtime.features import log_mel
from asrkd.runtime.model import assemble
from asrkd.runtime.package import Description
from asrkd.scoring.words import WordErrors
from asrkd.workflow.executor import Executor

# Nats. The front ends differ by 0.002 at most, in single values, and scores by 1e-5 on average. More than this is an
# error of the exporter.
MOST_MEAN_DIFFERENCE = 0.01


@dataclass(frozen=True)
class HeldOutSpeech:
    """A held-out split of the run, and the utterances of it that a check decodes."""

    recordings: Mapping[str, Recording]
    """By utt_id; of all utterances, for a speaker is normalised over all of his."""
    speakers: Mapping[str, str]
    """By utt_id; of all utterances."""
    refs: Mapping[str, Sequence[str]]
    """Of the utterances that are decoded."""

    @classmethod
    def of(cls, source: Source, name: str, most: int | None) -> HeldOutSpeech:
        """The split `name`, dev or test: all of it is decoded, or `most` utterances spread over it."""
        split = load_split(source.folders.manifests(name))
        by_id = {recording.id: recording for recording in split.recordings}
        refs = references(source.options.exp_dir, name, source.finished.scoring)
        utt_ids = list(refs)
        if most is not None and most < len(utt_ids):
            utt_ids = [utt_ids[n * len(utt_ids) // most] for n in range(most)]
        return cls(
            {one.id: by_id[one.recording_id] for one in split.supervisions},
            {one.id: str(one.speaker) for one in split.supervisions},
            {utt_id: refs[utt_id] for utt_id in utt_ids},
        )

    def by_speaker(self) -> Iterator[list[str]]:
        """All utterances of each speaker of whom one is decoded."""
        for speaker in dict.fromkeys(self.speakers[utt_id] for utt_id in self.refs):
            yield [utt_id for utt_id, name in self.speakers.items() if name == speaker]


@dataclass(frozen=True)
class ScoreCheck:
    """The scores of a network beside the run's, both normalised as the run does."""

    largest_difference: float
    """Nats."""
    mean_difference: float
    frame_accuracy: float | None
    """None where no utterance is aligned."""


@dataclass(frozen=True)
class Scored:
    """The scores of the test set by the run and by the networks of a model."""

    networks: Mapping[str, ScoreCheck]
    """By file name."""
    accuracy_of_run: float | None
    """Frame accuracy of the run itself; None where no utterance is aligned."""
    statistics: Mapping[str, Statistics | None]
    """By utt_id: what the run normalised with; None where each utterance has its own."""


def check_scores(source: Source, speech: HeldOutSpeech, networks: Mapping[str, AcousticModel]) -> Scored:
    """Compare the scores of networks, by name, with the run's."""
    sums = {name: np.zeros(4) for name in networks}  # differences, values, correct frames, frames
    largest = dict.fromkeys(networks, 0.0)
    of_run = np.zeros(2)
    used: dict[str, Statistics | None] = {}
    progress = tqdm(total=len(speech.refs), desc="scores", unit="utt")
    log_prior = source.acoustics.log_prior.numpy()
    for utt_ids in speech.by_speaker():
        feats = {one: log_mel(source.samples(speech.recordings[one]), source.front_end) for one in utt_ids}
        statistics = _as_in_the_run(source, list(feats.values()))
        used |= dict.fromkeys(utt_ids, statistics)
        for utt_id in [utt_id for utt_id in utt_ids if utt_id in speech.refs]:
            frames = feats[utt_id]
            expected = source.acoustics[utt_id].numpy()
            labels = source.acoustics.frames.labels_of(utt_id).numpy()
            of_run += _correct(expected + log_prior, labels)
            for name, network in networks.items():
                scores = network.scores(frames, statistics)
                if scores.shape != expected.shape:
                    raise InputError(f"{utt_id}: expected scores {expected.shape}, found {scores.shape}")
                difference = np.abs(scores - expected)
                largest[name] = max(largest[name], float(difference.max()))
                sums[name] += [difference.sum(), difference.size, *_correct(scores + log_prior, labels)]
            progress.update()
    progress.close()
    checks = {
        name: ScoreCheck(largest[name], float(total / size), float(correct / frames) if frames else None)
        for name, (total, size, correct, frames) in sums.items()
    }
    return Scored(checks, float(of_run[0] / of_run[1]) if of_run[1] else None, used)


def _as_in_the_run(source: Source, feats: Sequence[NDArray[np.float32]]) -> Statistics | None:
    """The statistics that the run normalised a speaker's utterances with; None where each has its own."""
    if source.options.features.cmvn != "speaker":
        return None
    return Statistics.of(np.concatenate(feats))


def _correct(log_probs: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Frames with the right senone, and frames; none of an utterance that is not aligned."""
    if (labels == NO_LABEL).any():
        return 0.0, 0.0
    return float((log_probs.argmax(axis=1) == labels).sum()), float(len(labels))


@dataclass(frozen=True)
class _Decoded:
    words: list[str]
    audio_sec: float
    network_sec: float
    """Processor seconds of the front end and the network."""
    search_sec: float
    confidences: list[float]
    """Of the words; none where they were not asked for."""


@dataclass(frozen=True)
class _RuntimeTask:
    """Decodes utterances as `asrkd transcribe` does.

    An item is a recording, and the statistics to normalise with: none where it is taken alone.
    """

    source: Source
    folder: Path
    description: Description
    network: str
    confidences: bool

    def open(self) -> Callable[[tuple[Recording, Statistics | None]], _Decoded]:
        model = assemble(self.folder, self.description, self.network)

        def decode(item: tuple[Recording, Statistics | None]) -> _Decoded:
            recording, statistics = item
            samples = self.source.samples(recording)
            begin = time.process_time()
            scores = model.scores(samples, statistics)
            scored = time.process_time()
            search = model.search.stream(confidences=self.confidences)
            search.advance(scores)
            found = search.final(confidences=False)
            searched = time.process_time()
            sure = search.final(confidences=True).words if self.confidences else ()
            return _Decoded(
                [word.text for word in found.words],
                len(samples) / model.sampling_rate,
                scored - begin,
                searched - scored,
                [word.confidence for word in sure if word.confidence is not None],
            )

        return decode


@dataclass(frozen=True)
class WordCheck:
    """The words of an exported model."""

    errors: WordErrors
    words: Mapping[str, list[str]]
    rtf: float
    """Processor seconds of the front end, the network and the search, for a second of speech."""
    network_rtf: float
    """Of the front end and the network alone."""
    confidences: Mapping[str, list[float]]
    """Of the words, by utt_id; none where they were not asked for."""


def check_words(
    source: Source,
    speech: HeldOutSpeech,
    folder: Path,
    description: Description,
    network: str,
    statistics: Mapping[str, Statistics | None] | None = None,
    confidences: bool = False,
) -> WordCheck:
    """The words of held-out speech by the model in a folder.

    `statistics`: by utt_id, what to normalise with; without, each utterance is taken alone.
    """
    task = _RuntimeTask(source, folder, description, network, confidences)
    utt_ids = list(speech.refs)
    executor: Executor = source.options.task_executor if source.options.executor == "processes" else Executor(2)
    items = [(speech.recordings[utt_id], statistics[utt_id] if statistics else None) for utt_id in utt_ids]
    numbered = executor.map(task, items)
    decoded = {utt_ids[n]: one for n, one in tqdm(numbered, desc=network, unit="utt", total=len(utt_ids))}
    decoded = {utt_id: decoded[utt_id] for utt_id in utt_ids}
    words = {utt_id: one.words for utt_id, one in decoded.items()}
    seconds = sum(one.audio_sec for one in decoded.values())
    network_sec = sum(one.network_sec for one in decoded.values())
    search_sec = sum(one.search_sec for one in decoded.values())
    errors = source.finished.scoring.errors(speech.refs, words)
    sure = {utt_id: one.confidences for utt_id, one in decoded.items()}
    return WordCheck(errors, words, (network_sec + search_sec) / seconds, network_sec / seconds, sure)


def words_of_run(source: Source, speech: HeldOutSpeech) -> WordCheck:
    """What the run itself recognised on the same utterances."""
    hypotheses = Hypotheses.load(source.options.exp_dir / source.run.step)
    words = {utt_id: hypotheses.words[utt_id] for utt_id in speech.refs}
    network_rtf = hypotheses.score_sec / hypotheses.audio_sec
    return WordCheck(source.finished.scoring.errors(speech.refs, words), words, hypotheses.rtf, network_rtf, {})


def check_row(
    name: str, words: WordCheck, of_run: WordCheck, scores: ScoreCheck | None = None, **others: Any
) -> dict[str, Any]:
    """A row of check.json."""
    return {
        "name": name,
        "wer": words.errors.as_json(),
        "equal_utterances": sum(words.words[utt_id] == of_run.words[utt_id] for utt_id in words.words),
        "rtf": words.rtf,
        "network_rtf": words.network_rtf,
        **(vars(scores) if scores is not None else {}),
        **others,
    }
