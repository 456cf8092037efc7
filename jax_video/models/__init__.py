"""Networks by name."""

import functools
import inspect

import jax.numpy as jnp

from jax_video.errors import UserError
from jax_video.models.layers import BatchNorm
from jax_video.models.resnet import ResNet3D
from jax_video.models.stc import STCResNet3D

MODELS = {
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
}


def build(name, *, num_classes, rngs, dtype=jnp.float32, norm=BatchNorm, **kwargs):
    """Builds a network, in training mode.

    Args:
      name: a key of `MODELS`.
      num_classes: K.
      rngs: `nnx.Rngs(params=seed)`.
      dtype: of activations: float32, bfloat16, or float64 under `jax_enable_x64`.
      norm: makes the normalisation layers; `functools.partial(BatchNorm, group_size=8)`, for example.
      **kwargs: the network's own, which its class describes.

    Returns:
      An `nnx.Module`: `model(video)` maps normalised video `[B, T, H, W, 3]` to logits `[B, K]`,
      `model.features(video)` to `[B, T', H', W', D]`. `nnx.view(model, use_running_average=True)` is the same network
      in test mode.

    Raises:
      UserError: unknown name, or a keyword or value that the network does not have.
    """
    if name not in MODELS:
        raise UserError(f"there is no network {name!r}; choose one of {', '.join(MODELS)}")
    known = inspect.signature(MODELS[name].func.__init__).parameters.values()
    known = [parameter.name for parameter in known if parameter.kind is parameter.KEYWORD_ONLY]
    if unknown := sorted(set(kwargs) - set(known)):
        raise UserError(f"{name} has no keyword {', '.join(unknown)}; it has {', '.join(known)}")
    return MODELS[name](num_classes=num_classes, rngs=rngs, dtype=dtype, norm=norm, **kwargs)
