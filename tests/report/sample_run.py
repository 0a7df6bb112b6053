"""A made-up run for tests of the report: results.json and what JSON cannot hold."""

from __future__ import annotations

import io
import math
import wave
from typing import Any

import numpy as np


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
    refs = ["ENTER", "F", "L", "E", "U", "R", "HYPHEN", "ONE", "THREE", "SEVEN"]
    wrong: list[tuple[str | None, str | None]] = [(word, word) for word in refs]
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


def whole_run() -> dict[str, Any]:
    """results.json of a run such as AN4's, every optional part filled."""
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
            "configured": (t, a) == (2, 0.9),
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
                {
                    "kind": "network",
                    "round": f"mono_{n}",
                    "log_like_per_frame": 1.62 + 0.3 * (1 - 0.5**n),
                    "wider_beam": 3 - n,
                }
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
        "unaligned": [{"split": "dev", "utt_id": "cen8-fbbh-b", "reason": "no pronunciation: 1984"}],
        "doubtful": [
            doubtful("train", "an254-fash-b", -3.63, 19.3, excluded=True),
            doubtful("test", "an392-mjwl-b", 1.91, 4.2, excluded=False),
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


def doubtful(split: str, utt_id: str, nats: float, deviations: float, excluded: bool) -> dict[str, Any]:
    return {
        "split": split,
        "utt_id": utt_id,
        "words": "RUBOUT FIFTY THREE",
        "log_like_per_frame": nats,
        "median": 3.53,
        "deviations_below": deviations,
        "excluded": excluded,
    }


def whole_extras() -> dict[str, Any]:
    """Audio and an alignment for `whole_run`."""
    return {"worst_utterances": worst_utterances(), "alignment_plot": alignment_plot()}


def minimal(results: dict[str, Any]) -> dict[str, Any]:
    """The keys that are required, and systems without anything optional."""
    required_keys = {key: results[key] for key in ("recipe", "command", "git_sha", "config_sha", "seed", "device")}
    required = ("parameters", "macs_per_frame", "frame_accuracy", "cross_entropy", "wer", "rtf")
    systems = {
        name: {key: results["systems"][name][key] for key in required}
        for name in ("baseline", "teacher_0", "ensemble", "distilled")
    }
    return {**required_keys, "systems": systems}
