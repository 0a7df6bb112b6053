"""Tables of strings, built once from a results dict and shown three ways: terminal, Markdown, HTML."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from asrkd.report.systems import finite, interval

MISSING = "–"
MINUS = "−"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Headers and cells as shown; `align`: l or r for each column; `roles` colours rows, `strong` is bold."""

    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str
    roles: tuple[str, ...] = ()
    strong: tuple[bool, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        widths = {len(self.headers), len(self.align), *(len(row) for row in self.rows)}
        if len(widths) != 1:
            raise ValueError(f"table {self.caption!r}: headers, align and rows differ in length: {sorted(widths)}")

    def without(self, headers: Collection[str]) -> Table:
        """The table without the columns of these headers."""
        shown = [column for column, header in enumerate(self.headers) if header not in headers]
        return replace(
            self,
            headers=tuple(self.headers[column] for column in shown),
            rows=tuple(tuple(row[column] for column in shown) for row in self.rows),
            align="".join(self.align[column] for column in shown),
        )

    def without_empty_columns(self) -> Table:
        """The table without columns in which no row has a value."""
        empty = {
            header
            for column, header in enumerate(self.headers)
            if all(row[column] in ("", MISSING) for row in self.rows)
        }
        return self.without(empty)

    def first_rows(self, limit: int) -> Table:
        """The first `limit` rows and every strong one, with a note of how many there are."""
        if len(self.rows) <= limit:
            return self
        shown = [i for i in range(len(self.rows)) if i < limit or (self.strong and self.strong[i])]
        left = f"{len(shown)} of {len(self.rows)} rows; all are in the HTML report."
        return replace(
            self,
            rows=tuple(self.rows[i] for i in shown),
            roles=tuple(self.roles[i] for i in shown) if self.roles else (),
            strong=tuple(self.strong[i] for i in shown) if self.strong else (),
            note=f"{self.note} {left}".strip(),
        )


def present(*tables: Table | None) -> tuple[Table, ...]:
    """The tables that there are."""
    return tuple(table for table in tables if table is not None)


def keyed_table(caption: str, pairs: Mapping[str, str], headers: Sequence[str], align: str = "lr") -> Table:
    """A two-column table of a mapping."""
    return Table(caption, tuple(headers), tuple((str(key), value) for key, value in pairs.items()), align)


def number(value: Any, digits: int, scale: float = 1.0, signed: bool = False) -> str:
    """A number at a fixed precision, MISSING when there is none; `signed` shows plus and minus."""
    shown = finite(value)
    if shown is None:
        return MISSING
    return f"{shown * scale:{'+' if signed else ''}.{digits}f}".replace("-", MINUS)


def number_plain(value: Any) -> str:
    """A setting as one would type it."""
    shown = finite(value)
    return MISSING if shown is None else f"{shown:g}".replace("-", MINUS)


def scientific(value: Any) -> str:
    """Three significant digits, powers of ten where a plain number would be long."""
    shown = finite(value)
    return MISSING if shown is None else f"{shown:.3g}".replace("-", MINUS)


def count(value: Any) -> str:
    """An integer with thousands separated."""
    return MISSING if value is None else f"{int(value):,}"


def magnitude(value: Any) -> str:
    """A large count to three digits, in thousands or millions."""
    shown = finite(value)
    if shown is None:
        return MISSING
    for size, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if float(f"{shown:.3g}") >= size:
            return f"{shown / size:#.3g}".rstrip(".") + suffix
    return f"{shown:g}"


def span(value: Any, digits: int, scale: float = 1.0, signed: bool = False) -> str:
    """An interval as `[low, high]`."""
    ends = interval(value)
    if ends is None:
        return MISSING
    return "[" + ", ".join(number(end, digits, scale, signed) for end in ends) + "]"


def duration(seconds: Any) -> str:
    """Seconds as `1 h 02 min`, `3 min 05 s` or `4.2 s`."""
    shown = finite(seconds)
    if shown is None:
        return MISSING
    if round(shown, 1) < 60:
        return f"{shown:.1f} s"
    whole = round(shown)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def p_value(value: Any) -> str:
    """p to three digits, never as zero."""
    shown = finite(value)
    if shown is None:
        return MISSING
    return "<0.001" if shown < 0.001 else f"{shown:.3f}"


def enumerate_words(parts: Sequence[str]) -> str:
    """`a`, `a and b` or `a, b and c`; empty without parts."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
