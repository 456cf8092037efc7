"""SGD as the papers use it, its schedules, and the plateau rule."""

import dataclasses
from collections.abc import Callable

import jax
import optax

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
) -> Schedule:
    """Learning rate by step. `kind` is what follows the linear warm-up from zero:

    - "plateau": constant; `Plateau` scales it from outside (STC §4.2: divided when validation loss saturates);
    - "step": × `drop_factor` at each of `drop_epochs` and of `drop_steps`;
    - "cosine": a half cosine down to zero at the last of `steps`.
    """
    warmup = round(warmup_epochs * steps_per_epoch)
    if kind == "plateau":
        after = optax.constant_schedule(learning_rate)
    elif kind == "step":
        at = [*(round(epoch * steps_per_epoch) for epoch in drop_epochs), *drop_steps]
        after = optax.piecewise_constant_schedule(learning_rate, {step - warmup: drop_factor for step in at})
    elif kind == "cosine":
        after = optax.cosine_decay_schedule(learning_rate, max(1, steps - warmup))
    else:
        raise UserError(f"unknown schedule kind {kind!r}: choose plateau, step or cosine.")
    # The first step already moves: at step i of n the warm-up is at (i + 1) / (n + 1).
    rise = optax.linear_schedule(learning_rate / (warmup + 1), learning_rate, warmup) if warmup else after
    return optax.join_schedules([rise, after], [warmup]) if warmup else after


def sgd(
    learning_rate: Schedule | float,
    *,
    momentum: float = 0.9,
    nesterov: bool = True,
    weight_decay: float = 1e-4,
    decay_norm: bool = True,
    frozen_norm: bool = False,
    clip_norm: float = 0.0,
    head_rate: float = 1.0,
) -> optax.GradientTransformation:
    """SGD with PyTorch's coupled weight decay: the decay is part of the gradient that momentum sees.

    Args:
      decay_norm: whether BatchNorm's scale and offset are decayed too.
      frozen_norm: whether BatchNorm's scale and offset stay as they are, without decay either (frozen BatchNorm).
      clip_norm: a gradient of a larger norm is scaled to this one; 0: no gradient is.
      head_rate: what the classifier's learning rate is multiplied by.
    """
    chain = [
        *([optax.clip_by_global_norm(clip_norm)] if clip_norm else []),
        optax.add_decayed_weights(weight_decay, mask=None if decay_norm else lambda params: _map_norm(params, False)),
        optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov),
    ]
    if frozen_norm:
        chain.append(optax.masked(optax.set_to_zero(), lambda params: _map_norm(params, True)))
    if head_rate != 1:
        chain.append(optax.masked(optax.scale(head_rate), _map_heads))
    return optax.chain(*chain)


def _map_norm(params: dict, value: bool) -> dict:
    """A tree like params with `value` at BatchNorm's scale and offset, the opposite elsewhere."""
    if "scale" in params:  # only BatchNorm has one
        return dict.fromkeys(params, value)
    return {key: _map_norm(node, value) if isinstance(node, dict) else not value for key, node in params.items()}


def _map_heads(params: dict) -> dict:
    """A tree like params with True at the classifier, or the classifiers of two streams, and False elsewhere."""
    return {
        key: jax.tree.map(lambda _: True, node)
        if key in networks.heads()
        else (_map_heads(node) if isinstance(node, dict) else False)
        for key, node in params.items()
    }


@dataclasses.dataclass
class Plateau:
    """The plateau rule on validation loss. Its fields are part of a checkpoint.

    A plateau is `patience` validations in a row whose loss is not below (1 - `threshold`) × the best. Each of the first
    `drops` plateaus divides the learning rate by 10; the next one ends the training.
    """

    patience: int = 10
    threshold: float = 1e-3
    drops: int = 3
    best: float | None = None
    stale: int = 0
    dropped: int = 0

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
