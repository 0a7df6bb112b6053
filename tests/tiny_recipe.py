"""A speech recipe as a person runs it, on a small corpus and with tiny networks: about a minute for all of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UNPRONOUNCEABLE = "1984"
LM_SCALE = 1.1
TINY = [
    f"--decode.lm-scale={LM_SCALE}",
    *("--student.hidden-dim=64", "--student.num-layers=2", "--teacher.hidden-dim=64", "--teacher.num-layers=2"),
    *("--train.epochs=3", "--labels.epochs=2", "--labels.mono-rounds=1", "--labels.tree-rounds=1"),
    *("--ensemble.size=2", "--students.sweep-temperatures", "1.0", "2.0"),
    *("--align.num-phone-rounds=3", "--align.num-state-rounds=3"),
    *("--train.learning-rate=0.003", "--train.batch-size=256", "--max-bad=0.05"),
    # Small networks learn from stored targets in seconds; tests/recipe/test_tiny_recipe.py has the others.
    *("--teacher.norm=auto", "--student.norm=auto", "--distil.targets=stored", "--students.augment.mix=0"),
    *("--students.epochs", "None", "--students.baseline-dropouts", "0.3", "--students.no-teacher-size"),
    *("--lang.arpa", "None"),
    *("--features.speed-factors", "1.0", "--students.narrow-dims"),
    "--train.precision=float32",
    *("--decode.beam=10", "--decode.max-active=1500", "--decode.lattice-beam=4"),
    *("--tune.acoustic-scales", "0.1", "0.2", "--tune.insertion-scores", "-3.0", "0.0", "--tune.max-added=0"),
]
MIN_PROMPTS_PER_WORD = 2
TIMES_TOO_LONG = 12
TIMEOUT_SEC = 900


@dataclass(frozen=True)
class TinyRecipe:
    """A recipe with its options for a small corpus."""

    name: str
    """Its folder under recipes/."""
    corpus_dir: Path
    num_leaves: int
    """Leaves of the senone tree: at least three per phone."""
    measured: Mapping[str, tuple[float, float]]
    """Frame accuracy and WER (percent) of each system on the test set, by this code on an AMD EPYC."""
    without: tuple[str, ...] = ()
    """Options of a tiny run that its runs are not given."""

    @property
    def script(self) -> Path:
        return ROOT / "recipes" / self.name / "recipe.py"

    def arguments(self, exp_dir: Path, *more: str) -> list[str]:
        """The options of a run in `exp_dir`."""
        where = ["--corpus-dir", str(self.corpus_dir), "--exp-dir", str(exp_dir)]
        given = [*TINY, f"--tree.num-leaves={self.num_leaves}"]
        tiny = [option for option in given if option.split("=")[0] not in self.without]
        return [*where, *tiny, *more]

    def run(self, exp_dir: Path, *more: str) -> subprocess.CompletedProcess[str]:
        """Run it. Its steps are forked, so this process, which has computed, cannot run them."""
        command = [sys.executable, str(self.script), *self.arguments(exp_dir, *more)]
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SEC)


def tiny_an4(an4_dir: Path, root: Path) -> TinyRecipe:
    """Twelve training and two test speakers of AN4, one of the utterances truncated, in the folder `root`.

    A development and a test utterance have a word without a pronunciation: they are decoded without frame labels.
    """
    (root / "etc").mkdir()
    shutil.copy(an4_dir / "etc" / "an4.dic", root / "etc")
    from asrkd.data.corpora.an4 import dev_speakers  # here, for not every test that imports this has lhotse

    for split, folder, num_speakers in (("train", "an4_clstk", 12), ("test", "an4test_clstk", 2)):
        speakers = sorted(path.name for path in (an4_dir / "wav" / folder).iterdir())[:num_speakers]
        for speaker in speakers:
            shutil.copytree(an4_dir / "wav" / folder / speaker, root / "wav" / folder / speaker)
        for suffix in ("fileids", "transcription"):
            lines = (an4_dir / "etc" / f"an4_{split}.{suffix}").read_text().splitlines()
            chosen = [line for line in lines if any(f"-{speaker}-" in line for speaker in speakers)]
            held_out = dev_speakers(speakers) if split == "train" else speakers
            if suffix == "transcription":
                last = max(n for n, line in enumerate(chosen) if any(f"-{speaker}-" in line for speaker in held_out))
                chosen[last] = f"{UNPRONOUNCEABLE} {chosen[last]}"
            (root / "etc" / f"an4_{split}.{suffix}").write_text("\n".join(chosen) + "\n")
    truncate(sorted((root / "wav" / "an4_clstk").rglob("*.*"))[0])
    measured = {
        "teacher_0": (0.6302, 37.2),
        "teacher_1": (0.5984, 39.9),
        "ensemble": (0.6423, 37.8),
        "baseline": (0.6104, 32.4),
        "baseline_dropout": (0.6128, 36.5),
        "distilled": (0.6126, 35.1),
    }
    return TinyRecipe("an4", root, 110, measured)


def tiny_prompts(prompts_dir: Path, root: Path) -> TinyRecipe:
    """The prompts all of whose words are in another prompt too, one of them truncated, in the folder `root`.

    The transcripts of the shortest development and test prompts are too long for their audio: these are decoded
    without frame labels.
    """
    from asrkd.data.corpora.prompts import VOICE_FOLDER, prepare_prompts  # here, as in tiny_an4

    splits = prepare_prompts(prompts_dir)
    prompts_of = Counter(word for split in splits.values() for s in split.supervisions for word in set(s.text.split()))
    lines = []
    for name, split in splits.items():
        chosen = [
            s for s in split.supervisions if all(prompts_of[word] >= MIN_PROMPTS_PER_WORD for word in s.text.split())
        ]
        shortest = min(chosen, key=lambda s: (s.duration, s.id))
        for supervision in chosen:
            path = Path(split.recordings[supervision.id].sources[0].source)
            prompt = path.relative_to(next(parent for parent in path.parents if parent.name == VOICE_FOLDER))
            (root / VOICE_FOLDER / prompt).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root / VOICE_FOLDER / prompt)
            too_long = supervision is shortest and name != "train"
            text = " ".join([spelled(supervision.text)] * (TIMES_TOO_LONG if too_long else 1))
            lines.append(f"{prompt.with_suffix('').as_posix()}: {text}")
            if name == "train" and supervision is chosen[0]:
                truncate(root / VOICE_FOLDER / prompt)
    (root / "core-sounds-en.txt").write_text("\n".join(lines) + "\n")
    measured = {
        "teacher_0": (0.6774, 23.4),
        "teacher_1": (0.6603, 22.1),
        "ensemble": (0.6939, 22.1),
        "baseline": (0.6813, 22.6),
        "baseline_dropout": (0.6611, 23.1),
        "distilled": (0.6726, 21.1),
    }
    return TinyRecipe("prompts", root, 130, measured)


def spelled(text: str) -> str:
    """Normalised words as a transcript that is normalised to the same words: capitals would be read as letters."""
    return text.lower()


def truncate(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
