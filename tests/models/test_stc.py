"""STC block and STC-Nets: the block by its equations, published sizes, clip lengths."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from outlines import abstract, parameters

from jax_video.errors import UserError
from jax_video.models.layers import BatchNorm
from jax_video.models.resnet3d import Basic
from jax_video.models.stc import STC, STCBasic, STCBottleneck

pytestmark = pytest.mark.usefixtures("strict_dtypes")


@pytest.mark.parametrize(
    ("name", "frames", "expected"),
    [
        ("stc_resnet18", 16, 34_532_656),
        ("stc_resnet18", 32, 36_352_304),
        ("stc_resnet50", 16, 55_694_336),
        ("stc_resnet50", 32, 70_212_608),
        ("stc_resnet101", 16, 103_691_456),
        ("stc_resnet101", 32, 133_809_472),
        ("stc_resnet101", 64, 245_950_016),
        ("stc_resnext101", 16, 65_967_552),
        ("stc_resnext101", 32, 96_085_568),
    ],
)
def test_parameters(name, frames, expected):
    assert parameters(abstract(name, frames=frames)) == expected


@pytest.mark.parametrize(("frames", "lengths"), [(16, (8, 4, 2, 1)), (32, (16, 8, 4, 2)), (6, (3, 2, 1, 1))])
@pytest.mark.parametrize(("name", "options"), [("stc_resnet50", {}), ("stc_resnext101", {"layers": (2, 1, 1, 1)})])
def test_fully_connected_layers_have_the_sizes_of_table_1_for_every_length(name, options, frames, lengths):
    model = abstract(name, frames=frames, **options)
    stages = (model.layer1, model.layer2, model.layer3, model.layer4)
    for stage, length, out, hidden in zip(stages, lengths, (256, 512, 1024, 2048), (16, 32, 64, 128), strict=True):
        for unit in stage:
            assert unit.stc.tcb.fc1.kernel.shape == (out, hidden)
            assert unit.stc.tcb.fc2.kernel.shape == (hidden, out)
            assert unit.stc.scb.fc1.kernel.shape == (length * out, length * hidden)
            assert unit.stc.scb.fc2.kernel.shape == (length * hidden, out)


def test_reduction_1_is_a_quarter_of_a_bottlenecks_output():
    model = abstract("stc_resnet50", reduction=1, layers=(1, 1, 1, 1))
    assert model.layer1[0].stc.tcb.fc1.kernel.shape == (256, 64)
    assert model.layer4[0].stc.tcb.fc1.kernel.shape == (2048, 512)


def test_fully_connected_layers_start_he_uniform_with_zero_bias():
    block = STC(256, 64, frames=2, branches="both", dtype=jnp.float32, rngs=nnx.Rngs(0))
    for layer in (block.tcb.fc1, block.tcb.fc2, block.scb.fc1, block.scb.fc2):
        kernel, bound = layer.kernel[...], math.sqrt(6 / layer.kernel[...].shape[0])
        assert 0.98 * bound < abs(kernel).max() <= bound
        np.testing.assert_allclose(kernel.std(), bound / math.sqrt(3), rtol=0.03)
        np.testing.assert_array_equal(layer.bias[...], 0)


def excite(correlation, z):
    """FC, ReLU, FC, sigmoid in NumPy."""
    fc1, fc2 = correlation.fc1, correlation.fc2
    hidden = np.maximum(z @ np.asarray(fc1.kernel[...]) + np.asarray(fc1.bias[...]), 0)
    return 1 / (1 + np.exp(-(hidden @ np.asarray(fc2.kernel[...]) + np.asarray(fc2.bias[...]))))


@pytest.mark.parametrize("branches", ["both", "tcb", "scb"])
def test_block_is_that_of_the_papers_equations(branches):
    rng = np.random.default_rng(0)
    block = STC(8, 2, frames=3, branches=branches, dtype=jnp.float32, rngs=nnx.Rngs(0))
    for variable in jax.tree.leaves(nnx.state(block), is_leaf=lambda leaf: isinstance(leaf, nnx.Param)):
        variable[...] = jnp.asarray(rng.normal(size=variable[...].shape), jnp.float32)
    x = rng.normal(size=(2, 3, 4, 5, 8)).astype(np.float32)
    scaled = {}
    if branches != "scb":
        scaled["tcb"] = x * excite(block.tcb, x.mean((1, 2, 3)))[:, None, None, None]
    if branches != "tcb":
        scaled["scb"] = x * excite(block.scb, x.mean((2, 3)).reshape(2, 24))[:, None, None, None]
    expected = (scaled["tcb"] + scaled["scb"]) / 2 if branches == "both" else scaled[branches]
    np.testing.assert_allclose(block(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("branches", ["tcb", "scb"])
def test_a_single_branch_holds_no_parameters_of_the_other(branches):
    model = abstract("stc_resnet18", branches=branches, layers=(1, 1, 1, 1))
    assert set(nnx.to_pure_dict(nnx.state(model.layer1[0].stc))) == {branches}


UNIT = {"stride": 1, "shortcut": "B", "norm": BatchNorm, "dtype": jnp.float32}


@pytest.mark.parametrize("preactivation", [False, True])
def test_the_block_sits_at_the_end_of_the_branch_before_the_addition(preactivation):
    unit = STCBasic(8, 8, frames=2, branches="both", reduction=4, preactivation=preactivation, rngs=nnx.Rngs(0), **UNIT)
    graphdef, state = nnx.split(unit)

    @jax.jit
    def outputs(state, x):
        unit = nnx.merge(graphdef, state)
        return unit(x), unit.stc(Basic.residual(unit, x)) + x, Basic.residual(unit, x) + x

    x = jax.random.normal(jax.random.key(0), (2, 2, 4, 4, 8))
    output, with_block, without_block = outputs(nnx.to_pure_dict(state), x)
    activation = (lambda y: y) if preactivation else jax.nn.relu
    np.testing.assert_allclose(output, activation(with_block), rtol=1e-5, atol=1e-6)
    assert abs(output - activation(without_block)).max() > 0.1


def test_every_unit_has_a_block():
    for name, kind in (("stc_resnet18", STCBasic), ("stc_resnext101", STCBottleneck)):
        model = abstract(name, frames=16)
        units = [unit for stage in (model.layer1, model.layer2, model.layer3, model.layer4) for unit in stage]
        assert all(type(unit) is kind for unit in units)


def test_another_clip_length_is_refused_by_both_lengths():
    model, video = abstract("stc_resnet18", frames=16), jax.ShapeDtypeStruct((1, 32, 112, 112, 3), jnp.float32)
    with pytest.raises(UserError, match=r"clips of 32 frames.*built for 16\..*frames=32"):
        model.stages(video)
    with pytest.raises(UserError, match=r"clips of 15 frames.*built for 16\."):  # 15 frames have the same T inside
        model.stages(jax.ShapeDtypeStruct((1, 15, 112, 112, 3), jnp.float32))


def test_without_an_scb_any_clip_length_works():
    graphdef, state = nnx.split(abstract("stc_resnet18", branches="tcb", frames=16, layers=(1, 1, 1, 1)))
    video = jax.ShapeDtypeStruct((1, 40, 112, 112, 3), jnp.float32)
    scores = jax.eval_shape(lambda s, v: nnx.merge(graphdef, s)(v), nnx.to_pure_dict(state), video)
    assert scores.shape == (1, 400)


def test_unknown_branches_are_refused():
    with pytest.raises(UserError, match="branches='spatial' is unknown; choose one of 'both', 'tcb', 'scb'"):
        abstract("stc_resnet18", branches="spatial")
