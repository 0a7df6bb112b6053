"""Alignments as CTM, Praat's TextGrid and JSON. Every function gives the suffixes and the texts of its files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from asrkd.errors import InputError
from asrkd.runtime.align import Alignment, Interval
from asrkd.runtime.textgrid import Labelled, textgrid
from asrkd.runtime.writers import TIME_DIGITS, nist_name

MISFIT_DIGITS = 3


def ctm_files(alignment: Alignment) -> Mapping[str, str]:
    """NIST's CTM of each tier: name, channel from 1, start, duration, label. Silence is a phone and no word."""
    return {
        "ctm": _ctm(alignment, alignment.words),
        "phones.ctm": _ctm(alignment, alignment.phones),
        "senones.ctm": _ctm(alignment, alignment.senones),
    }


def textgrid_files(alignment: Alignment) -> Mapping[str, str]:
    """One TextGrid with the tiers words, phones and senones."""
    tiers = {name: [Labelled(one.start, one.end, one.name) for one in tier] for name, tier in _tiers(alignment).items()}
    return {"TextGrid": textgrid(alignment.duration, tiers)}


def json_files(alignment: Alignment) -> Mapping[str, str]:
    """Everything, with the misfit of every interval and the stretches where the text does not fit."""
    values: dict[str, Any] = {
        "name": alignment.name,
        "duration": round(alignment.duration, TIME_DIGITS),
        "channel": alignment.channel,
        "misfit": round(alignment.misfit, MISFIT_DIGITS),
        "misfits": [
            {"start": round(one.start, TIME_DIGITS), "end": round(one.end, TIME_DIGITS)}
            | {"word": one.word, "index": one.index}
            for one in alignment.misfits
        ],
    }
    values |= {name: [_object(one) for one in tier] for name, tier in _tiers(alignment).items()}
    return {"json": json.dumps(values, indent=1, ensure_ascii=False) + "\n"}


FORMATS: Mapping[str, Callable[[Alignment], Mapping[str, str]]] = {
    "ctm": ctm_files,
    "textgrid": textgrid_files,
    "json": json_files,
}
SUFFIXES: Mapping[str, Sequence[str]] = {
    "ctm": ("ctm", "phones.ctm", "senones.ctm"),
    "textgrid": ("TextGrid",),
    "json": ("json",),
}
"""Of the files of each format; the first one is what standard output gets."""


def parse_formats(names: str) -> tuple[str, ...]:
    """Names of formats, separated by commas, each once. InputError for an unknown one, or none."""
    found = tuple(dict.fromkeys(name.strip().lower() for name in names.split(",") if name.strip()))
    unknown = [name for name in found if name not in FORMATS]
    if unknown or not found:
        wrong = unknown[0] if unknown else "none"
        raise InputError(f"--format: expected one or more of {','.join(FORMATS)}, found {wrong}")
    return found


def _tiers(alignment: Alignment) -> Mapping[str, Sequence[Interval]]:
    return {"words": alignment.words, "phones": alignment.phones, "senones": alignment.senones}


def _ctm(alignment: Alignment, tier: Sequence[Interval]) -> str:
    name, lines = nist_name(alignment.name), []
    for one in tier:
        start, end = round(one.start, TIME_DIGITS), round(one.end, TIME_DIGITS)
        times = f"{start:.{TIME_DIGITS}f} {end - start:.{TIME_DIGITS}f}"
        lines.append(f"{name} {alignment.channel + 1} {times} {one.name}\n")
    return "".join(lines)


def _object(one: Interval) -> dict[str, Any]:
    return {
        "name": one.name,
        "start": round(one.start, TIME_DIGITS),
        "end": round(one.end, TIME_DIGITS),
        "misfit": round(one.misfit, MISFIT_DIGITS),
    }
