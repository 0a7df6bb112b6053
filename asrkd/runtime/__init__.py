"""Exported models at work: audio in, words with times out, without torch and k2."""
