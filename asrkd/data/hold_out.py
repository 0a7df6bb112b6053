"""Speakers that are held out of training, by a fixed rule: every run holds out the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

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
