"""What a results dict says of its systems: role, test sets, WER, gap; the forms DESIGN §5 allows made one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from asrkd.errors import InputError

ROLES = ("baseline", "distilled", "ensemble", "teacher")
REQUIRED = ("recipe", "command", "git_sha", "config_sha", "seed", "device", "systems")
ONLY_TEST_SET = "test"


@dataclass(frozen=True)
class Metric:
    """How a metric is shown: the number kept times `scale`, in `unit`."""

    label: str
    unit: str
    scale: float
    digits: int
    higher_is_better: bool


METRICS = {
    "frame_accuracy": Metric("frame accuracy", "points", 100.0, 2, True),
    "cross_entropy": Metric("cross-entropy", "nats/frame", 1.0, 4, False),
    "wer": Metric("WER", "points", 1.0, 2, False),
}

ERROR_RATES = {"word": "WER", "phone": "PER"}


def error_unit(results: Mapping[str, Any]) -> str:
    """What errors are counted in: word or phone."""
    return str(results.get("unit", "word"))


def metrics(results: Mapping[str, Any]) -> Mapping[str, Metric]:
    """METRICS as these results call them: an error rate of phones is a PER."""
    return METRICS | {"wer": replace(METRICS["wer"], label=ERROR_RATES[error_unit(results)])}


@dataclass(frozen=True)
class Gap:
    """Share of the ensemble's gain over the baseline the student kept; None with the reason if undefined."""

    metric: str
    value: float | None
    ci95: tuple[float, float] | None
    reason: str | None


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
    """InputError naming what DESIGN §5 requires and this results dict lacks."""
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


def rtf(system: Mapping[str, Any], test_set: str) -> float | None:
    """Real-time factor of decoding a test set."""
    value = system.get("rtf")
    return finite(value.get(test_set) if isinstance(value, Mapping) else value)


def main_system(results: Mapping[str, Any], wanted: str) -> tuple[str, Mapping[str, Any]] | None:
    """The system of a role for the headline: the one of that very name, else the first of the role."""
    systems = results["systems"]
    if wanted in systems:
        return wanted, systems[wanted]
    return next(((name, system) for name, system in systems.items() if role(name, system) == wanted), None)


def gaps(results: Mapping[str, Any]) -> list[Gap]:
    """Gap recovered, one entry a metric."""
    return [_gap(metric, value) for metric, value in (results.get("gap_recovered") or {}).items()]


def comparison_verdict(row: Mapping[str, Any]) -> str:
    """Which of the two a comparison favours, or that its interval includes zero."""
    metric = METRICS.get(row["metric"])
    ends = interval(row.get("ci95"))
    if metric is None or ends is None:
        return ""
    if ends[0] <= 0 <= ends[1]:
        return "not separated"
    a_is_better = (ends[0] > 0) == metric.higher_is_better
    return f"{row['a'] if a_is_better else row['b']} better"


def chosen_rows(rows: Iterable[Mapping[str, Any]]) -> list[bool]:
    """Which rows a sweep or tuning marks as chosen."""
    return [bool(row.get("chosen")) for row in rows]


def _wer_by_set(system: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    errors = system.get("wer")
    if not errors:
        return {}
    return {ONLY_TEST_SET: errors} if "percent" in errors else errors


def _count(value: Any) -> int | None:
    return None if value is None else int(value)


def _gap(metric: str, value: Any) -> Gap:
    if isinstance(value, Mapping):
        return Gap(metric, finite(value.get("value")), interval(value.get("ci95")), value.get("reason"))
    return Gap(metric, finite(value), None, None)
