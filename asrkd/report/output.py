"""Writing reports: whole files, and the packages that only the HTML page needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asrkd.errors import InputError
from asrkd.files import atomic_file, utf8


def write_text(path: Path, text: str) -> None:
    """Write a whole file, or none if writing fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial:
        partial.write_bytes(utf8(text))


@contextmanager
def report_packages(path: Path) -> Iterator[None]:
    """Turn a failed import of the page's modules into an InputError that names `path` and the missing package.

    Only the page needs matplotlib and jinja2. Tables and RESULTS.md work without the extra `report`.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(f"{path}: expected the packages of asrkd[report], found no {error.name}") from None
