"""The training loop, its schedules and its evaluation."""

import logging
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from asrkd.errors import InputError
from asrkd.nnet import (
    ArrayInputs,
    DevSet,
    HardTargets,
    TrainOptions,
    evaluate,
    iter_logits,
    learning_rate_at,
    train,
)
from asrkd.nnet.checkpoint import CHECKPOINT_NAME
from asrkd.nnet.cuda_graph import can_use_cuda_graph
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.model_options import ModelOptions
from asrkd.nnet.options import num_stalls
from asrkd.nnet.training_data import TrainingData
from asrkd.workflow.distributed import SINGLE_PROCESS, ProcessGroup

SHAPE = ModelOptions(hidden_dim=32, num_layers=2, dropout=0.1)
QUIET = TrainOptions(epochs=4, batch_size=64, learning_rate=3e-3, show_progress=False, precision="float32")


def clouds(num_examples: int, seed: int, num_classes: int = 5, dim: int = 8) -> tuple[Tensor, Tensor]:
    """Gaussian clouds around fixed centres, and the cloud of each point."""
    centres = torch.randn(num_classes, dim, generator=torch.Generator().manual_seed(0)) * 1.5
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_classes, (num_examples,), generator=generator)
    return centres[labels] + torch.randn(num_examples, dim, generator=generator), labels


@pytest.fixture
def data():
    x, y = clouds(1000, 1)
    dev_x, dev_y = clouds(400, 2)
    return ArrayInputs(x), y, ArrayInputs(dev_x), dev_y


def run(data, out_dir, shape=SHAPE, frame_ids=None, data_seed=0, **changes):
    inputs, labels, dev_inputs, dev_labels = data
    options = replace(QUIET, seed=data_seed, **changes)
    model = AcousticDnn(inputs.dim, 5, shape)
    dev = DevSet(dev_inputs, dev_labels)
    result = train(model, inputs, HardTargets(labels), options, out_dir, dev=dev, frame_ids=frame_ids)
    return model, result


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "sgd", "learning_rate": 0.05},
        {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.0},
        {"schedule": "newbob"},
        {"average_decay": 0.9},
        {"beta2": 0.9},
        {"clip_norm": 1.0},
        {"precision": "bfloat16"},
    ],
)
def test_learns_clouds(data, tmp_path, changes):
    model, result = run(data, tmp_path, **changes)
    assert result.history[result.best_epoch]["dev_accuracy"] > 0.85
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
    accuracy, cross_entropy = evaluate(model, data[2], data[3])
    assert accuracy == result.history[result.best_epoch]["dev_accuracy"]
    assert cross_entropy == pytest.approx(result.history[result.best_epoch]["dev_loss"])
    loaded = AcousticDnn.load(result.model_path)
    assert torch.equal(weights(loaded), weights(model))
    assert (tmp_path / "history.json").is_file()
    assert not (tmp_path / CHECKPOINT_NAME).exists()


def test_every_epoch_is_a_line_of_the_log(data, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="asrkd"):
        _, result = run(data, tmp_path, epochs=2)
    lines = [record.getMessage() for record in caplog.records if record.name == "asrkd.nnet.trainer"]
    assert len(lines) == 2
    for number, (line, epoch) in enumerate(zip(lines, result.history, strict=True), start=1):
        assert line.startswith(f"train: epoch {number} of 2: train loss {epoch['train_loss']:.4f}, ")
        assert f"dev accuracy {epoch['dev_accuracy']:.4f}, dev cross-entropy {epoch['dev_loss']:.4f}" in line
        assert f"learning rate {epoch['lr']:.3g}, {epoch['seconds']:.1f} s, " in line


def test_same_seed_same_bits_other_seed_other_order(data, tmp_path):
    first, _ = run(data, tmp_path / "a")
    again, _ = run(data, tmp_path / "b")
    assert torch.equal(weights(first), weights(again))
    other_order, _ = run(data, tmp_path / "c", data_seed=1)
    assert not torch.equal(weights(first), weights(other_order))


def test_global_generator_plays_no_part(data, tmp_path):
    torch.manual_seed(1)
    first, _ = run(data, tmp_path / "a")
    torch.manual_seed(2)
    second, _ = run(data, tmp_path / "b")
    assert torch.equal(weights(first), weights(second))


def test_one_sgd_step_by_hand(tmp_path):
    inputs = ArrayInputs(torch.tensor([[1.0, 2.0]]))
    shape = ModelOptions(hidden_dim=3, num_layers=1, dropout=0.0)
    model = AcousticDnn(2, 2, shape, seed=1)
    reference = AcousticDnn(2, 2, shape, seed=1)
    options = TrainOptions(
        epochs=1, batch_size=8, optimizer="sgd", learning_rate=0.1, momentum=0.0, weight_decay=0.0,
        schedule="constant", warmup_fraction=0.0, show_progress=False, precision="float32",
    )  # fmt: skip
    train(model, inputs, HardTargets(torch.tensor([1])), options, tmp_path)
    loss = -torch.log_softmax(reference(inputs.values), dim=1)[0, 1]
    loss.backward()
    for trained, start in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(trained.detach(), start.detach() - 0.1 * start.grad)


def test_two_adamw_steps_by_hand(tmp_path):
    """Loshchilov and Hutter (2019), algorithm 2, with decays of the moments that are not the usual ones."""
    inputs, labels = ArrayInputs(torch.tensor([[1.0, 2.0]])), torch.tensor([1])
    model, reference = (AcousticDnn(2, 2, ModelOptions(3, 1, dropout=0.0), seed=1) for _ in range(2))
    rate, beta1, beta2, decay = 0.3, 0.8, 0.6, 0.1
    options = TrainOptions(
        epochs=2, batch_size=8, learning_rate=rate, momentum=beta1, beta2=beta2, weight_decay=decay,
        schedule="constant", warmup_fraction=0.0, show_progress=False, precision="float32",
    )  # fmt: skip
    train(model, inputs, HardTargets(labels), options, tmp_path)
    first = [torch.zeros_like(p) for p in reference.parameters()]
    second = [torch.zeros_like(p) for p in reference.parameters()]
    for step in (1, 2):
        reference.zero_grad()
        torch.nn.functional.cross_entropy(reference(inputs.values), labels).backward()
        for p, m, v in zip(reference.parameters(), first, second, strict=True):
            m.copy_(beta1 * m + (1 - beta1) * p.grad)
            v.copy_(beta2 * v + (1 - beta2) * p.grad**2)
            kept = 1 - rate * decay if p.dim() == 2 else 1.0
            moved = rate * (m / (1 - beta1**step)) / ((v / (1 - beta2**step)).sqrt() + 1e-8)
            p.data.mul_(kept).sub_(moved)
    torch.testing.assert_close(weights(model), weights(reference))


def test_weight_decay_spares_biases(tmp_path):
    inputs = ArrayInputs(torch.zeros(4, 2))
    model = AcousticDnn(2, 2, ModelOptions(hidden_dim=3, num_layers=1, dropout=0.0), seed=1)
    with torch.no_grad():
        model.layers[0].bias.fill_(-1.0)  # dead units: no gradient reaches the first layer
    before = model.layers[0].weight.detach().clone()
    options = TrainOptions(
        epochs=1, batch_size=4, learning_rate=0.1, weight_decay=0.5, schedule="constant", warmup_fraction=0.0,
        show_progress=False, precision="float32",
    )  # fmt: skip
    train(model, inputs, HardTargets(torch.zeros(4, dtype=torch.long)), options, tmp_path)
    torch.testing.assert_close(model.layers[0].weight.detach(), before * (1 - 0.1 * 0.5))
    assert model.layers[0].bias.eq(-1.0).all()


def test_frame_ids_limit_training_to_them(data, tmp_path):
    inputs, labels, dev_inputs, dev_labels = data
    poisoned = inputs.values.clone()
    poisoned[500:] = float("nan")
    ids = torch.arange(500)
    clean, _ = run(data, tmp_path / "a", frame_ids=ids)
    same, _ = run((ArrayInputs(poisoned), labels, dev_inputs, dev_labels), tmp_path / "b", frame_ids=ids)
    assert torch.equal(weights(clean), weights(same))


def test_max_norm_holds_after_training(data, tmp_path):
    shape = ModelOptions(hidden_dim=32, num_layers=2, max_norm=0.8)
    model, _ = run(data, tmp_path, shape=shape)
    assert all(layer.weight.norm(dim=1).max() <= 0.8 + 1e-6 for layer in model.layers[:-1])


def test_best_epoch_is_kept_not_the_last(data, tmp_path):
    """A learning rate that explodes late must not spoil what is kept."""
    _, _, dev_inputs, dev_labels = data
    model, result = run(data, tmp_path, epochs=6, learning_rate=1.5, schedule="constant", select_by="cross_entropy")
    losses = [epoch["dev_loss"] for epoch in result.history]
    assert result.best_epoch == losses.index(min(losses))
    assert evaluate(model, dev_inputs, dev_labels)[1] == pytest.approx(min(losses), rel=1e-5)


def test_patience_stops_early(data, tmp_path):
    _, result = run(data, tmp_path, epochs=50, learning_rate=1.0, schedule="constant", patience=3)
    assert len(result.history) < 50
    assert len(result.history) - 1 - result.best_epoch == 3


def test_finished_training_is_loaded_and_other_targets_train_anew(data, tmp_path, monkeypatch):
    model, result = run(data, tmp_path)
    monkeypatch.setattr("asrkd.nnet.trainer.run_epoch", lambda *_: pytest.fail("trained a finished model"))
    again, same = run(data, tmp_path)
    assert torch.equal(weights(model), weights(again))
    assert same.history == result.history
    monkeypatch.undo()
    inputs, labels, dev_inputs, dev_labels = data
    other, _ = run((inputs, labels.flip(0), dev_inputs, dev_labels), tmp_path)
    assert not torch.equal(weights(model), weights(other))


@pytest.mark.parametrize("changed", ["precision", "dev"])
def test_other_arithmetic_and_another_judge_train_anew(data, tmp_path, monkeypatch, changed):
    inputs, labels, dev_inputs, dev_labels = data
    run(data, tmp_path, precision="float32")

    class Retrained(Exception):
        pass

    def retrain(*_):
        raise Retrained

    monkeypatch.setattr("asrkd.nnet.trainer.run_epoch", retrain)
    precision = "bfloat16" if changed == "precision" else "float32"
    eval_set = dev_labels.flip(0) if changed == "dev" else dev_labels
    with pytest.raises(Retrained):
        run((inputs, labels, dev_inputs, eval_set), tmp_path, precision=precision)


def test_loss_that_is_not_finite_names_epoch_and_step(data, tmp_path):
    inputs, labels, _, _ = data
    values = inputs.values.clone()
    values[17, 3] = float("nan")
    with pytest.raises(InputError, match=r"loss is nan at epoch 0, step \d+"):
        run((ArrayInputs(values), labels, data[2], data[3]), tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_unfitting_data_are_named(data, tmp_path):
    inputs, labels, dev_inputs, _ = data
    model = AcousticDnn(9, 5, SHAPE)
    with pytest.raises(InputError, match="expected 9 values each, found 8"):
        train(model, inputs, HardTargets(labels), QUIET, tmp_path)
    model = AcousticDnn(8, 5, SHAPE)
    with pytest.raises(InputError, match="expected 400 labels, found 1000"):
        DevSet(dev_inputs, labels)
    with pytest.raises(InputError, match="0 to 999, found 5 to 1000"):
        train(model, inputs, HardTargets(labels), QUIET, tmp_path, frame_ids=torch.tensor([5, 1000]))
    with pytest.raises(InputError, match="labels: expected 0 to 4, found 0 to 5"):
        train(model, inputs, HardTargets(labels.masked_fill(labels == 4, 5)), QUIET, tmp_path)
    unlabelled = labels.masked_fill(labels == 4, -1)
    with pytest.raises(InputError, match="labels: expected 0 to 4, found -1 to 3"):
        train(model, inputs, HardTargets(unlabelled), QUIET, tmp_path)
    with pytest.raises(InputError, match="at least one frame"):
        train(
            model,
            inputs,
            HardTargets(labels),
            QUIET,
            tmp_path,
            frame_ids=torch.tensor([], dtype=torch.long),
        )


def test_label_smoothing_is_a_mixture_with_uniform():
    logits = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    log_probs = torch.log_softmax(logits, dim=1)
    expected = -(0.9 * log_probs[torch.arange(6), labels] + 0.1 * log_probs.mean(dim=1)).mean()
    smoothed = HardTargets(labels, label_smoothing=0.1)(logits, torch.arange(6))
    torch.testing.assert_close(smoothed, expected)


def test_evaluate_by_hand_and_without_the_unlabelled():
    class Table(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.anchor = torch.nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return x

    probs = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    accuracy, nats = evaluate(Table(), ArrayInputs(probs.log()), torch.tensor([0, 2, -1]))
    assert accuracy == 0.5
    assert nats == pytest.approx(-(math.log(0.5) + math.log(0.1)) / 2)
    assert evaluate(Table(), ArrayInputs(probs.log()), torch.tensor([0, 2, 2]), ids=torch.tensor([2]))[0] == 1.0


def test_logits_do_not_depend_on_the_chunk(data):
    model = AcousticDnn(8, 5, SHAPE)

    def logits(**changes):
        return torch.cat([part for _, part in iter_logits(model, data[0], **changes)])

    whole = logits(chunk=10_000)
    assert whole.shape == (1000, 5)
    torch.testing.assert_close(logits(chunk=7), whole)
    ids = torch.tensor([5, 3])
    torch.testing.assert_close(logits(ids=ids), whole[ids])


def schedule(name, num_steps=100, history=(), **changes):
    options = TrainOptions(learning_rate=2.0, schedule=name, warmup_fraction=0.1, **changes)
    return [learning_rate_at(options, step, num_steps, history) for step in range(num_steps)]


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_schedules_rise_to_the_peak_and_fall_towards_zero(name):
    rates = schedule(name)
    assert max(rates) == rates[10] == 2.0
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[0] < 0.2
    assert 0 < rates[-1] < 0.05
    assert rates[55] == pytest.approx(1.0)


def test_newbob_halves_at_each_stall():
    assert num_stalls([]) == num_stalls([3.0]) == 0
    assert num_stalls([3.0, 2.0, 1.999, 2.5, 1.5]) == 2
    history = [{"dev_loss": loss} for loss in (3.0, 2.0, 1.999, 2.5, 1.5)]
    assert schedule("newbob", history=history)[-1] == 0.5


def test_options_name_what_is_wrong():
    with pytest.raises(InputError, match=r"train.learning_rate: expected a positive rate, found 0"):
        TrainOptions(learning_rate=0)
    with pytest.raises(InputError, match=r"train.patience"):
        TrainOptions(patience=0)
    with pytest.raises(InputError, match=r"train.clip_norm: expected a positive norm or none, found 0"):
        TrainOptions(clip_norm=0)


def test_compiled_or_not_a_training_comes_to_the_same(data, tmp_path):
    if not hasattr(torch, "compile"):
        with pytest.raises(InputError, match=r"train\.compile: expected torch 2, found 1"):
            run(data, tmp_path, compile=True)
        return
    shape = replace(SHAPE, dropout=0.0)
    plain, _ = run(data, tmp_path / "plain", shape, precision="float32", epochs=2)
    counted = torch._dynamo.utils.counters["stats"]
    before = counted["unique_graphs"]
    model, _ = run(data, tmp_path / "compiled", shape, precision="float32", epochs=2, compile=True)
    assert counted["unique_graphs"] > before, "something was compiled"
    for found, expected in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_when_steps_can_be_a_cuda_graph(monkeypatch):
    monkeypatch.setattr(torch.cuda.CUDAGraph, "register_generator_state", None, raising=False)

    class OnGpu:
        device = torch.device("cuda", 0)

    on_gpu = OnGpu()

    def able(inputs=on_gpu, objective=on_gpu, ranks=SINGLE_PROCESS, device="cuda:0", **changes):
        data = TrainingData(inputs, objective, torch.arange(2))
        return can_use_cuda_graph(data, TrainOptions(**changes), ranks, torch.device(device))

    assert able()
    on_cpu, labels = ArrayInputs(torch.zeros(2, 3)), HardTargets(torch.zeros(2, dtype=torch.long))
    assert not able(inputs=on_cpu) and not able(objective=labels) and not able(device="cpu")
    assert not able(device="cuda:1"), "another GPU than the inputs'"
    assert not able(cuda_graph=False) and not able(compile=True) and not able(shard_frames=10_000)
    assert not able(ranks=ProcessGroup(0, 2))
    monkeypatch.delattr(torch.cuda.CUDAGraph, "register_generator_state")
    assert not able(), "before torch 2.4"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_learns_on_a_gpu(data, tmp_path, precision):
    _, result = run(data, tmp_path, device="cuda", precision=precision)
    assert result.history[result.best_epoch]["dev_accuracy"] > 0.85
