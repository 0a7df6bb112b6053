"""HMM topology, senone tree, alignments, priors."""
