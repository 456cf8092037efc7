"""Mixup, CutMix and label smoothing: what is mixed and by how much, on any number of devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_train
import torch
from flax import nnx

from jax_video import losses, objectives, optimizer, sharding
from jax_video import state as state_lib
from jax_video import train as train_lib
from jax_video.errors import UserError
from jax_video.mixing import Mixing
from jax_video.models.layers import BatchNorm


def keys(rows: int) -> jax.Array:
    return jax.random.split(jax.random.key(7), rows)


def constant(rows: int, *shape: int) -> jax.Array:
    """Videos of which each has one value at all places: its row's number."""
    return jnp.broadcast_to(jnp.arange(rows, dtype=jnp.float32).reshape(-1, *(1,) * len(shape)), (rows, *shape))


def partner(row: int) -> int:
    return row ^ 1


def test_mixup_is_a_weighted_mean_of_neighbours():
    rows = 2000
    (mixed,), share = jax.jit(Mixing(mixup=1.0))((constant(rows, 1, 2, 2, 1),), keys(rows))
    assert share.shape == (rows,) and np.array_equal(share[::2], share[1::2])
    others = np.array([partner(row) for row in range(rows)])
    expected = share * np.arange(rows) + (1 - share) * others
    np.testing.assert_allclose(mixed[:, 0, 0, 0, 0], expected, rtol=1e-5)
    assert mixed.std(axis=(1, 2, 3, 4)).max() < 1e-3, "the same at all places"
    assert share.min() >= 0.5
    assert share.mean() == pytest.approx(0.75, abs=0.02)  # of the larger part of an even draw
    assert len(np.unique(share)) > 900, "each pair has a draw of its own"


def test_cutmix_puts_a_box_of_the_neighbour_into_all_frames():
    rows = 2000
    video = constant(rows, 3, 2, 16, 20, 1)  # of two clips
    (mixed,), share = jax.jit(Mixing(cutmix=1.0))((video,), keys(rows))
    own = np.asarray(mixed == video)
    others = np.array([partner(row) for row in range(rows)]).reshape(-1, 1, 1, 1, 1, 1)
    assert np.array_equal(~own, mixed == others)
    assert (own == own[:, :1, :1]).all(), "one box for a video"
    np.testing.assert_allclose(share, own[:, 0, 0, :, :, 0].mean(axis=(1, 2)), atol=1e-6)
    assert share.min() >= 0.4 and share.mean() > 0.75  # whole pixels, and a box that reaches over the edge
    inside = ~own[:, 0, 0, :, :, 0]
    for box in inside[inside.any(axis=(1, 2))][:50]:
        rows_in, columns_in = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
        assert box.sum() == (np.ptp(rows_in) + 1) * (np.ptp(columns_in) + 1), "a box"
    assert inside.mean(axis=0).min() > 0.05, "anywhere"


def test_both_alternate_and_streams_are_mixed_alike():
    rows = 400
    video = constant(rows, 2, 8, 8, 1)
    (rgb, flow), share = jax.jit(Mixing(mixup=1.0, cutmix=1.0))((video, jnp.tile(2 * video, 5)), keys(rows))
    np.testing.assert_allclose(flow[..., 0], 2 * rgb[..., 0], rtol=1e-6)
    is_box = np.isin(np.asarray(rgb - video), (-1, 0, 1)).all(axis=(1, 2, 3, 4))
    assert 0.4 < is_box.mean() < 0.6
    assert share.min() >= 0.4


def test_label_smoothing_is_pytorchs():
    rng = np.random.default_rng(0)
    logits, label = rng.normal(size=(6, 5)).astype(np.float32), rng.integers(5, size=6)
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits), torch.from_numpy(label), label_smoothing=0.3, reduction="none"
    )
    found = losses.softmax_cross_entropy(jnp.asarray(logits), jnp.asarray(label), 0.3)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def steps(devices: int, accumulate: int, objective: objectives.Objective) -> tuple[list[float], dict]:
    """Losses and parameters of two steps, in float64."""
    mesh, tx = test_train.first_devices(devices), optimizer.make(1e-2)
    with jax.enable_x64(True):
        network = test_train.small(norm=functools.partial(BatchNorm, group_size=2), dtype=jnp.float64)
        options = {"accumulate": accumulate, "objective": objective}
        step = train_lib.make_train_step(state_lib.split(network)[0], tx, mesh, **options)
        state, found = sharding.place_state(state_lib.create(network, tx), mesh), []
        for rows in test_train.batches(16, steps=2):
            state, sums = step(state, sharding.place_batch(rows, mesh), test_train.KEY)
            found.append(float(sums["loss"]))
        return found, jax.device_get(state.params)


def test_any_number_of_devices_and_micro_batches_mixes_the_same():
    objective = objectives.Classification(smoothing=0.1, mixing=Mixing(mixup=0.4, cutmix=1.0))
    found, params = steps(1, 1, objective)
    others, their_params = steps(4, 2, objective)
    np.testing.assert_allclose(others, found, rtol=1e-9)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-7), their_params, params)


def test_the_target_is_mixed_as_the_video_is():
    """Against PyTorch's cross entropy with targets that are probabilities."""
    objective, rows = objectives.Classification(smoothing=0.2, mixing=Mixing(mixup=1.0)), 8

    class Mean(nnx.Module):
        def __init__(self):
            self.scale = nnx.Param(jnp.arange(15.0).reshape(3, 5) / 7)

        def __call__(self, video, *, keys=None):
            return video.mean((1, 2, 3)) @ self.scale[...]

    batch = test_train.batches(8, steps=1, rows=rows)[0] | {"keys": keys(rows)}
    definition, params, batch_stats = state_lib.split(Mean())
    loss, _ = objective.train(definition, params, batch_stats, batch)
    streams, share = objective.mixing(
        state_lib.inputs(batch), jax.vmap(lambda key: jax.random.fold_in(key, 1))(batch["keys"])
    )
    logits = np.asarray(streams[0]).mean((1, 2, 3)) @ np.asarray(params["scale"])
    own = np.eye(5, dtype=np.float32)[batch["label"]]
    target = (
        np.asarray(share)[:, None] * own + (1 - np.asarray(share))[:, None] * own[[partner(row) for row in range(rows)]]
    )
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits), torch.from_numpy(target), label_smoothing=0.2
    )
    assert float(loss) == pytest.approx(expected.item(), rel=1e-5)


def test_what_cannot_be():
    with pytest.raises(UserError, match="train.mixup is -1"):
        Mixing(mixup=-1)
    with pytest.raises(UserError, match="train.label_smoothing is 1"):
        objectives.Classification(smoothing=1)
