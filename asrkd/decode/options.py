"""Options of the search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from asrkd.decode.lattice import Scales
from asrkd.errors import InputError

SearchName = Literal["k2", "kaldi"]

# The largest graph and the widest beam (nats) with which Kaldi's search gets the best path sooner than k2's: in 90,000
# arcs up to a beam of 15, in 13 million hardly with any (docs/adr/0008-two-searches.md).
KALDI_MAX_ARCS, KALDI_MAX_BEAM = 1_000_000, 15.0


@dataclass(frozen=True)
class DecodeOptions:
    """Pruning of the search and the scales that it works with."""

    search: Literal["auto", SearchName] = "auto"
    """k2; kaldi: kaldi-decoder's searches. auto: kaldi for best paths with a narrow beam in a small graph, else k2."""
    test_lattices: bool = False
    """Lattices of the test set, not its best paths alone, which take less time. Rescoring makes lattices anyway."""
    beam: float = 16.0
    """Width of the search (nats of the scaled score): states further below the frame's best are pruned."""
    lattice_beam: float = 4.0
    """Paths further than this (nats) below the best are not in the lattice."""
    whole_lattices: bool = False
    """Keep all of these paths, frame by frame, not the best one of each word and time: a hundred times the size."""
    max_active: int | None = 10_000
    """States per frame, about; None for no limit."""
    min_active: int = 30
    """States per frame whatever the beam."""
    acoustic_scale: float = 0.1
    """Weight of the acoustic scores."""
    lm_scale: float = 1.0
    """Weight of the graph's scores."""
    insertion_score: float = 0.0
    """Added for each word; negative against insertions."""
    allow_partial: bool = True
    """Where no path ends in a final state, take the best that ends anywhere; such utterances are listed."""

    def __post_init__(self) -> None:
        if not (self.beam > 0 and self.lattice_beam > 0):
            raise InputError(f"decoding: expected positive beams, found {self.beam} and {self.lattice_beam}")
        if self.max_active is not None and self.max_active < 1:
            raise InputError(f"decoding: expected max_active of at least 1, found {self.max_active}")
        _ = self.scales

    @property
    def scales(self) -> Scales:
        """The three weights."""
        return Scales(self.acoustic_scale, self.lm_scale, self.insertion_score)

    def choose_search(self, num_arcs: int, lattices: bool) -> SearchName:
        """The search of a graph with so many arcs, for lattices or for best paths alone."""
        if self.search != "auto":
            return self.search
        is_small = num_arcs <= KALDI_MAX_ARCS and self.beam <= KALDI_MAX_BEAM
        return "kaldi" if is_small and not lattices else "k2"
