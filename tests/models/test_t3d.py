"""T3D, its temporal transition layers (TTL) and segment consensus."""

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import torch
from flax import nnx
from outlines import T3D_TABLE_1, abstract, parameters, shapes
from reference import densenet as reference
from reference import resnet

from jax_video import models
from jax_video.errors import UserError
from jax_video.models.layers import Dropout
from jax_video.models.t3d import TTL, SegmentConsensus

pytestmark = pytest.mark.usefixtures("strict_dtypes", "one_torch_thread")

# No two axes that could be exchanged, odd sizes before a pool, and two places left for the last block's BN.
INPUT = (17, 36, 64, 3)
SMALL = {"width": 0.125, "layers": (1, 2, 1, 1)}
UNEQUAL = (32, 64, 48)


def pair(dtype, **options):
    options = SMALL | options
    return abstract("t3d121", parity.CLASSES, dtype=dtype, **options), reference.build(
        "t3d121", parity.CLASSES, **options
    )


def ttl_pair(depth, dtype, channels=(3, 2, 4)):
    model = nnx.eval_shape(lambda: TTL(5, channels, depth=depth, dtype=dtype, rngs=models.Keys(0)))
    return model, reference.TemporalTransition(5, channels, depth)


# TTL --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", range(1, 8))
def test_a_ttl_of_any_depth_keeps_time_before_its_pool(depth):
    graphdef, state = nnx.split(ttl_pair(depth, jnp.float32)[0])

    def maps_and_output(state, video):
        ttl = nnx.merge(graphdef, state)
        return ttl.maps(video), ttl(video)

    for frames in (2, 5, 9):
        video = jax.ShapeDtypeStruct((2, frames, 4, 6, 5), jnp.float32)
        maps, output = jax.eval_shape(maps_and_output, nnx.to_pure_dict(state), video)
        assert maps.shape == (2, frames, 4, 6, 9)
        assert output.shape == (2, frames // 2, 2, 3, 9)


@pytest.mark.parametrize("depth", [2, 4, 6, 7])
def test_a_ttl_computes_what_pytorch_computes(depth):
    parity.check_test_mode_forward(*ttl_pair(depth, jnp.float32), (7, 4, 6, 5))


@pytest.mark.slow  # so do those of the network below
def test_a_ttl_trains_as_in_pytorch():
    with jax.enable_x64(True):
        parity.check_training(*ttl_pair(6, jnp.float64), (7, 4, 6, 5))


def test_an_even_kernel_sees_one_more_frame_after_than_before():
    model = TTL(1, (1, 1, 1), depth=6, rngs=nnx.Rngs(0))
    impulse = jnp.zeros((1, 15, 1, 1, 1)).at[0, 7].set(1.0)
    seen = np.flatnonzero(nnx.view(model, use_running_average=True).branches[2](impulse)[0, :, 0, 0, 0])
    assert seen.tolist() == [4, 5, 6, 7, 8, 9]  # output i sees the inputs i - 2 to i + 3


# T3D --------------------------------------------------------------------------------------------------------------


def test_test_mode_forward_in_float32():
    parity.check_test_mode_forward(*pair(jnp.float32, ttl_channels=UNEQUAL), INPUT)


def test_gradients_and_a_training_step_in_float64():
    with jax.enable_x64(True):
        parity.check_training(*pair(jnp.float64, ttl_channels=UNEQUAL, stem="hara"), INPUT)


@pytest.mark.parametrize(
    ("depth", "ttl_channels", "expected", "ratio"),  # to DenseNet3D of the same depth
    [(121, 48, 15_170_800, 1.301), (169, 48, 21_753_584, 1.132), (121, 128, 29_876_880, 2.56)],
)
def test_parameters(depth, ttl_channels, expected, ratio):
    count = parameters(abstract(f"t3d{depth}", ttl_channels=ttl_channels))
    assert count == expected
    assert count / parameters(abstract(f"densenet3d{depth}")) == pytest.approx(ratio, abs=0.005)
    with torch.device("meta"):
        network = reference.build(f"t3d{depth}", 400, ttl_channels=(ttl_channels,) * 3)
    assert sum(tensor.numel() for tensor in network.parameters()) == expected


def test_sizes_of_table_1():
    sizes = shapes(abstract("t3d121", layers=(1, 1, 1, 1)), (2, 32, 224, 224, 3))
    assert {stage: shape[1:4] for stage, shape in sizes.items()} == T3D_TABLE_1
    assert {sizes[f"transition{block}"][-1] for block in (1, 2, 3)} == {3 * 48}


def test_temporal_kernels_of_table_1():
    model = abstract("t3d169", width=0.5, layers=(1, 1, 1, 1), ttl_channels=(32, 64, 96))
    for transition, depth in ((model.transition1, 6), (model.transition2, 4), (model.transition3, 4)):
        kernels = [branch.conv.kernel.shape for branch in transition.branches]
        assert [shape[:3] for shape in kernels] == [(1, 1, 1), (3, 3, 3), (depth, 3, 3)]
        assert [shape[4] for shape in kernels] == [16, 32, 48]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"ttl_channels": (48, 48)}, r"ttl_channels=\(48, 48\); expected one number or three"),
        ({"ttl_channels": 0}, "ttl_channels=0; expected"),
        ({"temporal": False}, "t3d121 has no keyword temporal; it has .*ttl_channels"),
    ],
)
def test_a_value_that_the_network_does_not_have_is_refused(kwargs, message):
    with pytest.raises(UserError, match=message):
        abstract("t3d121", **kwargs)


# Segment consensus ------------------------------------------------------------------------------------------------


CLIPS = {  # frames, height and width; the PyTorch network that lends its weights: ours would compile to get any
    "t3d121": ((15, 32, 32), reference, SMALL),
    "resnet3d18": ((4, 16, 24), resnet, SMALL),
}


@pytest.mark.parametrize("name", [pytest.param("t3d121", marks=pytest.mark.slow), "resnet3d18"])
def test_consensus_is_the_mean_of_the_clips_logits(name):
    shape, source, options = CLIPS[name]
    model = abstract(name, 5, **options)
    consensus = abstract(name, 5, consensus=True, **options)
    assert isinstance(consensus, SegmentConsensus)
    network = source.build(name, 5, **options)
    parity.randomize(network)
    definition, *state = parity.copied(model, network)
    wrapped = nnx.split(consensus, nnx.Param, nnx.BatchStat)[0]

    def outputs(video, definition, state):
        network = nnx.view(nnx.merge(definition, *state), use_running_average=True)
        return network(video), network.features(video)

    video = jax.random.normal(jax.random.key(0), (2, 3, *shape, 3))
    run = jax.jit(outputs, static_argnums=1)
    logits, features = run(video, wrapped, [{"network": part} for part in state])
    single, single_features = run(video.reshape(6, *shape, 3), definition, state)
    assert logits.shape == (2, 5)
    np.testing.assert_allclose(logits, single.reshape(2, 3, 5).mean(axis=1), rtol=1e-5, atol=1e-6)
    assert features.shape == (2, 3 * single_features.shape[1], *single_features.shape[2:])
    np.testing.assert_allclose(features.reshape(single_features.shape), single_features, rtol=1e-5, atol=1e-6)


class Noise(nnx.Module):
    """Two inputs, two outputs of different rank, and dropout."""

    def __init__(self):
        self.dropout = Dropout(0.5)

    def __call__(self, rgb, flow, *, keys=None):
        noise = self.dropout(jnp.ones((len(rgb), 64)), keys)
        return rgb.mean(axis=(1, 2, 3)), {"flow": flow.mean(axis=4), "noise": noise}


def test_consensus_averages_every_output_and_gives_each_clip_its_own_key():
    rgb, flow = jnp.arange(2 * 3 * 24.0).reshape(2, 3, 2, 2, 2, 3), jnp.ones((2, 3, 2, 2, 2, 20))
    keys = jax.random.split(jax.random.key(0), 2)
    consensus = SegmentConsensus(Noise())
    scores, other = consensus(rgb, flow, keys=keys)
    np.testing.assert_allclose(scores, rgb.mean(axis=(1, 2, 3, 4)))
    np.testing.assert_array_equal(other["flow"], np.ones((2, 2, 2, 2)))
    kept = np.rint(other["noise"] * 3 / 2)  # by how many of the 3 clips each feature was kept
    assert set(np.unique(kept)) == {0, 1, 2, 3}  # with one key for all clips it would be 0 or 3
    assert not np.array_equal(kept[0], kept[1])
    again = consensus(rgb[1:], flow[1:], keys=keys[1:])[1]["noise"]
    np.testing.assert_array_equal(other["noise"][1:], again)  # a video's noise depends on its own key alone
    test_mode = nnx.view(consensus, use_running_average=True)(rgb, flow)[1]["noise"]
    np.testing.assert_array_equal(test_mode, np.ones((2, 64)))


@pytest.mark.parametrize("shape", [(2, 15, 32, 32, 3), (15, 32, 32, 3)])
def test_videos_without_an_axis_of_clips_are_refused(shape):
    consensus = SegmentConsensus(Noise())
    message = r"expects \[batch, clips, frames, height, width, channels\].*without consensus"
    with pytest.raises(UserError, match=message):
        consensus(np.zeros(shape, np.float32), np.zeros(shape, np.float32))
    with pytest.raises(UserError, match=message):
        consensus.features(np.zeros(shape, np.float32))


def test_inputs_of_different_numbers_of_clips_are_refused():
    video = np.zeros((2, 3, 4, 8, 8, 3), np.float32)
    with pytest.raises(UserError, match=r"\(2, 2\), \(2, 3\)"):
        SegmentConsensus(Noise())(video, video[:, :2])
