"""What all reports share: whole files, missing packages, the spread over seeds."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from asrkd.errors import InputError
from asrkd.report.output import report_packages, write_text
from asrkd.report.spread import mean_and_deviation


def test_a_text_is_written_whole_into_a_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "report" / "RESULTS.md"
    write_text(path, "± sd\n")
    assert path.read_bytes() == "± sd\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_package_of_the_page_is_named() -> None:
    expected = r"^report.html: expected the packages of asrkd\[report\], found no no_such_package$"
    with pytest.raises(InputError, match=expected), report_packages(Path("report.html")):
        import_module("no_such_package")


def test_the_spread_over_seeds() -> None:
    assert mean_and_deviation([4, 5, 9], 1) == "6.0 ± 2.6"
    assert mean_and_deviation([0.5, 0.75], 2, 100) == "62.50 ± 17.68"
    assert mean_and_deviation([7], 1) == "7.0", "one seed has no spread"
