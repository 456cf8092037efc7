"""Networks by name."""

import functools
import inspect

import jax.numpy as jnp

from jax_video.errors import UserError
from jax_video.models.c3d import C3D
from jax_video.models.cost import C2D, KINDS
from jax_video.models.densenet import DenseNet
from jax_video.models.inception import Inception3D
from jax_video.models.layers import BatchNorm
from jax_video.models.resnet import ResNet3D
from jax_video.models.resnet2d import ResNet2D
from jax_video.models.st_resnet import FLOW_CHANNELS, Stream, TwoStreams
from jax_video.models.stc import STCResNet3D
from jax_video.models.t3d import T3D, SegmentConsensus

MODELS = {
    "resnet3d10": functools.partial(ResNet3D, 10),
    "resnet3d18": functools.partial(ResNet3D, 18),
    "resnet3d34": functools.partial(ResNet3D, 34),
    "resnet3d50": functools.partial(ResNet3D, 50),
    "resnet3d101": functools.partial(ResNet3D, 101),
    "resnet3d152": functools.partial(ResNet3D, 152),
    "resnet3d200": functools.partial(ResNet3D, 200),
    "resnext3d101": functools.partial(ResNet3D, 101, cardinality=32),
    "stc_resnet18": functools.partial(STCResNet3D, 18),
    "stc_resnet50": functools.partial(STCResNet3D, 50),
    "stc_resnet101": functools.partial(STCResNet3D, 101),
    "stc_resnext101": functools.partial(STCResNet3D, 101, cardinality=32),
    "densenet3d121": functools.partial(DenseNet, 121),
    "densenet3d169": functools.partial(DenseNet, 169),
    "t3d121": functools.partial(T3D, 121),
    "t3d169": functools.partial(T3D, 169),
    "densenet121": functools.partial(DenseNet, 121, temporal=False),
    "densenet169": functools.partial(DenseNet, 169, temporal=False),
    "resnet18": functools.partial(ResNet2D, 18),
    "resnet34": functools.partial(ResNet2D, 34),
    "resnet50": functools.partial(ResNet2D, 50),
    "resnet101": functools.partial(ResNet2D, 101),
    "resnet152": functools.partial(ResNet2D, 152),
    "resnext50": functools.partial(ResNet2D, 50, cardinality=32, group_width=4),
    "resnext101": functools.partial(ResNet2D, 101, cardinality=32, group_width=8),
    **{f"{kind}_resnet{depth}": functools.partial(C2D, depth, kind) for depth in (50, 101) for kind in KINDS},
    "appearance_stream": functools.partial(Stream, 50),
    "motion_stream": functools.partial(Stream, 50, channels=FLOW_CHANNELS),
    "two_streams": functools.partial(TwoStreams, 50, connections=False, temporal=False),
    "st_resnet": functools.partial(TwoStreams, 50),
    "st_resnet_star": functools.partial(TwoStreams, 50, temporal_pool="after"),
    "inception3d": functools.partial(Inception3D),
    "c3d": functools.partial(C3D),
}
HEADS = ("fc", "fc8", "classifier", "logits")  # what the networks call their classifier


def streams(name):
    """What a network takes, in this order: "rgb", "flow" or both."""
    network = _find(name)
    if network.func is TwoStreams:
        return ("rgb", "flow")
    return ("flow",) if network.keywords.get("channels") == FLOW_CHANNELS else ("rgb",)


def build(name, *, num_classes, rngs, dtype=jnp.float32, norm=BatchNorm, consensus=False, **kwargs):
    """Builds a network, in training mode.

    Args:
      name: a key of `MODELS`.
      num_classes: K.
      rngs: `nnx.Rngs(params=seed)`.
      dtype: of activations: float32, bfloat16, or float64 under `jax_enable_x64`.
      norm: makes the normalisation layers; `functools.partial(BatchNorm, group_size=8)`, for example.
      consensus: True averages the logits of several clips (`t3d.SegmentConsensus`); every input then has an axis of
        clips after the batch: `[B, N, T, H, W, 3]`.
      **kwargs: the network's own, which its class describes.

    Returns:
      An `nnx.Module`: `model(video)` maps normalised video `[B, T, H, W, 3]` to logits `[B, K]`,
      `model.features(video)` to `[B, T', H', W', D]`. `nnx.view(model, use_running_average=True)` is the same network
      in test mode.

    Raises:
      UserError: unknown name, or a keyword or value that the network does not have.
    """
    make = _find(name)
    known = inspect.signature(make.func.__init__).parameters.values()
    known = [parameter.name for parameter in known if parameter.kind is parameter.KEYWORD_ONLY] + ["consensus"]
    if unknown := sorted(set(kwargs) - set(known)):
        raise UserError(f"{name} has no keyword {', '.join(unknown)}; it has {', '.join(known)}")
    network = make(num_classes=num_classes, rngs=rngs, dtype=dtype, norm=norm, **kwargs)
    return SegmentConsensus(network) if consensus else network


def defaults(name):
    """{keyword: value} of what a network is built with where it is not said."""
    make = _find(name)
    parameters = inspect.signature(make.func.__init__).parameters.values()
    given = {parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    given = given | {"consensus": False} | make.keywords
    shared = ("num_classes", "rngs", "dtype", "norm")
    return {key: value for key, value in given.items() if key not in shared and value is not inspect.Parameter.empty}


def _find(name):
    if name not in MODELS:
        raise UserError(f"there is no network {name!r}; choose one of {', '.join(MODELS)}")
    return MODELS[name]
