"""A system of a finished run as a model that stands alone: `asrkd export`."""

from __future__ import annotations

import gzip
import logging
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from asrkd.errors import InputError
from asrkd.files import atomic_dir, atomic_file, utf8, write_json
from asrkd.lang.lexicon import Lexicon
from asrkd.recipe.evaluate import open_graph
from asrkd.recipe.export_card import BY_SPEAKER_ROW, RUN_ROW, check_table, model_card
from asrkd.recipe.export_check import (
    MOST_MEAN_DIFFERENCE,
    HeldOutSpeech,
    check_row,
    check_scores,
    check_words,
    words_of_run,
)
from asrkd.recipe.export_confidence import fit, outcomes, reliability
from asrkd.recipe.export_files import write_graph, write_tables
from asrkd.recipe.export_network import ScoresOfFrames, require_any_length, write_int8, write_onnx
from asrkd.recipe.export_options import ARCHIVE_SUFFIX, ExportOptions
from asrkd.recipe.export_source import Source
from asrkd.recipe.labels import load_hmm
from asrkd.runtime.acoustic import AcousticModel
from asrkd.runtime.package import (
    CARD,
    CHECK,
    GRAPH,
    MODEL_JSON,
    NETWORK,
    NETWORK_INT8,
    Calibration,
    Description,
    describe_file,
    to_json,
)

log = logging.getLogger(__name__)

NETWORKS = (NETWORK, NETWORK_INT8)


def export(options: ExportOptions) -> None:
    """Write the model, whole or not at all, and print how it compares with the run.

    InputError for a run that is not finished, a system that it does not have, a network that cannot be exported, and
    for a folder that is no model and would be replaced.
    """
    _require_replaceable(options.out)
    source = Source.open(options.run, options.system)
    with _publishing(options.out) as folder:
        description = source.describe()
        write_networks(source, folder)
        write_language(source, folder)
        description = replace(description, confidence=calibrate(source, folder, description, options))
        check = check_model(source, folder, description, options)
        write_json(folder / CHECK, check)
        description = replace(description, files=_files(folder))
        (folder / CARD).write_bytes(utf8(model_card(source, description, check, options.license)))
        description = replace(description, files=_files(folder))
        write_json(folder / MODEL_JSON, to_json(description))
    print(check_table(check))
    print(f"wrote {options.out}")


def _require_replaceable(out: Path) -> None:
    """InputError before anything is computed, for an output that would replace something that is no model."""
    is_archive = out.name.endswith(ARCHIVE_SUFFIX)
    if is_archive and out.is_dir():
        raise InputError(f"--out {out}: expected a file to write, found a folder")
    if not is_archive and out.is_file():
        raise InputError(f"--out {out}: expected a folder, or a file that ends in {ARCHIVE_SUFFIX}, found a file")
    if out.is_dir() and any(out.iterdir()) and not (out / MODEL_JSON).is_file():
        raise InputError(f"--out {out}: expected a new folder, or a model to replace, found another folder with files")


@contextmanager
def _publishing(out: Path) -> Iterator[Path]:
    """A folder for the model's files; they become the folder `out`, or the archive, when the block ends."""
    folder = out.with_name(out.name.removesuffix(ARCHIVE_SUFFIX))
    tmp_dir = folder.with_name(f".{folder.name}.partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        if out == folder:
            with atomic_dir(out) as path:
                yield path
        else:
            shutil.rmtree(tmp_dir, ignore_errors=True)
            tmp_dir.mkdir()
            yield tmp_dir
            write_archive(tmp_dir, out)
    finally:
        shutil.rmtree(tmp_dir, ignore_errors=True)


def write_archive(folder: Path, path: Path) -> None:
    """The files of a folder as a .tar.gz, whole or not at all; equal files give equal bytes."""
    with (
        atomic_file(path) as tmp_path,
        tmp_path.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for file in sorted(folder.iterdir()):
            entry = tarfile.TarInfo(file.name)
            entry.size = file.stat().st_size
            entry.mode = 0o644
            with file.open("rb") as content:
                archive.addfile(entry, content)


def _files(folder: Path) -> dict[str, Any]:
    return {path.name: describe_file(path) for path in sorted(folder.iterdir()) if path.name != MODEL_JSON}


def write_networks(source: Source, folder: Path) -> None:
    """The network in float32 and with 8-bit weights."""
    context, features = source.options.context, source.options.features
    scores = ScoresOfFrames(
        source.acoustics.model,
        source.acoustics.log_prior,
        context.left,
        context.right,
        normalises=features.cmvn != "none",
    )
    write_onnx(scores, features.num_mel_bins, folder / NETWORK)
    require_any_length(scores, features.num_mel_bins, folder / NETWORK)
    write_int8(folder / NETWORK, folder / NETWORK_INT8)


def write_language(source: Source, folder: Path) -> None:
    """The decoding graph and the tables."""
    graph = open_graph(source.options.exp_dir)
    write_graph(graph, source.search, folder / GRAPH)
    lexicon = Lexicon.load(source.folders.decode_lexicon)
    write_tables(graph, lexicon, *load_hmm(source.folders.tree), folder)


def calibrate(source: Source, folder: Path, description: Description, options: ExportOptions) -> Calibration:
    """What makes the confidences of words on the development speakers the share of them that is right."""
    speech = HeldOutSpeech.of(source, "dev", options.check_utterances)
    found = check_words(source, speech, folder, description, NETWORK, confidences=True)
    return fit(outcomes(found, source.finished.scoring))


def check_model(source: Source, folder: Path, description: Description, options: ExportOptions) -> dict[str, Any]:
    """Compare both networks with the run. Removes the int8 one if it loses more than the options allow.

    InputError where the float32 network does not give the run's scores.
    """
    speech = HeldOutSpeech.of(source, "test", options.check_utterances)
    scored = check_scores(source, speech, {name: AcousticModel(folder / name, description) for name in NETWORKS})
    difference = scored.networks[NETWORK].mean_difference
    if not difference <= MOST_MEAN_DIFFERENCE:
        raise InputError(
            f"{NETWORK}: expected the scores of the run, found other ones, by {difference:.3f} nats on average: the "
            "audio has changed since the run, or this is a bug of the exporter"
        )
    of_run = words_of_run(source, speech)
    rows = [check_row(RUN_ROW, of_run, of_run, frame_accuracy=scored.accuracy_of_run)]
    if source.options.features.cmvn == "speaker":
        alike = check_words(source, speech, folder, description, NETWORK, scored.statistics)
        rows.append(check_row(BY_SPEAKER_ROW, alike, of_run))
    wer = {}
    for name in NETWORKS:
        checked = check_words(source, speech, folder, description, name, confidences=True)
        wer[name] = checked.errors.percent
        size = (folder / name).stat().st_size
        sure = reliability(outcomes(checked, source.finished.scoring))
        rows.append(check_row(name, checked, of_run, scored.networks[name], bytes=size, confidences=sure))
    loss = wer[NETWORK_INT8] - wer[NETWORK]
    accepted = loss <= options.max_wer_loss
    if not accepted:
        (folder / NETWORK_INT8).unlink()
        log.warning(
            "%s: not written: it loses %.2f points of WER, and --max-wer-loss allows %g",
            *(NETWORK_INT8, loss, options.max_wer_loss),
        )
    int8 = {"wer_loss": loss, "max_wer_loss": options.max_wer_loss, "written": accepted}
    return {"unit": source.finished.scoring.unit, "utterances": len(speech.refs), "rows": rows, "int8": int8}
