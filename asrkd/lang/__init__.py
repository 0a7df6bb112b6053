"""Language: phones, lexicon, n-gram model, subword units."""
