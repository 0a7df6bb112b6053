"""Tables of a cross-validation over speakers: its folds, and each speaker of the whole corpus."""

from __future__ import annotations

from asrkd.report.systems import error_unit, metrics
from asrkd.report.tables import MISSING, Row, Table, count, number, number_plain

# Of blocks, from which percentile intervals are about as wide as they should be.
FEW_SPEAKERS = 12
COMPARED = ("distilled", ("baseline", "baseline_dropout", "ensemble", "teacher"))


def folds_table(results: Row) -> Table | None:
    """Who each fold tests and trains on, and every system's error rate there."""
    folds = results.get("folds")
    if not folds:
        return None
    systems = list(dict.fromkeys(name for fold in folds for name in fold["systems"]))
    rate = metrics(results)["wer"].label
    rows = tuple(
        (
            str(fold["fold"]),
            *(count(len(fold[f"{split}_speakers"])) for split in ("test", "dev", "train")),
            number(fold["train_hours"], 2),
            count(fold["words"]),
            ", ".join(number_plain(value) for value in fold["scales"].values()) or MISSING,
            *(number((fold["systems"].get(name) or {}).get("wer"), 2) for name in systems),
        )
        for fold in folds
    )
    headers = (
        *("fold", "test speakers", "dev speakers", "training speakers", "hours trained on"),
        *(f"{error_unit(results)}s tested", "scales", *(f"{name}, {rate} %" for name in systems)),
    )
    scales = "Scales: of acoustic scores, of the language model, and the insertion score, tuned in each fold."
    note = f"{scales} {speakers_text(results)}".strip()
    return Table("Folds", headers, rows, "l" + "r" * (len(headers) - 1), note=note)


def speakers_table(results: Row) -> Table | None:
    """Every speaker's error rate by system."""
    speakers = results.get("speakers")
    if not speakers:
        return None
    systems = list(speakers[0]["errors"])
    rate = metrics(results)["wer"].label
    rows = tuple(
        (
            str(row["speaker"]),
            str(row["fold"]),
            count(row["words"]),
            *(_percent(row["errors"][name], row["words"]) for name in systems),
        )
        for row in speakers
    )
    headers = ("speaker", "fold", f"{error_unit(results)}s", *(f"{name}, {rate} %" for name in systems))
    return Table("Speakers", headers, rows, "ll" + "r" * (len(headers) - 2))


def speakers_text(results: Row) -> str:
    """With how many speakers the student makes fewer errors than the others; empty without speakers."""
    rows, (student, others) = results.get("speakers") or (), COMPARED
    shown = []
    for other in others:
        errors = [row["errors"] for row in rows if {student, other} <= set(row["errors"])]
        pairs = [(one[student], one[other]) for one in errors]
        if pairs:
            fewer, more = sum(a < b for a, b in pairs), sum(a > b for a, b in pairs)
            shown.append(f"{fewer} and more with {more} than {other}")
    return f"Of {len(rows)} speakers, {student} makes fewer errors with {', '.join(shown)}." if shown else ""


def few_speakers_text(results: Row) -> str | None:
    """A warning that few speakers make intervals too narrow, None where there are enough or utterances are drawn."""
    number_of = len(results.get("speakers") or ())
    if not 0 < number_of < FEW_SPEAKERS:
        return None
    return f"Intervals are over {number_of} speakers only, and narrower than they should be."


def _percent(errors: int, words: int) -> str:
    return number(100.0 * errors / words, 2) if words else MISSING
