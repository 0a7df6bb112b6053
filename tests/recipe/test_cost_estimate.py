"""Cost estimates: counts worked out by hand, rates that scale them, and the options of a finished run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from asrkd.commands import main as cli
from asrkd.distil.compression import StoreOptions
from asrkd.errors import InputError
from asrkd.files import write_json
from asrkd.nnet import TrainOptions
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.model_options import ModelOptions
from asrkd.recipe.cost_estimate import Cost, CostOptions, Rates, cost_estimate, measure_rates, measured_costs
from asrkd.recipe.cost_estimate import options_of_run as estimate_of_run
from asrkd.recipe.memory_estimate import ID_BYTES, ID_BYTES_IN_SHARDS, PROCESS_BYTES, UTTERANCE_BYTES
from asrkd.recipe.network_cost import Network
from asrkd.workflow.steps import Record

SMALL = CostOptions(
    hours=1.0,
    copies=2,
    features=4,
    context=3,
    senones=7,
    phones=2,
    mono_rounds=2,
    tree_rounds=3,
    label_epochs=4,
    teachers=3,
    teacher=ModelOptions(5, 2, dropout=0.0),
    student=ModelOptions(2, 1, dropout=0.0),
    posteriors=StoreOptions(top_k=4, temperatures=(1.0, 2.0)),
    train=TrainOptions(epochs=10, batch_size=8),
    device="cpu",
)


def test_a_network_counts_as_the_model_does() -> None:
    network = Network(12, 7, SMALL.teacher)
    model = AcousticDnn(12, 7, SMALL.teacher)
    assert network.parameters == model.num_parameters == 12 * 5 + 5 + 5 * 5 + 5 + 5 * 7 + 7
    assert network.forward_flop == 2 * model.macs_per_frame == 2 * (60 + 25 + 35)
    # gradients of the weights of all layers, and of the inputs of all layers but the first
    assert network.training_flop == 240 + 240 + 2 * (25 + 35)


@pytest.mark.parametrize("kind", ["dnn", "cnn", "tdnn"])
def test_a_network_of_any_kind_counts_as_the_model_does(kind: str) -> None:
    network = Network(26 * 40, 30, ModelOptions(16, 3, kind=kind), frame_dim=40)
    model = network.build()
    assert (network.parameters, network.macs) == (model.num_parameters, model.macs_per_frame)
    options, rates = replace(SMALL, context=11), Rates(1e9, 1e9, 1e9, measured=False)
    costs = cost_estimate(replace(options, teacher=replace(SMALL.teacher, kind=kind)), rates)
    plain = cost_estimate(options, rates)
    assert costs[1:3] == plain[1:3], "labels come from feed-forward networks whatever the teachers are"
    assert (costs[3].flop == plain[3].flop) == (kind == "dnn")


def test_costs_by_hand() -> None:
    frames = 2 * 360_000
    features, align, tree, teachers, posteriors, student = cost_estimate(SMALL, Rates(1e9, 2e9, 4e9, measured=False))
    # Two rounds over 2 x 3 states and three over the senones, four epochs each.
    assert (align.flop, tree.flop) == (4 * frames * 2 * (6 * (60 + 25 + 5 * 6) - 2 * 60), 4 * frames * 3 * 600)
    assert tree.seconds == pytest.approx(tree.flop / 1e9)
    assert tree.wall_seconds(10) == tree.seconds, "one process trains them one after the other"
    assert features.disk_bytes == frames * 4 * 4
    assert teachers.flop == 3 * 10 * frames * 600
    assert teachers.seconds == pytest.approx(teachers.flop / 1e9)
    assert teachers.disk_bytes == 3 * 4 * 137
    assert posteriors.flop == 3 * frames * 240
    assert posteriors.seconds == pytest.approx(posteriors.flop / 4e9)
    assert posteriors.disk_bytes == frames * (4 * 3 + 2 + 2 * 2), "4 ids and levels, a depth, 2 tails"
    assert student.seconds == pytest.approx(10 * frames * (6 * (24 + 14) - 2 * 24) / 2e9)
    # All frames and their ids; labels and soft targets are mapped. Posteriors have no frames in memory.
    assert student.memory_bytes - PROCESS_BYTES == pytest.approx(frames * (4 * 4 + ID_BYTES), rel=0.1)
    assert posteriors.memory_bytes - PROCESS_BYTES < 10e6


def test_online_targets_by_hand() -> None:
    frames, rates = 2 * 360_000, Rates(1e9, 2e9, 4e9, measured=False)
    stored = cost_estimate(SMALL, rates)
    online = cost_estimate(replace(SMALL, student_epochs=30, online_teachers=1), rates)
    assert online[:4] == stored[:4], "teachers have their own epochs"
    posteriors, student = online[4:]
    assert (posteriors.flop, posteriors.disk_bytes) == (0.0, 0)
    learning, scoring = 30 * frames * (6 * (24 + 14) - 2 * 24), 30 * frames * 2 * 120
    assert student.flop == learning + scoring
    assert student.seconds == pytest.approx(learning / 2e9 + scoring / 4e9)
    of_all = cost_estimate(replace(SMALL, student_epochs=30, online_teachers=3), rates)[-1]
    assert of_all.flop == learning + 3 * scoring
    with pytest.raises(InputError, match="--online-teachers: expected 0 to 3, found 4"):
        replace(SMALL, online_teachers=4)


def test_shards_bound_the_memory() -> None:
    shards = replace(SMALL, train=replace(SMALL.train, shard_frames=1000))
    for options, frames in ((shards, 2000), (replace(shards, hours=1000.0), 2000), (SMALL, 720_000)):
        _, align, tree, teachers, _, student = cost_estimate(options, Rates(1e9, 1e9, 1e9, measured=False))
        ids = ID_BYTES if options is SMALL else ID_BYTES_IN_SHARDS
        process = PROCESS_BYTES + options.utterances * UTTERANCE_BYTES
        assert teachers.memory_bytes - process == pytest.approx(frames * (16 + ids), abs=3e6)
        assert tree.memory_bytes >= align.memory_bytes >= teachers.memory_bytes - 1e5  # which has more outputs
        assert student.memory_bytes <= teachers.memory_bytes + frames * 18


def test_memory_has_the_names_and_words_of_all_utterances() -> None:
    shards = replace(SMALL, hours=10.0, train=replace(SMALL.train, shard_frames=1000))
    short = replace(shards, utterance_sec=shards.utterance_sec / 2)
    assert (shards.utterances, short.utterances) == (2 * 3000, 2 * 6000)
    rates = Rates(1e9, 1e9, 1e9, measured=False)
    more = {
        of_short.part: of_short.memory_bytes - of_long.memory_bytes
        for of_short, of_long in zip(cost_estimate(short, rates), cost_estimate(shards, rates), strict=True)
    }
    assert more.pop("features") == 0
    assert min(more.values()) == more["teachers"] == more["student"] == 6000 * UTTERANCE_BYTES


def test_machines_share_the_posteriors_but_gpus_do_not() -> None:
    for device, jobs in (("cpu", 10), ("cuda", 1)):
        posteriors = cost_estimate(replace(SMALL, device=device, devices=10), Rates(1e9, 2e9, 4e9, measured=False))[4]
        assert posteriors.part == "posteriors" and posteriors.parallel_jobs == jobs


def test_devices_run_whole_jobs() -> None:
    cost = Cost("teachers", seconds=100.0, parallel_jobs=10)
    assert cost.wall_seconds(1) == pytest.approx(100.0)
    assert cost.wall_seconds(4) == pytest.approx(30.0), "ten jobs on four devices are three rounds"
    assert cost.wall_seconds(20) == pytest.approx(10.0)


def test_rates_are_measured_unless_given() -> None:
    measured = measure_rates(SMALL)
    assert measured.measured and min(measured.teacher, measured.student, measured.scoring) > 0
    given = measure_rates(CostOptions(flops=3e12))
    assert given == Rates(3e12, 3e12, 3e12, measured=False)


def test_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["estimate", "--hours", "10", "--flops", "1e12", "--teacher.num-layers", "3"]) == 0
    printed = capsys.readouterr().out
    assert "3,600,000 frames" in printed and "posteriors" in printed and "from --flops" in printed
    assert "10 teachers 3x1024, a student 4x512, 10 epochs" in printed
    for arguments, complaint in (
        (["--hours=-1", "--flops", "1e12"], "--hours: expected a positive number, found -1"),
        (["--run", str(tmp_path)], f"{tmp_path}: expected a finished run"),
        (["--train.device", "cuda"], "--train.device: give --device"),
    ):
        with pytest.raises(SystemExit) as exit_:
            cli.main(["estimate", *arguments])
        assert exit_.value.code == 2 and complaint in capsys.readouterr().err


@pytest.mark.needs("lhotse")
def test_a_run_of_any_recipe_is_read(tmp_path: Path) -> None:
    from asrkd import config
    from asrkd.recipe.options import LibrispeechSpeechOptions, SpeechOptions, options_of_run

    config.save(replace(LibrispeechSpeechOptions(), num_jobs=3), tmp_path / "config.json")
    assert options_of_run(tmp_path) == SpeechOptions(num_jobs=3, exp_dir=tmp_path)
    (tmp_path / "config.json").write_text('{"num_job": 3}')
    with pytest.raises(InputError, match="num_job"):
        options_of_run(tmp_path)


@pytest.mark.needs("lhotse")
def test_options_of_a_later_run_that_failed_are_refused(tmp_path: Path) -> None:
    from asrkd import config
    from asrkd.recipe.options import SpeechOptions

    options = SpeechOptions()
    record = Record("stamp", "content", {"teacher": options.teacher}, {}, 1.0, "2026-11-30T10:00:00+00:00", {})
    (tmp_path / "teachers" / "0").mkdir(parents=True)
    write_json(tmp_path / "teachers" / "0" / "stamp.json", record)
    config.save(replace(options, teacher=replace(options.teacher, num_layers=9)), tmp_path / "config.json")
    with pytest.raises(InputError, match=r"options of teachers/0, found others \(teacher: num_layers 4 -> 9\)"):
        estimate_of_run(tmp_path, "cpu", 1e12)


def test_the_costs_of_a_run_are_of_its_own_steps(tmp_path: Path) -> None:
    record = Record("stamp", "content", {}, {}, 1.0, "2026-11-30T10:00:00+00:00", {})
    folders = ("features/train", "align", "tree", "posteriors", "students/distilled")
    for name in (*folders, *(f"teachers/{member}" for member in range(5))):
        (tmp_path / name).mkdir(parents=True)
        write_json(tmp_path / name / "stamp.json", record)
    (tmp_path / "posteriors" / "store").mkdir()
    (tmp_path / "posteriors" / "store" / "pdf_ids.safetensors").write_bytes(bytes(7))
    measured = measured_costs(tmp_path, 2)
    assert measured["teachers"].seconds == 2.0 and measured["posteriors"].disk_bytes == 7


def test_impossible_options_are_refused() -> None:
    with pytest.raises(InputError, match="--flops"):
        CostOptions(flops=0.0)
