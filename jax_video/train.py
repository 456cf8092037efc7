"""Training: the jitted step and the one loop, top to bottom."""

import contextlib
import dataclasses
import functools
import math
import os
import sys
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jax_video import augmentation as augmentation_lib
from jax_video import beginning, metrics, objectives, optimizer, recipe, scoring, sharding
from jax_video import state as state_lib
from jax_video import task as task_lib
from jax_video.augmentation import Augmentation
from jax_video.checkpoint import Checkpoints, run_folder, writes_run
from jax_video.data import pipeline
from jax_video.data.manifest import Manifest
from jax_video.errors import Stopped, UserError
from jax_video.failures import Failures, diverged
from jax_video.meta import Meta
from jax_video.multilabel import MultiLabel
from jax_video.profiling import Profile
from jax_video.runlog import RunLog
from jax_video.state import TrainState
from jax_video.stopping import StopSignals

StepFunction = Callable[[TrainState, dict[str, jax.Array], jax.Array], tuple[TrainState, dict[str, jax.Array]]]


def make_train_step(
    definition: nnx.GraphDef,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    *,
    accumulate: int = 1,
    ema: float = 0.0,
    network: str = "",
    freeze: Sequence[str] = (),
    objective: objectives.Objective = objectives.Classification(),  # noqa: B008, frozen
    augmentation: Augmentation = Augmentation(),  # noqa: B008, frozen
) -> StepFunction:
    """The jitted update: (state, batch, key) -> (new state, sums of the batch's metrics). The old state is donated.

    The sums are scalars, except `failed`, [B] as in the batch, which every process gets. The key is the run's: what is
    random in a step depends on it, the step's number and a video's row in the batch alone.

    Args:
      accumulate: micro-batches per update. Each is cut from every device's own rows; gradients and new running
        statistics are the means over them.
      ema: decay of the moving averages of weights and statistics, 0 for none.
      network, freeze: the network's name, and its parts for which no gradient is computed.
    """

    def loss(params, batch_stats, batch):
        if freeze:
            frozen = optimizer.frozen_parts(params, network, freeze)
            params = jax.tree.map(lambda leaf, fixed: jax.lax.stop_gradient(leaf) if fixed else leaf, params, frozen)
        return objective.train(definition, params, batch_stats, batch)

    def gradient(params, batch_stats, batch):
        grads, (batch_stats, sums) = jax.grad(loss, has_aux=True)(params, batch_stats, batch)
        return grads, batch_stats, sums

    def accumulated_gradient(params, batch_stats, batch):
        """The `gradient` from micro-batches, one after the other, with memory for one at a time."""
        micro = jax.tree.map(lambda rows: sharding.split_micro_batches(rows, mesh.size, accumulate), batch)

        def add(total, micro_batch):
            grads, new_batch_stats, sums = gradient(params, batch_stats, micro_batch)
            # Differences are summed, so that constants among the statistics stay as they are to the bit.
            moves = jax.tree.map(jnp.subtract, batch_stats, new_batch_stats)
            return jax.tree.map(jnp.add, total, (grads, moves, sums)), None

        shapes = jax.eval_shape(gradient, params, batch_stats, jax.tree.map(lambda rows: rows[0], micro))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        (grads, moves, sums), _ = jax.lax.scan(add, zeros, micro)
        grads, moves = jax.tree.map(lambda leaf: leaf / accumulate, (grads, moves))
        return grads, jax.tree.map(jnp.subtract, batch_stats, moves), sums

    def train_step(state: TrainState, batch, key):
        keys = row_keys(key, state.step, len(batch["label"]))
        batch = batch | {"keys": keys}
        if augmentation:
            batch |= sharding.by_rows(augmentation, mesh)(augmentation_lib.streams(batch), keys)
        grads, batch_stats, sums = (gradient if accumulate == 1 else accumulated_gradient)(
            state.params, state.batch_stats, batch
        )
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = jax.tree.map(lambda leaf, update: leaf + state.lr_scale * update, state.params, updates)
        averages = state.ema
        if averages is not None:
            new = {"params": params, "batch_stats": batch_stats}
            # A short memory at first, or the random start would outweigh what a short run has learnt.
            decay = jnp.minimum(ema, (1 + state.step) / (10 + state.step)).astype(jnp.float32)
            averages = jax.tree.map(lambda old, leaf: old - (1 - decay) * (old - leaf), averages, new)
        # A sum over examples like the others, so that its mean over examples is the mean over steps.
        sums = sums | {"gradient_norm": sums["count"] * optax.tree.norm(grads), "failed": batch["failed"]}
        state = dataclasses.replace(
            state, step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state, ema=averages
        )
        return state, sums

    return jax.jit(train_step, donate_argnums=0, out_shardings=sharding.replicated(mesh))


def step_of(
    config: ConfigDict,
    definition: nnx.GraphDef,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    objective: objectives.Objective,
) -> StepFunction:
    """The update that a resolved config asks for."""
    return make_train_step(
        definition,
        tx,
        mesh,
        accumulate=recipe.micro_batches(config),
        ema=config.train.ema,
        network=config.model.name,
        freeze=config.train.get("freeze") or (),
        objective=objective,
        augmentation=augmentation_lib.of(config),
    )


def row_keys(key: jax.Array, step: int | jax.Array, rows: int) -> jax.Array:
    """The random keys of a step, one for each row of its batch: [rows]."""
    return jax.random.split(jax.random.fold_in(key, step), rows)


@writes_run
def train(
    config: ConfigDict,
    manifest: Manifest,
    workdir: str | os.PathLike,
    mesh: Mesh | None = None,
    *,
    profile: int = 0,
    extend: bool = False,
) -> bool:
    """Train to the end of the schedule, going on from the run's newest checkpoint if there is one.

    Args:
      workdir: the run's folder.
      mesh: devices to train on; by default all.
      profile: steps to trace, into the run's `tensorboard` (`profiling.Profile`).
      extend: whether to train a finished run for longer, up to the total of epochs or steps that the config has now.
        Its schedule, warm-up included, begins anew with the first step that is added and ends with the last one; the
        optimizer's state stays.

    Returns:
      Whether there was anything left to do.

    Raises:
      UserError: a batch, config, data set or checkpoint that does not fit; too little memory; a loss that is not finite
        (nothing is saved over the last good checkpoint).
      Stopped: SIGTERM, SIGHUP or Ctrl-C; the state is saved, but not at a second Ctrl-C.
    """
    mesh, workdir = sharding.mesh_of(mesh), run_folder(workdir)
    config = recipe.resolve(config, flip=manifest.flip, multilabel=manifest.multilabel)
    task_lib.check(config, manifest)
    options, task = config.train, task_lib.Task.of(config, manifest)
    sampling, objective = task.sampling, task.objective
    classes = manifest.classes if isinstance(objective, objectives.Classification) else ()  # to tell apart
    for name in ("epochs", "steps", "validate_epochs", "checkpoint_steps", "log_steps", "patience", "keep"):
        if options[name] is not None and options[name] < 1:
            raise UserError(f"train.{name} is {options[name]}: expected at least 1.")
    for name, value, most in (("seed", config.seed, 2**32), ("train.ema", options.ema, 1)):
        if not 0 <= value < most:
            raise UserError(f"{name} is {value}: expected a number from 0 on, below {most}.")
    accumulate = recipe.micro_batches(config)
    clips = max(1, sampling.segments)
    sharding.check_batch(options.batch, devices=mesh.size, accumulate=accumulate, clips=clips, **config.norm)
    rows = options.batch // mesh.size // accumulate
    if isinstance(objective, objectives.Classification) and objective.mixing and rows % 2:
        raise UserError(
            f"a device has {rows} videos at once, which do not pair for train.mixup and train.cutmix: use a batch that "
            f"is a multiple of {2 * mesh.size * accumulate}."
        )
    steps_per_epoch, total = beginning.steps_per_epoch(config, manifest), beginning.total_steps(config, manifest)
    validate_steps = steps_per_epoch * options.validate_epochs if manifest.select("val") else None
    if (config.schedule.kind == "plateau" or options.patience) and validate_steps is None:
        what = "train.patience watches" if options.patience else "the plateau schedule follows"
        instead = "leave it out" if options.patience else "take --config.schedule.kind=cosine"
        raise UserError(
            f"{what} the validation loss, but {manifest.name!r} has no readable validation video: hold some out "
            f"(prepare's --val_groups, --val_list or --fraction), or {instead}."
        )

    definition, params, batch_stats = state_lib.abstract(config, len(manifest.classes))
    key = jax.random.fold_in(jax.random.key(config.seed), 2**31)  # away from the keys that drew the initial values
    eval_step = scoring.make_eval_step(definition, mesh, objective)
    scoring.check_clips(eval_step, (params, batch_stats), manifest, config.test.split, sampling, task.protocol)

    network = state_lib.describe(config, params)
    sharding.announce(mesh, network, manifest.describe(), f"batches of {options.batch}")
    checkpoints = Checkpoints(workdir, mesh, keep=options.keep)
    make_schedule = functools.partial(
        optimizer.schedule, **config.schedule, steps=total, steps_per_epoch=steps_per_epoch
    )
    tx = optimizer.of(config, make_schedule(), batch_stats)
    state, progress = beginning.restore_or_create(config, manifest, checkpoints, tx, mesh, extend=extend)
    schedule = make_schedule(begin=progress.begun)
    train_step = step_of(config, definition, optimizer.of(config, schedule, batch_stats), mesh, objective)
    step = int(state.step)
    validated = not validate_steps or progress.validated == step
    if validated and step == total or progress.finished:
        checkpoints.close()
        return False
    if step:
        print(f"Going on from step {step} of the run in {workdir}.", file=sys.stderr)

    first_process = jax.process_index() == 0
    if first_process:
        print(f"Steps {step + 1} to {total}, {steps_per_epoch} an epoch; compiling the first …", file=sys.stderr)
        recipe.write(workdir, config)
    augment = jax.jit(Augmentation.__call__, static_argnums=0)

    def seen(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The first rows of the next step's batch as its network gets them."""
        if not task.augmentation:
            return rows
        keys = row_keys(key, step, options.batch)[: len(rows["label"])]
        return jax.device_get(augment(task.augmentation, augmentation_lib.streams(rows), keys))

    failures = Failures(manifest, sampling.streams)
    batches = pipeline.train_batches(
        manifest,
        sampling,
        batch=options.batch,
        seed=config.seed,
        first_step=step,
        workers=config.data.workers,
        hosts=pipeline.Hosts(jax.process_index(), jax.process_count()),
        balanced=options.class_balance == "sampling",
    )
    shown = {"total": total, "batch": options.batch, "write": first_process}
    held = round(progress.meter.totals.get("count", 0) / options.batch)  # steps without a row so far
    log = RunLog(workdir, step=step, held=held, validated=progress.validated, **shown)

    def write_row(number: int) -> None:
        if progress.meter.totals:
            rate = float(schedule(number - 1)) * progress.plateau.lr_scale
            log.row(number, "train", **progress.meter.means(), learning_rate=rate)

    def take_in(number: int, sums: dict[str, jax.Array]) -> None:
        """Read the metrics of a step that is done, while the next one runs."""
        failed = np.asarray(sums.pop("failed"))  # [B]
        values = {name: float(value) for name, value in sums.items()}
        failures.note(failed)
        if not all(map(math.isfinite, values.values())):
            raise diverged(f"the loss or the gradient ({values})", number, workdir, checkpoints.steps)
        progress.meter.add(values | {"failed": float(np.count_nonzero(failed))})
        log.stepped()
        if number % options.log_steps == 0 or number == total:
            write_row(number)

    def save(validation: dict | None = None, thresholds: tuple[float, ...] | None = None) -> None:
        stored_flow = manifest.flow is not None if "flow" in sampling.streams else None
        meta = Meta(config.to_dict(), manifest.classes, manifest.hash, progress.to_dict(), stored_flow)
        log.sync()
        checkpoints.save(state, dataclasses.replace(meta, thresholds=thresholds, packed=manifest.packed_as), validation)

    running, lost = None, ""  # (number, metrics) of the step that the devices compute; what has ended a worker
    trace = Profile(log.tensorboard, profile if first_process else 0)
    with sharding.enough_memory(), StopSignals() as signals, contextlib.ExitStack() as opened:
        for each in (checkpoints, log, batches, trace):
            opened.enter_context(contextlib.closing(each))
        while True:
            last = step == total
            validate = validate_steps and progress.validated < step and (last or step % validate_steps == 0)
            stop = sharding.stop_requested(signals.requested) or lost
            due = last or validate or stop or step % options.checkpoint_steps == 0
            checkpoint = due and step not in (0, *checkpoints.steps)
            if running is not None and (validate or checkpoint or stop):
                take_in(*running)
                running = None
            if checkpoint:
                save()  # before a validation, which may fail or be killed
            if validate and not stop:
                try:
                    means = scoring.mean_over_clips(
                        eval_step,
                        state.averaged,
                        manifest,
                        "val",
                        sampling,
                        mesh,
                        protocol=task.validation,
                        batch=config.test.batch,
                        workers=config.data.workers,
                        interrupted=lambda: sharding.stop_requested(signals.requested),
                    )
                except scoring.Interrupted:
                    stop = True
            if stop:
                checkpoints.wait()
                if lost:
                    raise UserError(f"{lost}. Fewer --config.data.workers need less memory. Saved is step {step}.")
                raise Stopped(f"stopped after step {step} of {total}; the same command goes on from there ({workdir}).")
            if validate:
                failures.note(np.array(means.failed, int) + 1)
                scores = objective.of_videos((definition, *state.averaged), means.values)
                if len(scores) > 1 and not np.isfinite(scores).all():
                    raise diverged("what the network says of validation videos", step, workdir, checkpoints.steps)
                validation = objective.metrics(scores, means.label) | {"failed": len(means.failed)}
                log.row(step, "val", **validation)
                thresholds = None
                if isinstance(objective, MultiLabel):
                    thresholds = tuple(objective.thresholds(scores, means.label).tolist())
                elif classes:
                    log.confusion(step, classes, metrics.confusion(scores, means.label, len(classes)))
                progress.validated = step
                said = progress.judge(validation, plateau=config.schedule.kind == "plateau")
                if said and first_process and not last:
                    print(f"{said} (step {step} of {total}).", file=sys.stderr)
                scale = sharding.place_state(np.float32(progress.plateau.lr_scale), mesh)
                state = dataclasses.replace(state, lr_scale=scale)
                if progress.finished:
                    write_row(step)
                save(validation, thresholds)
            if last or progress.finished:
                return True

            try:
                rows = next(batches)
            except RuntimeError as error:  # SIGTERM ended a worker before it could be told to leave signals to us
                if jax.process_count() > 1 or not (signals.requested or "exit code -" in str(error)):
                    raise  # several ask equally often
                lost = "" if signals.requested else f"a process that decodes videos was ended by the system ({error})"
                continue
            log.batch(step + 1, rows, classes, seen)
            with trace.step(step):
                state, sums = train_step(state, sharding.place_batch(rows, mesh), key)
            step += 1
            if running is not None:
                take_in(*running)
            running = step, sums
