"""Matched pairs and changed words: segments by hand, values by hand, identities."""

from __future__ import annotations

import math
import random
import re
import subprocess
from pathlib import Path

import pytest

from asrkd.scoring.compare_words import Change, aligned_slots, matched_pairs, segment_errors, word_changes
from asrkd.scoring.sclite_files import write_ctm, write_trn
from asrkd.scoring.words import WordErrors, wer

REFS = {"u1": "A B C D E F G".split(), "u2": "A B".split(), "u3": "A".split()}
HYPS_A = {"u1": "X B C D E F X".split(), "u2": "A B".split(), "u3": "A".split()}
HYPS_B = {"u1": "A B C D X F G".split(), "u2": "A X B Y".split(), "u3": [].copy()}
SCTK = Path("/usr/lib/sctk/bin")  # of Debian's package sctk


def errors(hyps: dict[str, list[str]], refs: dict[str, list[str]] = REFS) -> WordErrors:
    return wer(refs, hyps)


def test_two_words_that_both_have_right_end_a_segment() -> None:
    slots = dict(aligned_slots(REFS, errors(HYPS_A), errors(HYPS_B)))
    # B C D are right in both; between E (wrong in B) and G (wrong in A) there is F alone.
    assert segment_errors(slots["u1"]) == [(1, 0), (1, 1)]
    assert segment_errors(slots["u2"]) == [(0, 2)], "an insertion is an error between words, and one word ends nothing"
    assert segment_errors(slots["u3"]) == [(0, 1)]


def test_the_matched_pairs_test_by_hand() -> None:
    found = matched_pairs(REFS, errors(HYPS_A), errors(HYPS_B))
    differences = [-1, 0, 2, 1]
    mean = sum(differences) / 4
    deviation = math.sqrt(sum((one - mean) ** 2 for one in differences) / 3)
    assert (found.segments, found.mean, found.deviation) == (4, mean, pytest.approx(deviation))
    assert found.z == pytest.approx(mean / (deviation / 2))
    assert found.p == pytest.approx(2 * (1 - 0.5 * (1 + math.erf(abs(found.z or 0) / math.sqrt(2)))))


def test_a_system_against_itself_and_the_order_of_systems() -> None:
    a, b = errors(HYPS_A), errors(HYPS_B)
    same = matched_pairs(REFS, a, a)
    assert (same.segments, same.z, same.p) == (2, None, 1.0)
    forth, back = matched_pairs(REFS, a, b), matched_pairs(REFS, b, a)
    assert forth.mean == -back.mean and forth.p == back.p
    changes = word_changes(REFS, a, a)
    assert not changes.lost and not changes.gained and changes.right_to_wrong == changes.wrong_to_right == 0


def test_words_that_became_right_and_wrong_add_up_to_the_difference_of_errors() -> None:
    a, b = errors(HYPS_A), errors(HYPS_B)
    changes = word_changes(REFS, a, b)
    counts = (changes.both_right, changes.both_wrong, changes.right_to_wrong, changes.wrong_to_right)
    assert counts == (6, 0, 2, 2) and sum(counts) == a.words
    assert changes.inserted == (a.ins, b.ins) == (0, 2)
    assert b.errors - a.errors == changes.right_to_wrong - changes.wrong_to_right + 2
    assert list(changes.lost) == [
        Change("A", "", 1, ["u3"]),
        Change("E", "X", 1, ["u1"]),
        Change("", "X", 1, ["u2"]),
        Change("", "Y", 1, ["u2"]),
    ]
    assert [(one.word, one.instead) for one in changes.gained] == [("A", "X"), ("G", "X")]


def test_the_most_frequent_change_is_first_with_its_first_utterances() -> None:
    refs = {f"u{n}": ["A", "B"] for n in range(5)}
    a = errors({utt_id: ["A", "B"] for utt_id in refs}, refs)
    b = errors({utt_id: ["A", "C"] if utt_id != "u0" else ["D", "B"] for utt_id in refs}, refs)
    (first, second) = word_changes(refs, a, b).lost
    assert first == Change("B", "C", 4, ["u1", "u2", "u3"])
    assert second == Change("A", "D", 1, ["u0"])


def test_an_optional_word_that_is_omitted_is_right() -> None:
    refs = {"u": ["SIL", "A", "SIL", "B"]}
    a = wer(refs, {"u": ["A", "B"]}, {"SIL"})
    b = wer(refs, {"u": ["SIL", "A", "SIL", "C"]}, {"SIL"})
    changes = word_changes(refs, a, b, frozenset({"SIL"}))
    assert (changes.both_right, changes.right_to_wrong) == (3, 1)
    assert matched_pairs(refs, a, b, frozenset({"SIL"})).segments == 1


def test_trn_and_ctm_have_the_form_of_sclite(tmp_path: Path) -> None:
    write_trn({"u1": ["A", "B"], "u2": []}, tmp_path / "x.trn")
    assert (tmp_path / "x.trn").read_text() == "A B (u1)\n(u2)\n"
    write_ctm({"u2": [("B", 0.0, 0.25)], "u1": [("Ä", 0.1, 0.3), ("C", 0.3, 1.0)]}, tmp_path / "x.ctm")
    assert (tmp_path / "x.ctm").read_text() == "u1 1 0.100 0.200 Ä\nu1 1 0.300 0.700 C\nu2 1 0.000 0.250 B\n"


@pytest.mark.skipif(not (SCTK / "sc_stats").is_file(), reason="sc_stats is not installed (Debian's package sctk)")
def test_sctk_finds_the_same_segments_and_the_same_test_statistic(tmp_path: Path) -> None:
    rng = random.Random(0)
    refs = {f"s{n % 7}-u{n}": [f"W{rng.randrange(1000)}" for _ in range(rng.randrange(1, 30))] for n in range(200)}
    hyps = [
        {utt_id: [f"X{word}" if rng.random() < rate else word for word in words] for utt_id, words in refs.items()}
        for rate in (0.2, 0.22)
    ]
    write_trn(refs, tmp_path / "ref.trn")
    sgml = b""
    for name, words in zip("ab", hyps, strict=True):
        write_trn(words, tmp_path / f"{name}.trn")
        sclite = [SCTK / "sclite", "-r", "ref.trn", "trn", "-h", f"{name}.trn", "trn", name, "-i", "spu_id"]
        command = [*map(str, sclite), "-o", "sgml", "stdout"]
        sgml += subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    command = [str(SCTK / "sc_stats"), "-p", "-t", "mapsswe", "-v", "-n", "-"]
    done = subprocess.run(command, input=sgml, cwd=tmp_path, capture_output=True, check=True)
    printed = re.search(
        r"# segs: (\d+)\).*\(mean: ([-\d.]+)\) \(std dev: ([\d.]+)\) \(Z Stat: ([-\d.]+)\)",
        done.stdout.decode(errors="replace"),
    )
    assert printed is not None
    found = matched_pairs(refs, wer(refs, hyps[0]), wer(refs, hyps[1]))
    assert found.segments == int(printed[1]) and found.segments > 200
    values = [-found.mean, found.deviation, -(found.z or 0.0)]  # sctk subtracts the second system from the first
    assert values == pytest.approx([float(value) for value in printed.groups()[1:]], abs=6e-4)
