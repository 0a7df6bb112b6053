"""The top-k posterior store."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from toy_posteriors import NUM_CLASSES, make_ensemble, make_inputs, write

from asrkd.distil import store_report as report_module
from asrkd.distil.compression import Compressed, StoreOptions, combined_logits, compress, expand
from asrkd.distil.ensemble import combine
from asrkd.distil.loss import DenseTargets, Distillation, DistilOptions
from asrkd.distil.store import COLUMNS, STORE_FILES, PosteriorStore
from asrkd.distil.store_report import store_report
from asrkd.errors import InputError
from asrkd.files import load_tensors, read_json, write_json
from asrkd.nnet import ArrayInputs
from asrkd.workflow import append_store


def dense_probs(mean: str, temperature: float) -> Tensor:
    with torch.no_grad():
        return combine(make_ensemble()(make_inputs().values), temperature, mean).exp()


@pytest.mark.parametrize(("mean", "temperatures"), [("geometric", (1.0, 2.0, 5.0, 10.0)), ("arithmetic", (2.0,))])
def test_targets_are_the_ensembles_top_and_tail(tmp_path, mean, temperatures):
    store = write(tmp_path / "s", StoreOptions(top_k=7, mean=mean, temperatures=temperatures), chunk=33)
    ids = torch.tensor([99, 0, 40, 41, 7])
    for temperature in temperatures:
        dense = dense_probs(mean, temperature)[ids]
        found = store.targets(ids, temperature)
        assert torch.equal(found.pdf_ids, dense.topk(7, dim=1).indices)
        torch.testing.assert_close(found.probs, dense.gather(1, found.pdf_ids), atol=2e-3, rtol=5e-3)
        torch.testing.assert_close(found.probs.sum(dim=1) + found.tail, torch.ones(5))
        expected_tail = dense.scatter(1, found.pdf_ids, 0.0).sum(dim=1)
        torch.testing.assert_close(found.tail, expected_tail, atol=2e-3, rtol=5e-3)


def test_every_class_kept_is_dense(tmp_path):
    store = write(tmp_path / "s", StoreOptions(top_k=50))
    found = store.targets(torch.arange(100), 2.0)
    assert found.pdf_ids.shape == (100, NUM_CLASSES)
    assert found.tail.eq(0).all()
    dense = torch.zeros(100, NUM_CLASSES).scatter(1, found.pdf_ids, found.probs)
    torch.testing.assert_close(dense, dense_probs("geometric", 2.0), atol=2e-3, rtol=5e-3)


@given(
    seed=st.integers(0, 1000),
    k=st.integers(1, 20),
    spread=st.floats(0.0, 40.0),
    t=st.sampled_from([1.0, 4.0]),
)
@settings(max_examples=50, deadline=None)
def test_rounding_properties(seed, k, spread, t):
    """Whatever the logits, targets are a distribution, likeliest first, each logit off by half a step at most."""
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(seed)) * spread
    options = StoreOptions(top_k=k, temperatures=(t,))
    rows = compress(logits, options)
    found = expand(rows, 0, t)
    torch.testing.assert_close(found.probs.sum(dim=1) + found.tail, torch.ones(3))
    assert (found.probs[:, :-1] >= found.probs[:, 1:]).all()
    assert rows.logits.max() == 0.0
    exact = (logits - logits.amax(dim=1, keepdim=True)).gather(1, found.pdf_ids)
    depth = -exact[:, -1:]
    # d(depth x^2) = 2 depth x dx, with x = sqrt(-z / depth) and dx = 1/510; the depth itself is rounded to 11 bits
    half_step = (2 * (depth * -exact).sqrt() + depth / 255) / 510
    assert ((rows.logits - exact).abs() <= half_step + 2**-10 * depth + 1e-6).all()


def test_what_rounding_costs_is_far_below_a_hundredth_of_a_nat():
    """Logits as spread as a trained ensemble's (some 20 nats down to the 28th of 1,000 classes)."""
    logits = torch.randn(500, 1000, generator=torch.Generator().manual_seed(0)) * 10
    options = StoreOptions(temperatures=(1.0, 2.0))
    rows = compress(logits, options)
    assert 10 < float(rows.depth.float().mean()) < 30
    for column, temperature in enumerate(options.temperatures):
        dense = torch.log_softmax(logits.double() / temperature, dim=1)
        _, kl_lumped, _ = report_module._losses(dense, expand(rows, column, temperature)) / len(logits)
        assert 0 <= float(kl_lumped) < 2e-4


def test_impossible_classes_stay_impossible():
    """A dump of log-posteriors may hold log 0; then the possible ones keep their ratio."""
    log_probs = torch.tensor([[0.5, 0.0, 0.25, 0.25, 0.0]]).log()
    for temperature in (1.0, 10.0):
        found = expand(compress(log_probs, StoreOptions(top_k=4, temperatures=(temperature,))), 0, temperature)
        expected = torch.softmax(log_probs / temperature, dim=1).gather(1, found.pdf_ids)
        torch.testing.assert_close(found.probs, expected, atol=0.03, rtol=0.0)
        assert float(found.probs[0, 3]) < 1e-40 and float(found.tail) < 1e-40


def test_a_store_of_an_earlier_format_is_refused(tmp_path):
    write(tmp_path / "s")
    index = read_json(tmp_path / "s" / "store.json")
    del index["format"]
    write_json(tmp_path / "s" / "store.json", index)
    with pytest.raises(InputError, match="expected posteriors of format 3, found 1: make them again"):
        PosteriorStore.open(tmp_path / "s")


def test_class_numbers_beyond_15_bits():
    logits = torch.zeros(1, 40_000)
    logits[0, [39_999, 32_768, 5]] = torch.tensor([9.0, 8.0, 7.0])
    found = expand(compress(logits, StoreOptions(top_k=3)), 0, 1.0)
    assert found.pdf_ids.tolist() == [[39_999, 32_768, 5]]
    with pytest.raises(InputError, match="at most 65536 classes, found 65537"):
        compress(torch.zeros(1, 65_537), StoreOptions())


def test_bytes_a_frame_are_what_the_file_takes(tmp_path):
    store = write(tmp_path / "s")
    assert store.bytes_per_frame == 28 * 3 + 2 + 4 * 2 == 94
    num_bytes = 0
    for name in COLUMNS:
        tensors, metadata = load_tensors(tmp_path / "s" / f"{name}.safetensors")
        num_bytes += tensors[name].numel() * tensors[name].element_size()
        assert list(tensors) == [name] and metadata == {"fingerprint": store.fingerprint}
    assert num_bytes == 94 * 100


def test_a_temperature_that_is_not_stored_is_refused(tmp_path):
    geometric = write(tmp_path / "g", StoreOptions(temperatures=(1.0, 2.0)))
    with pytest.raises(InputError, match=r"geometric mean is stored at, \(1.0, 2.0\), found 3.0"):
        geometric.targets(torch.tensor([0]), 3.0)
    with pytest.raises(InputError, match="one temperature with the arithmetic mean"):
        StoreOptions(mean="arithmetic")


def test_another_configurations_store_is_refused(tmp_path):
    store = write(tmp_path / "s")
    store.require("frames0", "tree0")
    with pytest.raises(InputError, match="expected frames frames1, found frames0"):
        store.require("frames1", "tree0")
    with pytest.raises(InputError, match="expected senone tree tree1, found tree0"):
        store.require("frames0", "tree1")


def test_fingerprint_follows_teachers_and_options(tmp_path):
    base = write(tmp_path / "a").fingerprint
    assert write(tmp_path / "b", ensemble=make_ensemble()).fingerprint == base
    assert write(tmp_path / "c", ensemble=make_ensemble(seed=5)).fingerprint != base
    assert write(tmp_path / "d", StoreOptions(top_k=9)).fingerprint != base


class Interrupted(Exception):
    pass


class FailingInputs(ArrayInputs):
    """Inputs that fail after a number of batches."""

    def __init__(self, values: Tensor, batches: int) -> None:
        super().__init__(values)
        self.left = batches
        self.asked: list[int] = []

    def batch(self, ids, generator=None):
        if self.left == 0:
            raise Interrupted
        self.left -= 1
        self.asked += ids.tolist()
        return super().batch(ids, generator)


def test_interrupted_writing_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(append_store, "COMMIT_BYTES", 20 * 94)
    whole = write(tmp_path / "whole", chunk=10)
    values = make_inputs().values
    with pytest.raises(Interrupted):
        write(tmp_path / "cut", chunk=10, inputs=FailingInputs(values, 5))
    with pytest.raises(InputError, match="no such file"):
        PosteriorStore.open(tmp_path / "cut")
    rest = FailingInputs(values, 100)
    resumed = write(tmp_path / "cut", chunk=10, inputs=rest)
    assert min(rest.asked) == 40, "four chunks were committed, the fifth was not"
    assert resumed.fingerprint == whole.fingerprint
    assert all(torch.equal(a, b) for a, b in zip(resumed._rows, whole._rows, strict=True))
    assert {path.name for path in (tmp_path / "cut").iterdir()} == {*STORE_FILES}


@pytest.mark.parametrize("killed_at", ["write_json", "publish_dir", "what comes after"])
def test_a_writing_that_was_killed_after_its_last_frame_computes_none_again(tmp_path, monkeypatch, killed_at):
    def kill(*arguments):
        raise Interrupted

    values = make_inputs().values
    if killed_at == "what comes after":
        write(tmp_path / "s", chunk=10)
    else:
        with monkeypatch.context() as patch:
            patch.setattr(append_store, killed_at, kill)
            with pytest.raises(Interrupted):
                write(tmp_path / "s", chunk=10)
        assert not (tmp_path / "s").exists()
    none_asked = FailingInputs(values, 0)
    found = write(tmp_path / "s", chunk=10, inputs=none_asked)
    assert none_asked.asked == []
    expected = write(tmp_path / "fresh")
    assert all(torch.equal(a, b) for a, b in zip(found._rows, expected._rows, strict=True))
    assert {path.name for path in (tmp_path / "s").iterdir()} == {*STORE_FILES}


def test_a_cut_writing_of_other_teachers_is_not_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr(append_store, "COMMIT_BYTES", 20 * 94)
    with pytest.raises(Interrupted):
        write(tmp_path / "s", chunk=10, inputs=FailingInputs(make_inputs().values, 5))
    other = make_ensemble(seed=9)
    expected = write(tmp_path / "fresh", ensemble=other)
    found = write(tmp_path / "s", ensemble=other)
    assert all(torch.equal(a, b) for a, b in zip(found._rows, expected._rows, strict=True))


def test_frames_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(InputError, match="expected 100 inputs, found 99"):
        write(tmp_path / "s", inputs=make_inputs(99))


def test_a_student_learns_from_it_as_from_dense_targets(tmp_path):
    store = write(tmp_path / "s", StoreOptions(top_k=NUM_CLASSES))
    ids = torch.arange(100)
    logits = torch.randn(100, NUM_CLASSES, generator=torch.Generator().manual_seed(2))
    options = DistilOptions(alpha=1.0, temperature=2.0)
    dense = DenseTargets(dense_probs("geometric", 2.0), 2.0)
    from_store = Distillation(None, store, options)(logits, ids)
    from_dense = Distillation(None, dense, options)(logits, ids)
    torch.testing.assert_close(from_store, from_dense, rtol=1e-3, atol=0)


def test_report_falls_with_k_and_vanishes_when_all_is_kept():
    rows = store_report(make_ensemble(), make_inputs(), StoreOptions(top_k=5), top_ks=(2, 20, 40), chunk=17)
    assert [row["top_k"] for row in rows[::4]] == [2, 5, 20, 30]
    for temperature in (1.0, 2.0, 5.0, 10.0):
        kl = [row["kl_to_dense"] for row in rows if row["temperature"] == temperature]
        assert kl == sorted(kl, reverse=True)
        assert kl[-1] == pytest.approx(0.0, abs=1e-4)
    for row in rows:
        assert -1e-6 <= row["kl_lumped"] <= row["kl_to_dense"] + 1e-6
        assert row["bytes_per_frame"] == 3 * row["top_k"] + 10
        assert row["chosen"] == (row["top_k"] == 5)


def test_report_by_hand():
    """Dense 1/2, 1/4, 1/8, 1/8 kept with k = 1: the tail of 1/2 spread evenly over three classes."""
    dense = torch.tensor([[0.5, 0.25, 0.125, 0.125]], dtype=torch.float64).log()
    rows = Compressed(torch.tensor([[0]]).short(), torch.zeros(1, 1).byte(), *torch.zeros(2, 1, 1).half())
    losses = report_module._losses(dense, expand(rows, 0, 1.0))
    sixth = torch.tensor(6.0).log()
    expected = 0.25 * (sixth - torch.tensor(4.0).log()) + 0.25 * (sixth - torch.tensor(8.0).log())
    torch.testing.assert_close(losses, torch.stack([expected, torch.tensor(0.0), torch.tensor(0.5)]).double())


def test_combined_logits_have_the_mean_as_softmax():
    logits = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    for mean, temperatures in (("geometric", (1.0, 4.0)), ("arithmetic", (4.0,))):
        combined = combined_logits(logits, StoreOptions(mean=mean, temperatures=temperatures))
        for temperature in temperatures:
            torch.testing.assert_close(
                torch.softmax(combined / temperature, dim=1), combine(logits, temperature, mean).exp()
            )


def test_bfloat16_teachers_say_nearly_the_same_and_are_told_apart(tmp_path):
    options = StoreOptions(top_k=NUM_CLASSES, temperatures=(2.0,))
    exact = write(tmp_path / "float32", options)
    rounded = write(tmp_path / "bfloat16", options, precision="bfloat16")
    assert exact.fingerprint != rounded.fingerprint
    dense = [store_probs(store) for store in (exact, rounded)]
    kl = (dense[0] * (dense[0].log() - dense[1].log())).sum(dim=1).mean()
    # bfloat16 keeps 8 bits: an error of 2**-9 in logits of a spread of 4, squared and halved, is far below this
    assert 0 < float(kl) < 1e-3


def store_probs(store) -> Tensor:
    targets = store.targets(torch.arange(len(store)), 2.0)
    return torch.zeros(len(store), NUM_CLASSES).scatter(1, targets.pdf_ids, targets.probs)
