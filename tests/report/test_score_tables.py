"""Tables show the numbers of results.json, in every form the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
from report_reader import Parsed, cell, markdown_rows, rendered
from sample_run import comparison, minimal

from asrkd.files import read_json, write_json
from asrkd.report import print_table, write_results_md
from asrkd.report.glossary import glossary_table
from asrkd.report.score_tables import comparisons_table, systems_table
from asrkd.report.tables import duration, magnitude


class TestNumbers:
    def test_systems_are_those_of_results_json(self, results: dict[str, Any], report: tuple[str, Parsed]) -> None:
        rows = report[1].tables["Systems"]
        for name, system in results["systems"].items():
            shown = float(cell(rows, name, "frame acc. %"))
            assert shown == pytest.approx(100 * system["frame_accuracy"], abs=0.00501)
            assert float(cell(rows, name, "CE nats/frame")) == pytest.approx(system["cross_entropy"], abs=5.01e-5)
            wer = system["wer"]
            assert float(cell(rows, name, "WER %")) == pytest.approx(wer["percent"], abs=0.00501)
            for key in ("ins", "del", "sub", "words"):
                assert int(cell(rows, name, key)) == wer[key]
            ends = [float(end) for end in cell(rows, name, "95% interval").strip("[]").split(",")]
            assert ends == pytest.approx(wer["ci95"], abs=0.00501)
            assert float(cell(rows, name, "RTF")) == pytest.approx(system["rtf"], abs=5.01e-4)

    def test_markdown_and_page_agree(self, results: dict[str, Any], report: tuple[str, Parsed], tmp_path: Path) -> None:
        write_results_md(results, tmp_path / "RESULTS.md")
        rows = markdown_rows((tmp_path / "RESULTS.md").read_text(encoding="utf-8"), "system")
        assert [[part.strip() for part in row] for row in report[1].tables["Systems"]] == rows

    def test_from_results_json_as_from_memory(self, results: dict[str, Any], tmp_path: Path) -> None:
        write_json(tmp_path / "results.json", results)
        write_results_md(read_json(tmp_path / "results.json"), tmp_path / "a.md")
        write_results_md(results, tmp_path / "b.md")
        assert (tmp_path / "a.md").read_bytes() == (tmp_path / "b.md").read_bytes()

    def test_comparisons_read_in_the_metric_s_direction(self, report: tuple[str, Parsed]) -> None:
        rows = report[1].tables["Paired comparisons"]
        assert [row[-1] for row in rows[1:]] == ["distilled better"] * 3 + ["not significant"]
        assert [row[2] for row in rows[1:]] == ["−1.94", "+1.55", "−0.0869", "−0.52"]
        assert rows[2][4] == "<0.001"
        assert [row[0] for row in rows[3:]] == ["distilled − baseline", "distilled − ensemble"]

    def test_worse_student_is_called_worse(self, results: dict[str, Any]) -> None:
        worse = [
            comparison("wer", 1.0, 0.2, 1.9, 0.02),
            comparison("frame_accuracy", -0.01, -0.02, -0.005, 0.01),
        ]
        table = comparisons_table({**results, "comparisons": worse})
        assert table is not None
        assert [row[-1] for row in table.rows] == ["baseline better", "baseline better"]

    def test_seeds_give_mean_and_sample_deviation(self, report: tuple[str, Parsed]) -> None:
        # 12.3, 12.0 and 11.7
        assert cell(report[1].tables["Over seeds"], "baseline", "WER %") == "12.00 ± 0.30"

    def test_gap_is_a_share_or_a_reason(self, results: dict[str, Any], report: tuple[str, Parsed]) -> None:
        rows = report[1].tables["Gap recovered"]
        assert cell(rows, "frame accuracy", "recovered") == "96.9%"
        assert cell(rows, "WER", "reason") == "the ensemble's interval includes the baseline"
        gap = {"frame_accuracy": {"value": 0.86, "ci95": [0.7, 1.1]}, "cross_entropy": 0.5, "wer": None}
        plain = print_table({**minimal(results), "gap_recovered": gap})
        assert "Gap recovered, frame accuracy: 86% [70, 110]." in plain
        assert "Gap recovered, cross-entropy: not determined (no interval was computed)." in plain
        assert "Gap recovered, WER: not determined (the ensemble is no better than the baseline)." in plain

    def test_gap_without_interval_is_not_determined_and_has_its_reason(
        self, results: dict[str, Any], tmp_path: Path
    ) -> None:
        gap = {"wer": {"value": 0.47, "ci95": None, "reason": "no finite interval"}}
        few = {**minimal(results), "gap_recovered": gap}
        _, page = rendered(few, {}, tmp_path)
        assert page.tables["Gap recovered"][1] == ["WER", "not determined", "no finite interval"]
        write_results_md(few, tmp_path / "RESULTS.md")
        for text in (page.text, (tmp_path / "RESULTS.md").read_text(encoding="utf-8"), print_table(few)):
            assert "not determined" in text and "no finite interval" in text
            assert "47%" not in text and "47.0" not in text

    def test_error_rate_follows_the_system_s_name(self, report: tuple[str, Parsed]) -> None:
        assert report[1].tables["Systems"][0][:3] == ["system", "WER %", "95% interval"]

    @pytest.mark.parametrize(
        ("seconds", "shown"),
        [
            (4.24, "4.2 s"),
            (59.96, "1 min 00 s"),
            (185, "3 min 05 s"),
            (3599.7, "1 h 00 min"),
            (3720, "1 h 02 min"),
        ],
    )
    def test_duration(self, seconds: float, shown: str) -> None:
        assert duration(seconds) == shown

    @pytest.mark.parametrize(
        ("number", "shown"), [(85_000_000, "85.0 M"), (1_528_620, "1.53 M"), (999_999, "1.00 M"), (12, "12")]
    )
    def test_magnitude(self, number: int, shown: str) -> None:
        assert magnitude(number) == shown

    def test_terminal_table_fits_a_terminal(self, results: dict[str, Any]) -> None:
        assert max(map(len, print_table(results).splitlines())) <= 120


class TestPhones:
    """Results that count phones, whose alignment was compared with marks by hand."""

    MARKS: ClassVar = {
        "boundaries": 1386,
        "mean_ms": 21.06,
        "median_ms": 14.5,
        "median_late_ms": -10.28,
        "within_10_ms": 0.352,
        "within_20_ms": 0.653,
        "within_30_ms": 0.815,
    }

    def test_are_called_so_everywhere(self, results: dict[str, Any], extras: dict[str, Any], tmp_path: Path) -> None:
        phones = {**results, "unit": "phone", "boundaries": {"train": self.MARKS}}
        phones = {key: value for key, value in phones.items() if key != "corpus"}
        write_results_md(phones, tmp_path / "RESULTS.md")
        markdown = (tmp_path / "RESULTS.md").read_text()
        shown = [print_table(phones), markdown, re.sub(r"base64,[^\"']*", "", rendered(phones, extras, tmp_path)[0])]
        for text in shown:
            assert "PER" in text and "WER" not in text
        assert "phone error rate" in shown[2] and "word error rate" not in shown[2].lower()
        assert markdown_rows(markdown, "split")[1][1:] == ["1,386", "21.1", "14.5", "−10.3", "35.2", "65.3", "81.5"]

    def test_marks_have_their_table_on_the_page(self, results: dict[str, Any], tmp_path: Path) -> None:
        _, page = rendered({**minimal(results), "boundaries": {"dev": self.MARKS}}, {}, tmp_path)
        assert cell(page.tables["Boundaries against marks by hand"], "dev", "within 20 ms, %") == "65.3"


def test_character_error_rates_are_shown_for_texts_without_spaces(results: dict[str, Any]) -> None:
    systems = {name: {**one, "cer": {"percent": 5.0 + i}} for i, (name, one) in enumerate(results["systems"].items())}
    results = {**results, "systems": systems}
    assert "CER %" not in systems_table(results).headers
    shown = systems_table({**results, "unspaced": True})
    assert [row[shown.headers.index("CER %")] for row in shown.rows][:2] == ["5.00", "6.00"]
    assert shown.headers.index("CER %") == shown.headers.index("WER %") + 2
    terms = [[row[0] for row in glossary_table({**results, "unspaced": flag}).rows] for flag in (True, False)]
    assert ["CER" in of_table for of_table in terms] == [True, False]
