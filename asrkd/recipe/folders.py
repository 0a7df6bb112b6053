"""Where the steps of a run leave their output."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "dev", "test")
HELD_OUT = ("dev", "test")
# The split of untranscribed speech, in runs that have some: it is in stages 1, 2, 7 and 8 alone.
TRANSFER = "transfer"

TRANSFER_POSTERIORS = "transfer/posteriors"
"""Step of stage 7."""

LEXICON_FILE = "lexicon.txt"
PIECES_NAME = "pieces"
ARPA_FILE = "lm.arpa"
STORE_FOLDER = "store"
PRIOR_FILE = "moments.json"
ALIGNMENT_FILE = "alignment.safetensors"
LOSSES_FILE = "losses.json"
FOLD_FILE = "fold.json"
TREE_FILE = "tree.json"


def fold_name(fold: int) -> str:
    """Folder of a fold of a cross-validation, a run of its own."""
    return f"fold_{fold}"


@dataclass(frozen=True)
class RunFolders:
    """Folders and files of one run."""

    exp_dir: Path

    def corpus(self, split: str) -> Path:
        """Manifests of a split as the corpus module makes them, before its audio is read."""
        return self.exp_dir / "corpus" / split

    def manifests(self, split: str) -> Path:
        """Manifests of a split's good utterances, what was rejected, and fingerprints of the audio."""
        return self.exp_dir / "manifests" / split

    def features(self, split: str) -> Path:
        """Frame store of a split."""
        return self.exp_dir / "features" / split / STORE_FOLDER

    @property
    def features_prior(self) -> Path:
        """Moments of training speech, which normalisation online begins with."""
        return self.exp_dir / "features" / "prior" / PRIOR_FILE

    @property
    def lexicon(self) -> Path:
        """Pronunciations of the words that are trained on."""
        return self.exp_dir / "lang" / "lexicon" / LEXICON_FILE

    @property
    def decode_lexicon(self) -> Path:
        """Pronunciations of the words that can be recognised."""
        return self.exp_dir / "lang" / "lm" / LEXICON_FILE

    @property
    def arpa(self) -> Path:
        """Language model of the decoding graph."""
        return self.exp_dir / "lang" / "lm" / ARPA_FILE

    @property
    def tree(self) -> Path:
        """Senone tree, priors, transitions and the network that aligns."""
        return self.exp_dir / "tree"

    def alignment(self, split: str) -> Path:
        """Final alignment of a split."""
        folder = self.tree if split == "train" else self.exp_dir / "labels" / split
        return folder / ALIGNMENT_FILE

    def losses(self, split: str) -> Path:
        """What a split has lost after stage 1, its doubtful transcripts, and what is excluded from training."""
        return self.exp_dir / "losses" / split / LOSSES_FILE

    @property
    def precision_choices(self) -> Path:
        """The precision that `--train.precision=auto` chose for the networks of this run, by processor."""
        return self.exp_dir / "precision.json"

    @property
    def posteriors(self) -> Path:
        """Posterior store of the training frames."""
        return self.exp_dir / "posteriors" / STORE_FOLDER

    @property
    def transfer_posteriors(self) -> Path:
        """Posterior store of the transfer set's frames."""
        return self.exp_dir / TRANSFER_POSTERIORS / STORE_FOLDER

    @property
    def transfer_segments(self) -> Path:
        """Copies of pieces of the transfer set's longer recordings, one file each."""
        return self.exp_dir / "transfer" / "segments"

    @property
    def lattice_targets(self) -> Path:
        """Posterior store of the training frames by the ensemble's lattices."""
        return self.exp_dir / "lattices" / "targets" / STORE_FOLDER

    @property
    def transfer_lattice_targets(self) -> Path:
        """The same of the transfer set's frames."""
        return self.exp_dir / "lattices" / TRANSFER / STORE_FOLDER

    def speech_statistics(self, split: str) -> Path:
        """How the features of a split's utterances were normalised, and how loud their audio is."""
        return self.exp_dir / "augment" / "speech" / split / STORE_FOLDER

    @property
    def noise(self) -> Path:
        """Frames of the noise that students' inputs get."""
        return self.exp_dir / "augment" / "noise" / STORE_FOLDER

    @property
    def impulse_responses(self) -> Path:
        """Gains of the rooms that students' inputs sound in."""
        return self.exp_dir / "augment" / "reverb" / STORE_FOLDER

    @property
    def augment_segments(self) -> Path:
        """Copies of parts of recordings of noise and rooms, one file each."""
        return self.exp_dir / "augment" / "segments"

    @property
    def graph(self) -> Path:
        """Decoding graph, and the grammars that rescore."""
        return self.exp_dir / "graph"
