"""A damaged file is read, or refused in one line: no traceback, no crash, no hang, no flood of memory.

`local/fuzz.py` does the same for an hour, with other seeds.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.examine import Target, fault
from fuzz.fuzz_one import damaged_fault, files_of
from fuzz.mutations import KINDS, Edit, damage
from fuzz.targets import OURS, TARGETS

EXAMPLES = 25
EDITS = st.lists(
    st.builds(Edit, st.sampled_from(sorted(KINDS)), st.floats(0, 1, exclude_max=True), st.integers(0, (1 << 16) - 1)),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("seeds")


def seed_dir(target: Target, seeds: Path) -> Path:
    folder = seeds / target.name.replace(" ", "_")
    if not folder.is_dir():
        folder.mkdir()
        target.write(folder)
    return folder


@pytest.mark.parametrize("name", TARGETS)
def test_the_valid_input_is_read(name: str, seeds: Path) -> None:
    target = TARGETS[name]
    folder = seed_dir(target, seeds)
    assert files_of(target, folder)
    assert fault(target.read, folder, 1 << 20) is None
    target.read(folder)


@pytest.mark.parametrize("name", [target.name for target in OURS])
def test_damaged_artefacts_are_read_or_refused(name: str, seeds: Path, tmp_path: Path) -> None:
    target = TARGETS[name]
    folder = seed_dir(target, seeds)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(st.integers(0, 99), EDITS)
    def check(which: int, edits: list[Edit]) -> None:
        wrong = damaged_fault(target, folder, tmp_path / "work", which, edits)
        assert wrong is None, wrong

    check()


def test_faults_are_seen(tmp_path: Path) -> None:
    """An exception, a crash, a hang, memory."""

    def crash(_: Path) -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGSEGV)

    def hang(_: Path) -> None:
        while True:
            pass

    def fail(_: Path) -> None:
        raise KeyError("x")

    assert "KeyError: 'x'" in str(fault(fail, tmp_path, 0))
    assert fault(crash, tmp_path, 0) == "ended by SIGSEGV"
    assert fault(hang, tmp_path, 0, longest_sec=0.2) == "no end after 0.2 s of computing"
    assert fault(lambda _: time.sleep(60), tmp_path, 0, longest_sec=0.02) == "no end after 0.24 s"
    assert "MemoryError" in str(fault(lambda _: bytearray(1 << 30), tmp_path, 0))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_edit_gives_the_same_bytes(kind: str) -> None:
    for content in (b"", b"x", b'{"a": [1, 2]}', b"word 1\nword 2\n"):
        edit = Edit(kind, 0.5, 12345)
        assert damage(content, [edit]) == damage(content, [edit])
