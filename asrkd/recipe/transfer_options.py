"""Options of the transfer set: what distilled students learn from, and which targets they have."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from asrkd.errors import InputError
from asrkd.options import added_later


@dataclass(frozen=True)
class TransferOptions:
    """Speech without transcripts. Distilled students learn from it what the teachers say of it.

    Nothing else of a run sees it: no label, tree, teacher, prior or language model, and no baseline.
    """

    recordings: Path | None = None
    """Lhotse manifest of recordings or of cuts, a Kaldi data directory (its text is not read), or a folder of audio.
    Audio longer than 30 s is cut into equal pieces of at most 30 s."""
    untranscribed: float | None = field(default=None, metadata=added_later())
    """Fraction of the training speakers whose transcripts are not read: their audio is the transfer set, and the run
    learns words from the other speakers alone. A student that does not hear them, distilled_transcribed, shows what
    their audio gains. Instead of recordings."""
    untranscribed_seed: int = field(default=0, metadata=added_later())
    """Seed of the choice of these speakers, so that runs of every `seed` have the same."""
    share: float = 0.5
    """Fraction of a distilled student's frames that are from it, in every epoch. All training frames are in each
    epoch, so that 0.5 doubles its length; the transfer set's follow in a random order, over as many epochs as it has
    frames for, and then again."""

    transcripts: Path | None = None
    """What another recogniser heard in it: lines of an utt_id and its words. The run's own aligner makes labels of
    them, for the hard loss; utterances without words, or that cannot be aligned, have soft targets alone."""
    confidences: Path | None = None
    """How sure that recogniser is: lines of an utt_id and a number."""
    min_confidence: float | None = None
    """Words of less confidence, or without one, are not used."""
    targets: Literal["frame", "lattice"] = "frame"
    """frame: the ensemble's posterior of each frame. lattice: the occupation of each senone in the ensemble's lattice
    of the utterance, by forward-backward, so that students learn what the words around a frame say of it."""
    lattices: Literal["words", "transcript"] = "words"
    """words: lattices of what the ensemble recognises with the language model. transcript: of all alignments of the
    transcript, of its pronunciations and pauses."""
    lattice_weight: float = 0.5
    """Weight of the occupations in the targets; the rest is that of the frame's own posterior."""
    lattice_beam: float = 8.0
    """Paths of the lattices reach so far (nats of the scaled score) below the best one."""
    acoustic_scale: float | None = None
    """Acoustic scale of the lattices, with decode.lm_scale and decode.insertion_score; None: the scales that the
    development speakers' fewest word errors choose for the ensemble, in stage 7."""

    @property
    def has_speech(self) -> bool:
        """Whether there is a transfer set."""
        return self.recordings is not None or self.untranscribed is not None

    def __post_init__(self) -> None:
        if self.untranscribed is not None:
            if not 0.0 < self.untranscribed < 1.0:
                raise InputError(
                    f"--transfer.untranscribed: expected a fraction above 0 and below 1, found {self.untranscribed:g}"
                )
            if self.recordings is not None:
                raise InputError("--transfer.untranscribed: expected no --transfer.recordings with it, found both")
        if not 0.0 < self.lattice_weight <= 1.0:
            raise InputError(
                f"--transfer.lattice-weight: expected a weight above 0 and up to 1, found {self.lattice_weight:g}"
            )
        for name, value in (("lattice-beam", self.lattice_beam), ("acoustic-scale", self.acoustic_scale)):
            if value is not None and not (value > 0.0 and math.isfinite(value)):
                raise InputError(f"--transfer.{name}: expected a positive number, found {value:g}")
        if not 0.0 < self.share < 1.0:
            raise InputError(f"--transfer.share: expected a fraction above 0 and below 1, found {self.share:g}")
        if (self.confidences is None) != (self.min_confidence is None):
            found = "--transfer.min-confidence" if self.confidences is None else "--transfer.confidences"
            raise InputError(f"--transfer.confidences: expected --transfer.min-confidence with it, found {found} alone")
