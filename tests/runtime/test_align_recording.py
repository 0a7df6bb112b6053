"""Alignments of texts: times, misfits, the dictionary and the texts of several recordings."""

from __future__ import annotations

import io
import itertools
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toy_model import FRONT_END, SEARCH, describe, path_scores, write_toy_language

from asrkd.errors import InputError
from asrkd.runtime import align as align_module
from asrkd.runtime.align import MAX_EXCESS, Aligner, Alignment, excesses
from asrkd.runtime.align_graph import ContextTree, GraphWeights
from asrkd.runtime.align_text import Dictionary, find_texts
from asrkd.runtime.graph import WordGraph
from asrkd.runtime.inputs import AudioInput

SPOKEN = [("SIL", 6), ("A", 6), ("B", 9), ("SIL", 4), ("B", 6), ("A", 6), ("C", 30), ("SIL", 5)]
SHIFT_SAMPLES = FRONT_END.sampling_rate // 100


@pytest.fixture(scope="module")
def aligner(tmp_path_factory: pytest.TempPathFactory) -> Aligner:
    """It has the scores that `aligned` gives it."""
    folder = tmp_path_factory.mktemp("model")
    write_toy_language(folder)
    graph = WordGraph.load(folder, ("SIL",))
    description = describe()
    model: Any = SimpleNamespace(
        description=replace(description, search=replace(SEARCH, acoustic_scale=0.3)),
        search=SimpleNamespace(graph=graph),
        acoustic=SimpleNamespace(score_parts=None),
        sampling_rate=FRONT_END.sampling_rate,
        frame_shift_sec=0.01,
        silence_classes=graph.silence_pdfs,
    )
    weights = GraphWeights.of(graph.senones, description.graph)
    return Aligner(model, ContextTree.load(folder / "tree.json"), weights, Dictionary.of(graph))


def aligned(aligner: Aligner, *words: str, extra_samples: int = 0, next_best: str = "") -> Alignment:
    """`next_best`: a phone that fits better than other wrong ones."""
    scores = path_scores(SPOKEN).numpy()
    better = aligner.model.search.graph.senones.of_phones([next_best])
    scores[:, better] = np.maximum(scores[:, better], -8.0)
    aligner.model.acoustic.score_parts = lambda feats: [scores[:20], scores[20 : len(feats)]]  # type: ignore[method-assign,assignment,misc]
    num_samples = sum(frames for _, frames in SPOKEN) * SHIFT_SAMPLES + extra_samples
    noise = np.random.default_rng(0).normal(0.0, 0.1, num_samples).astype(np.float32)
    return aligner.align_samples(noise, words)


def test_words_phones_and_senones(aligner: Aligner) -> None:
    found = aligned(aligner, "AB", "ba", "C.")
    words = [(one.name, one.start, one.end) for one in found.words]
    assert words == [("AB", 0.06, 0.21), ("ba", 0.25, 0.37), ("C.", 0.37, 0.67)]
    ends = np.cumsum([frames for _, frames in SPOKEN]) / 100
    assert [(one.name, round(one.end, 6)) for one in found.phones] == [
        (phone, end) for (phone, _), end in zip(SPOKEN, ends.tolist(), strict=True)
    ]
    assert [one.name for one in found.senones[:4]] == ["SIL.0.0", "SIL.1.1", "SIL.2.2", "A.0.3"]
    for tier in (found.phones, found.senones):
        assert tier[0].start == 0.0 and tier[-1].end == found.duration
        assert all(one.end == other.start for one, other in itertools.pairwise(tier))
    assert found.misfit == 0.0 and not found.misfits


def test_the_last_interval_ends_with_the_audio(aligner: Aligner) -> None:
    for extra in (-30, 30):
        found = aligned(aligner, "AB", "BA", "C", extra_samples=extra)
        assert found.phones[-1].end == found.senones[-1].end == found.duration


def test_wrong_words_are_found(aligner: Aligner) -> None:
    found = aligned(aligner, "AB", "BA", "AB", next_best="B")
    (misfit,) = found.misfits
    assert (misfit.word, misfit.index) == ("AB", 2) and 0.3 <= misfit.start <= 0.4
    assert str(misfit).endswith("s (word 3, AB)")
    assert found.words[2].misfit > 5.0 and found.words[0].misfit == 0.0


def test_words_that_are_missing_in_the_text(aligner: Aligner) -> None:
    found = aligned(aligner, "AB", "BA", next_best="SIL")
    (misfit,) = found.misfits
    assert (misfit.word, misfit.index) == (None, None) and str(misfit).endswith("(between words)")
    assert misfit.start == pytest.approx(0.37, abs=0.04)


def test_texts_that_cannot_be_aligned(aligner: Aligner) -> None:
    with pytest.raises(InputError, match="audio: expected words of the model's lexicon, found XY; --lexicon adds"):
        aligned(aligner, "AB", "XY")
    with pytest.raises(InputError, match="found 2 others: XY, Z; --lexicon"):
        aligned(aligner, "XY", "Z", "XY")
    with pytest.raises(InputError, match=r"expected 0.90 s of audio or more for 10 words, found 0.72 s"):
        aligned(aligner, *["ABC"] * 10)
    with pytest.raises(InputError, match="expected a text of at least one word"):
        aligned(aligner)


def test_audio_that_is_too_long(aligner: Aligner, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(align_module, "best_path", too_large)
    with pytest.raises(InputError, match="expected audio and text that are shorter, found 1 s and 1 words: cut both"):
        aligned(aligner, "AB")


def test_stretches_of_misfit() -> None:
    quiet, loud = [0.0] * 50, [3.0 + MAX_EXCESS / 10] * 12
    assert excesses(np.array(quiet), 3.0) == []
    assert excesses(np.array(quiet + loud[:9] + quiet), 3.0) == []
    assert excesses(np.array(quiet + loud + quiet), 3.0) == [(50, 62)]
    assert excesses(np.array(quiet + loud), 3.0) == [(50, 62)]
    # A short stretch that fits does not divide one; a long one does.
    assert excesses(np.array(loud + quiet[:5] + loud + quiet), 3.0) == [(0, 29)]
    assert excesses(np.array(loud + quiet + loud), 3.0) == [(0, 12), (62, 74)]


def test_more_pronunciations(aligner: Aligner, tmp_path: Path) -> None:
    graph, path = aligner.model.search.graph, tmp_path / "names.txt"
    path.write_text("cab C A B\nAB B A\n")
    dictionary = Dictionary.of(graph, path)
    assert dictionary.pronunciations(["Cab", "ab"], "x") == [[[3, 1, 2]], [[1, 2], [2, 1]]]
    path.write_text("CAB C A Q\n")
    with pytest.raises(InputError, match=r"names.txt:1: .*Q"):
        Dictionary.of(graph, path)


def texts_of(aligner: Aligner, audio: Path, text: str | Path, *names: str) -> dict[str, list[str]]:
    inputs = [AudioInput(name, audio / f"{name}.wav") for name in names]
    found = find_texts(str(text), str(audio), inputs, aligner.dictionary)
    return {name: list(one.words) for name, one in found.items()}


def test_texts_of_one_file(aligner: Aligner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audio, text = tmp_path / "a.wav", tmp_path / "text"
    audio.touch()
    text.write_text("\ufeffAB, ba -\nc!\n")
    assert texts_of(aligner, audio, text, "a") == {"a": ["AB,", "ba", "c!"]}
    text.write_text("b BA\na AB C\n")
    assert texts_of(aligner, audio, text, "a") == {"a": ["AB", "C"]}
    text.write_text("AB BA\nAB C\n")  # the name of the file is a word
    assert texts_of(aligner, audio, text, "AB") == {"AB": ["AB", "BA", "AB", "C"]}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"AB C\n"), encoding="utf-8"))
    assert texts_of(aligner, audio, "-", "a") == {"a": ["AB", "C"]}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff"), encoding="utf-8"))
    with pytest.raises(InputError, match="standard input: expected UTF-8, found byte 0xff"):
        texts_of(aligner, audio, "-", "a")


def test_texts_of_a_folder(aligner: Aligner, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("x XY\na AB C\nb/c\tBA\n")
    assert texts_of(aligner, tmp_path, text, "a", "b/c", "d") == {"a": ["AB", "C"], "b/c": ["BA"]}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("AB C\n", "text: expected lines of a name and its words, such as `a WORD WORD`, found no name of the 1 inp"),
        ("b AB\na\n", "text:2: expected a text of at least one word"),
        ("a AB\na C\n", "text:2: expected each name once, found a again"),
        ("b C\na AB XY Z\n", "text:2: expected words of the model's lexicon, found 2 others: XY, Z"),
        ("", "text: expected lines of a name"),
    ],
)
def test_bad_texts_of_a_folder(lines: str, message: str, aligner: Aligner, tmp_path: Path) -> None:
    (tmp_path / "text").write_text(lines)
    with pytest.raises(InputError, match=message):
        texts_of(aligner, tmp_path, tmp_path / "text", "a")
