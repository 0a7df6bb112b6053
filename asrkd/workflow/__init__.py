"""How work is run: steps and stamps, executors, finished items, torchrun, processes, provenance."""
