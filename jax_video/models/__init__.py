"""Networks by name. `jax_video.networks` is the table of them; the files here have the classes that it names."""

import pkgutil
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_video import networks
from jax_video.errors import UserError
from jax_video.models.layers import BatchNorm
from jax_video.models.t3d import SegmentConsensus


class Keys:
    """The random keys of `nnx.Rngs(seed)`, one after the other, counted in Python.

    flax counts them in an array, and each increment walks all that was traced before: seconds for a deep network.
    """

    def __init__(self, seed: int):
        self._key, self._given = jax.random.key(seed), 0

    def params(self) -> jax.Array:
        """The next key, for a parameter's initial value."""
        self._given += 1
        return jax.random.fold_in(self._key, self._given - 1)


def build(
    name: str,
    *,
    num_classes: int,
    rngs: nnx.Rngs | Keys,
    dtype: jax.typing.DTypeLike = jnp.float32,
    norm: Callable[..., nnx.Module] = BatchNorm,
    consensus: bool = False,
    **kwargs: Any,
) -> nnx.Module:
    """Build a network, in training mode.

    Args:
      name: a key of `networks.NETWORKS`.
      num_classes: K.
      rngs: `nnx.Rngs(params=seed)`, or `Keys(seed)`, with which deep networks are traced faster.
      dtype: of activations: float32, bfloat16, or float64 under `jax_enable_x64`.
      norm: makes the normalisation layers; `functools.partial(BatchNorm, group_size=8)`, for example.
      consensus: True takes the mean over the logits of several clips (`t3d.SegmentConsensus`); every input then has an
        axis of clips after the batch: `[B, N, T, H, W, 3]`.
      **kwargs: the network's own, which its class describes.

    Returns:
      An `nnx.Module`: `model(video)` maps normalised video `[B, T, H, W, 3]` to logits `[B, K]`,
      `model.features(video)` to `[B, T', H', W', D]`. `nnx.view(model, use_running_average=True)` is the same network
      in test mode.

    Raises:
      UserError: an unknown name, a keyword or value that the network does not have, or a network without the
        classifier that its record names.
    """
    record = networks.find(name)
    if unknown := sorted(set(kwargs) - set(record.keywords)):
        known = ("num_classes", *record.keywords, "norm", "dtype", "rngs", "consensus")
        raise UserError(f"{name} has no keyword {', '.join(unknown)}; it has {', '.join(known)}")
    keywords = {**record.arguments, **record.keywords, **kwargs}
    dtype = jnp.dtype(dtype)
    kind = record.constructor
    constructor = pkgutil.resolve_name(kind) if isinstance(kind, str) else kind
    network = constructor(num_classes=num_classes, rngs=rngs, dtype=dtype, norm=norm, **keywords)
    _check_head(name, network)
    return SegmentConsensus(network) if consensus else network


def _check_head(name: str, network: nnx.Module) -> None:
    """Raise UserError unless the classifier that a network's record names is a module of it, or of each stream."""

    def modules(of: nnx.Module) -> dict[str, nnx.Module]:
        return {key: each for key, each in vars(of).items() if isinstance(each, nnx.Module)}

    head, found = networks.find(name).head, modules(network)
    streams = [modules(found[part]) for part in networks.WRAPPERS if part in found]
    if head not in found and not (streams and all(head in stream for stream in streams)):
        raise UserError(
            f"the record of {name} calls its classifier {head!r}, which is none of its modules, "
            f"{', '.join(streams[0] if streams else found)}: say jax_video.Network(…, head=NAME) with the right one"
        )


def defaults(name: str) -> dict[str, Any]:
    """{keyword: value} with which a network is built where its config does not say."""
    return {**networks.find(name).keywords, "consensus": False}
