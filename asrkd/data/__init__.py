"""Corpora before features: manifests, transcripts, audio, validation, hold-out."""
