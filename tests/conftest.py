"""Shared fixtures. Missing speech is a visible skip, and so is a missing package (optional_packages.py).

AN4 and mini LibriSpeech are in the folder ASRKD_DATA (default ../shared/data). The prompts are in the folder
ASRKD_PROMPTS (default data/prompts; `make corpus` fetches them). What holds for any speech is tested on AN4, else on
the prompts.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from optional_packages import (  # noqa: F401 - pytest calls the hooks
    pytest_addoption,
    pytest_pycollect_makemodule,
    pytest_runtest_setup,
    pytest_sessionstart,
    skip_without,
)
from real_speech import Utterance, an4_utterances, prompts_utterances
from tiny_recipe import TinyRecipe, tiny_an4, tiny_prompts

from asrkd.lang.lexicon import Lexicon, build_lexicon

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("ASRKD_DATA", ROOT.parent / "shared" / "data"))
PROMPTS = Path(os.environ.get("ASRKD_PROMPTS", ROOT / "data" / "prompts"))


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """torch's own generator begins anew, so that no test hangs on those that ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def an4_dir() -> Path:
    return _folder(DATA / "an4", "AN4", "set ASRKD_DATA")


@pytest.fixture(scope="session")
def prompts_dir() -> Path:
    return _folder(PROMPTS, "the prompts", "run `make corpus`, or set ASRKD_PROMPTS")


def _folder(path: Path, what: str, advice: str) -> Path:
    if not path.is_dir():
        pytest.skip(f"{what}: {path} is missing ({advice})")
    return path


@pytest.fixture(scope="session")
def speech_corpus() -> str:
    """Which corpus tests of any speech use: "an4" or "prompts"."""
    if (DATA / "an4").is_dir():
        return "an4"
    _folder(PROMPTS, "no speech", "run `make corpus`, or set ASRKD_PROMPTS or ASRKD_DATA")
    return "prompts"


@pytest.fixture(scope="session")
def utterances(speech_corpus: str) -> list[Utterance]:
    """Utterances of that corpus with their words and audio, in a fixed order."""
    return an4_utterances(DATA / "an4") if speech_corpus == "an4" else prompts_utterances(PROMPTS)


@pytest.fixture(scope="session")
def lexicon(speech_corpus: str, utterances: list[Utterance]) -> Lexicon:
    """AN4's dictionary; of the prompts the words that the CMU dictionary has."""
    if speech_corpus == "an4":
        return Lexicon.load(DATA / "an4" / "etc" / "an4.dic")
    words = {word for one in utterances for word in one.words}
    return build_lexicon(words, "cmudict", on_unknown="exclude")[0]


@pytest.fixture(scope="session")
def tiny(speech_corpus: str, tmp_path_factory: pytest.TempPathFactory) -> TinyRecipe:
    """A recipe on a small part of that corpus."""
    skip_without("k2", "lhotse")
    root = tmp_path_factory.mktemp("corpus")
    return tiny_an4(DATA / "an4", root) if speech_corpus == "an4" else tiny_prompts(PROMPTS, root)


@pytest.fixture(scope="session")
def finished(tiny: TinyRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Experiment folder of a whole run of it; tests that change it work on a copy."""
    exp_dir = tmp_path_factory.mktemp("finished") / "exp"
    done = tiny.run(exp_dir)
    assert done.returncode == 0, done.stderr[-2000:]
    return exp_dir


@pytest.fixture(scope="session")
def mini_librispeech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight speakers of the mini LibriSpeech; without it prompts in its layout."""
    skip_without("lhotse", "soundfile")
    from libri_speech import copy_mini_set, prompts_as_librispeech  # here, for they need soundfile

    root = tmp_path_factory.mktemp("mini") / "LibriSpeech"
    source = DATA / "mini_librispeech" / "LibriSpeech"
    if source.is_dir():
        return copy_mini_set(source, root)
    prompts = _folder(PROMPTS, "no mini LibriSpeech and no prompts", "run `make corpus`, or set ASRKD_PROMPTS")
    return prompts_as_librispeech(prompts_utterances(prompts), root)
