"""Tables of decoding: the scales that were tuned, and which words were confused, inserted and deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from asrkd.report.systems import error_unit, flags, metrics
from asrkd.report.tables import Row, Table, count, enumerate_words, number, number_plain

SCALE_NAMES = {"acoustic_scale": "acoustic scale", "lm_scale": "LM scale", "insertion_score": "insertion score"}
SHOWN_CONFUSIONS = 20
# On a hundred words, an error rate of 10% has a standard error of 3 points.
FEW_WORDS = 100


def tuning_table(results: Row) -> Table | None:
    """Development error rate over acoustic scale, LM scale and insertion score, the best first."""
    tried = results.get("tuning")
    if not tried:
        return None
    rows = sorted(tried, key=lambda row: float(row["wer"]))
    cells = tuple(
        (
            str(row.get("system") or ""),
            number_plain(row.get("acoustic_scale")),
            number_plain(row.get("lm_scale")),
            number_plain(row.get("insertion_score")),
            number(row.get("wer"), 2),
            "chosen" if row.get("chosen") else "",
        )
        for row in rows
    )
    rate = f"dev {metrics(results)['wer'].label} %"
    headers = ("system", *SCALE_NAMES.values(), rate, "note")
    caption = "Decoding scales on the development set"
    strong, note = flags(rows, "chosen"), scales_added_text(results) or ""
    return Table(caption, headers, cells, "lrrrrl", strong=strong, note=note).without_empty_columns()


def scales_at_grid_end(rows: Sequence[Row]) -> list[str]:
    """Names of the chosen scales that lie at an end of their grid, where a wider grid may do better.

    `rows` are those of `tuning` in results.json, one per grid point; a grid of one value has no end.
    """
    at_end = []
    for row in rows:
        for scale in SCALE_NAMES if row.get("chosen") else ():
            grid = {float(one[scale]) for one in rows if one.get(scale) is not None}
            if len(grid) > 1 and float(row[scale]) in (min(grid), max(grid)):
                at_end.append(scale)
    return list(dict.fromkeys(at_end))


def grid_end_text(results: Row) -> str | None:
    """A warning about chosen scales at an end of their grid, None where there is none."""
    rows = results.get("tuning") or ()
    stated = results.get("scales_at_grid_end")
    names = scales_at_grid_end(rows) if stated is None else stated
    if not names:
        return None
    chosen: Row = next((row for row in rows if row.get("chosen")), {})
    shown = [f"{SCALE_NAMES[name]} {number_plain(chosen.get(name))}" for name in names]
    verb, grids = ("lies", "its grid") if len(names) == 1 else ("lie", "their grids")
    return f"Tuned {enumerate_words(shown)} {verb} at an end of {grids}; a wider grid may give fewer errors."


def scales_added_text(results: Row) -> str | None:
    """Which values were added to the grids because the best ones were at their ends, None where there are none."""
    shown = [
        f"{SCALE_NAMES[name]} {', '.join(map(number_plain, values))}"
        for name, values in (results.get("scales_added") or {}).items()
    ]
    return f"Added to the grids, because the best values were at their ends: {'; '.join(shown)}." if shown else None


def scales_flat_text(results: Row) -> str | None:
    """A warning that the development set does not choose between the scales, None where it does."""
    rows = results.get("tuning") or ()
    if not results.get("scales_flat") or not rows:
        return None
    rate = f"{number(rows[0].get('wer'), 2)}%"
    label = metrics(results)["wer"].label
    return f"All {len(rows)} settings of the scales give the same development {label}, {rate}: it chooses none of them."


def few_words_text(results: Row) -> str | None:
    """A warning that the scales were tuned on few words, None where they were not tuned or on enough of them."""
    num_words = ((results.get("corpus") or {}).get("dev") or {}).get("words")
    if num_words is None or num_words >= FEW_WORDS or len(results.get("tuning") or ()) < 2:
        return None
    unit = error_unit(results)
    return (
        f"The scales were tuned on {num_words} {unit}s; fewer than {FEW_WORDS} hardly tell good scales from bad ones."
    )


def scales_texts(results: Row) -> list[str]:
    """Sentences on the choice of the scales: what was added to the grids, and what a reader should know."""
    texts = scales_added_text(results), grid_end_text(results), scales_flat_text(results), few_words_text(results)
    return [text for text in texts if text]


def confusion_tables(results: Row) -> list[Table]:
    """The most frequent substitutions, insertions and deletions, one table of each for every system."""
    confusions = results.get("confusions")
    if not confusions:
        return []
    by_system = confusions if isinstance(confusions, Mapping) else {"": confusions}
    tables = []
    for system, rows in by_system.items():
        suffix = f" by {system}" if system else ""
        ranked = sorted(rows, key=lambda row: -int(row[2]))
        substituted = [(ref, hyp, count(n)) for ref, hyp, n in ranked if ref is not None and hyp is not None]
        inserted = [(hyp, count(n)) for ref, hyp, n in ranked if ref is None]
        deleted = [(ref, count(n)) for ref, hyp, n in ranked if hyp is None]
        tables += [
            _top(f"Substitutions{suffix}", ("reference", "recognised", "times"), substituted),
            _top(f"Insertions{suffix}", ("inserted", "times"), inserted),
            _top(f"Deletions{suffix}", ("deleted", "times"), deleted),
        ]
    return [table for table in tables if table.rows]


def _top(caption: str, headers: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    left = len(rows) - SHOWN_CONFUSIONS
    note = f"{left} rarer ones are not shown." if left > 0 else ""
    return Table(caption, headers, tuple(rows[:SHOWN_CONFUSIONS]), "l" * (len(headers) - 1) + "r", note=note)
