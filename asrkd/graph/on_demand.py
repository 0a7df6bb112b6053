"""G, walked word by word and determinised on demand.

A grammar with back-off arcs has several paths for the same words, and the decoding graph takes the best of them. This
walk does the same. Its state is the set of states of G that the words so far may have led to, each with its cost
beyond the best one (weighted determinisation by subsets: Mohri, Finite-State Transducers in Language and Speech
Processing, 1997, section 3.3). So the cost of a sentence equals the cost of its words in the decoding graph.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch

from asrkd.errors import InputError
from asrkd.files import load_tensors, reading, save_tensors
from asrkd.graph.arrays import FstArrays

KIND = "grammar"
MOST_STEPS = 100_000  # that are cached: some 70 MB
_DIGITS = 5  # of costs in nats; the float32 sum of a sentence has about as many

Subset = tuple[tuple[int, float], ...]
"""(state, cost beyond the best) in order of the states."""


class GrammarWalk:
    """The walk over one G. Steps are cached, MOST_STEPS at most: those of thousands of utterances take gigabytes."""

    def __init__(self, fst: FstArrays) -> None:
        """`fst`: the G of `grammar_fst`, where back-off arcs have the output label 0 and lead to earlier states.

        ValueError if one does not: a walk along a cycle of them might not end.
        """
        self.fst = fst
        spoken = fst.olabel > 0
        if not (spoken | (fst.dst < fst.src)).all():
            raise ValueError("expected back-off arcs to earlier states, found a back-off arc to a later one")
        self._num_labels = int(fst.olabel.max(initial=0)) + 1
        keys = fst.src[spoken].astype(np.int64) * self._num_labels + fst.olabel[spoken]
        order = np.argsort(keys)
        self._keys = keys[order]
        self._arcs = np.flatnonzero(spoken)[order]
        self._backoff = np.full(fst.num_states, -1)
        self._backoff[fst.src[~spoken]] = np.flatnonzero(~spoken)
        self._steps: dict[tuple[Subset, int], tuple[float, Subset]] = {}

    def start(self) -> tuple[float, Subset]:
        """Cost and state before the first word."""
        return self._normalised({self.fst.start: 0.0})

    def step(self, subset: Subset, label: int) -> tuple[float, Subset]:
        """The cost of a word and the state behind it; infinite and empty if G does not have the word."""
        result = self._steps.get((subset, label))
        if result is None:
            reached: dict[int, float] = {}
            for state, beyond in subset:
                arc = self._arc(state, label)
                if arc >= 0:
                    target, cost = int(self.fst.dst[arc]), beyond + float(self.fst.cost[arc])
                    reached[target] = min(cost, reached.get(target, math.inf))
            if len(self._steps) >= MOST_STEPS:
                self._steps.clear()
            result = self._steps[subset, label] = self._normalised(reached)
        return result

    def end(self, subset: Subset) -> float:
        """The cost of ending in this state."""
        return min((beyond + float(self.fst.final[state]) for state, beyond in subset), default=math.inf)

    def _arc(self, state: int, label: int) -> int:
        key = state * self._num_labels + label
        index = int(np.searchsorted(self._keys, key))
        exists = label < self._num_labels and index < len(self._keys) and self._keys[index] == key
        return int(self._arcs[index]) if exists else -1

    def _normalised(self, reached: dict[int, float]) -> tuple[float, Subset]:
        """The least cost, and the states with their costs beyond it, after following back-off arcs too."""
        waiting = list(reached)
        while waiting:
            state = waiting.pop()
            arc = int(self._backoff[state])
            if arc >= 0:
                target, cost = int(self.fst.dst[arc]), reached[state] + float(self.fst.cost[arc])
                if cost < reached.get(target, math.inf):
                    reached[target] = cost
                    waiting.append(target)
        if not reached:
            return math.inf, ()
        least = min(reached.values())
        return least, tuple(sorted((state, round(cost - least, _DIGITS)) for state, cost in reached.items()))

    def save(self, path: Path | str) -> None:
        """Write one safetensors file."""
        columns = {name: torch.from_numpy(getattr(self.fst, name)) for name in ("src", "dst", "ilabel", "olabel")}
        weights = {name: torch.from_numpy(getattr(self.fst, name)) for name in ("cost", "final")}
        save_tensors(path, {**columns, **weights}, {"kind": KIND, "start": json.dumps(self.fst.start)})

    @staticmethod
    def load(path: Path | str) -> GrammarWalk:
        """Read what `save` wrote; InputError if it is something else."""
        tensors, metadata = load_tensors(path)
        if metadata.get("kind") != KIND:
            raise InputError(f"{path}: expected a {KIND}, found {metadata.get('kind', 'something else')}")
        with reading(path, "a grammar"):
            arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
            return GrammarWalk(FstArrays(**arrays, start=json.loads(metadata["start"])))
