"""The folder of an exported model: what it holds, what its options are, and whether it is whole.

    model.json        format, version, options, and size and SHA-256 of every other file
    model.onnx        normalisation, splicing, the network and the log-priors, in float32
    model.int8.onnx   the same with 8-bit weights; absent where that lost too much
    HCLG.fst          decoding graph (OpenFst, constant): pdf_id + 1 to rows of words.txt, with the tuned scales
    words.txt         OpenFst symbol table of its output labels
    phones.txt        phones by number, silence first
    senones.txt       pdf_id, phone, HMM state, log-probability of staying in it, log-prior
    lexicon.txt       pronunciations
    tree.json         the senone tree, for graphs of other texts
    check.json        how the model was compared with the run that it comes from
    model_card.md     the same for people, with the corpora and the licence

One folder, or the same files as one .tar.gz.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import dacite

from asrkd.errors import InputError
from asrkd.files import canonical, read_json

FORMAT = "asrkd model"
VERSION = 1
MODEL_JSON = "model.json"
NETWORK, NETWORK_INT8 = "model.onnx", "model.int8.onnx"
GRAPH, WORDS, PHONES, SENONES = "HCLG.fst", "words.txt", "phones.txt", "senones.txt"
LEXICON, TREE, CHECK, CARD = "lexicon.txt", "tree.json", "check.json", "model_card.md"
REQUIRED = (NETWORK, GRAPH, WORDS, PHONES, SENONES, LEXICON)
EXPORT_AGAIN = "export or copy it again"
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class FrontEnd:
    """Log-mel energies, as the run made them."""

    sampling_rate: int
    """Hz."""
    num_mel_bins: int
    frame_length_ms: float
    frame_shift_ms: float
    low_freq_hz: float
    high_freq_hz: float
    """Negative: below half the sampling rate."""


@dataclass(frozen=True)
class Normalisation:
    """Mean and variance of the features."""

    kind: Literal["speaker", "utterance", "online", "none"]
    """How the run normalised what the network learnt from. The runtime has no speakers: it takes each segment alone."""
    mean: tuple[float, ...]
    """Of each feature over training speech: what a stream begins with."""
    mean_square: tuple[float, ...]
    prior_frames: float
    """Frames that these two count as in a stream."""


@dataclass(frozen=True)
class SearchSettings:
    """The decoding options of the run, with the scales that it tuned."""

    acoustic_scale: float
    beam: float
    max_active: int | None
    min_active: int
    lattice_beam: float
    lm_scale: float
    """It is in the costs of HCLG.fst, and so is the next."""
    insertion_score: float


@dataclass(frozen=True)
class Calibration:
    """From the posterior p of a word in a lattice to the probability that it is right.

    log odds = slope · log(p / (1 - p)) + intercept, fitted on the development speakers (Platt 1999). Without it,
    posteriors are too sure: a lattice has no path that the beam lost.
    """

    slope: float = 1.0
    intercept: float = 0.0


UNCALIBRATED = Calibration()


@dataclass(frozen=True)
class File:
    """One file of a model."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Description:
    """What model.json says."""

    name: str
    """Recipe and system."""
    front_end: FrontEnd
    normalisation: Normalisation
    left_context: int
    """Frames before the one that is classified."""
    right_context: int
    num_pdfs: int
    search: SearchSettings
    silence_phones: tuple[str, ...]
    """Phones in which nothing is said."""
    graph: Mapping[str, float]
    """Options of the decoding graph: what a graph of another text needs, too."""
    run: Mapping[str, Any]
    """The run that the model comes from."""
    files: Mapping[str, File]
    confidence: Calibration = UNCALIBRATED

    @property
    def frame_shift_sec(self) -> float:
        """Seconds from one frame to the next."""
        return self.front_end.frame_shift_ms / 1000.0


def describe_file(path: Path) -> File:
    """Size and SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return File(path.stat().st_size, digest.hexdigest())


def to_json(description: Description) -> dict[str, Any]:
    """The content of model.json."""
    values = {"format": FORMAT, "version": VERSION, **canonical(description)}
    return {**values, "sha256": _digest(values)}


def _digest(values: Mapping[str, Any]) -> str:
    """SHA-256 of model.json's content, of everything but this value."""
    content = {name: value for name, value in values.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_description(folder: Path) -> Description:
    """What the model.json of a folder says. InputError if it is missing, damaged, foreign or of a newer version."""
    path = folder / MODEL_JSON
    if not path.is_file():
        raise InputError(f"{folder}: expected a model of `asrkd export` with a {MODEL_JSON}, found none")
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: expected a model of `asrkd export` (format {FORMAT!r}), found something else")
    version = content.get("version")
    if not isinstance(version, int):
        raise InputError(f"{path}: expected a version, found {version!r:.40}; {EXPORT_AGAIN}")
    if version != VERSION:
        advice = "install a newer asrkd" if version > VERSION else "export it again"
        raise InputError(f"{path}: expected a model of version {VERSION}, found version {version}; {advice}")
    if content.get("sha256") != _digest(content):
        raise InputError(f"{path}: expected a file that nobody changed, found another SHA-256; {EXPORT_AGAIN}")
    values = {name: value for name, value in content.items() if name not in ("format", "version", "sha256")}
    try:
        return dacite.from_dict(Description, values, dacite.Config(strict=True, cast=[tuple]))
    except dacite.DaciteError as error:
        raise InputError(f"{path}: {error}; {EXPORT_AGAIN}") from None


def verify(folder: Path, description: Description) -> None:
    """InputError, naming the file, unless every file of a model is there and as it was written."""
    for name in REQUIRED:
        if name not in description.files:
            raise InputError(f"{folder / MODEL_JSON}: expected {name} among its files, found none; {EXPORT_AGAIN}")
    for name, expected in description.files.items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path}: expected a file of the model, found none; {EXPORT_AGAIN}")
        if path.stat().st_size != expected.bytes:
            found = path.stat().st_size
            raise InputError(f"{path}: expected {expected.bytes} bytes, found {found}; {EXPORT_AGAIN}")
        if describe_file(path).sha256 != expected.sha256:
            raise InputError(f"{path}: expected the SHA-256 of {MODEL_JSON}, found another; {EXPORT_AGAIN}")
