"""Progress over recordings: a bar in seconds of audio with an ETA, and what is printed while it is shown."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import soundfile
from tqdm import tqdm

from asrkd.data.ffmpeg import stated_seconds
from asrkd.runtime.inputs import AudioInput

DELAY_SEC = 1.0  # before a bar is shown
TERMINAL_SEC, LOG_SEC = 0.1, 10.0  # between two states of it: each is a line in a log file
MOST_PROBED = 16  # files that are given to ffprobe before the work begins: each takes 0.1 s


class AudioProgress:
    """The bar, and lines that do not mix with it."""

    def __init__(self, todo: Sequence[AudioInput], desc: str) -> None:
        total = total_seconds(todo)
        layout = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s of audio [{elapsed}<{remaining}]"
        layout = layout if total is not None else "{desc}: {n:.0f} s of audio [{elapsed}]"
        interval = TERMINAL_SEC if sys.stderr is not None and sys.stderr.isatty() else LOG_SEC
        self._bar = tqdm(
            total=total, desc=desc, bar_format=layout, delay=DELAY_SEC, leave=False, mininterval=interval, miniters=0
        )

    def update(self, seconds: float) -> None:
        """Seconds of audio are done."""
        self._bar.update(seconds)

    def print(self, text: str) -> None:
        """Write a result to standard output."""
        self._bar.clear()
        sys.stdout.write(text)
        sys.stdout.flush()

    def report(self, message: str) -> None:
        """Write a line to standard error."""
        self._bar.clear()
        print(f"asrkd: {' '.join(message.split())}", file=sys.stderr)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()


@contextmanager
def audio_progress(todo: Sequence[AudioInput], desc: str) -> Iterator[AudioProgress]:
    """A bar for these inputs, which is removed when the block ends."""
    progress = AudioProgress(todo, desc)
    try:
        yield progress
    finally:
        progress.close()


def total_seconds(todo: Sequence[AudioInput]) -> int | None:
    """Seconds of audio by the headers: an input without a known length counts as the mean of the others.

    None where no length is known.
    """
    lengths = []
    num_probed = 0
    for source in todo:
        length = _seconds(source)
        if length is None and source.path is not None and num_probed < MOST_PROBED:
            num_probed += 1
            length = stated_seconds(source.path)
        lengths.append(length)
    known = [length for length in lengths if length is not None]
    return math.ceil(sum(known) / len(known) * len(lengths)) if known else None


def _seconds(source: AudioInput) -> float | None:
    """Seconds by the header that libsndfile reads."""
    if source.end_sec is not None:
        return source.end_sec - source.start_sec
    if source.path is None or not source.path.is_file():
        return None
    try:
        return float(soundfile.info(str(source.path)).duration)
    except (RuntimeError, TypeError, ValueError):  # ValueError: a name in another encoding than UTF-8
        return None
