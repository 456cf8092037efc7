"""Layers: initial values, and the laws of batch normalisation against NumPy in float64."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.test_util import check_grads
from rounding import of_a_sum

from jax_video.errors import UserError
from jax_video.models.layers import BatchNorm, Conv, Linear

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def video(shape=(4, 2, 5, 6, 3), seed=0, mean=0.5, deviation=2.0):
    return (np.random.default_rng(seed).normal(mean, deviation, shape)).astype(np.float32)


def batch_norm(features=3, seed=1, **kwargs):
    """A layer whose scale, offset and running statistics are all different from each other."""
    rng = np.random.default_rng(seed)
    layer = BatchNorm(features, **kwargs)
    for variable in (layer.scale, layer.bias, layer.mean, layer.var):
        variable[...] = jnp.asarray(rng.uniform(0.5, 1.5, features), variable[...].dtype)
    return layer


def normalized(x, layer, mean, var):
    return (x - mean) / np.sqrt(var + layer.epsilon) * np.asarray(layer.scale[...]) + np.asarray(layer.bias[...])


def test_convolution_starts_he_normal_by_fan_out_also_when_grouped():
    for groups in (1, 8):
        layer = Conv(64, 128, (3, 3, 3), groups=groups, rngs=nnx.Rngs(0))
        assert layer.kernel[...].shape == (3, 3, 3, 64 // groups, 128)
        np.testing.assert_allclose(layer.kernel[...].std(), np.sqrt(2 / (27 * 128)), rtol=0.02)
        assert abs(layer.kernel[...]).max() > 3 * np.sqrt(2 / (27 * 128))  # not truncated, as PyTorch's


def test_convolution_adds_its_bias():
    layer = Conv(3, 4, (1, 1, 1), use_bias=True, rngs=nnx.Rngs(0))
    without = layer(video())
    layer.bias[...] = jnp.arange(4.0)
    np.testing.assert_allclose(layer(video()) - without, np.broadcast_to(np.arange(4.0), without.shape), atol=1e-5)


def test_convolution_strides_and_pads_each_axis_by_its_own():
    layer = Conv(3, 4, (3, 1, 5), strides=(1, 2, 3), padding=((2, 0), (0, 0), (1, 3)), rngs=nnx.Rngs(0))
    assert layer(video((2, 4, 6, 9, 3))).shape == (2, 4, 3, 3, 4)


def test_linear_layer_is_a_matrix_product_plus_bias():
    layer = Linear(5, 3, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(layer.bias[...], 0)
    layer.bias[...] = jnp.arange(3.0)
    x = video((2, 5))
    np.testing.assert_allclose(layer(x), x @ np.asarray(layer.kernel[...]) + np.arange(3.0), rtol=1e-5, atol=1e-6)
    assert "bias" not in nnx.to_pure_dict(nnx.state(Linear(5, 3, use_bias=False, rngs=nnx.Rngs(0))))


def test_linear_head_starts_normal():
    kernel = Linear(500, 400, rngs=nnx.Rngs(0)).kernel[...]
    np.testing.assert_allclose(kernel.std(), 0.01, rtol=0.02)


@pytest.mark.parametrize("group_size", [None, 1, 2])
def test_training_normalises_each_group_by_its_own_statistics(group_size):
    layer, x = batch_norm(group_size=group_size), video()
    groups = x.astype(np.float64).reshape(-1, group_size or 4, *x.shape[1:])
    mean, var = groups.mean((1, 2, 3, 4), keepdims=True), groups.var((1, 2, 3, 4), keepdims=True)
    np.testing.assert_allclose(layer(x), normalized(groups, layer, mean, var).reshape(x.shape), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("group_size", [None, 1, 2])
def test_running_statistics_move_by_a_tenth_towards_the_mean_over_groups_of_unbiased_statistics(group_size):
    layer, x = batch_norm(group_size=group_size), video()
    mean, var = np.asarray(layer.mean[...]), np.asarray(layer.var[...])
    layer(x)
    groups = x.astype(np.float64).reshape(-1, (group_size or 4) * 2 * 5 * 6, 3)
    np.testing.assert_allclose(layer.mean[...], 0.9 * mean + 0.1 * groups.mean(1).mean(0), rtol=1e-5)
    np.testing.assert_allclose(layer.var[...], 0.9 * var + 0.1 * groups.var(1, ddof=1).mean(0), rtol=1e-5)


def test_one_group_of_the_whole_batch_is_the_global_batch():
    whole, group = batch_norm(), batch_norm(group_size=4)
    np.testing.assert_array_equal(whole(video()), group(video()))
    np.testing.assert_array_equal(whole.mean[...], group.mean[...])
    np.testing.assert_array_equal(whole.var[...], group.var[...])


def test_groups_are_separate_runs():
    with jax.enable_x64(True):
        x, wide = video().astype(np.float64), {"dtype": jnp.float64}
        alone = [batch_norm(**wide)(x[:2]), batch_norm(**wide)(x[2:])]
        np.testing.assert_allclose(batch_norm(group_size=2, **wide)(x), np.concatenate(alone), rtol=1e-12, atol=1e-12)


def assert_statistics(layer, x):
    """A mean that is off adds its square to the variance, of 1 here; one taken of squares would be off by 6 % of it."""
    x = np.asarray(x, np.float64).reshape(-1, 3)
    off = of_a_sum(len(x)) * np.abs(x).mean()
    np.testing.assert_allclose(layer.mean[...], x.mean(0), rtol=0, atol=off)
    np.testing.assert_allclose(layer.var[...], x.var(0, ddof=1), rtol=of_a_sum(len(x)) + off**2)


@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_statistics_do_not_cancel(mean):
    layer, x = BatchNorm(3, momentum=0.0), video((8, 8, 16, 16, 3), mean=mean, deviation=1.0)
    layer(x)
    assert_statistics(layer, x)


def test_bfloat16_takes_its_moments_in_float32():
    layer = BatchNorm(3, momentum=0.0, dtype=jnp.bfloat16)
    x = jnp.asarray(video((8, 8, 16, 16, 3), mean=10.0, deviation=1.0), jnp.bfloat16)
    assert layer(x).dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(layer))} == {jnp.dtype("float32")}
    assert_statistics(layer, x)


def test_float64_is_float64_throughout():
    with jax.enable_x64(True):
        layer, x = batch_norm(group_size=2, dtype=jnp.float64), video().astype(np.float64)
        groups = x.reshape(2, 2, *x.shape[1:])
        mean, var = groups.mean((1, 2, 3, 4), keepdims=True), groups.var((1, 2, 3, 4), keepdims=True)
        np.testing.assert_allclose(layer(x), normalized(groups, layer, mean, var).reshape(x.shape), rtol=1e-12)
        assert layer.mean[...].dtype == layer.scale[...].dtype == jnp.float64


def test_test_mode_uses_the_running_statistics_and_leaves_them():
    layer, x = batch_norm(), video()
    before = nnx.to_pure_dict(nnx.state(layer, nnx.BatchStat))
    tested = nnx.view(layer, use_running_average=True)
    expected = normalized(x, layer, np.asarray(layer.mean[...]), np.asarray(layer.var[...]))
    np.testing.assert_allclose(tested(x), expected, rtol=1e-5, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, before, nnx.to_pure_dict(nnx.state(layer, nnx.BatchStat)))
    layer(x)  # the view shares its variables with the layer
    jax.tree.map(
        np.testing.assert_array_equal,
        nnx.to_pure_dict(nnx.state(layer, nnx.BatchStat)),
        nnx.to_pure_dict(nnx.state(tested, nnx.BatchStat)),
    )


def test_frozen_is_test_mode_without_gradients_for_scale_and_offset():
    frozen, x = batch_norm(frozen=True), video()
    np.testing.assert_array_equal(frozen(x), nnx.view(batch_norm(), use_running_average=True)(x))
    np.testing.assert_array_equal(frozen.mean[...], batch_norm().mean[...])
    graphdef, params, batch_stats = nnx.split(frozen, nnx.Param, nnx.BatchStat)
    params, batch_stats = nnx.to_pure_dict(params), nnx.to_pure_dict(batch_stats)
    gradients = jax.grad(lambda p, x: jnp.sum(nnx.merge(graphdef, p, batch_stats)(x) ** 2), argnums=(0, 1))(params, x)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients[0]))
    assert np.all(gradients[1])


def test_gradients_are_those_of_finite_differences():
    with jax.enable_x64(True):
        layer = batch_norm(group_size=2, dtype=jnp.float64)
        graphdef, params, batch_stats = nnx.split(layer, nnx.Param, nnx.BatchStat)
        params, batch_stats = nnx.to_pure_dict(params), nnx.to_pure_dict(batch_stats)
        weights = video(seed=3).astype(np.float64)

        def loss(params, x):
            return jnp.sum(nnx.merge(graphdef, params, batch_stats)(x) * weights)

        check_grads(loss, (params, video().astype(np.float64)), order=1, modes=["rev"], rtol=1e-6)


def test_a_batch_that_does_not_divide_into_groups_is_refused_with_the_numbers():
    with pytest.raises(UserError, match=r"group_size=3 got a batch of 4 videos, which leaves 1 over"):
        batch_norm(group_size=3)(video())
    with pytest.raises(UserError, match="group_size=0"):
        BatchNorm(3, group_size=0)


def test_a_single_value_cannot_be_normalised_in_training():
    layer = batch_norm(group_size=1)
    assert layer(video((2, 1, 1, 2, 3))).shape == (2, 1, 1, 2, 3)
    with pytest.raises(UserError, match=r"shape \(2, 1, 1, 1, 3\), one value in each channel of a group of 1"):
        layer(video((2, 1, 1, 1, 3)))
    assert nnx.view(layer, use_running_average=True)(video((2, 1, 1, 1, 3))).shape == (2, 1, 1, 1, 3)


@pytest.mark.parametrize("group_size", [None, 2, 8])
def test_a_sharded_batch_gives_the_same_without_gathering_activations(group_size):
    layer = batch_norm(group_size=group_size)
    graphdef, params, batch_stats = nnx.split(layer, nnx.Param, nnx.BatchStat)
    params, batch_stats = nnx.to_pure_dict(params), nnx.to_pure_dict(batch_stats)
    weights = video((16, 2, 5, 6, 3), seed=3)

    def loss(params, x):
        model = nnx.merge(graphdef, params, batch_stats)
        return jnp.sum(model(x) * weights), nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    x = video((16, 2, 5, 6, 3))
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("batch")))
    whole = jax.device_put((params, x), NamedSharding(mesh, PartitionSpec()))
    replicated = whole[0]
    compiled = step.lower(replicated, sharded).compile()
    assert not re.findall(r"all-gather|all-to-all|collective-permute", compiled.as_text())
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), compiled(replicated, sharded), step(*whole)
    )
