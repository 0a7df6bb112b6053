"""The systems of a results dict: role, test sets, error rates, intervals, gap recovered (docs/file_formats.md)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from asrkd.errors import InputError

ROLES = ("baseline", "distilled", "ensemble", "teacher")
REQUIRED = ("recipe", "command", "git_sha", "config_sha", "seed", "device", "systems")
ONLY_TEST_SET = "test"
# The one teacher of a run without an ensemble.
TEACHER = "teacher"
NO_INTERVAL = "no interval was computed"
NOT_SIGNIFICANT = "not significant"


@dataclass(frozen=True)
class Metric:
    """How a metric is shown: the number of results.json times `scale`, differences in `unit`."""

    label: str
    unit: str
    scale: float
    digits: int
    higher_is_better: bool

    @property
    def level_unit(self) -> str:
        """Unit of a value, where `unit` is that of a difference."""
        return "%" if self.unit == "points" else f" {self.unit}"

    @property
    def axis_label(self) -> str:
        """Label of an axis."""
        return f"{self.label}, {self.level_unit.strip()}"

    @property
    def title(self) -> str:
        """The label at the beginning of a heading."""
        return self.label[0].upper() + self.label[1:]


METRICS = {
    "frame_accuracy": Metric("frame accuracy", "points", 100.0, 2, True),
    "cross_entropy": Metric("cross-entropy", "nats/frame", 1.0, 4, False),
    "wer": Metric("WER", "points", 1.0, 2, False),
}

ERROR_RATES = {"word": "WER", "phone": "PER"}


def error_unit(results: Mapping[str, Any]) -> str:
    """What errors are counted in: word or phone."""
    return str(results.get("unit", "word"))


def resampled(results: Mapping[str, Any]) -> str:
    """What the bootstrap behind the intervals draws: utterances or speakers."""
    return str(results.get("resampled", "utterances"))


def metrics(results: Mapping[str, Any]) -> Mapping[str, Metric]:
    """METRICS as these results call them: an error rate of phones is a PER."""
    return METRICS | {"wer": replace(METRICS["wer"], label=ERROR_RATES[error_unit(results)])}


@dataclass(frozen=True)
class Gap:
    """Share of the teachers' gain over a baseline that the student has."""

    metric: str
    teacher: str
    """What has the gain: the ensemble, or a single teacher."""
    baseline: str
    value: float | None
    ci95: tuple[float, float] | None
    reason: str | None
    """Why there is no value or no finite interval."""

    @property
    def determined(self) -> bool:
        """True where the share has a finite interval: without one, the share may be anything (Fieller 1954)."""
        return self.value is not None and self.ci95 is not None

    @property
    def obstacle(self) -> str:
        """Why the share is not determined; empty where it is."""
        if self.determined:
            return ""
        no_gain = f"the {self.teacher} is no better than {called(self.baseline)}"
        return self.reason or (no_gain if self.value is None else NO_INTERVAL)


@dataclass(frozen=True)
class Wer:
    """Word errors of one system on one test set; percent of `words`."""

    percent: float
    insertions: int | None
    deletions: int | None
    substitutions: int | None
    words: int | None
    ci95: tuple[float, float] | None


def require_keys(results: Mapping[str, Any]) -> None:
    """InputError that names the missing keys among those that are required (docs/file_formats.md)."""
    missing = [key for key in REQUIRED if key not in results]
    if missing:
        raise InputError(f"results.json: expected {', '.join(REQUIRED)}, found no {', '.join(missing)}")


def role(name: str, system: Mapping[str, Any]) -> str:
    """baseline, distilled, ensemble, teacher or other: decides the colour and the emphasis of a system."""
    stated = system.get("role")
    if stated is not None:
        return str(stated)
    return next((role for role in ROLES if name.startswith(role)), "other")


def finite(value: Any) -> float | None:
    """`value` as a float, None when it is missing or not finite."""
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def interval(value: Any) -> tuple[float, float] | None:
    """A pair of finite floats, or None."""
    if value is None:
        return None
    low, high = (finite(end) for end in value)
    return None if low is None or high is None else (low, high)


def test_sets(results: Mapping[str, Any]) -> list[str]:
    """Names of the test sets that any system was scored on, in order of first mention."""
    names: dict[str, None] = {}
    for system in results["systems"].values():
        names.update(dict.fromkeys(_wer_by_set(system)))
    return list(names) or [ONLY_TEST_SET]


def frame_interval(system: Mapping[str, Any], metric: str) -> tuple[float, float] | None:
    """The 95% interval of frame_accuracy or cross_entropy on the test set, where one was computed."""
    return interval(system.get(f"{metric}_ci95"))


def level(results: Mapping[str, Any], name: str, metric: str) -> tuple[float | None, int]:
    """A system's value in a metric on the first test set, averaged over its seeds; and how many seeds that is."""
    by_seed = [
        value
        for row in results.get("seeds") or ()
        if row["system"] == name and (value := finite(row.get(metric))) is not None
    ]
    if by_seed:
        return statistics.fmean(by_seed), len(by_seed)
    system = results["systems"][name]
    if metric != "wer":
        return finite(system.get(metric)), 1
    errors = wer(system, test_sets(results)[0])
    return (errors.percent if errors else None), 1


def wer(system: Mapping[str, Any], test_set: str) -> Wer | None:
    """Word errors on a test set, None when the system was not decoded on it."""
    errors = _wer_by_set(system).get(test_set)
    if errors is None:
        return None
    percent = finite(errors["percent"])
    if percent is None:
        return None
    insertions, deletions, substitutions, words = (_count(errors.get(key)) for key in ("ins", "del", "sub", "words"))
    return Wer(percent, insertions, deletions, substitutions, words, interval(errors.get("ci95")))


def cer(system: Mapping[str, Any], test_set: str) -> float | None:
    """Character error rate in percent on a test set, None where it was not counted."""
    return finite(_by_set(system.get("cer")).get(test_set, {}).get("percent"))


def shows_characters(results: Mapping[str, Any]) -> bool:
    """Whether tables have the character error rate: for texts of a script without spaces, where words mean little."""
    return bool(results.get("unspaced"))


def rtf(system: Mapping[str, Any], test_set: str) -> float | None:
    """Real-time factor of decoding a test set."""
    value = system.get("rtf")
    return finite(value.get(test_set) if isinstance(value, Mapping) else value)


def main_system(results: Mapping[str, Any], wanted: str) -> tuple[str, Mapping[str, Any]] | None:
    """The system of a role for the headline: the one that is named after the role, else the first of the role."""
    systems = results["systems"]
    if wanted in systems:
        return wanted, systems[wanted]
    return next(((name, system) for name, system in systems.items() if role(name, system) == wanted), None)


def main_teacher(results: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """The system that the student learns from: the ensemble, or the teacher of a run with a single one."""
    if TEACHER in results["systems"]:
        return TEACHER, results["systems"][TEACHER]
    return main_system(results, "ensemble")


def teacher_name(results: Mapping[str, Any]) -> str:
    """The same in a sentence; the ensemble where there is neither."""
    found = main_teacher(results)
    return found[0] if found else "ensemble"


def strongest_baseline(results: Mapping[str, Any]) -> str | None:
    """The baseline that is best on the development set, where that is not the plain one."""
    name = (results.get("strongest_baseline") or {}).get("system")
    return None if name in (None, "baseline") else str(name)


def called(name: str) -> str:
    """A system within a sentence."""
    return f"the {name}" if name in ("baseline", "ensemble", TEACHER) else name


def gaps(results: Mapping[str, Any]) -> list[Gap]:
    """Gap recovered against the baseline, one entry per metric."""
    teacher = teacher_name(results)
    return [_gap(metric, value, teacher, "baseline") for metric, value in (results.get("gap_recovered") or {}).items()]


def strongest_gaps(results: Mapping[str, Any]) -> list[Gap]:
    """Gap recovered against the strongest baseline, one entry per metric; none where that is the plain one."""
    name, teacher = strongest_baseline(results), teacher_name(results)
    if name is None:
        return []
    found = results["strongest_baseline"].get("gap_recovered") or {}
    return [_gap(metric, value, teacher, name) for metric, value in found.items()]


def comparison_verdict(row: Mapping[str, Any]) -> str:
    """The better of the two systems, or NOT_SIGNIFICANT where the interval includes zero; empty without interval."""
    metric = METRICS.get(row["metric"])
    ends = interval(row.get("ci95"))
    if metric is None or ends is None:
        return ""
    if ends[0] <= 0 <= ends[1]:
        return NOT_SIGNIFICANT
    a_is_better = (ends[0] > 0) == metric.higher_is_better
    return f"{row['a'] if a_is_better else row['b']} better"


def flags(rows: Iterable[Mapping[str, Any]], key: str) -> tuple[bool, ...]:
    """Which rows have a flag, such as chosen."""
    return tuple(bool(row.get(key)) for row in rows)


def _wer_by_set(system: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    return _by_set(system.get("wer"))


def _by_set(errors: Mapping[str, Any] | None) -> Mapping[str, Mapping[str, Any]]:
    if not errors:
        return {}
    return {ONLY_TEST_SET: errors} if "percent" in errors else errors


def _count(value: Any) -> int | None:
    return None if value is None else int(value)


def _gap(metric: str, value: Any, teacher: str, baseline: str) -> Gap:
    if isinstance(value, Mapping):
        ends = interval(value.get("ci95"))
        return Gap(metric, teacher, baseline, finite(value.get("value")), ends, value.get("reason"))
    return Gap(metric, teacher, baseline, finite(value), None, None)
