"""Sentences spoken by Debian's festival, whose phone times are known: the truth for tests of alignment."""

from __future__ import annotations

import random
import shutil
import subprocess
import wave
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

VOICES = {"kal_diphone": "festvox-kallpc16k", "cmu_us_slt_arctic_hts": "festvox-us-slt-hts"}
PAUSE = "pau"
SAMPLING_RATE = 16000

DETERMINERS = "the a my your every this that another some no".split()
ADJECTIVES = """old quick brown heavy gentle yellow strange happy broken quiet little bright young cheap narrow
purple frozen lazy clever honest rusty thick sour bitter loyal vague huge azure joyful""".split()
NOUNS = """river horse teacher window garden letter bridge doctor village mountain picture thunder shadow
fish orange kitchen brother mouth captain engine treasure judge church voyage yacht leather zebra vision jungle
mirror ladder chicken father button hospital song knife boy noise house cloud cow toy azalea measure garage""".split()
COMMANDS = """watched found carried painted follows enjoys pushed lifted heard remembers chose catches
brought thanked answers joined visited threw washes covered imagines showed used moved destroyed""".split()
ADVERBS = "slowly usually again today together yesterday there never outside almost always".split()
PREPOSITIONS = "near under behind with without over through around beside beyond before".split()

# Each segment's name, end and word. Festival leaves pauses without a word.
_PROGRAM = """
(define (speak text name)
  (let ((utt (utt.synth (eval (list 'Utterance 'Text text)))) (file (fopen (string-append name ".segs") "w")))
    (utt.save.wave utt (string-append name ".wav") 'riff)
    (mapcar (lambda (segment)
              (format file "%s %s %s\\n" (item.name segment) (item.feat segment "end")
                      (item.feat segment "R:SylStructure.parent.parent.name")))
            (utt.relation.items utt 'Segment))
    (fclose file)))
"""


@dataclass(frozen=True)
class Spoken:
    """One sentence: samples [T] in -1 … 1, and its phones in turn as (phone, end in seconds, word or None)."""

    text: str
    samples: Tensor
    phones: list[tuple[str, float, str | None]]

    def words_and_pronunciations(self) -> list[tuple[str, tuple[str, ...]]]:
        """The words in turn, each as it was spoken here."""
        words: list[tuple[str, list[str]]] = []
        before = None
        for phone, _, word in self.phones:
            if word is not None:
                if word != before:
                    words.append((word, []))
                words[-1][1].append(phone)
            before = word
        return [(word.upper(), tuple(phones)) for word, phones in words]


def available_voices() -> list[str]:
    """The voices that are installed here, if festival is."""
    if shutil.which("festival") is None:
        return []
    found = subprocess.run(["festival", "-b", "(print (voice.list))"], capture_output=True, text=True, check=True)
    return [voice for voice in VOICES if voice in found.stdout]


def sentences(number: int, seed: int = 0) -> list[str]:
    """Different sentences of six to ten words, no two neighbours alike."""
    draw = random.Random(seed)
    result: dict[str, None] = {}
    while len(result) < number:
        words = [draw.choice(DETERMINERS), draw.choice(ADJECTIVES), draw.choice(NOUNS), draw.choice(COMMANDS)]
        words += [draw.choice(DETERMINERS), draw.choice(NOUNS)]
        if draw.random() < 0.6:
            words += [draw.choice(PREPOSITIONS), draw.choice(DETERMINERS), draw.choice(NOUNS)]
        if draw.random() < 0.4:
            words.append(draw.choice(ADVERBS))
        result[" ".join(words)] = None
    return list(result)


def speak(texts: list[str], voice: str, folder: Path, stretch: float = 1.0) -> list[Spoken]:
    """Have festival speak the texts, in `folder`, this many times as slowly as it would."""
    program = folder / "speak.scm"
    lines = [f'(speak "{text.capitalize()}." "{folder / str(number)}")' for number, text in enumerate(texts)]
    setting = f"(Parameter.set 'Duration_Stretch {stretch})"
    program.write_text("\n".join([f"(voice_{voice})", setting, _PROGRAM, *lines]))
    subprocess.run(["festival", "-b", str(program)], check=True, capture_output=True, timeout=900)
    return [_read(text, folder / str(number)) for number, text in enumerate(texts)]


def _read(text: str, path: Path) -> Spoken:
    with wave.open(str(path.with_suffix(".wav"))) as file:
        rate = file.getframerate()
        samples = torch.frombuffer(bytearray(file.readframes(file.getnframes())), dtype=torch.int16) / 32768.0
    if rate != SAMPLING_RATE:
        factor = rate // SAMPLING_RATE  # 32 kHz voices: a mean of neighbours is filter enough for phone times
        samples = samples[: samples.numel() // factor * factor].view(-1, factor).mean(1)
    phones = []
    for line in path.with_suffix(".segs").read_text().splitlines():
        phone, end, word = line.split()
        phones.append((phone, float(end), None if phone == PAUSE else word))
    return Spoken(text.upper(), samples, phones)
