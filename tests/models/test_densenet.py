"""DenseNet in 2D and 3D: parity with PyTorch, published sizes and names, frame by frame in 2D, rematerialisation."""

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import torch
from flax import nnx
from outlines import T3D_TABLE_1, abstract, parameters, shapes
from reference import densenet as reference

from jax_video.errors import UserError
from jax_video.models.densenet import DenseLayer
from jax_video.models.layers import BatchNorm, sequence

pytestmark = pytest.mark.usefixtures("strict_dtypes", "one_torch_thread")

# No two axes that could be exchanged, odd sizes before a pool, and two places left for the last block's BN.
INPUT = (17, 36, 64, 3)
SMALL = {"width": 0.125, "layers": (1, 2, 1, 1)}


def pair(name, dtype, remat=False, **options):
    options = SMALL | options
    model = abstract(name, parity.CLASSES, dtype=dtype, remat=remat, **options)
    return model, reference.build(name, parity.CLASSES, **options)


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("densenet3d121", {}, INPUT),
        ("densenet3d169", {"stem": "hara"}, INPUT),
        ("densenet121", {}, (3, *INPUT[1:])),
        ("densenet169", {}, (1, *INPUT[1:])),  # an image
    ],
)
def test_test_mode_forward_in_float32(name, options, shape):
    parity.check_test_mode_forward(*pair(name, jnp.float32, **options), shape)


@pytest.mark.parametrize(
    ("name", "options", "frames"),
    [("densenet3d121", {"layers": (1, 1, 1, 1)}, INPUT[0]), ("densenet121", {"remat": True}, 2)],
)
def test_gradients_and_a_training_step_in_float64(name, options, frames):
    """In 2D rematerialised, which changes nothing."""
    with jax.enable_x64(True):
        parity.check_training(*pair(name, jnp.float64, **options), (frames, *INPUT[1:]))


@pytest.mark.parametrize(
    ("name", "num_classes", "expected"),
    [
        ("densenet3d121", 400, 11_658_896),
        ("densenet3d169", 400, 19_214_992),
        ("densenet121", 1000, 7_978_856),  # these two as torchvision's
        ("densenet169", 1000, 14_149_480),
    ],
)
def test_parameters_are_as_many_as_published(name, num_classes, expected):
    assert parameters(abstract(name, num_classes)) == expected
    with torch.device("meta"):
        network = reference.build(name, num_classes)
    assert sum(tensor.numel() for tensor in network.parameters()) == expected


@pytest.mark.parametrize(
    ("name", "widths"),
    [("densenet3d121", (256, 512, 1024, 1024)), ("densenet3d169", (256, 512, 1280, 1664))],
)
def test_widths_of_table_1(name, widths):
    model = abstract(name)
    kernels = [transition.conv.kernel.shape for transition in (model.transition1, model.transition2, model.transition3)]
    assert [shape[-2:] for shape in kernels] == [(width, width // 2) for width in widths[:3]]
    assert model.norm5.scale.shape == widths[3:]


def test_sizes_of_table_1():
    sizes = shapes(abstract("densenet3d121", layers=(1, 1, 1, 1)), (2, 32, 224, 224, 3))
    assert {stage: shape[1:4] for stage, shape in sizes.items()} == T3D_TABLE_1


def test_the_other_stem_has_the_same_sizes_from_the_pool_on():
    sizes = shapes(abstract("densenet3d121", stem="hara", layers=(1, 1, 1, 1)), (2, 32, 224, 224, 3))
    assert {stage: shape[1:4] for stage, shape in sizes.items()} == T3D_TABLE_1 | {"conv0": (32, 112, 112)}


def test_in_2d_every_frame_is_kept():
    sizes = shapes(abstract("densenet121", layers=(1, 1, 1, 1)), (2, 5, 224, 224, 3))
    assert {stage: shape[1:4] for stage, shape in sizes.items()} == {
        stage: (5, *size[1:]) for stage, size in T3D_TABLE_1.items()
    }


def test_parameters_have_torchvisions_names():
    params = nnx.to_pure_dict(nnx.state(abstract("densenet121", layers=(1, 2, 1, 1)), nnx.Param))
    blocks = {f"denseblock{block}" for block in (1, 2, 3, 4)} | {f"transition{block}" for block in (1, 2, 3)}
    assert params.keys() == {"conv0", "norm0", "norm5", "classifier"} | blocks
    assert params["denseblock2"].keys() == {0, 1}
    assert params["denseblock2"][1].keys() == {"norm1", "conv1", "norm2", "conv2"}
    assert params["transition1"].keys() == {"norm", "conv"}


def test_in_2d_frames_do_not_see_each_other():
    definition, params, statistics = parity.copied(*pair("densenet121", jnp.float32))
    model = nnx.view(nnx.merge(definition, params, statistics), use_running_average=True)
    graphdef, state = nnx.split(model)
    features = jax.jit(lambda video: nnx.merge(graphdef, state).features(video))
    video = jax.random.normal(jax.random.key(0), (2, 3, 32, 32, 3))
    frames = features(video.reshape(6, 1, 32, 32, 3))
    np.testing.assert_allclose(features(video).reshape(frames.shape), frames, rtol=1e-5, atol=1e-6)


def test_the_program_of_a_block_grows_with_its_layers_not_with_their_square():
    """On CPU. Every layer reads all earlier ones, so that their gradients are sums of ever more terms."""

    def instructions(count):
        def build():
            layer = {"norm": BatchNorm, "dtype": jnp.float32, "rngs": nnx.Rngs(0)}
            return nnx.List([DenseLayer(4 + 4 * index, 4, (1, 3, 3), **layer) for index in range(count)])

        block = nnx.eval_shape(build)
        definition, *state = nnx.split(block, nnx.Param, nnx.BatchStat)

        def loss(params, statistics, x):
            return sequence(nnx.merge(definition, params, statistics), x).sum()

        arguments = (*map(nnx.to_pure_dict, state), jax.ShapeDtypeStruct((2, 1, 8, 8, 4), jnp.float32))
        return jax.jit(jax.grad(loss)).lower(*arguments).compile().as_text().count(" = ")

    one, four, seven = map(instructions, (1, 4, 7))
    assert seven - four < 1.25 * (four - one)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("densenet3d121", (15, 29, 29, 3), "leading axis of one"),
        ("densenet3d121", (1, 14, 29, 29, 3), "14 frames of 29×29.*at least 15 frames of 29×29"),
        ("densenet3d121", (1, 15, 28, 29, 3), "15 frames of 28×29"),
        ("densenet121", (1, 1, 29, 28, 3), "1 frames of 29×28.*at least 1 frames of 29×29"),
    ],
)
def test_a_video_of_the_wrong_shape_is_refused(name, shape, message):
    with pytest.raises(UserError, match=message):
        shapes(abstract(name, layers=(1, 1, 1, 1)), shape)


@pytest.mark.parametrize(("name", "frames"), [("densenet3d121", 15), ("densenet121", 1)])
@pytest.mark.parametrize("stem", ["t3d", "hara"])
def test_the_smallest_video_passes(name, stem, frames):
    model = abstract(name, stem=stem, layers=(1, 1, 1, 1))
    assert shapes(model, (2, frames, 29, 29, 3))["transition3"][1:4] == (1, 1, 1)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"stem": "table1"}, "stem='table1' is unknown; choose one of 't3d', 'hara'"),
        ({"layers": (1, 1, 1)}, r"layers=\(1, 1, 1\)"),
        ({"growth": 12}, "densenet3d121 has no keyword growth; it has .*temporal, stem"),
    ],
)
def test_a_value_that_the_network_does_not_have_is_refused(kwargs, message):
    with pytest.raises(UserError, match=message):
        abstract("densenet3d121", **kwargs)
