"""Options of corpora that have some. No Lhotse here: networks are trained where there is none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from asrkd.errors import InputError

TRAIN_960 = ("train-clean-100", "train-clean-360", "train-other-500")
MINI_DEV_SPEAKERS = 2


@dataclass(frozen=True)
class LibrispeechOptions:
    """The parts of LibriSpeech for training, tuning and testing."""

    parts: tuple[str, ...] = ("train-clean-100",)
    """Folders of the training parts; train-960 stands for the three parts of all 960 hours."""
    dev_parts: tuple[str, ...] = ()
    """Parts for tuning the scales; default: dev-clean, and for the mini set speakers held out of training."""
    test_parts: tuple[str, ...] = ()
    """Parts for testing; default: test-clean and test-other, and for the mini set dev-clean-2."""
    test_speakers: tuple[str, ...] = ()
    """Speakers of the training parts that are used for testing and not for training, instead of test parts."""
    num_dev_speakers: int = 0
    """Number of training speakers held out for tuning, instead of dev parts; chosen by SHA-256 of their names, women in
    proportion. 0: two for the mini set, otherwise none."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise InputError("--corpora.parts: expected a part to train on, found none")
        if self.test_parts and self.test_speakers:
            raise InputError("--corpora: expected --corpora.test-parts or --corpora.test-speakers, found both")
        if self.dev_parts and self.num_dev_speakers:
            raise InputError("--corpora: expected --corpora.dev-parts or --corpora.num-dev-speakers, found both")

    def resolved(self) -> LibrispeechOptions:
        """The same options with every default filled in."""
        from lhotse.recipes.librispeech import MINI_LIBRISPEECH

        is_mini = set(self.parts) <= set(MINI_LIBRISPEECH)
        parts = tuple(dict.fromkeys(p for part in self.parts for p in (TRAIN_960 if part == "train-960" else (part,))))
        test_parts = self.test_parts or (("dev-clean-2",) if is_mini else ("test-clean", "test-other"))
        number = self.num_dev_speakers or (MINI_DEV_SPEAKERS if is_mini and not self.dev_parts else 0)
        return replace(
            self,
            parts=parts,
            test_parts=() if self.test_speakers else test_parts,
            dev_parts=() if number else self.dev_parts or ("dev-clean",),
            num_dev_speakers=number,
        )


@dataclass(frozen=True)
class UserCorpusOptions:
    """Manifests or data directories of a corpus, and how many speakers are held out of training."""

    recordings: Path
    """Lhotse manifest of recordings or of cuts, or a Kaldi data directory."""
    supervisions: Path | None = None
    """Lhotse manifest of supervisions; not with cuts or a Kaldi data directory."""
    dev_recordings: Path | None = None
    """Manifest or data directory of the speech for tuning the scales; default: training speakers are held out."""
    dev_supervisions: Path | None = None
    """Manifest of its supervisions."""
    test_recordings: Path | None = None
    """Manifest or data directory of the speech for testing; default: training speakers are held out."""
    test_supervisions: Path | None = None
    """Manifest of its supervisions."""
    num_dev_speakers: int = 0
    """Number of speakers held out for tuning, chosen by SHA-256 of their names; 0: a tenth, at least one."""
    num_test_speakers: int = 0
    """Number of speakers held out for testing, chosen by SHA-256 of their names; 0: a tenth, at least one."""
    segments_dir: Path = Path("data/segments")
    """Folder for copies of the utterances that are segments of longer recordings, one file each."""

    def __post_init__(self) -> None:
        for name, recordings, supervisions, number in (
            ("dev", self.dev_recordings, self.dev_supervisions, self.num_dev_speakers),
            ("test", self.test_recordings, self.test_supervisions, self.num_test_speakers),
        ):
            if number < 0:
                raise InputError(f"--num-{name}-speakers: expected 0 or more, found {number}")
            if recordings is not None and number:
                raise InputError(f"--{name}-recordings: expected it or --num-{name}-speakers, found both")
            if recordings is None and supervisions is not None:
                raise InputError(f"--{name}-supervisions: expected --{name}-recordings with it, found none")
