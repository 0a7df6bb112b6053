"""LibriSpeech's parts, what is wrong with a partial download, and the whole recipe on eight speakers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from libri_speech import PART, SAMPLING_RATE
from speech_stages import run_features, run_manifests

from asrkd.data.corpora.librispeech import LibrispeechOptions, prepare_librispeech
from asrkd.data.hold_out import held_out_speakers
from asrkd.data.manifests import load_split
from asrkd.data.splits import PART_KEY
from asrkd.decode.rescore import rescore
from asrkd.errors import InputError
from asrkd.files import read_json
from asrkd.lang.kneser_ney import estimate_kneser_ney
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.evaluate import DecodeTask, RescoreTask, Run, decode_split, open_grammars
from asrkd.recipe.options import LibrispeechSpeechOptions, options_of_run
from asrkd.workflow.executor import Executor

ROOT = Path(__file__).resolve().parents[3]
TEST_PARTS = {"easy": "7312", "hard": "669"}
"""Invented test parts, and the speaker of each."""
MINI = LibrispeechOptions(parts=(PART,), test_speakers=("7312", "669"))
TINY = [
    *("--corpora.parts", PART, "--corpora.test-parts", *TEST_PARTS),
    *("--student.hidden-dim=64", "--student.num-layers=2", "--teacher.hidden-dim=64", "--teacher.num-layers=2"),
    *("--train.epochs=2", "--labels.epochs=2", "--labels.mono-rounds=1", "--labels.tree-rounds=1"),
    *("--ensemble.size=2", "--tree.num-leaves=120", "--students.sweep-temperatures", "2.0"),
    *("--align.num-phone-rounds=2", "--align.num-state-rounds=2"),
    *("--train.learning-rate=0.003", "--train.batch-size=256", "--features.speed-factors", "1.0"),
    *("--decode.beam=8", "--decode.max-active=800", "--decode.lattice-beam=2"),
    *("--tune.acoustic-scales", "0.1", "0.2", "--tune.insertion-scores", "-3.0", "0.0"),
]


def write_part(root: Path, part: str, speakers: str, num_utterances: int = 2) -> None:
    """Noise and invented words in LibriSpeech's layout, one chapter per speaker."""
    for speaker in speakers.split():
        chapter = root / part / speaker / "77"
        chapter.mkdir(parents=True)
        names = [f"{speaker}-77-{number:04}" for number in range(num_utterances)]
        for seed, name in enumerate(names):
            samples = np.random.default_rng(seed).integers(-5000, 5000, 8000).astype(np.int16)
            soundfile.write(chapter / f"{name}.flac", samples, SAMPLING_RATE)
        (chapter / f"{speaker}-77.trans.txt").write_text("".join(f"{name} SOME WORDS\n" for name in names))


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    root = tmp_path / "LibriSpeech"
    write_part(root, "train-clean-100", "11 12 13 14")
    write_part(root, "dev-clean", "21")
    write_part(root, "test-clean", "31 32")
    write_part(root, "test-other", "41")
    return root


def test_named_parts_become_splits_and_utterances_keep_their_part(made_up: Path) -> None:
    splits = prepare_librispeech(made_up.parent)  # the folder that LibriSpeech/ is in will do
    assert {name: sorted({s.speaker for s in split.supervisions}) for name, split in splits.items()} == {
        "train": ["11", "12", "13", "14"],
        "dev": ["21"],
        "test": ["31", "32", "41"],
    }
    assert {s.custom[PART_KEY] for s in splits["test"].supervisions} == {"test-clean", "test-other"}
    assert splits["train"].texts()[0] == ["SOME", "WORDS"]


def test_960_hours_are_three_parts_and_the_mini_set_has_its_own() -> None:
    assert LibrispeechOptions(parts=("train-960",)).resolved().parts[1:] == ("train-clean-360", "train-other-500")
    mini = LibrispeechOptions(parts=(PART,)).resolved()
    assert (mini.dev_parts, mini.test_parts, mini.num_dev_speakers) == ((), ("dev-clean-2",), 2)
    assert MINI.resolved().test_parts == ()


def test_test_speakers_and_held_out_speakers_are_not_trained_on(made_up: Path) -> None:
    (made_up / "SPEAKERS.TXT").write_text("; a table\n12 | F | x | 9 | A\n13 | M | x | 9.5 | B\n14|F|x|9|C\n")
    options = LibrispeechOptions(test_speakers=("11",), num_dev_speakers=2)
    splits = prepare_librispeech(made_up, options)
    speakers = {name: {s.speaker for s in split.supervisions} for name, split in splits.items()}
    assert speakers["test"] == {"11"}
    assert speakers["dev"] == held_out_speakers({"12", "13", "14"}, 2, women={"12", "14"})
    assert len(speakers["dev"] & {"12", "14"}) == 1
    assert speakers["train"] == {"12", "13", "14"} - speakers["dev"]


def test_a_missing_part_is_named_and_those_that_are_there(made_up: Path) -> None:
    with pytest.raises(InputError, match=r"train-clean-360: expected a part .* dev-clean, test-clean"):
        prepare_librispeech(made_up, LibrispeechOptions(parts=("train-960",)))
    with pytest.raises(InputError, match=r"expected a part of LibriSpeech"):
        prepare_librispeech(made_up, LibrispeechOptions(parts=("../secret",)))


def test_a_partial_download_is_reported_by_utterance(made_up: Path) -> None:
    chapter = made_up / "train-clean-100" / "11" / "77"
    (chapter / "11-77-0000.flac").unlink()
    (made_up / "train-clean-100" / "12" / "77" / "12-77.trans.txt").unlink()
    (made_up / "test-other" / "41" / "77" / "41-77-0001.flac").write_bytes(b"fLaC and no more")
    splits = prepare_librispeech(made_up)
    reasons = {fault.utt_id: fault.reason for split in splits.values() for fault in split.rejected}
    assert set(reasons) == {"11-77-0000", "12-77-0000", "12-77-0001", "41-77-0001"}
    assert "missing audio" in reasons["11-77-0000"] and "missing transcript" in reasons["12-77-0001"]
    assert "unreadable audio" in reasons["41-77-0001"]
    assert splits["train"].num_utterances == 8


def test_a_partial_download_without_a_trace_is_reported_by_reader(made_up: Path, tmp_path: Path) -> None:
    """Two utterances of half a second, or 0.0167 minutes, are there of each reader."""
    table = [(reader, "train-clean-100", 0.02) for reader in ("11", "12")]
    table += [("13", "train-clean-100", 10.02), ("15", "train-clean-100", 9.98), ("22", "dev-other", 8.0)]
    rows = "".join(f"{reader} | F | {part} | {minutes} | N.N.\n" for reader, part, minutes in table)
    (made_up / "SPEAKERS.TXT").write_text(rows)
    splits = prepare_librispeech(made_up)
    assert splits["train"].missing == (
        "train-clean-100, reader 13: 0.02 of 10.02 minutes",
        "train-clean-100, reader 15: 0.00 of 9.98 minutes",
    )
    assert splits["train"].missing_share == pytest.approx(1.0, abs=0.01)
    assert not splits["dev"].missing and not splits["test"].missing
    where = ["--corpus-dir", str(made_up), "--exp-dir", str(tmp_path / "exp"), "--stop-stage=1"]
    plain = ["--lang.arpa=None", "--lang.rescore-arpa=None"]
    refused = refusal(*where, *plain, "--max-bad=0.9")
    assert "of the speech of train to be missing (--max-bad), found 99.7%: train-clean-100, reader 13: 0.02" in refused
    (made_up / "SPEAKERS.TXT").write_text("11 | F | train-clean-100\n")
    assert "SPEAKERS.TXT:1: expected ID | SEX | SUBSET | MINUTES" in refusal(*where, *plain)


def test_a_speaker_without_utterances_is_named(made_up: Path) -> None:
    (made_up / "dev-clean" / "22" / "78").mkdir(parents=True)
    with pytest.raises(InputError, match=r"dev-clean/22: expected utterances of this speaker, found none"):
        prepare_librispeech(made_up)
    with pytest.raises(InputError, match=r"--corpora.test-speakers: .* found 99"):
        prepare_librispeech(made_up, LibrispeechOptions(test_speakers=("99",)))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("11-77-0000 AGAIN", "trans.txt:3: expected one transcript of 11-77-0000"),
        ("11-77-0009", "trans.txt:3: expected SPEAKER-CHAPTER-NUMBER and words"),
        ("12-77-0000 ELSEWHERE", "trans.txt:3: expected SPEAKER-CHAPTER-NUMBER"),
    ],
)
def test_a_bad_line_of_a_transcript_is_named(made_up: Path, line: str, message: str) -> None:
    path = made_up / "train-clean-100" / "11" / "77" / "11-77.trans.txt"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match=message):
        prepare_librispeech(made_up)


def test_no_speech_is_in_two_splits(made_up: Path) -> None:
    with pytest.raises(InputError, match=r"--corpora.test-parts: expected no part of --corpora.parts, found train-cl"):
        prepare_librispeech(made_up, LibrispeechOptions(test_parts=("train-clean-100",)))
    write_part(made_up, "extra", "11")
    with pytest.raises(InputError, match="expected test speakers that are not trained on, found 11 in both"):
        prepare_librispeech(made_up, LibrispeechOptions(test_parts=("extra",)))
    write_part(made_up, "dev-small", "21")
    with pytest.raises(InputError, match="expected test speakers that are not tuned on, found 21 in both"):
        prepare_librispeech(made_up, LibrispeechOptions(test_parts=("dev-small",)))
    with pytest.raises(InputError, match="found both"):
        LibrispeechOptions(test_parts=("extra",), test_speakers=("11",))


def test_audio_that_moved_is_named_by_utterance(made_up: Path, tmp_path: Path) -> None:
    """By the features of manifests that are there already, and by a run from its first stage."""
    options = LibrispeechSpeechOptions(corpus_dir=made_up, num_jobs=1, exp_dir=tmp_path / "exp")
    corpus = Corpus("librispeech", prepare_librispeech, lambda _: "cmudict", closed_vocabulary=False, where="")
    run_manifests(corpus, options)
    audio = made_up / "train-clean-100" / "11" / "77" / "11-77-0000.flac"
    audio.rename(tmp_path / audio.name)
    with pytest.raises(InputError, match=f"11-77-0000: missing audio: expected {audio}"):
        run_features(options)
    plain = ["--lang.arpa=None", "--lang.rescore-arpa=None", "--stop-stage=2"]
    refused = refusal("--corpus-dir", str(made_up), "--exp-dir", str(tmp_path / "again"), *plain)
    assert "11-77-0000: missing audio" in refused and "--max-bad" in refused


def test_other_parts_may_come_and_the_whole_may_move(made_up: Path, tmp_path: Path) -> None:
    """Neither makes features anew; the manifests name the audio where it is now."""
    exp = tmp_path / "exp"
    plain = ["--lang.arpa=None", "--lang.rescore-arpa=None", "--exp-dir", str(exp), "--max-bad=0.5"]
    command = [sys.executable, "recipes/librispeech/recipe.py", *plain]

    def run(stage: int, corpus_dir: Path) -> str:
        arguments = ["--corpus-dir", str(corpus_dir), f"--stop-stage={stage}"]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=300, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(2, made_up)
    write_part(made_up, "train-other-500", "51")
    assert run(2, made_up).count("up to date") == 7
    moved = made_up.rename(tmp_path / "moved")
    printed = run(2, moved)
    assert "(features/test, step 7 of 7): up to date" in printed and printed.count("up to date") == 3
    recordings = load_split(exp / "manifests" / "test").recordings
    assert all(Path(recording.sources[0].source).is_relative_to(moved) for recording in recordings)


@pytest.fixture(scope="module")
def small_librispeech(mini_librispeech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(shutil.copytree(mini_librispeech, tmp_path_factory.mktemp("libri") / "LibriSpeech"))
    for part, speaker in TEST_PARTS.items():
        (root / part).mkdir()
        (root / PART / speaker).rename(root / part / speaker)
    return root


def run_recipe(*arguments: str) -> subprocess.CompletedProcess[str]:
    """recipes/librispeech as a person runs it."""
    command = [sys.executable, str(ROOT / "recipes" / "librispeech" / "recipe.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def refusal(*arguments: str) -> str:
    """The one line that the recipe ends with."""
    done = run_recipe(*arguments)
    assert done.returncode == 2, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if "utt/s" not in line]
    assert "Traceback" not in done.stderr and lines[-1].startswith("recipes/librispeech/run.sh: error: ")
    return lines[-1]


@pytest.fixture(scope="module")
def models(small_librispeech: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bigram to decode with and a trigram of the same words to rescore with."""
    folder = tmp_path_factory.mktemp("lm")
    text = [line.split()[1:] for path in small_librispeech.rglob("*.trans.txt") for line in path.open()]
    for name, order in (("small.arpa", 2), ("large.arpa", 3)):
        estimate_kneser_ney(text, order).write_arpa(folder / name)
    return folder / "small.arpa", folder / "large.arpa"


@pytest.mark.needs("k2")
@pytest.mark.slow
def test_whole_recipe(small_librispeech: Path, models: tuple[Path, Path], tmp_path: Path) -> None:
    small, large = models
    where = ["--corpus-dir", str(small_librispeech), "--exp-dir", str(tmp_path / "exp")]
    lang = [
        f"--lang.arpa={small}",
        f"--lang.rescore-arpa={large}",
        "--lang.prune=1e-9",
        "--lang.interpolation-weight=0.3",
    ]
    done = run_recipe(*where, *TINY, *lang)
    assert done.returncode == 0, done.stderr[-2000:]
    results = read_json(tmp_path / "exp" / "results.json")
    assert results["corpus"]["test"]["speakers"] == 2 and results["corpus"]["dev"]["speakers"] == 2
    rescored = read_json(tmp_path / "exp" / "decode" / "distilled" / "first_pass.json")["words"]
    assert len(rescored) == results["corpus"]["test"]["utterances"] == 8
    words = {
        part: sum(len(line.split()) - 1 for path in (small_librispeech / part).rglob("*.txt") for line in path.open())
        for part in TEST_PARTS
    }
    words["all"] = sum(words.values())
    for system in results["systems"].values():
        assert {name: wer["words"] for name, wer in system["wer"].items()} == {
            f"{part}{how}": count for part, count in words.items() for how in ("", ", not rescored")
        }
        assert 0.1 < system["frame_accuracy"] < 1.0
        assert system["rtf"]["hard"] > system["rtf"]["hard, not rescored"] > 0
    page = (tmp_path / "exp" / "report" / "RESULTS.md").read_text()
    assert all(name in page for name in ("| all ", "easy", "hard, not rescored"))
    assert "recipes/librispeech/run.sh" in page[:400]
    require_same_rescoring_on_any_executor(tmp_path / "exp")


def require_same_rescoring_on_any_executor(exp_dir: Path) -> None:
    """Other processes, which get only paths and lattices, give the same results."""
    options = options_of_run(exp_dir)
    task = DecodeTask(Run("distilled", 0, ("students/distilled",)), "test", options.decode, options)
    first, here = decode_split(task, "test", exp_dir.parent)
    cached = decode_split(task, "test", exp_dir.parent)
    assert [one.rtf for one in cached] == [first.rtf, here.rtf], "the first call's results, its times too"
    assert cached[1].words == here.words
    again = RescoreTask(exp_dir, options.decode.scales, options.decode.lattice_beam)
    digests = open_grammars(exp_dir).digests
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        there = rescore(first, again, digests, options.decode.scales, executor=Executor(pool=pool))
    assert there.words == here.words != first.words
    assert torch.equal(there.lattices.graph_scores, here.lattices.graph_scores)


def test_bad_language_files_are_named_before_anything_trains(small_librispeech: Path, tmp_path: Path) -> None:
    exp = tmp_path / "exp"
    where = ["--corpus-dir", str(small_librispeech), "--exp-dir", str(exp), *TINY, "--stop-stage=3"]
    missing = refusal(*where, "--lang.arpa=nowhere.bin", "--lang.rescore-arpa=None")
    assert "nowhere.bin: no such file" in missing and "apt-get install pocketsphinx-en-us" in missing

    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_bytes("A AH\nCAFÉ K AE F EY\n".encode("latin-1"))
    plain = ["--lang.arpa=None", "--lang.rescore-arpa=None"]
    assert f"{lexicon}:2: expected UTF-8, found byte 0xc9" in refusal(*where, *plain, f"--lang.lexicon={lexicon}")

    arpa = tmp_path / "strange.arpa"
    arpa.write_text(
        "\\data\\\nngram 1=6\n\n\\1-grams:\n-1 <s>\n-1 </s>\n-1 THE\n-1 QXJZV\n-1 ZZXQ\n-1 AND\n\n\\end\\\n"
    )
    refused = refusal(*where, f"--lang.arpa={arpa}", "--lang.rescore-arpa=None")
    assert str(arpa) in refused and "found 2 of 4 outside it: QXJZV, ZZXQ" in refused
    refused = refusal(*where, "--lang.arpa=None", f"--lang.rescore-arpa={arpa}")
    assert f"{arpa}: expected every word that is decoded with, and a probability" in refused and "missing: A" in refused
