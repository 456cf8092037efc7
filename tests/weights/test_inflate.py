"""From 2D to 3D: kernels, and what the networks that get them compute of a video in which nothing moves."""

import jax
import jax.numpy as jnp
import numpy as np
import outlines
import pytest
from conftest import ROOT
from flax import nnx
from reference import layouts

from jax_video import state
from jax_video.models.layers import padded_conv
from jax_video.networks import CHANNELS
from jax_video.weights import merge, names
from jax_video.weights.inflate import METHODS, inflate

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(1, 3, 3, 4, 5)).astype(np.float32)  # [t, h, w, I, O]


# Kernels.


def test_mean_repeats_and_divides():
    for taps in (2, 3, 5, 7):
        inflated = inflate(KERNEL, (taps, 3, 3, 4, 5), "mean")
        assert inflated.dtype == np.float32
        np.testing.assert_array_equal(inflated, np.repeat(KERNEL / np.float32(taps), taps, axis=0))
    # ST-ResNet's 1×1×1 convolutions become 3×1×1.
    pointwise = RNG.normal(size=(1, 1, 1, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(inflate(pointwise, (3, 1, 1, 4, 5), "mean")[2], pointwise[0] / np.float32(3))


def test_centre_is_the_frame_itself():
    for taps, centre in ((3, 1), (5, 2), (4, 1), (6, 2)):
        inflated = inflate(KERNEL, (taps, 3, 3, 4, 5), "centre")
        np.testing.assert_array_equal(inflated[centre], KERNEL[0])
        assert not np.delete(inflated, centre, axis=0).any()


def test_views_see_the_kernel_as_it_is():
    for method in METHODS:
        inflated = inflate(KERNEL, (3, 3, 3, 4, 5), method, views=True)
        np.testing.assert_array_equal(inflated, np.repeat(KERNEL, 3, axis=0))


def test_a_flow_stem_sees_the_mean_of_rgb():
    stem = RNG.normal(size=(1, 7, 7, 3, 5)).astype(np.float32)
    flow = inflate(stem, (1, 7, 7, CHANNELS["flow"], 5), "mean")
    assert flow.shape == (1, 7, 7, 20, 5) and flow.dtype == np.float32
    for channel in range(CHANNELS["flow"]):
        np.testing.assert_array_equal(flow[:, :, :, channel], stem.mean(axis=3))
    both = inflate(stem, (3, 7, 7, CHANNELS["flow"], 5), "centre")
    np.testing.assert_array_equal(both[1], flow[0])
    assert not both[0].any() and not both[2].any()


@pytest.mark.parametrize(
    "shape",
    [
        (3, 3, 3, 4, 6),  # other channels
        (3, 3, 3, 20, 5),  # 20, but not from RGB
        (3, 5, 5, 4, 5),  # another size
        (3, 3, 4, 5),  # no convolution over time
        (5,),
    ],
)
def test_no_rule_leads_there(shape):
    assert inflate(KERNEL, shape, "mean") is None and inflate(KERNEL, shape, "centre") is None


def test_time_is_never_taken_away_or_doubled():
    assert inflate(np.ones((3, 3, 3, 4, 5)), (1, 3, 3, 4, 5), "mean") is None
    assert inflate(np.ones((3, 3, 3, 4, 5)), (5, 3, 3, 4, 5), "mean") is None
    assert inflate(np.ones(5), (3,), "mean") is None


# Operations.


def convolved(kernel, video, stride):
    taps, height, width, in_features, out_features = kernel.shape
    layer = padded_conv(
        in_features, out_features, (taps, height, width), strides=(stride, 2, 2), dtype=jnp.float32, rngs=nnx.Rngs(0)
    )
    layer.kernel.set_value(jnp.asarray(kernel))
    return np.asarray(layer(jnp.asarray(video)))


@pytest.mark.parametrize("taps", [3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_of_a_repeated_frame(taps, stride):
    """Away from the temporal borders each frame of the output is the 2D convolution's."""
    frame = RNG.normal(size=(2, 1, 9, 8, 4)).astype(np.float32)
    expected = convolved(KERNEL, frame, 1)
    mean = convolved(inflate(KERNEL, (taps, 3, 3, 4, 5), "mean"), np.repeat(frame, 12, axis=1), stride)
    inner = mean[:, 4 // stride : 8 // stride]
    assert inner.shape[1] == 4 // stride
    np.testing.assert_allclose(inner, np.broadcast_to(expected, inner.shape), rtol=1e-5, atol=1e-5)
    assert np.abs(mean[:, :1] - expected).max() > 0.1, "but not where zeros are seen"


@pytest.mark.parametrize("taps", [3, 4, 5])
def test_the_centre_tap_computes_every_frame_on_its_own(taps):
    video = RNG.normal(size=(2, 6, 9, 8, 4)).astype(np.float32)
    centre = convolved(inflate(KERNEL, (taps, 3, 3, 4, 5), "centre"), video, 1)
    np.testing.assert_allclose(centre, convolved(KERNEL, video, 1), rtol=1e-5, atol=1e-5)


# Networks.

SMALL = {"width": 1 / 16, "layers": (2, 2, 1, 1)}  # every second unit is converted: the last of stages 1, 2 and 4
CLASSES = 5


def random_arrays(model) -> dict[str, np.ndarray]:
    """Weights and statistics of a network, none at its initial value."""
    _, params, batch_stats = state.split(model)
    rng, arrays = np.random.default_rng(1), {}
    for name, leaf in state.named_leaves({"params": params, "batch_stats": batch_stats}).items():
        scale = (2 / np.prod(leaf.shape[:-1])) ** 0.5 if len(leaf.shape) > 1 else 0.2
        arrays[name] = rng.normal(size=leaf.shape, scale=scale).astype(np.float32)
        if name.endswith(("scale", "var")):
            arrays[name] = np.abs(arrays[name]) + np.float32(0.7)
    return arrays


def with_arrays(model, arrays):
    """A network in test mode with these arrays."""
    definition, params, batch_stats = state.split(model)
    network = jax.tree_util.tree_map_with_path(
        lambda path, _: arrays[jax.tree_util.keystr(path, simple=True, separator="/")],
        {"params": params, "batch_stats": batch_stats},
    )
    return state.join(definition, network["params"], network["batch_stats"], train=False)


def leaves(model):
    _, params, batch_stats = state.split(model)
    return state.named_leaves({"params": params, "batch_stats": batch_stats})


def views_of(model):
    """Names of the kernels with which CoST looks from three sides."""
    beside = ("alpha", "fc1/kernel")
    found = leaves(model)
    return [name for name in found if any(name.removesuffix("kernel") + other in found for other in beside)]


def inflated(source, target, method, **kwargs):
    """Another network with the weights of a 2D one: (its network, what was merged)."""
    arrays = random_arrays(source)
    merged = merge.merge(dict(arrays), leaves(target), method=method, views=views_of(target), **kwargs)
    return with_arrays(source, arrays), merged


FRAMES = RNG.normal(size=(2, 1, 40, 48, 3)).astype(np.float32)


def logits(model, frames):
    return np.asarray(jax.jit(lambda video: model(video))(np.repeat(FRAMES, frames, axis=1)))


def close(found, expected):
    return np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.fixture(scope="module")
def resnet50():
    return outlines.abstract("resnet50", CLASSES, **SMALL)


@pytest.fixture(scope="module")
def expected(resnet50):
    """Its logits of FRAMES, with the arrays that it has in every test."""
    return logits(with_arrays(resnet50, random_arrays(resnet50)), 1)


def test_c2d_of_a_repeated_frame_has_the_2d_logits(resnet50, expected):
    """It has no temporal taps, and a max pool over frames that are all the same does nothing."""
    target = outlines.abstract("c2d_resnet50", CLASSES, **SMALL)
    _, merged = inflated(resnet50, target, "")
    assert not merged.inflated and not merged.fresh
    assert close(logits(with_arrays(target, merged.arrays), 8), expected)


@pytest.mark.parametrize("share_weights", [True, False])
def test_cost_a_that_looks_at_h_and_w_has_the_2d_logits(resnet50, expected, share_weights):
    target = outlines.abstract("cost_a_resnet50", CLASSES, pool="code", share_weights=share_weights, **SMALL)
    _, merged = inflated(resnet50, target, "mean", skip=["*/alpha"])
    assert len(merged.fresh) == 3 and len(merged.inflated) == (0 if share_weights else 3)
    for name in merged.fresh:  # a softmax of exactly (1, 0, 0)
        merged.arrays[name] = np.stack([np.full(leaves(target)[name].shape[1:], value) for value in (1e4, -1e4, -1e4)])
    assert close(logits(with_arrays(target, merged.arrays), 8), expected)


def test_cost_b_that_looks_at_h_and_w_has_the_2d_logits(resnet50, expected):
    target = outlines.abstract("cost_b_resnet50", CLASSES, pool="code", **SMALL)
    _, merged = inflated(resnet50, target, "mean", skip=["*/fc?/*"])
    assert len(merged.fresh) == 6
    for name in merged.fresh:
        shape = leaves(target)[name].shape
        # The largest value of any channel and view is above zero, and their sum, times 1e6, is the score of H-W.
        merged.arrays[name] = np.full(shape, 1e6, np.float32) if "fc1" in name else np.eye(*shape, dtype=np.float32)
        merged.arrays[name][..., 1:] *= 1 if "fc1" in name else 0
    model = with_arrays(target, merged.arrays)
    found, alphas = jax.jit(lambda video: (model(video), model.coefficients(video)))(np.repeat(FRAMES, 8, axis=1))
    for alpha in alphas.values():
        np.testing.assert_array_equal(alpha, np.broadcast_to([[[1], [0], [0]]], alpha.shape))
    assert close(np.asarray(found), expected)


@pytest.mark.parametrize(("kind", "method"), [("c3d_3x1x1", "mean"), ("c3d_3x3x3", "mean"), ("c3d_3x1x1", "centre")])
def test_c3d_of_a_repeated_frame_has_the_2d_logits_away_from_the_borders(resnet50, expected, kind, method):
    """The logits of the frame in the middle; "centre" has them everywhere."""
    target = outlines.abstract(f"{kind}_resnet50", CLASSES, pool="code", **SMALL)
    _, merged = inflated(resnet50, target, method)
    assert len(merged.inflated) == 3 and not merged.fresh
    model = with_arrays(target, merged.arrays)
    features = jax.jit(lambda video: model.features(video))(np.repeat(FRAMES, 16, axis=1))  # [B, 8, H, W, D]
    of_frames = np.asarray(jax.vmap(model.fc, in_axes=1, out_axes=1)(features.mean(axis=(2, 3))))  # [B, 8, K]
    assert features.shape[1] == 8 and close(of_frames[:, 3], expected) and close(of_frames[:, 4], expected)
    assert close(of_frames[:, 0], expected) == (method == "centre")


def test_st_resnet_of_a_repeated_frame_has_the_2d_logits_away_from_the_borders(resnet50, expected):
    """Replicate and divide, on the 1×1×1 convolutions at both ends of a stage's second unit (§3.3)."""
    target = outlines.abstract("appearance_stream", CLASSES, temporal=True, **SMALL)
    _, merged = inflated(resnet50, target, "mean")
    assert sorted(merged.inflated) == [
        f"params/layer{stage}/1/conv{number}/kernel" for stage in (1, 2) for number in (1, 3)
    ]
    model = with_arrays(target, merged.arrays)
    found = np.asarray(jax.jit(lambda video: model(video))(np.repeat(FRAMES, 12, axis=1)))  # [B, T, 1, 1, K]
    assert close(found[:, 6, 0, 0], expected) and not close(found[:, 0, 0, 0], expected)


def test_a_motion_stream_sees_ten_fields_as_it_would_see_grey(resnet50):
    """Flow whose 20 channels are all x gives what RGB gives whose three channels are 20 x / 3."""
    target = outlines.abstract("motion_stream", CLASSES, **SMALL)
    network, merged = inflated(resnet50, target, "mean")
    assert merged.inflated == ["params/conv1/kernel"]
    model = with_arrays(target, merged.arrays)
    grey = FRAMES[..., :1]
    flow = jax.jit(lambda video: model(video))(np.repeat(grey, CHANNELS["flow"], axis=-1))
    rgb = jax.jit(lambda video: network(video))(np.repeat(grey, 3, axis=-1) * np.float32(CHANNELS["flow"] / 3))
    assert close(np.asarray(flow)[:, 0, 0, 0], np.asarray(rgb))


# Full size.


@pytest.mark.parametrize(
    ("name", "options", "skip", "fresh", "inflates"),
    [
        ("cost_a_resnet50", {}, ["*/alpha"], 8, 0),
        ("cost_b_resnet50", {}, ["*/fc?/*"], 16, 0),
        ("cost_a_resnet50", {"share_weights": False}, ["*/alpha"], 8, 8),
        ("cost_a_resnet50", {"frames": 32}, ["*/alpha"], 8, 1),
        ("c3d_3x1x1_resnet50", {}, [], 0, 8),
        ("c2d_resnet50", {}, [], 0, 0),
    ],
)
def test_every_convolution_of_imagenets_resnet50_is_loaded(name, options, skip, fresh, inflates):
    path = ROOT / ".." / "shared" / "layouts" / "torchvision_resnet50.tsv"
    if not path.exists():
        pytest.skip(f"no names and shapes in {path.parent.resolve()}")
    weights = layouts.random(layouts.read(path))
    translation = names.to_ours("torchvision", dict(weights))
    target = outlines.abstract(name, 400, **options)
    merged = merge.merge(
        translation.arrays,
        leaves(target),
        problems=translation.problems,
        skip=["fc/*", *skip],
        method="mean",
        views=views_of(target),
    )
    assert sorted(merged.skipped) == ["params/fc/bias", "params/fc/kernel"]
    assert len(merged.fresh) == 2 + fresh and len(merged.inflated) == inflates
    kernels = [found for found in merged.arrays if "conv" in found and found.endswith("/kernel")]
    assert len(kernels) == 53 == sum(array.ndim == 4 for array in weights.values())
    assert len(merged.arrays) == 53 + 4 * 53, "and every BatchNorm"
    # The eight kernels that CoST convolves three views with are ImageNet's, as they are.
    for found in views_of(target):
        module = found.removeprefix("params/").removesuffix("/kernel").replace("/", ".")
        for view in merged.arrays[found]:
            np.testing.assert_array_equal(view, weights[f"{module}.weight"].transpose(2, 3, 1, 0))
