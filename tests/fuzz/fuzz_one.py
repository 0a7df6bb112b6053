"""One damaged input: a copy of a target's valid files, one of them damaged, and what its reader makes of it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from fuzz.examine import LONGEST_SEC, Target, fault
from fuzz.mutations import Edit, damage


def files_of(target: Target, seed_dir: Path) -> list[Path]:
    """The files of a target's valid input that are damaged, relative to its folder, in order."""
    found = {path for pattern in target.files or ("**/*",) for path in seed_dir.glob(pattern) if path.is_file()}
    return sorted(path.relative_to(seed_dir) for path in found)


def damaged_fault(
    target: Target, seed_dir: Path, work_dir: Path, which: int, edits: Sequence[Edit], longest_sec: float = LONGEST_SEC
) -> str | None:
    """What is wrong with reading the target's input after the edits of file number `which`; None where nothing is.

    `work_dir` is made anew, and stays as the reader left it.
    """
    shutil.rmtree(work_dir, ignore_errors=True)
    shutil.copytree(seed_dir, work_dir)
    files = files_of(target, seed_dir)
    path = work_dir / files[which % len(files)]
    content = damage(path.read_bytes(), list(edits))
    path.write_bytes(content)
    (work_dir.parent / "damaged").write_bytes(content)
    return fault(target.read, work_dir, sum(one.stat().st_size for one in work_dir.rglob("*")), longest_sec)
