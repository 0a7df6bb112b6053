"""A comparison of two systems as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asrkd.report.fold_tables import FEW_SPEAKERS
from asrkd.report.markdown import plain_table, wrapped
from asrkd.report.systems import ERROR_RATES, METRICS
from asrkd.report.tables import MISSING, Row, Table, count, number, p_value, span

SHOWN_CHANGES = 10
NO_WORD = "—"
SIGNIFICANCE = 0.05


def comparison_text(found: Row) -> str:
    """The text of what `asrkd.recipe.compared.Compared.as_json` has."""
    unit, rate = str(found["unit"]), ERROR_RATES[str(found["unit"])]
    lines = [plain_table(_systems(found, rate)), _where(found), "", plain_table(_tests(found)), *_cautions(found)]
    lines += _frame_lines(found)
    lines += _way_lines(found)
    if max(found["seeds"].values()) > 1 and (found["frames"] or found["way"]):
        lines += [f"Frames and the way are means over seeds (A {found['seeds']['a']}, B {found['seeds']['b']})."]
    lines += ["", _counts(found["changes"], unit)]
    for name, text in (("lost", "Right in A, wrong in B"), ("gained", "Wrong in A, right in B")):
        table = _changes(found["changes"][name], name, text)
        lines += ["", f"{table.caption} ({NO_WORD} is no word):", plain_table(table)] if table.rows else []
        lines += [table.note] if table.note else []
    return "\n".join(part.rstrip() for line in lines for part in wrapped(line) or [""])


def _systems(found: Row, rate: str) -> Table:
    rows = []
    for name in ("a", "b"):
        errors = found[name]["wer"]
        counts = (errors["ins"], errors["del"], errors["sub"], errors["words"])
        cells = (number(errors["percent"], 2), span(errors["ci95"], 2), *map(count, counts))
        rows.append((name.upper(), found[name]["label"], *cells))
    headers = ("", "system", f"{rate} %", "95% interval", "ins", "del", "sub", f"{found['unit']}s")
    return Table("Systems", headers, tuple(rows), "llrrrrrr")


def _where(found: Row) -> str:
    left_aside = [f"{count(found['excluded'][name])} that {name.upper()} alone has" for name in ("a", "b")]
    chosen = [text for text, name in zip(left_aside, ("a", "b"), strict=True) if found["excluded"][name]]
    excluded = f", without {' and '.join(chosen)}" if chosen else ""
    speakers = "one speaker" if found["speakers"] == 1 else f"{count(found['speakers'])} speakers"
    return f"{count(found['utterances'])} utterances of {speakers}{excluded}."


def _tests(found: Row) -> Table:
    pairs, delta = found["matched_pairs"], number(found["delta"], 2, signed=True)
    rows = [("matched pairs (MAPSSWE)", delta, MISSING, p_value(pairs["p"]), _verdict(pairs["p"], found["delta"]))]
    for name, key in (
        ("bootstrap by utterance", "bootstrap_by_utterance"),
        ("bootstrap by speaker", "bootstrap_by_speaker"),
    ):
        row = found[key]
        if row is not None:
            excludes_zero = row["ci95"][0] > 0 or row["ci95"][1] < 0
            verdict = _verdict(0.0 if excludes_zero else 1.0, found["delta"])
            rows.append((name, delta, span(row["ci95"], 2, signed=True), p_value(row["p"]), verdict))
    headers = ("test", "B − A, points", "95% interval", "p", "result")
    return Table("Tests", headers, tuple(rows), "lrrrl")


def _frame_lines(found: Row) -> list[str]:
    """Frame accuracy and cross-entropy of both, where their labels are the same."""
    rows = []
    for row in found["frames"]:
        shape = METRICS[row["metric"]]
        shown = [number(row[side], shape.digits, shape.scale) for side in ("a", "b")]
        drawn = [row["bootstrap_by_utterance"], row["bootstrap_by_speaker"]]
        spans = [span(one["ci95"], shape.digits, shape.scale, signed=True) if one else MISSING for one in drawn]
        delta = number(drawn[0]["delta"], shape.digits, shape.scale, signed=True)
        rows.append((f"{shape.label}, {shape.level_unit.strip()}", *shown, delta, *spans))
    headers = ("frames", "A", "B", "B − A", "95% by utterance", "95% by speaker")
    return ["", plain_table(Table("Frames", headers, tuple(rows), "lrrrrr"))] if rows else []


def _way_lines(found: Row) -> list[str]:
    """The share of the way from A to the ceiling that B goes."""
    way = found["way"]
    if way is None:
        return []
    rows, reasons = [], []
    for row in way["shares"]:
        shape = METRICS[row["metric"]]
        label = ERROR_RATES[str(found["unit"])] if row["metric"] == "wer" else shape.label
        levels = [number(row[side], shape.digits, shape.scale) for side in ("a", "b", "ceiling")]
        of_utterances, of_speakers = row["by_utterance"], row["by_speaker"] or {}
        value = MISSING if of_utterances["value"] is None else f"{number(of_utterances['value'], 0, 100)}%"
        spans = [span(one.get("ci95"), 0, 100) for one in (of_utterances, of_speakers)]
        rows.append((label, *levels, value, *spans))
        reasons += [f"{label}: {of_utterances['reason']}."] if of_utterances["reason"] else []
    headers = ("the way", "A", "B", "ceiling", "share", "95% by utterance, %", "95% by speaker, %")
    table = plain_table(Table("Way", headers, tuple(rows), "lrrrrrr"))
    missing = [] if len(rows) > 1 else ["Frames are not compared: the three have other labels (--labels-from)."]
    return ["", f"The share of the way from A to {way['ceiling']} that B goes:", table, *reasons, *missing]


def _verdict(p: float, delta: float) -> str:
    if p >= SIGNIFICANCE or delta == 0:
        return "not significant"
    return "B better" if delta < 0 else "A better"


def _cautions(found: Row) -> list[str]:
    pairs = found["matched_pairs"]
    deviation = f"{number(pairs['mean'], 3, signed=True)} ± {number(pairs['deviation'], 3)}"
    lines = [f"Matched pairs: {count(pairs['segments'])} segments with errors, {deviation} errors in each."]
    speakers = found["speakers"]
    if speakers == 1:
        lines.append("One speaker: no interval shows how other speakers would differ.")
    elif speakers < FEW_SPEAKERS:
        lines.append(
            f"Caution: {speakers} speakers only: intervals are narrower than they should be and not to be trusted."
        )
    return lines


def _counts(changes: Mapping[str, Any], unit: str) -> str:
    inserted = changes["inserted"]
    return (
        f"Of the reference's {unit}s, {count(changes['both_right'])} are right in both, "
        f"{count(changes['both_wrong'])} wrong in both, {count(changes['right_to_wrong'])} right in A alone and "
        f"{count(changes['wrong_to_right'])} right in B alone. "
        f"Inserted: {count(inserted['a'])} by A, {count(inserted['b'])} by B."
    )


def _changes(rows: Sequence[Row], name: str, caption: str) -> Table:
    other = "in B" if name == "lost" else "in A"
    cells = tuple(
        (row["ref"] or NO_WORD, row["hyp"] or NO_WORD, count(row["times"]), ", ".join(row["utt_ids"]))
        for row in rows[:SHOWN_CHANGES]
    )
    more = len(rows) - SHOWN_CHANGES
    note = f"{count(more)} more kinds are in --json." if more > 0 else ""
    return Table(caption, ("reference", other, "times", "such as"), cells, "llrl", note=note)
