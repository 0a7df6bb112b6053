"""Decoding graphs: L and G put together by kaldifst, expanded to HMM states, kept as one k2 graph.

arrays.py is FSTs as numpy arrays, pronunciations.py L, grammar.py G, build.py LG and the whole, hmm_states.py what
context and HMMs add, decoding_graph.py what is kept and what decoders take.
"""

from asrkd.graph.build import GraphOptions, build_hclg
from asrkd.graph.decoding_graph import DecodingGraph

__all__ = ["DecodingGraph", "GraphOptions", "build_hclg"]
