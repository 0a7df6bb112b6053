"""Scales at the end of their grid, kinds of confusions, and the cards of the worst utterances."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from report_reader import Parsed, markdown_rows, rendered
from sample_run import minimal

from asrkd.report import print_table, write_results_md
from asrkd.report.decoding_tables import confusion_tables, scales_at_grid_end


def grid(acoustic: float, insertion: float, lm: tuple[float, ...] = (1.0,)) -> list[dict[str, Any]]:
    """Rows of tuning in which one point was chosen."""
    return [
        {
            "acoustic_scale": a,
            "lm_scale": lm_scale,
            "insertion_score": i,
            "wer": 10.0,
            "chosen": (a, i) == (acoustic, insertion),
        }
        for a in (0.1, 0.2, 0.3)
        for lm_scale in lm
        for i in (-2.0, -1.0, 0.0)
    ]


class TestScales:
    @pytest.mark.parametrize(
        ("chosen", "expected"),
        [
            ((0.2, -1.0), []),
            ((0.1, -1.0), ["acoustic_scale"]),
            ((0.2, 0.0), ["insertion_score"]),
            ((0.3, -2.0), ["acoustic_scale", "insertion_score"]),
        ],
    )
    def test_at_the_end_of_their_grid_are_named(self, chosen: tuple[float, float], expected: list[str]) -> None:
        assert scales_at_grid_end(grid(*chosen)) == expected

    def test_a_grid_of_one_value_has_no_end(self) -> None:
        assert scales_at_grid_end(grid(0.2, -1.0, lm=(1.0,))) == []
        assert scales_at_grid_end(grid(0.2, -1.0, lm=(0.9, 1.0))) == ["lm_scale"]

    def test_at_the_end_are_reported_everywhere(self, results: dict[str, Any], tmp_path: Path) -> None:
        run = {**minimal(results), "tuning": grid(0.3, -2.0)}
        warning = "Tuned acoustic scale 0.3 and insertion score −2 lie at an end of their grids"
        _, page = rendered(run, {}, tmp_path)
        write_results_md(run, tmp_path / "RESULTS.md")
        assert page.text.count(warning) == 2, "on the first screen and with the scales"
        assert warning in (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
        assert warning in print_table(run)

    def test_values_added_to_a_grid_are_reported(self, results: dict[str, Any], tmp_path: Path) -> None:
        added = {"acoustic_scale": [0.041, 0.0512], "insertion_score": [-3.0]}
        run = {**minimal(results), "tuning": grid(0.2, -1.0), "scales_at_grid_end": [], "scales_added": added}
        text = (
            "Added to the grids, because the best values were at their ends: "
            "acoustic scale 0.041, 0.0512; insertion score −3."
        )
        _, page = rendered(run, {}, tmp_path)
        write_results_md(run, tmp_path / "RESULTS.md")
        assert page.text.count(text) == 1
        assert text in (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
        assert "an end of" not in page.text

    def test_a_development_set_that_decides_nothing_is_reported(self, results: dict[str, Any], tmp_path: Path) -> None:
        run = {**minimal(results), "tuning": grid(0.2, -1.0), "scales_at_grid_end": [], "scales_flat": True}
        warning = "All 9 settings of the scales give the same development WER, 10.00%"
        _, page = rendered(run, {}, tmp_path)
        write_results_md(run, tmp_path / "RESULTS.md")
        assert page.text.count(warning) == 2, "on the first screen and with the scales"
        assert f"Caution: {warning}" in (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
        assert warning in print_table(run).replace("\n", " ")

    @pytest.mark.parametrize(("words", "is_few"), [(99, True), (100, False), (None, False)])
    def test_few_development_words_are_reported(self, results: dict, tmp_path: Path, words: int, is_few: bool) -> None:
        corpus = {"dev": {} if words is None else {"words": words}}
        run = {**minimal(results), "tuning": grid(0.2, -1.0), "corpus": corpus}
        assert ("The scales were tuned on 99 words" in print_table(run)) == is_few
        assert "were tuned on" not in print_table({**run, "tuning": grid(0.2, -1.0)[:1]}), "nothing was tuned"


class TestConfusions:
    ROWS = (("B", "D", 4), ("E", None, 9), (None, "THE", 3), ("EIGHT", "H", 3), (None, "A", 5))

    def test_kinds_have_tables_of_their_own(self, results: dict[str, Any], tmp_path: Path) -> None:
        run = {**minimal(results), "confusions": {"distilled": self.ROWS}}
        _, page = rendered(run, {}, tmp_path)
        assert page.tables["Substitutions by distilled"][1:] == [["B", "D", "4"], ["EIGHT", "H", "3"]]
        assert page.tables["Insertions by distilled"][1:] == [["A", "5"], ["THE", "3"]]
        assert page.tables["Deletions by distilled"][1:] == [["E", "9"]]
        write_results_md(run, tmp_path / "RESULTS.md")
        assert markdown_rows((tmp_path / "RESULTS.md").read_text(encoding="utf-8"), "deleted")[1] == ["E", "9"]

    def test_a_kind_without_errors_has_none(self, results: dict[str, Any]) -> None:
        (table,) = confusion_tables({"confusions": [("B", "D", 4)]})
        assert table.caption == "Substitutions"


class TestWorstUtterances:
    def test_show_their_error_rate(self, report: tuple[str, Parsed]) -> None:
        # F, L and R of ten words wrong, one of them deleted
        assert "3 errors in 10 (30%)" in report[1].text

    def test_mark_words_outside_the_vocabulary(self, results: dict[str, Any], tmp_path: Path) -> None:
        row = {
            "utt_id": "a",
            "system": "distilled",
            "alignment": [("NO", "NO"), ("1984", "FIVE")],
            "errors": 1,
            "words": 2,
        }
        markup, page = rendered(minimal(results), {"worst_utterances": [{**row, "oov": ["1984"]}]}, tmp_path)
        assert re.findall(r'class="oov" title="[^"]*">([^<]*)<', markup) == ["1984"]
        assert "outside the vocabulary (OOV)" in page.text
        known, without = rendered(minimal(results), {"worst_utterances": [{**row, "oov": []}]}, tmp_path)
        assert 'class="oov"' not in known and "outside the vocabulary (OOV)" not in without.text
