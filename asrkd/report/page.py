"""One self-contained HTML page from sections of text, tables, figures and aligned utterances.

Nothing in here knows speech recipes: any recipe builds `Section`s and calls `render_page`.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from asrkd.errors import InputError
from asrkd.report.tables import Table

PLAYED_AS_IS = ((b"fLaC", "audio/flac"), (b"OggS", "audio/ogg"))


@dataclass(frozen=True)
class Figure:
    """A picture: `svg` from `plots.to_svg`; `alt` describes it, `wide` lets it scroll sideways."""

    svg: str
    alt: str
    caption: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Hypothesis:
    """One system's words against the reference's."""

    system: str
    errors: int
    words: int
    """In the reference."""
    pairs: tuple[tuple[str | None, str | None], ...]
    """(reference, recognised); None on one side is a deleted or inserted word."""

    @property
    def error_rate(self) -> str:
        """Errors, words and their ratio."""
        noun = "error" if self.errors == 1 else "errors"
        return f"{self.errors} {noun} in {self.words} ({100 * self.errors / max(self.words, 1):.0f}%)"


@dataclass(frozen=True)
class Utterance:
    """An utterance to listen to, with what the systems recognised."""

    utt_id: str
    speaker: str
    audio: str | None
    """A data URI."""
    hypotheses: tuple[Hypothesis, ...]
    oov: frozenset[str] = frozenset()
    """Words of the reference that no system can recognise."""
    note: str = ""
    """What is remarkable."""
    words: str = ""
    """The transcript, where no hypothesis shows it."""
    link: str = ""
    """URI of audio that is too large for the page."""


@dataclass(frozen=True)
class Tile:
    """A headline figure."""

    label: str
    value: str
    note: str = ""
    role: str = "other"


@dataclass(frozen=True)
class Section:
    """A part of the page; `key` is its anchor. Tables in `folded` open on a click (and in print)."""

    key: str
    title: str
    text: tuple[str, ...] = ()
    tiles: tuple[Tile, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()
    utterances: tuple[Utterance, ...] = ()


@dataclass(frozen=True)
class Page:
    """A whole page: verdict and caveats on the first screen, then the sections."""

    title: str
    sections: Sequence[Section]
    provenance: Mapping[str, str]
    """What identifies the run."""
    command: str
    """The command line that regenerates it."""
    subtitle: str = ""
    verdict: tuple[str, ...] = ()
    """Sentences on what the run shows; the first is emphasised."""
    caveats: tuple[str, ...] = ()
    """Warnings that the verdict depends on."""


def render_page(page: Page) -> str:
    """The page as HTML text. Everything is escaped except the SVG that `plots.to_svg` drew."""
    keys = [section.key for section in page.sections]
    if len(set(keys)) != len(keys):
        raise ValueError(f"section keys repeat: {keys}")
    environment = Environment(
        loader=PackageLoader("asrkd", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["pair_kind"] = pair_kind
    environment.filters["drawing"] = Markup
    environment.filters["breakable"] = breakable
    return environment.get_template("report.html.j2").render(page=page)


def breakable(name: str) -> Markup:
    """A name that may be broken after an underscore, where a narrow screen has no room for it."""
    return Markup("_<wbr>").join(name.split("_"))


def pair_kind(pair: tuple[str | None, str | None]) -> str:
    """ok, sub, ins or del."""
    ref, hyp = pair
    if ref is None:
        return "ins"
    if hyp is None:
        return "del"
    return "ok" if ref == hyp else "sub"


def audio_uri(audio: bytes | str | Path, utt_id: str) -> str:
    """Audio as a data URI: FLAC and Ogg as they are, WAV, NIST SPHERE and the like recoded to FLAC.

    Every current browser plays FLAC, at about half the size of WAV. InputError names the utterance when the
    file is missing or no audio that libsndfile reads.
    """
    data = audio if isinstance(audio, bytes) else _read_audio(Path(audio), utt_id)
    media_type = next((kind for magic, kind in PLAYED_AS_IS if data.startswith(magic)), None)
    if media_type is None:
        read = _decode_bytes(audio, utt_id) if isinstance(audio, bytes) else _decode_file(Path(audio), utt_id)
        data, media_type = _as_flac(*read), "audio/flac"
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _read_audio(path: Path, utt_id: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{utt_id}: cannot read its audio for the report: {path} ({error.strerror})") from None


def _decode_file(path: Path, utt_id: str) -> tuple[Any, int]:
    """Samples int16 as the features were computed from them, and the sampling rate."""
    import numpy as np

    from asrkd.data.audio import AudioError, probe, read_samples

    try:
        recording = probe(path, utt_id)
        samples = read_samples(recording).T * 2.0**15
    except AudioError as error:
        raise InputError(f"{utt_id}: expected audio for the report: {error}") from None
    return np.round(samples).clip(-(2**15), 2**15 - 1).astype(np.int16), recording.sampling_rate


def _decode_bytes(data: bytes, utt_id: str) -> tuple[Any, int]:
    import soundfile  # comes with lhotse; pages without audio do not need it

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            # libsndfile scales integers to full scale, but truncates floating-point samples of ±1 to 0.
            samples = file.read(dtype="float64" if file.subtype in ("FLOAT", "DOUBLE") else "int16")
            return samples, file.samplerate
    except soundfile.LibsndfileError as error:
        raise InputError(f"{utt_id}: expected audio for the report, found bytes {data[:4]!r} ({error})") from None


def _as_flac(samples: Any, sampling_rate: int) -> bytes:
    import soundfile

    flac = io.BytesIO()
    soundfile.write(flac, samples, sampling_rate, format="FLAC", subtype="PCM_16")
    return flac.getvalue()
