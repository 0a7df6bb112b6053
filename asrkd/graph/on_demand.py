"""G walked word by word, determinised as far as it is walked.

A grammar with back-off arcs has several paths for the same words, and the decoding graph takes the best of them. So
does this walk: its state is every state of G that the words so far may have led to, each with what it costs beyond
the best (weighted determinisation by subsets: Mohri, Finite-State Transducers in Language and Speech Processing,
1997, section 3.3). The cost of a sentence is then exactly what the decoding graph charges for its words.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch

from asrkd.errors import InputError
from asrkd.files import load_tensors, save_tensors
from asrkd.graph.arrays import FstArrays

KIND = "grammar"
_DIGITS = 5  # of costs in nats: float32 sums of a sentence are good to about as many

Subset = tuple[tuple[int, float], ...]
"""(state, cost beyond the best) in order of the states."""


class GrammarWalk:
    """The walk over one G; what it has met it remembers."""

    def __init__(self, fst: FstArrays) -> None:
        """`fst`: word labels in, back-off arcs known by their output of 0, as `grammar_fst` makes it."""
        self.fst = fst
        spoken = fst.olabel > 0
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
        """Cost of the word of that label, and the state after it; infinite and empty where G has no such word."""
        found = self._steps.get((subset, label))
        if found is None:
            reached: dict[int, float] = {}
            for state, beyond in subset:
                arc = self._arc(state, label)
                if arc >= 0:
                    target, cost = int(self.fst.dst[arc]), beyond + float(self.fst.cost[arc])
                    reached[target] = min(cost, reached.get(target, math.inf))
            found = self._steps[subset, label] = self._normalised(reached)
        return found

    def end(self, subset: Subset) -> float:
        """Cost of ending here."""
        return min((beyond + float(self.fst.final[state]) for state, beyond in subset), default=math.inf)

    def cost(self, labels: list[int]) -> float:
        """Cost of a sentence of words by their labels."""
        total, subset = self.start()
        for label in labels:
            cost, subset = self.step(subset, label)
            total += cost
        return total + self.end(subset)

    def _arc(self, state: int, label: int) -> int:
        key = state * self._num_labels + label
        place = int(np.searchsorted(self._keys, key))
        there = label < self._num_labels and place < len(self._keys) and self._keys[place] == key
        return int(self._arcs[place]) if there else -1

    def _normalised(self, reached: dict[int, float]) -> tuple[float, Subset]:
        """The states that back-off arcs lead on to added, and the least cost taken off all."""
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
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        return GrammarWalk(FstArrays(**arrays, start=json.loads(metadata["start"])))
