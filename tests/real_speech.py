"""Utterances of a corpus that is there, for tests that need real speech and not a recipe."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from optional_packages import skip_without


@dataclass(frozen=True)
class Utterance:
    """One utterance: who said what, and in which file."""

    utt_id: str
    speaker: str
    words: tuple[str, ...]
    path: Path
    split: str
    """train or test (AN4), train, dev or test (prompts)."""


def an4_utterances(an4_dir: Path) -> list[Utterance]:
    """All of AN4, in the order of its lists."""
    found = []
    for split in ("train", "test"):
        file_ids = (an4_dir / "etc" / f"an4_{split}.fileids").read_text().split()
        lines = (an4_dir / "etc" / f"an4_{split}.transcription").read_text().splitlines()
        for file_id, line in zip(file_ids, lines, strict=True):
            _, speaker, utt_id = file_id.split("/")
            words = re.sub(r"\(.*\)|</?s>", "", line).split()
            found.append(Utterance(utt_id, speaker, tuple(words), an4_dir / "wav" / f"{file_id}.flac", split))
    return found


def prompts_utterances(prompts_dir: Path) -> list[Utterance]:
    """All prompts that are speech, sorted by name within each split."""
    skip_without("lhotse")
    from asrkd.data.corpora.prompts import prepare_prompts

    found = []
    for split, manifests in prepare_prompts(prompts_dir).items():
        paths = {recording.id: Path(recording.sources[0].source) for recording in manifests.recordings}
        for one in sorted(manifests.supervisions, key=lambda supervision: supervision.id):
            found.append(Utterance(one.id, one.speaker, tuple(one.text.split()), paths[one.id], split))
    return found
