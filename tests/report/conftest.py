"""A made-up run, rendered once for each module of tests."""

from __future__ import annotations

from typing import Any

import pytest
from report_reader import Parsed, rendered
from sample_run import whole_extras, whole_run


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return whole_run()


@pytest.fixture(scope="module")
def extras() -> dict[str, Any]:
    return whole_extras()


@pytest.fixture(scope="module")
def report(
    results: dict[str, Any], extras: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Parsed]:
    return rendered(results, extras, tmp_path_factory.mktemp("report"))
