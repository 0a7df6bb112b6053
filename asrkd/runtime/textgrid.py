"""Praat's TextGrid: tiers of intervals, each from the begin of the recording to its end without gaps.

Source: Praat's manual, "TextGrid file formats", the long text format; in UTF-8, with quotes doubled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from asrkd.runtime.transcript import Seconds

TIME_DIGITS = 6


class Labelled(NamedTuple):
    """An interval of a tier."""

    start: Seconds
    end: Seconds
    text: str


def textgrid(duration: Seconds, tiers: Mapping[str, Sequence[Labelled]]) -> str:
    """The TextGrid of tiers by name. What lies between intervals is an interval without a text.

    ValueError for intervals that overlap or reach beyond the recording.
    """
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {_number(duration)}"]
    lines += ["tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (name, intervals) in enumerate(tiers.items(), start=1):
        filled = list(_without_gaps(duration, intervals))
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f"        name = {_quoted(name)}"]
        lines += ["        xmin = 0", f"        xmax = {_number(duration)}"]
        lines += [f"        intervals: size = {len(filled)}"]
        for index, one in enumerate(filled, start=1):
            lines += [f"        intervals [{index}]:", f"            xmin = {_number(one.start)}"]
            lines += [f"            xmax = {_number(one.end)}", f"            text = {_quoted(one.text)}"]
    return "\n".join(lines) + "\n"


def _without_gaps(duration: Seconds, intervals: Sequence[Labelled]) -> Iterator[Labelled]:
    at = 0.0
    for one in intervals:
        if not at <= one.start < one.end <= duration:
            raise ValueError(f"expected intervals in order within {duration} s, found {one} after {at}")
        if one.start > at:
            yield Labelled(at, one.start, "")
        yield one
        at = one.end
    if at < duration:
        yield Labelled(at, duration, "")


def _number(seconds: Seconds) -> str:
    return f"{seconds:.{TIME_DIGITS}f}".rstrip("0").rstrip(".") or "0"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
