"""Posteriors of another system: what is dumped is what students learn from, and what is wrong is one line."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_posteriors
from numpy.typing import NDArray
from optional_packages import skip_without
from toy_posteriors import DIM, NUM_CLASSES, make_ensemble, make_inputs

from asrkd import config
from asrkd.commands import main as cli
from asrkd.distil.compression import StoreOptions
from asrkd.distil.external_teacher import TrainingFrames, import_posteriors
from asrkd.distil.loss import Distillation, DistilOptions
from asrkd.distil.store import PosteriorStore
from asrkd.errors import InputError
from asrkd.nnet import TrainOptions, train
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.model_options import ModelOptions

Dump = dict[str, NDArray]
UTTERANCES = toy_posteriors.Frames()


def members_logits() -> list[Dump]:
    """Of each teacher, what it would dump: the same numbers that the recipe's own store is made of."""
    with torch.no_grad():
        logits = make_ensemble()(make_inputs().values).numpy()
    spans = zip(UTTERANCES.utt_ids, UTTERANCES.offsets[:-1], UTTERANCES.offsets[1:], strict=True)
    utterances = [(utt_id, slice(int(begin), int(end))) for utt_id, begin, end in spans]
    return [{utt_id: member[span] for utt_id, span in utterances} for member in logits]


def log_softmax(dump: Dump) -> Dump:
    return {utt_id: torch.log_softmax(torch.tensor(z), dim=1).numpy() for utt_id, z in dump.items()}


def frames() -> TrainingFrames:
    """Labels that the teachers give in turn, so that each has a third of them right."""
    with torch.no_grad():
        best = make_ensemble()(make_inputs().values).argmax(dim=2)
    labels = best.gather(0, (torch.arange(100) % 3).unsqueeze(0)).squeeze(0)
    return TrainingFrames(UTTERANCES, labels, NUM_CLASSES, "tree0", ignored_utt_ids=("d-4",))


def as_npy(path: Path, dump: Dump) -> Path:
    path.mkdir()
    for utt_id, values in dump.items():
        np.save(path / f"{utt_id}.npy", values)
    return path


def as_npz(path: Path, dump: Dump) -> Path:
    np.savez(path.with_suffix(".npz"), **dump)
    return path.with_suffix(".npz")


def as_kaldi(path: Path, dump: Dump) -> Path:
    skip_without("kaldi_native_io")
    import kaldi_native_io

    with kaldi_native_io.FloatMatrixWriter(f"ark,scp:{path}.ark,{path}.scp") as writer:
        for utt_id, values in dump.items():
            writer.write(utt_id, values)
    return path.with_suffix(".scp")


def imported(tmp_path: Path, dumps: list[Dump], kind: str, options: StoreOptions, save=as_npy) -> PosteriorStore:
    paths = [save(tmp_path / f"teacher{number}", dump) for number, dump in enumerate(dumps)]
    return import_posteriors(paths, kind, frames(), options, tmp_path / "store", show_progress=False)[0]


@pytest.mark.parametrize("save", [as_npy, as_npz, as_kaldi])
def test_dumped_logits_make_the_store_that_the_teachers_make(tmp_path: Path, save: Callable) -> None:
    expected = toy_posteriors.write(tmp_path / "own", StoreOptions(top_k=7))
    found = imported(tmp_path, members_logits(), "logits", StoreOptions(top_k=7), save)
    assert all(torch.equal(a, b) for a, b in zip(found._rows, expected._rows, strict=True))
    assert (found.utt_ids, found.options, found.num_classes) == (expected.utt_ids, expected.options, NUM_CLASSES)
    found.require("frames0", "tree0")


@pytest.mark.parametrize(("mean", "temperatures"), [("geometric", (1.0, 2.0, 5.0)), ("arithmetic", (1.0,))])
def test_dumped_log_posteriors_make_the_same_targets(tmp_path: Path, mean: str, temperatures: tuple) -> None:
    """To the rounding of float16 logits; log-posteriors lack a constant a frame, and no mean at T = 1 asks for it."""
    options = StoreOptions(top_k=7, mean=mean, temperatures=temperatures)
    expected = toy_posteriors.write(tmp_path / "own", options)
    found = imported(tmp_path, [log_softmax(dump) for dump in members_logits()], "log-posteriors", options)
    for temperature in temperatures:
        for a, b in zip(*(store.targets(torch.arange(100), temperature) for store in (found, expected)), strict=True):
            torch.testing.assert_close(a, b, atol=2e-3, rtol=2e-3)


def test_a_student_of_it_is_the_student_of_the_teachers(tmp_path: Path) -> None:
    stores = (
        toy_posteriors.write(tmp_path / "own"),
        imported(tmp_path, members_logits(), "logits", StoreOptions()),
    )
    weights = []
    for number, store in enumerate(stores):
        student = AcousticDnn(DIM, NUM_CLASSES, ModelOptions(hidden_dim=12, num_layers=1, dropout=0.0))
        options = TrainOptions(epochs=2, batch_size=20, precision="float32", show_progress=False)
        objective = Distillation(None, store, DistilOptions(alpha=1.0, temperature=2.0))
        train(student, make_inputs(), objective, options, tmp_path / f"student{number}")
        weights.append(torch.cat([parameter.detach().flatten() for parameter in student.parameters()]))
    assert torch.equal(*weights)


def test_other_numbers_are_another_store(tmp_path: Path) -> None:
    one, two = members_logits()[:2]
    first = imported(tmp_path, [one], "logits", StoreOptions())
    (tmp_path / "b").mkdir()
    assert imported(tmp_path / "b", [two], "logits", StoreOptions()).fingerprint != first.fingerprint


def without(utt_id: str) -> Callable[[Dump], Dump]:
    return lambda dump: {name: values for name, values in dump.items() if name != utt_id}


def changed(change: Callable[[NDArray], NDArray]) -> Callable[[Dump], Dump]:
    return lambda dump: {name: change(z) if name == "c-3" else z for name, z in dump.items()}


def with_nan(z: NDArray) -> NDArray:
    z = z.copy()
    z[5, 3] = np.nan
    return z


@pytest.mark.parametrize(
    ("kind", "spoil", "message"),
    [
        ("logits", without("c-3"), r"teacher0: expected posteriors of c-3, found none \(1 of 3"),
        ("logits", lambda dump: dump | {"z-9": dump["b-2"]}, r"expected utterances of these frames, found z-9 \(1"),
        ("logits", changed(lambda z: z[:-3]), r"c-3: expected 59 frames, found 56 \(--length-tolerance 3 "),
        (
            "logits",
            changed(lambda z: z[::3]),
            "found 20, a third of the frames: .*subsampling.* give --frame-shift-ms 30",
        ),
        ("logits", changed(lambda z: z.repeat(2, axis=0)), "found 118, twice the frames"),
        ("logits", changed(lambda z: z[:0]), "c-3: expected 59 frames, found 0"),
        (
            "logits",
            changed(lambda z: z.T),
            r"c-3: expected a matrix \[59 frames, 30 senones\], found \[30, 59\]: transp",
        ),
        ("logits", changed(lambda z: z.T[None]), r"c-3: expected a matrix of floats, found float32 \[1, 30, 59\]"),
        ("logits", changed(lambda z: np.pad(z, ((0, 0), (1, 0)))), "found 31: remove the column that is no senone"),
        ("logits", changed(lambda z: z[:, 1:]), r"c-3: expected 30 classes \(senones\), found 29"),
        ("logits", changed(lambda z: z.ravel()), "c-3: expected a matrix of floats"),
        ("logits", changed(lambda z: z.astype(int)), "c-3: expected a matrix of floats, found int64"),
        ("logits", changed(with_nan), "c-3: expected finite logits, found NaN or infinity in frame 5"),
        (
            "log-posteriors",
            lambda dump: dump,
            "expected the log of probabilities that sum to one, found .* --kind logits",
        ),
        (
            "logits",
            lambda dump: {name: np.roll(z, 7, axis=1) for name, z in dump.items()},
            "expected classes in the order of the senones .*0 to 29.* found a frame accuracy of",
        ),
    ],
)
def test_what_is_wrong_is_said_and_nothing_written(tmp_path: Path, kind: str, spoil: Callable, message: str) -> None:
    dumps = members_logits()
    dumps[0] = spoil(dumps[0])
    with pytest.raises(InputError, match=message):
        imported(tmp_path, dumps, kind, StoreOptions())
    assert not list(tmp_path.glob("store*"))


def test_a_dump_of_another_tree_is_told_although_silence_is_the_same(tmp_path: Path) -> None:
    """Most of the frames are silence, pdf_id 0 to 2 in every tree; the others' columns are in another order."""
    labels = torch.arange(10).repeat_interleave(torch.tensor([300, 300, 300, *[100] * 5, 40, 40]))
    answers = torch.where(torch.arange(len(labels)) % 3 > 0, labels, 9)  # two thirds of each class are known
    logits = torch.nn.functional.one_hot(answers, 10).mul(5.0).sub(1.0).numpy()
    utterance = toy_posteriors.Frames(("a-1",), torch.tensor([0, len(labels)]))
    ordered = TrainingFrames(utterance, labels, 10, "tree0")
    other = logits[:, [0, 1, 2, 4, 5, 6, 7, 3, 9, 8]]
    paths = [as_npz(tmp_path / name, {"a-1": values}) for name, values in (("right", logits), ("other", other))]
    (report,) = import_posteriors(paths[:1], "logits", ordered, StoreOptions(), tmp_path / "store", False)[1]
    assert report.accuracy == pytest.approx(2 / 3, abs=0.03)
    with pytest.raises(
        InputError, match=r"other.npz: .* found a frame accuracy of 4\S+%, and 3 of 8 senones with 50 frames"
    ):
        import_posteriors(paths[1:], "logits", ordered, StoreOptions(), tmp_path / "store", False)


def test_nothing_but_a_store_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dumps = [as_npz(tmp_path / f"teacher{number}", dump) for number, dump in enumerate(members_logits())]
    run, store = tmp_path / "exp", tmp_path / "store"
    for folder in (run, run / "posteriors", tmp_path / "store.old", tmp_path / "store.partial"):
        folder.mkdir()
        (folder / "stamp.json").write_text("{}")
    toy_posteriors.write(run / "posteriors" / "train")
    there = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.chdir(run)
    for out in (run, run / "posteriors", run / "posteriors" / "train", run / "stamp.json", Path()):
        with pytest.raises(InputError, match=f"--out {out}: expected a new folder or an imported store, found"):
            import_posteriors([tmp_path / "unread"], "logits", frames(), StoreOptions(), out)
    for teachers in (dumps[:1], dumps):
        made, _ = import_posteriors(teachers, "logits", frames(), StoreOptions(), store, show_progress=False)
    assert PosteriorStore.open(store).fingerprint == made.fingerprint
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if store not in (path, path.parent)}
    assert {path: time for path, time in kept.items() if path != tmp_path} == there


def test_utterances_that_could_not_be_aligned_are_passed_over(tmp_path: Path) -> None:
    dumps = members_logits()
    dumps[0]["d-4"] = np.zeros((3, 1))
    assert imported(tmp_path, dumps, "logits", StoreOptions()).utt_ids == UTTERANCES.utt_ids


def saved(save: Callable, damage: bool = False) -> bytes:
    """What numpy writes of one matrix; `damage`: what is compressed in it begins with no kind of block."""
    file = io.BytesIO()
    save(file, np.zeros((100, 100)))
    content = bytearray(file.getvalue())
    if damage:
        content[30 + sum(content[26:30:2])] = 0xFF  # behind zip's header, the name and the extra field
    return bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npz", b"no zip", "a.npz: expected an .npz, found something else"),
        ("a.npz", saved(np.save), "a.npz: expected an .npz, found an .npy"),
        ("one.npz", saved(np.savez_compressed, damage=True), "one.npz: arr_0: expected a matrix, found something else"),
        ("a.txt", b"", "a.txt: expected a folder of <utt_id>.npy, an .npz or a Kaldi .scp"),
        ("a.scp", b"a-1 touch {tmp}/run |\n", "a.scp:1: expected `utt_id file:offset`"),
        ("a.scp", b"a-1 -\n", "a.scp:1: expected `utt_id file:offset`"),
        ("a.scp", b"a-1 x.ark:1\na-1 x.ark:9\n", "a.scp:2: a-1: expected one entry of this id, found two"),
        ("a.scp", b"a-1 /nowhere.ark:1\nb-2 /n:2\nc-3 /n:3\n", "nowhere.ark:1: expected a Kaldi matrix"),
        ("a.scp", b"a-1 x.ark:1\nb-2 \xe9.ark:2\n", "a.scp:2: expected UTF-8, found byte 0xe9"),
        ("dump/a-1.npy", b"no array", "a-1.npy: expected a numpy matrix"),
        ("dump/a-1.npy", saved(np.savez), "a-1.npy: expected a numpy matrix, found an .npz"),
        ("dump/notes.txt", b"", "dump: expected <utt_id>.npy files or entries, found none"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    if name.endswith(".scp"):
        skip_without("kaldi_native_io")
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content.replace(b"{tmp}", str(tmp_path).encode()))
    dump = tmp_path / name.split("/")[0]
    if name == "dump/a-1.npy":
        for utt_id in ("b-2", "c-3"):
            np.save(dump / f"{utt_id}.npy", np.zeros((1, 1)))
    wanted = frames()
    if name == "one.npz":
        utterances = toy_posteriors.Frames(("arr_0",), torch.tensor([0, 100]))
        wanted = TrainingFrames(utterances, wanted.labels, NUM_CLASSES, "tree0")
    with pytest.raises(InputError, match=message):
        import_posteriors([dump], "logits", wanted, StoreOptions(), tmp_path / "store", show_progress=False)
    assert not (tmp_path / "run").exists(), "a command in an scp was run"


@pytest.mark.needs("lhotse")
def test_the_command_before_there_are_senones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from asrkd.recipe.options import SpeechOptions

    arguments = ["posteriors", "import", "--exp-dir", str(tmp_path), "--teachers", "x", "--out", str(tmp_path / "s")]
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 2 and "config.json: no such file" in capsys.readouterr().err
    config.save(SpeechOptions(), tmp_path / "config.json")
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    stderr = capsys.readouterr().err
    assert left.value.code == 2 and stderr.count("\n") == 1 and "--stop-stage 5" in stderr


def cut(first: int, last: int) -> Callable[[NDArray], NDArray]:
    """Without so many frames at either end; negative: with so many copies more."""
    return lambda z: z[np.arange(first, len(z) - last).clip(0, len(z) - 1)]


@pytest.mark.parametrize(
    ("change", "where", "shorter", "longer"),
    [
        (cut(1, 1), "at both ends", 2, 0),
        (cut(0, 2), "at the end", 2, 0),
        (cut(2, 0), "at the start", 2, 0),
        (cut(0, 1), "at the end", 2, 0),
        (cut(0, -2), "at the end", 0, 2),
        (cut(-1, -1), "at both ends", 0, 2),
    ],
)
def test_frames_at_the_ends_may_differ_and_are_counted(
    tmp_path: Path, change: Callable, where: str, shorter: int, longer: int
) -> None:
    expected = members_logits()[0]
    dump = {name: change(z) if len(z) > 1 else z for name, z in expected.items()}
    path = as_npz(tmp_path / "a", dump)
    store, (report,) = import_posteriors([path], "logits", frames(), StoreOptions(), tmp_path / "store", False)
    assert (report.num_shorter, report.num_longer, report.timing.ends) == (shorter, longer, where)
    assert report.notes()[0] == (
        f"{shorter} utterances have too few frames and {longer} too many; frames {where} were repeated or removed"
    )
    whole, _ = import_posteriors(
        [as_npz(tmp_path / "b", expected)], "logits", frames(), StoreOptions(), tmp_path / "whole", False
    )
    inner = torch.tensor([*range(2, 38), 40, *range(43, 98)])
    for a, b in zip(store.targets(inner, 1.0), whole.targets(inner, 1.0), strict=True):
        assert torch.equal(a, b)
    assert store.fingerprint != whole.fingerprint
    with pytest.raises(InputError, match=r"a.npz: a-1: expected 40 frames, found \d\d \(--length-tolerance \d "):
        import_posteriors([path], "logits", frames(), StoreOptions(), tmp_path / "other", False, length_tolerance=0)


def test_probabilities_make_the_targets_of_their_logits(tmp_path: Path) -> None:
    dumps = [{name: torch.softmax(torch.tensor(z), 1).numpy() for name, z in dump.items()} for dump in members_logits()]
    expected = toy_posteriors.write(tmp_path / "own", StoreOptions(top_k=7))
    found = imported(tmp_path, dumps, "probabilities", StoreOptions(top_k=7))
    for temperature in (1.0, 5.0):
        for a, b in zip(*(store.targets(torch.arange(100), temperature) for store in (found, expected)), strict=True):
            torch.testing.assert_close(a, b, atol=2e-3, rtol=2e-3)
    with pytest.raises(InputError, match="like probabilities: --kind probabilities"):
        imported(tmp_path / "again", [dumps[0]], "logits", StoreOptions(), as_npz_in_new_folder)


def as_npz_in_new_folder(path: Path, dump: Dump) -> Path:
    path.parent.mkdir()
    return as_npz(path, dump)


def test_flat_posteriors_and_zeros_are_noted(tmp_path: Path) -> None:
    labels = torch.arange(10).repeat_interleave(60)
    wanted = TrainingFrames(toy_posteriors.Frames(("a-1",), torch.tensor([0, 600])), labels, 10, "tree0")
    sure = torch.nn.functional.one_hot(labels, 10).numpy()
    for values, note in ((0.01 * sure + 0.099, "right in 100.0% of the frames, and its mean posterior is 10.9%"),):
        path = as_npz(tmp_path / "flat", {"a-1": values})
        _, (report,) = import_posteriors([path], "probabilities", wanted, StoreOptions(), tmp_path / "store", False)
        assert note in report.notes()[0]
    path = as_npz(tmp_path / "zeros", {"a-1": sure.astype(np.float32)})
    _, (report,) = import_posteriors([path], "probabilities", wanted, StoreOptions(), tmp_path / "store", False)
    assert report.notes()[0].startswith("5400 posteriors (90%) are zero and were made 1e-10 or less")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sp1.0-c-3", "for c-3, the file has sp1.0-c-3: ids must be equal"),
        ("c-3.wav", "for c-3, the file has c-3.wav: ids must be equal"),
        ("3", "for c-3, the file has 3: ids must be equal"),
        ("z-9", r"\(1 of 3 utterances are missing\)"),
    ],
)
def test_an_id_that_is_written_in_another_way_is_named(tmp_path: Path, name: str, message: str) -> None:
    dump = members_logits()[0]
    dump[name] = dump.pop("c-3")
    with pytest.raises(InputError, match=f"expected posteriors of c-3, found none .*{message}"):
        imported(tmp_path, [dump], "logits", StoreOptions())


def test_copies_at_other_speeds_need_posteriors(tmp_path: Path) -> None:
    utterances = toy_posteriors.Frames(("a-1", "b-2", "sp0.9-a-1"))
    wanted = TrainingFrames(utterances, frames().labels, NUM_CLASSES, "tree0")
    dump = members_logits()[0]
    del dump["c-3"]
    with pytest.raises(InputError, match=r"of sp0.9-a-1, found none .*--features.speed-factors 1.0 in the run"):
        import_posteriors([as_npz(tmp_path / "a", dump)], "logits", wanted, StoreOptions(), tmp_path / "store", False)


def test_attribute_files_of_macos_are_no_utterances(tmp_path: Path) -> None:
    dump = as_npy(tmp_path / "dump", members_logits()[0])
    (dump / "._c-3.npy").write_bytes(b"attributes")
    import_posteriors([dump], "logits", frames(), StoreOptions(), tmp_path / "store", False)


def test_a_damaged_size_in_an_archive_is_one_line(tmp_path: Path) -> None:
    """kaldi_native_io ends the process where a matrix is said to have more rows than there is memory for."""
    path = as_kaldi(tmp_path / "a", members_logits()[0])
    content = (tmp_path / "a.ark").read_bytes()
    start = content.index(b"FM \4") + 4
    (tmp_path / "a.ark").write_bytes(content[:start] + b"\x28\x00\x00\x70" + content[start + 4 :])
    with pytest.raises(InputError, match=r"a.ark:4: expected a Kaldi matrix, found one of 1879048232 rows and 30 col"):
        import_posteriors([path], "logits", frames(), StoreOptions(), tmp_path / "store", False)
    (tmp_path / "a.ark").write_bytes(content[:200])
    with pytest.raises(InputError, match=r"a.ark:4: expected a Kaldi matrix, found one of 40 rows .* cut off"):
        import_posteriors([path], "logits", frames(), StoreOptions(), tmp_path / "store", False)
    os.mkfifo(tmp_path / "pipe")
    for location, found in (
        (f"{tmp_path}/pipe", "no such file"),
        (f"{tmp_path}/a.ark:{10**20}", "the end of the file"),
    ):
        path.write_text("".join(f"{utt_id} {location}\n" for utt_id in UTTERANCES.utt_ids))
        with pytest.raises(InputError, match=f"{location}: expected a Kaldi matrix, found {found}"):
            import_posteriors([path], "logits", frames(), StoreOptions(), tmp_path / "store", False)


def test_utterances_with_the_posteriors_of_others_are_named(tmp_path: Path) -> None:
    """Over all frames they are too few for the classes to look strange."""
    labels = torch.arange(10).repeat_interleave(8).repeat(10)
    utt_ids = tuple(f"u{number}" for number in range(10))
    wanted = TrainingFrames(toy_posteriors.Frames(utt_ids, torch.arange(0, 801, 80)), labels, 10, "tree0")
    logits = 5 * torch.nn.functional.one_hot(labels[:80], 10).float().numpy() - 1
    dump = {utt_id: logits[::-1].copy() if utt_id == "u3" else logits for utt_id in utt_ids}
    path = as_npz(tmp_path / "a", dump)
    _, (report,) = import_posteriors([path], "logits", wanted, StoreOptions(), tmp_path / "store", False)
    assert (
        report.disagreeing == ("u3",) and "1 utterances agree with their labels in less than half" in report.notes()[-1]
    )
