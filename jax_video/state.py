"""What a training step reads and writes; the only place that takes networks apart and puts them together."""

import dataclasses
import functools
import numbers
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from ml_collections import ConfigDict

from jax_video import models, networks
from jax_video.errors import UserError
from jax_video.models.correspondence import Correspondence
from jax_video.models.layers import BatchNorm, in_test_mode


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that changes during training, as one pytree of arrays."""

    step: jax.Array  # int32 [], updates done
    params: dict  # nested, float32
    batch_stats: dict  # nested, float32: BatchNorm's running statistics
    opt_state: optax.OptState
    lr_scale: jax.Array  # float32 [], factor of the learning rate by the plateau rule
    ema: dict | None  # {"params", "batch_stats"}: their exponential moving averages, where asked for

    @property
    def averaged(self) -> tuple[dict, dict]:
        """(params, batch_stats) to test with: the moving averages where there are any."""
        return (self.params, self.batch_stats) if self.ema is None else (self.ema["params"], self.ema["batch_stats"])


def split(model: nnx.Module) -> tuple[nnx.GraphDef, dict, dict]:
    """A network as (definition, params, batch_stats): a hashable description and two plain dicts of arrays.

    Plain dicts, because Variables cannot be passed into `jax.value_and_grad` and be written to there.

    Raises:
      UserError: the network has other arrays.
    """
    definition, *states = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
    if others := named_leaves(nnx.to_pure_dict(states.pop())):
        name = f"{next(iter(others)).replace('/', '.')} of {type(model).__name__}"
        if len(nnx.to_flat_state(nnx.state(model, nnx.RngState))):
            raise UserError(f"{name} is a random key: dropout is jax_video.models.layers.Dropout, which is given keys")
        raise UserError(
            f"{name} is an array, but neither nnx.Param nor nnx.BatchStat: give it one of these types, make it "
            "layers.Frozen(…) if it is constant, or compute it in __call__"
        )
    params, batch_stats = map(nnx.to_pure_dict, states)
    return definition, params, batch_stats


def join(definition: nnx.GraphDef, params: dict, batch_stats: dict, *, train: bool) -> nnx.Module:
    """The network of these parts, in training or in test mode."""
    model = nnx.merge(definition, params, batch_stats)
    return model if train else in_test_mode(model)


def network(config: ConfigDict, num_classes: int) -> nnx.Module:
    """The network that a config describes (sections `seed`, `dtype`, `norm`, `model`).

    With a section `teacher`, a 2D network, it is `Correspondence`, which transfers knowledge from that network to
    `model`. BatchNorm in the parts that `train.freeze` names is frozen. Raises UserError for an unknown name or dtype.
    """
    if config.dtype not in ("float32", "bfloat16", "float64"):
        raise UserError(f"dtype is {config.dtype!r}: choose float32, bfloat16 or float64.")
    common = {
        "rngs": models.Keys(config.seed),
        "dtype": jnp.dtype(config.dtype),
        "norm": functools.partial(BatchNorm, **config.norm),
    }
    if not config.get("teacher"):
        return freeze_norm(models.build(num_classes=num_classes, **common, **config.model), config)
    # Neither classifier takes part: the teacher's is ImageNet's, and unlabelled videos give the student none.
    student = models.build(num_classes=max(1, num_classes), **common, **config.model)
    teacher = models.build(num_classes=1000, **common, **config.teacher)
    clip = (config.clip.frames, config.clip.size, config.clip.size)
    model = Correspondence(student, teacher, clip=clip, dtype=common["dtype"], rngs=common["rngs"])
    return freeze_norm(model, config)


def freeze_norm(model: nnx.Module, config: ConfigDict) -> nnx.Module:
    """The same network, where BatchNorm, Flax's too, is frozen now in the parts that `train.freeze` names; with
    `norm.frozen` everywhere."""
    freeze, everywhere = config.train.get("freeze") or (), config.norm.frozen
    frozen = {module for part in freeze for module in networks.find(config.model.name).parts.get(part, ())}
    for path, module in nnx.iter_modules(model) if frozen or everywhere else ():
        if not isinstance(module, BatchNorm | nnx.BatchNorm):
            continue
        if everywhere or networks.top_module(path) in frozen:
            if isinstance(module, BatchNorm):
                module.frozen = True
            else:
                module.use_running_average = True  # the optimizer leaves its scale and offset as they are
    return model


def abstract(config: ConfigDict, num_classes: int) -> tuple[nnx.GraphDef, dict, dict]:
    """(definition, params, batch_stats) of a config's network with shapes in place of arrays."""
    return split(nnx.eval_shape(lambda: network(config, num_classes)))


def check_dtype(dtype: str) -> None:
    """Raise UserError if JAX would compute in another type than the one of this name."""
    if dtype == "float64" and not jax.config.read("jax_enable_x64"):
        raise UserError("dtype is 'float64', which JAX computes in float32 unless told: set JAX_ENABLE_X64=1")


def describe(config: ConfigDict, params: dict) -> str:
    """A config's network in words, from its parameters or their shapes: "stc_resnet18, 2,161,648 parameters"."""
    number = sum(leaf.size for leaf in jax.tree.leaves(params))
    teacher = f" taught by {config.teacher.name}" if config.get("teacher") else ""
    return f"{config.model.name}{teacher}, {number:,} parameters"


class Normalization(NamedTuple):
    """Mean and standard deviation by which RGB in 0 to 255 is normalised (section `normalize`); default: ImageNet's."""

    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> "Normalization":
        """That of section `normalize` of a config, whether it has tuples or, as one that was read, lists.

        Raises:
          UserError: not three finite numbers each, or a std that is not above 0.
        """
        for key, values in section.items():
            found = values if isinstance(values, tuple | list) else ()
            least = 0.0 if key == "std" else -np.inf
            if len(found) != 3 or not all(isinstance(x, numbers.Real) and least < float(x) < np.inf for x in found):
                kind = "numbers above 0" if key == "std" else "numbers"
                raise UserError(f"normalize.{key} is {values!r}: expected three {kind}, of red, green and blue.")
        return cls(**{key: tuple(values) for key, values in section.items()})


IMAGENET = Normalization()


def normalize(rgb: jax.Array, normalization: Normalization = IMAGENET) -> jax.Array:
    """RGB, uint8 [B, T, H, W, 3], minus the mean and divided by the std: float32 [B, T, H, W, 3]."""
    mean, std = (jnp.array(values, jnp.float32) for values in normalization)
    return (rgb.astype(jnp.float32) - mean) / std


def inputs(batch: dict[str, jax.Array], normalization: Normalization = IMAGENET) -> tuple[jax.Array, ...]:
    """The inputs of a network from a batch, normalised, float32: RGB, optical flow, or both in this order.

    A batch has flow as 128 + 127 / 20 · (pixels per frame); (value - 128) / 57 has a mean of about 0 and a standard
    deviation near 1.
    """
    rgb = (normalize(batch["rgb"], normalization),) if "rgb" in batch else ()
    return (*rgb, (batch["flow"].astype(jnp.float32) - 128) / 57) if "flow" in batch else rgb


def apply(
    definition: nnx.GraphDef,
    params: dict,
    batch_stats: dict,
    batch: dict[str, jax.Array],
    normalization: Normalization = IMAGENET,
    *,
    train: bool,
    change: Callable[[tuple[jax.Array, ...]], tuple[jax.Array, ...]] | None = None,
    **given: jax.Array,
) -> tuple[Any, dict]:
    """Run the network on a batch's `rgb`, uint8 [B, T, H, W, 3], `flow`, or both: (its outputs, new batch_stats).

    In training BatchNorm uses the batch's statistics and updates the running ones; in test it only reads these.

    Args:
      change: a function of the normalised streams, applied before the network.
      given: what else the network takes, such as the `keys` [B] of dropout in training.
    """
    model = join(definition, params, batch_stats, train=train)
    streams = inputs(batch, normalization)
    outputs = model(*(change(streams) if change else streams), **given)
    return outputs, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)) if train else batch_stats


def create(model: nnx.Module, optimizer: optax.GradientTransformation, *, ema: bool = False) -> TrainState:
    """The state before the first step. Works on abstract networks under `jax.eval_shape` too."""
    _, params, batch_stats = split(model)
    # The averages start as copies: a donated buffer may appear only once in a state.
    averages = jax.tree.map(jnp.copy, {"params": params, "batch_stats": batch_stats}) if ema else None
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        lr_scale=jnp.ones((), jnp.float32),
        ema=averages,
    )


def defect(name: str, leaf: Any) -> str:
    """Why a network cannot compute with an array, in words, or "". `name` is that of `named_leaves`."""
    if not np.isfinite(leaf).all():
        return (
            f"{name}: {np.count_nonzero(~np.isfinite(leaf))} of {leaf.size} values are NaN or infinite ({leaf.dtype})"
        )
    if name.startswith("batch_stats/") and name.endswith("/var") and leaf.size and leaf.min() < 0:
        return f"{name}: a variance of {leaf.min():.3g}"
    return ""


def named_leaves(tree: Any) -> dict[str, Any]:
    """{"params/layer1/0/conv1/kernel": leaf, …}: names for messages, tables and checksums."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
