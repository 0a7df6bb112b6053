"""Options that every recipe has, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from asrkd import config
from asrkd.files import fingerprint
from asrkd.nnet import TrainOptions
from asrkd.workflow.steps import LAST_STAGE

CONFIG_FILE = "config.json"


class RunOptions(Protocol):
    """A recipe's frozen dataclass of options, as far as all recipes agree."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def corpus_dir(self) -> Path | None:
        """Folder of the corpus."""
        ...

    @property
    def exp_dir(self) -> Path:
        """Folder of everything the run writes."""
        ...

    @property
    def device(self) -> str:
        """Where networks train."""
        ...

    @property
    def stage(self) -> int:
        """First stage to run."""
        ...

    @property
    def stop_stage(self) -> int:
        """Last stage to run."""
        ...

    @property
    def only(self) -> str | None:
        """The one step to run, or None."""
        ...

    @property
    def dry_run(self) -> bool:
        """Whether to print the steps that would run, with the reasons, and to run none."""
        ...

    @property
    def list_steps(self) -> bool:
        """Whether to print all steps and to run none."""
        ...


Options = TypeVar("Options", bound=RunOptions)


def with_absolute_paths(options: Options) -> Options:
    """The options with corpus_dir and exp_dir as absolute paths, for workers that start in another folder.

    Neither of them is in a stamp.
    """
    corpus_dir = options.corpus_dir and options.corpus_dir.absolute()
    return replace(options, corpus_dir=corpus_dir, exp_dir=options.exp_dir.absolute())


def trainings(options: Any) -> Iterator[TrainOptions]:
    """The options of every training among the sections of `options`."""
    for field in fields(options):
        value = getattr(options, field.name)
        if isinstance(value, TrainOptions):
            yield value
        elif is_dataclass(value):
            yield from trainings(value)


def save_config(options: RunOptions) -> None:
    """Write config.json: the options of the whole run, whichever of its stages are run now."""
    whole = replace(options, stage=0, stop_stage=LAST_STAGE, only=None)
    config.save(whole, options.exp_dir / CONFIG_FILE)


def config_sha(options: RunOptions, **neutral: Any) -> str:
    """Fingerprint of the options that decide the results.

    Folders, the range of stages, the device and the runtime options of a training decide nothing. `neutral` gives a
    fixed value to each further option that decides nothing.
    """
    deciding = replace(options, corpus_dir=None, exp_dir=Path(), device="auto", **neutral)
    deciding = replace(deciding, stage=0, stop_stage=0, only=None, dry_run=False, list_steps=False)
    return fingerprint(_deciding(deciding))


def _deciding(value: Any) -> Any:
    """An option's value as it is fingerprinted: runtime options at their defaults, without those of `added_later` that
    have their default."""
    if isinstance(value, TrainOptions):
        return value.without_runtime_options()
    if not is_dataclass(value) or isinstance(value, type) or hasattr(value, "json_values"):
        return value
    values = {field: getattr(value, field.name) for field in fields(value)}
    return {
        field.name: _deciding(one)
        for field, one in values.items()
        if not ("added_later" in field.metadata and one == field.default)
    }
