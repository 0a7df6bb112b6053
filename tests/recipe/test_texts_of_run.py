"""Texts on their way through a recipe: `asrkd init`, stages 1 and 3, and the error rate."""

from __future__ import annotations

import logging
import os
import runpy
import subprocess
import sys
import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from lhotse import RecordingSet, SupervisionSet
from speech_stages import run_manifests, step_folder

from asrkd.commands import main as cli
from asrkd.data.corpora.user import UserCorpusOptions, prepare_user_corpus
from asrkd.data.manifests import load_split
from asrkd.errors import InputError
from asrkd.files import read_json
from asrkd.lang.lexicon import Lexicon
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.folders import SPLITS, RunFolders
from asrkd.recipe.lang import check_words, make_lexicon, make_lm, measure_coverage, sentences
from asrkd.recipe.options import SpeechOptions
from asrkd.recipe.pipeline import build_steps
from asrkd.recipe.scoring import Scoring

SPEAKERS = ("ann", "bob", "cyd", "dan", "eve", "fay")
RATE = 16000
DICTIONARY = "GO G OW\nON AA N\nSTOP S T AA P\nYES Y EH S\n"
TEXTS = ("go on", "yes stop", "stop go", "on yes")


def write_kaldi(folder: Path, texts: Mapping[str, str] | None = None) -> Path:
    """A Kaldi data directory of four utterances a speaker; `texts` replaces some."""
    folder.mkdir(parents=True)
    spoken = {f"{speaker}-{n}": text for speaker in SPEAKERS for n, text in enumerate(TEXTS)}
    spoken |= texts or {}
    for seed, utt_id in enumerate(spoken):
        samples = np.random.default_rng(seed).integers(-5000, 5000, RATE // 2).astype(np.int16)
        soundfile.write(folder / f"{utt_id}.wav", samples, RATE)
    (folder / "wav.scp").write_text("".join(f"{utt_id} {utt_id}.wav\n" for utt_id in spoken), encoding="utf-8")
    (folder / "text").write_text("".join(f"{utt_id} {text}\n" for utt_id, text in spoken.items()), encoding="utf-8")
    (folder / "utt2spk").write_text("".join(f"{utt_id} {utt_id.split('-')[0]}\n" for utt_id in spoken))
    return folder


@pytest.fixture
def dictionary(tmp_path: Path) -> Path:
    path = tmp_path / "dictionary.txt"
    path.write_text(DICTIONARY)
    return path


def init(kaldi: Path, *arguments: str) -> int:
    """`asrkd init`; its exit code."""
    try:
        return (
            cli.main(["init", "own", "--recordings", str(kaldi), "--out", str(kaldi.parent / "own"), *arguments]) or 0
        )
    except SystemExit as error:
        return int(error.code or 0)


def recipe_of(kaldi: Path, tmp_path: Path) -> tuple[Corpus, SpeechOptions]:
    """The recipe that `init` wrote."""
    written = runpy.run_path(str(kaldi.parent / "own" / "recipe.py"))
    return written["CORPUS"], replace(written["DEFAULT"], exp_dir=tmp_path / "exp")


def run_lang(corpus: Corpus, options: SpeechOptions) -> None:
    """Stages 0, 1 and 3."""
    run_manifests(corpus, options)
    check_words(corpus, options, step_folder(options, "lang/words"))
    options = replace(options, tree=replace(options.tree, num_leaves=1000))
    make_lexicon(corpus, options, step_folder(options, "lang/lexicon"))
    make_lm(corpus, options, step_folder(options, "lang/lm"))
    measure_coverage(options, step_folder(options, "lang/coverage"))


NOISY = {
    "ann-0": "[noise] go on",
    "bob-1": "yes <noise> stop",
    "cyd-2": "<sil> stop go [laugh]",
    "dan-3": "on yes[noise]",
}
MAPPING = "--tags=NOISE=SPN,SIL=SIL,LAUGH="


@pytest.mark.parametrize("units", ["phones", "subword"])
@pytest.mark.parametrize("utt_id", ["ann-0", "dan-3", "fay-1"])
def test_init_refuses_a_tag_of_any_split_with_any_units(
    units: str, utt_id: str, dictionary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kaldi = write_kaldi(tmp_path / "kaldi", {utt_id: "go [noise] on"})
    assert init(kaldi, *(["--lexicon", str(dictionary)] if units == "phones" else [])) == 2
    error = capsys.readouterr().err
    assert f"[NOISE] (1, first in {utt_id})" in error and "--tags NOISE=SPN" in error and error.count("\n") == 1
    assert not (tmp_path / "own").exists()


def test_a_run_refuses_tags_before_anything_trains(dictionary: Path, tmp_path: Path) -> None:
    kaldi = write_kaldi(tmp_path / "kaldi", NOISY)
    assert init(kaldi, "--lexicon", str(dictionary), MAPPING) == 0
    corpus, options = recipe_of(kaldi, tmp_path)
    unmapped = replace(options, lang=replace(options.lang, tags=("NOISE=SPN",)))
    with pytest.raises(InputError, match=r"found 2 tags .*<SIL> \(1, .*--lang\.tags LAUGH=SPN,SIL=SIL"):
        run_lang(corpus, unmapped)
    names = [step.name for step in build_steps(corpus, options, "run.sh")]
    assert names.index("lang/words") < names.index("lang/lexicon")


@pytest.mark.parametrize("units", ["phones", "subword"])
def test_a_noise_is_a_word_of_one_phone(units: str, dictionary: Path, tmp_path: Path) -> None:
    kaldi = write_kaldi(tmp_path / "kaldi", NOISY)
    assert init(kaldi, MAPPING, *(["--lexicon", str(dictionary)] if units == "phones" else [])) == 0
    corpus, options = recipe_of(kaldi, tmp_path)
    run_lang(corpus, options)
    folders = RunFolders(options.exp_dir)
    texts = {one.id: one.text for split in SPLITS for one in load_split(folders.manifests(split)).supervisions}
    assert texts["ann-0"] == "[NOISE] GO ON" and texts["bob-1"] == "YES [NOISE] STOP"
    assert texts["cyd-2"] == "STOP GO" and texts["dan-3"] == "ON YES [NOISE]" and texts["eve-0"].upper() == "GO ON"
    lexicon = Lexicon.load(folders.lexicon)
    assert lexicon.prons["[NOISE]"] == (("SPN",),)
    assert [word for word, prons in lexicon.prons.items() if any("SPN" in pron for pron in prons)] == ["[NOISE]"]
    assert not {"[LAUGH]", "[SIL]"} & set(lexicon.words)
    oov = read_json(options.exp_dir / "lang" / "coverage" / "coverage.json")["oov_rate"]
    assert oov["train"] == 0.0


def test_a_phone_of_words_is_refused_for_a_noise(
    dictionary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kaldi = write_kaldi(tmp_path / "kaldi", NOISY)
    assert init(kaldi, "--lexicon", str(dictionary), "--tags", "NOISE=OW,SIL=,LAUGH=") == 2
    assert "found OW, which is in GO" in capsys.readouterr().err


def test_a_tag_of_the_lexicon_is_a_word(dictionary: Path, tmp_path: Path) -> None:
    dictionary.write_text(DICTIONARY + "<UNK> SPN\n5 F AY V\n", encoding="utf-8")
    kaldi = write_kaldi(tmp_path / "kaldi", {"cyd-0": "<unk> go 5"})
    assert init(kaldi, "--lexicon", str(dictionary)) == 0


def test_utterances_of_tags_alone_are_rejected_with_the_others(
    dictionary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kaldi = write_kaldi(tmp_path / "kaldi", {"cyd-0": "[noise]", "cyd-1": "<sil>", "cyd-2": "[laugh] -"})
    arguments = ("--lexicon", str(dictionary), MAPPING)
    assert init(kaldi, *arguments) == 2
    assert "cyd-0: empty transcript: no word in '[NOISE]'" in capsys.readouterr().err
    assert init(kaldi, *arguments, "--max-bad", "0.5") == 0
    corpus, options = recipe_of(kaldi, tmp_path)
    run_manifests(corpus, options)
    folders = RunFolders(options.exp_dir)
    rejected = [row["utt_id"] for split in SPLITS for row in read_json(folders.manifests(split) / "rejected.json")]
    assert rejected == ["cyd-0", "cyd-1", "cyd-2"]


def test_noises_count_neither_in_references_nor_in_what_is_recognised() -> None:
    scoring = Scoring()
    refs = {"u": scoring.fold("[NOISE] GO <UNK> ON".split()), "v": scoring.fold(["STOP"])}
    errors = scoring.errors(refs, {"u": ["GO", "[NOISE]", "ON", "[NOISE]"], "v": ["[NOISE]"]})
    assert (errors.words, errors.ins, errors.dels, errors.subs) == (3, 0, 1, 0)
    assert scoring.count_errors(refs["u"], ["[NOISE]", "GO", "ON"]) == 0


TINY = [
    *("--student.hidden-dim=32", "--student.num-layers=2", "--teacher.hidden-dim=32", "--teacher.num-layers=2"),
    *("--train.epochs=1", "--labels.epochs=1", "--labels.mono-rounds=1", "--labels.tree-rounds=1"),
    *("--ensemble.size=2", "--students.sweep-temperatures", "2.0", "--train.batch-size=256", "--tree.num-leaves=60"),
    *("--align.num-phone-rounds=2", "--align.num-state-rounds=2", "--decode.beam=8", "--decode.max-active=500"),
    *("--tune.acoustic-scales", "0.1", "0.2", "--tune.insertion-scores", "-3.0", "--max-bad=0.3"),
]


@pytest.mark.needs("k2")
@pytest.mark.slow
def test_a_whole_run_scores_words_and_no_noises(dictionary: Path, tmp_path: Path) -> None:
    noisy = {f"{speaker}-{n}": f"[noise] {TEXTS[n]} <noise>" for speaker in SPEAKERS for n in (0, 2)}
    kaldi = write_kaldi(tmp_path / "kaldi", noisy)
    assert init(kaldi, "--lexicon", str(dictionary), MAPPING) == 0
    command = [str(tmp_path / "own" / "run.sh"), "--exp-dir", str(tmp_path / "exp"), *TINY]
    environment = {**os.environ, "ASRKD_PYTHON": sys.executable}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    results = read_json(tmp_path / "exp" / "results.json")
    assert results["corpus"]["test"]["words"] == results["systems"]["distilled"]["wer"]["words"] == 2 * len(TEXTS)
    assert results["oov_rate"]["test"] == 0.0
    assert "NOISE" not in str(results["confusions"]) + str(results["worst_utterances"])
    assert "SPN" in Lexicon.load(RunFolders(tmp_path / "exp").lexicon).phones


def test_punctuation_is_named_once_and_stripped_by_the_option(
    dictionary: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kaldi = write_kaldi(tmp_path / "kaldi", {"cyd-1": "Go on.", "dan-0": "Go, on", "cyd-0": "\u201cGo - on!\u201d"})
    with caplog.at_level(logging.WARNING):
        assert init(kaldi) == 0
    warned = [record.message for record in caplog.records if "punctuation" in record.message]
    assert len(warned) == 1 and "ON. and ON" in warned[0] and "--strip-punctuation" in warned[0]
    assert any("single dash in 1 utterances" in record.message for record in caplog.records)
    (tmp_path / "own").rename(tmp_path / "before")
    assert init(kaldi, "--lexicon", str(dictionary), "--strip-punctuation") == 0
    corpus, options = recipe_of(kaldi, tmp_path)
    run_lang(corpus, options)
    words = {word for split in SPLITS for text in sentences(RunFolders(options.exp_dir), split) for word in text}
    assert words == {"GO", "ON", "STOP", "YES"}


def test_sentences_without_spaces_are_named_and_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    utterances = {f"{speaker}-{n}": "你好今天天气"[n:] for speaker in SPEAKERS for n in range(4)}
    kaldi = write_kaldi(tmp_path / "kaldi", utterances)
    with caplog.at_level(logging.WARNING):
        assert init(kaldi) == 0
    assert any(
        "sentences would become words" in one.message and "--split-characters" in one.message for one in caplog.records
    )
    corpus, options = recipe_of(kaldi, tmp_path)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        run_lang(corpus, options)
    assert any("--lang.split-characters" in record.message for record in caplog.records)
    (tmp_path / "own").rename(tmp_path / "before")
    assert init(kaldi, "--split-characters") == 0
    corpus, options = recipe_of(kaldi, tmp_path)
    run_lang(corpus, options)
    assert set(Lexicon.load(RunFolders(options.exp_dir).lexicon).words) == set("你好今天气")


@pytest.mark.parametrize("form", ["kaldi", "lhotse"])
def test_two_unicode_forms_are_one_word_one_id_and_one_file(form: str, tmp_path: Path) -> None:
    """Ids and names of files are in NFD in some tables and in NFC in others."""
    kaldi = write_kaldi(tmp_path / "kaldi", {"zoé-0": "ye\u0301s \u200bgo", "zoé-1": "y\u00e9s go"})
    for name in ("wav.scp", "text"):
        path = kaldi / name
        path.write_text(path.read_text(encoding="utf-8").replace("zoé-0", "zoe\u0301-0"), encoding="utf-8")
    (kaldi / "zoé-0.wav").rename(kaldi / "zoe\u0301-0.wav")
    options: Any = UserCorpusOptions(kaldi)
    if form == "lhotse":
        splits = prepare_user_corpus(kaldi, options).values()
        recordings = [replace(one, id=unicodedata.normalize("NFD", one.id)) for s in splits for one in s.recordings]
        manifests = tmp_path / "recordings.jsonl", tmp_path / "supervisions.jsonl"
        RecordingSet.from_recordings(recordings).to_file(manifests[0])
        SupervisionSet.from_segments(
            replace(one, text=unicodedata.normalize("NFD", one.text)) for s in splits for one in s.supervisions
        ).to_file(manifests[1])
        options = UserCorpusOptions(*manifests)
    splits = prepare_user_corpus(kaldi, options).values()
    texts = {one.id: one.text for split in splits for one in split.supervisions}
    assert texts["zoé-0"] == texts["zoé-1"] == "YÉS GO"
    assert not any(split.rejected for split in splits)


@pytest.mark.parametrize("lexicon", ["cmudict", "file"])
def test_words_of_other_letters_are_named_beside_those_of_the_lexicon(
    lexicon: str, dictionary: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kaldi = write_kaldi(tmp_path / "kaldi", {"cyd-0": "g\u043e on"})
    with caplog.at_level(logging.WARNING):
        init(kaldi, "--lexicon", str(dictionary) if lexicon == "file" else lexicon)
    assert any("G\u041e (U+041E) and GO (U+004F)" in record.message for record in caplog.records)
