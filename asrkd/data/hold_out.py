"""Speakers that are held out of training, by a fixed rule: every run holds out the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping

from asrkd.errors import InputError


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
