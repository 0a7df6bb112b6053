"""RESULTS.md, the terminal table and report.html say what results.json says, safely and completely."""

from __future__ import annotations

import base64
import io
import math
import re
import wave
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib", reason="the extra `report` is not installed")
pytest.importorskip("jinja2", reason="the extra `report` is not installed")
pytest.importorskip("soundfile", reason="the extra `decode` is not installed")

import soundfile

from asrkd.errors import InputError
from asrkd.files import read_json, write_json
from asrkd.report import print_table, write_report, write_results_md
from asrkd.report.page import Figure, Section, audio_uri, render_page
from asrkd.report.plots import panel, to_svg
from asrkd.report.tables import Table, comparisons_table, duration, magnitude

HOSTILE = '<script>alert("x")</script>|`$\\frac{&amp;*_a_'
VOID = {"meta", "br", "img", "input", "link", "hr"}
REFERENCES = ("src", "href", "xlink:href", "srcset", "data", "action", "poster")


def history(epochs: int, start: float, end: float, seed: int) -> list[dict[str, float]]:
    noise = np.random.default_rng(seed).normal(0, 0.002, epochs)
    progress = 1 - np.exp(-np.arange(1, epochs + 1) / (epochs / 4))
    rows = []
    for epoch, (gone, jitter) in enumerate(zip(progress, noise, strict=True)):
        accuracy = start + (end - start) * gone + jitter
        loss = 3.2 - 3.3 * accuracy + 0.4 * gone**6
        rows.append(
            {
                "train_loss": loss * 0.9,
                "dev_loss": loss,
                "dev_accuracy": accuracy,
                "lr": 0.08 * 0.5 ** (epoch // 4),
                "seconds": 9.5,
                "frames_per_sec": 18_500.0,
            }
        )
    return rows


def system(percent: float, accuracy: float, ce: float, seed: int, **more: Any) -> dict[str, Any]:
    errors = round(percent * 7.73)
    shares = {"ins": errors // 4, "del": errors // 8}
    wer = {"percent": percent, **shares, "sub": errors - sum(shares.values()), "words": 773}
    return {
        "parameters": 1_528_620,
        "macs_per_frame": 1_526_272,
        "frame_accuracy": accuracy,
        "cross_entropy": ce,
        "wer": {**wer, "ci95": [percent - 2.31, percent + 2.57]},
        "rtf": 0.0613,
        "history": history(18, 0.35, accuracy, seed),
        **more,
    }


def wav_bytes(seconds: float = 1.0, sampling_rate: int = 8000) -> bytes:
    times = np.arange(int(seconds * sampling_rate)) / sampling_rate
    samples = (8000 * np.sin(2 * math.pi * 220 * times) * np.hanning(len(times))).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sampling_rate)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def alignment_plot(num_frames: int = 240) -> dict[str, Any]:
    random = np.random.default_rng(3)
    names = ["SIL", "R", "AH", "B", "AW", "T", "SIL", "F", "IH", "F", "T", "IY", "TH", "R", "IY", "SIL"]
    bounds = np.linspace(0, num_frames, len(names) + 1).astype(int)
    phones = [(name, int(a), int(b)) for name, a, b in zip(names, bounds, bounds[1:], strict=False)]
    feats = np.zeros((num_frames, 40), np.float32)
    pdf_ids = np.zeros(num_frames, int)
    for name, start, end in phones:
        centre = random.uniform(5, 35)
        shape = 0.0 if name == "SIL" else 3.0
        feats[start:end] = shape * np.exp(-((np.arange(40) - centre) ** 2) / 60) + 0.3 * random.normal(
            size=(end - start, 40)
        )
        for state, frames in enumerate(np.array_split(np.arange(start, end), 3)):
            pdf_ids[frames] = state if name == "SIL" else random.integers(3, 300)
    words = [
        ("RUBOUT", bounds[1], bounds[6]),
        ("FIFTY", bounds[7], bounds[12]),
        ("THREE", bounds[12], bounds[15]),
    ]
    return {
        "utt_id": "an391-mjwl-b",
        "feats": feats,
        "phones": phones,
        "pdf_ids": pdf_ids,
        "frame_shift_ms": 10.0,
        "words": words,
    }


def worst_utterances() -> list[dict[str, Any]]:
    said = ["ENTER", "F", "L", "E", "U", "R", "HYPHEN", "ONE", "THREE", "SEVEN"]
    wrong: list[tuple[str | None, str | None]] = [(word, word) for word in said]
    wrong[1], wrong[2], wrong[5] = ("F", "S"), ("L", None), ("R", "ARE")
    better = [*wrong[:2], (None, "EIGHT"), ("L", "L"), *wrong[3:]]
    rows = []
    for utt_id in ("an152-mwhw-b", "cen5-marh-b"):
        for name, pairs in (("baseline", wrong), ("distilled", better)):
            errors = sum(ref != hyp for ref, hyp in pairs)
            rows.append(
                {
                    "utt_id": utt_id,
                    "system": name,
                    "alignment": pairs,
                    "errors": errors,
                    "speaker": utt_id.split("-")[1],
                }
            )
        rows[-2]["audio"] = wav_bytes()
    return rows


def comparison(metric: str, delta: float, low: float, high: float, p: float) -> dict[str, Any]:
    return {"a": "distilled", "b": "baseline", "metric": metric, "delta": delta, "ci95": [low, high], "p": p}


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """A run such as AN4's, every optional part filled."""
    teachers = {
        f"teacher_{m}": system(11.4 + 0.31 * (m % 3), 0.7391 + 0.0013 * m, 0.834 - 0.002 * m, m) for m in range(5)
    }
    sweep = [
        {
            "temperature": t,
            "alpha": a,
            "dev_frame_accuracy": 0.742 + 0.006 * a - 0.0006 * abs(t - 3) + 0.0005 * math.sin(7 * t + a),
            "dev_cross_entropy": 0.801 - 0.02 * a + 0.002 * abs(t - 3),
            "dev_wer": 12.3 - a + 0.05 * t,
            "chosen": (t, a) == (2, 0.9),
        }
        for a in (0.5, 0.9, 1.0)
        for t in (1, 2, 5, 10)
    ]
    sweep.append(
        {
            "temperature": 1,
            "alpha": 0.0,
            "dev_frame_accuracy": 0.7338,
            "dev_cross_entropy": 0.861,
            "dev_wer": 12.9,
        }
    )
    pairwise = [[0.0 if i == j else 0.2 + 0.004 * (i + j) for j in range(5)] for i in range(5)]
    return {
        "recipe": "an4",
        "command": "recipes/an4/run.sh --corpus-dir ../shared/data/an4 --ensemble.size=5",
        "git_sha": "41b9b90c0ffee",
        "config_sha": "8f3a0c1d2e4b5a69",
        "seed": [0, 1, 2],
        "device": "cpu, 2 cores",
        "systems": {
            "baseline": system(12.29, 0.7338, 0.8612, 10, description="4×512, dropout 0.2"),
            "baseline_no_dropout": system(13.84, 0.6998, 1.1021, 11, description="4×512, no dropout"),
            **teachers,
            "ensemble": {
                **system(10.87, 0.7498, 0.7721, 12),
                "parameters": 7_643_100,
                "history": None,
                "rtf": 0.144,
            },
            "distilled": system(10.35, 0.7493, 0.7743, 13, description="4×512, T=2, α=0.9"),
        },
        "comparisons": [
            comparison("wer", -1.94, -3.31, -0.52, 0.0064),
            comparison("frame_accuracy", 0.0155, 0.0121, 0.0189, 0.0),
            comparison("cross_entropy", -0.0869, -0.0983, -0.0757, 0.0001),
            {**comparison("wer", -0.52, -1.6, 0.55, 0.34), "b": "ensemble"},
        ],
        "gap_recovered": {
            "frame_accuracy": {"value": 0.9688, "ci95": [0.81, 1.12], "reason": None},
            "wer": {"value": None, "ci95": None, "reason": "the ensemble's interval includes the baseline"},
        },
        "seeds": [
            {
                "seed": seed,
                "system": name,
                "frame_accuracy": acc + 0.0011 * seed,
                "cross_entropy": ce - 0.003 * seed,
                "wer": w - 0.3 * seed,
            }
            for name, acc, ce, w in (
                ("baseline", 0.7338, 0.861, 12.3),
                ("distilled", 0.7493, 0.774, 10.4),
                ("ensemble", 0.7498, 0.772, 10.9),
            )
            for seed in range(3)
        ],
        "sweep": sweep,
        "disagreement": {
            "pairwise": pairwise,
            "mean_kl": [0.081, 0.079, 0.084, 0.08, 0.077],
            "accuracy": [0.73, 0.74, 0.75, 0.74, 0.74],
            "ensemble_accuracy": 0.7561,
            "num_frames": 25_560,
        },
        "store": [
            {
                "top_k": k,
                "temperature": t,
                "bytes_per_frame": 4 * k + 2,
                "kl_to_dense": 0.4 * t**0.5 / k**1.4,
                "chosen": k == 20,
            }
            for t in (1, 2, 5)
            for k in (5, 10, 20, 50)
        ],
        "alignment_rounds": [
            *(
                {"kind": "single Gaussians", "round": n, "log_like_per_frame": -61.2 + 3.1 * (1 - 0.6**n)}
                for n in range(1, 9)
            ),
            *(
                {"kind": "network", "round": f"mono_{n}", "log_like_per_frame": 1.62 + 0.3 * (1 - 0.5**n)}
                for n in range(1, 4)
            ),
        ],
        "confusions": {
            "baseline": [("B", "D", 4), ("E", None, 4), (None, "THE", 3), ("EIGHT", "H", 3), ("P", "T", 2)],
            "distilled": [("B", "D", 3), ("FIFTEEN", "FIFTY", 2), (None, "A", 2)],
        },
        "tuning": [
            {
                "acoustic_scale": a,
                "insertion_score": i,
                "wer": 11 + 300 * (a - 0.1) ** 2 + 0.2 * (i + 2) ** 2,
                "chosen": (a, i) == (0.1, -2),
            }
            for a in (0.06, 0.08, 0.1, 0.15, 0.2)
            for i in (-4, -3, -2, -1, 0)
        ],
        "corpus": {
            "train": {"utterances": 861, "speakers": 67, "hours": 0.643, "frames": 231_480, "words": 2_690},
            "dev": {"utterances": 87, "speakers": 7, "hours": 0.071, "frames": 25_560, "words": 281},
            "test": {"utterances": 130, "speakers": 10, "hours": 0.101, "frames": 36_540, "words": 773},
        },
        "oov_rate": 0.0,
        "excluded": {"tones": 31, "bracketed text": 12, "empty": 2},
        "rejected": [
            ("an406-fcaw-b", "no path through the training graph"),
            ("cen9-x", "0.02 s is too short for 3 words"),
        ],
        "timing": {
            "corpus": 1.2,
            "manifests": 3.1,
            "features": 24.0,
            "lang": 4.2,
            "align": 190.0,
            "tree": 3.3,
            "teachers": 1040.0,
            "students": 420.0,
            "graph": 14.0,
            "decode": 160.0,
        },
        "environment": {"python": "3.10.14", "torch": "1.13.1", "k2": "1.23.4", "cpu": "two cores, AVX-512"},
    }


@pytest.fixture(scope="module")
def extras() -> dict[str, Any]:
    return {"worst_utterances": worst_utterances(), "alignment_plot": alignment_plot()}


class Page(HTMLParser):
    """Checks the nesting of a page and gathers its ids, links, resources, tables and text."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.resources: list[tuple[str, str]] = []
        self.alts: list[str | None] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.scripts: list[str] = []
        self.text = ""
        self._rows: list[list[str]] = []
        self._caption = ""
        self.feed(markup)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.ids.append(str(given["id"]))
        references = [str(value) for key, value in attrs if key in REFERENCES]
        if tag in ("a", "use"):
            self.links += references
        else:
            self.resources += [(tag, reference) for reference in references]
        if tag == "svg":
            assert given.get("aria-hidden") == "true"
        if given.get("role") == "img" or tag == "img":
            self.alts.append(given.get("aria-label") or given.get("alt"))
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        self.text += data
        if "script" in self.open:
            self.scripts.append(data)
        if "caption" in self.open:
            self._caption += data
        elif self.open and self.open[-1] in ("td", "th"):
            self._rows[-1][-1] += data


def rendered(results: dict[str, Any], extras: dict[str, Any], folder: Path) -> tuple[str, Page]:
    path = folder / "report.html"
    write_report(results, extras, path)
    markup = path.read_text(encoding="utf-8")
    return markup, Page(markup)


@pytest.fixture(scope="module")
def report(
    results: dict[str, Any], extras: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Page]:
    return rendered(results, extras, tmp_path_factory.mktemp("report"))


def minimal(results: dict[str, Any]) -> dict[str, Any]:
    """What DESIGN §5 requires, and systems without anything optional."""
    kept = {key: results[key] for key in ("recipe", "command", "git_sha", "config_sha", "seed", "device")}
    required = ("parameters", "macs_per_frame", "frame_accuracy", "cross_entropy", "wer", "rtf")
    systems = {
        name: {key: results["systems"][name][key] for key in required}
        for name in ("baseline", "teacher_0", "ensemble", "distilled")
    }
    return {**kept, "systems": systems}


def cell(rows: list[list[str]], row: str, column: str) -> str:
    return next(found for found in rows if found[0].strip() == row)[rows[0].index(column)]


def markdown_rows(text: str, first_header: str) -> list[list[str]]:
    """The first table of a Markdown text whose first column has this header, without its rule."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if re.match(rf"\|\s*{first_header}\s*\|", line))
    table = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        table.append([part.strip().strip("*") for part in line.strip("|").split("|")])
    return [table[0], *table[2:]]


class TestPage:
    def test_is_well_formed_with_unique_ids(self, report: tuple[str, Page]) -> None:
        _, page = report
        assert len(page.ids) == len(set(page.ids))

    def test_contents_and_drawings_point_within_the_page(self, report: tuple[str, Page]) -> None:
        markup, page = report
        assert page.links
        assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
        clips = re.findall(r"url\(([^)]*)\)", markup)
        assert clips
        assert all(clip.startswith("#") and clip[1:] in page.ids for clip in clips)

    def test_needs_no_network(self, report: tuple[str, Page]) -> None:
        markup, page = report
        assert {tag for tag, _ in page.resources} == {"audio", "image"}
        assert all(value.startswith("data:") for _, value in page.resources)
        without_payload = re.sub(r"base64,[^\"']*", "", markup)
        assert "http" not in without_payload.lower()
        assert not re.search(r"[\"'(]//|@import", without_payload)

    def test_every_drawing_says_what_it_shows(self, report: tuple[str, Page]) -> None:
        markup, page = report
        assert len(page.alts) == markup.count("<svg")
        assert all(alt and len(alt) > 20 for alt in page.alts)

    def test_holds_every_section(self, report: tuple[str, Page]) -> None:
        wanted = "summary systems comparisons sweep training ensemble store alignment scales confusions utterances"
        assert {*wanted.split(), "corpus", "run"} <= set(report[1].ids)

    def test_is_small(self, report: tuple[str, Page]) -> None:
        assert len(report[0]) < 1_000_000

    def test_is_the_same_bytes_every_time(
        self, results: dict[str, Any], extras: dict[str, Any], tmp_path: Path
    ) -> None:
        few = {**minimal(results), "store": results["store"]}
        assert rendered(few, extras, tmp_path)[0] == rendered(few, extras, tmp_path)[0]

    def test_colours_follow_the_reader(self, report: tuple[str, Page]) -> None:
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


class TestNumbers:
    def test_systems_are_those_of_results_json(self, results: dict[str, Any], report: tuple[str, Page]) -> None:
        rows = report[1].tables["Systems"]
        for name, system in results["systems"].items():
            shown = float(cell(rows, name, "frame acc. %"))
            assert shown == pytest.approx(100 * system["frame_accuracy"], abs=0.00501)
            assert float(cell(rows, name, "CE nats")) == pytest.approx(system["cross_entropy"], abs=5.01e-5)
            wer = system["wer"]
            assert float(cell(rows, name, "WER %")) == pytest.approx(wer["percent"], abs=0.00501)
            for key in ("ins", "del", "sub", "words"):
                assert int(cell(rows, name, key)) == wer[key]
            ends = [float(end) for end in cell(rows, name, "95% interval").strip("[]").split(",")]
            assert ends == pytest.approx(wer["ci95"], abs=0.00501)
            assert float(cell(rows, name, "RTF")) == pytest.approx(system["rtf"], abs=5.01e-4)

    def test_markdown_and_page_agree(self, results: dict[str, Any], report: tuple[str, Page], tmp_path: Path) -> None:
        write_results_md(results, tmp_path / "RESULTS.md")
        rows = markdown_rows((tmp_path / "RESULTS.md").read_text(encoding="utf-8"), "system")
        assert [[part.strip() for part in row] for row in report[1].tables["Systems"]] == rows

    def test_from_results_json_as_from_memory(self, results: dict[str, Any], tmp_path: Path) -> None:
        write_json(tmp_path / "results.json", results)
        write_results_md(read_json(tmp_path / "results.json"), tmp_path / "a.md")
        write_results_md(results, tmp_path / "b.md")
        assert (tmp_path / "a.md").read_bytes() == (tmp_path / "b.md").read_bytes()

    def test_comparisons_read_in_the_metric_s_direction(self, report: tuple[str, Page]) -> None:
        rows = report[1].tables["Paired comparisons"]
        assert [row[-1] for row in rows[1:]] == ["distilled better"] * 3 + ["not separated"]
        assert [row[3] for row in rows[1:]] == ["−1.94", "+1.55", "−0.0869", "−0.52"]
        assert rows[2][5] == "<0.001"

    def test_worse_student_is_called_worse(self, results: dict[str, Any]) -> None:
        worse = [
            comparison("wer", 1.0, 0.2, 1.9, 0.02),
            comparison("frame_accuracy", -0.01, -0.02, -0.005, 0.01),
        ]
        table = comparisons_table({**results, "comparisons": worse})
        assert table is not None
        assert [row[-1] for row in table.rows] == ["baseline better", "baseline better"]

    def test_seeds_give_mean_and_sample_deviation(self, report: tuple[str, Page]) -> None:
        # 12.3, 12.0 and 11.7
        assert cell(report[1].tables["Over seeds"], "baseline", "WER %") == "12.00 ± 0.30"

    def test_gap_is_a_share_or_a_reason(self, results: dict[str, Any], report: tuple[str, Page]) -> None:
        rows = report[1].tables["Gap recovered"]
        assert cell(rows, "frame accuracy", "recovered") == "96.9%"
        assert cell(rows, "WER", "reason") == "the ensemble's interval includes the baseline"
        plain = print_table({**minimal(results), "gap_recovered": {"frame_accuracy": 0.86, "wer": None}})
        assert "Gap recovered, frame accuracy: 86%." in plain
        assert "Gap recovered, WER: undefined (the ensemble is no better than the baseline)." in plain

    def test_gap_without_interval_keeps_its_reason(self, results: dict[str, Any], tmp_path: Path) -> None:
        gap = {"wer": {"value": 0.7, "ci95": None, "reason": "no finite interval"}}
        _, page = rendered({**minimal(results), "gap_recovered": gap}, {}, tmp_path)
        assert page.tables["Gap recovered"][1] == ["WER", "70.0%", "no finite interval"]

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


class TestResultsMd:
    def test_opens_with_its_command(self, results: dict[str, Any], tmp_path: Path) -> None:
        write_results_md(results, tmp_path / "RESULTS.md")
        lines = (tmp_path / "RESULTS.md").read_text(encoding="utf-8").splitlines()
        assert lines[:3] == ["```sh", results["command"], "```"]

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


@pytest.fixture(scope="module")
def without(results: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page with every optional part null."""
    nulls = dict.fromkeys(set(results) - set(minimal(results)))
    return rendered({**minimal(results), **nulls}, {}, tmp_path_factory.mktemp("without"))[1]


class TestMissingParts:
    def test_only_what_design_requires(self, results: dict[str, Any], tmp_path: Path) -> None:
        few = minimal(results)
        _, page = rendered(few, {}, tmp_path)
        assert [name for name in page.ids if f"{name}-title" in page.ids] == ["summary", "systems"]
        write_results_md(few, tmp_path / "RESULTS.md")
        assert "\n##" not in (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
        assert "distilled" in print_table(few)

    @pytest.mark.parametrize(
        "key",
        [
            *("comparisons", "gap_recovered", "seeds", "sweep", "disagreement", "store", "alignment_rounds"),
            *("confusions", "tuning", "corpus", "oov_rate", "excluded", "rejected", "timing", "environment"),
        ],
    )
    def test_each_optional_part_stands_alone(
        self, results: dict[str, Any], without: Page, tmp_path: Path, key: str
    ) -> None:
        few = minimal(results)
        _, alone = rendered({**few, key: results[key]}, {}, tmp_path)
        assert len(alone.text) > len(without.text)
        write_results_md({**few, key: results[key]}, tmp_path / "RESULTS.md")

    def test_undecoded_teachers_have_dashes(self, results: dict[str, Any]) -> None:
        few = minimal(results)
        few["systems"]["teacher_0"].update(wer=None, rtf=None, cross_entropy=math.nan)
        line = next(line for line in print_table(few).splitlines() if line.startswith("teacher_0"))
        assert line.split()[2:] == ["–"] * 6 + ["1.53", "M", "–"]

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


class TestHostileText:
    def test_reaches_the_reader_as_text_only(
        self, results: dict[str, Any], extras: dict[str, Any], report: tuple[str, Page], tmp_path: Path
    ) -> None:
        pairs = [(HOSTILE, None), (None, HOSTILE)]
        worst = [{**row, "utt_id": HOSTILE, "alignment": pairs} for row in extras["worst_utterances"]]
        plot = extras["alignment_plot"]
        plot = {**plot, "utt_id": HOSTILE, "phones": [(HOSTILE, a, b) for _, a, b in plot["phones"]]}
        hostile = {
            **minimal(results),
            "recipe": HOSTILE,
            "command": HOSTILE,
            "rejected": [(HOSTILE, HOSTILE)],
            "confusions": [(HOSTILE, HOSTILE, 2)],
            "environment": {HOSTILE: HOSTILE},
            "timing": {HOSTILE: 3.0},
            "systems": {**results["systems"], HOSTILE: results["systems"]["distilled"]},
        }
        _, page = rendered(hostile, {"worst_utterances": worst, "alignment_plot": plot}, tmp_path)
        assert page.scripts == report[1].scripts
        assert page.text.count(HOSTILE) > 15


class TestAudio:
    def test_is_embedded_once_an_utterance_and_keeps_its_samples(self, report: tuple[str, Page]) -> None:
        sources = [value for tag, value in report[1].resources if tag == "audio"]
        assert len(sources) == 2
        kind, payload = sources[0].split(",", 1)
        assert kind == "data:audio/flac;base64"
        samples, sampling_rate = soundfile.read(io.BytesIO(base64.b64decode(payload)), dtype="int16")
        expected, _ = soundfile.read(io.BytesIO(wav_bytes()), dtype="int16")
        assert sampling_rate == 8000
        np.testing.assert_array_equal(samples, expected)

    def test_may_be_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.wav").write_bytes(wav_bytes())
        assert audio_uri(tmp_path / "a.wav", "a") == audio_uri(wav_bytes(), "a")

    def test_sphere_is_recoded(self) -> None:
        samples, sampling_rate = soundfile.read(io.BytesIO(wav_bytes()), dtype="int16")
        sphere = io.BytesIO()
        soundfile.write(sphere, samples, sampling_rate, format="NIST", subtype="PCM_16")
        assert sphere.getvalue().startswith(b"NIST_1A")
        assert audio_uri(sphere.getvalue(), "a") == audio_uri(wav_bytes(), "a")

    def test_floating_point_samples_are_heard(self) -> None:
        samples, sampling_rate = soundfile.read(io.BytesIO(wav_bytes()))
        whole = io.BytesIO()
        soundfile.write(whole, samples, sampling_rate, format="WAV", subtype="FLOAT")
        flac = base64.b64decode(audio_uri(whole.getvalue(), "a").partition(",")[2])
        assert np.abs(samples).max() > 0.01
        assert np.allclose(soundfile.read(io.BytesIO(flac))[0], samples, atol=1e-4)

    @pytest.mark.parametrize("content", [None, b"NIST_1A\n   1024\n", b"RIFF but cut", b""])
    def test_unusable_file_is_named_with_its_utterance(self, tmp_path: Path, content: bytes | None) -> None:
        path = tmp_path / "a.wav"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match="an9-fash-b"):
            audio_uri(path, "an9-fash-b")


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


class TestOtherRecipes:
    def test_build_a_page_of_their_own_sections(self) -> None:
        with panel("Errors", "temperature", "errors") as (figure, axes):
            axes.plot([1, 20], [113, 95])
            drawing = Figure(to_svg(figure, "errors"), "Errors fall with temperature.")
        table = Table("Scorecard", ("claim", "paper", "ours"), (("T=20", "74", "95"),), "lrr")
        section = Section("mnist", "MNIST", figures=(drawing,), tables=(table,))
        page = Page(render_page("MNIST", "", [section], {"seed": "0"}, "recipes/mnist/run.sh"))
        assert page.tables["Scorecard"][1] == ["T=20", "74", "95"]
        with pytest.raises(ValueError, match="repeat"):
            render_page("MNIST", "", [section, section], {}, "run.sh")

    def test_ragged_tables_are_refused(self) -> None:
        with pytest.raises(ValueError, match="differ in length"):
            Table("t", ("a", "b"), (("1",),), "lr")
