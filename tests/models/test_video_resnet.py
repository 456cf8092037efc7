"""R3D, MC3 and R(2+1)D: torchvision's names and parameters, sizes, and they compute what PyTorch computes."""

import hashlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import outlines
import parity
import pytest
import torch
from reference import video_resnet as reference

from jax_video import networks, state
from jax_video.weights import merge, names

# Of torchvision 0.29.1's networks with 400 classes: parameters, arrays of the state dict, and the SHA-256 of its sorted
# lines "name<tab>shape".
PUBLISHED = {
    "r3d_18": (33_371_472, 122, "f871b089000c6c1b94ce2ca6b3e7b83fe3d0aaae2e1b80120f2329a6e2439fd3"),
    "mc3_18": (11_695_440, 122, "90439bc556075c5e6135dfe310effe1f47f64289f7c63e216ea938abb5dbf166"),
    "r2plus1d_18": (31_505_325, 224, "b9f9b7d6ec73a0c4c9a2308c81c2e778fe7664b89495c1e82899bfbf6508bd11"),
}
THEIR_NAMES = [  # of the reference's modules
    (r"^stem\.(conv|bn)(\d)", lambda found: f"stem.{3 * int(found[2]) - 3 + (found[1] == 'bn')}"),
    (r"(layer.*)\.bn(\d)", r"\1.conv\2.1"),
    (r"(layer.*\.conv\d)\.spatial", r"\1.0.0"),
    (r"(layer.*\.conv\d)\.bn", r"\1.0.1"),
    (r"(layer.*\.conv\d)\.temporal", r"\1.0.3"),
    (r"(layer.*\.conv\d)\.(weight|bias)$", r"\1.0.\2"),
]
pytestmark = pytest.mark.usefixtures("one_torch_thread")


def kind(name):
    return networks.find(name).arguments["kind"]


def their_state_dict(network):
    """The reference's under torchvision's names."""
    found = {}
    for name, tensor in network.state_dict().items():
        for pattern, replacement in THEIR_NAMES:
            if (new := re.sub(pattern, replacement, name)) != name:
                name = new
                break
        found[name] = tensor
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_names_and_shapes_are_torchvisions(name):
    parameters, arrays, digest = PUBLISHED[name]
    model = outlines.abstract(name)
    assert outlines.parameters(model) == parameters
    with torch.device("meta"):
        theirs = their_state_dict(reference.VideoResNet(kind(name), 400))
    lines = [f"{key}\t{'x'.join(map(str, tensor.shape)) or 'scalar'}" for key, tensor in sorted(theirs.items())]
    assert (len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()) == (arrays, digest)

    _, params, batch_stats = state.split(model)
    ours = state.named_leaves({"params": params, "batch_stats": batch_stats})
    zeros = {leaf: np.broadcast_to(np.float32(0), array.shape) for leaf, array in ours.items()}
    returned = names.to_theirs("torchvision-video", zeros, origin=None, steps=0)
    assert {key: array.shape for key, array in returned.items()} == {
        key: tuple(tensor.shape) for key, tensor in theirs.items()
    }


@pytest.mark.usefixtures("strict_dtypes")
@pytest.mark.parametrize("name", PUBLISHED)
def test_logits_of_a_state_dict_are_those_of_pytorch(name):
    """Under torchvision's names, with other statistics, of odd sizes: within 1e-5 of the largest logit."""
    torch.manual_seed(0)
    small = {"layers": (1, 2, 1, 1)}
    theirs = reference.VideoResNet(kind(name), 7, **small, width=16).eval()
    parity.randomize(theirs)
    video = np.random.default_rng(0).normal(size=(2, 9, 33, 41, 3)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(parity.channels_first(video)).numpy()
    definition, params, batch_stats = state.split(outlines.abstract(name, 7, **small, width=0.25))
    network = {"params": params, "batch_stats": batch_stats}
    state_dict = {key: tensor.numpy() for key, tensor in their_state_dict(theirs).items()}
    arrays = merge.merge(
        names.to_ours("torchvision-video", state_dict).arrays, state.named_leaves(network), problems=[]
    ).arrays
    values = jax.tree_util.tree_map_with_path(
        lambda path, _: arrays[jax.tree_util.keystr(path, simple=True, separator="/")], network
    )
    ours = jax.jit(lambda values, video: state.join(definition, **values, train=False)(video))(values, video)
    assert np.abs(ours - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["mc3_18", "r2plus1d_18"])
def test_gradients_and_a_training_step_in_float64(name):
    small = {"layers": (1, 1, 1, 1)}
    with jax.enable_x64(True):
        model = outlines.abstract(name, parity.CLASSES, dtype=jnp.float64, width=0.125, **small)
        parity.check_training(
            model, reference.VideoResNet(kind(name), parity.CLASSES, width=8, **small), (5, 17, 22, 3)
        )


@pytest.mark.parametrize(("name", "frames"), [("r3d_18", (8, 4, 2)), ("mc3_18", (16, 16, 16))])
def test_sizes_of_torchvisions_clip(name, frames):
    sizes = outlines.shapes(outlines.abstract(name), (2, 16, 112, 112, 3))
    assert sizes["stem"] == sizes["layer1"] == (2, 16, 56, 56, 64), "no pool"
    for stage, length, side, width in zip((2, 3, 4), frames, (28, 14, 7), (128, 256, 512), strict=True):
        assert sizes[f"layer{stage}"] == (2, length, side, side, width)
