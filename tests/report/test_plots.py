"""Plots: axes that have ticks and do not exaggerate, intervals, colour bars; and the sweep's table."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import numpy as np
import pytest
from report_reader import rendered
from sample_run import minimal

from asrkd.report.plots import HeatMap, heat_map, log_y_scale, panel, to_svg, widen
from asrkd.report.score_plots import Estimate, interval_dots
from asrkd.report.training_plots import MIN_SPANS, curves, sweep_lines
from asrkd.report.training_sections import CURVES
from asrkd.report.training_tables import dev_measures, hard_label_level, sweep_table, sweep_text

pytestmark = pytest.mark.needs("matplotlib")


def ticks(svg: str, axis: str) -> list[str]:
    """Labels of the ticks that are drawn along an axis."""
    return re.findall(rf'id="[\w-]*{axis}tick_\d+">.*?<text[^>]*>([^<]*)</text>', svg, flags=re.DOTALL)


class TestAxes:
    def test_learning_rate_has_ticks(self) -> None:
        """A cosine schedule ends seven decades below its start."""
        rates = [0.0029, 0.0024, 0.0016, 0.0008, 0.0002, 4.9e-10]
        (learning_rate,) = [curve for curve in CURVES if curve.key == "lr"]
        svg = curves({"baseline": [{"lr": rate} for rate in rates]}, {"baseline": "baseline"}, learning_rate)
        assert svg is not None
        assert len(ticks(svg, "y")) >= 3

    @pytest.mark.parametrize("low", [0.03, 1e-3, 1e-6, 1e-10])
    def test_a_log_axis_has_ticks_over_any_range(self, low: float) -> None:
        with panel("title", "x", "y") as (figure, axes):
            axes.plot([1, 2], [0.1, low])
            log_y_scale(axes)
            assert len(ticks(to_svg(figure, "log"), "y")) >= 2

    def test_an_axis_is_widened_around_its_centre_but_never_narrowed(self) -> None:
        with panel("title", "x", "y") as (_, axes):
            axes.set_ylim(77.0, 77.5)
            widen(axes, 5.0)
            assert axes.get_ylim() == (74.75, 79.75)
            widen(axes, 1.0)
            assert axes.get_ylim() == (74.75, 79.75)


class TestIntervalDots:
    ROLES: ClassVar = {"baseline": "baseline", "distilled": "distilled"}

    def test_without_intervals_start_at_zero(self) -> None:
        estimates = {"baseline": Estimate(77.1), "distilled": Estimate(78.6)}
        svg = interval_dots(estimates, self.ROLES, "Frame accuracy", "frame accuracy, %", "dots")
        assert ticks(svg, "x")[0] == "0"

    def test_with_intervals_fit_them(self) -> None:
        estimates = {"baseline": Estimate(77.1, (76.0, 78.2)), "distilled": Estimate(78.6, (77.5, 79.7))}
        svg = interval_dots(estimates, self.ROLES, "Frame accuracy", "frame accuracy, %", "dots")
        assert 74 <= float(ticks(svg, "x")[0]) <= 77

    def test_frame_accuracy_shows_the_intervals_of_results_json(
        self, results: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        few = minimal(results)
        plain, _ = rendered(few, {}, tmp_path_factory.mktemp("plain"))
        for system in few["systems"].values():
            system["frame_accuracy_ci95"] = [system["frame_accuracy"] - 0.01, system["frame_accuracy"] + 0.01]
        with_intervals, page = rendered(few, {}, tmp_path_factory.mktemp("intervals"))
        assert "higher is better. Bars are 95% intervals." in page.text
        assert "higher is better. Bars" not in plain and with_intervals != plain


class TestHeatMap:
    MATRIX = np.array([[10.0, 12.0], [11.0, np.nan]])

    def drawn(self, **more: Any) -> str:
        labels: dict[str, Any] = {"title": "t", "xlabel": "x", "ylabel": "y", "colour_label": "WER, %", "name": "m"}
        return heat_map(HeatMap(self.MATRIX, ["a", "b"], ["c", "d"], **labels, **more))

    def test_has_a_colour_bar_with_its_unit(self) -> None:
        svg = self.drawn()
        assert "WER, %" in svg
        assert svg.count("<image") == 1, "the bar is one picture"
        assert {"10.0", "12.0"} <= set(re.findall(r"<text[^>]*>([^<]*)</text>", svg))

    def test_writes_other_values_than_it_colours(self) -> None:
        cells = re.findall(r"<text[^>]*>(\d+)</text>", self.drawn(values=np.array([[101, 102], [103, 104]]), digits=0))
        assert {"101", "102", "103", "104"} <= set(cells)


class TestSweep:
    ROWS = (
        {"temperature": 1.0, "alpha": 1.0, "dev_frame_accuracy": 0.771, "dev_cross_entropy": 0.72},
        {"temperature": 2.0, "alpha": 1.0, "dev_frame_accuracy": 0.775, "dev_cross_entropy": 0.70, "configured": True},
        {"temperature": 5.0, "alpha": 1.0, "dev_frame_accuracy": 0.776, "dev_cross_entropy": 0.69},
    )

    def test_table_tells_the_configured_student_from_the_best(self, results: dict[str, Any]) -> None:
        table = sweep_table({**results, "sweep": self.ROWS})
        assert table is not None
        assert [row[-1] for row in table.rows] == ["", "configured", "best frame accuracy, best cross-entropy"]
        assert "chosen" not in str(table)
        assert table.strong == (False, True, False)

    def test_sentences_name_both(self, results: dict[str, Any]) -> None:
        assert sweep_text({**results, "sweep": self.ROWS}) == (
            "The recipe is configured with T=2, α=1. On the development set, T=5, α=1 has the best "
            "frame accuracy (77.60%) and cross-entropy (0.6900 nats/frame)."
        )

    def test_plot_spans_more_than_noise_and_has_the_level_of_hard_labels(self, results: dict[str, Any]) -> None:
        accuracy = dev_measures(results)[0]
        level = hard_label_level({**results, "sweep": self.ROWS}, accuracy)
        assert level == max(epoch["dev_accuracy"] for epoch in results["systems"]["baseline"]["history"])
        svg = sweep_lines(self.ROWS, "temperature", accuracy, hard=0.77)
        assert svg is not None
        shown = [float(label) for label in ticks(svg, "y")]
        assert max(shown) - min(shown) >= MIN_SPANS["dev_frame_accuracy"] - 2
        assert "hard labels" in svg and "configured" in svg
