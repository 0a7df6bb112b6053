"""Names that transcripts and phone sets share."""

SILENCE = "SIL"
"""The phone of a pause."""
