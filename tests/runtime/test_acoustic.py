"""Scores of exported networks: what torch gives, in one call, in chunks and as frames come."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_model import LEFT, MEL_BINS, NUM_PDFS, RIGHT, describe, log_prior, toy_scores

from asrkd.errors import InputError
from asrkd.features.cmvn import PRIOR_FRAMES, Moments, normalise
from asrkd.nnet import AcousticDnn, ModelOptions
from asrkd.recipe.export_network import ScoresOfFrames, require_any_length, write_int8, write_onnx
from asrkd.runtime import acoustic
from asrkd.runtime.acoustic import AcousticModel, Statistics

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    for cmvn in ("speaker", "none"):
        write_onnx(toy_scores(cmvn), MEL_BINS, folder / cmvn)
    write_int8(folder / "speaker", folder / "int8")
    return folder


def frames(number: int, seed: int = 0) -> np.ndarray:
    return (3 * np.random.default_rng(seed).standard_normal((number, MEL_BINS)) - 8).astype(np.float32)


def as_the_recipe(feats: np.ndarray, cmvn: str = "utterance") -> np.ndarray:
    """The recipe's steps: normalise, splice with copies of the edge frames, network, minus log-prior."""
    of_training = describe().normalisation
    prior = Moments(of_training.mean, of_training.mean_square)
    normalised = normalise([torch.from_numpy(feats)], cmvn, prior)[0]  # type: ignore[arg-type]
    padded = torch.cat([normalised[:1].expand(LEFT, -1), normalised, normalised[-1:].expand(RIGHT, -1)])
    spliced = torch.stack([padded[t : t + LEFT + 1 + RIGHT].flatten() for t in range(len(feats))])
    with torch.no_grad():
        return (F.log_softmax(toy_scores().network(spliced), dim=1) - log_prior()).numpy()


@pytest.mark.parametrize("number", [1, 2, 3, 50])
def test_the_recipes_scores(number: int, networks: Path) -> None:
    feats = frames(number)
    model = AcousticModel(networks / "speaker", describe("utterance"))
    np.testing.assert_allclose(model.scores(feats), as_the_recipe(feats), atol=1e-4)


def test_the_recipes_scores_online(networks: Path) -> None:
    feats = frames(700)
    described = describe("online")
    description = replace(described, normalisation=replace(described.normalisation, prior_frames=PRIOR_FRAMES))
    model = AcousticModel(networks / "speaker", description)
    np.testing.assert_allclose(model.scores(feats), as_the_recipe(feats, "online"), atol=1e-4)


def test_scores_without_normalisation(networks: Path) -> None:
    feats = frames(20)
    model = AcousticModel(networks / "none", describe("none"))
    np.testing.assert_allclose(model.scores(feats), as_the_recipe(feats, "none"), atol=1e-4)


def test_a_speakers_statistics_are_those_of_all_his_frames(networks: Path) -> None:
    one, other = frames(30), frames(50, seed=1) + 2
    model = AcousticModel(networks / "speaker", describe())
    together = normalise([torch.from_numpy(one), torch.from_numpy(other)], "speaker")
    found = model.scores(one, Statistics.of(one) + Statistics.of(other))
    unnormalised = AcousticModel(networks / "none", describe("none"))
    np.testing.assert_allclose(found, unnormalised.scores(together[0].numpy()), atol=1e-4)


def test_a_segment_alone_is_normalised_with_the_prior_too(networks: Path) -> None:
    feats = frames(30)
    model = AcousticModel(networks / "speaker", describe("speaker"))
    prior = Statistics.prior(describe().normalisation)
    np.testing.assert_array_equal(model.scores(feats), model.scores(feats, prior + Statistics.of(feats)))
    assert not np.allclose(model.scores(feats), model.scores(feats, Statistics.of(feats)), atol=1e-3)


def test_running_statistics_by_hand(networks: Path) -> None:
    feats = frames(40).astype(np.float64)
    normalisation = describe("online").normalisation
    mean, square = np.array(normalisation.mean), np.array(normalisation.mean_square)
    number = np.arange(1, 41)[:, None]
    weight = normalisation.prior_frames
    means = (mean * weight + feats.cumsum(0)) / (number + weight)
    squares = (square * weight + (feats**2).cumsum(0)) / (number + weight)
    normalised = ((feats - means) / np.sqrt(squares - means**2)).astype(np.float32)
    expected = AcousticModel(networks / "none", describe("none")).scores(normalised)
    found = AcousticModel(networks / "speaker", describe("online")).scores(feats.astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=8), last=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_a_stream_gives_the_scores_of_the_whole(networks: Path, sizes: list[int], last: int) -> None:
    feats = frames(sum(sizes) + last)
    model = AcousticModel(networks / "speaker", describe("online"))
    stream = model.stream()
    ends = np.cumsum([*sizes, last])
    parts = [stream.accept(feats[end - size : end]) for size, end in zip([*sizes, last], ends, strict=True)]
    given_early = sum(map(len, parts))
    assert given_early == max(len(feats) - RIGHT, 0)
    np.testing.assert_allclose(np.concatenate([*parts, stream.finish()]), model.scores(feats), atol=1e-4)


def test_statistics_of_a_stream_do_not_depend_on_its_parts() -> None:
    feats, prior = frames(101), Statistics.prior(describe().normalisation)
    whole = prior.plus(feats)
    in_parts = prior.plus(feats[:1]).plus(feats[1:40]).plus(feats[40:40]).plus(feats[40:])
    np.testing.assert_array_equal(whole.sums, in_parts.sums)
    assert whole.count == in_parts.count == 201.0


@pytest.mark.parametrize("chunk", [1, 7, 30])
def test_long_segments_are_scored_in_chunks(chunk: int, networks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feats = frames(95)
    models = [AcousticModel(networks / "speaker", describe(cmvn)) for cmvn in ("speaker", "online")]
    whole = [model.scores(feats) for model in models]
    monkeypatch.setattr(acoustic, "CHUNK_FRAMES", chunk)
    for model, expected in zip(models, whole, strict=True):
        np.testing.assert_allclose(model.scores(feats), expected, atol=1e-4)


def test_no_frames(networks: Path) -> None:
    model = AcousticModel(networks / "speaker", describe())
    assert model.scores(frames(0)).shape == (0, NUM_PDFS)
    assert model.stream().finish().shape == (0, NUM_PDFS)


def test_int8_weights_are_near(networks: Path) -> None:
    feats = frames(200)
    exact, rounded = (AcousticModel(networks / name, describe()).scores(feats) for name in ("speaker", "int8"))
    assert 0.0 < np.abs(exact - rounded).mean() < 0.3  # of scores down to -30


def test_another_network_is_one_line(networks: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no network")
    with pytest.raises(InputError, match=r"text: expected a network that onnxruntime reads, found none \("):
        AcousticModel(tmp_path / "text", describe())


@pytest.mark.parametrize("kind", ["dnn", "cnn", "tdnn"])
def test_every_kind_of_network_takes_any_number_of_frames(kind: str, tmp_path: Path) -> None:
    options = ModelOptions(hidden_dim=8, num_layers=2, dropout=0.1, kind=kind)  # type: ignore[arg-type]
    network = AcousticDnn(26 * 40, 5, options, frame_dim=40)
    scores = ScoresOfFrames(network, torch.zeros(5))
    write_onnx(scores, 40, tmp_path / "network")
    require_any_length(scores, 40, tmp_path / "network")
    write_int8(tmp_path / "network", tmp_path / "int8")


def test_a_network_for_one_number_of_frames_is_refused(tmp_path: Path) -> None:
    class Fixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(len(x), 7, MEL_BINS).mean(dim=1)

    scores = ScoresOfFrames(Fixed(), torch.zeros(MEL_BINS), LEFT, RIGHT)
    write_onnx(scores, MEL_BINS, tmp_path / "network")
    with pytest.raises(InputError, match=r"expected a graph for any number of frames, .*x\.shape\[0\]"):
        require_any_length(scores, MEL_BINS, tmp_path / "network")
