"""Word errors, frame metrics and alignment boundaries, with confidence intervals, as results.json has them.

words.py counts word errors, frames.py sums over frames, bootstrap.py resamples utterances, boundaries.py compares
alignments, results.py assembles results.json (docs/file_formats.md).
"""
