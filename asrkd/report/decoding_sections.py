"""The sections on decoding: scales, confusions, and the worst utterances to listen to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from asrkd.report.decoding_tables import confusion_tables, scales_texts, tuning_table
from asrkd.report.page import Figure, Hypothesis, Section, Utterance, audio_uri
from asrkd.report.plots import PANEL_COLUMNS, HeatMap, heat_map
from asrkd.report.systems import metrics
from asrkd.report.tables import Row, number_plain

MAP_AXES = "acoustic_scale", "insertion_score"


def scales_section(results: Row) -> Section | None:
    """Decoding scales tuned on the development set."""
    table = tuning_table(results)
    if table is None:
        return None
    rate = metrics(results)["wer"].label
    rows = results["tuning"]
    several_lm_scales = len({row.get("lm_scale") for row in rows}) > 1
    by_rest: dict[tuple[Any, Any], list[Row]] = {}
    for row in rows:
        by_rest.setdefault((row.get("system"), row.get("lm_scale")), []).append(row)
    figures = []
    for position, ((system, lm_scale), grid) in enumerate(by_rest.items()):
        names = [str(system)] if system else []
        names += [f"LM scale {lm_scale:g}"] if several_lm_scales and lm_scale is not None else []
        figure = _scales_map(grid, ", ".join([f"Dev {rate}, %", *names]), f"{rate}, %", f"scales-{position}")
        figures += [figure] if figure else []
    text = ["The scales are tuned on the development set, never on the test set."]
    text += scales_texts(results)
    folded = replace(table, note="")  # the note is in the text
    return Section("scales", "Decoding scales", text=tuple(text), figures=tuple(figures), folded=(folded,))


def _scales_map(rows: Sequence[Row], title: str, colour_label: str, name: str) -> Figure | None:
    acoustic, insertion = (sorted({float(row[key]) for row in rows}) for key in MAP_AXES)
    if len(acoustic) < 2 or len(insertion) < 2:
        return None
    matrix = np.full((len(acoustic), len(insertion)), np.nan)
    marked = None
    for row in rows:
        cell = acoustic.index(float(row["acoustic_scale"])), insertion.index(float(row["insertion_score"]))
        matrix[cell] = float(row["wer"])
        marked = cell if row.get("chosen") else marked
    svg = heat_map(
        HeatMap(
            matrix,
            x_labels=list(map(number_plain, insertion)),
            y_labels=list(map(number_plain, acoustic)),
            title=title,
            xlabel="insertion score",
            ylabel="acoustic scale",
            colour_label=colour_label,
            name=name,
            marked=marked,
            reverse=True,
        )
    )
    caption = "The framed cell was chosen." if marked else ""
    alt = f"{title} over acoustic scale and insertion score; the values are in the table."
    return Figure(svg, alt, caption, wide=len(insertion) > PANEL_COLUMNS)


def confusions_section(results: Row) -> Section | None:
    """The most frequent substitutions, insertions and deletions."""
    tables = confusion_tables(results)
    if not tables:
        return None
    return Section("confusions", "Confusions", tables=tuple(tables))


def utterances_section(results: Row) -> Section | None:
    """The worst utterances, word by word, to listen to."""
    rows = results.get("worst_utterances")
    if not rows:
        return None
    by_utt: dict[str, list[Row]] = {}
    for row in rows:
        by_utt.setdefault(str(row["utt_id"]), []).append(row)
    utterances = tuple(_utterance(utt_id, of_utt) for utt_id, of_utt in by_utt.items())
    text = ["The reference is above, the recognised words are below; a dash stands for no word."]
    if any(utterance.oov for utterance in utterances):
        text.append("A dotted frame marks a word outside the vocabulary (OOV): no system can recognise it.")
    return Section("utterances", "Worst utterances", text=tuple(text), utterances=utterances)


def _utterance(utt_id: str, rows: Sequence[Row]) -> Utterance:
    audio = next((row["audio"] for row in rows if row.get("audio") is not None), None)
    speaker = next((str(row["speaker"]) for row in rows if row.get("speaker")), "")
    oov = frozenset(word for row in rows for word in row.get("oov") or ())
    return Utterance(
        utt_id, speaker, None if audio is None else audio_uri(audio, utt_id), tuple(map(_hypothesis, rows)), oov
    )


def _hypothesis(row: Row) -> Hypothesis:
    pairs = tuple((ref, hyp) for ref, hyp in row["alignment"])
    words = row.get("words")
    num_words = sum(ref is not None for ref, _ in pairs) if words is None else int(words)
    return Hypothesis(str(row["system"]), int(row["errors"]), num_words, pairs)
