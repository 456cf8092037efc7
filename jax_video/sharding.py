"""Devices: the mesh, where arrays live, and the start of several processes."""

import collections
import contextlib
import itertools
import os
import socket
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jax_video.errors import UserError

_WAIT = 300.0  # seconds for the first process to answer, as JAX waits for the others
_MESSAGE = 4096  # bytes of an error that one process tells the others


def start(distributed: str | None) -> None:
    """Join the other processes. Nothing may have used a device before.

    Args:
      distributed: None for a single process; "auto" on TPU pods and under SLURM or MPI, where JAX finds the others by
        itself; or "HOST:PORT,ID,COUNT" with the first process's address, this one's number and how many there are.

    Raises:
      UserError: the others cannot be joined, or, as of `make_mesh`, nothing could be asked of all.
    """
    if distributed is None:
        return
    if distributed == "auto":
        try:
            jax.distributed.initialize()
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"--distributed=auto: JAX finds no other processes here ({error}). Outside of TPU pods, SLURM and MPI "
                "give --distributed=HOST:PORT,ID,COUNT."
            ) from error
        make_mesh()
        return
    try:
        address, process, processes = distributed.split(",")
        host, port = address.rsplit(":", 1)
        valid = host and 0 < int(port) < 2**16 and 0 <= int(process) < int(processes)
    except ValueError:
        valid = False
    if not valid:
        raise UserError(
            f"--distributed={distributed}: expected auto, or HOST:PORT,ID,COUNT such as 10.0.0.1:8476,0,2 "
            "with 0 <= ID < COUNT."
        )
    _check_address(host.strip("[]"), int(port), first=int(process) == 0)
    jax.distributed.initialize(address, int(processes), int(process))
    make_mesh()


def _check_address(host: str, port: int, *, first: bool) -> None:
    """Wait until the first process answers, as JAX aborts the others if it does not. Raises UserError if it does not,
    or, in the first process, if another program has the port."""
    if first:
        with socket.socket(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET) as own:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                own.bind(("", port))
            except OSError as error:
                raise UserError(f"--distributed: port {port} cannot be used here ({error}): choose another.") from error
        return
    end, said = time.monotonic() + _WAIT, False
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except (OSError, UnicodeError) as error:  # the latter of a name that is none
            if time.monotonic() > end:
                raise UserError(
                    f"--distributed: process 0 does not answer at {host}:{port} ({error}): start it, and name the "
                    "address at which the others reach it."
                ) from error
        if not said:
            print(f"Waiting for process 0 at {host}:{port} …", file=sys.stderr)
            said = True
        time.sleep(1)


def make_mesh(devices: Iterable[Any] | None = None) -> Mesh:
    """Devices, by default all of all processes, on one axis, `batch`, ordered by process.

    Process p of P thus loads the p-th of P contiguous parts of a batch. `jax.make_mesh` would order the devices by
    their place in the network.

    Raises:
      UserError: a process has more devices than another.
    """
    devices = sorted(
        jax.devices() if devices is None else devices, key=lambda device: (device.process_index, device.id)
    )
    numbers = collections.Counter(device.process_index for device in devices)
    if len(set(numbers.values())) > 1:
        told = ", ".join(f"process {process} has {number}" for process, number in numbers.items())
        raise UserError(
            f"processes have different numbers of devices ({told}), but load equal shares of each batch: give all the "
            "same number, for example by CUDA_VISIBLE_DEVICES."
        )
    return Mesh(np.array(devices), ("batch",), axis_types=(AxisType.Auto,))


def mesh_of(mesh: Mesh | None) -> Mesh:
    """The devices of any mesh as `make_mesh` orders them; all, if it is None."""
    return make_mesh(None if mesh is None else mesh.devices.flat)


def describe(mesh: Mesh) -> str:
    """What a mesh is made of, in words: "8 × TPU v5 lite", "CPU, 2 cores"."""
    kinds = collections.Counter(device.device_kind for device in mesh.devices.flat)
    processes = len({device.process_index for device in mesh.devices.flat})
    if mesh.devices.flat[0].platform == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        parts = [f"CPU, {cores} core{'s' * (cores != 1)}"]
        parts += [f"as {mesh.size} devices"] if mesh.size > processes else []
    else:
        parts = [", ".join(f"{number} × {kind}" for kind, number in kinds.items())]
    parts += [f"in {processes} processes"] if processes > 1 else []
    return " ".join(parts)


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy of an array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def place_state(tree: Any, mesh: Mesh) -> Any:
    """Copy every leaf of a pytree to every device; of several processes, the first one's, so that all are the same."""
    if jax.process_count() > 1:
        tree = multihost_utils.broadcast_one_to_all(tree)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(replicated(mesh), np.asarray(leaf)), tree)


def place_batch(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's contiguous rows of the global batch, spread over its devices along the first axis."""
    rows = NamedSharding(mesh, PartitionSpec("batch"))
    return {name: jax.make_array_from_process_local_data(rows, array) for name, array in batch.items()}


def split_micro_batches(rows: jax.Array, devices: int, accumulate: int) -> jax.Array:
    """[B, …] -> [accumulate, B / accumulate, …]: each micro-batch takes contiguous rows of every device, so that no
    row changes its device."""
    micro = rows.reshape(devices, accumulate, -1, *rows.shape[1:])
    return jnp.swapaxes(micro, 0, 1).reshape(accumulate, -1, *rows.shape[1:])


def by_rows(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """The function, run by every device on its own rows of a batch. Its result for a row may not depend on others."""
    rows = PartitionSpec("batch")
    return jax.shard_map(function, mesh=mesh, in_specs=rows, out_specs=rows)


def announce(mesh: Mesh, *parts: str) -> None:
    """Say in one line on stderr what is about to be done: on what, with what network, with how many videos."""
    if jax.process_index() == 0:
        print("; ".join([describe(mesh), *parts]), file=sys.stderr)


def multiple_of_devices(batch: int, mesh: Mesh) -> int:
    """The batch size rounded up to a multiple of the devices, for uses where the size does not change the result."""
    return -(-batch // mesh.size) * mesh.size


def check_batch(
    batch: int, *, devices: int, accumulate: int, group_size: int | None, frozen: bool = False, clips: int = 1
) -> None:
    """Raise UserError unless the global batch divides by devices, micro-batches and BatchNorm groups.

    Where a network takes several `clips` of each video together, BatchNorm's groups count them.
    """
    if batch < 1:
        raise UserError(f"a batch has {batch} videos: expected at least 1.")
    if accumulate < 1 or batch % (devices * accumulate):
        fewer = "raise train.micro_batch, the videos on all devices at once, or " if accumulate > 1 else ""
        raise UserError(
            f"a batch of {batch} does not divide into {devices} devices × {accumulate} micro-batches: "
            f"{fewer}use a multiple of {devices * accumulate}."
        )
    if frozen:
        return
    rows = batch // devices // accumulate * clips  # of one device in one micro-batch
    if accumulate > 1 and group_size is None:
        raise UserError(
            f"{accumulate} micro-batches split the batch over which BatchNorm takes its statistics: set "
            f"norm.group_size (for example {rows}) or norm.frozen."
        )
    if group_size is not None and (group_size < 1 or rows % group_size and group_size % rows):
        raise UserError(
            f"BatchNorm groups of {group_size} do not fit {rows} clips per device and micro-batch: norm.group_size "
            f"must divide {rows} or be a multiple of it."
        )
    if group_size is not None and batch // accumulate * clips % group_size:
        raise UserError(
            f"BatchNorm groups of {group_size} do not divide the {batch // accumulate * clips} clips of a micro-batch."
        )


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
    """Raise UserError, which says what needs less memory, if the devices run out of it in this block."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"the devices have too little memory ({str(error).splitlines()[0].rstrip('.')}). Needs less: in training, "
            "fewer videos at once, --config.train.micro_batch=N, or activations that are computed twice, "
            "--config.model.remat=True; in a test, fewer clips at once, --config.test.batch=N."
        ) from error


_asked = itertools.count(2**30)  # places at which to stop, as numbers above those of all steps, which are Orbax's
_saved = -1


def note_saved(step: int) -> None:
    """Note that Orbax saves a step. It asks whether to stop, too, by the number of the step; and as processes agree on
    the number after the last one that was asked for, that may be the step's."""
    global _saved
    _saved = step


def stop_requested(local: bool = False) -> bool:
    """Whether to stop now. Of several processes, which ask equally often, all get the same answer, and stop at the same
    place once SIGTERM has reached one of them; a single one stops also where `local` says so."""
    numbers = (_saved + 1, next(_asked))
    asked = [multihost_utils.reached_preemption_sync_point(number) for number in numbers]  # False without `start`
    return any(asked) or (local and jax.process_count() == 1)


def check_same_set(digest: str) -> None:
    """Raise UserError, in all processes, unless all have the same set, as each reads its own part of every batch.

    Args:
      digest: the hash of this process's manifest, hexadecimal.
    """
    if jax.process_count() == 1:
        return
    digests = np.asarray(multihost_utils.process_allgather(np.frombuffer(bytes.fromhex(digest), np.uint8)))
    if other := np.flatnonzero((digests != digests[0]).any(axis=1)).tolist():
        first, another = (bytes(digests[process]).hex()[:8] for process in (0, other[0]))
        raise UserError(
            f"process {other[0]} has other videos, labels or splits than process 0: the hashes of their manifests are "
            f"{another}… and {first}…. Give all the same manifest.jsonl, on a shared disk or copied from one of them."
        )


def check_same(values: Mapping[str, Any]) -> None:
    """Raise UserError, in all processes, unless all have the same values under the same names, as those of a config."""
    if jax.process_count() == 1:
        return

    def differing(told: list[bytes]) -> np.ndarray:
        """[P, N], where those of the P processes differ from the first one's."""
        sums = np.array([zlib.crc32(each) for each in told], np.uint32)
        found = np.asarray(multihost_utils.process_allgather(sums))
        return found != found[0]

    if other := np.flatnonzero(differing([repr(list(values)).encode()])).tolist():
        raise UserError(
            f"process {other[0]} has other keys in its config than process 0: give all the same --config, and version."
        )
    wrong = differing([repr(value).encode() for value in values.values()])
    if wrong.any():
        process, place = np.argwhere(wrong)[0].tolist()
        name = list(values)[place]
        raise UserError(
            f"process {process} has another {name} than process 0 (in process {jax.process_index()} it is "
            f"{values[name]!r}): give all the same config."
        )


def on_first(action: Callable[[], None]) -> None:
    """Call `action` on the first process only. If it fails there, every process raises UserError."""
    message = ""
    if jax.process_index() == 0:
        try:
            action()
        except (UserError, OSError) as error:
            if jax.process_count() == 1:
                raise
            message = str(error)
    if jax.process_count() > 1:
        told = np.frombuffer(message.encode()[:_MESSAGE].ljust(_MESSAGE, b"\0"), np.uint8)
        told = np.asarray(multihost_utils.broadcast_one_to_all(told), np.uint8)
        message = told.tobytes().rstrip(b"\0").decode(errors="replace")
        if message:
            raise UserError(message)
