"""Corpora: source layout -> validated Lhotse manifests."""
