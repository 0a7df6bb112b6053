"""Kill a tiny recipe at random moments, resume it each time, and compare its outputs with those of a run that nobody
disturbed.

    .venv/bin/python local/kill_test.py --speech data/an4 --kills 100
    .venv/bin/python local/kill_test.py --speech data/an4 --how sigterm --kills 20
    sudo .venv/bin/python local/kill_test.py --speech data/an4 --how disk-full --kills 20

A recipe of 44 steps (two teachers, two epochs) runs in a process group of its own. After 0.5 to 6 seconds of work it is
killed: the main process alone, its whole group, or any one process of the group. Then no process of it may be left, and
the same command runs again. When the recipe has finished, all of its files are compared (local/same_run.py lists what
may differ, and why), and the next one starts from nothing. disk-full fills a small file system instead of killing; the
run must then stop with one line that names a file.

The same seed gives the same moments. An interrupted test goes on where it was; --restart begins again.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from same_run import differences, num_compared
from tabulate import tabulate

from asrkd.errors import InputError, one_line_errors
from asrkd.files import read_json, write_json
from asrkd.terminal import require_utf8_mode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from tiny_recipe import TinyRecipe, tiny_an4, tiny_prompts  # noqa: E402

How = Literal["sigkill", "sigterm", "disk-full"]
SIGNALS: dict[How, signal.Signals] = {"sigkill": signal.SIGKILL, "sigterm": signal.SIGTERM}
VICTIMS = ("main process", "process group", "any process")
SHORTEST_SEC, LONGEST_SEC = 0.5, 6.0
# How long processes may outlive their main process: a worker ends after the utterance that it computes.
ORPHAN_SEC = 10.0
START_SEC, RUN_SEC = 120.0, 900.0
DISK_BYTES = 512 << 20
SPARE_BYTES = (0, 4 << 10, 64 << 10, 1 << 20)
EXIT_USER_ERROR = 2


@dataclass(frozen=True)
class Options:
    """What is killed, how, and how often."""

    speech: Path
    """folder of AN4, or of the prompts (`make corpus`)"""
    how: How = "sigkill"
    """sigkill or sigterm: signals. disk-full: a file system of 512 MB is filled, for which root must mount it"""
    kills: int = 100
    """kills in all"""
    seed: int = 0
    """seed of the moments and of the victims"""
    work_dir: Path | None = None
    """folder of the runs; none: exp/kill_test/HOW"""
    restart: bool = False
    """begin again"""


class Test:
    """The folders of a test, and what has happened in it."""

    def __init__(self, options: Options) -> None:
        self.options = options
        folder = options.work_dir or ROOT / "exp" / "kill_test" / options.how
        self.folder = folder.absolute()
        if options.restart:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.exp_dir, self.reference = self.folder / "disk" / "exp", self.folder / "reference"
        self.state_file = self.folder / "state.json"
        self.state = read_json(self.state_file) if self.state_file.is_file() else {"kills": [], "finished": []}
        self.recipe = _recipe(options.speech, self.folder / "corpus")

    def save(self) -> None:
        write_json(self.state_file, self.state)

    def start(self) -> subprocess.Popen[bytes]:
        """The recipe in a process group (and session) of its own; it prints into a file."""
        arguments = self.recipe.arguments(self.exp_dir, "--train.epochs=2", "--num-jobs=2")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"}
        with (self.folder / "output.log").open("wb") as output, (self.folder / "errors.log").open("wb") as errors:
            return subprocess.Popen(
                [sys.executable, str(self.recipe.script), *arguments],
                stdout=output,
                stderr=errors,
                env=environment,
                cwd=ROOT,
                start_new_session=True,
            )

    def errors(self) -> str:
        return (self.folder / "errors.log").read_text(encoding="utf-8", errors="replace")

    def step(self) -> str:
        """The step that the recipe was at."""
        lines = (self.folder / "output.log").read_text(encoding="utf-8").splitlines()
        begun = [line for line in lines if line.startswith(("== ", "-- "))]
        return begun[-1].partition("(")[2].partition(",")[0] if begun else "start"


def _recipe(speech: Path, corpus_dir: Path) -> TinyRecipe:
    """The tiny recipe of a corpus, which is copied into `corpus_dir` anew: the copy is the same each time."""
    tmp_dir = corpus_dir.with_name("corpus.partial")
    shutil.rmtree(tmp_dir, ignore_errors=True)
    tmp_dir.mkdir(parents=True)
    make = tiny_an4 if (speech / "etc" / "an4.dic").is_file() else tiny_prompts
    recipe = make(speech, tmp_dir)
    if corpus_dir.is_dir():  # the times of its files are in the runs' stamps
        shutil.rmtree(tmp_dir)
    else:
        tmp_dir.rename(corpus_dir)
    return TinyRecipe(recipe.name, corpus_dir, recipe.num_leaves, recipe.measured)


def run_whole(test: Test) -> None:
    """Run the recipe to its end. InputError if it fails."""
    process = test.start()
    status = process.wait(timeout=RUN_SEC)
    if status != 0:
        raise InputError(f"{test.folder}: expected the recipe to end well, found status {status}: {test.errors()}")


def make_reference(test: Test) -> None:
    """The outputs of a run that nobody disturbs. It runs in the folder of all others, so that paths are the same."""
    if test.reference.is_dir():
        return
    print("the run that nobody disturbs", flush=True)
    shutil.rmtree(test.exp_dir, ignore_errors=True)
    run_whole(test)
    tmp_dir = test.folder / "reference.partial"
    shutil.rmtree(tmp_dir, ignore_errors=True)
    shutil.copytree(test.exp_dir, tmp_dir)
    tmp_dir.rename(test.reference)
    shutil.rmtree(test.exp_dir)


def kill_once(test: Test, number: int) -> None:
    """Run the recipe, and kill it at a random moment; or compare its outputs if it finishes before."""
    rng = random.Random(f"{test.options.seed} {number} {len(test.state['finished'])}")
    seconds, victim = rng.uniform(SHORTEST_SEC, LONGEST_SEC), rng.choice(VICTIMS)
    process = test.start()
    _wait_for_work(test, process)
    try:
        status: int | None = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        status = None
    if status == 0:
        _compare(test)
        return
    row = {"number": number, "seconds": round(seconds, 2), "step": test.step(), "faults": []}
    if status is not None:
        row["faults"].append(f"ended with status {status} before it was killed: {_last_line(test.errors())}")
    elif test.options.how == "disk-full":
        row |= {"victim": "disk"} | _fill_disk(test, process, rng)
    else:
        row |= {"victim": victim} | _send_signal(test, process, victim, rng)
    left = _left_over(process.pid)
    if left:
        row["faults"].append(f"processes left: {left}")
    if "Traceback" in test.errors():
        row["faults"].append(f"traceback: {_last_line(test.errors())}")
        shutil.copy(test.folder / "errors.log", test.folder / f"errors_{number}.log")
    test.state["kills"].append(row)
    test.save()
    outcome = "; ".join(row["faults"]) or row.get("line") or "well"
    print(f"kill {number}: {row['seconds']:.2f} s, {row['step']}, {row.get('victim')}: {outcome}", flush=True)


def _wait_for_work(test: Test, process: subprocess.Popen[bytes]) -> None:
    """Wait until the recipe has printed its first step."""
    begun = time.monotonic()
    while not (test.folder / "output.log").stat().st_size and process.poll() is None:
        if time.monotonic() - begun > START_SEC:
            raise InputError(f"{test.folder}: expected the recipe to start within {START_SEC:g} s")
        time.sleep(0.02)


def _send_signal(test: Test, process: subprocess.Popen[bytes], victim: str, rng: random.Random) -> dict[str, object]:
    """Kill the victim. A run that lost a worker may go on: it is killed a little later then."""
    number, faults = SIGNALS[test.options.how], []
    target = rng.choice(_session(process.pid) or [process.pid]) if victim == "any process" else process.pid
    try:
        (os.killpg if victim == "process group" else os.kill)(target, number)
        status = process.wait(timeout=LONGEST_SEC)
    except ProcessLookupError:
        status = process.wait()
    except subprocess.TimeoutExpired:
        os.kill(process.pid, number)
        status = process.wait()
    if status not in (0, -number, EXIT_USER_ERROR):
        faults.append(f"status {status}: {_last_line(test.errors())}")
    return {"status": status, "faults": faults}


def _fill_disk(test: Test, process: subprocess.Popen[bytes], rng: random.Random) -> dict[str, object]:
    """Fill the file system but for a few random bytes, wait until the recipe stops, and free it again."""
    filler, faults = test.folder / "disk" / "filler", []
    _fill(filler, rng.choice(SPARE_BYTES))
    try:
        status = process.wait(timeout=RUN_SEC)
    finally:
        filler.unlink()
    line = _last_line(test.errors())
    named = str(test.folder / "disk") in line or "disk is full" in line
    if status != 0 and (status != EXIT_USER_ERROR or not named):
        faults.append(f"status {status}, expected {EXIT_USER_ERROR} and a line that names a file: {line}")
    return {"status": status, "line": line, "faults": faults}


def _fill(filler: Path, spare_bytes: int) -> None:
    """Write a file until the disk is full, and give a few bytes back."""
    with filler.open("wb", buffering=0) as file:
        for block in (1 << 20, 1 << 12):
            with suppress(OSError):
                while file.write(bytes(block)) == block:
                    pass
        file.truncate(max(0, file.tell() - spare_bytes))


def _compare(test: Test) -> None:
    """Compare a finished run with the reference, and start from nothing."""
    found = differences(test.reference, test.exp_dir)
    test.state["finished"].append({"after": len(test.state["kills"]), "differences": found})
    test.save()
    print(f"a run has finished: {'; '.join(found) or 'every file is the same'}", flush=True)
    if found:
        shutil.copytree(test.exp_dir, test.folder / f"different_{len(test.state['finished'])}")
    shutil.rmtree(test.exp_dir)


def _session(leader: int) -> list[int]:
    """The living processes of a session."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:4]
        except (OSError, ValueError):  # it has ended
            continue
        if int(session) == leader and state != "Z":
            pids.append(int(path.parent.name))
    return sorted(pids)


def _left_over(leader: int) -> list[int]:
    """Processes of the session that outlive their main process; they are killed."""
    begun = time.monotonic()
    while (pids := _session(leader)) and time.monotonic() - begun < ORPHAN_SEC:
        time.sleep(0.05)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return pids


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


@contextmanager
def mounted(test: Test) -> Iterator[None]:
    """A small file system of its own for disk-full."""
    disk = test.folder / "disk"
    disk.mkdir(exist_ok=True)
    if test.options.how != "disk-full":
        yield
        return
    if os.geteuid() != 0:
        raise InputError("--how disk-full mounts a file system: expected root, or `unshare --map-root-user --mount`")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def report(test: Test) -> bool:
    """Print what happened; whether all is well."""
    kills, finished = test.state["kills"], test.state["finished"]
    rows = [(row.get("victim", "none"), bool(row["faults"])) for row in kills]
    table = [(name, number, rows.count((name, True))) for name, number in Counter(name for name, _ in rows).items()]
    print(tabulate(table, headers=("killed", "times", "faults")))
    steps = Counter(row["step"] for row in kills).most_common()
    print("steps:", ", ".join(f"{name} {times}" for name, times in steps))
    for row in kills:
        for fault in row["faults"]:
            print(f"kill {row['number']} ({row['step']}): {fault}")
    different = [one for one in finished if one["differences"]]
    num_files = num_compared(test.reference)
    print(f"finished runs: {len(finished)}, of {num_files} files each; with differences: {len(different)}")
    for one in different:
        print("\n".join(one["differences"]))
    return not different and not any(row["faults"] for row in kills)


def main() -> int:
    """Kill as often as the command line says."""
    require_utf8_mode()
    with one_line_errors("local/kill_test.py"):
        options = tyro.cli(Options, description=__doc__)
        test = Test(options)
        with mounted(test):
            make_reference(test)
            while len(test.state["kills"]) < options.kills:
                kill_once(test, len(test.state["kills"]) + 1)
            if test.exp_dir.is_dir():
                run_whole(test)
                _compare(test)
            return 0 if report(test) else 1


if __name__ == "__main__":
    sys.exit(main())
