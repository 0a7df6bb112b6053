"""What the system refuses to write is one line that names the file, and the first error is the one that is reported."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from asrkd.errors import InputError, naming, one_line_errors, system_error
from asrkd.files import atomic_dir, atomic_file
from asrkd.workflow.child_process import run_in_subprocess
from asrkd.workflow.executor import Executor
from asrkd.workflow.step_log import step_log

ROOT = Path(__file__).resolve().parents[1]
# Files of more than 64 kB are refused, by whichever library writes them: as on a full disk, but with EFBIG.
WRITERS = """
import logging, resource, sys
from pathlib import Path
import numpy as np, torch
from asrkd.errors import InputError, system_error
from asrkd.files import save_tensors, write_json
from asrkd.report.output import write_text
from asrkd.workflow.append_store import AppendStore
from asrkd.workflow.cache import Codec, ResultCache

folder, noise = Path(sys.argv[1]), np.random.default_rng(0)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))

def append(path):
    store = AppendStore(path, "f00d", {"feats": "float32"})
    try:
        for _ in range(100):
            store.append([np.ones((100, 40), np.float32)])
        store.finish("index.json", {})
    finally:
        store.close()

def cache(path):
    results = ResultCache(path, "key", Codec(lambda value: {"x": value}, lambda arrays: arrays["x"]))
    list(results.map(range(4), lambda items: ((n, noise.random(1 << 15)) for n in range(len(items)))))

writers = {
    "json": lambda path: write_json(path, ["x" * 100] * 1000),
    "text": lambda path: write_text(path, "x" * 100_000),
    "tensors": lambda path: save_tensors(path, {"x": torch.ones(1 << 16)}, {}),
    "store": append,
    "cache": cache,
}
for name, write in writers.items():
    try:
        write(folder / name)
    except OSError as error:
        print(name, system_error(error))
    except InputError as error:
        print(name, error)
    assert not (folder / name).exists() or name == "cache"
"""


def test_every_writer_names_its_file(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WRITERS, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert lines.pop("store") == f"{tmp_path / '.store.partial' / 'feats.safetensors'}: File too large"
    assert lines.pop("cache").startswith(f"{tmp_path / 'cache'}: ")
    assert lines == {name: f"{tmp_path / name}: File too large" for name in ("json", "text", "tensors")}


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.json"), "disk full: could not write a.json"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk full: could not write an output: Disk quota exceeded"),
        (OSError(errno.EROFS, "Read-only file system", "a.json"), "a.json: Read-only file system"),
        (OSError(errno.EIO, "Input/output error", b"a\xe9.json"), "Input/output error"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Cannot allocate memory"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "gone"), "gone: No such file or directory"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), "File name too long"),
        (
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
            "No usable temporary directory found in ['/tmp']: is the disk full?",
        ),
        (MemoryError(), "out of memory"),
    ],
)
def test_what_the_system_refuses_is_one_line(error: Exception, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_, one_line_errors("asrkd"):
        raise error
    written = capsys.readouterr().err
    assert exit_.value.code == 2 and line in written and written.count("\n") == 1


def test_an_error_without_a_file_or_a_known_reason_is_a_defect() -> None:
    assert system_error(OSError("of a library")) is None
    assert system_error(OSError(errno.EBADF, "Bad file descriptor")) is None
    with pytest.raises(OSError, match="of a library"), one_line_errors("asrkd"), naming("a.json"):
        raise OSError("of a library")


def full(error: int = errno.ENOSPC) -> OSError:
    return OSError(error, os.strerror(error))


@pytest.mark.parametrize("write", [atomic_file, atomic_dir])
def test_the_first_error_is_reported(write: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise full(errno.EIO)

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OSError) as caught, write(tmp_path / "x"):  # type: ignore[operator]
        raise full()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "x"))


def fail(_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "words.txt")


class Failing:
    """A task whose items fail at a full disk."""

    def open(self) -> object:
        return fail


@pytest.mark.parametrize("num_jobs", [1, 2])
def test_a_worker_names_the_file(num_jobs: int) -> None:
    with pytest.raises(OSError) as caught:
        list(Executor(num_jobs).map(Failing(), [1, 2, 3]))  # type: ignore[arg-type]
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "words.txt")


def test_a_step_names_the_file() -> None:
    with pytest.raises(OSError) as caught:
        run_in_subprocess(lambda: fail(None))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "words.txt")


@pytest.fixture
def full_file(tmp_path: Path) -> Path:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    (tmp_path / "step.log").symlink_to("/dev/full")
    return tmp_path / "step.log"


def test_a_log_on_a_full_disk_is_one_warning(full_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def log_and_fail() -> None:
        for number in range(3):
            logging.getLogger("asrkd.test").info("message %d", number)
        raise InputError("the first error")

    with pytest.raises(InputError, match="the first error"), step_log(full_file):
        log_and_fail()
    expected = f"   warning: {full_file}: No space left on device; the log ends here\n"
    assert capsys.readouterr().err == expected
