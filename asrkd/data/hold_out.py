"""Speakers that are held out of training, and folds of a cross-validation, by fixed rules: every run has the same."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence

from asrkd.errors import InputError, name_some

FOLD_DEV_SHARE = 0.1
"""Share of all speakers that a fold develops on: as the recipes hold out."""


def held_out_speakers(speakers: Iterable[str], number: int, women: Collection[str] = ()) -> set[str]:
    """The `number` speakers with the smallest SHA-256 of their names; the share of `women` is that of all speakers.

    InputError if no speaker would be left for training.
    """
    by_digest = sorted(set(speakers), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    if not 0 <= number < len(by_digest):
        raise InputError(f"development speakers: expected fewer than the {len(by_digest)} there are, found {number}")
    female = [name for name in by_digest if name in women]
    others = [name for name in by_digest if name not in women]
    num_women = round(number * len(female) / len(by_digest))
    return {*female[:num_women], *others[: number - num_women]}


def speaker_folds(weights: Mapping[str, float], number: int, seed: int = 0) -> list[set[str]]:
    """The speakers in `number` groups of nearly equal weight (words, say), each in one group.

    Speakers are ranked by weight, the heaviest first, and taken in blocks of `number`. A block, whose speakers weigh
    nearly the same, is shuffled by the SHA-256 of `seed` and name and dealt out, one speaker to each group; the last
    block, if it is shorter, to the lightest groups. Groups so differ by at most one speaker, and by at most the weight
    of the heaviest speaker. InputError if there are fewer speakers than groups.
    """
    if not 2 <= number <= len(weights):
        known = f"found {len(weights)} ({name_some(sorted(weights))})"
        raise InputError(f"--folds {number}: expected at least {max(2, number)} speakers, {known}")
    digests = {name: hashlib.sha256(f"{seed} {name}".encode()).hexdigest() for name in weights}
    ranked = sorted(weights, key=lambda name: (-weights[name], digests[name]))
    groups: list[set[str]] = [set() for _ in range(number)]
    sums = [0.0] * number
    for start in range(0, len(ranked), number):
        block = ranked[start : start + number]
        order = list(range(number))
        if len(block) == number:
            block.sort(key=digests.__getitem__)
        else:
            order.sort(key=sums.__getitem__)
        for name, group in zip(block, order, strict=False):
            groups[group].add(name)
            sums[group] += weights[name]
    return groups


def fold_splits(groups: Sequence[set[str]], fold: int) -> dict[str, set[str]]:
    """The train, dev and test speakers of a fold of a cross-validation.

    Test speakers are group `fold`. Development speakers are a tenth of all speakers (FOLD_DEV_SHARE), but at least one,
    of the next group, which `held_out_speakers` chooses. So a speaker develops in one fold at most, and a run trains on
    nearly all that it does not test on. InputError if no speaker would be left for training.
    """
    test, following = groups[fold], groups[(fold + 1) % len(groups)]
    everybody = set().union(*groups)
    number = max(1, round(FOLD_DEV_SHARE * len(everybody)))
    dev = following if number >= len(following) else held_out_speakers(following, number)
    train = everybody - test - dev
    if not train:
        raise InputError(
            f"--folds {len(groups)}: expected speakers to train on besides those of the test and development sets, "
            f"found {len(everybody)} in all ({name_some(sorted(everybody))})"
        )
    return {"train": train, "dev": dev, "test": test}


class Copies:
    """Which utterances are copies of one, such as at other speeds or with noise, and which speakers are therefore one.

    Kaldi's tools give the speaker of a copy another name (`sp0.9-ann`), and list in `utt2uniq` what it is a copy of.
    """

    def __init__(self, speakers: Mapping[str, str], originals: Mapping[str, str]) -> None:
        """`speakers`: utt_id -> speaker, "" if unknown; `originals`: utt_id -> what it is a copy of, where listed."""
        self._utterances, people = _DisjointSets(), _DisjointSets()
        for utt_id, original in originals.items():
            self._utterances.join(utt_id, original)
        first: dict[str, str] = {}  # an original of each root; else the copy that stands for it
        self._originals: set[str] = set()
        for utt_id in sorted(speakers):
            root = self.root(utt_id)
            if originals.get(utt_id, utt_id) == utt_id:
                self._originals.add(utt_id)
                first.setdefault(root, utt_id)
        for utt_id in sorted(speakers):
            if first.setdefault(self.root(utt_id), utt_id) == utt_id:
                self._originals.add(utt_id)
        for utt_id, speaker in speakers.items():
            by = speakers[first[self.root(utt_id)]]
            if speaker and by:
                people.join(speaker, by)
        self._names: dict[str, str] = {}
        named = {speakers[utt_id] for utt_id in self._originals} - {""}
        for name in (*sorted(named), *sorted({*speakers.values()} - named - {""})):
            self._names[name] = self._names.setdefault(people.root(name), name)

    def root(self, utt_id: str) -> str:
        """A name that all copies of an utterance share."""
        return self._utterances.root(utt_id)

    def is_original(self, utt_id: str) -> bool:
        """Whether it is no copy, or the first of the copies where the original is not there."""
        return utt_id in self._originals

    def speaker(self, name: str) -> str:
        """The speaker of the originals, where `name` is the speaker of copies."""
        return self._names[name]


class _DisjointSets:
    """Sets of names that grow together (union-find with path halving)."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def root(self, name: str) -> str:
        while (parent := self._parents.get(name, name)) != name:
            self._parents[name] = name = self._parents.get(parent, parent)
        return name

    def join(self, one: str, other: str) -> None:
        self._parents[self.root(one)] = self.root(other)
