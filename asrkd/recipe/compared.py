"""Two systems of finished runs, folds or decoded folders, on the utterances that both have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asrkd.data.corpora.timit import reference_phones
from asrkd.data.manifests import load_transcripts
from asrkd.errors import InputError, name_some
from asrkd.files import read_object, reading
from asrkd.recipe.command_line import RESULTS_FILE
from asrkd.recipe.compared_frames import ScoredFrames, common_metrics, read_frames
from asrkd.recipe.compared_metrics import Difference, Way
from asrkd.recipe.evaluate import references
from asrkd.recipe.finished_run import require_system
from asrkd.recipe.folders import RunFolders, fold_name
from asrkd.recipe.scoring import Scoring, words_of_text
from asrkd.scoring.bootstrap import Comparison, UtteranceMetric, mean_over_seeds
from asrkd.scoring.compare_words import MatchedPairs, WordChanges, matched_pairs, word_changes
from asrkd.scoring.words import WordErrors
from asrkd.workflow.steps import STAMP_FILE, Record

HYPOTHESES_FILE = "hypotheses.json"
SPLIT = "test"
MAIN_SYSTEM = "distilled"
# What can be a corpus' reference, by the name that its results state.
REFERENCES: dict[str, Callable[..., Sequence[str]]] = {
    f"{function.__module__}.{function.__qualname__}": function for function in (words_of_text, reference_phones)
}


@dataclass(frozen=True)
class Recognised:
    """What one system has recognised, and what was said."""

    label: str
    """The folder and the system."""
    words: dict[str, list[str]]
    """utt_id -> recognised words."""
    refs: dict[str, list[str]]
    """utt_id -> reference words, as they are scored."""
    speakers: dict[str, str]
    """utt_id -> speaker."""
    scoring: Scoring
    frames: ScoredFrames | None = None
    """Its frame metrics, means over its seeds; None of several folds, whose senones differ, and where nothing was
    labelled."""
    further_seeds: tuple[dict[str, list[str]], ...] = ()
    """What its other seeds have recognised."""

    @property
    def num_seeds(self) -> int:
        """Seeds that its means are of."""
        return 1 + len(self.further_seeds)

    def mean_errors(self, refs: Mapping[str, Sequence[str]]) -> UtteranceMetric:
        """Its errors in the utterances of `refs`, the mean over its seeds."""
        seeds = [{utt_id: words[utt_id] for utt_id in refs} for words in (self.words, *self.further_seeds)]
        return mean_over_seeds([self.scoring.errors(refs, words).metric for words in seeds])


@dataclass(frozen=True)
class Compared:
    """Systems A and B on the same utterances. Differences are B minus A: negative where B has fewer errors."""

    a: Recognised
    b: Recognised
    errors: tuple[WordErrors, WordErrors]
    speakers: Mapping[str, str]
    num_excluded: tuple[int, int]
    """Utterances that A alone and B alone have; they are not compared."""
    pairs: MatchedPairs
    by_utterance: Comparison
    by_speaker: Comparison | None
    """None with a single speaker: there is nothing to draw."""
    changes: WordChanges
    frames: tuple[Difference, ...] = ()
    """In frame accuracy and cross-entropy; none where labels are missing or differ."""
    way: Way | None = None
    """Where a ceiling is given."""

    @property
    def num_speakers(self) -> int:
        """Speakers of the utterances that are compared."""
        return len({self.speakers[one.utt_id] for one in self.errors[0].utterances})

    def as_json(self) -> dict[str, Any]:
        """Everything that was found, by name."""
        systems = {
            name: {"label": one.label, "wer": errors.as_json()}
            for name, one, errors in zip("ab", (self.a, self.b), self.errors, strict=True)
        }
        return {
            **systems,
            "unit": self.a.scoring.unit,
            "utterances": len(self.errors[0].utterances),
            "speakers": self.num_speakers,
            "excluded": {"a": self.num_excluded[0], "b": self.num_excluded[1]},
            "delta": self.errors[1].percent - self.errors[0].percent,
            "matched_pairs": self.pairs.as_json(),
            "bootstrap_by_utterance": self.by_utterance.as_json(),
            "bootstrap_by_speaker": self.by_speaker and self.by_speaker.as_json(),
            "changes": self.changes.as_json(),
            "frames": [one.as_json() for one in self.frames],
            "way": self.way and self.way.as_json(),
            "seeds": {"a": self.a.num_seeds, "b": self.b.num_seeds},
        }


def compare_results(
    a: str, b: str | None, systems: Sequence[str], common: bool, ceiling: str | None = None
) -> Compared:
    """Read and compare two results.

    Each of `a` and `b` is a folder, or a folder, a colon and a system. `systems` names the systems of those without.
    With `common`, utterances that one of them lacks are excluded; without, they are refused. `ceiling`, written as `a`,
    is a third one, between which and A the difference is divided. InputError also where no utterance is in both, or
    where one has different references.
    """
    left, right = (read_recognised(folder, name) for folder, name in _chosen(a, b, systems))
    utt_ids = _comparable(left, right, common)
    top = None
    if ceiling is not None:
        top = read_recognised(*_folder_and_system(ceiling))
        both = set(_comparable(left, top, common))
        utt_ids = [utt_id for utt_id in utt_ids if utt_id in both]
    return _compare(left, right, utt_ids, top)


def _comparable(left: Recognised, right: Recognised, common: bool) -> list[str]:
    """Utterances of both. InputError as `compare_results`."""
    if left.scoring.rules != right.scoring.rules:
        raise InputError(f"{right.label}: expected errors counted as in {left.label}, found other rules")
    utt_ids = _shared(left, right, common)
    for utt_id in utt_ids:
        if left.refs[utt_id] != right.refs[utt_id]:
            found = f"{' '.join(left.refs[utt_id])[:60]!r} and {' '.join(right.refs[utt_id])[:60]!r}"
            raise InputError(f"{utt_id}: expected the same reference in {left.label} and {right.label}, found {found}")
    return utt_ids


def _compare(left: Recognised, right: Recognised, utt_ids: Sequence[str], top: Recognised | None) -> Compared:
    """The comparison of two systems on utterances of both, with the same references."""
    refs = {utt_id: left.refs[utt_id] for utt_id in utt_ids}
    speakers = {utt_id: left.speakers[utt_id] for utt_id in utt_ids}
    frames = common_metrics([left.frames, right.frames], refs.keys())
    first, second = (
        one.scoring.errors(refs, {utt_id: one.words[utt_id] for utt_id in utt_ids}) for one in (left, right)
    )
    words = Difference.of(first.metric, second.metric, speakers)
    return Compared(
        left,
        right,
        (first, second),
        speakers,
        (len(left.words) - len(utt_ids), len(right.words) - len(utt_ids)),
        matched_pairs(refs, first, second, left.scoring.optional),
        words.by_utterance,
        words.by_speaker,
        word_changes(refs, first, second, left.scoring.optional),
        tuple(Difference.of(a, b, speakers) for a, b in frames.values()),
        None if top is None else _way(left, right, top, refs, speakers),
    )


def _way(
    left: Recognised, right: Recognised, top: Recognised, refs: Mapping[str, list[str]], speakers: Mapping[str, str]
) -> Way:
    systems = (left, right, top)
    words = [one.mean_errors(refs) for one in systems]
    metrics = common_metrics([one.frames for one in systems], refs.keys()) | {words[0].name: words}
    return Way.of(top.label, metrics, speakers)


def _chosen(a: str, b: str | None, systems: Sequence[str]) -> list[tuple[Path, str | None]]:
    """Folder and system of each side; None: MAIN_SYSTEM, or the only one."""
    sides = [_folder_and_system(one) for one in ((a,) if b is None else (a, b))]
    if len(sides) == 1:
        if sides[0][1] is not None or len(systems) != 2:
            raise InputError(
                f"{a}: expected a second result to compare it with, or two --systems of it, "
                f"found {name_some(systems) or 'none'}"
            )
        return [(sides[0][0], system) for system in systems]
    if not systems:
        return sides
    if any(system is not None for _, system in sides) or len(systems) > 2:
        raise InputError(f"--systems: expected one or two names, or FOLDER:SYSTEM, found {name_some(systems)} with {a}")
    return [(folder, system) for (folder, _), system in zip(sides, (systems[0], systems[-1]), strict=True)]


def _folder_and_system(text: str) -> tuple[Path, str | None]:
    folder, colon, system = text.rpartition(":")
    if colon and system and not Path(text).exists():
        return Path(folder), system
    return Path(text), None


def read_recognised(folder: Path, system: str | None) -> Recognised:
    """A system's words. InputError where the folder has no scored results, or no such system."""
    if not folder.is_dir():
        raise InputError(f"{folder}: expected the folder of a run or of `asrkd decode`, found none")
    parts = _folds(folder) or [folder]
    for part in parts:
        if Record.read(part / "score") is None:
            raise InputError(
                f"{part}: expected a finished run, or speech decoded with transcripts, found no output of its scoring"
            )
    known = _systems(parts)
    if system is None:
        system = MAIN_SYSTEM if MAIN_SYSTEM in known or len(known) != 1 else known[0]
    require_system(system, dict.fromkeys(known), folder)
    scorings = [_scoring(part) for part in parts]
    seeds = [system, *_further_seeds(system, known)]
    words: list[dict[str, list[str]]] = [{} for _ in seeds]
    refs: dict[str, list[str]] = {}
    speakers: dict[str, str] = {}
    for part, scoring in zip(parts, scorings, strict=True):
        for seed, of_seed in zip(seeds, words, strict=True):
            of_seed |= _words(part / "decode" / seed / HYPOTHESES_FILE)
        refs |= references(part, SPLIT, scoring)
        speakers |= {one.utt_id: one.speaker for one in load_transcripts(RunFolders(part).manifests(SPLIT))}
    frames = read_frames(folder, seeds) if parts == [folder] else None
    return Recognised(f"{folder}:{system}", words[0], refs, speakers, scorings[0], frames, tuple(words[1:]))


def _further_seeds(system: str, known: Sequence[str]) -> list[str]:
    """The systems of other seeds than the first, as a run of several names them."""
    return [name for name in known if re.fullmatch(rf"{re.escape(system)}_seed\d+", name)]


def _folds(folder: Path) -> list[Path]:
    """The runs of a cross-validation, whose test sets are parts of one; none for a single run."""
    folds: list[Path] = []
    while (fold := folder / fold_name(len(folds))).is_dir():
        folds.append(fold)
    return folds


def _systems(parts: Sequence[Path]) -> list[str]:
    """Systems whose words every part has, in the order of its results."""
    order = list(read_object(parts[0] / "score" / RESULTS_FILE, systems=dict)["systems"])
    decoded = sorted(path.parent.name for path in (parts[0] / "decode").glob(f"*/{HYPOTHESES_FILE}"))
    names = [*(name for name in order if name in decoded), *(name for name in decoded if name not in order)]
    return [name for name in names if all((part / "decode" / name / STAMP_FILE).is_file() for part in parts)]


def _scoring(folder: Path) -> Scoring:
    """What the results of a folder count as an error."""
    record = Record.read(folder / "score")
    rules = record.options.get("scoring") if record is not None and isinstance(record.options, dict) else None
    if not rules:
        return Scoring()
    with reading(folder / "score" / STAMP_FILE, "the rules of scoring"):
        reference = REFERENCES[rules["reference"]]
        return Scoring(rules["unit"], reference, rules["folds"], frozenset(rules["optional"]))


def _words(path: Path) -> dict[str, list[str]]:
    content = read_object(path, words=dict)
    with reading(path, "hypotheses"):
        return {utt_id: text.split() for utt_id, text in content["words"].items()}


def _shared(left: Recognised, right: Recognised, common: bool) -> list[str]:
    """Utterances of both. InputError if there are none, or if one side has others and these are not to be excluded."""
    shared = [utt_id for utt_id in left.refs if utt_id in right.words]
    if not shared:
        raise InputError(
            f"{left.label} and {right.label}: expected the same utterances, found none in both "
            f"(the first are {next(iter(left.words), 'none')} and {next(iter(right.words), 'none')})"
        )
    others = [
        [utt_id for utt_id in one.words if utt_id not in other.words] for one, other in ((left, right), (right, left))
    ]
    if any(others) and not common:
        side, missing = (left, others[0]) if others[0] else (right, others[1])
        raise InputError(
            f"{name_some(missing)}: expected the same utterances in both, found {len(missing)} in {side.label} alone "
            f"({len(shared)} in both): --common compares these"
        )
    return shared
