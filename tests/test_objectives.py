"""Losses and scores of what networks are trained for, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jax_video import losses, objectives
from jax_video import state as state_lib
from jax_video.errors import UserError
from jax_video.models.correspondence import Correspondence
from jax_video.models.layers import BatchNorm, Linear


def test_unknown_average():
    with pytest.raises(UserError, match="unknown test average 'mean': choose probability or logit"):
        objectives.Classification(average="mean")


@pytest.mark.parametrize("average", ["probability", "logit"])
def test_metrics_of_a_validation(average):
    rng = np.random.default_rng(0)
    logits, label = rng.normal(0, 3, (20, 6)), rng.permutation(np.arange(20) % 6)
    odds = np.exp(logits)
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    scores = probabilities if average == "probability" else logits
    found = objectives.Classification(average).metrics(scores, label)
    own = probabilities[np.arange(20), label]
    ranks = (probabilities > own[:, None]).sum(axis=1)
    expected = {
        "loss": -np.log(own).mean(),
        "top1": np.mean(ranks == 0),
        "top5": np.mean(ranks < 5),
        "mean_class_accuracy": np.mean([np.mean(ranks[label == k] == 0) for k in range(6)]),
    }
    assert found == pytest.approx(expected, rel=1e-6)


def test_a_probability_of_zero_is_a_finite_loss():
    found = objectives.Classification().metrics(np.array([[1.0, 0.0]]), np.array([1]))
    assert found["loss"] == pytest.approx(87.3, abs=0.1)


def test_scores_of_frames_places_and_streams_are_averaged_as_logits():
    rng = np.random.default_rng(0)
    streams = [rng.normal(size=shape).astype(np.float32) for shape in ((2, 5, 1, 1, 4), (2, 3, 2, 3, 4))]
    found = losses.video_logits(tuple(map(jnp.asarray, streams)))
    expected = (streams[0].mean(axis=(1, 2, 3)) + streams[1].mean(axis=(1, 2, 3))) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(losses.video_logits(jnp.asarray(streams[0][:, 0, 0, 0])), streams[0][:, 0, 0, 0])


class Means(nnx.Module):
    """A network whose features are a linear map of each frame's mean colour, normalised by statistics at rest."""

    def __init__(self, *, rngs):
        self.norm = BatchNorm(3, frozen=True)
        self.fc = Linear(3, 8, kernel_init=nnx.initializers.normal(1.0), rngs=rngs)

    def features(self, video):
        return self.fc(self.norm(video.mean(axis=(2, 3), keepdims=True)))


def transfer():
    networks = (Means(rngs=nnx.Rngs(seed)) for seed in (0, 1))
    return state_lib.split(Correspondence(*networks, clip=(2, 4, 4), rngs=nnx.Rngs(2)))


def batch(videos, clips=(), present=None):
    rng = np.random.default_rng(0)
    return {
        "rgb": rng.integers(0, 256, (len(videos), *clips, 2, 4, 4, 3), dtype=np.uint8),
        "label": np.full(len(videos), -1, np.int32),
        "video": np.array(videos, np.int32),
        "mask": np.array(present or [1] * len(videos), np.float32),
        "keys": jax.random.split(jax.random.key(0), len(videos)),
    }


@pytest.mark.parametrize("clips", [(), (3,)])
def test_pairs_are_of_the_same_video_and_of_different_ones(clips):
    objective, rows = objectives.Correspondence(), batch([4, 7, 9], clips)
    definition, params, batch_stats = transfer()
    loss, (_, sums) = jax.jit(objective.train, static_argnums=0)(definition, params, batch_stats, rows)

    flat = rows["rgb"].reshape(-1, 2, 4, 4, 3)
    ids = np.repeat(rows["video"], *clips or (1,))
    model = state_lib.join(definition, params, batch_stats, train=True)
    logits, label, weight = model(state_lib.normalize(jnp.asarray(flat)), ids=jnp.asarray(ids), key=rows["keys"][0])
    odds = np.exp(np.asarray(logits, np.float64))
    own = -np.log((odds / odds.sum(axis=1, keepdims=True))[np.arange(len(label)), label])
    assert weight.all()
    assert float(loss) == pytest.approx(own.mean(), rel=1e-5)
    right = np.asarray(logits).argmax(axis=1) == np.asarray(label)
    positive, negative = right[: len(ids)].mean(), right[len(ids) :].mean()
    means = {name: float(value) / float(sums["count"]) for name, value in sums.items()}
    assert float(sums["count"]) == 3
    expected = {
        "positive_accuracy": positive,
        "negative_accuracy": negative,
        "pair_accuracy": (positive + negative) / 2,
    }
    assert {name: means[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def scores_in_batches(network, rows, size):
    """What a test finds of some videos, `size` at once: [N, 4]."""
    objective, count = objectives.Correspondence(), len(rows["video"])
    test = jax.jit(objective.test, static_argnums=0)
    values = []
    for start in range(0, count, size):
        places = np.arange(start, start + size) % count  # the last batch is filled up
        given = {name: array[places] for name, array in rows.items()}
        values.append(np.asarray(test(*network, given))[: count - start])
    return objective.of_videos(network, np.concatenate(values).astype(np.float64))


@pytest.mark.parametrize("clips", [(), (3,)])
def test_what_is_said_of_pairs_does_not_depend_on_the_batch(clips, monkeypatch):
    """Be it of single videos, of which no batch could make a negative pair; nor on how many are told at once."""
    network, rows = transfer(), batch(range(4, 15), clips)
    whole = scores_in_batches(network, rows, 11)
    assert whole.shape == (11, 4) and np.isfinite(whole).all() and len(np.unique(whole[:, 1])) == 11
    for size in (1, 2, 4, 16):
        np.testing.assert_allclose(scores_in_batches(network, rows, size), whole, rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(objectives, "_AT_ONCE", 3)
    np.testing.assert_allclose(scores_in_batches(network, rows, 4), whole, rtol=1e-5, atol=1e-6)


def test_pairs_of_a_test_are_what_the_network_tells_of_them():
    network, rows = transfer(), batch([4, 7, 9])
    scores = scores_in_batches(network, rows, 3)
    model = state_lib.join(*network, train=False)
    video = state_lib.normalize(jnp.asarray(rows["rgb"]))
    frames = model.teacher.features(video).mean(axis=(1, 2, 3))
    clips = model.fc(model.student.features(video).mean(axis=(1, 2, 3)))
    for row in range(3):
        found = {}
        for other in range(3):
            hidden = jnp.maximum(model.fc1(jnp.concatenate([clips[row], frames[other]])), 0)
            logits = np.asarray(model.classifier(jnp.maximum(model.fc2(hidden), 0)), np.float64)
            right = int(other == row)
            found[other] = np.log(np.exp(logits).sum()) - logits[right], logits.argmax() == right
        np.testing.assert_allclose(scores[row, [0, 2]], found.pop(row), rtol=1e-4)
        assert any(np.allclose(scores[row, [1, 3]], negative, rtol=1e-4) for negative in found.values())


def test_accuracy_of_pairs_is_the_mean_of_both_kinds():
    found = objectives.Correspondence().metrics(np.array([[0.5, 0.2, 1, 1], [0.7, 0.2, 0, 1]]), np.array([-1, -1]))
    expected = {"loss": 0.4, "pair_accuracy": 0.75, "positive_accuracy": 0.5, "negative_accuracy": 1.0}
    assert found == pytest.approx(expected)


def test_a_single_video_makes_no_negative_pair():
    with pytest.raises(UserError, match="no negative pair can be made of 1 held-out videos"):
        objectives.Correspondence().metrics(scores_in_batches(transfer(), batch([4]), 1), np.array([-1]))
