"""The speech recipe: which students it trains, what it refuses, and a whole run of a tiny one."""

from __future__ import annotations

import re
import runpy
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_recipe import LM_SCALE, ROOT, TinyRecipe

from asrkd.config import parse
from asrkd.data.corpora.an4 import prepare_an4
from asrkd.distil.store import PosteriorStore
from asrkd.errors import InputError
from asrkd.files import read_json
from asrkd.nnet import ModelOptions, TrainOptions
from asrkd.recipe import pipeline
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.evaluate import runs
from asrkd.recipe.label_networks import label_training
from asrkd.recipe.options import SpeechOptions, StudentsOptions
from asrkd.recipe.run_options import with_absolute_paths
from asrkd.recipe.students import student_training, students
from asrkd.workflow.steps import step_stamps

CORPUS = Corpus(
    name="an4",
    prepare=prepare_an4,
    dictionary=lambda corpus_dir: corpus_dir / "etc" / "an4.dic",
    closed_vocabulary=True,
    where="get AN4",
)


def test_baseline_and_distilled_differ_in_their_targets_alone() -> None:
    by_name = {student.name: student for student in students(SpeechOptions())}
    baseline, distilled = by_name["baseline"], by_name["distilled"]
    assert baseline.distil is None
    assert distilled.distil is not None
    assert (baseline.model, baseline.seed) == (distilled.model, distilled.seed)
    assert by_name["baseline_dropout"].model.dropout == SpeechOptions().teacher.dropout > 0


def test_a_rate_for_soft_targets_is_theirs_alone(tmp_path: Path) -> None:
    options = replace(SpeechOptions(corpus_dir=tmp_path), students=StudentsOptions(soft_learning_rate=3e-3))
    by_name = {student.name: student for student in students(options)}
    assert student_training(by_name["baseline"], options) == options.train
    assert student_training(by_name["distilled"], options) == replace(options.train, learning_rate=3e-3)
    before = step_stamps(pipeline.build_steps(CORPUS, SpeechOptions(corpus_dir=tmp_path), "run.sh"))
    after = step_stamps(pipeline.build_steps(CORPUS, options, "run.sh"))
    changed = {name for name in after if name.startswith(("teachers", "students")) and before[name] != after[name]}
    assert changed == {f"students/{student.name}" for student in by_name.values() if student.distil}


def test_the_schedule_of_students_is_their_own_and_that_of_baselines_too() -> None:
    options = replace(SpeechOptions(), students=StudentsOptions(epochs=30, weight_decay=0.1, beta2=0.99))
    expected = replace(options.train, epochs=30, weight_decay=0.1, beta2=0.99)
    assert all(student_training(one, options) == expected for one in students(options))


def test_the_sweep_covers_every_temperature_once() -> None:
    options = SpeechOptions()
    swept = [student.distil for student in students(options) if student.distil and student.is_sweep]
    assert sorted(one.temperature for one in swept) == sorted(options.students.sweep_temperatures)


def test_networks_of_the_labels_have_no_development_data_to_ask() -> None:
    options = SpeechOptions(train=TrainOptions(schedule="newbob", patience=2, epochs=9), seed=4)
    chosen = label_training(options)
    assert (chosen.schedule, chosen.patience, chosen.epochs, chosen.seed) == ("cosine", None, options.labels.epochs, 4)


def test_seeds_and_narrow_students_are_decoded_and_the_sweep_is_not() -> None:
    options = replace(SpeechOptions(), students=StudentsOptions(seeds=2, narrow_dims=(256,)))
    names = [run.name for run in runs(options)]
    assert {"baseline_seed1", "distilled_seed1", "distilled_256", "baseline_256", "ensemble"} <= set(names)
    assert not [name for name in names if name.startswith("sweep")]


def test_a_student_of_the_teachers_size_has_the_students_dropout() -> None:
    options = replace(
        SpeechOptions(), student=ModelOptions(num_layers=2, dropout=0.0), students=StudentsOptions(teacher_size=True)
    )
    options = replace(options, teacher=replace(options.teacher, num_layers=5, hidden_dim=96, dropout=0.4))
    (large,) = [student for student in students(options) if student.system == "distilled_large"]
    assert (large.model.num_layers, large.model.hidden_dim, large.model.dropout) == (5, 96, 0.0)
    assert large.distil is not None and large.choice == "choice/distilled"
    assert "distilled_large" in [run.name for run in runs(options)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train.seed=3"], "--train.seed: give --seed"),
        (["--train.device=cuda"], "--train.device: give --device"),
        (["--num-jobs=0"], "--num-jobs: expected at least 1, found 0"),
        (["--executor=dask"], "--executor dask: expected an address"),
        (
            ["--distil.temperature=3"],
            r"expected some of --posteriors.temperatures .* found 3: .* or give --distil.targets online",
        ),
        (["--students.augment.mix=0.5"], "--students.augment.mix: expected --distil.targets online, .* found stored"),
        (
            ["--distil.targets=online", "--posteriors-from=store"],
            "--distil.targets: expected stored with --posteriors-from, .* found online",
        ),
        (["--students.augment.warp=2"], "augment.warp: expected a fraction"),
        (["--students.epochs=0"], "--students.epochs: expected at least 1, found 0"),
        (["--students.weight-decay=-1"], "--students.weight-decay: expected at least 0, found -1"),
        (["--students.beta2=1"], r"--students.beta2: expected a value in \[0, 1\), found 1"),
        (["--ensemble.size=0"], "at least 1 teacher, found 0"),
        (["--students.baseline-dropouts=1"], r"--students.baseline-dropouts: expected values in \[0, 1\), found 1"),
        (["--labels.tree-rounds=0"], "--labels.tree-rounds: expected at least 1, found 0"),
        (["--align.silence-prob=0"], "expected a silence_prob between 0 and 1, found 0"),
        (["--realign.batch-utterances=0"], "expected batch_utterances of at least 1, found 0"),
        (["--features.frame-shift-ms=0"], "frame_shift_ms: expected a number above 0 and of at most 100, found 0"),
        (["--tune.acoustic-scales"], "--tune.acoustic-scales: expected at least one, found none"),
        (["--stage=13"], "expected 0 to 12"),
        (["--max-bad=nan"], "--max-bad: expected 0 to 1, found nan"),
        (["--max-bad=-1"], "--max-bad: expected 0 to 1, found -1"),
        (["--max-bad=2"], "--max-bad: expected 0 to 1, found 2"),
        (
            ["--lang.interpolation-weight=0.3"],
            "--lang.interpolation-weight: it has no effect without --lang.arpa, --lang.text and --lang.rescore-arpa",
        ),
        (
            ["--lang.max-words=9"],
            "--lang.max-words: it has no effect without --lang.arpa and --lang.text",
        ),
    ],
)
def test_options_that_would_be_ignored_or_cannot_work_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(SpeechOptions(), arguments, "run.sh", "")


@pytest.mark.parametrize(
    ("recipe", "arguments", "message"),
    [
        ("an4", [], "no --corpus-dir: "),
        ("an4", ["--corpus-dir=nowhere"], "nowhere: no such folder"),
        ("an4", ["--corpus-dir=.", "--loud=1"], "--loud"),
        ("an4", ["--corpus-dir=.", "--stage=five"], "five"),
        ("an4", ["--corpus-dir=.", "--lang.lexicon=nowhere.txt"], "nowhere.txt: no such file"),
        (
            "an4",
            ["--corpus-dir=.", "--distil.targets=stored", "--students.augment.mix=0", "--posteriors-from=nowhere"],
            "nowhere",
        ),
        ("prompts", ["--corpus-dir=nowhere"], "nowhere: no such folder"),
        ("timit", [], "no --corpus-dir: TIMIT is licensed by the Linguistic Data Consortium as LDC93S1"),
        ("timit", ["--corpus-dir=.", "--lang.arpa=nowhere.arpa"], "nowhere.arpa: no such file"),
        ("librispeech", ["--corpora.test-parts=a", "--corpora.test-speakers=1"], "found both"),
        (
            "librispeech",
            ["--corpus-dir=.", "--lang.arpa=None", "--lang.rescore-arpa=nowhere.bin"],
            "nowhere.bin: no such file; on Debian or Ubuntu: apt-get install pocketsphinx-en-us",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    recipe: str,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is known before the first step, so that the recipe's command can be run in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["recipe.py", *arguments])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(ROOT / "recipes" / recipe / "recipe.py"), run_name="__main__")
    (line,) = capsys.readouterr().err.splitlines()
    assert left.value.code == 2
    assert line.startswith(f"recipes/{recipe}/run.sh: error: ") and message in line
    assert not list(tmp_path.iterdir())


def test_a_missing_corpus_says_where_to_get_it(tmp_path: Path) -> None:
    for corpus_dir in (None, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="get AN4"):
            pipeline.build_steps(CORPUS, SpeechOptions(corpus_dir=corpus_dir), "run.sh")


def test_a_teacher_is_stamped_by_itself_and_by_what_trains_it(tmp_path: Path) -> None:
    def stamps(**changes: object) -> dict[str, str]:
        options = replace(SpeechOptions(corpus_dir=tmp_path), **changes)  # type: ignore[arg-type]
        return step_stamps(pipeline.build_steps(CORPUS, options, "run.sh"))

    base = stamps()
    longer = stamps(train=replace(SpeechOptions().train, epochs=99))
    other_graph = stamps(graph=replace(SpeechOptions().graph, silence_prob=0.1))
    other_device = stamps(device="cpu", num_jobs=1)
    assert base["teachers/0"] != base["teachers/1"]
    assert base["teachers/0"] != longer["teachers/0"]
    assert base["tree"] == longer["tree"], "the networks that make the labels have epochs of their own"
    assert base["teachers/0"] == other_graph["teachers/0"]
    assert base["decode/ensemble"] != other_graph["decode/ensemble"]
    assert base["teachers/0"] == other_device["teachers/0"]


def test_relative_folders_become_full_and_change_no_stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    typed = SpeechOptions(corpus_dir=Path("an4"), exp_dir=Path("exp/an4"))
    Path("an4").mkdir()
    full = with_absolute_paths(typed)
    assert (full.corpus_dir, full.exp_dir) == (tmp_path / "an4", tmp_path / "exp" / "an4")
    by_typed, by_full = (step_stamps(pipeline.build_steps(CORPUS, options, "run.sh")) for options in (typed, full))
    assert by_typed == by_full


def test_a_language_model_of_other_words_is_refused_before_anything_trains(tiny: TinyRecipe, tmp_path: Path) -> None:
    arpa = tmp_path / "lower.arpa"
    arpa.write_text(
        "\\data\\\nngram 1=4\n\n\\1-grams:\n-1 <s>\n-1 </s>\n-1 <unk>\n-1 yes\n\n\\end\\\n", encoding="utf-8"
    )
    refused = tiny.run(tmp_path / "exp", f"--lang.arpa={arpa}", "--lang.interpolation-weight=0", "--stop-stage=3")
    assert refused.returncode == 2
    last = refused.stderr.splitlines()[-1]
    assert str(arpa) in last and "such as yes" in last and "upper case" in last


# How far a system of the tiny recipe may be from what was measured. Another CPU rounds otherwise, and networks this
# small differ by about a point of frame accuracy from seed to seed; a word is 0.3 (prompts) or 0.7 (AN4) points of WER.
ACCURACY_TOLERANCE = 0.03
WER_TOLERANCE = 8.0


@pytest.mark.slow
def test_whole_recipe(tiny: TinyRecipe, finished: Path) -> None:
    results = read_json(finished / "results.json")
    systems = results["systems"]
    assert set(systems) == {"baseline", "baseline_dropout", "distilled", "ensemble", "teacher_0", "teacher_1"}
    assert len(results["rejected"]) == 1
    # An utterance that cannot be aligned has no frame labels. Its words count.
    assert [results["corpus"][split]["unaligned"] for split in ("train", "dev", "test")] == [0, 1, 1]
    assert results["oov_rate"]["test"] > 0
    assert {row["lm_scale"] for row in results["tuning"]} == {LM_SCALE}
    # Two values each: the chosen one is always an end of its grid.
    assert results["scales_at_grid_end"] == ["acoustic_scale", "insertion_score"]
    assert (results["scales_added"], results["scales_flat"]) == ({}, False)
    for flag in ("configured", "chosen"):
        assert sum(row[flag] for row in results["sweep"]) == 1
    chosen = next(row for row in results["sweep"] if row["chosen"])
    assert chosen["dev_cross_entropy"] == min(row["dev_cross_entropy"] for row in results["sweep"])
    assert f"T={chosen['temperature']:g}, α={chosen['alpha']:g}" in systems["distilled"]["description"]
    strongest = results["strongest_baseline"]
    assert [row["system"] for row in results["baselines"] if row["chosen"]] == [strongest["system"]]
    assert bool(strongest["gap_recovered"]) == (strongest["system"] != "baseline")
    for system in systems.values():
        assert system["wer"]["words"] == results["corpus"]["test"]["words"]
        assert system["rtf"] > 0
    assert systems["ensemble"]["parameters"] == 2 * systems["teacher_0"]["parameters"]
    assert {row["metric"] for row in results["comparisons"]} == {"frame_accuracy", "cross_entropy", "wer"}
    report = (finished / "report" / "report.html").read_text()
    assert "distilled" in report and "<audio" in report
    assert f"recipes/{tiny.name}/run.sh" in (finished / "report" / "RESULTS.md").read_text()[:400]


def noise_and_rooms(folder: Path) -> list[str]:
    """Options of recordings of noise, one in 21 of which is silent, and of an impulse response."""
    rng = np.random.default_rng(0)
    for name in ("noise", "rooms"):
        (folder / name).mkdir()
    for number in range(20):
        soundfile.write(folder / "noise" / f"n{number}.wav", 0.1 * rng.normal(size=8000 + 400 * number), 16000)
    soundfile.write(folder / "noise" / "silent.wav", np.zeros(8000), 16000)
    response = 0.1 * rng.normal(size=3000) * np.exp(-np.arange(3000) / 500)
    response[0] = 0.9
    soundfile.write(folder / "rooms" / "room.wav", response, 16000)
    noise = ["--students.augment.noise=0.4", f"--students.augment.noise-from={folder / 'noise'}"]
    rooms = ["--students.augment.reverb=0.3", f"--students.augment.reverb-from={folder / 'rooms'}"]
    return [*noise, "--students.augment.noise-max-snr-db=15", *rooms]


@pytest.mark.slow
def test_a_run_with_online_targets_stores_no_posteriors(tiny: TinyRecipe, finished: Path, tmp_path: Path) -> None:
    """At a temperature that no store has, on distorted inputs; teachers and baselines stay as they are."""
    exp = Path(shutil.copytree(finished, tmp_path / "exp"))
    distorted = ["--students.augment.mix=0.5", "--students.augment.warp=0.5", "--students.augment.mask=0.3"]
    distorted += noise_and_rooms(tmp_path)
    online = ("--distil.targets=online", "--distil.temperature=3", "--students.choose=configured")
    done = tiny.run(exp, *online, *distorted)
    assert done.returncode == 0, done.stderr[-2000:]
    for step in ("teachers/0", "students/baseline"):
        assert read_json(exp / step / "stamp.json") == read_json(finished / step / "stamp.json")
    assert not (exp / "posteriors" / "store").exists()
    results = read_json(exp / "results.json")
    assert {"baseline", "baseline_dropout", "baseline_augmented", "distilled", "ensemble"} <= set(results["systems"])
    assert results["disagreement"] == read_json(finished / "results.json")["disagreement"] and not results["store"]
    described = results["systems"]["distilled"]["description"]
    assert "T=3" in described and "online targets" in described and "mix 0.5" in described
    assert "mix 0.5" in results["systems"]["baseline_augmented"]["description"]
    for system in ("baseline_augmented", "distilled"):
        described = results["systems"][system]["description"]
        assert "noise 0.4" in described and "noise_max_snr_db 15" in described and "reverb 0.3" in described
    rows = read_json(exp / "augment" / "noise" / "rejected.json")
    assert [row["utt_id"] for row in rows] == ["silent"] and "rejected silent" in done.stdout
    assert {row["b"] for row in results["comparisons"] if row["a"] == "distilled"} >= {"baseline_augmented"}
    assert "distilled" in (exp / "report" / "report.html").read_text()


@pytest.mark.slow
def test_untranscribed_speech_is_seen_by_distilled_students_alone(
    tiny: TinyRecipe, finished: Path, tmp_path: Path
) -> None:
    """What others are made of stays as it is, whole: labels, tree, priors, language model, teachers and baselines."""
    audio = tmp_path / "audio"
    files = [path for path in sorted(tiny.corpus_dir.rglob("*")) if path.suffix in (".flac", ".gsm", ".wav", ".ulaw")]
    for path in files[1:20]:  # the first one is truncated
        (audio / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, audio / path.parent.name)
    exp = Path(shutil.copytree(finished, tmp_path / "exp"))
    done = tiny.run(exp, f"--transfer.recordings={audio}", "--transfer.share=0.3")
    assert done.returncode == 0, done.stderr[-2000:]
    for step in ("tree", "lang/lexicon", "lang/lm", "labels/dev", "teachers/0", "teachers/1", "students/baseline"):
        assert read_json(exp / step / "stamp.json") == read_json(finished / step / "stamp.json")
    results = read_json(exp / "results.json")
    assert results["transfer"]["recordings"] == results["transfer"]["pieces"] == len(list(audio.rglob("*.*"))) > 10
    assert results["transfer"]["rejected"] == [] and results["transfer"]["frames"] > 1000
    assert results["corpus"] == read_json(finished / "results.json")["corpus"]
    assert "30% of frames untranscribed" in results["systems"]["distilled"]["description"]
    assert "Transfer set" in (exp / "report" / "RESULTS.md").read_text()
    assert "Transfer set" in (exp / "report" / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("lattices", "last_stage"), [("words", 8), ("transcript", 7)])
def test_a_run_with_lattice_targets_learns_them_and_makes_nothing_else_again(
    tiny: TinyRecipe, finished: Path, tmp_path: Path, lattices: str, last_stage: int
) -> None:
    exp = Path(shutil.copytree(finished, tmp_path / "exp"))
    chosen = ["--transfer.targets=lattice", f"--transfer.lattices={lattices}", f"--stop-stage={last_stage}"]
    done = tiny.run(exp, *chosen)
    assert done.returncode == 0, done.stderr[-2000:]
    steps = [line.split("(")[1].split(",")[0] for line in done.stdout.splitlines() if line.startswith("==")]
    students = [step for step in steps[3:] if step != "choice/distilled"]
    assert steps[:3] == ["posteriors", "lattices/scales", "lattices/targets"]
    assert all(step.startswith("students/") for step in students)
    assert ("students/distilled" in students) == (last_stage == 8) and "students/baseline" not in students
    report = read_json(exp / "lattices" / "targets" / "report.json")
    store = PosteriorStore.open(exp / "lattices" / "targets" / "store")
    assert report["utterances"] == len(store.utt_ids) and len(report["without_path"]) < 0.2 * report["utterances"]
    # The teachers' words, or the transcript, say more of the training frames than chance and less than all.
    assert 0.4 < report["top_is_label"] < 1.0
    frames = torch.arange(100)
    old, new = (one.targets(frames, 1.0) for one in (PosteriorStore.open(finished / "posteriors" / "store"), store))
    assert torch.isfinite(new.probs).all() and not torch.equal(old.probs, new.probs)


@pytest.mark.slow
def test_one_teacher_has_a_gain_of_its_own(tiny: TinyRecipe, finished: Path, tmp_path: Path) -> None:
    """Its tables have a teacher and no ensemble, and the gap recovered counts against it."""
    exp = Path(shutil.copytree(finished, tmp_path / "exp"))
    done = tiny.run(exp, "--ensemble.size=1", "--students.sweep-temperatures", "--students.sweep-alphas")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "== stage 6" not in done.stdout and "choice/distilled" not in done.stdout
    results = read_json(exp / "results.json")
    assert set(results["systems"]) == {"baseline", "baseline_dropout", "distilled", "teacher"}
    assert results["disagreement"] is None
    assert {row["b"] for row in results["comparisons"] if row["a"] == "distilled"} >= {"teacher"}
    text = (exp / "report" / "RESULTS.md").read_text().split("# Results")[1].split("## Provenance")[0]
    assert "(teacher − baseline)" in text and "ensemble" not in text
    assert "teacher" in (exp / "report" / "report.html").read_text()


@pytest.mark.slow
def test_systems_are_as_good_as_they_were(tiny: TinyRecipe, finished: Path) -> None:
    """Frame accuracy and WER of each system, from above and from below: a stage that does half its work is seen."""
    systems = read_json(finished / "results.json")["systems"]
    for name, (accuracy, wer) in tiny.measured.items():
        assert systems[name]["frame_accuracy"] == pytest.approx(accuracy, abs=ACCURACY_TOLERANCE), name
        assert systems[name]["wer"]["percent"] == pytest.approx(wer, abs=WER_TOLERANCE), name
    for teacher in ("teacher_0", "teacher_1"):
        # By 0.012 to 0.040 in accuracy, 0.03 to 0.18 nats in cross-entropy when measured.
        assert systems["ensemble"]["frame_accuracy"] > systems[teacher]["frame_accuracy"]
        assert systems["ensemble"]["cross_entropy"] < systems[teacher]["cross_entropy"]


@pytest.mark.slow
def test_files_and_keys_of_a_run_are_documented(finished: Path) -> None:
    page = (ROOT / "docs" / "file_formats.md").read_text()
    files = {path.name for path in finished.rglob("*") if path.is_file() and path.suffix != ".log"} - {".lock"}
    assert not [name for name in sorted(files) if name not in page]
    assert not [key for key in read_json(finished / "results.json") if f"`{key}`" not in page]


@pytest.mark.slow
def test_a_finished_run_does_nothing_and_another_configuration_is_refused(tiny: TinyRecipe, finished: Path) -> None:
    again = tiny.run(finished)
    assert again.returncode == 0
    assert not [line for line in again.stdout.splitlines() if line.startswith("==")]
    refused = tiny.run(finished, "--stage=11", "--graph.silence-prob=0.4")
    assert refused.returncode == 2
    assert "another configuration" in refused.stderr and len(refused.stderr.splitlines()) == 1


@pytest.mark.slow
def test_another_limit_of_a_finished_run_trains_nothing_and_a_stricter_one_stops_it(
    tiny: TinyRecipe, finished: Path, tmp_path: Path
) -> None:
    exp_dir = tmp_path / "exp"
    shutil.copytree(finished, exp_dir)
    looser = tiny.run(exp_dir, "--max-bad=0.06", "--stop-stage=10")
    assert looser.returncode == 0
    steps = {line.split("(")[1].split(",")[0] for line in looser.stdout.splitlines() if line.startswith("==")}
    assert {"losses/words", "losses/frames", "losses/test"} <= steps
    assert {name.split("/")[0] for name in steps} == {"corpus", "manifests", "losses"}
    num_test = read_json(finished / "results.json")["corpus"]["test"]["utterances"]
    stricter = tiny.run(exp_dir, f"--max-bad={0.9 / num_test}")
    (line,) = [line for line in stricter.stderr.splitlines() if "error:" in line]
    assert stricter.returncode == 2
    assert re.search(r"bad utterances in (dev|test) \(--max-bad\), found 1 of", line)
