"""Stage 1 of the transfer set: the good pieces of untranscribed speech, and what the report says of them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lhotse import SupervisionSet
from lhotse.utils import fastcopy

from asrkd.data.copies import warn_of_held_out_audio
from asrkd.data.corpora.options import UserCorpusOptions
from asrkd.data.corpora.user import held_out_segments
from asrkd.data.machine_transcripts import read_machine_transcripts
from asrkd.data.manifests import load_split
from asrkd.data.rejects import require_few_rejected
from asrkd.data.segments import COPY_FORMAT, Segment
from asrkd.data.splits import CorpusSplit, Rejected
from asrkd.data.untranscribed import (
    NORMALISED_SEC,
    PIECE_SEC,
    Pieces,
    read_untranscribed,
    untranscribed_files,
    untranscribed_pieces,
)
from asrkd.data.validate import SILENCE, validate
from asrkd.errors import InputError, name_some
from asrkd.features.store import FrameStore
from asrkd.files import file_fingerprint, read_json, read_object, write_json
from asrkd.lang.text_rules import TextRules
from asrkd.recipe.corpus import REJECTED_FILE, known_audio_of, list_audio, save_manifests
from asrkd.recipe.folders import HELD_OUT, TRANSFER, RunFolders
from asrkd.recipe.options import SpeechOptions, corpus_options
from asrkd.recipe.transfer_labels import labelled_counts
from asrkd.recipe.untranscribed import untranscribed_part, untranscribed_stamp
from asrkd.unicode import upper_case

logger = logging.getLogger(__name__)

RECORDINGS_FILE = "recordings.json"
SILENT_PIECES = "silent pieces of longer recordings"
"""Rule of `CorpusSplit.excluded`."""
SECONDS_PER_HOUR = 3600.0


def transfer_stamp(options: SpeechOptions) -> dict[str, Any]:
    """What decides the pieces of a transfer set: its files, and how they are cut. InputError: no such path."""
    transfer = options.transfer
    stamp: dict[str, Any] = untranscribed_stamp(options)
    if transfer.untranscribed is None:
        manifests, audio = untranscribed_files(_source(options), _base(options))
        stamp["files"] = list_audio(audio, {str(path.absolute()): file_fingerprint(path) for path in manifests})
        stamp["pieces"] = [PIECE_SEC, NORMALISED_SEC, COPY_FORMAT]
    if transfer.transcripts is not None:
        stamp["transcripts"] = file_fingerprint(transfer.transcripts)
        stamp["confidences"] = None if transfer.confidences is None else file_fingerprint(transfer.confidences)
        stamp["min_confidence"] = transfer.min_confidence
        stamp["texts"] = TextRules.of(options.lang).options
    return stamp


def make_transfer_manifests(options: SpeechOptions, out_dir: Path) -> None:
    """Stage 1: manifests of the good pieces, what was rejected, and fingerprints of the audio.

    InputError if more pieces are bad than `max_bad` allows. Silence in longer recordings is excluded and not counted.
    """
    folders = RunFolders(options.exp_dir)
    pieces = _pieces_of_corpus(options) if options.transfer.untranscribed is not None else _pieces(options)
    known = known_audio_of(folders, TRANSFER)
    good, bad = _good_pieces(pieces, known, options)
    save_manifests(good, bad, known, out_dir)
    write_json(out_dir / RECORDINGS_FILE, {"recordings": pieces.num_recordings})
    silent = good.excluded.get(SILENT_PIECES, 0)
    noun = "pieces" if options.transfer.untranscribed is None else "utterances"
    print(
        f"   {TRANSFER}: {len(good.supervisions)} {noun} of {pieces.num_recordings} recordings, {_hours(good):.2f} h"
        + (f"; {silent} {SILENT_PIECES} are excluded" if silent else ""),
        flush=True,
    )
    for one in bad:
        print(f"   rejected {one}", flush=True)


def _pieces_of_corpus(options: SpeechOptions) -> Pieces:
    """The utterances of the training speakers whose transcripts are not read. None is cut."""
    split = untranscribed_part(load_split(RunFolders(options.exp_dir).corpus("train")), options)
    texts = _machine_transcripts([one.id for one in split.supervisions], options)
    spoken = SupervisionSet.from_segments(fastcopy(one, text=texts.get(one.id, "")) for one in split.supervisions)
    return Pieces(replace(split, supervisions=spoken), frozenset(), len(split.recordings))


def _pieces(options: SpeechOptions) -> Pieces:
    """The pieces of `--transfer.recordings`, with a warning where held-out speech is among them."""
    folders = RunFolders(options.exp_dir)
    segments = read_untranscribed(_source(options), _base(options))
    warn_of_held_out_audio(_held_out(options, folders), segments, "the transfer set")
    texts = _machine_transcripts([segment.utt_id for segment in segments], options)
    return untranscribed_pieces(segments, TRANSFER, folders.transfer_segments, texts, options.max_duration)


def transfer_summary(options: SpeechOptions) -> dict[str, Any] | None:
    """Counts for results.json; None without a transfer set."""
    if not options.transfer.has_speech:
        return None
    folders = RunFolders(options.exp_dir)
    manifests = folders.manifests(TRANSFER)
    split = load_split(manifests)
    return {
        **_whose(split, options),
        "recordings": read_object(manifests / RECORDINGS_FILE, recordings=int)["recordings"],
        "pieces": len(split.supervisions),
        "hours": _hours(split),
        "frames": len(FrameStore.open(folders.features(TRANSFER))),
        "share": options.transfer.share,
        "silent": split.excluded.get(SILENT_PIECES, 0),
        "rejected": [(row["utt_id"], row["reason"]) for row in read_json(manifests / REJECTED_FILE)],
        **({} if options.transfer.transcripts is None else labelled_counts(folders)),
    }


def _whose(split: CorpusSplit, options: SpeechOptions) -> dict[str, Any]:
    """Which speakers of the corpus they are, where their transcripts are not read."""
    fraction = options.transfer.untranscribed
    speakers = len({one.speaker for one in split.supervisions})
    return {} if fraction is None else {"untranscribed": fraction, "speakers": speakers}


def _machine_transcripts(utt_ids: Collection[str], options: SpeechOptions) -> dict[str, str]:
    """utt_id -> words of another recogniser, by the rules for texts; empty without `--transfer.transcripts`."""
    given = options.transfer
    source = given.recordings or "the untranscribed speakers"
    if given.transcripts is None:
        return {}
    texts = read_machine_transcripts(given.transcripts, given.confidences, given.min_confidence)
    unknown = sorted(texts.keys() - set(utt_ids))
    if len(unknown) == len(texts):
        raise InputError(f"{given.transcripts}: expected utterances of {source}, found none: {name_some(unknown)}")
    if unknown:
        logger.warning(
            "%s: %d of %d utterances are not in %s and are ignored: %s",
            *(given.transcripts, len(unknown), len(texts), source, name_some(unknown)),
        )
    rules = TextRules.of(options.lang)
    plain = {utt_id: rules.apply(upper_case(text)) for utt_id, text in texts.items()}
    return {utt_id: text for utt_id, text in plain.items() if not all(map(rules.is_noise, text.split()))}


def _good_pieces(
    pieces: Pieces, known: Mapping[str, Any], options: SpeechOptions
) -> tuple[CorpusSplit, list[Rejected]]:
    good, faulty = validate(
        pieces.split,
        options.features.sampling_rate,
        TRANSFER,
        max_bad=1.0,  # silence is taken out of the count first
        num_jobs=options.num_jobs,
        known=known,
        max_duration_sec=options.max_duration,
        has_texts=False,
    )
    silent = [one for one in faulty if one.kind == SILENCE and one.utt_id in pieces.cut]
    bad = [one for one in faulty if one not in silent]
    require_few_rejected(bad, pieces.split.num_utterances - len(silent), TRANSFER, options.max_bad)
    return _with_excluded(good, len(silent)), bad


def _with_excluded(split: CorpusSplit, num_silent: int) -> CorpusSplit:
    excluded = {SILENT_PIECES: num_silent} if num_silent else {}
    return CorpusSplit(split.recordings, split.supervisions, excluded)


def _held_out(options: SpeechOptions, folders: RunFolders) -> dict[str, Sequence[Segment]]:
    """What is held out, by its original files: a user's corpus may have copied segments of them."""
    given = corpus_options(options)
    if given and isinstance(given[0], UserCorpusOptions):
        return dict(held_out_segments(_base(options), given[0]))
    return {name: _segments(load_split(folders.manifests(name))) for name in HELD_OUT}


def _segments(split: CorpusSplit) -> list[Segment]:
    speakers = {one.id: str(one.speaker) for one in split.supervisions}
    return [
        Segment(one.id, Path(one.sources[0].source), 0.0, None, speakers.get(one.id, ""), None)
        for one in split.recordings
    ]


def _hours(split: CorpusSplit) -> float:
    return float(sum(one.duration for one in split.supervisions)) / SECONDS_PER_HOUR


def _source(options: SpeechOptions) -> Path:
    assert options.transfer.recordings is not None
    return options.transfer.recordings


def _base(options: SpeechOptions) -> Path:
    return options.corpus_dir or Path()
