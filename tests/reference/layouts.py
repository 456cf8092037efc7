"""PyTorch networks that load the state dicts of other people's code: what `jax_video.weights.names` is compared with.

The networks are this folder's; the names by which a source calls their parts are written down here a second time, as
substitutions, without a line in common with the library.
"""

import dataclasses
import functools
import re
from collections.abc import Callable

import numpy as np
import torch
from reference import cost, densenet, inception, resnet
from torch import nn


@dataclasses.dataclass(frozen=True)
class Source:
    """The network that a list of names and shapes is of.

    Attributes:
      layout: the library's name for whose weights they are.
      network: the library's name of the network.
      build: makes the PyTorch network, given the number of classes.
      names: (pattern, replacement): the source's names as the PyTorch network's.
      shape: (pattern of names, what it does to an array): where the PyTorch network has other axes.
      video: [B, T, H, W, 3], small.
      cheap: whether it takes a few seconds to compile and run.
    """

    layout: str
    network: str
    build: Callable[[int], nn.Module]
    names: tuple = ()
    shape: tuple = ("$.", None)
    video: tuple = (2, 2, 32, 40, 3)
    cheap: bool = False


def _dense(stem: str) -> tuple:
    """Names of a DenseNet whose first convolution is called `conv{stem}`."""
    return (
        (rf"^features\.(conv|norm){stem}\.", r"\g<1>0."),
        (r"^features\.", ""),
        (r"denselayer(\d+)\.", lambda match: f"{int(match[1]) - 1}."),
    )


_FRAMES = (r"conv.*weight|downsample\.0\.weight", lambda kernel: kernel.unsqueeze(2))  # a kernel of one frame
_COST_NAMES = (
    (r"^backbone\.", ""),
    (r"^cls_head\.fc_cls", "fc"),
    (r"conv(\d)\.bn", r"bn\1"),
    (r"(conv\d)\.conv", r"\1"),
)
_VIEWS = (r"conv2\.weight", lambda kernel: kernel[None, :, :, 0])  # one kernel for all views


def _torchvision(name: str, **kwargs) -> Source:
    names = ((r"downsample\.0", "downsample.conv"), (r"downsample\.1", "downsample.bn"))
    return Source("torchvision", name, functools.partial(cost.build, name), names, _FRAMES, **kwargs)


def _3d_resnets(name: str, **kwargs) -> Source:
    build = functools.partial(resnet.build, name, stem="hara", preactivation=False)
    return Source("3d-resnets", name, build, video=(2, 16, 32, 40, 3), **kwargs)


def _cost(kind: str, **kwargs) -> Source:
    name = f"{kind}_resnet50"
    build = functools.partial(cost.build, name, pool="code", stem="5x7x7")
    shape = {"shape": _VIEWS} if kind in ("cost_a", "cost_b") else {}
    return Source("cost", name, build, _COST_NAMES, video=(2, 4, 32, 40, 3), **shape, **kwargs)


SOURCES = {
    "torchvision_resnet18": _torchvision("resnet18", cheap=True),
    "torchvision_resnet50": _torchvision("resnet50"),
    "torchvision_resnext101_32x8d": _torchvision("resnext101"),
    "torchvision_densenet121": Source(
        "torchvision", "densenet121", functools.partial(densenet.build, "densenet121"), _dense("0")
    ),
    "3d-resnets_resnet18": _3d_resnets("resnet3d18", cheap=True),
    "3d-resnets_resnet50": _3d_resnets("resnet3d50"),
    "3d-resnets_resnext101": _3d_resnets("resnext3d101"),
    "3d-resnets_densenet121": Source(
        "3d-resnets",
        "densenet3d121",
        functools.partial(densenet.build, "densenet3d121", stem="hara"),
        _dense("1"),
        video=(1, 16, 32, 40, 3),
        cheap=True,
    ),
    "cost_r50_c2d": _cost("c2d"),
    "cost_r50_3x1x1": _cost("c3d_3x1x1"),
    "cost_r50_costa": _cost("cost_a"),
    "cost_r50_costb": _cost("cost_b", cheap=True),
    "i3d_rgb": Source(
        "i3d",
        "inception3d",
        inception.build,
        ((r"^logits\.conv3d", "logits"),),
        (r"logits\.weight", lambda kernel: kernel[..., 0, 0, 0]),
        video=(1, 10, 33, 40, 3),
        cheap=True,
    ),
}


def read(path) -> dict[str, tuple[int, ...]]:
    """Shapes by the names of a .tsv, whose lines are `conv1.weight	64x3x7x7`, after comments."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {name: () if shape == "scalar" else tuple(map(int, shape.split("x"))) for name, shape in rows}


def random(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """A state dict of these names and shapes: statistics are random, and so are the counters of BatchNorm's steps."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            weights[name] = np.array(rng.integers(2**62), np.int64)
            continue
        values = rng.random(shape, np.float32) - np.float32(0.5)  # in ±.5
        if len(shape) > 1:  # activations keep their size through the network
            values *= np.float32((12 / np.prod(shape[1:])) ** 0.5)
        elif name.endswith(("weight", "running_var")):
            values += np.float32(1)
        weights[name] = values
    return weights


def load(source: Source, weights: dict[str, np.ndarray], num_classes: int) -> nn.Module:
    """The PyTorch network with these weights, in test mode; every name has its place and every place a name."""
    pattern, reshape = source.shape
    state_dict = {}
    for name, array in weights.items():
        for old, new in source.names:
            name = re.sub(old, new, name)
        state_dict[name] = torch.from_numpy(array)
    network = source.build(num_classes)
    expected = network.state_dict()
    for name, tensor in state_dict.items():
        if re.search(pattern, name) and tensor.shape != expected[name].shape:
            state_dict[name] = reshape(tensor)
    network.load_state_dict(state_dict, strict=True)
    return network.eval()
