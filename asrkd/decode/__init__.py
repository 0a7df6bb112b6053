"""From acoustic scores to words: the searches of k2 and of Kaldi, lattices, and the scales that they are read with.

search.py decodes, k2_search.py and kaldi_search.py are its two searches. lattice.py stores lattices and reads the best
path from them, rescore.py gives them the scores of another language model, tuning.py chooses scales on a development
set, from the grid of grid.py.
"""

from asrkd.decode.lattice import Lattices, Scales
from asrkd.decode.options import DecodeOptions
from asrkd.decode.search import Hypotheses, Searcher, decode
from asrkd.decode.tuning import Tuning, tune

__all__ = ["DecodeOptions", "Hypotheses", "Lattices", "Scales", "Searcher", "Tuning", "decode", "tune"]
