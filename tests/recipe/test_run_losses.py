"""What a run loses after stage 1 stops it as early as it is known, and doubtful transcripts leave the training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lhotse import AudioSource, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from speech_stages import step_folder

from asrkd.align.labels import NO_LABEL
from asrkd.data.manifests import load_split, save_split
from asrkd.data.splits import CorpusSplit
from asrkd.errors import InputError
from asrkd.features.store import FrameStore
from asrkd.files import read_json, write_json
from asrkd.hmm.alignment import Alignment
from asrkd.hmm.tree import SenoneTree
from asrkd.lang.options import LangOptions
from asrkd.recipe.corpus import REJECTED_FILE, Corpus
from asrkd.recipe.excluded import excluded_utterances
from asrkd.recipe.folders import LOSSES_FILE, SPLITS, TREE_FILE, RunFolders
from asrkd.recipe.lang import make_lexicon
from asrkd.recipe.loss_checks import check_frames, check_labels, check_words, losses_content
from asrkd.recipe.networks import LabelledFrames, labelled_store
from asrkd.recipe.options import DoubtfulOptions, SpeechOptions

CORPUS = Corpus("mine", lambda folder: {}, lambda folder: "cmudict", closed_vocabulary=False, where="")
FRAMES = 30
PHONES = ("SIL", "G", "OW")


def manifests(texts: dict[str, str]) -> CorpusSplit:
    """Utterances of which each is by a speaker of its own."""
    recordings = [Recording(utt_id, [AudioSource("file", [0], f"{utt_id}.wav")], 16000, 8000, 0.5) for utt_id in texts]
    supervisions = [
        SupervisionSegment(utt_id, utt_id, 0.0, 0.5, 0, text, speaker=f"speaker-{utt_id}")
        for utt_id, text in texts.items()
    ]
    return CorpusSplit(RecordingSet.from_recordings(recordings), SupervisionSet.from_segments(supervisions))


class Run:
    """A run whose first stages are written by hand: 20 utterances a split that say GO."""

    def __init__(self, folder: Path, **texts: dict[str, str]) -> None:
        (folder / "lexicon.txt").write_text("GO G OW\nOWE OW\n")
        lang = LangOptions(lexicon=str(folder / "lexicon.txt"))
        self.options = SpeechOptions(corpus_dir=folder, exp_dir=folder / "exp", lang=lang, max_bad=0.05)
        self.folders = RunFolders(self.options.exp_dir)
        for split in SPLITS:
            self.write(split, {f"{split}-{n:02}": "GO" for n in range(20)} | texts.get(split, {}))

    def write(self, split: str, texts: dict[str, str], rejected: int = 0) -> None:
        for step in ("corpus", "manifests"):
            save_split(manifests(texts), step_folder(self.options, f"{step}/{split}"))
        rows = [{"utt_id": f"bad-{n}", "reason": "empty transcript"} for n in range(rejected)]
        write_json(self.folders.manifests(split) / REJECTED_FILE, rows)

    def features(self, split: str, frames: dict[str, int] | None = None, speeds: tuple[str, ...] = ("",)) -> FrameStore:
        texts = {one.id: one.text for one in load_split(self.folders.manifests(split)).supervisions}
        feats = [
            (f"{speed}{utt_id}", "s", text, torch.zeros((frames or {}).get(f"{speed}{utt_id}", FRAMES), 2))
            for speed in speeds
            for utt_id, text in texts.items()
        ]
        return FrameStore.write(self.folders.features(split), feats, {"frame_shift_ms": 10.0}, f"store of {split}")

    def aligned(self, split: str, nats: dict[str, float], missing: tuple[str, ...] = ()) -> Alignment:
        """Stage 5's alignment of a split: each utterance has 4 ± 0.3 nats a frame, or those of `nats`."""
        store = FrameStore.open(self.folders.features(split))
        utt_ids = tuple(utt_id for utt_id in store.utt_ids if utt_id not in missing)
        lengths = torch.tensor([len(store.utt(utt_id)) for utt_id in utt_ids])
        per_frame = [nats.get(utt_id, 3.7 + 0.6 * n / len(utt_ids)) for n, utt_id in enumerate(utt_ids)]
        total = int(lengths.sum())
        alignment = Alignment(
            utt_ids,
            torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]),
            torch.ones(total, dtype=torch.int16),
            torch.zeros(total, dtype=torch.int8),
            torch.zeros(total, dtype=torch.int32),
            PHONES,
            store.fingerprint,
            torch.tensor(per_frame, dtype=torch.double) * lengths,
            rejected=dict.fromkeys(missing, "no path: none through its training graph"),
        )
        path = self.folders.alignment(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        alignment.save(path)
        SenoneTree.monophone(PHONES).save(step_folder(self.options, "tree") / TREE_FILE)
        return alignment

    def labels(self, split: str, **changes: object) -> dict:
        folder = step_folder(self.options, f"losses/{split}")
        check_labels(split, replace(self.options, **changes), folder)  # type: ignore[arg-type]
        return read_json(folder / LOSSES_FILE)


def words(run: Run, **changes: object) -> dict:
    options = replace(run.options, **changes)  # type: ignore[arg-type]
    make_lexicon(CORPUS, options, step_folder(options, "lang/lexicon"))
    folder = step_folder(options, "losses/words")
    check_words(CORPUS, options, folder)
    return read_json(folder / LOSSES_FILE)


def test_words_that_cannot_be_guessed_stop_stage_3_in_every_split(tmp_path: Path) -> None:
    """In training before the lexicon is finished; with the words that cost most first, and what to do."""
    run = Run(tmp_path, train={f"train-{n:02}": "GO 5" for n in range(3)})
    with pytest.raises(InputError) as caught:
        words(run)
    assert str(caught.value).startswith(
        "corpus: expected at most 5.0% bad utterances in train (--max-bad), found 3 of 20: train-00: no pronunciation: "
        "5; train-01: no pronunciation: 5; train-02: no pronunciation: 5; "
    )
    assert "1 words are missing (5)" in str(caught.value) and "numbers as they are spoken" in str(caught.value)
    assert words(run, max_bad=0.2)["train"][0] == {"utt_id": "train-00", "reason": "no pronunciation: 5"}
    run.write("train", {f"train-{n:02}": "GO" for n in range(20)})
    run.write("test", {f"test-{n:02}": "GO 5" if n < 2 else "GO" for n in range(20)})
    with pytest.raises(InputError, match=r"in test .* found 2 of 20: test-00: no pronunciation: 5"):
        words(run)


def test_what_stage_1_rejected_counts_with_what_later_stages_lose(tmp_path: Path) -> None:
    run = Run(tmp_path, dev={"dev-00": "GO 5"})
    assert [row["utt_id"] for row in words(run)["dev"]] == ["dev-00"]
    run.write("dev", {f"dev-{n:02}": "GO 5" if n == 0 else "GO" for n in range(20)}, rejected=1)
    with pytest.raises(InputError, match="found 2 of 21: 1 empty transcript, 1 no pronunciation: bad-0: empty"):
        words(run)


def test_a_held_out_word_with_an_unheard_phone_has_its_other_pronunciations(tmp_path: Path) -> None:
    run = Run(tmp_path, dev={"dev-00": "BOB"})
    (tmp_path / "lexicon.txt").write_text("GO G OW\nBOB B AA B\n")
    # It costs frame metrics alone, in a corpus that is small: no limit counts it.
    assert words(run, max_bad=0.0)["dev"] == [{"utt_id": "dev-00", "reason": "units that training never heard: BOB"}]
    (tmp_path / "lexicon.txt").write_text("GO G OW\nBOB B AA B\nBOB G OW G\n")
    assert words(run, max_bad=0.01)["dev"] == []


def test_too_few_frames_stop_stage_4_before_anything_is_aligned(tmp_path: Path) -> None:
    run = Run(tmp_path)
    words(run)
    for split in SPLITS:
        run.features(split, {"dev-03": 5, "dev-04": 4} if split == "dev" else {})
    folder = step_folder(run.options, "losses/frames")
    with pytest.raises(InputError, match=r"in dev .* found 2 of 20: dev-03: too few frames: 5 for 1 words, expected"):
        check_frames(CORPUS, run.options, folder)
    check_frames(CORPUS, replace(run.options, max_bad=0.1), folder)
    assert [row["utt_id"] for row in read_json(folder / LOSSES_FILE)["dev"]] == ["dev-03", "dev-04"]


def test_a_copy_that_gets_too_short_counts_as_one_of_the_copies(tmp_path: Path) -> None:
    run = Run(tmp_path)
    words(run)
    run.options = replace(run.options, features=replace(run.options.features, speed_factors=(1.0, 1.1)))
    for split in SPLITS:
        short = {f"sp1.1-train-{n:02}": 5 for n in range(3)} if split == "train" else {}
        run.features(split, short, ("", "sp1.1-") if split == "train" else ("",))
    run.write("train", {f"train-{n:02}": "GO" for n in range(20)}, rejected=1)
    with pytest.raises(
        InputError, match=r"found 5 of 42: 3 too few frames, 2 empty transcript: bad-0: .*; sp1.1-bad-0:"
    ):
        check_frames(CORPUS, replace(run.options, max_bad=0.1), step_folder(run.options, "losses/frames"))
    check_frames(CORPUS, replace(run.options, max_bad=0.12), step_folder(run.options, "losses/frames"))


def test_utterances_without_a_path_count_and_a_stricter_limit_stops_a_finished_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path)
    run.features("dev")
    run.aligned("dev", {}, missing=("dev-07",))
    assert run.labels("dev")["unaligned"] == [
        {"utt_id": "dev-07", "reason": "no path: none through its training graph"}
    ]
    assert "dev: no utterance is left of 1 speakers: speaker-dev-07" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"in dev \(--max-bad\), found 1 of 20: dev-07: no path"):
        run.labels("dev", max_bad=0.01)


def test_doubtful_transcripts_are_listed_and_beyond_a_bound_excluded_from_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path)
    run.features("train")
    run.aligned("train", {"train-05": 2.7, "train-06": -1.0})
    found = run.labels("train")
    assert [(row["utt_id"], row["excluded"]) for row in found["doubtful"]] == [("train-06", True), ("train-05", False)]
    assert found["median"] == pytest.approx(4.0, abs=0.1)
    assert "train: 2 doubtful transcripts (1 excluded from training and tuning)" in capsys.readouterr().out
    assert list(excluded_utterances(run.folders, "train")) == ["train-06"]
    store, labels, _ = labelled_store(run.folders, "train")
    assert "train-06" not in store.utt_ids and len(store.utt_ids) == 19 and not (labels == NO_LABEL).any()
    with pytest.raises(InputError, match=r"found 1 of 20: train-06: doubtful transcript: -1.00 nats a frame"):
        run.labels("train", max_bad=0.01)
    assert run.labels("train", max_bad=0.01, doubtful=DoubtfulOptions(exclude_beyond=None))["excluded"] == {}
    assert len(labelled_store(run.folders, "train")[0].utt_ids) == 20


def test_the_test_set_is_scored_whole(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.features("test")
    run.aligned("test", {"test-05": -2.0})
    found = run.labels("test", max_bad=0.0)
    assert [(row["utt_id"], row["excluded"]) for row in found["doubtful"]] == [("test-05", False)]
    assert found["excluded"] == {}
    assert len(LabelledFrames.open_to_decode("test", run.options).aligned_utt_ids()) == 20


def test_an_utterance_is_doubtful_with_all_of_its_copies(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.options = replace(run.options, features=replace(run.options.features, speed_factors=(0.9, 1.0)))
    run.features("train", speeds=("sp0.9-", ""))
    run.aligned("train", {"train-05": -1.0, "sp0.9-train-05": 0.0, "sp0.9-train-06": 1.0})
    found = run.labels("train", max_bad=0.1)
    assert sorted(found["excluded"]) == ["sp0.9-train-05", "train-05"]
    assert [row["utt_id"] for row in found["doubtful"]] == ["train-05", "train-06"], "by the mean of its copies"


def test_networks_read_what_is_excluded_and_nothing_else(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.features("train")
    run.aligned("train", {"train-05": 2.7, "train-06": -1.0})
    contents = []
    for doubtful in (DoubtfulOptions(), DoubtfulOptions(list_beyond=2.0), DoubtfulOptions(exclude_beyond=None)):
        run.labels("train", doubtful=doubtful)
        contents.append(losses_content(run.folders.losses("train").parent))
    assert contents[0] == contents[1] != contents[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"list_beyond": 0.0}, "--doubtful.list-beyond: expected a positive number, found 0"),
        ({"exclude_beyond": 3.0}, "--doubtful.exclude-beyond: expected at least --doubtful.list-beyond 4.0, found 3.0"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DoubtfulOptions(**options)


def test_networks_have_the_frames_and_labels_of_the_other_utterances(tmp_path: Path) -> None:
    run = Run(tmp_path)
    store = run.features("train", {"train-01": 12})
    run.aligned("train", {}, missing=("train-03",))
    write_json(step_folder(run.options, "losses/train") / LOSSES_FILE, {"excluded": {"train-01": "doubtful"}})
    part, labels, _ = labelled_store(run.folders, "train")
    assert part.utt_ids == tuple(utt_id for utt_id in store.utt_ids if utt_id not in ("train-01", "train-03"))
    assert len(part) == len(labels) == 18 * FRAMES and not (labels == NO_LABEL).any()
    assert part.span("train-02") == (FRAMES, 2 * FRAMES)
