"""What a training or test step needs on TPUs, found by compiling it for them: no TPU is needed, only libtpu."""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from jax_video import hlo, networks, objectives, optimizer, recipe, scoring, sharding, train
from jax_video import state as state_lib
from jax_video.data import documents, pipeline, remote
from jax_video.data.manifest import Manifest, Video
from jax_video.errors import UserError
from jax_video.multilabel import MultiLabel
from jax_video.task import Task

GIB = 2**30
_OFFLINE = {  # answers that libtpu would otherwise ask of a TPU's machine; and no logs
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # several may plan at once
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}
FRAMES = (340, 256)  # width and height of a test's frames, where whole frames are tested
_STORED_RATE = 30.0  # frames per second of most videos, for recipes whose clips have a rate of their own
_MEASURE = "3"  # part of the cache key: changes with what is read off a program, so that old entries are not used


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip's peaks, as its maker publishes them (cloud.google.com/tpu/docs, 2026-11).

    Attributes:
      operations: per second, in bfloat16, in which TPUs multiply float32 too.
      memory: bytes.
      bandwidth: bytes per second between the chip and its memory.
      network: bytes per second that it can send to its neighbours while it receives as many.
    """

    operations: float
    memory: float
    bandwidth: float
    network: float


CHIPS = {  # by the first part of a topology's name; v4 is missing: libtpu lists its cores, two a chip
    "v5e": Chip(197e12, 16 * GIB, 819e9, 200e9),
    "v5p": Chip(459e12, 95 * GIB, 2765e9, 600e9),
    "v6e": Chip(918e12, 32 * GIB, 1638e9, 400e9),
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """Chips that work together: `Slice.of("v5e:2x4")`.

    Attributes:
      name: the kind of chip and how many of them lie along each axis.
      chip: its peaks.
      mesh: of devices that a program can be compiled for, but not run on.
      hosts: how many machines feed them.
    """

    name: str
    chip: Chip
    mesh: Mesh
    hosts: int

    @classmethod
    def of(cls, name: str) -> "Slice":
        """The slice of that name.

        Raises:
          UserError: there is no such slice, or libtpu is not installed.
        """
        kind, _, shape = name.partition(":")
        if kind not in CHIPS or not re.fullmatch(r"\d+(x\d+){1,2}", shape):
            raise UserError(
                f"--topology={name}: expected a kind of TPU, one of {', '.join(CHIPS)}, and how many chips lie along "
                "each axis, such as v5e:2x4, v6e:1x1 or v5p:2x2x2."
            )
        if not importlib.util.find_spec("libtpu"):
            raise UserError(
                'to compile for TPUs takes their compiler: pip install "jax[tpu]<0.13" (a TPU itself is not needed).'
            )
        for key, value in _OFFLINE.items():
            os.environ.setdefault(key, value)
        # A host has four chips, unless there is only one.
        host = {"chips_per_host_bounds": [1, 1, 1]} if set(shape.split("x")) == {"1"} else {}
        try:
            devices: list[Any] = topologies.get_topology_desc(platform="tpu", topology_name=name, **host).devices
        except (RuntimeError, ValueError, NotImplementedError) as error:
            raise UserError(f"--topology={name}: libtpu knows no such slice ({error}).") from error
        return cls(name, CHIPS[kind], sharding.make_mesh(devices), len({device.process_index for device in devices}))


_COMPILED = {"fits": bool, "peak": float, "collectives": {"*": [float]}}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says of a program; all numbers are of one chip.

    Attributes:
      fits: whether its memory is enough; if not, only `peak` and `capacity` are known.
      peak: bytes of memory that it takes.
      capacity: bytes that a program can have, where the compiler said so, or 0.
      temporaries: bytes of activations and all else that lives only during the step.
      operations: floating-point operations of a step; of micro-batches those of one, times their number.
      traffic: bytes that it reads and writes in memory.
      collectives: {kind: (how many, bytes)}, what chips exchange with one another.
    """

    fits: bool
    peak: float
    capacity: float = 0.0
    temporaries: float = 0.0
    operations: float = 0.0
    traffic: float = 0.0
    collectives: Mapping[str, tuple[int, float]] = dataclasses.field(default_factory=dict)

    def exchange(self, chip: Chip, chips: int) -> float:
        """The least seconds that `chips` chips need for the collectives, if each sends the same amount as here.

        In a ring of n, an all-reduce sends 2 (n - 1) / n of its bytes from every chip, the others half of that.
        """
        sent = sum(size * (2 if kind == "all-reduce" else 1) for kind, (_, size) in self.collectives.items())
        return sent * (chips - 1) / chips / chip.network


class Planner:
    """The steps of a config, compiled for a slice; what was compiled before is remembered.

    Args:
      config: of a recipe. Groups of BatchNorm that it leaves open follow from each micro-batch, unless it is resolved.
      classes: their number.
    """

    def __init__(self, config: ConfigDict, where: Slice, *, classes: int):
        self.given, self.config, self.where, self.classes = config, recipe.resolve(config), where, classes
        self.task = Task.of(self.config)
        self.segments = max(1, self.task.sampling.segments)  # clips of a video that the network takes together

    def train_step(self, batch: int, micro_batch: int | None) -> Compiled:
        """The training step of `batch` videos, `micro_batch` of them at once (None: all)."""
        config, mesh = self._in_micro_batches(batch, micro_batch), self.where.mesh
        accumulate = recipe.micro_batches(config)
        definition, _, _ = state_lib.abstract(config, self.classes)
        step: Any = train.step_of(config, definition, self._optimizer(), mesh, self.task.objective)
        key = self._everywhere(jax.eval_shape(lambda: jax.random.key(0)))
        rows = self._batch(batch, self.clip())
        return self._compile(lambda: step.trace(self.state, rows, key), repeats=accumulate)

    def can_divide(self, batch: int, micro_batch: int) -> bool:
        """Whether training can take `batch` videos `micro_batch` at once: BatchNorm's groups, and pairs that are mixed,
        stay whole on each chip."""
        if micro_batch * self.segments % (self.given.norm.group_size or 1):
            return False  # it would be made larger
        try:
            self._in_micro_batches(batch, micro_batch)
        except UserError:
            return False
        objective = self.task.objective
        mixes = isinstance(objective, objectives.Classification) and objective.mixing
        return not mixes or micro_batch // self.where.mesh.size % 2 == 0

    def _in_micro_batches(self, batch: int, micro_batch: int | None) -> ConfigDict:
        """The config with these. Raises UserError where they do not divide among the chips and BatchNorm's groups."""
        config = self.given.copy_and_resolve_references()
        config.train.update(batch=batch, micro_batch=micro_batch)
        config = recipe.resolve(config)
        accumulate, devices = recipe.micro_batches(config), self.where.mesh.size
        sharding.check_batch(batch, devices=devices, accumulate=accumulate, clips=self.segments, **config.norm)
        return config

    @functools.cached_property
    def state(self) -> state_lib.TrainState:
        """Shapes of the training state, of which every chip has a copy."""

        def create() -> state_lib.TrainState:
            network = state_lib.network(self.config, self.classes)
            return state_lib.create(network, self._optimizer(), ema=self.config.train.ema > 0)

        return self._everywhere(jax.eval_shape(create))

    def _optimizer(self):
        schedule = optimizer.schedule(**self.config.schedule, steps=1000, steps_per_epoch=10)  # any number will do
        _, _, batch_stats = state_lib.abstract(self.config, self.classes)
        return optimizer.of(self.config, schedule, batch_stats)

    def test_step(self, batch: int) -> Compiled:
        """The test step, which scores `batch` clips of a video with frames of `FRAMES`."""
        definition, *weights = state_lib.abstract(self.config, self.classes)
        step: Any = scoring.make_eval_step(definition, self.where.mesh, self.task.objective)
        rows = self._batch(batch, self.clip("test"))
        return self._compile(lambda: step.trace(*map(self._everywhere, weights), rows))

    def _everywhere(self, tree: Any) -> Any:
        """Shapes of arrays that every chip has a copy of."""
        place = sharding.replicated(self.where.mesh)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree)

    def clip(self, mode: str = "train") -> tuple[int, ...]:
        """T, H, W of a clip; of several that a network takes together N, T, H, W."""
        sampling = self.task.sampling
        if mode == "train":
            return (*([sampling.segments] if sampling.segments else []), sampling.frames, *2 * [sampling.size])
        width, height = FRAMES
        video = Video("", None, "test", 10 * round(_STORED_RATE), _STORED_RATE, width, height, None, "")
        set_of_one = Manifest("", (), "", (video,))
        clip, *_ = pipeline.cropped_clips(set_of_one, "test", sampling, self.task.protocol)
        return (*clip.frames.shape, *clip.size)

    def _batch(self, size: int, clip: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of a batch of clips, spread over the chips."""
        sampling = self.task.sampling
        streams = {name: ((*clip, networks.CHANNELS[name]), np.uint8) for name in sampling.streams}
        numbers = {"label": np.int32, "video": np.int32, "mask": np.float32, "failed": np.int32}
        shapes: dict[str, Any] = streams | {name: ((), dtype) for name, dtype in numbers.items()}
        if isinstance(self.task.objective, MultiLabel):
            shapes["label"] = ((self.classes,), np.float32)
        rows = NamedSharding(self.where.mesh, PartitionSpec("batch"))
        return {
            name: jax.ShapeDtypeStruct((size, *shape), dtype, sharding=rows) for name, (shape, dtype) in shapes.items()
        }

    def _compile(self, trace: Callable[[], Any], repeats: int = 1) -> Compiled:
        lowered = trace().lower(lowering_platforms=("tpu",))
        versions = [importlib.metadata.version(name) for name in ("jaxlib", "libtpu")]
        program = hashlib.sha256(
            "\n".join([_MEASURE, lowered.as_text(), self.where.name, *versions]).encode()
        ).hexdigest()
        path = remote.cache_folder() / "plans" / f"{program}.json"
        with contextlib.suppress(FileNotFoundError, TypeError, documents.Damaged):  # or else it is compiled again
            return Compiled(**documents.read(path, _COMPILED))
        try:
            compiled = _measured(lowered.compile(), repeats)
        except jax.errors.JaxRuntimeError as error:
            compiled = _too_large(str(error))
        path.parent.mkdir(parents=True, exist_ok=True)
        documents.write(path, dataclasses.asdict(compiled))
        return compiled


@dataclasses.dataclass(frozen=True)
class Plan:
    """A step of a config on a slice, compiled.

    Attributes:
      batch, micro_batch: videos of a step, and how many of them at once (None: all of them).
      step: of the batch as the config has it.
      largest: the largest micro-batch that fits, where the step does not; 0 if none was found.
      fitted: the step with that micro-batch.
    """

    planner: Planner
    mode: str
    batch: int
    micro_batch: int | None
    step: Compiled
    largest: int | None = None
    fitted: Compiled | None = None


def plan(config: ConfigDict, topology: str, *, mode: str = "train", batch: int | None = None, classes: int) -> Plan:
    """Compile a config's step for a slice of TPUs, and find the largest micro-batch if the batch does not fit.

    A compilation takes minutes, and is remembered in the cache folder.

    Args:
      config: of a recipe; see `Planner`.
      topology: such as "v5e:2x4".
      mode: "train" or "test".
      batch: videos, or clips in a test, in place of the config's.
      classes: their number.

    Raises:
      UserError: an unknown slice, a batch that does not divide by its chips, or libtpu is not installed.
    """
    config = config.copy_and_resolve_references()
    if batch and mode == "train":
        config.train.batch = batch
    planner = Planner(config, Slice.of(topology), classes=classes)
    chips = planner.where.mesh.size
    if mode == "test":
        batch = sharding.multiple_of_devices(batch or config.test.batch, planner.where.mesh)
        return Plan(planner, mode, batch, None, planner.test_step(batch))
    batch, micro_batch = planner.config.train.batch, planner.config.train.micro_batch
    step = planner.train_step(batch, micro_batch)
    if step.fits:
        return Plan(planner, mode, batch, micro_batch, step)

    whole = micro_batch or batch
    sizes = [size for size in range(chips, whole, chips) if batch % size == 0 and planner.can_divide(batch, size)]

    def largest_below(bound: float) -> int:
        return max((size for size in sizes if size <= bound), default=0)

    tried = {whole: step}
    size = largest_below(whole * step.capacity / step.peak / 2) or min(sizes, default=0)
    while size and size not in tried:
        tried[size] = planner.train_step(batch, size)
        small, large = min(tried), max(tried)  # every video adds the same memory
        each = (tried[large].peak - tried[small].peak) / (large - small)
        bound = small + (step.capacity - tried[small].peak) / each if each > 0 else min(sizes)
        refused = min(size for size, compiled in tried.items() if not compiled.fits)
        size = largest_below(min(bound, refused - 1))
    largest = max((size for size, compiled in tried.items() if compiled.fits), default=0)
    return Plan(planner, mode, batch, micro_batch, step, largest, tried.get(largest))


def report(plan: Plan, *, videos: int = 240_000, decoding: float = 3000.0) -> str:
    """A plan in words and numbers.

    Args:
      videos: of an epoch; Kinetics-400 has about the default.
      decoding: frames per second that a core decodes (`prepare --benchmark` measures it).
    """
    lines = [_title(plan), "", "Memory of a chip, GiB", *_memory(plan)]
    step = plan.step if plan.step.fits else plan.fitted
    if step is None:
        less = (
            "a smaller --batch"
            if plan.mode == "test"
            else "--config.model.remat=True, which computes activations twice"
        )
        return "\n".join(
            [*lines, f"Nothing that was tried fits: take {less}, smaller clips, or chips with more memory."]
        )
    where, sampling, chip = plan.planner.where, plan.planner.task.sampling, plan.planner.where.chip
    chips = where.mesh.size
    times = {
        "arithmetic": step.operations / chip.operations,
        "memory": step.traffic / chip.bandwidth,
        "network": step.exchange(chip, chips),
    }
    alone = max(times["arithmetic"], times["memory"])
    rate = plan.batch * plan.planner.segments / (alone + times["network"])
    rows = [
        ("operations", f"{step.operations / 1e12:,.3f} TFLOP", f"{chip.operations / 1e12:,.0f} TFLOP/s", "arithmetic"),
        ("memory traffic", f"{step.traffic / 1e9:,.2f} GB", f"{chip.bandwidth / 1e9:,.0f} GB/s", "memory"),
    ]
    for kind, (number, size) in step.collectives.items():
        rows.append((f"{number} × {kind}", f"{size / 1e6:,.2f} MB", f"{chip.network / 1e9:,.0f} GB/s", "network"))
    lines += ["", "A step of a chip, and the least time that it takes"]
    lines += [f"  {what:26}{amount:>14} at {peak:>13}: {1000 * times[by]:8.2f} ms" for what, amount, peak, by in rows]
    faster = max(1.0, _STORED_RATE / sampling.fps) if sampling.fps else 1.0
    span = math.ceil(sampling.frames * sampling.stride * faster)
    of = f", of videos with {_STORED_RATE:g} a second" if sampling.fps else ""
    each = rate / where.hosts  # clips per second
    lines += [
        f"  {step.operations / step.traffic:,.0f} operations a byte; the chip can do "
        f"{chip.operations / chip.bandwidth:,.0f}",
        "",
        f"Bound by {max(times, key=lambda name: times[name])}: at the least {1000 * (alone + times['network']):,.1f} "
        "ms, if the network waits for the rest",
        f"  {rate:,.0f} clips/s at the most",
    ]
    if plan.mode == "train":
        epoch = videos * plan.planner.segments / rate
        lines.append(f"  an epoch of {videos:,} videos in {epoch:,.0f} s")
    lines += [
        f"  each host must deliver {each:,.0f} clips/s of {span} frames{of}: "
        f"{math.ceil(each * span / decoding):,} cores that decode {decoding:,.0f} frames/s",
    ]
    if plan.mode == "train" and chips > 1:
        sizes = [8, 16, 32, 64, 128, 256]
        shares = [alone / (alone + step.exchange(chip, size)) for size in sizes]
        lines += [
            "",
            f"Of more chips, with {plan.batch // chips} videos each: share of the time in which they compute",
            "".join(f"{size:>10}" for size in sizes),
            "".join(f"{share:>10.1%}" for share in shares),
        ]
    return "\n".join(lines)


def _title(plan: Plan) -> str:
    planner, where, chips = plan.planner, plan.planner.where, plan.planner.where.mesh.size
    sampling = planner.task.sampling
    videos = "videos" if plan.mode == "train" else "clips"
    at_once = f", {plan.micro_batch} at once" if plan.micro_batch else ""
    *times, high, wide = planner.clip(plan.mode)
    size_of = f"{high}²" if high == wide else f"{high}×{wide}"
    frames = (
        f" (frames of {FRAMES[0]}×{FRAMES[1]})" if plan.mode == "test" and planner.task.protocol.crop == "full" else ""
    )
    size = f"{chips} chip{'s' * (chips > 1)}, {where.hosts} host{'s' * (where.hosts > 1)}"
    clip = f"{' × '.join(map(str, times))} × {size_of}{frames} of {' and '.join(sampling.streams)}"
    return (
        f"{planner.config.model.name}, {plan.mode}, on {where.name}: {size}\n"
        f"{plan.batch} {videos}{at_once}; {clip}; {planner.config.dtype}; {planner.classes} classes"
    )


def _memory(plan: Plan) -> list[str]:
    """The lines of the report about a program's memory."""
    state, step = plan.planner.state, plan.step
    held: dict[str, Any] = {"weights and statistics": (state.params, state.batch_stats)}
    if plan.mode == "train":
        held["optimizer"] = state.opt_state
        if state.ema is not None:
            held["moving averages"] = state.ema
    rows = {name: sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)) for name, tree in held.items()}
    if step.fits:
        rows["activations and others"] = step.temporaries
    lines = [f"  {name:34}{size / GIB:8.2f}" for name, size in rows.items()]

    def total(name: str, compiled: Compiled) -> str:
        capacity = (step.capacity or plan.planner.where.chip.memory) / GIB
        verdict = "it fits" if compiled.fits else "it does not fit"
        return f"  {name:34}{compiled.peak / GIB:8.2f} of {capacity:.2f}: {verdict}"

    lines.append(total("peak", step))
    if plan.fitted is not None:
        lines.append(total(f"peak, --config.train.micro_batch={plan.largest}", plan.fitted))
    return lines


def _measured(program: Any, repeats: int) -> Compiled:
    memory, cost = program.memory_analysis(), program.cost_analysis()
    outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
    code = memory.generated_code_size_in_bytes
    traffic, exchanged = hlo.measure(program.as_text())
    return Compiled(
        fits=True,
        peak=memory.argument_size_in_bytes + memory.temp_size_in_bytes + outputs + code,
        temporaries=memory.temp_size_in_bytes,
        operations=cost["flops"] * repeats,  # XLA counts a loop's body once
        traffic=traffic,
        collectives=exchanged,
    )


def _too_large(message: str) -> Compiled:
    """What the compiler's refusal says: "Used 25.4G of 15.7G hbm". Raises what else it refuses."""
    found = re.search(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm", message)
    if not found:
        raise UserError(f"the program cannot be compiled: {message}")
    number, unit, capacity, capacity_unit = found.groups()
    return Compiled(fits=False, peak=_bytes(number, unit), capacity=_bytes(capacity, capacity_unit))


def _bytes(number: str, unit: str) -> float:
    return float(number) * 1024.0 ** " KMGT".index(unit or " ")
