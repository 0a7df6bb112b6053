"""Another run whose aligner labels this run's frames (`--labels-from`): what is read of it, and what has to agree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asrkd.errors import InputError, name_some
from asrkd.files import canonical
from asrkd.hmm.tree import SenoneTree
from asrkd.lang.lexicon import Lexicon
from asrkd.recipe.features import split_features
from asrkd.recipe.folders import TREE_FILE, RunFolders
from asrkd.recipe.options import SpeechOptions
from asrkd.workflow.steps import Record, first_difference

NEEDED_STEPS = ("tree", "labels/test", "features/test")


def labels_stamp(label_options: Mapping[str, Any], options: SpeechOptions) -> dict[str, Any]:
    """What identifies the other run's aligner and senones, for stamps; nothing without `--labels-from`.

    `label_options` decide the labels of a held-out split. InputError unless the other run has senones, and its test
    set was labelled with the same options and features: else the two runs' frame accuracies would not be comparable.
    """
    source = options.labels_from
    if source is None:
        return {}
    records = {name: _record(source, name) for name in NEEDED_STEPS}
    expected = {
        "labels/test": label_options,
        "features/test": {"features": split_features("test", options.features)},
    }
    for name, values in expected.items():
        difference = first_difference(records[name].options, canonical(values))
        if difference is not None:
            raise InputError(f"--labels-from {source}: expected the options of its {name}, found others: {difference}")
    return {"labels_from": records["tree"].content or records["tree"].stamp}


def with_phones_of_source(lexicon: Lexicon, options: SpeechOptions) -> Lexicon:
    """The pronunciations that the other run's senones can say; all of them without `--labels-from`.

    InputError where the lexicon lacks a phone of that run.
    """
    if options.labels_from is None:
        return lexicon
    phones = SenoneTree.load(RunFolders(options.labels_from).tree / TREE_FILE).phones
    usable = lexicon.restrict_prons(phones)
    if usable.phones != phones:
        missing = sorted(set(phones) - set(usable.phones))
        raise InputError(
            f"--labels-from {options.labels_from}: expected words with every phone of that run, found none with "
            f"{name_some(missing)}"
        )
    return usable


def _record(source: Path, name: str) -> Record:
    record = Record.read(source / name)
    if record is None:
        raise InputError(
            f"--labels-from {source}: expected a run with frame labels (--stop-stage 5), found no finished {name}"
        )
    return record
