"""Log-mel features and the memory-mapped frame store."""
