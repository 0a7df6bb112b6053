"""The listing of a user's corpus: its manifests are read when they change, not by every run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from asrkd.files import write_json
from asrkd.recipe.corpus import PATHS_FILE, AudioPaths, Corpus, list_sources
from asrkd.recipe.options import SpeechOptions


@dataclass(frozen=True)
class Given:
    manifest: Path


@dataclass(frozen=True)
class Options(SpeechOptions):
    corpora: Given = field(default_factory=lambda: Given(Path()))


class Listing:
    """A corpus with a manifest of a path a line, which counts how often the manifest is read."""

    def __init__(self, folder: Path) -> None:
        self.manifest, self.reads, self.folder = folder / "manifest", 0, folder
        for name in "ab":
            (folder / name).write_text(name)
        self.manifest.write_text("a\nb\n")
        self.options = Options(corpus_dir=folder, exp_dir=folder / "exp", corpora=Given(self.manifest))
        self.corpus = Corpus(
            "user", self.prepare, lambda _: "cmudict", False, "", files=lambda given: [given.manifest], audio=self.audio
        )

    def prepare(self, *_: object) -> Mapping[str, Any]:
        return {}

    def audio(self, folder: Path, given: Given) -> Sequence[Path]:
        self.reads += 1
        return [folder / line for line in given.manifest.read_text().split()]

    def listed(self) -> tuple[str, int]:
        """Fingerprint of the sources, and how often the manifest was read for it."""
        before = self.reads
        listing, _ = list_sources(self.corpus, self.options)
        return listing["fingerprint"], self.reads - before

    def finish_stage_0(self) -> None:
        _, paths = list_sources(self.corpus, self.options)
        assert isinstance(paths, AudioPaths)
        folder = self.options.exp_dir / "corpus"
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / PATHS_FILE, paths)


def test_manifests_are_read_once(tmp_path: Path) -> None:
    listing = Listing(tmp_path)
    first, reads = listing.listed()
    assert reads == 1
    listing.finish_stage_0()
    assert listing.listed() == (first, 0)


def test_changed_audio_is_seen_without_reading_manifests(tmp_path: Path) -> None:
    listing = Listing(tmp_path)
    listing.finish_stage_0()
    first, _ = listing.listed()
    (tmp_path / "a").write_text("longer")
    changed, reads = listing.listed()
    assert changed != first and reads == 0


def test_a_changed_manifest_option_or_missing_file_is_looked_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = Listing(tmp_path)
    listing.finish_stage_0()
    first, _ = listing.listed()
    os.remove(tmp_path / "b")
    missing, reads = listing.listed()
    assert missing != first and reads == 1
    listing.manifest.write_text("a\n")
    assert listing.listed()[1] == 1
    listing.finish_stage_0()
    assert listing.listed()[1] == 0
    monkeypatch.chdir(tmp_path)
    assert listing.listed()[1] == 1, "relative paths are looked up from the current folder"


def test_a_damaged_record_is_no_record(tmp_path: Path) -> None:
    listing = Listing(tmp_path)
    listing.finish_stage_0()
    (tmp_path / "exp/corpus" / PATHS_FILE).write_text('{"manifests": 3}')
    assert listing.listed()[1] == 1
