"""Decoding graphs: L and G composed by kaldifst, expanded to HMM states, saved as one graph.

arrays.py has FSTs as numpy arrays, pronunciations.py makes L, grammar.py makes G, build.py makes LG and HCLG,
triphones.py and hmm_states.py add context and HMM states, decoding_graph.py is the graph that decoders read, and
on_demand.py walks G for rescoring.
"""
