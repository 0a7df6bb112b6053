"""What a change re-makes: steps of the speech recipe that are out of date, and those that stay."""

from __future__ import annotations

import os
import runpy
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("k2")

import soundfile
from speech_stages import run_manifests
from tiny_recipe import TinyRecipe

from asrkd.data.corpora.an4 import prepare_an4
from asrkd.files import read_json, write_json
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.folders import SPLITS, RunFolders
from asrkd.recipe.options import SpeechOptions
from asrkd.recipe.pipeline import build_steps
from asrkd.recipe.run_options import save_config
from asrkd.recipe.scoring import Scoring
from asrkd.workflow.steps import Record, Stamps

pytestmark = pytest.mark.k2


def corpus_of(dictionary: Path, **changes: object) -> Corpus:
    corpus = Corpus("an4", prepare_an4, lambda corpus_dir: dictionary, closed_vocabulary=True, where="get AN4")
    return replace(corpus, **changes)  # type: ignore[arg-type]


@pytest.fixture
def dictionary(tmp_path: Path) -> Path:
    path = tmp_path / "dictionary.txt"
    path.write_text("GO G OW\n")
    return path


@pytest.fixture
def options(tmp_path: Path) -> SpeechOptions:
    (tmp_path / "corpus").mkdir()
    return SpeechOptions(corpus_dir=tmp_path / "corpus", exp_dir=tmp_path / "exp")


def finish_all(corpus: Corpus, options: SpeechOptions) -> None:
    """Stamp every step as finished, as a run would leave them: what a change makes stale is then seen."""
    steps = build_steps(corpus, options, "run.sh")
    for step in steps:
        stamps = Stamps(steps, options.exp_dir)
        content = f"content of {step.name}" if step.content else None
        record = Record(stamps.stamp(step.name), content, None, {}, 1.0, "", {})
        (options.exp_dir / step.name).mkdir(parents=True)
        write_json(options.exp_dir / step.name / "stamp.json", record)


def stale(corpus: Corpus, options: SpeechOptions) -> set[str]:
    steps = build_steps(corpus, options, "run.sh")
    stamps = Stamps(steps, options.exp_dir)
    return {step.name for step in steps if stamps.stale(step.name) is not None}


def kinds(names: set[str]) -> set[str]:
    return {name.split("/")[0] for name in names}


NETWORKS = {"align", "tree", "teachers", "students", "posteriors"}


def test_an_edited_dictionary_is_seen(dictionary: Path, options: SpeechOptions) -> None:
    corpus = corpus_of(dictionary)
    finish_all(corpus, options)
    assert not stale(corpus, options)
    dictionary.write_text("GO G OW\nSTOP S T AA P\n")
    found = stale(corpus, options)
    assert {"lang/lexicon", "lang/lm", "labels/dev", "align", "graph"} <= found
    assert not kinds(found) & {"corpus", "manifests", "features"}


def test_a_vocabulary_that_is_no_longer_closed_is_seen(dictionary: Path, options: SpeechOptions) -> None:
    finish_all(corpus_of(dictionary), options)
    assert "lang/lexicon" in stale(corpus_of(dictionary, closed_vocabulary=False), options)


def test_other_scoring_rules_are_seen_and_re_make_no_network(dictionary: Path, options: SpeechOptions) -> None:
    finish_all(corpus_of(dictionary), options)
    found = stale(corpus_of(dictionary, scoring=Scoring(optional=frozenset({"SIL"}))), options)
    assert {"decode/tuning", "score"} <= found
    assert not kinds(found) & (NETWORKS | {"features", "graph"})
    assert not any(name.startswith("decode/dev") for name in found)


def test_another_arpa_re_makes_neither_features_nor_networks(dictionary: Path, options: SpeechOptions) -> None:
    arpa = options.exp_dir.parent / "lm.arpa"
    arpa.write_text("\\data\\\n")
    finish_all(corpus_of(dictionary), options)
    found = stale(corpus_of(dictionary), replace(options, lang=replace(options.lang, arpa=str(arpa))))
    assert {"lang/lm", "lang/coverage", "graph", "decode/distilled", "score"} <= found
    assert not kinds(found) & (NETWORKS | {"manifests", "features", "labels"}) and "lang/lexicon" not in found


def test_other_features_re_make_no_language_model(dictionary: Path, options: SpeechOptions) -> None:
    finish_all(corpus_of(dictionary), options)
    found = stale(corpus_of(dictionary), replace(options, features=replace(options.features, num_mel_bins=20)))
    assert "lang" not in kinds(found) and {"features", "align", "teachers"} <= kinds(found)


def test_copies_at_other_speeds_are_of_the_training_split_alone(dictionary: Path, options: SpeechOptions) -> None:
    finish_all(corpus_of(dictionary), options)
    copies = replace(options, features=replace(options.features, speed_factors=(0.9, 1.0)))
    found = stale(corpus_of(dictionary), copies)
    assert "features/train" in found and not found & {"features/dev", "features/test"}


def test_another_test_set_re_makes_only_what_decodes_and_scores_it(dictionary: Path, options: SpeechOptions) -> None:
    corpus = corpus_of(dictionary)
    finish_all(corpus, options)
    # As stage 1 leaves it: the other splits' manifests say what they said.
    path = RunFolders(options.exp_dir).manifests("test") / "stamp.json"
    write_json(path, {**read_json(path), "content": "another test set"})
    found = stale(corpus, options)
    assert {"features/test", "labels/test", "lang/coverage", "decode/distilled", "score"} <= found
    assert not found & {"features/train", "features/dev", "lang/lexicon", "lang/lm", "labels/dev", "graph"}
    assert not kinds(found) & NETWORKS and not any(name.startswith("decode/dev") for name in found)


def test_the_limit_of_bad_utterances_is_seen(dictionary: Path, options: SpeechOptions) -> None:
    finish_all(corpus_of(dictionary), options)
    assert "manifests/test" in stale(corpus_of(dictionary), replace(options, max_bad=0.5))


@pytest.fixture
def speech(tiny: TinyRecipe, tmp_path: Path) -> tuple[Corpus, SpeechOptions]:
    recipe = runpy.run_path(str(tiny.script))
    options = replace(recipe["DEFAULT"], corpus_dir=tiny.corpus_dir, exp_dir=tmp_path / "exp", max_bad=0.05)
    return recipe["CORPUS"], options


def contents(options: SpeechOptions) -> dict[str, str]:
    folders = RunFolders(options.exp_dir)
    return {split: read_json(folders.manifests(split) / "content.json")["fingerprint"] for split in SPLITS}


def copy_of(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target))


def test_audio_edited_in_place_at_the_same_size_is_seen_by_its_split_alone(
    speech: tuple[Corpus, SpeechOptions], tmp_path: Path
) -> None:
    corpus, options = speech
    options = replace(options, corpus_dir=copy_of(options.corpus_dir or Path(), tmp_path / "corpus"))
    before_listing = build_steps(corpus, options, "run.sh")[0].options
    run_manifests(corpus, options)
    before = contents(options)
    audio = read_json(RunFolders(options.exp_dir).manifests("test") / "audio.json")
    victim = min(Path(one["path"]) for one in audio.values())
    victim.chmod(0o644)
    samples, rate = soundfile.read(victim, dtype="int16")
    stat = victim.stat()
    soundfile.write(victim, samples[::-1].copy(), rate, subtype="PCM_16")
    content = victim.read_bytes()[: stat.st_size].ljust(stat.st_size, b"\0")
    victim.write_bytes(content)
    assert victim.stat().st_size == stat.st_size
    os.utime(victim, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert build_steps(corpus, options, "run.sh")[0].options != before_listing
    run_manifests(corpus, replace(options, max_bad=0.5))
    after = contents(options)
    assert {split for split in SPLITS if before[split] != after[split]} == {"test"}


def test_a_corpus_that_moved_is_read_where_it_is_and_says_the_same(
    speech: tuple[Corpus, SpeechOptions], tmp_path: Path
) -> None:
    corpus, options = speech
    run_manifests(corpus, options)
    before = contents(options)
    moved = replace(options, corpus_dir=copy_of(options.corpus_dir or Path(), tmp_path / "moved"))
    assert stale_corpus_step(corpus, options) != stale_corpus_step(corpus, moved)
    run_manifests(corpus, moved)
    assert contents(moved) == before
    audio = read_json(RunFolders(moved.exp_dir).manifests("test") / "audio.json")
    assert all(Path(one["path"]).is_relative_to(tmp_path / "moved") for one in audio.values())


def stale_corpus_step(corpus: Corpus, options: SpeechOptions) -> str:
    steps = build_steps(corpus, options, "run.sh")
    return Stamps(steps, options.exp_dir).stamp("corpus")


def test_config_is_of_the_whole_run_and_is_written_before_it(options: SpeechOptions) -> None:
    options.exp_dir.mkdir()
    save_config(replace(options, stage=3, stop_stage=4, only="align"))
    found = read_json(options.exp_dir / "config.json")
    assert (found["stage"], found["stop_stage"], found["only"]) == (0, 12, None)
