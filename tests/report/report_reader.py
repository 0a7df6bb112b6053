"""Reads tables, links and text back from report.html and RESULTS.md."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from optional_packages import skip_without

from asrkd.report import write_report

VOID = {"meta", "br", "img", "input", "link", "hr", "wbr"}
REFERENCES = ("src", "href", "xlink:href", "srcset", "data", "action", "poster")


class Parsed(HTMLParser):
    """Checks the nesting of a page and gathers its ids, links, resources, tables and text."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.resources: list[tuple[str, str]] = []
        self.alts: list[str | None] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.scripts: list[str] = []
        self.text = ""
        self._rows: list[list[str]] = []
        self._caption = ""
        self.feed(markup)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.ids.append(str(given["id"]))
        references = [str(value) for key, value in attrs if key in REFERENCES]
        if tag in ("a", "use"):
            self.links += references
        else:
            self.resources += [(tag, reference) for reference in references]
        if tag == "svg":
            assert given.get("aria-hidden") == "true"
        if given.get("role") == "img" or tag == "img":
            self.alts.append(given.get("aria-label") or given.get("alt"))
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        self.text += data
        if "script" in self.open:
            self.scripts.append(data)
        if "caption" in self.open:
            self._caption += data
        elif self.open and self.open[-1] in ("td", "th"):
            self._rows[-1][-1] += data


def rendered(results: dict[str, Any], extras: dict[str, Any], folder: Path) -> tuple[str, Parsed]:
    """report.html and what it holds."""
    recoded = any(row.get("audio") for row in extras.get("worst_utterances") or ())
    skip_without("matplotlib", "jinja2", *(("soundfile",) if recoded else ()))
    path = folder / "report.html"
    write_report(results, extras, path)
    markup = path.read_text(encoding="utf-8")
    return markup, Parsed(markup)


def cell(rows: list[list[str]], row: str, column: str) -> str:
    return next(found for found in rows if found[0].strip() == row)[rows[0].index(column)]


def markdown_rows(text: str, first_header: str) -> list[list[str]]:
    """The first table of a Markdown text whose first column has this header, without its rule."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if re.match(rf"\|\s*{first_header}\s*\|", line))
    table = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        table.append([part.strip().strip("*") for part in line.strip("|").split("|")])
    return [table[0], *table[2:]]
