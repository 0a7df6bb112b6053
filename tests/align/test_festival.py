"""Flat start against the truth: speech synthesised by festival, whose phone times are known."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import pytest
import torch
from festival_speech import PAUSE, SAMPLING_RATE, VOICES, Spoken, available_voices, sentences, speak

from asrkd.align.flat_start import flat_start
from asrkd.data.transcripts import SILENCE
from asrkd.features.store import FrameStore
from asrkd.hmm.alignment import Alignment, Segment
from asrkd.lang.lexicon import Lexicon
from asrkd.scoring.boundaries import BoundaryErrors, boundary_errors, joined

pytestmark = pytest.mark.slow

# A slow voice (statistical, not of recorded diphones) says fewer.
NUM_SENTENCES = {"kal_diphone": 250, "cmu_us_slt_arctic_hts": 120}
FRAME_SHIFT_MS = 10.0


def lexicon_of(spoken: list[Spoken]) -> Lexicon:
    """Every way that festival said each word, the commonest first."""
    prons: defaultdict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    for sentence in spoken:
        for word, phones in sentence.words_and_pronunciations():
            prons[word][phones] += 1
    return Lexicon({word: tuple(pron for pron, _ in said.most_common()) for word, said in prons.items()})


def write_store(spoken: list[Spoken], folder: Path) -> Path:
    """Log-mel energies of the sentences, mean and variance normalised over all: one speaker."""
    from lhotse import features

    extractor = features.Fbank(features.FbankConfig(num_mel_bins=40, sampling_rate=SAMPLING_RATE))
    feats = [torch.from_numpy(extractor.extract(s.samples.numpy(), SAMPLING_RATE)) for s in spoken]
    mean, std = torch.cat(feats).mean(0), torch.cat(feats).std(0)
    rows = [
        (f"s{n:03d}", "voice", s.text, (x - mean) / std) for n, (s, x) in enumerate(zip(spoken, feats, strict=True))
    ]
    FrameStore.write(folder / "store", rows, {"frame_shift_ms": FRAME_SHIFT_MS}, "festival")
    return folder / "store"


def all_errors(spoken: list[Spoken], alignment: Alignment) -> BoundaryErrors:
    errors = []
    for number, sentence in enumerate(spoken):
        ends = [0.0, *(end for _, end, _ in sentence.phones)]
        truth = [
            Segment(SILENCE if phone == PAUSE else phone, start, end)
            for start, (phone, end, _) in zip(ends, sentence.phones, strict=False)
        ]
        errors.append(boundary_errors(truth, alignment.segments(f"s{number:03d}", FRAME_SHIFT_MS)))
    return joined(errors)


@pytest.mark.needs("k2", "lhotse")
@pytest.mark.parametrize("voice", VOICES)
def test_nine_in_ten_boundaries_within_30_ms(voice: str, tmp_path: Path) -> None:
    if voice not in available_voices():
        pytest.skip(f"festival's voice {voice} is missing (apt-get install festival {VOICES[voice]})")
    spoken = speak(sentences(NUM_SENTENCES[voice]), voice, tmp_path)
    assert all(" ".join(word for word, _ in s.words_and_pronunciations()) == s.text for s in spoken)
    lexicon_of(spoken).save(tmp_path / "lexicon.txt")
    alignment = flat_start(write_store(spoken, tmp_path), tmp_path / "lexicon.txt", tmp_path / "scratch")
    errors = all_errors(spoken, alignment)
    within, late_ms = errors.within(30.0), errors.median_late_ms
    print(f"{voice}: {100 * within:.1f}% of {errors.late_sec.size} within 30 ms, median {late_ms:+.1f} ms late")
    assert not alignment.rejected
    assert within >= 0.90
    assert abs(late_ms) <= 10.0
