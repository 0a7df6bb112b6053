"""RESULTS.md opens with its command and the verdict, and shows hostile text as text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from report_reader import markdown_rows

from asrkd.report import write_results_md

HOSTILE = '<script>alert("x")</script>|`$\\frac{&amp;*_a_'


class TestResultsMd:
    def test_opens_with_its_command(self, results: dict[str, Any], tmp_path: Path) -> None:
        write_results_md(results, tmp_path / "RESULTS.md")
        lines = (tmp_path / "RESULTS.md").read_text(encoding="utf-8").splitlines()
        assert lines[:3] == ["```sh", results["command"], "```"]

    def test_verdict_stands_before_the_tables(self, results: dict[str, Any], tmp_path: Path) -> None:
        write_results_md(results, tmp_path / "RESULTS.md")
        paragraphs = (tmp_path / "RESULTS.md").read_text(encoding="utf-8").split("\n\n")
        assert paragraphs[1] == "# Results: an4"
        assert paragraphs[2].startswith("**The distilled student (")
        assert ") is significantly better than the baseline in WER (" in paragraphs[2]

    def test_every_variant_has_its_verdict_and_all_one_glossary(self, results: dict[str, Any], tmp_path: Path) -> None:
        write_results_md([{**results, "variant": name} for name in ("phones", "subword")], tmp_path / "RESULTS.md")
        text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
        assert text.count("**The distilled student (") == 2
        assert text.count("## Glossary") == 1
        assert markdown_rows(text, "term")[1][0] == "WER"

    def test_scale_at_the_end_of_its_grid_is_reported(self, results: dict[str, Any], tmp_path: Path) -> None:
        write_results_md({**results, "scales_at_grid_end": ["insertion_score"]}, tmp_path / "RESULTS.md")
        text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
        assert (
            "Caution: Tuned insertion score −2 lies at an end of its grid; a wider grid may give fewer errors." in text
        )

    def test_names_configuration_git_seeds_device(self, results: dict[str, Any], tmp_path: Path) -> None:
        write_results_md(results, tmp_path / "RESULTS.md")
        text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
        for value in (results["config_sha"], results["git_sha"], "0, 1, 2", results["device"]):
            assert f"`{value}`" in text

    def test_several_variants_follow_one_another(self, results: dict[str, Any], tmp_path: Path) -> None:
        subword = {**results, "variant": "subword", "command": "recipes/an4/run.sh --lang.units=subword"}
        write_results_md([{**results, "variant": "phones"}, subword], tmp_path / "RESULTS.md")
        text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
        assert text.splitlines()[1] == results["command"]
        assert text.index("## phones") < text.index("## subword") < text.index(subword["command"])

    def test_long_tuning_grid_keeps_its_choice(self, results: dict[str, Any], tmp_path: Path) -> None:
        tuning = [{**row, "chosen": row["wer"] > 14.7} for row in results["tuning"]]
        write_results_md({**results, "tuning": tuning}, tmp_path / "RESULTS.md")
        rows = markdown_rows((tmp_path / "RESULTS.md").read_text(encoding="utf-8"), "acoustic scale")
        assert [row[-1] for row in rows].count("chosen") == sum(row["chosen"] for row in tuning) > 0
        assert len(rows) < len(tuning)

    def test_hostile_text_stays_text(self, results: dict[str, Any], tmp_path: Path) -> None:
        rejected = [(HOSTILE, "two\nlines | of it")]
        write_results_md({**results, "rejected": rejected, "command": "run ```\n# no heading"}, tmp_path / "R.md")
        text = (tmp_path / "R.md").read_text(encoding="utf-8")
        assert "<script" not in text
        assert text.startswith("````sh\n")
        row = next(line for line in text.splitlines() if "alert" in line)
        assert len(re.findall(r"(?<!\\)\|", row)) == 3
