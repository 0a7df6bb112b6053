"""The verdict: which differences are significant, the gap recovered, and what a reader should be warned of."""

from __future__ import annotations

from typing import Any

from sample_run import comparison, minimal

from asrkd.report import print_table
from asrkd.report.markdown import results_markdown
from asrkd.report.run_tables import provenance_table, revisions_text
from asrkd.report.score_tables import gap_table
from asrkd.report.verdict import caveats, verdict


def with_comparisons(results: dict[str, Any], *rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**minimal(results), "comparisons": list(rows), **more}


class TestVerdict:
    def test_of_a_better_student(self, results: dict[str, Any]) -> None:
        lead, gap, ensemble, *rest = verdict({**results, "seeds": []})
        assert lead == (
            "The distilled student (20% of the ensemble's parameters, RTF 0.061 against 0.144) "
            "is significantly better than the baseline in "
            "WER (10.35% against 12.29%, −1.94 points [−3.31, −0.52]), "
            "frame accuracy (74.93% against 73.38%, +1.55 points [+1.21, +1.89]) and "
            "cross-entropy (0.7743 against 0.8612, −0.0869 nats/frame [−0.0983, −0.0757])."
        )
        assert gap == (
            "It recovers 97% [81, 112] of the ensemble's gain over the baseline in frame accuracy; "
            "the gap recovered is not determined in WER."
        )
        assert ensemble == "It does not differ significantly from the ensemble in WER (−0.52 points [−1.60, +0.55])."
        assert rest == []

    def test_of_a_worse_student(self, results: dict[str, Any]) -> None:
        gap = {"frame_accuracy": {"value": -1.36, "ci95": [-3.85, -0.45], "reason": None}}
        run = with_comparisons(results, comparison("wer", 1.0, 0.2, 1.9, 0.02), gap_recovered=gap)
        assert verdict(run) == (
            "The distilled student (20% of the ensemble's parameters, RTF 0.061 against 0.144) "
            "is significantly worse than the baseline in "
            "WER (10.35% against 12.29%, +1.00 points [+0.20, +1.90]).",
            "It recovers none of the ensemble's gain over the baseline in frame accuracy (−136% [−385, −45]).",
        )

    def test_names_what_a_small_student_saves(self, results: dict[str, Any]) -> None:
        run = with_comparisons(results, comparison("wer", -1.0, -1.9, -0.2, 0.02))
        student = run["systems"]["distilled"]
        del student["rtf"]
        assert verdict(run)[0].startswith("The distilled student (20% of the ensemble's parameters) is significantly")
        student["parameters"] = run["systems"]["ensemble"]["parameters"]
        assert verdict(run)[0].startswith("The distilled student is significantly better")
        del student["parameters"]
        assert verdict(run)[0].startswith("The distilled student is significantly better")

    def test_of_metrics_that_disagree(self, results: dict[str, Any]) -> None:
        run = with_comparisons(
            results,
            comparison("wer", -0.3, -0.9, 0.4, 0.4),
            comparison("frame_accuracy", 0.01, 0.005, 0.015, 0.001),
        )
        (lead,) = verdict(run)
        assert "significantly better than the baseline in frame accuracy" in lead
        assert "the difference in WER (10.35% against 12.29%, −0.30 points [−0.90, +0.40]) is not significant." in lead

    def test_of_the_strongest_baseline(self, results: dict[str, Any]) -> None:
        share = {"value": 0.5, "ci95": [0.4, 0.6], "reason": None}
        strongest = {"system": "baseline_dropout", "gap_recovered": {"frame_accuracy": share}}
        run = with_comparisons(
            results,
            {**comparison("wer", 0.26, -0.44, 1.08, 0.5), "b": "baseline_dropout"},
            gap_recovered={"frame_accuracy": {**share, "value": 0.8, "ci95": [0.7, 0.9]}},
            strongest_baseline=strongest,
        )
        assert verdict(run)[1:] == (
            "It recovers 80% [70, 90] of the ensemble's gain over the baseline in frame accuracy.",
            "It recovers 50% [40, 60] of the ensemble's gain over baseline_dropout in frame accuracy.",
            "It does not differ significantly from baseline_dropout, the strongest baseline, in WER "
            "(+0.26 points [−0.44, +1.08]).",
        )
        table = gap_table(run)
        assert table is not None and [row[0] for row in table.rows] == ["baseline", "baseline_dropout"]
        assert "Gap recovered, frame accuracy, against baseline_dropout: 50% [40, 60]." in print_table(run)

    def test_of_one_teacher(self, results: dict[str, Any]) -> None:
        run = minimal(results)
        systems = {"teacher": results["systems"]["ensemble"], **run["systems"]}
        run["systems"] = {name: one for name, one in systems.items() if name != "ensemble"}
        run["gap_recovered"] = {"frame_accuracy": {"value": 0.8, "ci95": [0.7, 0.9]}}
        assert "It recovers 80% [70, 90] of the teacher's gain over the baseline in frame accuracy." in verdict(run)
        text = results_markdown([run])
        assert "(distilled − baseline) / (teacher − baseline); 100% is the teacher itself." in text
        assert "ensemble" not in text.split("# Results")[1].split("## Glossary")[0]

    def test_warns_of_a_student_that_is_no_better_than_a_baseline(self, results: dict[str, Any]) -> None:
        sweep = [{"temperature": 2.0, "alpha": 1.0, "dev_cross_entropy": 0.8, "chosen": True}]
        hard = [{"system": "baseline_dropout", "dev_cross_entropy": nats, "chosen": True} for nats in (0.7, 0.9)]
        weak, good = ({**minimal(results), "sweep": sweep, "baselines": [row]} for row in hard)
        assert (
            "no better than baseline_dropout on the development set (cross-entropy 0.8000 against" in caveats(weak)[0]
        )
        assert not [text for text in caveats(good) if "no better" in text]

    def test_names_a_stronger_baseline(self, results: dict[str, Any]) -> None:
        run = with_comparisons(
            results,
            comparison("wer", -1.0, -1.9, -0.2, 0.02),
            {**comparison("wer", 0.26, -0.44, 1.08, 0.5), "b": "baseline_dropout"},
        )
        assert verdict(run)[1] == (
            "It does not differ significantly from baseline_dropout in WER (+0.26 points [−0.44, +1.08])."
        )

    def test_takes_means_over_seeds(self, results: dict[str, Any]) -> None:
        sentences = verdict(results)
        # 10.4, 10.1 and 9.8 against 12.3, 12.0 and 11.7; the table shows the first seed's 10.35 and 12.29
        assert "(10.10% against 12.00%, " in sentences[0]
        assert sentences[-1] == "Figures of students are means of 3 seeds."

    def test_without_comparisons_says_so(self, results: dict[str, Any]) -> None:
        assert verdict(minimal(results)) == (
            "Word error rate: distilled 10.35%, baseline 12.29%, ensemble 10.87%; "
            "no comparison shows whether the differences are significant.",
        )

    def test_of_another_test_set_does_not_count(self, results: dict[str, Any]) -> None:
        run = with_comparisons(results, {**comparison("wer", -1.0, -1.9, -0.2, 0.02), "test_set": "other"})
        assert verdict(run)[0].startswith("Word error rate:")

    def test_needs_a_student_and_a_baseline(self, results: dict[str, Any]) -> None:
        few = minimal(results)
        del few["systems"]["distilled"]
        assert verdict(few) == ()

    def test_ends_the_terminal_s_table(self, results: dict[str, Any]) -> None:
        assert "The distilled student (20% of the ensemble's parameters, RTF" in print_table(results)


class TestProvenance:
    def trained_at(self, results: dict[str, Any], **revisions: str) -> dict[str, Any]:
        few = minimal(results)
        for name, revision in revisions.items():
            made = {"git_sha": revision, "code": "5eed", "device": "one GPU", "finished": "2024-05-01T12:34:56+00:00"}
            few["systems"][name] |= made
        return few

    def test_of_every_system_is_shown(self, results: dict[str, Any]) -> None:
        same = dict.fromkeys(("baseline", "teacher_0", "distilled"), results["git_sha"])
        run = self.trained_at(results, **same)
        run["systems"]["ensemble"]["device"] = "one GPU, a CPU"
        table = provenance_table(run)
        assert table is not None
        assert table.headers == ("system", "revision", "digest of the sources", "device", "finished (UTC)")
        by_name = {row[0]: row[1:] for row in table.rows}
        assert by_name["distilled"] == (results["git_sha"], "5eed", "one GPU", "2024-05-01 12:34")
        assert by_name["ensemble"] == ("–", "–", "one GPU, a CPU", "–")
        assert by_name["scoring"] == (results["git_sha"], "–", results["device"], "–")
        assert revisions_text(run) is None

    def test_revisions_that_differ_are_a_caveat(self, results: dict[str, Any]) -> None:
        run = self.trained_at(results, baseline="1111111", distilled="2222222")
        run["systems"]["ensemble"]["git_sha"] = "1111111, 3333333"
        expected = (
            "Not all systems come from one revision of the code: 1111111 (baseline); 2222222 (distilled); "
            f"{results['git_sha']} (scoring)."
        )
        assert caveats(run) == (expected,)
        assert "Caution: Not all systems" in print_table(run)

    def test_changed_sources_of_one_revision_are_a_caveat(self, results: dict[str, Any]) -> None:
        revision = results["git_sha"]
        run = self.trained_at(results, baseline=revision, distilled=revision)
        run["systems"]["distilled"]["code"] = "0dd"
        assert caveats(run) == (
            f"Not all systems come from one revision of the code: {revision}, sources 5eed (baseline); "
            f"{revision}, sources 0dd (distilled); {revision} (scoring).",
        )

    def test_may_be_missing(self, results: dict[str, Any]) -> None:
        assert provenance_table(minimal(results)) is None
        assert caveats(minimal(results)) == ()
