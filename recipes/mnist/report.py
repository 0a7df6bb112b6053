"""Stage 12: RESULTS.md and the self-contained report.html, from results.json and the trained networks."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from asrkd.data.corpora.mnist import SIDE
from asrkd.files import read_json
from asrkd.nnet.result import MODEL_NAME
from asrkd.nnet.stacked import StackedEnsemble
from asrkd.recipe.command_line import REPORT_HTML, RESULTS_FILE, RESULTS_MD
from asrkd.report.output import report_packages, write_text
from recipes.mnist.data import DigitData
from recipes.mnist.markdown import results_markdown
from recipes.mnist.options import DigitsOptions
from recipes.mnist.results import step_name
from recipes.mnist.tables import HEADLINE


def report(options: DigitsOptions, out_dir: Path) -> None:
    """Stage 12. InputError names the package of the extra `report` that is not installed."""
    exp_dir = options.exp_dir
    results = read_json(exp_dir / "score" / RESULTS_FILE)
    write_text(out_dir / RESULTS_MD, results_markdown(results))
    with report_packages(out_dir / REPORT_HTML):
        from recipes.mnist.page import digits_page
    data = DigitData.open(exp_dir / "corpus", options)
    write_text(out_dir / REPORT_HTML, digits_page(results, data, first_layers(exp_dir)))


def first_layers(exp_dir: Path) -> dict[str, Tensor]:
    """Weights [784, H] of the first hidden layer of each headline variant's first network."""
    stacks = {name: StackedEnsemble.load_stack(exp_dir / step_name(name) / MODEL_NAME) for name in HEADLINE}
    return {name: stack.weights[0][0].detach().reshape(SIDE * SIDE, -1) for name, stack in stacks.items()}
