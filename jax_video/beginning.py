"""What training begins with: random weights, given ones, the run's newest checkpoint, or a finished run to extend."""

import dataclasses
import sys

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jax_video import optimizer, recipe, sharding
from jax_video import state as state_lib
from jax_video.checkpoint import Checkpoints
from jax_video.data import remote
from jax_video.data.manifest import Manifest
from jax_video.errors import CheckpointError, UserError
from jax_video.meta import Meta, check_same_run, is_extended
from jax_video.progress import Progress
from jax_video.state import TrainState
from jax_video.weights import start


def steps_per_epoch(config: ConfigDict, manifest: Manifest) -> int:
    """Batches of an epoch: training videos / batch size, rounded, at least 1."""
    return max(1, round(len(manifest.select("train")) / config.train.batch))


def total_steps(config: ConfigDict, manifest: Manifest) -> int:
    """Steps of a whole run, by a resolved config: `train.steps`, or the steps of `train.epochs`."""
    return config.train.steps or steps_per_epoch(config, manifest) * config.train.epochs


def restore_or_create(
    config: ConfigDict,
    manifest: Manifest,
    checkpoints: Checkpoints,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    *,
    extend: bool = False,
) -> tuple[TrainState, Progress]:
    """(state, progress) to train from: of the run's newest checkpoint, or else of `init_from` or random weights.

    Args:
      extend: whether to train a finished run up to this config's total of steps, with its schedule begun anew.

    Raises:
      UserError: weights that do not fit, a run of another config, or one that cannot be extended.
    """

    def create() -> TrainState:
        return state_lib.create(state_lib.network(config, len(manifest.classes)), tx, ema=config.train.ema > 0)

    state_lib.check_dtype(config.dtype)
    folder, progress = checkpoints.folder.parent, _progress(config)
    restored = checkpoints.restore(jax.eval_shape(create))
    if restored is None:
        if extend:
            raise CheckpointError(f"there is no run in {folder} to extend: leave --extend out to begin one.")
        if not recipe.is_free(folder):
            raise UserError(f"{folder} holds a config.json that is no run's: choose another --workdir.")
        _say(doubts(config, manifest))
        # jit makes this one compilation; without it, the initial values alone would take one for every shape.
        named = config.init_from.path or config.init_from.layout
        state = start.initial_state(config, manifest.classes, mesh, create) if named else jax.jit(create)()
        return sharding.place_state(state, mesh), progress
    state, meta = restored
    check_same_run(meta, config.to_dict(), manifest, folder, mesh.size, extends=extend)
    progress = Progress.from_dict(meta.progress) if meta.progress else progress
    if not extend:
        return state, progress
    return _extended(config, manifest, state, progress, meta, folder, mesh)


def _extended(
    config: ConfigDict,
    manifest: Manifest,
    state: TrainState,
    progress: Progress,
    meta: Meta,
    folder: remote.Path,
    mesh: Mesh,
) -> tuple[TrainState, Progress]:
    """A run's newest (state, progress), to go on from by another schedule; unchanged where that has begun already."""
    step, total = int(state.step), total_steps(config, manifest)
    planned = total_steps(ConfigDict(meta.config), manifest)
    done, changed = step >= planned or progress.finished, is_extended(meta, config.to_dict())
    if not done and changed:
        raise CheckpointError(
            f"the run in {folder} is at step {step} of {planned}, and not finished: go on with it first, with its own "
            "config and without --extend."
        )
    if not changed and (progress.begun or not done):  # the same command once more
        return state, progress
    if total <= step:
        raise CheckpointError(
            f"the run in {folder} is finished after step {step}, and this config asks for {total} in all: --extend "
            "wants more, --config.train.epochs=N or --config.train.steps=N above that."
        )
    schedule = config.schedule
    _say(
        [
            f"Extended from step {step} to {total}: schedule {schedule.kind} from its beginning, learning rate "
            f"{schedule.learning_rate:g}.",
            *doubts(config, manifest, step),
        ]
    )
    fresh = dataclasses.replace(_progress(config), meter=progress.meter, validated=progress.validated, begun=step)
    return dataclasses.replace(state, lr_scale=sharding.place_state(np.float32(1), mesh)), fresh


def doubts(config: ConfigDict, manifest: Manifest, begin: int = 0) -> list[str]:
    """Lines on settings with which a run is likely to learn badly, one for each of these that holds:

    - all drops of the learning rate, counted from step `begin`, are after the last step, or drops have no effect;
    - the warm-up is as long as the run;
    - AdamW has a learning rate that is usual for SGD;
    - an epoch is not one pass over the training videos, as these are few;
    - training scales clips to sizes that a test does not have;
    - BatchNorm is frozen, and there are no weights to take its statistics from;
    - RGB is normalised as if it were from 0 to 1.
    """
    schedule, left = config.schedule, total_steps(config, manifest) - begin
    steps = steps_per_epoch(config, manifest)
    drops = [
        (round(each * length), f"schedule.{key}={each:g}")
        for key, length in (("drop_epochs", steps), ("drop_steps", 1))
        for each in schedule.get(key) or ()
    ]
    lines = []
    if schedule.kind == "step" and drops and min(drops)[0] >= left:
        added = " that are added" if begin else ""
        lines.append(
            f"The learning rate stays at {schedule.learning_rate:g}: its first drop, {min(drops)[1]}, is after the "
            f"last of {left:,} steps{added}. --config.schedule.drop_epochs=… sets others."
        )
    elif schedule.kind != "step" and drops:
        lines.append(f"{min(drops)[1]} has no effect with schedule.kind={schedule.kind}: it is of schedule.kind=step.")
    if 0 < left <= (warmup := round(schedule.warmup_epochs * steps)):
        lines.append(
            f"The learning rate does not reach {schedule.learning_rate:g}: its warm-up, schedule.warmup_epochs="
            f"{schedule.warmup_epochs:g}, takes {warmup:,} steps of {left:,}."
        )
    if config.optimizer.kind == "adamw" and schedule.learning_rate > 0.01:
        lines.append(
            f"optimizer.kind=adamw at a learning rate of {schedule.learning_rate:g}, which is usual for SGD: AdamW "
            "takes about 1e-3, and 1e-4 to fine-tune."
        )
    epochs, videos = config.train.epochs, len(manifest.select("train"))
    passes = steps * config.train.batch / videos if videos else 1.0  # of an epoch
    if not config.train.steps and abs(passes - 1) > 0.1:
        lines.append(
            f"An epoch is {steps} step{'s' * (steps > 1)} of {config.train.batch} videos, {passes:.0%} of the "
            f"{videos:,} there are: {epochs} epochs are {epochs * passes:.4g} passes over them."
        )
    side, jitter = config.clip.short_side, config.clip.get("jitter")
    if jitter and not jitter[0] <= side <= jitter[1]:
        lines.append(
            f"Training scales the short side of clips to clip.jitter={tuple(jitter)}, validation and test to "
            f"clip.short_side={side}. --config.clip.jitter=() has training do so, too."
        )
    if config.norm.frozen and not config.init_from.path:
        lines.append("norm.frozen: with no weights to start from, BatchNorm normalises nothing. Give init_from.path.")
    if any(config.normalize.mean) and max(max(values) for values in config.normalize.values()) <= 1:
        lines.append("normalize is as of RGB from 0 to 1, and videos have RGB from 0 to 255: multiply it by 255.")
    return lines


def _progress(config: ConfigDict) -> Progress:
    early = optimizer.EarlyStop(config.train.patience)
    return Progress(plateau=optimizer.Plateau(**config.plateau), early=early)


def _say(lines: list[str]) -> None:
    """Print lines on stderr, once of all processes."""
    for line in lines if jax.process_index() == 0 else ():
        print(line, file=sys.stderr)
