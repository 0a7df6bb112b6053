"""Options of decoding other speech with a finished run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from asrkd.data.rejects import require_max_bad
from asrkd.errors import InputError
from asrkd.options import first_word, short_name


@dataclass(frozen=True)
class NewDataOptions:
    """The run, the speech, and what to decode it with."""

    run: Path = field(metadata=first_word())
    """Folder of a finished run. Nothing in it is changed. `asrkd decode RUN` is enough."""
    out: Path
    """Folder for the results: a new one, or one of an earlier `asrkd decode`, which is continued."""
    recordings: Path | None = None
    """Lhotse manifest of recordings or cuts, a Kaldi data directory, or a folder of audio files."""
    supervisions: Path | None = None
    """Lhotse manifest of supervisions of --recordings; none: there are no transcripts, and so no error rates."""
    cuts: Path | None = None
    """Lhotse manifest of cuts, instead of --recordings."""
    kaldi_dir: Path | None = None
    """Kaldi data directory (wav.scp, text, utt2spk, segments), instead of --recordings."""
    systems: tuple[str, ...] = ()
    """Systems of the run; none: baseline, ensemble (or teacher) and distilled, those that it has."""
    lm: Path | None = None
    """Another language model: ARPA (may be gzip) or Sphinx binary; none: the run's. Its graph is built once."""
    lexicon: str | None = None
    """Pronunciations of words of --lm that the run lacks: a dictionary or "cmudict"; none: as the run's words have."""
    max_unpronounced: float = 0.1
    """Fraction of the words of --lm that may have no pronunciation."""
    max_bad: float = 0.01
    """Fraction of the utterances that may be bad: unreadable, empty, too long. They are listed and not decoded."""
    max_duration: float | None = None
    """Seconds of the longest utterance; none: as in the run."""
    num_jobs: int = field(default=2, metadata=short_name("nj"))
    """Processes that read audio and decode; best as many as there are cores."""
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    """What computes the networks. With a GPU one process decodes: the search is on the processor in any case."""
    overwrite: bool = False
    """Replace what --out has of other speech, of another run or language model."""

    def __post_init__(self) -> None:
        given = [f"--{name.replace('_', '-')}" for name in ("recordings", "cuts", "kaldi_dir") if getattr(self, name)]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise InputError(f"speech: expected one of --recordings, --cuts and --kaldi-dir, found {found}")
        if self.supervisions is not None and self.recordings is None:
            raise InputError(
                f"--supervisions: expected --recordings with it, found {given[0]}, which has its own texts"
            )
        require_max_bad(self.max_bad)
        if not 0 <= self.max_unpronounced <= 1:
            raise InputError(f"--max-unpronounced: expected 0 to 1, found {self.max_unpronounced:g}")
        if self.max_duration is not None and not self.max_duration > 0:
            raise InputError(f"--max-duration: expected a number of seconds above 0, found {self.max_duration:g}")
        if self.num_jobs < 1:
            raise InputError(f"--num-jobs: expected at least 1, found {self.num_jobs}")
        if self.lexicon is not None and self.lm is None:
            raise InputError("--lexicon: expected --lm with it, found none: the run's graph has its pronunciations")

    @property
    def speech(self) -> Path:
        """The manifest or folder of the speech."""
        path = self.recordings or self.cuts or self.kaldi_dir
        assert path is not None  # refused above
        return path
