"""Transcripts as text, JSON, subtitles (SRT, WebVTT) and the files that NIST's sclite scores (CTM, TRN, STM).

Every function takes a Transcript and returns the whole text of a file.
"""

from __future__ import annotations

import html
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asrkd.errors import InputError
from asrkd.runtime.transcript import Segment, Transcript, Word

# A subtitle has at most two lines of 42 characters and lasts at most seven seconds (Netflix, Timed Text Style Guide).
LINE_CHARACTERS = 42
CUE_LINES = 2
CUE_SEC = 7.0
CUE_GAP_SEC = 1.0
"""A pause of this length ends a subtitle."""
TIME_DIGITS = 3
CONFIDENCE_DIGITS = 4
NO_SPEAKER = "unknown"


def text_of(transcript: Transcript) -> str:
    """The words: one line for each segment that has some."""
    return "".join(f"{segment.text}\n" for segment in transcript.segments if segment.words)


def json_of(transcript: Transcript) -> str:
    """The transcript with everything that is known of it; keys as in the JSON of Whisper."""
    return json.dumps(as_object(transcript), indent=1, ensure_ascii=False) + "\n"


def as_object(transcript: Transcript) -> dict[str, Any]:
    """The transcript as plain JSON values: text, segments (start, end, text, words) and words (word, probability)."""
    segments = [_segment_object(number, segment) for number, segment in enumerate(transcript.segments)]
    return {
        "name": transcript.name,
        "duration": round(transcript.duration, TIME_DIGITS),
        "text": transcript.text,
        "segments": segments,
    }


def srt_of(transcript: Transcript) -> str:
    """Subtitles as SubRip's: numbered, with hours, and milliseconds after a comma."""
    blocks = []
    for number, cue in enumerate(cues(transcript), start=1):
        # The format has no escapes: an arrow in the text is the only thing that its readers misread.
        text = re.sub("-{2,}>", "->", _lines(cue.prefix + cue.text))
        blocks.append(f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n{text}\n")
    return "\n".join(blocks)


def vtt_of(transcript: Transcript) -> str:
    """Subtitles as WebVTT (W3C): `&`, `<` and `>` are escaped."""
    blocks = ["WEBVTT\n"]
    for cue in cues(transcript):
        text = html.escape(_lines(cue.prefix + cue.text), quote=False)
        blocks.append(f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n{text}\n")
    return "\n".join(blocks)


def ctm_of(transcript: Transcript) -> str:
    """NIST's time-marked words: recording, channel from 1, start, duration, word and, where known, its confidence."""
    lines, name = [], nist_name(transcript.name)
    with_confidence = all(word.confidence is not None for word in transcript.words)
    for segment in sorted(transcript.segments, key=lambda one: (one.channel, one.start)):
        for word in segment.words:
            start, end = round(word.start, TIME_DIGITS), round(word.end, TIME_DIGITS)
            line = f"{name} {segment.channel + 1} {start:.{TIME_DIGITS}f} {end - start:.{TIME_DIGITS}f} {word.text}"
            lines.append(f"{line} {word.confidence:.{CONFIDENCE_DIGITS}f}\n" if with_confidence else f"{line}\n")
    return "".join(lines)


def trn_of(transcript: Transcript) -> str:
    """NIST's transcripts: the words of the recording and its name in parentheses; a line for each of its channels."""
    name, channels = nist_name(transcript.name), _channels(transcript)
    if len(channels) <= 1:
        return f"{transcript.text} ({name})".lstrip() + "\n"
    lines = []
    for channel in channels:
        words = [word.text for one in transcript.segments if one.channel == channel for word in one.words]
        lines.append(" ".join([*words, f"({name}-{channel + 1})"]) + "\n")
    return "".join(lines)


def stm_of(transcript: Transcript) -> str:
    """NIST's segments: recording, channel from 1, speaker, start, end and words of each segment that has some."""
    lines, name = [], nist_name(transcript.name)
    for segment in sorted(transcript.segments, key=lambda one: (one.channel, one.start)):
        if segment.words:
            speaker = nist_name(segment.speaker or NO_SPEAKER)
            times = f"{segment.start:.{TIME_DIGITS}f} {segment.end:.{TIME_DIGITS}f}"
            lines.append(f"{name} {segment.channel + 1} {speaker} {times} {segment.text}\n")
    return "".join(lines)


FORMATS: Mapping[str, Callable[[Transcript], str]] = {
    "txt": text_of,
    "json": json_of,
    "srt": srt_of,
    "vtt": vtt_of,
    "ctm": ctm_of,
    "trn": trn_of,
    "stm": stm_of,
}
JOINABLE = ("txt", "ctm", "trn", "stm")
"""Formats whose files may follow each other in one file."""


def parse_formats(names: str) -> tuple[str, ...]:
    """Names of formats, separated by commas, each once. InputError for an unknown one, or none."""
    found = tuple(dict.fromkeys(name.strip().lower() for name in names.split(",") if name.strip()))
    for name in found:
        if name not in FORMATS:
            raise InputError(f"--format: expected one or more of {','.join(FORMATS)}, found {name}")
    if not found:
        raise InputError(f"--format: expected one or more of {','.join(FORMATS)}, found none")
    return found


@dataclass(frozen=True)
class Cue:
    """One subtitle."""

    start_ms: int
    end_ms: int
    text: str
    prefix: str = ""
    """Who speaks, where it is known or where there are several channels."""


def cues(transcript: Transcript) -> list[Cue]:
    """Subtitles by start: parts of segments that are short enough to read, each of at least a millisecond."""
    several = len(_channels(transcript)) > 1
    found = []
    for segment in transcript.segments:
        channel = f"channel {segment.channel}" if several else ""
        speaker = segment.speaker or channel
        for words in _parts(segment.words):
            start_ms = round(words[0].start * 1000)
            end_ms = max(round(words[-1].end * 1000), start_ms + 1)
            text = " ".join(word.text for word in words)
            found.append(Cue(start_ms, end_ms, text, f"{speaker}: " if speaker else ""))
    return sorted(found, key=lambda cue: (cue.start_ms, cue.end_ms))


def nist_name(name: str) -> str:
    """A name as NIST's formats take it: blanks separate fields, parentheses enclose names, two semicolons comment."""
    return re.sub(r"[\s();]", "_", name) or "_"


def _parts(words: Sequence[Word]) -> Iterator[list[Word]]:
    """The words of a segment in parts for one subtitle each."""
    part: list[Word] = []
    for word in words:
        if part and _ends_before(part, word):
            yield part
            part = []
        part.append(word)
    if part:
        yield part


def _ends_before(part: Sequence[Word], word: Word) -> bool:
    is_paused = word.start - part[-1].end >= CUE_GAP_SEC
    is_long = word.end - part[0].start > CUE_SEC
    lines = textwrap.wrap(" ".join(one.text for one in (*part, word)), LINE_CHARACTERS, break_on_hyphens=False)
    return is_paused or is_long or len(lines) > CUE_LINES


def _lines(text: str) -> str:
    return "\n".join(textwrap.wrap(text, LINE_CHARACTERS, break_long_words=False, break_on_hyphens=False))


def _clock(milliseconds: int, mark: str) -> str:
    """01:02:03,004; hours have two digits or more."""
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}{mark}{rest:03d}"


def _channels(transcript: Transcript) -> list[int]:
    return sorted({segment.channel for segment in transcript.segments})


def _segment_object(number: int, segment: Segment) -> dict[str, Any]:
    words = [
        {
            "word": word.text,
            "start": round(word.start, TIME_DIGITS),
            "end": round(word.end, TIME_DIGITS),
            "probability": None if word.confidence is None else round(word.confidence, CONFIDENCE_DIGITS),
        }
        for word in segment.words
    ]
    return {
        "id": number,
        "start": round(segment.start, TIME_DIGITS),
        "end": round(segment.end, TIME_DIGITS),
        "text": segment.text,
        "channel": segment.channel,
        "speaker": segment.speaker,
        "alternatives": list(segment.alternatives),
        "words": words,
    }
