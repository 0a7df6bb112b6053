"""Alignment of words to frames: training graphs, Viterbi through k2, flat start."""

from asrkd.align.cepstra import cepstra
from asrkd.align.flat_start import FlatStartOptions, flat_start
from asrkd.align.graphs import TrainingGraphs
from asrkd.align.viterbi import Aligner, ScoreFn, TrainingCorpus, ViterbiOptions, viterbi
from asrkd.hmm.alignment import Alignment, Segment

__all__ = [
    "Aligner",
    "Alignment",
    "FlatStartOptions",
    "ScoreFn",
    "Segment",
    "TrainingCorpus",
    "TrainingGraphs",
    "ViterbiOptions",
    "cepstra",
    "flat_start",
    "viterbi",
]
