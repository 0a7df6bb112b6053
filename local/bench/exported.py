"""The exported model of a finished run, for the benchmarks that measure what is shipped."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path

from bench import finished_run

from asrkd.runtime.package import MODEL_JSON


def model_of(exp_dir: Path | None, model: Path | None) -> tuple[Path, Path]:
    """The folders of a finished run and of its model: the given one, else RUN_model, exported where it is missing."""
    exp = finished_run(exp_dir)
    path = model or exp.with_name(f"{exp.name}_model")
    if model is None and not (path / MODEL_JSON).is_file():
        from asrkd.recipe.export import export
        from asrkd.recipe.export_options import ExportOptions

        with redirect_stdout(sys.stderr):  # standard output is the benchmark's
            export(ExportOptions(run=exp, out=path))
    return exp, path
