"""What the commands for many recordings have in common: files of outputs, and what became of the inputs."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from asrkd.errors import InputError, name_some
from asrkd.files import atomic_file, utf8
from asrkd.runtime.inputs import AudioInput
from asrkd.runtime.progress import AudioProgress


@dataclass
class BatchCounts:
    """What became of the inputs."""

    done: ClassVar[str]
    """What is done to an input: transcribed."""
    does: ClassVar[str]
    """The same of --overwrite: transcribes."""

    num_inputs: int
    num_skipped: int = 0
    num_done: int = 0
    audio_sec: float = 0.0
    elapsed_sec: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)
    """Input -> why nothing could be done with it."""

    @property
    def counted(self) -> str:
        """A line of the numbers."""
        counts = [f"{self.done} {self.num_done} of {self.num_inputs} inputs"]
        if self.num_skipped:
            counts.append(f"{self.num_skipped} skipped, their outputs exist (--overwrite {self.does} them again)")
        if self.failures:
            counts.append(f"{len(self.failures)} bad")
        rtf = f", RTF {self.elapsed_sec / self.audio_sec:.3f}" if self.audio_sec else ""
        return f"{'; '.join(counts)}: {self.audio_sec:.1f} s of audio in {self.elapsed_sec:.1f} s{rtf}"

    def fail(self, source: AudioInput, error: str, progress: AudioProgress) -> None:
        """Note why nothing can be done with an input; a line says it at once where there are others."""
        self.failures[str(source)] = error
        if self.num_inputs > 1:
            progress.report(error)

    def require_no_failures(self) -> None:
        """InputError that names the bad inputs."""
        if len(self.failures) == 1 == self.num_inputs:
            raise InputError(next(iter(self.failures.values())))
        if self.failures:
            names = name_some(sorted(self.failures))  # they failed in any order
            raise InputError(f"{len(self.failures)} of {self.num_inputs} inputs could not be {self.done}: {names}")


def require_output_options(formats: Sequence[str], output_dir: Path | None, num_jobs: int) -> None:
    """InputError for options of outputs that do not fit each other."""
    if num_jobs < 1:
        raise InputError(f"--num-jobs: expected at least 1, found {num_jobs}")
    if output_dir is None and len(formats) > 1:
        raise InputError(f"--format {','.join(formats)}: expected --output-dir with several formats, found none")
    if output_dir is not None and output_dir.exists() and not output_dir.is_dir():
        raise InputError(f"--output-dir {output_dir}: expected a folder, found a file")


def write_outputs(texts: Mapping[Path, str]) -> None:
    """Write the files of an input, each whole or not at all. InputError, and none of them, where a name cannot be."""
    for path, text in texts.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as tmp_path:
                tmp_path.write_bytes(utf8(text))
        except OSError as error:
            if error.errno not in (errno.ENAMETOOLONG, errno.EISDIR):
                raise
            for other in texts:
                with suppress(OSError):
                    other.unlink()
            raise InputError(f"{path}: expected a file that can be written, found none: {error.strerror}") from None
