"""Word errors, frame metrics, how sure one may be of them, and results.json.

words.py counts, frames.py sums over frames, bootstrap.py resamples utterances, results.py writes DESIGN
section 5.
"""

from asrkd.scoring.bootstrap import (
    Comparison,
    GapRecovered,
    UtteranceMetric,
    compare,
    gap_recovered,
    interval,
    mean_over_seeds,
)
from asrkd.scoring.frames import FrameMetrics, frame_metrics
from asrkd.scoring.results import (
    assemble_results,
    comparisons,
    gaps_recovered,
    seed_rows,
    system_entry,
    system_metrics,
    worst_rows,
)
from asrkd.scoring.words import UtteranceErrors, WordErrors, confusions, wer, worst_utterances

__all__ = [
    "Comparison",
    "FrameMetrics",
    "GapRecovered",
    "UtteranceErrors",
    "UtteranceMetric",
    "WordErrors",
    "assemble_results",
    "compare",
    "comparisons",
    "confusions",
    "frame_metrics",
    "gap_recovered",
    "gaps_recovered",
    "interval",
    "mean_over_seeds",
    "seed_rows",
    "system_entry",
    "system_metrics",
    "wer",
    "worst_rows",
    "worst_utterances",
]
