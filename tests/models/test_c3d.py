"""C3D: sizes and parameters of the paper, the clip it is bound to; and it computes what PyTorch computes."""

import math

import jax
import jax.numpy as jnp
import outlines
import parity
import pytest
import torch
from flax import nnx
from outlines import shapes
from reference import c3d as reference

from jax_video.errors import UserError
from jax_video.models.layers import BatchNorm

PARAMETERS = 79_645_520  # 27,653,184 in convolutions, 50,331,648 in fc6 and fc7, 21,888 of BN, 1,638,800 in fc8
SIZES = {  # of 16 frames of 112×112
    "conv1": (16, 112, 112, 64),
    "pool1": (16, 56, 56, 64),
    "conv2": (16, 56, 56, 128),
    "pool2": (8, 28, 28, 128),
    "conv3": (8, 28, 28, 256),
    "pool3": (4, 14, 14, 256),
    "conv4": (4, 14, 14, 512),
    "pool4": (2, 7, 7, 512),
    "conv5": (2, 7, 7, 512),
    "pool5": (1, 4, 4, 512),
}
# 12×44×44 becomes 12×22×22, 6×11×11, 3×6×6, 2×3×3 and 1×2×2: pools of odd sizes, in time and in space.
SMALL = {"width": 0.0625, "frames": 12, "size": 44}
NETWORK_INPUT = (12, 44, 44, 3)


def abstract(num_classes=400, **kwargs):
    return outlines.abstract("c3d", num_classes, **kwargs)


@pytest.mark.usefixtures("strict_dtypes", "one_torch_thread")
def test_test_mode_forward_in_float32():
    network = reference.build(parity.CLASSES, **SMALL)
    parity.check_test_mode_forward(abstract(parity.CLASSES, **SMALL), network, NETWORK_INPUT)


@pytest.mark.usefixtures("one_torch_thread")
def test_gradients_and_a_training_step_in_float64():
    with jax.enable_x64(True):
        network = reference.build(parity.CLASSES, **SMALL)
        parity.check_training(abstract(parity.CLASSES, dtype=jnp.float64, **SMALL), network, NETWORK_INPUT)


def test_parameters():
    params = nnx.state(abstract(), nnx.Param)
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == PARAMETERS
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in reference.build(400).parameters()) == PARAMETERS


def test_sizes_of_the_paper():
    sizes = shapes(abstract(), (2, 16, 112, 112, 3), method="stages")
    assert sizes == {name: (2, *shape) for name, shape in SIZES.items()}
    model = abstract()
    assert model.fc6.linear.kernel.shape == (8192, 4096) and model.fc7.linear.kernel.shape == (4096, 4096)
    assert shapes(model, (2, 16, 112, 112, 3), method="__call__") == (2, 400)


def test_every_layer_but_the_last_is_normalised_and_has_no_bias():
    model = abstract(norm=lambda *args, **kwargs: BatchNorm(*args, group_size=2, **kwargs))
    layers = [module for _, module in nnx.iter_modules(model) if isinstance(module, BatchNorm)]
    assert len(layers) == 10 and {layer.group_size for layer in layers} == {2}
    for name in ("conv1a", "conv2a", "conv3a", "conv3b", "conv4a", "conv4b", "conv5a", "conv5b"):
        assert set(vars(getattr(model, name))) >= {"conv", "bn"} and not getattr(model, name).conv.use_bias
    assert not model.fc6.linear.use_bias and not model.fc7.linear.use_bias and model.fc8.use_bias


@pytest.mark.parametrize(("frames", "size", "places"), [(16, 112, 16), (32, 112, 32), (16, 128, 16), (17, 33, 8)])
def test_fully_connected_layers_fit_every_clip(frames, size, places):
    model = abstract(5, frames=frames, size=size, width=0.0625)
    assert model.fc6.linear.kernel.shape[0] == places * 32
    assert shapes(model, (2, frames, size, size, 3), method="__call__") == (2, 5)


@pytest.mark.parametrize("shape", [(2, 32, 112, 112, 3), (2, 16, 128, 128, 3), (2, 16, 112, 128, 3)])
def test_another_clip_is_refused(shape):
    found = "{} frames of {}×{}".format(*shape[1:4])
    with pytest.raises(UserError, match=f"got clips of {found}, but .* built for 16 frames of 112×112"):
        shapes(abstract(), shape, method="__call__")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((16, 112, 112, 3), "leading axis of one"),
        ((2, 16, 112, 112, 4), "channels last"),
    ],
)
def test_a_video_of_the_wrong_shape_is_refused(shape, message):
    with pytest.raises(UserError, match=message):
        shapes(abstract(), shape, method="__call__")


def test_features_are_bound_to_no_clip():
    assert shapes(abstract(width=0.0625), (2, 8, 40, 72, 3), method="features") == (2, 1, 2, 3, 32)
