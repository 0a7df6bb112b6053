"""Flat start against the truth: speech synthesised by festival, whose phone times are known."""

from __future__ import annotations

from collections import Counter, defaultdict
from difflib import SequenceMatcher
from pathlib import Path

import pytest
import torch
from festival_speech import PAUSE, SAMPLING_RATE, VOICES, Spoken, available_voices, sentences, speak

from asrkd.align.alignment import Alignment
from asrkd.align.flat_start import flat_start
from asrkd.frames import FrameStore
from asrkd.lang.lexicon import Lexicon
from asrkd.lang.phones import SILENCE

pytestmark = [pytest.mark.k2, pytest.mark.slow]

# A slow voice (statistical, not of recorded diphones) says fewer.
NUM_SENTENCES = {"kal_diphone": 250, "cmu_us_slt_arctic_hts": 120}
FRAME_SHIFT_MS = 10.0
TOLERANCE_SEC = 0.030 + 1e-6
NOT_FOUND_SEC = 9.0

Timed = tuple[str, float, float]
"""phone, start and end in seconds."""


def lexicon_of(spoken: list[Spoken]) -> Lexicon:
    """Every way that festival said each word, the commonest first."""
    prons: defaultdict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    for sentence in spoken:
        for word, phones in sentence.words_and_pronunciations():
            prons[word][phones] += 1
    return Lexicon({word: tuple(pron for pron, _ in said.most_common()) for word, said in prons.items()})


def store_of(spoken: list[Spoken], folder: Path) -> FrameStore:
    """Log-mel energies of the sentences, mean and variance normalised over all: one speaker."""
    features = pytest.importorskip("lhotse.features")
    extractor = features.Fbank(features.FbankConfig(num_mel_bins=40, sampling_rate=SAMPLING_RATE))
    feats = [torch.from_numpy(extractor.extract(s.samples.numpy(), SAMPLING_RATE)) for s in spoken]
    mean, std = torch.cat(feats).mean(0), torch.cat(feats).std(0)
    rows = [
        (f"s{n:03d}", "voice", s.text, (x - mean) / std) for n, (s, x) in enumerate(zip(spoken, feats, strict=True))
    ]
    return FrameStore.write(folder / "store", rows, {"frame_shift_ms": FRAME_SHIFT_MS}, "festival")


def boundary_errors(truth: list[Timed], found: list[Timed]) -> list[float]:
    """How late (seconds) each true boundary was put: a start a phone, and an end where a pause follows it.

    Phones are matched in order; a boundary of a phone that was not found there counts as far off.
    """
    matcher = SequenceMatcher(None, [t[0] for t in truth], [f[0] for f in found], autojunk=False)
    partner: dict[int, Timed] = {}
    for kind, a, a_end, b, b_end in matcher.get_opcodes():
        if kind == "equal" or a_end - a == b_end - b:  # another variant's vowel still has its place
            partner.update(zip(range(a, a_end), found[b:b_end], strict=True))
    errors = []
    for number, (_, start, end) in enumerate(truth):
        mine = partner.get(number)
        errors.append(mine[1] - start if mine else NOT_FOUND_SEC)
        if number + 1 == len(truth) or truth[number + 1][1] > end + 1e-6:
            errors.append(mine[2] - end if mine else NOT_FOUND_SEC)
    return errors


def all_errors(spoken: list[Spoken], alignment: Alignment) -> torch.Tensor:
    errors: list[float] = []
    for number, sentence in enumerate(spoken):
        ends = [0.0, *(end for _, end, _ in sentence.phones)]
        truth = [
            (phone, start, end) for start, (phone, end, _) in zip(ends, sentence.phones, strict=False) if phone != PAUSE
        ]
        segments = alignment.segments(f"s{number:03d}", FRAME_SHIFT_MS)
        errors += boundary_errors(truth, [tuple(s) for s in segments if s.phone != SILENCE])
    return torch.tensor(errors)


def test_errors_are_counted_by_hand() -> None:
    truth = [("a", 0.10, 0.20), ("b", 0.20, 0.30), ("c", 0.50, 0.60)]
    found = [("a", 0.11, 0.18), ("x", 0.18, 0.33), ("c", 0.49, 0.62)]
    assert boundary_errors(truth, found) == pytest.approx([0.01, -0.02, 0.03, -0.01, 0.02])
    assert boundary_errors(truth, found[:2])[-2:] == [NOT_FOUND_SEC, NOT_FOUND_SEC]


@pytest.mark.parametrize("voice", VOICES)
def test_nine_in_ten_boundaries_within_30_ms(voice: str, tmp_path: Path) -> None:
    pytest.importorskip("k2")
    if voice not in available_voices():
        pytest.skip(f"festival's voice {voice} is missing (apt-get install festival {VOICES[voice]})")
    spoken = speak(sentences(NUM_SENTENCES[voice]), voice, tmp_path)
    assert all(" ".join(word for word, _ in s.words_and_pronunciations()) == s.text for s in spoken)
    alignment = flat_start(store_of(spoken, tmp_path), lexicon_of(spoken))
    errors = all_errors(spoken, alignment)
    within = (errors.abs() <= TOLERANCE_SEC).float().mean().item()
    late_sec = errors.median().item()
    print(f"{voice}: {100 * within:.1f}% of {len(errors)} within 30 ms, median {1000 * late_sec:+.1f} ms late")
    assert not alignment.dropped
    assert within >= 0.90
    assert abs(late_sec) <= 0.010
