"""Damage valid files at random, and read them: each is read, or refused in one line, with little memory and time.

    .venv/bin/python local/fuzz.py --minutes 60
    .venv/bin/python local/fuzz.py --minutes 5 --targets "frame store" wav
    .venv/bin/python local/fuzz.py --replay exp/fuzz/faults/wav_1

The readers are those of tests/fuzz/targets.py, in turns: our own artefacts, and users' files. Each input is read in a
process of its own that may take ten times its size and ten seconds of computing. An input that goes wrong stays in
exp/fuzz/faults, with what went wrong; the same line of code is reported once.
"""

from __future__ import annotations

import random
import re
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import tyro
from tabulate import tabulate

from asrkd.errors import InputError, one_line_errors
from asrkd.terminal import require_utf8_mode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from fuzz.examine import Target, fault  # noqa: E402
from fuzz.fuzz_one import damaged_fault, files_of  # noqa: E402
from fuzz.mutations import random_edits  # noqa: E402
from fuzz.targets import OURS, TARGETS  # noqa: E402

PROGRESS_SEC = 30.0
INPUTS_A_TURN = 20
LAST_CALL = re.compile(r'File "[^"]*?([^/"]+/[^/"]+)", line (\d+)')


@dataclass(frozen=True)
class Options:
    """What is damaged, and for how long."""

    minutes: float = 60.0
    """minutes in all, shared by the targets"""
    targets: tuple[str, ...] = ()
    """names of targets; none: all"""
    only_ours: bool = False
    """our own artefacts alone"""
    seed: int | None = None
    """seed of the damage; none: the time"""
    out: Path = Path("exp/fuzz")
    """folder of the valid files and of the faults"""
    replay: Path | None = None
    """read the input in this folder of a fault once more"""


def main() -> int:
    """Fuzz until the time is over; 1 where something went wrong."""
    require_utf8_mode()
    with one_line_errors("local/fuzz.py"):
        options = tyro.cli(Options, description=__doc__)
        if options.replay is not None:
            return replay(options.replay)
        targets = chosen(options)
        rng = random.Random(time.time_ns() if options.seed is None else options.seed)
        seeds = {target.name: seed_dir(target, options.out / "seeds") for target in targets}
        inputs, faults = fuzz(targets, seeds, rng, options)
        rows = [
            (name, inputs[name], sum(number for (one, _), number in faults.items() if one == name)) for name in seeds
        ]
        print(tabulate(rows, headers=("target", "inputs", "faults")))
        for (name, what), number in faults.most_common():
            print(f"{name}: {what} ({number} times)")
        return 1 if faults else 0


def chosen(options: Options) -> list[Target]:
    """The targets to fuzz. InputError for an unknown one."""
    unknown = [name for name in options.targets if name not in TARGETS]
    if unknown:
        raise InputError(f"--targets: expected some of {', '.join(TARGETS)}, found {unknown[0]}")
    names = options.targets or [target.name for target in (OURS if options.only_ours else TARGETS.values())]
    return [TARGETS[name] for name in names]


def seed_dir(target: Target, seeds: Path) -> Path:
    """The valid files of a target. InputError if its reader refuses them."""
    folder = (seeds / target.name.replace(" ", "_")).absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    target.write(folder)
    if (wrong := fault(target.read, folder, 1 << 20)) is not None:
        raise InputError(f"{target.name}: the valid input cannot be read: {wrong}")
    return folder


def fuzz(
    targets: list[Target], seeds: dict[str, Path], rng: random.Random, options: Options
) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """Inputs of each target, and faults by target and place in the code."""
    inputs: Counter[str] = Counter()
    faults: Counter[tuple[str, str]] = Counter()
    started = printed = time.monotonic()
    work_dir = (options.out / "work" / "input").absolute()
    while True:
        for target in targets:
            for _ in range(INPUTS_A_TURN):
                which, edits = rng.randrange(100), random_edits(rng)
                wrong = damaged_fault(target, seeds[target.name], work_dir, which, edits)
                inputs[target.name] += 1
                if wrong is not None:
                    found = (target.name, summary(wrong))
                    faults[found] += 1
                    if faults[found] == 1:
                        save(options.out / "faults", target, wrong, work_dir, which, len(faults))
            now = time.monotonic()
            if now - printed >= PROGRESS_SEC:
                printed = now
                print(f"{(now - started) / 60:.1f} min: {inputs.total()} inputs, {len(faults)} faults", flush=True)
            if now - started >= 60 * options.minutes:
                return inputs, faults


def summary(wrong: str) -> str:
    """The last call and the exception of a traceback; other faults as they are."""
    calls = LAST_CALL.findall(wrong)
    last = re.sub(r"\[{2,}", "[", wrong.strip().splitlines()[-1])[:120]  # a message can have the damage in it
    return f"{calls[-1][0]}:{calls[-1][1]} {re.sub(r'[0-9]+', 'N', last)}" if calls else last


def save(faults: Path, target: Target, wrong: str, work_dir: Path, which: int, number: int) -> None:
    """The damaged input, and what its reader made of it."""
    folder = faults / f"{target.name.replace(' ', '_')}_{number}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(work_dir, folder / "input")
    files = files_of(target, (faults.parent / "seeds" / target.name.replace(" ", "_")).absolute())
    damaged = folder / "input" / files[which % len(files)]
    damaged.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(work_dir.parent / "damaged", damaged)  # as it was before the reader, which may have changed it
    (folder / "target").write_text(target.name, encoding="utf-8")
    (folder / "fault.txt").write_text(wrong, encoding="utf-8")
    print(f"{folder}: {target.name}: {summary(wrong)}", flush=True)


def replay(folder: Path) -> int:
    """Read the input of a fault again, and print what goes wrong."""
    if not (folder / "target").is_file():
        raise InputError(f"{folder}: expected a folder of exp/fuzz/faults, found no target in it")
    target = TARGETS[(folder / "target").read_text(encoding="utf-8")]
    work_dir = folder.absolute() / "again"
    shutil.rmtree(work_dir, ignore_errors=True)
    shutil.copytree(folder / "input", work_dir)
    wrong = fault(target.read, work_dir, sum(path.stat().st_size for path in work_dir.rglob("*")))
    print(wrong or "nothing goes wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
