"""Language: phones, lexicon, pronunciations of unknown words, subword units, n-gram models."""
