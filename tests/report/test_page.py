"""report.html is well formed, needs no network, and shows hostile text as text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from report_reader import Parsed, rendered
from sample_run import minimal

from asrkd.report.page import Figure, Page, Section, render_page
from asrkd.report.plots import panel, to_svg
from asrkd.report.tables import Table

pytestmark = pytest.mark.needs("matplotlib", "jinja2")

HOSTILE = '<script>alert("x")</script>|`$\\frac{&amp;*_a_'


class TestPage:
    def test_is_well_formed_with_unique_ids(self, report: tuple[str, Parsed]) -> None:
        _, page = report
        assert len(page.ids) == len(set(page.ids))

    def test_contents_and_drawings_point_within_the_page(self, report: tuple[str, Parsed]) -> None:
        markup, page = report
        assert page.links
        assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
        clips = re.findall(r"url\(([^)]*)\)", markup)
        assert clips
        assert all(clip.startswith("#") and clip[1:] in page.ids for clip in clips)

    def test_needs_no_network(self, report: tuple[str, Parsed]) -> None:
        markup, page = report
        assert {tag for tag, _ in page.resources} == {"audio", "image"}
        assert all(value.startswith("data:") for _, value in page.resources)
        without_payload = re.sub(r"base64,[^\"']*", "", markup)
        assert "http" not in without_payload.lower()
        assert not re.search(r"[\"'(]//|@import", without_payload)

    def test_every_drawing_says_what_it_shows(self, report: tuple[str, Parsed]) -> None:
        markup, page = report
        assert len(page.alts) == markup.count("<svg")
        assert all(alt and len(alt) > 20 for alt in page.alts)

    def test_holds_every_section(self, report: tuple[str, Parsed]) -> None:
        wanted = "summary systems comparisons sweep training ensemble store alignment scales confusions utterances"
        assert {*wanted.split(), "corpus", "run", "glossary"} <= set(report[1].ids)

    def test_counts_the_utterances_that_needed_a_wider_beam(self, report: tuple[str, Parsed]) -> None:
        assert "needed a wider beam than the first search: 2 in mono_1, 1 in mono_2." in report[0]

    def test_is_small(self, report: tuple[str, Parsed]) -> None:
        assert len(report[0]) < 1_000_000

    def test_is_the_same_bytes_every_time(
        self, results: dict[str, Any], extras: dict[str, Any], tmp_path: Path
    ) -> None:
        few = {**minimal(results), "store": results["store"]}
        assert rendered(few, extras, tmp_path)[0] == rendered(few, extras, tmp_path)[0]

    def test_colours_follow_the_reader(self, report: tuple[str, Parsed]) -> None:
        markup, _ = report
        assert "prefers-color-scheme: dark" in markup
        assert "@media print" in markup
        assert "#0102" not in markup
        used = set(re.findall(r"var\((--[\w-]+)\)", markup))
        assert used <= set(re.findall(r"(--[\w-]+):", markup))

    def test_drawn_numbers_are_not_rounded(self) -> None:
        with panel("title", "x", "y") as (figure, axes):
            axes.text(0.5, 0.5, "0.123456789 < #010210")
            assert "0.123456789 &lt; #010210" in to_svg(figure, "here")


class TestFirstScreen:
    def test_verdict_stands_before_figures_and_command(
        self, results: dict[str, Any], report: tuple[str, Parsed]
    ) -> None:
        text = report[1].text
        order = ["The distilled student (", "It recovers", "gap recovered", results["command"], "description"]
        positions = [text.index(part) for part in order]
        assert positions == sorted(positions)

    def test_caveats_follow_the_verdict(self, results: dict[str, Any], tmp_path: Path) -> None:
        tuning = [
            {**row, "chosen": (row["acoustic_scale"], row["insertion_score"]) == (0.2, -2)} for row in results["tuning"]
        ]
        _, page = rendered({**minimal(results), "tuning": tuning}, {}, tmp_path)
        assert page.text.index("Caution: Tuned acoustic scale 0.2 lies at an end") < page.text.index("Summary")


class TestPhoneScreen:
    """What makes a table readable on a screen 400 pixels wide; the error rate's column is tested with the tables."""

    def test_the_first_column_stays_and_names_break(self, report: tuple[str, Parsed]) -> None:
        markup, _ = report
        assert re.search(r"tbody th \{ position: sticky; left: 0;", markup)
        assert "baseline_<wbr>no_<wbr>dropout</th>" in markup

    def test_text_wraps(self, report: tuple[str, Parsed]) -> None:
        narrow = report[0].partition("@media (max-width: 34rem) {")[2].partition("@media print")[0]
        assert "td.l { white-space: normal; }" in narrow


class TestHostileText:
    def test_reaches_the_reader_as_text_only(
        self, results: dict[str, Any], extras: dict[str, Any], report: tuple[str, Parsed], tmp_path: Path
    ) -> None:
        pairs = [(HOSTILE, None), (None, HOSTILE)]
        worst = [{**row, "utt_id": HOSTILE, "alignment": pairs, "oov": [HOSTILE]} for row in extras["worst_utterances"]]
        plot = extras["alignment_plot"]
        plot = {**plot, "utt_id": HOSTILE, "phones": [(HOSTILE, a, b) for _, a, b in plot["phones"]]}
        hostile = {
            **minimal(results),
            "recipe": HOSTILE,
            "command": HOSTILE,
            "rejected": [(HOSTILE, HOSTILE)],
            "unaligned": [{"split": HOSTILE, "utt_id": HOSTILE, "reason": HOSTILE}],
            "doubtful": [{**row, "utt_id": HOSTILE, "words": HOSTILE} for row in results["doubtful"]],
            "confusions": [(HOSTILE, HOSTILE, 2)],
            "environment": {HOSTILE: HOSTILE},
            "timing": {HOSTILE: 3.0},
            "systems": {
                **results["systems"],
                HOSTILE: {**results["systems"]["distilled"], "git_sha": HOSTILE, "device": HOSTILE, "code": HOSTILE},
            },
            "comparisons": [{**results["comparisons"][0], "b": name} for name in ("baseline", HOSTILE)],
            "gap_recovered": {HOSTILE: {"value": None, "ci95": None, "reason": HOSTILE}},
            "tuning": [{**row, "system": HOSTILE} for row in results["tuning"]],
        }
        _, page = rendered(hostile, {"worst_utterances": worst, "alignment_plot": plot}, tmp_path)
        assert page.scripts == report[1].scripts
        assert page.text.count(HOSTILE) > 30


class TestOtherRecipes:
    def test_build_a_page_of_their_own_sections(self) -> None:
        with panel("Errors", "temperature", "errors") as (figure, axes):
            axes.plot([1, 20], [113, 95])
            drawing = Figure(to_svg(figure, "errors"), "Errors fall with temperature.")
        table = Table("Scorecard", ("claim", "paper", "ours"), (("T=20", "74", "95"),), "lrr")
        section = Section("mnist", "MNIST", figures=(drawing,), tables=(table,))
        page = Parsed(render_page(Page("MNIST", [section], {"seed": "0"}, "recipes/mnist/run.sh")))
        assert page.tables["Scorecard"][1] == ["T=20", "74", "95"]
        with pytest.raises(ValueError, match="repeat"):
            render_page(Page("MNIST", [section, section], {}, "run.sh"))

    def test_ragged_tables_are_refused(self) -> None:
        with pytest.raises(ValueError, match="differ in length"):
            Table("t", ("a", "b"), (("1",),), "lr")
