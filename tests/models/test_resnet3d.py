"""3D-ResNet and 3D-ResNeXt: sizes, parameters and units as published."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from outlines import abstract, parameters, shapes
from reference import resnet as reference

from jax_video.errors import UserError
from jax_video.models.layers import BatchNorm
from jax_video.models.resnet3d import Basic, Bottleneck

pytestmark = pytest.mark.usefixtures("strict_dtypes")

TABLE_1 = {  # STC Table 1, of a clip of 16 frames of 112×112
    "conv1": (16, 56, 56),
    "pool": (8, 28, 28),
    "layer1": (8, 28, 28),
    "layer2": (4, 14, 14),
    "layer3": (2, 7, 7),
    "layer4": (1, 4, 4),
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet3d10", 14_604_624),
        ("resnet3d18", 33_409_104),
        ("resnet3d34", 63_718_736),
        ("resnet3d50", 47_018_576),
        ("resnet3d101", 86_064_720),
        ("resnet3d152", 118_223_440),
        ("resnet3d200", 127_423_056),
        ("resnext3d101", 48_340_816),
    ],
)
def test_parameters_are_as_many_as_in_the_published_networks(name, expected):
    assert parameters(abstract(name)) == expected
    with torch.device("meta"):
        assert sum(p.numel() for p in reference.build(name, 400).parameters()) == expected


@pytest.mark.parametrize("name", ["resnet3d101", "resnext3d101", "stc_resnet101", "stc_resnext101"])
def test_sizes_of_table_1(name):
    sizes = shapes(abstract(name, layers=(1, 1, 1, 1)), (2, 16, 112, 112, 3))
    assert {key: shape[1:4] for key, shape in sizes.items()} == TABLE_1
    assert [sizes[key][4] for key in TABLE_1] == [64, 64, 256, 512, 1024, 2048]


def test_stem_of_table_1_has_the_same_sizes_from_the_pool_on():
    sizes = shapes(abstract("stc_resnet18", stem="table1", layers=(1, 1, 1, 1)), (2, 16, 112, 112, 3))
    assert {key: shape[1:4] for key, shape in sizes.items()} == TABLE_1 | {"conv1": (8, 56, 56)}


def test_bottlenecks_have_the_widths_of_the_papers():
    for name, middle in (("resnet3d50", (64, 128, 256, 512)), ("resnext3d101", (128, 256, 512, 1024))):
        model = abstract(name)
        for stage, width in zip((model.layer1, model.layer2, model.layer3, model.layer4), middle, strict=True):
            assert stage[0].conv1.kernel.shape[-1] == stage[0].conv2.kernel.shape[-1] == width
    assert model.layer4[2].conv2.kernel.shape == (3, 3, 3, 32, 1024)  # 32 groups


@pytest.mark.parametrize(
    ("name", "kwargs", "widths"),
    [
        ("resnet3d18", {"width": 0.25}, (16, 32, 64, 128)),
        ("resnet3d50", {"width": 0.1}, (4 * 8, 4 * 12, 4 * 24, 4 * 52)),
        ("resnext3d101", {"width": 0.25}, (64, 128, 256, 512)),
        ("resnext3d101", {"width": 0.1}, (64, 64, 128, 192)),  # 32 groups need middle widths of 32 and more
        ("resnext3d101", {"width": 0.1, "cardinality": 4}, (32, 48, 96, 208)),
    ],
)
def test_width_multiplier_rounds_to_what_groups_and_reductions_divide(name, kwargs, widths):
    sizes = shapes(abstract(name, layers=(1, 1, 1, 1), **kwargs), (2, 4, 16, 16, 3))
    assert tuple(sizes[f"layer{stage}"][-1] for stage in (1, 2, 3, 4)) == widths


@pytest.mark.parametrize("name", ["resnet3d18", "resnext3d101", "stc_resnet18"])
def test_layers_have_the_published_names(name):
    params = nnx.to_pure_dict(nnx.state(abstract(name), nnx.Param))
    assert params.keys() == {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"}


def test_layers_override_the_depth():
    model = abstract("resnet3d50", layers=(1, 2, 3, 4))
    assert [len(stage) for stage in (model.layer1, model.layer2, model.layer3, model.layer4)] == [1, 2, 3, 4]


UNIT = {"norm": BatchNorm, "dtype": jnp.float32, "rngs": nnx.Rngs(0)}
UNITS = [
    lambda *sizes, **kwargs: Basic(*sizes, **kwargs),
    lambda *sizes, **kwargs: Bottleneck(*sizes, cardinality=1, **kwargs),
]


def run(unit, x):
    """The unit's output, by the quickest compilation."""
    graphdef, state = nnx.split(unit)
    call = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))
    return call(nnx.to_pure_dict(state), x)


def silence(unit):
    """Sets the last convolution to zero, so that only the shortcut is left."""
    last = unit.conv3 if hasattr(unit, "conv3") else unit.conv2
    last.kernel[...] = jnp.zeros_like(last.kernel[...])


@pytest.mark.parametrize("make", UNITS, ids=["basic", "bottleneck"])
@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_post_activation_ends_and_pre_activation_does_not_end_in_a_relu(make, shortcut):
    post = make(16, 16 if make is UNITS[0] else 4, stride=1, shortcut=shortcut, preactivation=False, **UNIT)
    pre = make(16, 16 if make is UNITS[0] else 4, stride=1, shortcut=shortcut, preactivation=True, **UNIT)
    x = jax.random.normal(jax.random.key(0), (2, 2, 4, 4, 16))
    output = run(post, x)
    assert output.min() == 0
    assert not np.allclose(output, jax.nn.relu(x))
    silence(post), silence(pre)
    np.testing.assert_array_equal(run(post, x), jax.nn.relu(x))
    np.testing.assert_array_equal(run(pre, x), x)


@pytest.mark.parametrize("make", UNITS, ids=["basic", "bottleneck"])
def test_pre_activation_normalises_before_every_convolution(make):
    unit = make(16, 16 if make is UNITS[0] else 4, stride=1, shortcut="B", preactivation=True, **UNIT)
    x = jax.random.normal(jax.random.key(0), (2, 2, 4, 4, 16))
    # BN makes the branch blind to the input's scale and offset; the shortcut is not.
    branch, far = run(unit, x) - x, 100 * x + 7
    np.testing.assert_allclose(run(unit, far) - far, branch, atol=2e-3)
    assert abs(branch).max() > 0.5


@pytest.mark.parametrize("make", UNITS, ids=["basic", "bottleneck"])
def test_shortcut_a_strides_and_pads_channels_with_zeros(make):
    unit = make(8, 16 if make is UNITS[0] else 4, stride=2, shortcut="A", preactivation=True, **UNIT)
    silence(unit)
    x = jax.random.normal(jax.random.key(0), (2, 3, 5, 4, 8))
    expected = np.concatenate([x[:, ::2, ::2, ::2], np.zeros((2, 2, 3, 2, 8))], axis=-1)
    np.testing.assert_array_equal(run(unit, x), expected)


def test_shortcut_b_projects_and_normalises_only_where_the_shape_changes():
    model = abstract("resnet3d18")
    assert [unit.downsample is not None for stage in (model.layer1, model.layer2) for unit in stage] == [0, 0, 1, 0]
    assert model.layer2[0].downsample.conv.kernel.shape == (1, 1, 1, 64, 128)
    assert parameters(abstract("resnet3d18")) - parameters(abstract("resnet3d18", shortcut="A")) == sum(
        a * b + 2 * b for a, b in ((64, 128), (128, 256), (256, 512))
    )


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((16, 112, 112, 3), "leading axis of one"),
        ((2, 3, 16, 112, 112), r"shape \(2, 3, 16, 112, 112\).*channels last"),
        ((2, 2, 112, 112, 3), "2 frames of 112×112"),
        ((2, 16, 4, 112, 3), "16 frames of 4×112"),
        ((2, 16, 112, 4, 3), "16 frames of 112×4"),
    ],
)
def test_a_video_of_the_wrong_shape_is_refused(shape, message):
    with pytest.raises(UserError, match=message):
        shapes(abstract("resnet3d18"), shape)


def test_the_smallest_video_passes():
    assert shapes(abstract("resnet3d18", layers=(1, 1, 1, 1)), (2, 3, 5, 5, 3))["pool"] == (2, 2, 2, 2, 64)


def test_a_video_of_bytes_is_refused():
    with pytest.raises(UserError, match="uint8; expected floats"):
        abstract("resnet3d18").stages(np.zeros((1, 16, 112, 112, 3), np.uint8))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"stem": "tabel1"}, "stem='tabel1' is unknown; choose one of 'hara', 'table1'"),
        ({"shortcut": "C"}, "shortcut='C' is unknown"),
        ({"layers": (1, 1, 1)}, r"layers=\(1, 1, 1\)"),
        ({"layers": (1, 1, 1, 0)}, r"layers=\(1, 1, 1, 0\)"),
        ({"cardinality": 32}, "cardinality=32 needs bottlenecks"),
    ],
)
def test_a_value_that_the_network_does_not_have_is_refused(kwargs, message):
    with pytest.raises(UserError, match=message):
        abstract("resnet3d18", **kwargs)
