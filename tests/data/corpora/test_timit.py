"""TIMIT's layout becomes manifests, its phones are folded and scored, its faults are named; the recipe runs on a tree
that festival spoke."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from festival_speech import VOICES, available_voices
from speech_stages import run_features, run_manifests, step_folder
from timit_tree import HEADER_BYTES, MARKS, NUM_SA, SENTENCES, TRAIN, make_noise_tree, make_spoken_tree, write_rows

from asrkd.data.audio import read_samples
from asrkd.data.corpora.timit import (
    CORE_TEST_SPEAKERS,
    DEV_SPEAKERS,
    DIALECT,
    OTHER_SPEAKER,
    TO_39,
    TO_48,
    prepare_timit,
    read_marks,
    reference_phones,
)
from asrkd.errors import InputError
from asrkd.files import read_json
from asrkd.lang.lexicon import Lexicon
from asrkd.lang.ngram import read_arpa
from asrkd.lang.options import LangOptions
from asrkd.recipe.corpus import Corpus, prepare_corpus
from asrkd.recipe.folders import SPLITS, RunFolders
from asrkd.recipe.lang import make_lexicon, make_lm
from asrkd.recipe.options import SpeechOptions

RECIPE = Path(__file__).resolve().parents[3] / "recipes" / "timit" / "recipe.py"
EACH = len(SENTENCES) - NUM_SA
TINY = [
    *("--student.hidden-dim=64", "--student.num-layers=2", "--teacher.hidden-dim=64", "--teacher.num-layers=2"),
    *("--train.epochs=6", "--labels.epochs=3", "--labels.mono-rounds=1", "--labels.tree-rounds=1"),
    *("--ensemble.size=2", "--tree.num-leaves=180", "--students.sweep-temperatures", "1.0", "2.0"),
    *("--align.num-phone-rounds=4", "--align.num-state-rounds=4", "--teacher.dropout=0.1"),
    *("--train.learning-rate=0.003", "--train.batch-size=128"),
    *("--decode.beam=10", "--decode.max-active=1500", "--decode.lattice-beam=4"),
    *("--tune.acoustic-scales", "0.2", "0.4", "--tune.insertion-scores", "0.0", "3.0"),
]
WHOLE = "--max-bad=0.999"  # nearly all of the 4,288 utterances are missing in a small tree


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    spec = importlib.util.spec_from_file_location("timit_recipe", RECIPE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Corpus = module.CORPUS
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_noise_tree(tmp_path / "timit" / "TIMIT")


def test_61_phones_become_48_and_39() -> None:
    assert len(TO_48) == 61
    assert len(set(TO_48.values()) - {"Q"}) == len(TO_39) == 48
    assert len(set(TO_39.values())) == 39
    by_hand = {
        "H#": "SIL",
        "PAU": "SIL",
        "EPI": "EPI",
        "KCL": "CL",
        "DCL": "VCL",
        "AX-H": "AX",
        "UX": "UW",
        "ENG": "NG",
    }
    assert {phone: TO_48[phone] for phone in by_hand} == by_hand
    by_hand = {"CL": "SIL", "VCL": "SIL", "EPI": "SIL", "AO": "AA", "AX": "AH", "IX": "IH", "ZH": "SH", "EL": "L"}
    assert {phone: TO_39[phone] for phone in by_hand} == by_hand
    assert {"DX", "SIL"} <= set(TO_39.values())


def test_each_phone_of_the_48_is_a_word_of_itself(corpus: Corpus) -> None:
    prons = Lexicon.load(corpus.dictionary(Path())).prons
    assert set(prons) == TO_39.keys() - {"SIL"}
    assert all(variants == ((phone,),) for phone, variants in prons.items())


def test_the_lists_have_50_and_24_speakers() -> None:
    assert (len(DEV_SPEAKERS), len(CORE_TEST_SPEAKERS)) == (50, 24)
    assert not DEV_SPEAKERS & CORE_TEST_SPEAKERS
    # Two men and a woman of each of eight regions.
    assert sum(name.startswith("F") for name in CORE_TEST_SPEAKERS) == 8


def test_marks_are_read(tmp_path: Path) -> None:
    write_rows(tmp_path / "SX1.PHN", MARKS)
    marks = read_marks(tmp_path / "SX1.PHN")
    assert [one.symbol for one in marks] == ["SIL", "CL", "K", "AE", "SIL", "Q", "IX", "SIL"]
    assert [(one.start, one.end) for one in marks[:3]] == [(0.0, 0.05), (0.05, 0.1), (0.1, 0.15)]


@pytest.mark.parametrize("lower", [False, True])
def test_the_parts_have_their_speakers_and_no_sa(tree: Path, lower: bool) -> None:
    if lower:  # as some discs were copied
        for path in sorted(tree.rglob("*"), key=lambda path: -len(path.parts)):
            path.rename(path.with_name(path.name.lower()))
    splits = prepare_timit(tree.parent)
    speakers = {name: {s.speaker for s in split.supervisions} for name, split in splits.items()}
    assert speakers == {
        "train": {name for names in TRAIN.values() for name in names},
        "dev": {"FAKS0", "MMDB1"},
        "test": {"MDAB0", "FELC0"},
    }
    assert [len(split.supervisions) for split in splits.values()] == [6 * EACH, 2 * EACH, 2 * EACH]
    assert [split.excluded[DIALECT] for split in splits.values()] == [6 * NUM_SA, 2 * NUM_SA, 2 * NUM_SA]
    assert splits["test"].excluded[OTHER_SPEAKER] == EACH
    assert not any(split.rejected for split in splits.values())
    said = splits["test"].supervisions["MDAB0-SX37"]
    assert said.text == "CL K AE IX"
    assert reference_phones(said) == ["SIL", "CL", "K", "AE", "SIL", "IX", "SIL"]
    samples = read_samples(splits["test"].recordings["MDAB0-SX37"])
    audio = next(path for path in tree.rglob("*") if path.parts[-2:] in (("MDAB0", "SX37.WAV"), ("mdab0", "sx37.wav")))
    assert np.array_equal(samples[0] * 32768, np.frombuffer(audio.read_bytes()[HEADER_BYTES:], "<i2"))


def test_a_recoded_copy_of_the_audio_is_used_if_it_is_the_only_one(tree: Path) -> None:
    folder = next(tree.rglob("MDAB0"))
    shutil.copy(folder / "SX37.WAV", folder / "SX37.WAV.wav")
    (folder / "SX127.WAV").rename(folder / "SX127.WAV.wav")
    recordings = prepare_timit(tree)["test"].recordings
    names = {name: Path(recordings[f"MDAB0-{name}"].sources[0].source).name for name in ("SX37", "SX127")}
    assert names == {"SX37": "SX37.WAV", "SX127": "SX127.WAV.wav"}


def test_lhotse_prepares_the_same_except_as_documented(tree: Path) -> None:
    from lhotse.recipes.timit import prepare_timit as prepare_as_lhotse

    tree.rename(tree.parent / "data")
    ours, theirs = prepare_timit(tree.parent), prepare_as_lhotse(tree.parent, num_phones=48)
    for name, split in ours.items():
        supervisions = {s.id: s for s in theirs[name.upper()]["supervisions"] if "-SA" not in s.id}
        assert set(supervisions) == {s.id for s in split.supervisions}
        for said in split.supervisions:
            other = supervisions[said.id]
            assert (said.speaker, said.duration) == (other.speaker, other.duration)
            times = [one.end for one in said.alignment["phone"]]
            assert times == pytest.approx([one.end for one in other.alignment["phone"]])
            mapped = [one.symbol.upper() or "Q" for one in other.alignment["phone"]]
            assert [one.symbol for one in said.alignment["phone"]] == mapped


def test_errors_of_phones_are_counted_by_hand(corpus: Corpus) -> None:
    scoring = corpus.scoring
    said = ["SIL", "CL", "K", "AE", "SIL", "IX", "VCL", "ZH", "AO", "SIL"]
    ref = scoring.fold(said)
    assert ref == ["SIL", "SIL", "K", "AE", "SIL", "IH", "SIL", "SH", "AA", "SIL"]
    # Right among the 39: CL for VCL, IH for IX, SH for ZH, AA for AO; no error: the missing pauses and closure.
    assert scoring.count_errors(ref, ["CL", "K", "AE", "IH", "CL", "SH", "AA"]) == 0
    assert scoring.count_errors(ref, ["K", "AE", "IX", "ZH", "AO"]) == 0
    # EH for AE, a closure too many, no SH.
    errors = scoring.errors({"u": ref}, {"u": ["K", "EH", "IX", "AO", "VCL", "EPI"]})
    assert (errors.ins, errors.dels, errors.subs, errors.words) == (1, 1, 1, 10)
    assert errors.percent == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("7200 8000", r"SX37\.PHN:9: expected two sample numbers and a phone, found '7200 8000'"),
        ("8000 x h#", r"SX37\.PHN:9: expected two sample numbers and a phone"),
        ("9000 8500 h#", r"SX37\.PHN:9: expected times in order, found 9000 to 8500 after 7200"),
        ("8000 8100 sch", r"SX37\.PHN:9: expected one of TIMIT's 61 phones, found 'sch'"),
        ("8000 8100 é", r"SX37\.PHN:9: expected one of TIMIT's 61 phones, found 'é'"),
    ],
)
def test_bad_marks_are_named(tree: Path, line: str, message: str) -> None:
    path = next(tree.rglob("MDAB0/SX37.PHN"))
    path.write_text(path.read_text() + line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_marks(path)
    (fault,) = prepare_timit(tree)["test"].rejected
    assert fault.utt_id == "MDAB0-SX37" and str(path) in fault.reason


def test_damaged_and_missing_files_are_rejected_with_their_reason(tree: Path, corpus: Corpus, tmp_path: Path) -> None:
    folder = next(tree.rglob("FELC0"))
    (folder / "SX37.WAV").unlink()
    (folder / "SX127.PHN").unlink()
    cut = folder / "SX217.WAV"
    cut.write_bytes(cut.read_bytes()[:5000])
    (folder / "SI648.WAV").write_bytes(b"not audio at all")
    for path in next(tree.rglob("MMDB1")).glob("S[XI]*"):
        path.unlink()
    options = SpeechOptions(corpus_dir=tree, exp_dir=tmp_path / "exp", max_bad=0.999)
    run_manifests(corpus, options)
    files = [RunFolders(options.exp_dir).manifests(split) / "rejected.json" for split in SPLITS]
    rejected = {row["utt_id"]: row["reason"] for file in files for row in read_json(file)}
    assert rejected.pop("MMDB1") == "speaker without utterances other than SA"
    assert {
        utt_id.removeprefix("FELC0-"): reason.split(":")[0].split(" in ")[0] for utt_id, reason in rejected.items()
    } == {
        "SX37": "missing audio",
        "SX127": "missing transcript",
        "SX217": "truncated audio",
        "SI648": "unreadable audio",
    }


def test_a_partial_copy_is_refused(tree: Path, corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected 3696 utterances in train, found 36: is the copy whole\?"):
        prepare_corpus(corpus, {}, SpeechOptions(corpus_dir=tree), tmp_path)
    shutil.rmtree(tree / "TEST")
    with pytest.raises(InputError, match=r"expected TIMIT's TRAIN and TEST, found only TRAIN.*LDC93S1"):
        prepare_timit(tree.parent)
    (tree / "TEST").mkdir()
    with pytest.raises(InputError, match=r"TEST: expected speakers' folders such as DR1/FCJF0, found none"):
        prepare_timit(tree.parent)
    with pytest.raises(InputError, match="found neither"):
        prepare_timit(tree / "TRAIN" / "DR1" / "FCJF0")


def test_speakers_who_are_missing_are_named(tree: Path, corpus: Corpus, tmp_path: Path) -> None:
    """One without files and one without a folder, of lists that have no more than this tree."""
    small = replace(
        corpus,
        sizes={"train": 6 * EACH, "dev": 3 * EACH, "test": 2 * EACH},
        speakers={"dev": {"FAKS0", "FCMH0", "MMDB1"}},
    )
    for path in next(tree.rglob("FAKS0")).glob("S[XI]*"):
        path.unlink()
    for path in next(tree.rglob("MMDB1")).glob("S[XI]*.WAV"):
        path.write_bytes(b"no audio")
    with pytest.raises(InputError) as refused:
        prepare_corpus(small, {}, SpeechOptions(corpus_dir=tree), tmp_path)
    assert "expected 18 utterances in dev, found 7: is the copy whole?" in str(refused.value)
    named = "FCMH0: speaker without files; FAKS0: speaker without utterances other than SA; MMDB1-SI1027: unreadable"
    assert f"may be missing): {named}" in str(refused.value)


def out_dir(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    return folder


def test_audio_that_moved_is_named(tree: Path, corpus: Corpus, tmp_path: Path) -> None:
    options = SpeechOptions(corpus_dir=tree, exp_dir=tmp_path / "exp", max_bad=0.999, num_jobs=1)
    run_manifests(corpus, options)
    tree.rename(tree.with_name("moved"))
    with pytest.raises(InputError, match=r"FAEM0-SI1027: missing audio: expected .*/TRAIN/DR2/FAEM0/SI1027\.WAV"):
        run_features(options)


def test_lexica_and_language_models_that_do_not_fit(tree: Path, corpus: Corpus, tmp_path: Path) -> None:
    options = SpeechOptions(corpus_dir=tree, exp_dir=tmp_path / "exp", max_bad=0.999, num_jobs=1)
    run_manifests(corpus, options)

    def lang(**changes: object) -> Path:
        changed = replace(options, lang=LangOptions(order=2, **changes))  # type: ignore[arg-type]
        make_lexicon(corpus, changed, step_folder(changed, "lang/lexicon"))
        folder = step_folder(changed, "lang/lm")
        make_lm(corpus, changed, folder)
        return folder

    bigram = read_arpa(lang() / "lm.arpa")
    assert bigram.order == 2
    assert bigram.vocabulary == TO_39.keys() - {"SIL"}
    assert bigram.log10_prob(["CL"], "K") > bigram.log10_prob(["CL"], "AE")
    latin = tmp_path / "latin.txt"
    latin.write_bytes("K K\nAE É\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.txt:2: expected UTF-8, found byte 0xc9"):
        lang(lexicon=str(latin))
    lower = tmp_path / "lower.arpa"
    lower.write_text("\\data\\\nngram 1=4\n\n\\1-grams:\n-1 <s>\n-1 </s>\n-1 <unk>\n-1 kcl\n\n\\end\\\n")
    with pytest.raises(InputError, match=r"lower\.arpa: expected words of the lexicon, such as AA, found none"):
        lang(arpa=str(lower))
    lower.write_text(lower.read_text().replace("-1 kcl", "-1 K\n-1 AE\n-1 ZZXQ\n-1 QXJZV").replace("1=4", "1=7"))
    with pytest.raises(InputError, match=r"lower\.arpa: .* found 2 of 4 outside it: QXJZV, ZZXQ"):
        lang(arpa=str(lower))


def run_recipe(*arguments: str) -> subprocess.CompletedProcess[str]:
    """recipes/timit as a person runs it."""
    return subprocess.run([sys.executable, str(RECIPE), *arguments], capture_output=True, text=True, timeout=600)


def test_what_a_step_finds_is_one_line_and_exit_code_2(tree: Path, tmp_path: Path) -> None:
    where = ["--corpus-dir", str(tree), "--exp-dir", str(tmp_path / "exp")]
    latin = tmp_path / "latin.txt"
    latin.write_bytes("K K\nAE É\n".encode("latin-1"))
    for arguments, message in (
        ([], f"{tree}: expected 3696 utterances in train, found 36: is the copy whole?"),
        ([WHOLE, "--stop-stage=3", f"--lang.lexicon={latin}"], f"{latin}:2: expected UTF-8, found byte 0xc9"),
    ):
        done = run_recipe(*where, *arguments)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        last = done.stderr.splitlines()[-1]
        assert last.startswith("recipes/timit/run.sh: error: ") and message in last


@pytest.mark.needs("k2")
@pytest.mark.slow
def test_whole_recipe_on_speech_of_festival(tmp_path: Path) -> None:
    if not available_voices():
        pytest.skip(f"festival or its voices are missing (apt-get install festival {' '.join(VOICES.values())})")
    tree = make_spoken_tree(tmp_path / "TIMIT", out_dir(tmp_path, "spoken"))
    next(tree.rglob("FCJF0/SX37.PHN")).unlink()
    exp = tmp_path / "exp"
    done = run_recipe("--corpus-dir", str(tree), "--exp-dir", str(exp), WHOLE, *TINY)
    assert done.returncode == 0, done.stderr[-2000:]
    results = read_json(exp / "results.json")
    assert results["unit"] == "phone"
    assert results["rejected"] == [["FCJF0-SX37", "missing transcript: it has audio only"]]
    assert results["excluded"] == {DIALECT: 10 * NUM_SA, OTHER_SPEAKER: EACH}
    assert [row["utterances"] for row in results["corpus"].values()] == [6 * EACH - 1, 2 * EACH, 2 * EACH]
    for system in results["systems"].values():
        assert 0.3 < system["frame_accuracy"] < 1.0
        assert 0 < system["wer"]["percent"] < 50
    # References are phones of the 39 with their pauses: more than the texts have.
    assert results["systems"]["ensemble"]["wer"]["words"] >= results["corpus"]["test"]["phones"] + 2 * 2 * EACH
    for split in ("train", "dev", "test"):
        found = results["boundaries"][split]
        assert found["boundaries"] > results["corpus"][split]["phones"]
        assert 0.75 < found["within_30_ms"] < 1.0
        assert 0 < found["median_ms"] < 20
    markdown = (exp / "report" / "RESULTS.md").read_text()
    assert "PER %" in markdown and "WER" not in markdown
    assert "Boundaries against marks by hand" in markdown
    assert "phone error rate" in (exp / "report" / "report.html").read_text()
