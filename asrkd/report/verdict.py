"""What a run shows, in sentences: distilled student against baselines and teachers, the gap recovered, caveats."""

from __future__ import annotations

from collections.abc import Sequence

from asrkd.report.decoding_tables import few_words_text, grid_end_text, scales_flat_text
from asrkd.report.fold_tables import few_speakers_text
from asrkd.report.run_tables import revisions_text
from asrkd.report.systems import (
    NOT_SIGNIFICANT,
    Gap,
    Metric,
    called,
    comparison_verdict,
    error_unit,
    gaps,
    level,
    main_system,
    main_teacher,
    metrics,
    rtf,
    strongest_baseline,
    strongest_gaps,
    test_sets,
)
from asrkd.report.tables import Row, enumerate_words, number, span
from asrkd.report.training_tables import weak_student_text

# The first sentence has every metric, the others only these two: the verdict stays short.
LEAD_METRICS = ("wer", "frame_accuracy", "cross_entropy")
SPOKEN_METRICS = ("wer", "frame_accuracy")
# Of the teachers' parameters; a student with more is not called small.
SMALL = 0.9
BETTER, WORSE = "significantly better than", "significantly worse than"


def verdict(results: Row) -> tuple[str, ...]:
    """Short sentences, the most important first; none without a baseline and a distilled student.

    A difference is called significant where its paired 95% interval excludes zero.
    """
    student, baseline = main_system(results, "distilled"), main_system(results, "baseline")
    if student is None or baseline is None:
        return ()
    name, first = student[0], baseline[0]
    main, *others = _compared(results, name, first)
    subject = f"The {name} student{_size_note(results, name)}"
    lead = _against(results, name, main, subject, LEAD_METRICS, with_levels=True)
    sentences = [
        lead or _levels_only(results, name, first),
        _gap_sentence(results, gaps(results)),
        _gap_sentence(results, strongest_gaps(results)),
        *(_against(results, name, other, "It") for other in others),
        _seeds_sentence(results, name),
    ]
    return tuple(sentence for sentence in sentences if sentence)


def caveats(results: Row) -> tuple[str, ...]:
    """What a reader should know before trusting the verdict: a weak student, scales, few speakers, revisions."""
    tuning = grid_end_text(results), scales_flat_text(results), few_words_text(results)
    found = (weak_student_text(results), *tuning, few_speakers_text(results), revisions_text(results))
    return tuple(text for text in found if text)


def _compared(results: Row, name: str, baseline: str) -> list[str]:
    """Systems that the student is compared with: the baseline, the strongest one, its teachers, then further ones."""
    listed = [str(row["b"]) for row in results.get("comparisons") or () if row["a"] == name]
    teacher, strongest = main_teacher(results), strongest_baseline(results)
    wanted = [baseline, *([strongest] if strongest else []), *([teacher[0]] if teacher else []), *listed]
    return [other for other in dict.fromkeys(wanted) if other in listed or other == baseline]


def _size_note(results: Row, name: str) -> str:
    """What a student that is smaller than its teachers saves: parameters, and time to decode where it is known."""
    student, teacher = results["systems"][name], main_teacher(results)
    if teacher is None or not (student.get("parameters") and teacher[1].get("parameters")):
        return ""
    ours, theirs = int(student["parameters"]), int(teacher[1]["parameters"])
    if ours > SMALL * theirs:
        return ""
    share = f"{100 * ours / theirs:.0f}% of {called(teacher[0])}'s parameters"
    rtfs = [rtf(system, test_sets(results)[0]) for system in (student, teacher[1])]
    return f" ({share})" if None in rtfs else f" ({share}, RTF {number(rtfs[0], 3)} against {number(rtfs[1], 3)})"


def _against(
    results: Row,
    name: str,
    other: str,
    subject: str,
    spoken: Sequence[str] = SPOKEN_METRICS,
    with_levels: bool = False,
) -> str | None:
    """One sentence on the student against another system, None without a comparison."""
    outcomes: dict[str, list[str]] = {BETTER: [], WORSE: [], NOT_SIGNIFICANT: []}
    for metric in spoken:
        row = _comparison(results, name, other, metric)
        result = comparison_verdict(row) if row else ""
        if row is None or not result:
            continue
        outcome = NOT_SIGNIFICANT if result == NOT_SIGNIFICANT else BETTER if result == f"{name} better" else WORSE
        outcomes[outcome].append(_difference(results, metric, row, with_levels))
    if not any(outcomes.values()):
        return None
    clauses = [
        f"{outcome} {_called(results, other)} in {enumerate_words(outcomes[outcome])}"
        for outcome in (BETTER, WORSE)
        if outcomes[outcome]
    ]
    in_doubt = enumerate_words(outcomes[NOT_SIGNIFICANT])
    if not clauses:
        return f"{subject} does not differ significantly from {_called(results, other)} in {in_doubt}."
    tail = f"; the difference in {in_doubt} is not significant" if in_doubt else ""
    return f"{subject} is {' and '.join(clauses)}{tail}."


def _called(results: Row, name: str) -> str:
    """A system within a sentence."""
    return f"{name}, the strongest baseline," if name == strongest_baseline(results) else called(name)


def _comparison(results: Row, a: str, b: str, metric: str) -> Row | None:
    """The comparison of two systems in a metric, on the first test set."""
    shown = (None, test_sets(results)[0])
    rows = results.get("comparisons") or ()
    wanted = (a, b, metric)
    return next((r for r in rows if (r["a"], r["b"], r["metric"]) == wanted and r.get("test_set") in shown), None)


def _difference(results: Row, metric: str, row: Row, with_levels: bool) -> str:
    """`WER (5.95% against 7.20%, −1.25 points [−2.24, −0.27])`."""
    shape = metrics(results)[metric]
    delta = number(row["delta"], shape.digits, shape.scale, signed=True)
    bounds = span(row["ci95"], shape.digits, shape.scale, signed=True)
    # A unit longer than a sign stands once, with the difference.
    bare = shape.level_unit != "%"
    levels = [_level(results, str(row[side]), metric, shape, bare) for side in ("a", "b")] if with_levels else []
    shown = f"{levels[0]} against {levels[1]}, " if levels and all(levels) else ""
    return f"{shape.label} ({shown}{delta} {shape.unit} {bounds})"


def _level(results: Row, name: str, metric: str, shape: Metric, bare: bool = False) -> str:
    if name not in results["systems"]:
        return ""
    value, _ = level(results, name, metric)
    unit = "" if bare else shape.level_unit
    return "" if value is None else number(value, shape.digits, shape.scale) + unit


def _levels_only(results: Row, name: str, baseline: str) -> str | None:
    """The main figures, where no comparison shows what their differences are worth."""
    metric = next((metric for metric in LEAD_METRICS if level(results, name, metric)[0] is not None), None)
    if metric is None:
        return None
    shape = metrics(results)[metric]
    teacher = main_teacher(results)
    systems = [name, baseline, *([teacher[0]] if teacher else [])]
    shown = [f"{one} {value}" for one in systems if (value := _level(results, one, metric, shape))]
    rate = f"{error_unit(results)} error rate" if metric == "wer" else shape.label
    return f"{rate.capitalize()}: {', '.join(shown)}; no comparison shows whether the differences are significant."


def _gap_sentence(results: Row, shown: Sequence[Gap]) -> str | None:
    """Which share of the teachers' gain over a baseline the student has, and in which metrics it is not determined."""
    shapes = metrics(results)
    known: list[str] = []
    unknown: list[str] = []
    for gap in shown:
        label = shapes[gap.metric].label if gap.metric in shapes else gap.metric
        if gap.determined:
            whole = "" if known else f" of the {gap.teacher}'s gain over {called(gap.baseline)}"
            share = f"{number(gap.value, 0, 100)}% {span(gap.ci95, 0, 100)}"
            negative = gap.value is not None and gap.value < 0
            known.append(f"none{whole} in {label} ({share})" if negative else f"{share}{whole} in {label}")
        else:
            unknown.append(label)
    against = f" against {shown[0].baseline}" if unknown and not known and shown[0].baseline != "baseline" else ""
    in_doubt = f"the gap recovered{against} is not determined in {enumerate_words(unknown)}" if unknown else ""
    if known:
        return f"It recovers {enumerate_words(known)}{'; ' if in_doubt else ''}{in_doubt}."
    return f"{in_doubt[0].upper()}{in_doubt[1:]}." if in_doubt else None


def _seeds_sentence(results: Row, name: str) -> str | None:
    """Which figures are means: the tables show single seeds."""
    _, seeds = level(results, name, "frame_accuracy")
    return f"Figures of students are means of {seeds} seeds." if seeds > 1 else None
