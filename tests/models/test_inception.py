"""Inception3D: sizes and parameters of I3D, its padding, head and dropout; and it computes what PyTorch computes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import outlines
import parity
import pytest
import torch
from flax import nnx
from outlines import shapes
from reference import inception as reference

from jax_video.errors import UserError
from jax_video.models import convolution, inception
from jax_video.models.layers import BatchNorm, Conv, Linear

SIZES = {  # frames, height and width, channels, of 64 frames of 224×224
    "Conv3d_1a_7x7": (32, 112, 64),
    "MaxPool3d_2a_3x3": (32, 56, 64),
    "Conv3d_2b_1x1": (32, 56, 64),
    "Conv3d_2c_3x3": (32, 56, 192),
    "MaxPool3d_3a_3x3": (32, 28, 192),
    "Mixed_3b": (32, 28, 256),
    "Mixed_3c": (32, 28, 480),
    "MaxPool3d_4a_3x3": (16, 14, 480),
    "Mixed_4b": (16, 14, 512),
    "Mixed_4c": (16, 14, 512),
    "Mixed_4d": (16, 14, 512),
    "Mixed_4e": (16, 14, 528),
    "Mixed_4f": (16, 14, 832),
    "MaxPool3d_5a_2x2": (8, 7, 832),
    "Mixed_5b": (8, 7, 832),
    "Mixed_5c": (8, 7, 1024),
}
# 17×37×50 becomes 9×19×25, 9×10×13, 9×5×7, 5×3×4 and 3×2×2: odd and even sizes under every stride, and two windows of
# the average pool.
NETWORK_INPUT = (17, 37, 50, 3)


def abstract(num_classes=400, **kwargs):
    return outlines.abstract("inception3d", num_classes, **kwargs)


def with_real_head(**kwargs):
    """Only the classifier has values."""
    model = nnx.clone(abstract(5, **kwargs))
    model.logits = Linear(model.logits.kernel.shape[0], 5, rngs=nnx.Rngs(0))
    return model


@pytest.mark.usefixtures("strict_dtypes", "one_torch_thread")
def test_test_mode_forward_in_float32():
    small = {"width": 0.125, "layers": (1, 2, 1)}  # all blocks, at full size: tests/weights/test_names.py
    parity.check_test_mode_forward(
        abstract(parity.CLASSES, **small), reference.build(parity.CLASSES, **small), NETWORK_INPUT, batch=2
    )


@pytest.mark.usefixtures("one_torch_thread")
def test_gradients_and_a_training_step_in_float64():
    with jax.enable_x64(True):
        small = {"width": 0.0625, "layers": (1, 1, 1)}
        parity.check_training(
            abstract(parity.CLASSES, dtype=jnp.float64, **small),
            reference.build(parity.CLASSES, **small),
            (9, 37, 30, 3),
        )


def test_parameters_are_as_many_as_in_the_published_network():
    params = nnx.state(abstract(), nnx.Param)
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == 12_697_264
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in reference.build(400).parameters()) == 12_697_264


def test_layers_have_the_names_and_shapes_of_the_published_weights():
    model = abstract()
    layers = {name for name in inception.NETWORK if hasattr(model, name)}
    assert layers == {name for name in SIZES if not name.startswith("MaxPool3d")}
    assert model.Mixed_4e.b1b.conv3d.kernel.shape == (3, 3, 3, 144, 288)
    assert model.Mixed_5c.b3b.conv3d.kernel.shape == (1, 1, 1, 832, 128)
    assert model.Conv3d_1a_7x7.bn.scale.shape == (64,)
    assert model.logits.kernel.shape == (1024, 400)


def test_sizes_of_the_paper():
    sizes = shapes(abstract(), (2, 64, 224, 224, 3))
    assert list(inception.NETWORK) == list(SIZES)
    assert sizes == {name: (2, frames, size, size, channels) for name, (frames, size, channels) in SIZES.items()}


def test_every_batch_norm_has_i3ds_epsilon():
    model = abstract(norm=lambda *args, **kwargs: BatchNorm(*args, group_size=2, **kwargs))
    layers = [module for _, module in nnx.iter_modules(model) if isinstance(module, BatchNorm)]
    assert len(layers) == 3 + 9 * 6
    assert {(layer.epsilon, layer.group_size) for layer in layers} == {(1e-3, 2)}


@pytest.mark.parametrize("size", [1, 5, 8])
@pytest.mark.parametrize(("taps", "stride"), [(7, 2), (2, 2), (3, 1)])
def test_same_padding_is_tensorflows(size, taps, stride):
    """By TensorFlow's documentation: ceil(size / stride) places, and the odd one of the padding comes after."""
    x = jnp.arange(1.0, size + 1).reshape(1, 1, size, 1, 1)
    total = max((-(-size // stride) - 1) * stride + taps - size, 0)
    before, after = total // 2, total - total // 2
    padded = np.pad(np.arange(1.0, size + 1), (before, after))
    windows = np.stack([padded[start : start + taps] for start in range(0, size, stride)])

    kernel = jnp.linspace(0.5, 1.5, taps)
    layer = {"padding": "SAME", "kernel_init": lambda key, shape, dtype: kernel.reshape(shape), "rngs": nnx.Rngs(0)}
    layer = Conv(1, 1, (1, taps, 1), strides=(1, stride, 1), **layer)
    convolved, pooled = jax.jit(
        # Of negative numbers, where a padding of zeros would win.
        lambda x: (layer(x), convolution.max_pool(x - 100, (1, taps, 1), strides=(1, stride, 1), padding="SAME"))
    )(x)
    np.testing.assert_allclose(convolved.ravel(), windows @ kernel, rtol=1e-5)
    np.testing.assert_array_equal(pooled.ravel(), windows.max(axis=1) - 100)


def test_head_is_the_mean_of_the_scores_of_all_windows():
    """Windows of 2×7×7 places, of which the ones in the middle are in more windows than the others."""
    model = with_real_head(width=0.05)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 8, 9, model.logits.kernel.shape[0])).astype(np.float32)
    model.features = lambda video: jnp.asarray(x)
    windows = [
        x[:, t : t + 2, h : h + 7, w : w + 7].mean(axis=(1, 2, 3)) for t in range(3) for h in range(2) for w in range(3)
    ]
    expected = np.mean([window @ np.asarray(model.logits.kernel[...]) for window in windows], axis=0)
    np.testing.assert_allclose(jax.jit(lambda: model(None))(), expected, rtol=1e-4, atol=1e-6)


def test_dropout_needs_keys_in_training_only():
    model = abstract(5, layers=(1, 1, 1), dropout=0.5)
    video = jax.ShapeDtypeStruct((2, 8, 32, 32, 3), jnp.float32)
    with pytest.raises(UserError, match=r"drops 50% of its features in training.*dropout=0\.0"):
        shapes(model, video.shape, method="__call__")
    assert shapes(nnx.view(model, use_running_average=True), video.shape, method="__call__") == (2, 5)
    graphdef, state = nnx.split(model)
    logits = jax.eval_shape(
        lambda state, video, key: nnx.merge(graphdef, state)(video, keys=jax.random.split(key, 2)),
        nnx.to_pure_dict(state),
        video,
        jax.random.key(0),
    )
    assert logits.shape == (2, 5)


def test_dropout_drops_features_of_every_window():
    model = with_real_head(width=0.05, dropout=0.5)
    x = np.ones((2, 3, 2, 2, model.logits.kernel.shape[0]), np.float32)
    model.features = lambda video: jnp.asarray(x)
    seen = []
    classify, model.logits = model.logits, lambda features: seen.append(features)
    model.logits.dtype = classify.dtype
    model(None, keys=jax.random.split(jax.random.key(0), 2))
    assert set(np.unique(seen[0])) == {0.0, 1.0, 2.0}  # of two windows none, one or both keep a feature


def test_narrow_networks_keep_a_channel_in_every_branch():
    model = abstract(width=0.01)
    assert model.Mixed_3b.b2a.out_features == 1 and model.Mixed_5c.b1b.out_features == 4


def test_layers_keep_the_first_blocks_of_each_stage():
    model = abstract(5, layers=(1, 3, 2))
    stages = shapes(model, (2, 16, 64, 64, 3))
    assert stages.keys() == SIZES.keys() - {"Mixed_3c", "Mixed_4e", "Mixed_4f"}
    with pytest.raises(UserError, match=r"layers=\(1, 1, 1, 1\); expected 3 numbers of at least 1"):
        abstract(layers=(1, 1, 1, 1))
    with pytest.raises(UserError, match=r"layers=\(3, 5, 2\); expected at most the \(2, 5, 2\) mixed blocks of I3D"):
        abstract(layers=(3, 5, 2))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((64, 224, 224, 3), "leading axis of one"),
        ((2, 3, 64, 224, 224), "channels last"),
        ((2, 0, 224, 224, 3), "0 frames of 224×224"),
    ],
)
def test_a_video_of_the_wrong_shape_is_refused(shape, message):
    with pytest.raises(UserError, match=message):
        shapes(abstract(width=0.05), shape, method="__call__")


def test_the_smallest_video_passes():
    assert shapes(abstract(5, width=0.05, layers=(1, 1, 1)), (2, 1, 1, 1, 3), method="__call__") == (2, 5)
