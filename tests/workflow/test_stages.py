"""Stages: skipped when nothing changed, rerun when something did, whole outputs or none."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from asrkd.errors import InputError, one_line_errors
from asrkd.files import read_json, write_json
from asrkd.workflow.stages import StageRange, list_steps, run_steps
from asrkd.workflow.steps import Record, Step, first_difference, step_stamps


class Recorder:
    """A step body that writes a file and counts its runs, across the processes that steps run in."""

    def __init__(self) -> None:
        self.counter = multiprocessing.get_context("fork").Value("i", 0)

    @property
    def runs(self) -> int:
        return self.counter.value

    def __call__(self, out_dir: Path) -> None:
        self.counter.value += 1
        (out_dir / "value").write_text(str(self.runs))


def two_steps(a: Recorder, b: Recorder, rate: float = 0.1) -> list[Step]:
    return [Step(0, "corpus", a, {"rate": rate}), Step(2, "features", b, {"bins": 40}, inputs=("corpus",))]


def test_second_run_does_nothing(tmp_path: Path) -> None:
    a, b = Recorder(), Recorder()
    run_steps(two_steps(a, b), tmp_path)
    run_steps(two_steps(a, b), tmp_path)
    assert (a.runs, b.runs) == (1, 1)
    assert (tmp_path / "features" / "value").read_text() == "1"


def test_a_changed_option_reruns_the_step_and_what_reads_it(tmp_path: Path) -> None:
    a, b = Recorder(), Recorder()
    run_steps(two_steps(a, b), tmp_path)
    run_steps(two_steps(a, b, rate=0.2), tmp_path)
    assert (a.runs, b.runs) == (2, 2)


def content_steps(sources: dict[str, str], reader: Recorder) -> list[Step]:
    """A step whose output says where its sources are and what they contain, and a step that reads it."""

    def write(out_dir: Path) -> None:
        (out_dir / "paths").write_text(" ".join(sources))
        (out_dir / "text").write_text(" ".join(sources.values()))

    first = Step(1, "manifests", write, sources, content=lambda folder: (folder / "text").read_text())
    return [first, Step(2, "features", reader, {"bins": 40}, inputs=("manifests",))]


def test_an_output_that_says_the_same_leaves_its_readers_up_to_date(tmp_path: Path) -> None:
    reader = Recorder()
    run_steps(content_steps({"/a": "GO"}, reader), tmp_path)
    run_steps(content_steps({"/b": "GO"}, reader), tmp_path)
    assert reader.runs == 1 and (tmp_path / "manifests" / "paths").read_text() == "/b"
    run_steps(content_steps({"/b": "STOP"}, reader), tmp_path)
    assert reader.runs == 2


def test_a_reader_is_not_up_to_date_by_content_that_is_out_of_date(tmp_path: Path) -> None:
    reader = Recorder()
    run_steps(content_steps({"/a": "GO"}, reader), tmp_path)
    with pytest.raises(InputError, match=r"another configuration .options changed: /a GO -> None"):
        run_steps(content_steps({"/b": "GO"}, reader), tmp_path, StageRange(first=2))
    assert reader.runs == 1


def test_a_removed_output_that_comes_back_the_same_leaves_its_readers_up_to_date(tmp_path: Path) -> None:
    reader = Recorder()
    text = "GO"

    def write(out_dir: Path) -> None:
        (out_dir / "text").write_text(text)

    steps = [Step(0, "corpus", write), Step(2, "features", reader, inputs=("corpus",))]
    run_steps(steps, tmp_path)
    shutil.rmtree(tmp_path / "corpus")
    run_steps(steps, tmp_path)
    assert reader.runs == 1
    shutil.rmtree(tmp_path / "corpus")
    text = "STOP"  # as another version of the code might make it
    run_steps(steps, tmp_path)
    assert reader.runs == 2


@pytest.mark.parametrize("stamp", ["", "{", "[]", '{"stamp": "abc"}'])
def test_a_damaged_stamp_or_one_of_another_version_is_no_finished_output(tmp_path: Path, stamp: str) -> None:
    body = Recorder()
    run_steps([Step(0, "corpus", body)], tmp_path)
    (tmp_path / "corpus" / "stamp.json").write_text(stamp)
    listed = list_steps([Step(0, "corpus", body)], tmp_path)
    assert listed == [f" 0  {'corpus':<28} its stamp.json is damaged or of another version"]
    run_steps([Step(0, "corpus", body)], tmp_path)
    assert body.runs == 2 and Record.read(tmp_path / "corpus") is not None


@pytest.mark.parametrize("pending", ["", "{", "[]", '{"begun": "abc"}'])
def test_a_damaged_record_of_an_attempt_starts_anew(tmp_path: Path, pending: str) -> None:
    partial = tmp_path / "teachers" / "0.partial"
    partial.mkdir(parents=True)
    (partial / "pending.json").write_text(pending)
    (partial / "epoch0").touch()
    run_steps([Step(6, "teachers/0", Recorder(), resumable=True)], tmp_path)
    assert not (tmp_path / "teachers" / "0" / "epoch0").exists()


def test_the_first_stage_that_must_run_is_named(tmp_path: Path) -> None:
    body = Recorder()

    def steps(rate: float) -> list[Step]:
        middle = Step(1, "manifests", body, inputs=("corpus",))
        return [Step(0, "corpus", body, {"rate": rate}), middle, Step(2, "features", body, inputs=("manifests",))]

    run_steps(steps(0.1), tmp_path)
    with pytest.raises(InputError, match=r"input changed: corpus\): run from --stage 0"):
        run_steps(steps(0.2), tmp_path, StageRange(first=2))


def test_runs_of_one_step_that_start_together_wait_for_each_other(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    context = multiprocessing.get_context("fork")

    def start(number: int) -> None:
        for _ in range(20):
            run_steps(three_steps(Recorder()), tmp_path, StageRange(only=f"teachers/{number}"), on_start=save)

    def save() -> None:
        write_json(config, {"epochs": 3})

    run_steps(three_steps(Recorder()), tmp_path, StageRange(last=0))
    processes = [context.Process(target=start, args=(number,)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0] and read_json(config) == {"epochs": 3}


def test_the_steps_that_would_run_are_listed_with_the_reason(tmp_path: Path) -> None:
    a, b = Recorder(), Recorder()
    assert list_steps(two_steps(a, b), tmp_path) == [
        f" 0  {'corpus':<28} no output yet",
        f" 2  {'features':<28} no output yet",
    ]
    run_steps(two_steps(a, b), tmp_path)
    assert list_steps(two_steps(a, b), tmp_path, stale_only=True) == ["every step is up to date"]
    changed = two_steps(a, b, rate=0.3)
    assert list_steps(changed, tmp_path) == [
        f" 0  {'corpus':<28} options changed: rate 0.1 -> 0.3",
        f" 2  {'features':<28} reads corpus, which runs",
    ]
    assert (a.runs, b.runs) == (1, 1)


def test_the_reason_is_printed_when_a_step_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = Recorder(), Recorder()
    run_steps(two_steps(a, b), tmp_path)
    run_steps(two_steps(a, b, rate=0.2), tmp_path)
    printed = capsys.readouterr().out
    assert "(corpus, step 1 of 2): options changed: rate 0.1 -> 0.2" in printed
    assert "(features, step 2 of 2): input changed: corpus" in printed


def test_the_first_difference_is_named_by_its_path() -> None:
    before = [{"train": {"epochs": 3, "rate": 0.1}}, "abc"]
    assert first_difference(before, [{"train": {"epochs": 4, "rate": 0.1}}, "abc"]) == "train.epochs 3 -> 4"
    assert first_difference(before, before) is None
    assert first_difference({"a": 1}, {"a": 1, "b": 2}) == "b None -> 2"
    found = first_difference({"command": f"run.sh {'x' * 100} --seed 1"}, {"command": f"run.sh {'x' * 100} --seed 22"})
    assert found == f"command ...{'x' * 12} --seed 1 -> ...{'x' * 12} --seed 22"


def test_a_record_says_what_code_made_the_output(tmp_path: Path) -> None:
    run_steps([Step(0, "corpus", Recorder())], tmp_path)
    record = Record.read(tmp_path / "corpus")
    assert record is not None and {"git_sha", "asrkd", "python", "torch"} <= set(record.code)
    assert record.finished.endswith("+00:00")


def test_a_run_leaves_the_loggers_of_its_process_as_they_were(tmp_path: Path) -> None:
    logger = logging.getLogger("asrkd")
    before = logger.level, list(logger.handlers)
    run_steps([Step(0, "corpus", Recorder())], tmp_path)
    assert (logger.level, logger.handlers) == before


def test_a_lock_is_a_file_of_any_kind(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".lock")
    run_steps([Step(0, "corpus", Recorder())], tmp_path)
    assert (tmp_path / "corpus" / "value").exists()


def test_on_start_is_called_once_the_experiment_is_locked_and_before_the_first_step(tmp_path: Path) -> None:
    calls = []

    def meanwhile() -> None:
        with pytest.raises(InputError, match="another run is using this experiment"):
            run_steps([Step(0, "corpus", Recorder())], tmp_path, on_start=lambda: pytest.fail("not locked out"))
        calls.append((tmp_path / "corpus").exists())

    run_steps([Step(0, "corpus", Recorder())], tmp_path, on_start=meanwhile)
    assert calls == [False]


def test_warnings_of_a_step_are_shown_and_logged(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def warn(out_dir: Path) -> None:
        logging.getLogger("asrkd.somewhere").warning("u1 has no path")
        logging.getLogger("asrkd.somewhere").info("all is well")

    run_steps([Step(0, "corpus", warn)], tmp_path)
    assert capfd.readouterr().err == "   warning: u1 has no path\n"
    assert "all is well" in (tmp_path / "log" / "corpus.log").read_text()


def test_stage_range_runs_only_its_stages(tmp_path: Path) -> None:
    a, b = Recorder(), Recorder()
    run_steps(two_steps(a, b), tmp_path, StageRange(last=1))
    assert (a.runs, b.runs) == (1, 0)
    run_steps(two_steps(a, b), tmp_path, StageRange(first=2))
    assert (a.runs, b.runs) == (1, 1)


def test_missing_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"stage 2 \(features\) needs .*corpus, which is missing: run from --stage 0"):
        run_steps(two_steps(Recorder(), Recorder()), tmp_path, StageRange(first=2))


def test_input_of_another_configuration_is_refused(tmp_path: Path) -> None:
    a, b = Recorder(), Recorder()
    run_steps(two_steps(a, b), tmp_path, StageRange(last=0))
    with pytest.raises(InputError, match="another configuration"):
        run_steps(two_steps(a, b, rate=0.5), tmp_path, StageRange(first=2))
    assert b.runs == 0


def three_steps(body: Callable[[Path], None]) -> list[Step]:
    corpus = Step(0, "corpus", Recorder())
    return [corpus, *(Step(6, f"teachers/{n}", body, n, inputs=("corpus",), torchrun=True) for n in range(2))]


def test_one_step_alone(tmp_path: Path) -> None:
    body = Recorder()
    run_steps(three_steps(body), tmp_path, StageRange(only="corpus"))
    run_steps(three_steps(body), tmp_path, StageRange(first=6, last=6, only="teachers/1"))
    assert body.runs == 1 and not (tmp_path / "teachers" / "0").exists()
    run_steps(three_steps(body), tmp_path)
    assert body.runs == 2, "what was made alone is as good"


@pytest.mark.parametrize(
    ("only", "first", "words"),
    [("teachers/9", 0, "teachers/9 .the nearest is teachers/"), ("corpus", 6, r"found corpus \(in stages 6 to 12")],
)
def test_a_step_that_is_not_there(tmp_path: Path, only: str, first: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        run_steps(three_steps(Recorder()), tmp_path, StageRange(first=first, only=only))


def test_the_steps_of_a_folder_alone(tmp_path: Path) -> None:
    body = Recorder()
    run_steps(three_steps(body), tmp_path, StageRange(only="corpus"))
    run_steps(three_steps(body), tmp_path, StageRange(only="teachers"))
    assert body.runs == 2 and (tmp_path / "teachers" / "1").exists()
    with pytest.raises(InputError, match=r"found teachers \(in stages 0 to 5"):
        run_steps(three_steps(body), tmp_path, StageRange(last=5, only="teachers"))
    with pytest.raises(InputError, match=r"found teach \(the nearest is teachers/"):
        run_steps(three_steps(body), tmp_path, StageRange(only="teach"))


def test_a_step_of_a_folder_that_runs_is_locked_too(tmp_path: Path) -> None:
    run_steps(three_steps(Recorder()), tmp_path, StageRange(last=0))
    outcomes = []

    def meanwhile(out_dir: Path) -> None:
        for only in ("teachers", "teachers/0", "teachers/1"):
            try:
                run_steps(three_steps(Recorder()), tmp_path, StageRange(only=only))
                outcomes.append("done")
            except InputError as error:
                outcomes.append(str(error).split(": ")[1])
        (out_dir / "outcomes").write_text("; ".join(outcomes))

    corpus, first, second = three_steps(Recorder())
    steps = [corpus, replace(first, run=meanwhile), second]
    run_steps(steps, tmp_path, StageRange(only="teachers"))
    said = (tmp_path / "teachers" / "0" / "outcomes").read_text()
    assert said == "another run is making teachers; another run is making teachers/0; done"


def test_who_holds_what(tmp_path: Path) -> None:
    """Two runs of single steps go together unless it is the same step; a whole run goes with none of them."""
    run_steps(three_steps(Recorder()), tmp_path, StageRange(last=0))
    outcomes = []

    def meanwhile(out_dir: Path) -> None:
        for only in ("teachers/1", "teachers/0", None):
            try:
                run_steps(three_steps(Recorder()), tmp_path, StageRange(only=only))
                outcomes.append("done")
            except InputError as error:
                outcomes.append(str(error).split(": ")[1])
        (out_dir / "outcomes").write_text("; ".join(outcomes))

    run_steps(three_steps(meanwhile), tmp_path, StageRange(only="teachers/0"))
    said = (tmp_path / "teachers" / "0" / "outcomes").read_text()
    assert said == "done; another run is making teachers/0; another run is using this experiment"


def test_torchrun_shares_one_training_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    for only in (None, "corpus"):
        with pytest.raises(InputError, match=f"processes can share .teachers/0, teachers/1., found {only}"):
            run_steps(three_steps(Recorder()), tmp_path, StageRange(only=only))


def test_of_two_processes_the_first_alone_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_steps(three_steps(Recorder()), tmp_path, StageRange(last=0))
    body = Recorder()
    for name, value in (("WORLD_SIZE", "2"), ("LOCAL_RANK", "0"), ("RANK", "0")):
        monkeypatch.setenv(name, value)
    run_steps(three_steps(body), tmp_path, StageRange(only="teachers/1"))
    assert body.runs == 1 and (tmp_path / "teachers" / "1" / "stamp.json").is_file()
    helper = multiprocessing.get_context("fork").Value("i", 0)

    def help_out(out_dir: Path) -> None:
        helper.value += out_dir == tmp_path / "teachers" / "0.partial"

    monkeypatch.setenv("RANK", "1")
    run_steps(three_steps(help_out), tmp_path, StageRange(only="teachers/0"))
    assert helper.value == 1
    assert not (tmp_path / "teachers" / "0").exists() and not (tmp_path / "teachers" / "0.partial").exists()


def test_failure_leaves_nothing_half_written_and_keeps_the_old_output(tmp_path: Path) -> None:
    a = Recorder()
    run_steps([Step(0, "corpus", a, {"v": 1})], tmp_path)

    def broken(out_dir: Path) -> None:
        (out_dir / "value").write_text("half")
        raise InputError("utt_1: expected 16000 Hz, found 8000 Hz")

    with pytest.raises(InputError, match="utt_1"):
        run_steps([Step(0, "corpus", broken, {"v": 2})], tmp_path)
    assert (tmp_path / "corpus" / "value").read_text() == "1"
    assert not (tmp_path / "corpus.partial").exists()
    assert "utt_1" in (tmp_path / "log" / "corpus.log").read_text()


def test_resumable_step_goes_on_in_its_own_folder_only(tmp_path: Path) -> None:
    attempts = tmp_path / "attempts"
    attempts.mkdir()

    def train(out_dir: Path) -> None:
        number = len(list(attempts.iterdir()))
        (attempts / str(number)).write_text(",".join(sorted(path.name for path in out_dir.glob("epoch*"))))
        (out_dir / f"epoch{number}").touch()
        if number < 2:
            raise KeyboardInterrupt

    def attempt(rate: float) -> None:
        run_steps([Step(6, "teachers/0", train, {"rate": rate}, resumable=True)], tmp_path)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            attempt(0.1)
    attempt(0.2)
    assert [(attempts / str(number)).read_text() for number in range(3)] == ["", "epoch0", ""]
    assert read_json(tmp_path / "teachers/0/stamp.json")["options"] == {"rate": 0.2}


def test_a_step_that_was_killed_after_its_end_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not where it replaces an earlier one."""
    body = Recorder()
    for version in (1, 2):
        steps = [Step(0, "corpus", body, {"v": version})]
        with monkeypatch.context() as patch:
            patch.setattr("asrkd.workflow.stages.publish_dir", lambda *_: pytest.fail("killed"))
            with pytest.raises(pytest.fail.Exception):
                run_steps(steps, tmp_path)
        run_steps(steps, tmp_path)
        assert body.runs == version and (tmp_path / "corpus" / "value").read_text() == str(version)
        assert not (tmp_path / "corpus" / "pending.json").exists() and not (tmp_path / "corpus.partial").exists()


def test_time_that_an_interrupted_step_took_counts(tmp_path: Path) -> None:
    def train(out_dir: Path) -> None:
        first = not list(out_dir.glob("epoch*"))
        (out_dir / f"epoch{len(list(out_dir.glob('epoch*')))}").touch()
        if first:
            os.utime(out_dir / "epoch0", times=(time.time() + 100, time.time() + 100))  # it took a hundred seconds
            raise KeyboardInterrupt

    steps = [Step(6, "teachers/0", train, resumable=True)]
    with pytest.raises(KeyboardInterrupt):
        run_steps(steps, tmp_path)
    run_steps(steps, tmp_path)
    assert 99 < read_json(tmp_path / "teachers/0/stamp.json")["seconds"] < 130


def test_a_killed_step_is_one_line_that_says_how(tmp_path: Path) -> None:
    def killed(out_dir: Path) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(InputError, match="SIGKILL"):
        run_steps([Step(0, "corpus", killed)], tmp_path)
    assert not (tmp_path / "corpus").exists()


def test_a_librarys_own_os_error_keeps_its_message(tmp_path: Path) -> None:
    def write(out_dir: Path) -> None:
        raise OSError("could not write an FST")

    with pytest.raises(InputError, match="could not write an FST"):
        run_steps([Step(0, "corpus", write)], tmp_path)


def test_a_full_disk_in_a_step_is_told_as_such(tmp_path: Path) -> None:
    def full(out_dir: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "frames")

    with pytest.raises(OSError, match="No space left") as error:
        run_steps([Step(0, "corpus", full)], tmp_path)
    assert error.value.errno == errno.ENOSPC


def test_stamps_depend_on_inputs() -> None:
    body = Recorder()
    one = step_stamps(two_steps(body, body, rate=1.0))
    two = step_stamps(two_steps(body, body, rate=2.0))
    assert one["features"] != two["features"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputError("utt_7: no path\nthrough"), "utt_7: no path through"),
        (KeyboardInterrupt(), "interrupted"),
        (OSError(errno.ENOSPC, "No space left on device", "frames"), "disk full: could not write frames"),
        (OSError(errno.EACCES, "Permission denied", "lexicon.txt"), "lexicon.txt: Permission denied"),
        (OSError(errno.ENOTDIR, "Not a directory", "README.md/exp"), "README.md/exp: Not a directory"),
    ],
)
def test_one_line_and_exit_code_2(error: BaseException, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped, one_line_errors("asrkd"):
        raise error
    lines = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2 and len(lines) == 1 and words in lines[0]
