"""Synthetic digits for the tests of the MNIST recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from toy_digits import write_corpus

from recipes.mnist.data import DigitData, make_corpus
from recipes.mnist.options import DigitsOptions


@pytest.fixture(scope="session")
def toy_corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Folder of the four files, and the MD5 of each."""
    folder = tmp_path_factory.mktemp("digits")
    return folder, write_corpus(folder)


@pytest.fixture(scope="session")
def data_of(
    toy_corpus: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[DigitsOptions], DigitData]:
    """The digits as given options divide them."""
    out_dir = tmp_path_factory.mktemp("corpus")
    make_corpus(*toy_corpus, out_dir)
    return lambda options: DigitData.open(out_dir, options)
