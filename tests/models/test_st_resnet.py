"""Two streams, ST-ResNet and ST-ResNet*: equal to the PyTorch reference, as large as published, and the laws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import torch
from flax import nnx
from outlines import abstract, parameters, shapes
from reference import st_resnet as reference

from jax_video import losses, state
from jax_video.errors import UserError
from jax_video.models.st_resnet import TwoStreams

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SMALL = {"width": 0.125, "layers": (2, 2, 2, 2)}  # with a second unit in every stage: it holds all that is special
RGB, FLOW = (6, 40, 24, 3), (6, 40, 24, 20)
NETWORKS = {
    "appearance_stream": (SMALL, [RGB]),
    "motion_stream": (SMALL | {"stride_on": "1x1", "layers": (1, 1, 1, 1)}, [FLOW]),
    "two_streams": (SMALL | {"layers": (1, 1, 1, 1)}, [RGB, FLOW]),
    "st_resnet": (SMALL | {"layers": (1, 3, 1, 1)}, [RGB, FLOW]),
    "st_resnet_star": (SMALL | {"layers": (2, 1, 1, 1)}, [RGB, FLOW]),
    "st_resnet_star, the code's pool": (SMALL | {"layers": (1, 1, 1, 2), "temporal_pool": "before"}, [RGB, FLOW]),
}
TRAINED = {  # with other layers and keywords
    "motion_stream": {},
    "two_streams": {},
    "st_resnet": {"layers": (3, 2, 1, 1)},
    "st_resnet_star": {"layers": (1, 2, 1, 1), "stride_on": "1x1"},
}


def pair(label, dtype, remat=False, **options):
    kwargs, shapes = NETWORKS[label]
    name, kwargs = label.split(",")[0], kwargs | options | {"num_classes": parity.CLASSES}
    return abstract(name, dtype=dtype, remat=remat, **kwargs), reference.build(name, **kwargs), *shapes


@pytest.mark.usefixtures("strict_dtypes")
@pytest.mark.parametrize(  # the appearance stream is the first of the two
    "label", [pytest.param(label, marks=[pytest.mark.slow] * (label == "appearance_stream")) for label in NETWORKS]
)
def test_test_mode_forward_in_float32(label):
    parity.check_test_mode_forward(*pair(label, jnp.float32))


@pytest.mark.parametrize(
    "label",
    [pytest.param(label, marks=pytest.mark.slow) for label in ("motion_stream", "two_streams", "st_resnet")]
    + ["st_resnet_star"],
)
def test_gradients_in_float64(label):
    """ST-ResNet* is all that the others are, and a pool; it is rematerialised, which changes nothing."""
    with jax.enable_x64(True):
        parity.check_training(*pair(label, jnp.float64, remat=label == "st_resnet_star", **TRAINED[label]))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("appearance_stream", 23_714_981),
        ("motion_stream", 23_768_293),
        ("two_streams", 23_714_981 + 23_768_293),
        ("st_resnet", 58_624_394),
        ("st_resnet_star", 58_624_394),
    ],
)
def test_parameters_are_as_many_as_published(name, expected):
    assert parameters(abstract(name, 101)) == expected
    with torch.device("meta"):
        assert sum(p.numel() for p in reference.build(name, 101).parameters()) == expected


@pytest.mark.parametrize(
    ("name", "frames", "size", "expected"),
    [
        ("st_resnet", 5, 224, (5, 1, 1)),
        ("st_resnet", 25, 256, (25, 2, 2)),
        ("st_resnet_star", 11, 224, (4, 1, 1)),
        ("st_resnet_star", 25, 256, (11, 2, 2)),
        ("two_streams", 1, 112, (1, 1, 1)),  # a map smaller than the pool's window
    ],
)
def test_there_are_scores_of_every_frame_and_place(name, frames, size, expected):
    videos = [(2, frames, size, size, channels) for channels in (3, 20)]
    output = (2, *expected, 101)
    assert shapes(abstract(name, 101, layers=(2, 1, 1, 1)), *videos, method="__call__") == (output, output)


def randomized(model, seed=1):
    """(definition, params, batch_stats) with BatchNorm's scales, offsets and statistics away from zero and one.

    The values are NumPy's: initialising as the networks do compiles a function for every shape.
    """
    definition, params, batch_stats = state.split(model)
    rng = np.random.default_rng(seed)

    def draw(leaf):
        if leaf.ndim == 1:
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype)
        deviation = np.sqrt(2 / np.prod(leaf.shape[:-1]))
        return jnp.asarray(rng.normal(0, deviation, leaf.shape), leaf.dtype)

    return definition, jax.tree.map(draw, params), jax.tree.map(draw, batch_stats)


def small(name, **kwargs):
    return abstract(name, 5, **SMALL | kwargs)


@functools.partial(jax.jit, static_argnums=0)
def scores(definition, params, batch_stats, *videos):
    return nnx.view(nnx.merge(definition, params, batch_stats), use_running_average=True)(*videos)


def test_a_repeated_frame_looks_to_averaging_taps_as_to_the_2d_network():
    """Without the motion residuals, and away from the clip's ends, whose zero padding the averages see (§3.2)."""
    layers = {"layers": (1, 2, 1, 1)}
    two, st = small("two_streams", **layers), small("st_resnet", connections=False, **layers)
    definition, params, batch_stats = randomized(two)
    _, spatiotemporal, _ = state.split(st)
    averaging = jax.tree.map(
        lambda old, new: (
            jnp.broadcast_to(old / new.shape[0], new.shape) if old.ndim == 5 and old.shape != new.shape else old
        ),
        params,
        spatiotemporal,
    )
    rng = np.random.default_rng(0)
    rgb, flow = (np.repeat(rng.normal(size=(2, 1, 32, 32, c)), 7, axis=1).astype(np.float32) for c in (3, 20))
    expected = scores(definition, params, batch_stats, rgb, flow)
    ours = scores(state.split(st)[0], averaging, batch_stats, rgb, flow)
    for theirs, mine in zip(expected, ours, strict=True):
        middle = slice(2, 5)  # two convolutions over 3 frames see 2 frames to either side
        np.testing.assert_allclose(mine[:, middle], theirs[:, middle], atol=1e-5 * np.abs(theirs).max())
        assert np.abs(mine[:, 0] - theirs[:, 0]).max() > 1e-3 * np.abs(theirs).max()


def test_motion_learns_from_the_loss_of_appearance_but_not_the_other_way_round():
    definition, params, batch_stats = randomized(small("st_resnet"))
    rng = np.random.default_rng(0)
    videos = [rng.normal(size=(2, 3, 16, 16, channels)).astype(np.float32) for channels in (3, 20)]

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def of_appearance(params):
        """Gradients of the appearance stream's loss, and the motion stream's scores."""
        model = state.join(definition, params, batch_stats, train=False)  # with less to compile, and the same paths
        appearance, motion = model(*videos)
        return losses.video_cross_entropy(appearance, jnp.array([1, 3])).sum(), motion

    gradients, scores = of_appearance(params)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradients["appearance"]["layer1"]))
    for stage in range(1, 5):  # through each of the four connections
        assert np.any(gradients["motion"][f"layer{stage}"][0]["conv1"]["kernel"])
    assert not np.any(gradients["motion"]["fc"]["kernel"])

    def changed(stream):
        return params | {stream: jax.tree.map(lambda leaf: -0.5 * leaf, params[stream])}

    np.testing.assert_array_equal(of_appearance(changed("appearance"))[1], scores)
    assert np.all(of_appearance(changed("motion"))[1] != scores)


def test_loss_sums_frames_and_streams_and_averages_places():
    rng = np.random.default_rng(0)
    streams = tuple(jnp.asarray(rng.normal(size=(2, 3, 2, 1, 5)), jnp.float32) for _ in range(2))
    label = jnp.array([4, 0])
    expected = np.zeros(2)
    for logits in map(np.asarray, streams):
        for row, frame, place in np.ndindex(2, 3, 2):
            values = logits[row, frame, place, 0]
            expected[row] += (np.log(np.exp(values).sum()) - values[label[row]]) / 2
    np.testing.assert_allclose(losses.video_cross_entropy(streams, label), expected, rtol=1e-5)
    mean = losses.video_cross_entropy(streams, label, reduction="mean")
    np.testing.assert_allclose(mean, expected / 3, rtol=1e-5)
    with pytest.raises(UserError, match="unknown loss reduction 'median': choose sum or mean"):
        losses.video_cross_entropy(streams, label, reduction="median")


def test_errors_say_what_is_wrong():
    with pytest.raises(UserError, match=r"shape \(1, 4, 64, 64, 3\); expected \[batch, frames, height, width, 20\]"):
        abstract("motion_stream")(jnp.zeros((1, 4, 64, 64, 3)))
    with pytest.raises(UserError, match="temporal_pool='max' is unknown; choose one of 'none', 'after', 'before'"):
        abstract("st_resnet", temporal_pool="max")
    for shape in ((1, 5, 64, 64, 20), (2, 4, 64, 64, 20), (2, 5, 32, 64, 20)):
        with pytest.raises(
            UserError, match=r"got RGB of shape \(2, 5, 64, 64, 3\) and flow of shape .*expected the same"
        ):
            shapes(abstract("st_resnet", layers=(2, 1, 1, 1)), (2, 5, 64, 64, 3), shape, method="__call__")
    with pytest.raises(UserError, match=r"layers=\(1, 1, 1, 1\) has no second unit in any stage"):
        abstract("st_resnet", layers=(1, 1, 1, 1))
    with pytest.raises(UserError, match="depth=18 is unknown; choose one of 50, 101, 152"):
        TwoStreams(18, num_classes=5, rngs=nnx.Rngs(0))
    with pytest.raises(UserError, match="clips of 4 frames.*at least 5 frames"):
        shapes(
            abstract("st_resnet_star", layers=(2, 1, 1, 1)), (1, 4, 64, 64, 3), (1, 4, 64, 64, 20), method="__call__"
        )
