"""One module a corpus: its own layout to Lhotse manifests, split by a fixed rule."""
