"""An option that another one leaves without effect, or a device that is not there, is refused before stage 0."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from asrkd import config
from asrkd.errors import InputError
from asrkd.nnet import TrainOptions
from asrkd.options import options_of
from asrkd.recipe.command_line import run_recipe
from asrkd.recipe.cost_estimate import CostOptions
from asrkd.recipe.options import SpeechOptions
from asrkd.workflow.steps import Step
from recipes.mnist.options import DigitsOptions

BASES = {"speech": SpeechOptions(), "digits": DigitsOptions(experiments=(1, 3)), "costs": CostOptions()}
# Of a recipe, the option that is refused, and the arguments.
REFUSED = [
    ("speech", "--lang.vocab-size", "--lang.vocab-size=100"),
    ("speech", "--lang.samples", "--lang.samples 2"),
    ("speech", "--lang.seed", "--lang.units=subword --lang.seed=3"),
    ("speech", "--lang.prune", "--lang.prune=1e-7"),
    ("speech", "--lang.max-unpronounced", "--lang.max-unpronounced=0.2"),
    ("speech", "--lang.order", "--lang.arpa=lm.arpa --lang.order=4"),
    ("speech", "--lang.interpolation-weight", "--lang.interpolation-weight=0.5"),
    ("speech", "--lang.max-words", "--lang.max-words=10"),
    ("speech", "--ensemble.size", "--posteriors-from=store --ensemble.size=3"),
    ("speech", "--distil.temperature", "--distil.alpha=0 --distil.temperature=5"),
    ("speech", "--distil.t-squared", "--distil.alpha=0 --distil.no-t-squared"),
    ("speech", "--fold-seed", "--fold-seed=1"),
    ("speech", "--students.beta2", "--train.optimizer=sgd --students.beta2=0.9"),
    ("speech", "--students.augment.warp-range", "--students.augment.warp-range=0.2"),
    ("speech", "--students.augment.tilt-range", "--students.augment.mask=0.5 --students.augment.tilt-range=0.2"),
    ("speech", "--students.augment.noise-from", "--students.augment.noise-from=noise"),
    ("speech", "--students.augment.reverb-from", "--students.augment.reverb-from=rooms"),
    ("speech", "--students.augment.noise-max-snr-db", "--students.augment.noise-max-snr-db=30"),
    ("speech", "--posteriors.top-k", "--distil.targets=online --posteriors.top-k=9"),
    ("speech", "--transfer.lattices", "--transfer.lattices=transcript"),
    ("speech", "--transfer.acoustic-scale", "--transfer.acoustic-scale=0.2"),
    ("speech", "--transfer.targets", "--transfer.targets=lattice --distil.alpha=0"),
    ("speech", "--transfer.lattice-weight", "--transfer.targets=lattice --transfer.lattice-weight=0"),
    ("speech", "--transfer.lattice-beam", "--transfer.targets=lattice --transfer.lattice-beam=-1"),
    ("speech", "--train.beta2", "--train.optimizer=sgd --train.beta2=0.9"),
    ("speech", "--train.cuda-graph", "--device=cpu --train.cuda-graph"),
    ("speech", "--train.seed", "--train.seed=3"),
    ("speech", "--dry-run", "--dry-run --list-steps"),
    ("speech", "--scheduler", "--scheduler=tcp://10.0.0.1:8786"),
    ("speech", "--stop-stage", "--stop-stage=13"),
    ("speech", "--seed", "--seed=-1"),
    ("digits", "--compared.widths", "--compared.widths 30"),
    ("digits", "--compared.temperatures", "--compared.temperatures 3"),
    ("digits", "--compared.matching-temperatures", "--compared.matching-temperatures 3"),
    ("digits", "--compared.alphas", "--compared.alphas 0.5"),
    ("digits", "--compared.label-smoothing", "--compared.label-smoothing=0.2"),
    ("digits", "--compared.train.epochs", "--compared.train.epochs=3"),
    ("digits", "--teacher.translations", "--teacher.jitter=0 --teacher.translations"),
    ("digits", "--student.hard.beta2", "--student.hard.optimizer=sgd --student.hard.beta2=0.9"),
    ("digits", "--student.distil.temperature", "--student.distil.alpha=0 --student.distil.temperature=3"),
    ("costs", "--hours", "--run=exp/an4 --hours=3"),
    ("costs", "--teacher.hidden-dim", "--run=exp/an4 --teacher.hidden-dim=3"),
]
ACCEPTED = [
    ("speech", "--lang.units=subword --lang.vocab-size=100 --lang.samples=2 --lang.seed=3"),
    ("speech", "--lang.arpa=lm.arpa --lang.prune=1e-7 --lang.max-words=10"),
    ("speech", "--lang.arpa=lm.arpa --lang.interpolation-weight=0.5 --lang.order=4"),
    ("speech", "--distil.alpha=0 --distil.temperature=5 --students.sweep-alphas 0.5"),
    ("speech", "--device=cpu --train.no-cuda-graph"),
    ("speech", "--distil.targets=online --distil.temperature=3 --students.sweep-temperatures 1.5 7"),
    ("speech", "--distil.targets=online --posteriors.mean=arithmetic --posteriors.temperatures 2"),
    ("speech", "--students.augment.warp=0.5 --students.augment.warp-range=0.2 --students.epochs=30"),
    (
        "speech",
        "--students.augment.noise=0.5 --students.augment.noise-from=noise --students.augment.noise-min-snr-db=0",
    ),
    ("speech", "--transfer.targets=lattice --transfer.lattices=transcript --transfer.acoustic-scale=0.2"),
    ("speech", "--dry-run"),
    ("speech", "--folds=5 --fold-seed=1"),
    ("digits", "--experiments 1 2 6 --compared.widths 30 --compared.train.epochs=3"),
    ("costs", "--run=exp/an4 --flops=1e12"),
]


@pytest.mark.parametrize(("base", "option", "arguments"), REFUSED)
def test_an_option_without_effect_is_refused_with_what_gives_it_one(base: str, option: str, arguments: str) -> None:
    with pytest.raises(InputError, match=f"^{option}[:= ]") as refused:
        config.parse(BASES[base], arguments.split(), "recipe", "")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("base", "arguments"), ACCEPTED)
def test_options_with_an_effect_are_accepted(base: str, arguments: str) -> None:
    config.parse(BASES[base], arguments.split(), "recipe", "")


def test_the_defaults_of_a_recipe_are_not_refused() -> None:
    """A recipe may set an option for the case that its user switches to what it needs."""
    subword = replace(SpeechOptions(), lang=replace(SpeechOptions().lang, vocab_size=300, samples=2, seed=1))
    config.parse(subword, [], "recipe", "")


@pytest.mark.parametrize("base", BASES)
def test_rules_name_options_that_exist(base: str) -> None:
    names = {option.name for option in options_of(BASES[base])}
    for rule in BASES[base].NO_EFFECT:
        for name in rule.options:
            assert name in names or (name.endswith(".") and any(one.startswith(name) for one in names)), name


@pytest.mark.parametrize("device", ["cuda:7", "mps", "gpu", "CPU", ""])
def test_another_device_is_refused_with_the_one_that_works(device: str) -> None:
    with pytest.raises(InputError, match="--device=cpu always works"):
        config.parse(SpeechOptions(), [f"--device={device}"], "recipe", "")


def fill(out_dir: Path, text: str = "") -> None:
    (out_dir / "output").write_text(text, encoding="utf-8")


STEPS = [Step(0, "corpus", fill), Step(6, "teachers/0", fill, inputs=("corpus",), trains=True)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without GPU")
def test_a_gpu_that_is_not_there_is_refused_before_stage_0(tmp_path: Path) -> None:
    options = SpeechOptions(exp_dir=tmp_path / "exp", device="cuda")
    run = partial(run_recipe, STEPS, terminal_text=lambda results: "")
    with pytest.raises(InputError, match=r"found none \(--device=cpu always works\)"):
        run(options)
    assert not (tmp_path / "exp").exists()
    run(replace(options, stop_stage=0))  # needs no GPU
    run(replace(options, list_steps=True))
    assert (tmp_path / "exp" / "corpus" / "output").exists()


@pytest.mark.skipif(hasattr(torch, "compile"), reason="needs torch 1")
def test_a_compiler_that_torch_lacks_is_refused_before_stage_0(tmp_path: Path) -> None:
    options = SpeechOptions(exp_dir=tmp_path / "exp", device="cpu", train=TrainOptions(compile=True))
    with pytest.raises(InputError, match=r"train\.compile: expected torch 2"):
        run_recipe(STEPS, options, lambda results: "")
    assert not (tmp_path / "exp").exists()
