"""SGD as the papers use it, AdamW, learning rates by part of the network, schedules, and the plateau rule."""

import collections
import dataclasses
import functools
import numbers
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from jax_video import networks
from jax_video.errors import UserError

Schedule = Callable[[jax.Array | int], jax.Array]


def schedule(
    *,
    kind: str,
    learning_rate: float,
    steps: int,
    steps_per_epoch: int,
    warmup_epochs: float = 0,
    drop_epochs: tuple[float, ...] = (),
    drop_steps: tuple[int, ...] = (),
    drop_factor: float = 0.1,
    begin: int = 0,
) -> Schedule:
    """Learning rate by step. `kind` is what follows the linear warm-up from zero:

    - "plateau": constant; `Plateau` scales it from outside (STC §4.2: divided when validation loss saturates);
    - "step": × `drop_factor` at each of `drop_epochs` and of `drop_steps`;
    - "cosine": a half cosine down to zero at the last of `steps`.

    Epochs and steps are counted from step `begin`, except `steps`, the last one of the run. UserError: another kind, or
    a number that is negative or not finite.
    """
    given: dict[str, Any] = {
        **{"learning_rate": learning_rate, "warmup_epochs": warmup_epochs, "drop_factor": drop_factor},
        **{"drop_epochs": drop_epochs, "drop_steps": drop_steps},
    }
    for name, value in given.items():
        values = value if isinstance(value, tuple | list) else (value,)
        if wrong := [
            each for each in values if not (isinstance(each, numbers.Real) and 0 <= float(each) < float("inf"))
        ]:
            raise UserError(f"schedule.{name} is {wrong[0]!r}: expected a finite number, 0 or more.")
    warmup = round(warmup_epochs * steps_per_epoch)
    if kind == "plateau":
        after = optax.constant_schedule(learning_rate)
    elif kind == "step":
        at = [*(round(epoch * steps_per_epoch) for epoch in drop_epochs), *drop_steps]
        drops = collections.Counter(step - warmup for step in at)  # several may fall on one step
        factors = {step: drop_factor**times for step, times in drops.items()}
        after = optax.piecewise_constant_schedule(learning_rate, factors)
    elif kind == "cosine":
        after = optax.cosine_decay_schedule(learning_rate, max(1, steps - begin - warmup))
    else:
        raise UserError(f"unknown schedule kind {kind!r}: choose plateau, step or cosine.")
    # The first step already moves: at step i of n the warm-up is at (i + 1) / (n + 1).
    rise = optax.linear_schedule(learning_rate / (warmup + 1), learning_rate, warmup) if warmup else after
    rate = optax.join_schedules([rise, after], [warmup]) if warmup else after
    return (lambda step: rate(step - begin)) if begin else rate


def make(
    learning_rate: Schedule | float,
    *,
    kind: str = "sgd",
    momentum: float = 0.9,
    nesterov: bool = True,
    weight_decay: float = 1e-4,
    decay_norm: bool = True,
    frozen_norm: bool = False,
    statistics: dict | None = None,
    clip_norm: float = 0.0,
    head_rate: float = 1.0,
    layer_decay: float = 1.0,
    freeze: Sequence[str] = (),
    network: str = "",
    transfers: bool = False,
) -> optax.GradientTransformation:
    """SGD with PyTorch's coupled weight decay, which is part of the gradient that momentum sees; or AdamW.

    Args:
      kind: "sgd", or "adamw" (Loshchilov and Hutter 2019) with β₁ = `momentum`, β₂ = .999 and decoupled decay.
      nesterov: whether the momentum of "sgd" is Nesterov's.
      decay_norm: whether scale and offset of normalisation layers are decayed too.
      frozen_norm: whether scale and offset of BatchNorm stay as they are, without decay either.
      statistics: running statistics, as in the state, or their shapes, by which BatchNorm is told from other layers.
      clip_norm: a gradient of a larger norm is scaled to this norm; 0: none is.
      head_rate: factor of the learning rate of the classifier; in a transfer, of all that follows the features.
      layer_decay: factor between a part's learning rate and the next part's; the part after the last is the
        classifier.
      freeze: parts that stay as they are. There is no momentum for them.
      network: name of the network, whose parts these are.
      transfers: whether that network is the student of a `Correspondence`, of which all else is the classifier.

    Raises:
      UserError: another kind, values out of range, a part that the network does not have, or rates by part for a
        network whose record names no parts.
    """
    if kind not in ("sgd", "adamw"):
        raise UserError(f"unknown optimizer kind {kind!r}: choose sgd or adamw.")
    for name, value, most in (
        ("momentum", momentum, 1.0),
        ("weight_decay", weight_decay, float("inf")),
        ("head_rate", head_rate, float("inf")),
        ("clip_norm", clip_norm, float("inf")),
    ):
        if not 0 <= value < most:
            expected = "below 1" if most == 1 else "and finite"
            raise UserError(f"optimizer.{name} is {value!r}: expected a number from 0 on, {expected}.")
    if not 0 < layer_decay <= 1:
        raise UserError(f"optimizer.layer_decay is {layer_decay!r}: expected a factor above 0, 1 at most.")
    if layer_decay != 1 and not networks.find(network).parts:
        raise UserError(
            f"optimizer.layer_decay is {layer_decay!r}, but the record of {network} names no parts whose rates could "
            "differ: name them, jax_video.Network(…, parts=…), or leave layer_decay at 1."
        )
    decayed = None if decay_norm else functools.partial(_decayed, statistics or {})
    if kind == "adamw":
        step = [optax.adamw(learning_rate, b1=momentum, weight_decay=weight_decay, mask=decayed)]
    else:
        step = [
            optax.add_decayed_weights(weight_decay, mask=decayed),
            optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov),
        ]
    chain = [*([optax.clip_by_global_norm(clip_norm)] if clip_norm else []), *step]
    if frozen_norm:
        chain.append(optax.masked(optax.set_to_zero(), functools.partial(_with_statistics, statistics or {})))
    if head_rate != 1:
        chain.append(optax.masked(optax.scale(head_rate), functools.partial(_map_heads, network, transfers)))
    if layer_decay != 1:
        chain.append(optax.stateless(functools.partial(_decay_by_layer, layer_decay, network)))
    if not freeze:
        return optax.chain(*chain)
    frozen = functools.partial(frozen_parts, network=network, freeze=freeze)
    trained = optax.masked(optax.chain(*chain), lambda params: jax.tree.map(operator.not_, frozen(params)))
    return optax.chain(trained, optax.masked(optax.set_to_zero(), frozen))


def of(config: ConfigDict, learning_rate: Schedule | float, batch_stats: dict) -> optax.GradientTransformation:
    """The optimizer that a config asks for (sections `optimizer`, `norm`, `train`, `model`).

    Args:
      batch_stats: running statistics of its network, or their shapes, by which BatchNorm is told from other layers.
    """
    return make(
        learning_rate,
        **config.optimizer,
        frozen_norm=config.norm.frozen,
        statistics=batch_stats,
        freeze=config.train.get("freeze") or (),
        network=config.model.name,
        transfers=bool(config.get("teacher")),
    )


def parts(params: dict, network: str) -> dict:
    """A tree like params with the name of each one's part of the network (`Network.parts`), or "" if it is in none."""
    names = {module: part for part, modules in networks.find(network).parts.items() for module in modules}

    def part(path, _):
        return names.get(networks.top_module([key.key for key in path]), "")

    return jax.tree_util.tree_map_with_path(part, params)


def check_frozen(network: str, freeze: Sequence[str]) -> None:
    """Raise UserError if a network lacks a part that is to be frozen."""
    known = networks.find(network).parts
    if unknown := [name for name in freeze if name not in known]:
        raise UserError(
            f"train.freeze names {unknown[0]!r}, which {network} does not have: choose of {', '.join(known)}."
        )


def frozen_parts(params: dict, network: str, freeze: Sequence[str]) -> dict:
    """A tree like params with True for those in the parts that `freeze` names.

    Raises:
      UserError: the network has no such part.
    """
    check_frozen(network, freeze)
    return jax.tree.map(lambda part: part in freeze, parts(params, network))


def _decay_by_layer(decay: float, network: str, updates: dict, params: dict | None = None) -> dict:
    del params
    depth = {name: place for place, name in enumerate(reversed([*networks.find(network).parts]), 1)}
    return jax.tree.map(lambda update, part: update * decay ** depth.get(part, 0), updates, parts(updates, network))


def _decayed(statistics: dict, params: dict) -> dict:
    """A tree like params with False at scale and offset of normalisation layers, and True elsewhere: of those that have
    running statistics, and of those whose only arrays are a scale and an offset, or one of them, of channels."""
    arrays = {key: node for key, node in params.items() if not isinstance(node, dict)}
    alone = len(arrays) == 1 and all(getattr(arrays.get(key), "ndim", 1) == 1 for key in ("scale", "bias"))
    alone &= arrays.keys() <= {"scale", "bias"}
    is_norm = alone or arrays.keys() == {"scale", "bias"} or _has_statistics(statistics)
    if params and is_norm and len(arrays) == len(params):
        return dict.fromkeys(params, False)
    return {
        key: _decayed(statistics.get(key, {}), node) if isinstance(node, dict) else True for key, node in params.items()
    }


def _has_statistics(batch_stats: dict) -> bool:
    """Whether a module, by what is constant in it, has running statistics."""
    return "mean" in batch_stats and not isinstance(batch_stats["mean"], dict)


def _with_statistics(batch_stats: dict, params: dict) -> dict:
    """A tree like params with True at those of layers that have running statistics, and False elsewhere."""
    has = _has_statistics(batch_stats)
    return {
        key: _with_statistics(batch_stats.get(key, {}), node) if isinstance(node, dict) else has
        for key, node in params.items()
    }


def _map_heads(network: str, transfers: bool, params: dict) -> dict:
    """A tree like params with True at the classifier, or the classifiers of two streams, and False elsewhere."""
    heads = [networks.find(network).head] if network else networks.heads()

    def is_head(path, _):
        keys = [key.key for key in path]
        return keys[0] != "student" if transfers else networks.top_module(keys) in heads

    return jax.tree_util.tree_map_with_path(is_head, params)


@dataclasses.dataclass
class Plateau:
    """The plateau rule on validation loss. Its fields are part of a checkpoint.

    A plateau is `patience` validations in a row whose loss is not below (1 - `threshold`) × the best. Each of the first
    `drops` plateaus divides the learning rate by 10; the next one ends the training. UserError: a `patience` below 1,
    `drops` below 0, or a `threshold` that is no fraction.
    """

    patience: int = 10
    threshold: float = 1e-3
    drops: int = 3
    best: float | None = None
    stale: int = 0
    dropped: int = 0

    def __post_init__(self):
        for name, least in (("patience", 1), ("drops", 0)):
            if (value := getattr(self, name)) < least:
                raise UserError(f"plateau.{name} is {value!r}: expected at least {least}.")
        if not 0 <= self.threshold < 1:
            raise UserError(f"plateau.threshold is {self.threshold!r}: expected a fraction from 0 on, below 1.")

    def update(self, loss: float) -> None:
        if self.best is None or loss < self.best * (1 - self.threshold):
            self.best, self.stale = loss, 0
            return
        self.stale += 1
        if self.stale == self.patience:
            self.stale = 0
            self.dropped += 1

    @property
    def lr_scale(self) -> float:
        return 0.1 ** min(self.dropped, self.drops)

    @property
    def finished(self) -> bool:
        return self.dropped > self.drops


@dataclasses.dataclass
class EarlyStop:
    """The end of a training after `patience` validations in a row with neither a lower loss nor a better metric.

    What it has seen is part of a checkpoint.
    """

    patience: int | None = None  # None: never
    loss: float | None = None  # the lowest
    metric: float | None = None  # the best
    stale: int = 0

    def update(self, loss: float, metric: float) -> None:
        better = self.loss is None or self.metric is None or loss < self.loss or metric > self.metric
        self.loss = loss if self.loss is None else min(loss, self.loss)
        self.metric = metric if self.metric is None else max(metric, self.metric)
        self.stale = 0 if better else self.stale + 1

    @property
    def finished(self) -> bool:
        return self.patience is not None and self.stale >= self.patience
