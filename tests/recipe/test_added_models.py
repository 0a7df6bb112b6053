"""Models that a recipe adds: in stamps, in another interpreter, in the kinds of an ensemble, and refused."""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from other_python import same_python
from torch import nn

from asrkd.data.corpora.an4 import prepare_an4
from asrkd.errors import InputError
from asrkd.nnet import ModelOptions, ModelShape, add_models, build_model, load_model
from asrkd.nnet import models as kinds
from asrkd.recipe import networks, pipeline
from asrkd.recipe.added_models import WithModels, model_source, with_models
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.label_networks import label_model
from asrkd.recipe.options import EnsembleOptions, SpeechOptions
from asrkd.workflow.interpreter import Interpreter
from asrkd.workflow.steps import Step, step_stamps

CORPUS = Corpus("an4", prepare_an4, lambda folder: "cmudict", closed_vocabulary=False, where="get AN4")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MODEL = """
from torch import nn

def tiny(shape):
    return nn.Linear(shape.input_dim, shape.num_outputs)
"""


def linear(shape: ModelShape) -> nn.Module:
    return nn.Linear(shape.input_dim, shape.num_outputs)


@pytest.fixture(autouse=True)
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "_builders", {})


def options(tmp_path: Path, **changes: object) -> SpeechOptions:
    (tmp_path / "corpus").mkdir(exist_ok=True)
    made = SpeechOptions(corpus_dir=tmp_path / "corpus", exp_dir=tmp_path / "exp")
    return replace(made, **changes)  # type: ignore[arg-type]


def stamps(given: SpeechOptions) -> dict[str, str]:
    return step_stamps(pipeline.build_steps(CORPUS, given, "run.sh"))


def test_members_take_their_kinds_in_turn_and_labels_stay_feed_forward(tmp_path: Path) -> None:
    given = options(tmp_path, ensemble=EnsembleOptions(size=5, kinds=("dnn", "cnn")))
    found = [networks.teacher_model(member, given).kind for member in range(5)]
    assert found == ["dnn", "cnn", "dnn", "cnn", "dnn"]
    plain, mixed = stamps(options(tmp_path)), stamps(given)
    changed = {name for name in plain if plain[name] != mixed[name]}
    assert {"teachers/1", "teachers/3", "posteriors", "students/distilled"} <= changed
    assert not changed & {"teachers/0", "teachers/2", "align", "tree", "students/baseline"}
    assert label_model(ModelOptions(kind="cnn", norm="layer", hidden_dim=9)) == ModelOptions(hidden_dim=9)


def test_an_edit_of_a_model_s_file_trains_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "edited_model.py").write_text(MODEL)
    from edited_model import tiny  # type: ignore[import-not-found]

    add_models({"tiny": tiny})
    given = options(tmp_path, student=ModelOptions(kind="tiny"))
    before = stamps(given)
    (tmp_path / "edited_model.py").write_text(MODEL + "# edited\n")
    after = stamps(given)
    assert before["students/baseline"] != after["students/baseline"]
    assert before["teachers/0"] == after["teachers/0"]
    assert model_source(ModelOptions()) == {}


@pytest.mark.parametrize("as_program", [False, True])
def test_a_step_of_another_interpreter_has_the_recipe_s_models(
    as_program: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_model.py").write_text(MODEL)
    import my_model  # type: ignore[import-not-found]

    builder = my_model.tiny
    if as_program:  # as where the recipe itself, which was started, defines the model
        monkeypatch.setattr(builder, "__module__", "__main__")
    add_models({"tiny": builder})
    saved = tmp_path / "model.safetensors"
    build_model(ModelShape(6, 2, ModelOptions(kind="tiny"))).save(saved)
    (step,) = with_models([Step(6, "teachers/0", load_model, networks_only=True)])  # type: ignore[arg-type]
    assert isinstance(step.run, WithModels)
    with Interpreter(same_python(tmp_path)) as other:
        other.run(partial(step.run, saved))
        with pytest.raises(InputError, match="found one of kind tiny: add it first"):
            other.run(partial(load_model, saved))


def test_a_file_that_cannot_be_imported_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "needs_more.py").write_text(MODEL)
    import needs_more  # type: ignore[import-not-found]

    add_models({"tiny": needs_more.tiny})
    (step,) = with_models([Step(6, "teachers/0", partial(print), networks_only=True)])
    (tmp_path / "needs_more.py").write_text("import no_such_package\n" + MODEL)
    monkeypatch.delitem(sys.modules, "needs_more")
    monkeypatch.setattr(kinds, "_builders", {})
    with pytest.raises(InputError, match=r"needs_more.py: expected a file that .* can import, found No module named"):
        step.run(tmp_path)


def test_what_other_processes_cannot_have_is_refused(tmp_path: Path) -> None:
    add_models({"tiny": lambda shape: nn.Linear(shape.input_dim, shape.num_outputs)})
    with pytest.raises(InputError, match="models: expected for tiny a function or class at the top of a file"):
        pipeline.build_steps(CORPUS, options(tmp_path), "run.sh")
    add_models({"tiny": linear})
    dask = {"executor": "dask", "scheduler": "tcp://127.0.0.1:1", "device": "cpu"}
    with pytest.raises(InputError, match=r"--executor dask: expected models of kind dnn, cnn, tdnn.* found tiny"):
        pipeline.build_steps(CORPUS, options(tmp_path, teacher=ModelOptions(kind="tiny"), **dask), "run.sh")


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--teacher.kind=lstm"], "--teacher.kind: expected dnn, cnn, tdnn, tiny, or a model that the recipe adds"),
        (["--student.kind=tinny"], "found tinny (did you mean tiny?)"),
        (["--ensemble.kinds", "dnn", "rnn"], "--ensemble.kinds: expected dnn, "),
        (["--teacher.kind=cnn", "--ensemble.kinds", "dnn", "cnn"], "--teacher.kind: it has no effect with --ensemble"),
        (["--teacher.filters=8"], "--teacher.filters: it has no effect without a cnn among the teachers"),
        (["--student.filters=8"], "--student.filters: it has no effect without a cnn"),
    ],
)
def test_kinds_that_nobody_has_are_refused_in_one_line(
    arguments: list[str], found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "corpus").mkdir()
    folders = [f"--corpus-dir={tmp_path / 'corpus'}", f"--exp-dir={tmp_path / 'exp'}", "--list-steps"]
    with pytest.raises(SystemExit) as left:
        pipeline.main(CORPUS, SpeechOptions(), [*folders, *arguments], models={"tiny": linear})
    (line,) = capsys.readouterr().err.splitlines()
    assert left.value.code == 2 and found in line


def test_the_example_of_a_recipe_knows_its_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "corpus").mkdir()
    monkeypatch.syspath_prepend(EXAMPLES)
    for kind, code in (("recurrent", None), ("recurent", 2)):
        arguments = ["--corpus-dir", str(tmp_path / "corpus"), "--exp-dir", str(tmp_path / "exp"), "--list-steps"]
        monkeypatch.setattr(sys, "argv", ["recipe.py", *arguments, "--ensemble.kinds", "dnn", kind])
        if code is None:
            runpy.run_path(str(EXAMPLES / "an4_own_model.py"), run_name="__main__")
            assert "teachers/1" in capsys.readouterr().out
            continue
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(EXAMPLES / "an4_own_model.py"), run_name="__main__")
        assert left.value.code == code
        assert "found recurent (did you mean recurrent?)" in capsys.readouterr().err
