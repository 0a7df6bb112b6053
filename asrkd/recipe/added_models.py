"""The models that a recipe adds by name, in the processes of its steps."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from asrkd.errors import InputError
from asrkd.files import file_fingerprint
from asrkd.nnet.model_options import KINDS, ModelOptions
from asrkd.nnet.models import add_models, added_models
from asrkd.recipe.options import SpeechOptions
from asrkd.workflow.steps import Step


def model_source(model: ModelOptions) -> dict[str, str]:
    """What a stamp has of a network besides its options: for an added model, the contents of its builder's file.

    The kinds of this package have nothing. An edit of the file trains the network again.
    """
    builder = added_models().get(model.kind)
    return {} if builder is None else {"source": file_fingerprint(_file(model.kind, builder))}


def require_executor(options: SpeechOptions, kinds: Sequence[str]) -> None:
    """InputError for an added model with workers that do not have it: those of a cluster."""
    others = [kind for kind in kinds if kind not in KINDS]
    if others and options.executor != "processes":
        raise InputError(
            f"--executor {options.executor}: expected models of kind {', '.join(KINDS)}, which its workers have, "
            f"found {others[0]}: give --executor processes"
        )


def with_models(steps: Sequence[Step]) -> list[Step]:
    """The steps; those that another interpreter can run take the added models with them.

    Processes that are forked from this one have them anyway.
    """
    builders = added_models()
    if not builders:
        return list(steps)
    return [
        replace(step, run=WithModels(_sources(builders), step.run)) if step.networks_only else step for step in steps
    ]


@dataclass(frozen=True)
class ModelSource:
    """Where the builder of a model is defined."""

    name: str
    file: Path
    module: str
    attribute: str

    def add(self) -> None:
        """Add the model in this process. InputError where its file cannot be imported here."""
        folder = self.file.parents[self.module.count(".")]
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
        try:
            value: Any = _imported(self.module, self.file)
            for part in self.attribute.split("."):
                value = getattr(value, part)
        except (ImportError, AttributeError) as error:
            raise InputError(
                f"{self.file}: expected a file that {sys.executable} can import, found {error}: define the model "
                f"{self.name} at the top of a file of its own, which needs torch alone, and import it in the recipe"
            ) from error
        add_models({self.name: value})


@dataclass(frozen=True)
class WithModels:
    """A step's function, and the models that it needs in a process of another interpreter."""

    sources: tuple[ModelSource, ...]
    run: Callable[[Path], None]

    def __call__(self, out_dir: Path) -> None:
        known = added_models()
        for source in self.sources:
            if source.name not in known:
                source.add()
        self.run(out_dir)


def _sources(builders: Mapping[str, Any]) -> tuple[ModelSource, ...]:
    return tuple(
        ModelSource(name, _file(name, builder), builder.__module__, builder.__qualname__)
        for name, builder in builders.items()
    )


def _file(name: str, builder: Any) -> Path:
    """The file that defines a builder. InputError for one that has no name in a file."""
    found = inspect.getsourcefile(builder) if inspect.isfunction(builder) or inspect.isclass(builder) else None
    if found is None or "<" in builder.__qualname__:
        raise InputError(
            f"models: expected for {name} a function or class at the top of a file, found "
            f"{getattr(builder, '__qualname__', type(builder).__name__)}, which steps in other processes cannot import"
        )
    return Path(found).absolute()


def _imported(name: str, file: Path) -> Any:
    """A module by its name; the started program, `__main__`, by its file, whose main block does not run then."""
    if name != "__main__":
        return importlib.import_module(name)
    name = f"asrkd_models_{file.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
