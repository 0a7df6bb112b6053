"""Topology, senone tree, alignments as data, priors."""
