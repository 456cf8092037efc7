"""Uneven classes: weights in the loss, against PyTorch, and an order of training that draws all equally often."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import torch
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_video import objectives, task
from jax_video import state as state_lib
from jax_video.data import pipeline
from jax_video.data.manifest import Manifest, Video
from jax_video.errors import UserError
from jax_video.mixing import Mixing

SAMPLING = pipeline.Sampling(frames=1, stride=1, short_side=2, size=2)


def uneven(counts: list[int]) -> Manifest:
    """So many training videos of each class, one test video and a broken one of the first."""
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    labels = np.random.default_rng(0).permutation(labels).tolist()
    names = [f"{number}.mp4" for number in range(len(labels))]
    rows = [Video(name, label, "train", 1, 0.0, 2, 2, None, name) for name, label in zip(names, labels, strict=True)]
    rows += [Video("test.mp4", 0, "test", 1, 0.0, 2, 2, None, "test")]
    rows += [Video("broken.mp4", 0, "train", 0, 0.0, 0, 0, "broken", "broken")]
    frames = {name: np.full((1, 2, 2, 3), number, np.uint8) for number, name in enumerate([*names, "test.mp4"])}
    return Manifest("uneven", tuple(f"class {k}" for k in range(len(counts))), "", tuple(rows), memory=frames)


def drawn(manifest: Manifest, steps: int, batch: int, **options) -> np.ndarray:
    """The videos of the first batches, [steps, batch], and that they are what the labels say."""
    batches = pipeline.train_batches(manifest, SAMPLING, batch=batch, **{"seed": 0, "balanced": True} | options)
    try:
        taken = [*itertools.islice(batches, steps)]
    finally:
        batches.close()
    for rows in taken:
        assert [manifest.videos[index].label for index in rows["video"]] == rows["label"].tolist()
    return np.stack([rows["video"] for rows in taken])


def taken(order, steps: int) -> list[int]:
    return [order[place] for place in range(steps)]


@settings(max_examples=30)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=20), st.integers(0, 2**32 - 1))
def test_every_class_comes_equally_often_and_every_video_before_any_again(labels, seed):
    found = taken(pipeline.training_order(labels, seed, balanced=True), 60)
    classes, order = sorted(set(labels)), np.array(labels)[found]
    rounds = order[: len(order) // len(classes) * len(classes)].reshape(-1, len(classes))
    assert (np.sort(rounds, axis=1) == classes).all(), "each class once in every round"
    for label in classes:
        videos, number = np.array(found)[order == label].tolist(), labels.count(label)
        for start in range(0, len(videos), number):
            once = videos[start : start + number]
            assert len(set(once)) == len(once)


def test_rounds_epochs_and_seeds_have_orders_of_their_own():
    labels = [0] * 12 + [1] * 12 + [2] * 3 + [3]
    found, other = (np.array(taken(pipeline.training_order(labels, seed, balanced=True), 96)) for seed in (0, 1))
    order = np.array(labels)[found]
    assert len({tuple(row) for row in order.reshape(-1, 4)}) > 8
    first, second = found[order == 0].reshape(2, 12)
    assert sorted(first) == sorted(second) and not np.array_equal(first, second)
    assert not np.array_equal(first, found[order == 1][:12] - 12), "nor has one class another's"
    assert not np.array_equal(found, other)


def test_what_is_not_balanced_is_as_ever():
    found = taken(pipeline.training_order([0, 0, 0, 1], 0), 12)
    assert all(sorted(epoch) == [0, 1, 2, 3] for epoch in np.reshape(found, (3, 4)))


def test_balanced_batches_are_the_same_when_resumed_and_on_two_hosts():
    manifest, steps = uneven([5, 2, 0, 1]), 6
    found = drawn(manifest, steps, 4)
    labels = [manifest.videos[index].label for index in found.ravel()]
    assert [labels.count(label) for label in range(4)] == [8, 8, 0, 8]
    assert np.array_equal(drawn(manifest, 2, 4, first_step=4), found[4:])
    parts = [drawn(manifest, 3, 4, hosts=pipeline.Hosts(host, 2)) for host in range(2)]
    assert np.array_equal(np.concatenate(parts, axis=1), found[:3])


# Weights


class Mean(nnx.Module):
    def __init__(self):
        self.scale = nnx.Param(jnp.arange(15.0).reshape(3, 5) / 7)

    def __call__(self, video, *, keys=None):
        return video.mean((1, 2, 3)) @ self.scale[...]


WEIGHTS = (0.25, 0.5, 1.0, 3.0, 0.25)


def loss_and_logits(objective: objectives.Classification, rows: int = 8):
    """(the loss, logits of the videos as they were mixed, labels, the share each keeps)."""
    rng = np.random.default_rng(0)
    batch = {
        "rgb": rng.integers(0, 256, (rows, 2, 6, 6, 3), dtype=np.uint8),
        "label": jnp.array(rng.integers(0, 5, rows), jnp.int32),
        "keys": jax.random.split(jax.random.key(3), rows),
    }
    definition, params, batch_stats = state_lib.split(Mean())
    loss, _ = objective.train(definition, params, batch_stats, batch)
    streams, share = state_lib.inputs(batch), np.ones(rows)
    if objective.mixing:
        streams, share = objective.mixing(streams, jax.vmap(lambda key: jax.random.fold_in(key, 1))(batch["keys"]))
    logits = np.asarray(streams[0]).mean((1, 2, 3)) @ np.asarray(params["scale"])
    return float(loss), torch.from_numpy(logits), np.array(batch["label"], np.int64), np.asarray(share, np.float32)


def test_weights_are_pytorchs():
    """But for the mean: PyTorch divides by the sum of the weights, of which micro-batches have others each."""
    loss, logits, label, _ = loss_and_logits(objectives.Classification(class_weights=WEIGHTS))
    each = torch.nn.CrossEntropyLoss(torch.tensor(WEIGHTS), reduction="none")(logits, torch.from_numpy(label))
    assert loss == pytest.approx(each.mean().item(), rel=1e-5)
    assert loss != pytest.approx(loss_and_logits(objectives.Classification())[0], rel=1e-2)


def test_of_mixed_videos_each_part_has_the_weight_of_its_class():
    """PyTorch's weights of a target that is probabilities."""
    objective = objectives.Classification(mixing=Mixing(mixup=1.0), class_weights=WEIGHTS)
    loss, logits, label, share = loss_and_logits(objective)
    own = np.eye(5, dtype=np.float32)[label]
    other = own.reshape(-1, 2, 5)[:, ::-1].reshape(own.shape)
    target = torch.from_numpy(share[:, None] * own + (1 - share[:, None]) * other)
    each = torch.nn.CrossEntropyLoss(torch.tensor(WEIGHTS), reduction="none")(logits, target)
    assert loss == pytest.approx(each.mean().item(), rel=1e-5)


def test_what_smoothing_spreads_has_the_weight_of_the_video():
    """So that weights do what drawing a class as much oftener would."""
    objective = objectives.Classification(smoothing=0.2, class_weights=WEIGHTS)
    loss, logits, label, _ = loss_and_logits(objective)
    smooth = torch.nn.CrossEntropyLoss(label_smoothing=0.2, reduction="none")(logits, torch.from_numpy(label))
    assert loss == pytest.approx((smooth.numpy() * np.array(WEIGHTS)[label]).mean(), rel=1e-5)


def test_classes_weigh_the_same_and_videos_one_in_the_mean():
    manifest = uneven([8, 2, 0, 2])
    weights = task.class_weights(manifest)
    assert weights == pytest.approx((0.5, 2.0, 0.0, 2.0))
    labels = [video.label for _, video in manifest.select("train")]
    assert np.mean([weights[label] for label in labels]) == pytest.approx(1)
    config = tiny.get_config()
    config.train.class_balance = "loss"
    assert task.Task.of(config, manifest).objective.class_weights == weights
    config.train.class_balance = "sampling"
    assert task.Task.of(config, manifest).objective.class_weights == ()


def test_classes_without_training_videos_are_named(capsys):
    config = tiny.get_config()
    config.clip.update(frames=1)
    config.train.class_balance = "sampling"
    task.check(config, uneven([3, 0, 2, 0]))
    said = "train.class_balance: 2 of 4 classes have no training video, class 1 first; the others are balanced."
    assert said in capsys.readouterr().err


def test_what_cannot_be():
    config = tiny.get_config()
    config.train.class_balance = "losses"
    with pytest.raises(UserError, match="train.class_balance is 'losses': choose loss or sampling"):
        objectives.of(config)
    config = tiny.get_config("transfer")
    config.train.class_balance = "loss"
    with pytest.raises(UserError, match="class_balance are of labels, and knowledge transfer has none"):
        objectives.of(config)
