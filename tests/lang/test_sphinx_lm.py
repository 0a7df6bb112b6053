"""Binary models of CMU Sphinx: one written here bit by bit, and Debian's, against Sphinx's own reading of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from asrkd.errors import InputError
from asrkd.lang.ngram import BOS, EOS
from asrkd.lang.sphinx_lm import LOG10_BASE, MAGIC, read_sphinx_lm

DEBIAN = Path("/usr/share/pocketsphinx/model/en-us/en-us.lm.bin")
WORDS = (EOS, BOS, "go", "it's")
BINS = 1 << 16


def packed(rows: list[list[tuple[int, int]]], count: int) -> bytes:
    """Rows of (value, bits), bit by bit from the lowest, and the padding that sphinxbase leaves."""
    number = position = 0
    for row in rows:
        for value, bits in row:
            number |= value << position
            position += bits
    entry_bits = sum(bits for _, bits in rows[0])
    return number.to_bytes(((1 + count) * entry_bits + 7) // 8 + 8, "little")


def bins(*values: float) -> bytes:
    table = np.zeros(BINS, dtype="<f4")
    table[: len(values)] = np.array(values) / LOG10_BASE
    return table.tobytes()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Unigrams, the bigrams `<s> go` and `go it's`, the trigram `<s> go it's`."""
    unigrams = np.zeros(len(WORDS) + 1, dtype=[("prob", "<f4"), ("backoff", "<f4"), ("next", "<u4")])
    unigrams["prob"][:4] = np.array([-0.5, -99.0, -0.7, -0.9]) / LOG10_BASE
    unigrams["backoff"][:4] = np.array([0.0, -0.1, -0.2, 0.0]) / LOG10_BASE
    unigrams["next"] = [0, 0, 0, 1, 2]  # of go (2): one bigram that ends in it; of it's (3): one
    word, index = 3, 1  # bits of a number up to 4 words, and up to 1 trigram
    # The word before, back-off bin, probability bin, where the trigrams begin that end so; last the end of all.
    bigrams = [
        [(1, word), (0, 16), (0, 16), (0, index)],
        [(2, word), (1, 16), (1, 16), (0, index)],
        [(0, word), (0, 16), (0, 16), (1, index)],
    ]
    trigrams = [[(1, word), (0, 16)]]
    names = b"".join(name.encode() + b"\0" for name in WORDS)
    path = tmp_path / "small.lm.bin"
    path.write_bytes(
        MAGIC
        + bytes([3])
        + np.array([4, 2, 1, 1], dtype="<u4").tobytes()
        + bins(-0.3, -0.4)
        + bins(-0.05, -0.06)
        + bins(-0.15)
        + unigrams.tobytes()
        + packed(bigrams, 2)
        + packed(trigrams, 1)
        + np.array([len(names)], dtype="<u4").tobytes()
        + names
    )
    return path


def test_a_model_written_bit_by_bit_is_read(model: Path) -> None:
    found = read_sphinx_lm(model)
    assert [sorted(table) for table in found.tables] == [
        sorted([EOS, BOS, "GO", "IT'S"]),
        ["<s> GO", "GO IT'S"],
        ["<s> GO IT'S"],
    ]
    assert found.tables[0]["GO"] == pytest.approx((-0.7, -0.2), abs=1e-6)
    assert found.tables[1]["<s> GO"] == pytest.approx((-0.3, -0.05), abs=1e-6)
    assert found.tables[1]["GO IT'S"] == pytest.approx((-0.4, -0.06), abs=1e-6)
    assert found.tables[2]["<s> GO IT'S"] == pytest.approx((-0.15, 0.0), abs=1e-6)
    assert found.vocabulary == {"GO", "IT'S"}


def test_what_is_no_whole_model_is_refused(model: Path, tmp_path: Path) -> None:
    content = model.read_bytes()
    for length in (len(MAGIC) + 2, len(content) // 2, len(content) - 3):
        (tmp_path / "cut.bin").write_bytes(content[:length])
        with pytest.raises(InputError, match=r"cut.bin: expected"):
            read_sphinx_lm(tmp_path / "cut.bin")
    (tmp_path / "twice.bin").write_bytes(content.replace(b"it's\0", b"GO\0go"))
    with pytest.raises(InputError, match=r"twice.bin: expected"):
        read_sphinx_lm(tmp_path / "twice.bin")
    index = len(MAGIC) + 1 + 4 * 4 + 3 * 4 * BINS + 2 * 12 - 4  # where the bigrams of the second unigram begin
    (tmp_path / "falling.bin").write_bytes(content[:index] + b"\1" + content[index + 1 :])
    with pytest.raises(InputError, match=r"falling.bin: expected a trie of 2-grams, found a damaged one"):
        read_sphinx_lm(tmp_path / "falling.bin")
    (tmp_path / "other.bin").write_text("\\data\\")
    with pytest.raises(InputError, match="expected a binary language model of Sphinx"):
        read_sphinx_lm(tmp_path / "other.bin")
    with pytest.raises(InputError, match="no such file"):
        read_sphinx_lm(tmp_path / "nowhere.bin")


def test_numbers_of_a_damaged_model_are_refused_and_minus_infinity_is_99(model: Path, tmp_path: Path) -> None:
    content = model.read_bytes()
    first = len(MAGIC) + 1 + 4 * 4  # the first bin: the probability of `<s> go`
    unigrams = first + 3 * 4 * BINS
    for where, value, message in (
        (first, np.inf, "log10 probabilities of 2-grams of at most 0, found inf"),
        (first, np.nan, "log10 probabilities of 2-grams of at most 0, found nan"),
        (first, 1e30, "log10 probabilities of 2-grams of at most 0, found 4"),
        (unigrams + 4, np.inf, "log10 back-off weights of 1-grams of at most 99, found inf"),
    ):
        (tmp_path / "bad.bin").write_bytes(content[:where] + np.float32(value).tobytes() + content[where + 4 :])
        with pytest.raises(InputError, match=f"bad.bin: expected {message}"):
            read_sphinx_lm(tmp_path / "bad.bin")
    for value in (-np.inf, -1e9):
        (tmp_path / "never.bin").write_bytes(content[:first] + np.float32(value).tobytes() + content[first + 4 :])
        assert read_sphinx_lm(tmp_path / "never.bin").tables[1]["<s> GO"].log10_prob == -99.0
    for old, new, message in (
        (b"go\0", b"g \0", "words without spaces, found 'g '"),
        (b"<s>", b"<z>", "a unigram <s>"),
    ):
        (tmp_path / "names.bin").write_bytes(content.replace(old, new))
        with pytest.raises(InputError, match=f"names.bin: expected {message}"):
            read_sphinx_lm(tmp_path / "names.bin")


@pytest.mark.slow
def test_debians_model_is_read_as_sphinx_reads_it() -> None:
    if not DEBIAN.is_file() or shutil.which("sphinx_lm_eval") is None:
        pytest.skip("needs Debian's pocketsphinx-en-us and sphinxbase-utils")
    found = read_sphinx_lm(DEBIAN)
    assert [len(table) for table in found.tables] == [72547, 2051541, 1669625]
    text = "when the last of the old ships came home nobody knew what the captain had seen"
    command = ["sphinx_lm_eval", "-lm", str(DEBIAN), "-text", text, "-verbose", "yes"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    rows = re.findall(r"log P\((\S+)\|(.*?)\) = (-?\d+)", said)
    assert len(rows) == len(text.split())
    for word, history, score in rows:
        assert found.log10_prob(history.upper().split(), word.upper()) / LOG10_BASE == pytest.approx(int(score), abs=3)
