"""The speech recipe: corpus in, WER table out.

Recipes give it values; every stage is a few calls of the modules below it.
"""
