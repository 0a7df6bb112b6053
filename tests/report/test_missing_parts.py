"""Every optional part of results.json may be missing; a required one is named."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from report_reader import Parsed, rendered
from sample_run import minimal

from asrkd.errors import InputError
from asrkd.report import print_table, write_report, write_results_md


@pytest.fixture(scope="module")
def without(results: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Parsed:
    """The page with every optional part null."""
    nulls = dict.fromkeys(set(results) - set(minimal(results)))
    return rendered({**minimal(results), **nulls}, {}, tmp_path_factory.mktemp("without"))[1]


class TestMissingParts:
    def test_only_what_design_requires(self, results: dict[str, Any], tmp_path: Path) -> None:
        few = minimal(results)
        _, page = rendered(few, {}, tmp_path)
        assert [name for name in page.ids if f"{name}-title" in page.ids] == ["summary", "systems", "glossary"]
        write_results_md(few, tmp_path / "RESULTS.md")
        assert re.findall(r"\n##.*", (tmp_path / "RESULTS.md").read_text(encoding="utf-8")) == ["\n## Glossary"]
        assert "distilled" in print_table(few)

    @pytest.mark.parametrize(
        "key",
        [
            *("comparisons", "gap_recovered", "seeds", "sweep", "disagreement", "store", "alignment_rounds"),
            *("confusions", "tuning", "corpus", "oov_rate", "excluded", "rejected", "timing", "environment"),
            *("unaligned", "doubtful"),
        ],
    )
    def test_each_optional_part_stands_alone(
        self, results: dict[str, Any], without: Parsed, tmp_path: Path, key: str
    ) -> None:
        few = minimal(results)
        _, alone = rendered({**few, key: results[key]}, {}, tmp_path)
        assert len(alone.text) > len(without.text)
        write_results_md({**few, key: results[key]}, tmp_path / "RESULTS.md")

    def test_undecoded_teachers_have_dashes(self, results: dict[str, Any]) -> None:
        few = minimal(results)
        few["systems"]["teacher_0"].update(wer=None, rtf=None, cross_entropy=math.nan)
        line = next(line for line in print_table(few).splitlines() if line.startswith("teacher_0"))
        assert line.split()[1:] == ["–", "–", "73.91", *"––––", "1.53", "M", "–"]

    def test_several_test_sets_get_a_row_each(self, results: dict[str, Any], tmp_path: Path) -> None:
        few = minimal(results)
        for system in few["systems"].values():
            system["wer"] = {"clean": system["wer"], "other": {**system["wer"], "percent": 33.3}}
            system["rtf"] = {"clean": 0.1, "other": 0.2}
        _, page = rendered(few, {}, tmp_path)
        rows = page.tables["Systems"]
        assert [row[1] for row in rows[1:3]] == ["clean", "other"]
        assert rows[2][rows[0].index("WER %")] == "33.30"

    def test_missing_required_part_is_named_and_nothing_written(self, results: dict[str, Any], tmp_path: Path) -> None:
        few = minimal(results)
        del few["git_sha"]
        with pytest.raises(InputError, match="found no git_sha"):
            write_report(few, {}, tmp_path / "report.html")
        with pytest.raises(InputError, match="found no git_sha"):
            write_results_md(few, tmp_path / "RESULTS.md")
        assert list(tmp_path.iterdir()) == []


class TestAlignmentPlot:
    def test_lengths_must_fit(self, results: dict[str, Any], extras: dict[str, Any], tmp_path: Path) -> None:
        plot = extras["alignment_plot"]
        short = {**plot, "pdf_ids": plot["pdf_ids"][:-1]}
        with pytest.raises(InputError, match="an391-mjwl-b"):
            write_report(minimal(results), {"alignment_plot": short}, tmp_path / "r.html")
        late = {**plot, "phones": [*plot["phones"][:-1], ("SIL", 230, 999)]}
        with pytest.raises(InputError, match="frame 999"):
            write_report(minimal(results), {"alignment_plot": late}, tmp_path / "r.html")

    def test_takes_tensors(self, results: dict[str, Any], extras: dict[str, Any], tmp_path: Path) -> None:
        plot = extras["alignment_plot"]
        tensors = {key: torch.from_numpy(plot[key]) for key in ("feats", "pdf_ids")}
        from_arrays, _ = rendered(minimal(results), {"alignment_plot": plot}, tmp_path)
        from_tensors, _ = rendered(minimal(results), {"alignment_plot": {**plot, **tensors}}, tmp_path)
        assert from_tensors == from_arrays
