"""The an4 recipe, as a person runs it, on a dozen speakers and with tiny networks: 40 seconds for all of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "an4" / "recipe.py"
UNPRONOUNCEABLE = "1984"
LM_SCALE = 1.1
TINY = [
    f"--decode.lm-scale={LM_SCALE}",
    *("--student.hidden-dim=64", "--student.num-layers=2", "--teacher.hidden-dim=64", "--teacher.num-layers=2"),
    *("--train.epochs=3", "--labels.epochs=2", "--labels.mono-rounds=1", "--labels.tree-rounds=1"),
    *("--ensemble.size=2", "--tree.num-leaves=110", "--students.sweep-temperatures", "1.0", "2.0"),
    *("--align.num-phone-rounds=3", "--align.num-state-rounds=3"),
    *("--train.learning-rate=0.003", "--train.batch-size=256", "--max-bad=0.05"),
    *("--features.speed-factors", "1.0", "--students.narrow-dims"),
    "--train.precision=float32",
    *("--decode.beam=10", "--decode.max-active=1500", "--decode.lattice-beam=4"),
    *("--tune.acoustic-scales", "0.1", "0.2", "--tune.insertion-scores", "-3.0", "0.0"),
]


def copy_speakers(an4_dir: Path, root: Path) -> None:
    """Twelve training and two test speakers of AN4, one of the utterances truncated, into `root`.

    A development and a test utterance hold a word that has no pronunciation: they are decoded without frame labels.
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
            kept = [line for line in lines if any(f"-{speaker}-" in line for speaker in speakers)]
            held_out = dev_speakers(speakers) if split == "train" else speakers
            if suffix == "transcription":
                last = max(n for n, line in enumerate(kept) if any(f"-{speaker}-" in line for speaker in held_out))
                kept[last] = f"{UNPRONOUNCEABLE} {kept[last]}"
            (root / "etc" / f"an4_{split}.{suffix}").write_text("\n".join(kept) + "\n")
    victim = sorted((root / "wav" / "an4_clstk").rglob("*.*"))[0]
    victim.chmod(0o644)
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])


def run_recipe(*arguments: str) -> subprocess.CompletedProcess[str]:
    """recipes/an4 as a person runs it. Its steps are forked, so this process, which has computed, cannot run them."""
    command = [sys.executable, str(RECIPE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)
