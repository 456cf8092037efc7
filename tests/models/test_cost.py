"""2D ResNet, C2D, C3D and CoST: equal to the PyTorch reference, as large as published, and the paper's laws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import outlines
import parity
import pytest
import torch
from flax import nnx
from outlines import abstract, parameters, shapes
from reference import cost as reference

from jax_video import models, state
from jax_video.errors import UserError
from jax_video.models.convolution import conv
from jax_video.models.cost import C2D, CoST, fuse_views, views
from jax_video.models.layers import Dropout

pytestmark = pytest.mark.usefixtures("one_torch_thread")

# Two units in the first stage, so that both kinds of unit stand in a stage, and one is strided: its index is odd.
SMALL = {"width": 0.125, "layers": (2, 1, 1, 1)}
INPUT = (5, 40, 24, 3)
NETWORKS = {
    "resnet18": SMALL,
    "resnet50": SMALL,
    "resnext50": SMALL | {"layers": (1, 1, 1, 1)},
    "c2d_resnet50": SMALL,
    "c3d_3x1x1_resnet50": SMALL | {"pool": "code"},
    "c3d_3x3x3_resnet50": SMALL | {"frames": 32},
    "cost_a_resnet50": SMALL,
    "cost_a_resnet50 in three views, not shared": SMALL | {"fuse_views": False, "share_weights": False},
    "cost_b_resnet50": SMALL | {"pool": "code"},
    "cost_b_resnet50 not shared": SMALL | {"share_weights": False, "kernel_size": 5},
}
# What is not shared is so in the operation, which is tested by itself below; the networks hand the keywords on.
FORWARD_ALIKE = ["cost_a_resnet50 in three views, not shared", "cost_b_resnet50 not shared"]
TRAINED = ["resnet18", "cost_b_resnet50"]
# These differ from them in the shapes of kernels, and in the operation, which is trained by itself below.
TRAINED_ALIKE = """
    resnet50 resnext50 c2d_resnet50 c3d_3x1x1_resnet50 c3d_3x3x3_resnet50 cost_a_resnet50
""".split()
OPERATIONS = {
    "a, three views, not shared": {"fuse_views": False, "share_weights": False},
    "a, stride": {"stride": 2},
    "b, not shared, 5 taps": {"adaptive": True, "share_weights": False, "kernel_size": 5},
    "b, stride": {"adaptive": True, "stride": 2},
}


def pair(label, dtype):
    name = label.split()[0]
    options = NETWORKS[label] | {"num_classes": parity.CLASSES}
    ours = options | {"dropout": 0.0}
    model = nnx.eval_shape(lambda: models.build(name, rngs=models.Keys(0), dtype=dtype, **ours))
    options.pop("fuse_views", None)
    shape = (9, *INPUT[1:]) if options.get("frames") == 32 else INPUT
    return model, reference.build(name, **options), shape


@pytest.mark.usefixtures("strict_dtypes")
@pytest.mark.parametrize(
    "label", [pytest.param(label, marks=[pytest.mark.slow] * (label in FORWARD_ALIKE)) for label in NETWORKS]
)
def test_test_mode_forward_in_float32(label):
    parity.check_test_mode_forward(*pair(label, jnp.float32))


@pytest.mark.parametrize("label", TRAINED + [pytest.param(label, marks=pytest.mark.slow) for label in TRAINED_ALIKE])
def test_gradients_in_float64(label):
    with jax.enable_x64(True):
        parity.check_training(*pair(label, jnp.float64))


@pytest.mark.parametrize("label", OPERATIONS)
def test_gradients_of_the_operation_in_float64(label):
    ours = {"stride": 1, "kernel_size": 3, "adaptive": False, "share_weights": True} | OPERATIONS[label]
    theirs = {"kind": "cost_b" if ours["adaptive"] else "cost_a", "k": ours["kernel_size"]}
    network = reference.CoST(6, 8, ours["stride"], share_weights=ours["share_weights"], **theirs)
    with jax.enable_x64(True):
        model = nnx.eval_shape(lambda: CoST(6, 8, dtype=jnp.float64, rngs=models.Keys(0), **ours))
        parity.check_training(model, network, (4, 5, 6, 6))


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("c2d_resnet50", {}, 24_327_632),
        ("c3d_3x1x1_resnet50", {}, 29_013_456),
        ("c3d_3x3x3_resnet50", {}, 37_967_312),
        ("cost_a_resnet50", {}, 24_333_968),
        ("cost_b_resnet50", {}, 25_085_464),
        ("cost_b_resnet50", {"share_weights": False}, 38_725_144),
    ],
)
def test_parameters_are_as_many_as_published(name, options, expected):
    assert parameters(abstract(name, **options)) == expected
    with torch.device("meta"):
        assert sum(p.numel() for p in reference.build(name, 400, **options).parameters()) == expected


@pytest.mark.parametrize(
    ("name", "expected"),  # torchvision's, with 1,000 classes
    [("resnet18", 11_689_512), ("resnet34", 21_797_672)]
    + [("resnet50", 25_557_032), ("resnet101", 44_549_160), ("resnet152", 60_192_808)]
    + [("resnext50", 25_028_904), ("resnext101", 88_791_336)],
)
def test_2d_networks_have_torchvisions_parameters(name, expected):
    assert parameters(abstract(name, 1000)) == expected
    with torch.device("meta"):
        assert sum(p.numel() for p in reference.build(name, 1000).parameters()) == expected


def test_basic_units_have_the_published_sizes():
    sizes = shapes(abstract("resnet18"), (2, 3, 224, 224, 3))
    assert sizes == {
        "conv1": (2, 3, 112, 112, 64),
        "pool": (2, 3, 56, 56, 64),
        "layer1": (2, 3, 56, 56, 64),
        "layer2": (2, 3, 28, 28, 128),
        "layer3": (2, 3, 14, 14, 256),
        "layer4": (2, 3, 7, 7, 512),
    }


@pytest.mark.parametrize(
    ("depth", "converted"),
    [
        (50, {1: [1], 2: [0, 2], 3: [0, 2, 4], 4: [0, 2]}),
        (101, {1: [1], 2: [0, 2], 3: list(range(0, 23, 2)), 4: [1]}),
    ],
)
def test_every_second_unit_is_converted(depth, converted):
    model = abstract(f"cost_a_resnet{depth}")
    for stage, expected in converted.items():
        units = getattr(model, f"layer{stage}")
        assert [index for index, unit in enumerate(units) if isinstance(unit.conv2, CoST)] == expected


@pytest.mark.parametrize("pool", ["paper", "code"])
@pytest.mark.parametrize(("frames", "stem"), [(8, "5x7x7"), (32, "5x7x7"), (32, "1x7x7")])
def test_stages_have_the_sizes_of_table_1(frames, stem, pool):
    model = abstract("cost_b_resnet101", frames=frames, stem=stem, pool=pool, layers=(1, 1, 1, 1))
    sizes = shapes(model, (2, frames, 224, 224, 3))
    assert sizes == {
        "conv1": (2, 8 if frames == 8 else 16, 112, 112, 64),
        "pool": (2, 8, 56, 56, 64),
        "layer1": (2, 8, 56, 56, 256),
        "layer2": (2, 4, 28, 28, 512),
        "layer3": (2, 4, 14, 14, 1024),
        "layer4": (2, 4, 7, 7, 2048),
    }


def clip(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, 5, 7])
@pytest.mark.parametrize("share_weights", [True, False])
def test_fused_views_are_three_views(kernel_size, stride, share_weights):
    def output(fuse):
        options = {"stride": stride, "kernel_size": kernel_size, "share_weights": share_weights, "fuse_views": fuse}
        layer = CoST(6, 8, rngs=nnx.Rngs(0), **options)
        layer.alpha.set_value(jnp.asarray(clip(3, 8)))
        return jax.jit(layer.__call__)(clip(2, 5, 8, 9, 6))

    three = output(False)
    np.testing.assert_allclose(output(True), three, atol=1e-5 * np.abs(three).max())


@pytest.mark.parametrize(("kernel_size", "voxels"), [(3, 19), (5, 61)])
def test_a_fused_kernel_has_zero_corners(kernel_size, voxels):
    kernels = jnp.ones((3, kernel_size, kernel_size, 1, 1))
    fused = fuse_views(kernels, jnp.full((3, 1), 1 / 3))
    assert fused.shape == (kernel_size,) * 3 + (1, 1)
    assert np.count_nonzero(fused) == voxels == 3 * kernel_size**2 - 3 * kernel_size + 1


def test_a_views_rows_and_columns_are_its_axes():
    """A kernel that looks one row down and two columns right finds the clip's next frame, row or column."""
    kernel = jnp.zeros((5, 5, 1, 1)).at[3, 4].set(1.0)
    video = jnp.asarray(clip(1, 7, 7, 7, 1))
    for view, (down, right) in zip(views(kernel), [(2, 3), (1, 3), (1, 2)], strict=True):
        padding = tuple((taps // 2, taps // 2) for taps in view.shape[:3])
        shift = [0] * 5
        shift[down], shift[right] = -1, -2
        expected = jnp.roll(video, shift, range(5))
        inside = (slice(None), *(slice(2, -2),) * 3)
        np.testing.assert_array_equal(conv(video, view, padding=padding)[inside], expected[inside])


def test_an_even_kernel_has_no_centre():
    with pytest.raises(UserError, match="kernel_size=4; expected an odd number"):
        CoST(2, 2, kernel_size=4, rngs=nnx.Rngs(0))


def randomized(name, dtype=jnp.float32, **kwargs):
    """A small network with random weights, offsets and statistics; α is as it starts.

    The values are NumPy's: initialising as the networks do compiles a function for every shape.
    """
    definition, params, batch_stats = state.split(abstract(name, 5, dtype=dtype, **SMALL, **kwargs))
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        if path[-1].key == "alpha":
            return CoST(1, leaf.shape[-1], dtype=dtype, rngs=nnx.Rngs(0)).alpha[...]
        if leaf.ndim == 1:
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), dtype)
        deviation = 0.01 if path[-2].key in ("fc1", "fc2") else np.sqrt(2 / np.prod(leaf.shape[:-1]))
        return jnp.asarray(rng.normal(0, deviation, leaf.shape), dtype)

    return definition, *jax.tree_util.tree_map_with_path(draw, (params, batch_stats))


@functools.partial(jax.jit, static_argnums=0)
def scores(definition, params, batch_stats, video):
    return nnx.view(nnx.merge(definition, params, batch_stats), use_running_average=True)(video)


@pytest.mark.parametrize("fuse", [True, False])
def test_cost_without_its_temporal_views_is_c2d(fuse):
    """In float64, since two programs add up the same products in orders of their own."""
    with jax.enable_x64(True):
        definition, params, batch_stats = randomized("c2d_resnet50", jnp.float64)
        video = clip(2, 6, 32, 32, 3)
        expected = scores(definition, params, batch_stats, video)
        definition, with_alpha, _ = randomized("cost_a_resnet50", jnp.float64, fuse_views=fuse)
        for layer, unit in (("layer1", 1), ("layer3", 0)):
            alpha = with_alpha[layer][unit]["conv2"]["alpha"]
            params[layer][unit]["conv2"]["alpha"] = jnp.full_like(alpha, -1e9).at[0].set(0.0)
        assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, with_alpha)
        ours = scores(definition, params, batch_stats, video)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["c2d", "c3d_3x1x1", "c3d_3x3x3", "cost_a", "cost_b"])
def test_only_c2d_with_the_codes_pools_is_blind_to_the_order_of_frames(kind):
    video = clip(2, 8, 32, 32, 3)
    network = randomized(f"{kind}_resnet50", pool="code")
    forward, backward = scores(*network, video), scores(*network, video[:, ::-1])
    difference = np.abs(forward - backward).max() / np.abs(forward).max()
    assert difference <= 1e-5 if kind == "c2d" else difference > 1e-3


@pytest.mark.parametrize("kind", ["cost_a", "cost_b"])
def test_coefficients_are_read_from_a_forward_pass(kind, monkeypatch):
    definition, params, batch_stats = randomized(f"{kind}_resnet50", fuse_views=False)
    video = clip(2, 6, 32, 32, 3)
    alphas = jax.jit(lambda video: nnx.merge(definition, params, batch_stats).coefficients(video))(video)
    used = []  # what the operations weigh their views with
    original = CoST.coefficients
    monkeypatch.setattr(CoST, "coefficients", lambda *args: used.append(original(*args)) or used[-1])

    def forward(video):
        nnx.view(nnx.merge(definition, params, batch_stats), use_running_average=True)(video)
        return used

    for alpha, name in zip(jax.jit(forward)(video), ("layer1/1", "layer3/0"), strict=True):
        np.testing.assert_allclose(alphas[name], np.broadcast_to(alpha, alphas[name].shape), rtol=1e-5)
    assert {name: alpha.shape for name, alpha in alphas.items()} == {"layer1/1": (2, 3, 8), "layer3/0": (2, 3, 32)}
    for alpha in alphas.values():
        np.testing.assert_allclose(alpha.sum(axis=1), 1, rtol=1e-5)
        assert np.all(alpha > 0)
    if kind == "cost_a":  # .7, -.7, -.7: the paper's start
        start = nnx.softmax(jnp.array([0.7, -0.7, -0.7]))
        np.testing.assert_allclose(alphas["layer1/1"][0, :, 0], start, rtol=1e-5)
    else:  # each clip has its own
        assert np.abs(alphas["layer1/1"][0] - alphas["layer1/1"][1]).max() > 1e-6


def test_dropout_needs_keys_in_training_and_none_in_test():
    dropout = Dropout(0.5)
    features = jnp.ones((4, 1000))
    with pytest.raises(UserError, match="drops 50%.*keys=keys"):
        dropout(features, None)
    keys = jax.random.split(jax.random.key(0), 4)
    dropped = dropout(features, keys)
    assert set(np.unique(dropped)) == {0, 2} and 0.45 < dropped.mean() / 2 < 0.55
    np.testing.assert_array_equal(dropout(features[2:], keys[2:]), dropped[2:])  # whatever else is in the batch
    np.testing.assert_array_equal(nnx.view(dropout, use_running_average=True)(features, None), features)
    with pytest.raises(UserError, match="dropout=1.0; expected a probability"):
        Dropout(1.0)


def test_a_networks_dropout_gets_its_keys():
    definition, params, batch_stats = randomized("c2d_resnet50", dropout=0.9)
    forward = jax.jit(lambda video, keys: nnx.merge(definition, params, batch_stats)(video, keys=keys))
    video, keys = clip(2, 4, 16, 16, 3), jax.random.split(jax.random.key(0), 2)
    first = forward(video, keys)
    np.testing.assert_array_equal(first, forward(video, keys))
    assert np.all(np.any(first != forward(video, jax.random.split(jax.random.key(1), 2)), axis=1))


def test_a_network_of_half_the_width_with_a_whole_stem():
    for name in ("resnet50", "cost_a_resnet50", "st_resnet"):
        model = outlines.abstract(name, 5, width=0.5, stem_width=64, stride_on="1x1")
        stream = model.appearance if name == "st_resnet" else model
        assert stream.conv1.kernel.shape[-1] == 64 and stream.bn1.scale.shape == (64,)
        assert stream.layer1[0].conv1.kernel.shape[-2:] == (64, 32)
        assert stream.layer2[0].conv1.strides == (1, 2, 2)
        assert getattr(stream.layer2[0].conv2, "strides", (1, 1, 1)) == (1, 1, 1)
        assert getattr(stream.layer2[1].conv2, "stride", 1) == 1
    with pytest.raises(UserError, match="stem_width=0; expected a number above zero"):
        outlines.abstract("resnet18", 5, stem_width=0)


def test_errors_say_what_is_wrong():
    with pytest.raises(UserError, match=r"frames=16 is unknown; choose one of 8, 32"):
        abstract("c2d_resnet50", frames=16)
    with pytest.raises(UserError, match=r"pool='codes' is unknown; choose one of 'paper', 'code'"):
        abstract("c2d_resnet50", pool="codes")
    with pytest.raises(UserError, match="share_weights and fuse_views are of CoST's operation, which c2d has not"):
        abstract("c2d_resnet50", share_weights=False)
    with pytest.raises(UserError, match="c3d_3x1x1 has no views to weigh"):
        abstract("c3d_3x1x1_resnet50").coefficients(jnp.zeros((1, 8, 32, 32, 3)))
    for kwargs in ({"cardinality": 32}, {"group_width": 4}, {"stride_on": "1x1"}):
        with pytest.raises(UserError, match="are of bottlenecks; depth 18 has none: .*or choose 50 or more"):
            abstract("resnet18", **kwargs)
    with pytest.raises(UserError, match="depth=18 is unknown; choose one of 50, 101, 152"):
        C2D(18, "cost_a", num_classes=5, rngs=nnx.Rngs(0))
    with pytest.raises(UserError, match="width=0; expected a number above zero"):
        abstract("cost_a_resnet50", width=0)
    with pytest.raises(UserError, match=r"clips of 6 frames of 32×32 pixels.*at least 7 frames of 5×5"):
        shapes(abstract("cost_a_resnet50", frames=32, pool="code"), (1, 6, 32, 32, 3))
