"""Checkpoints: what they carry, how they are kept, and how they are read back. The only importer of orbax.

A checkpoint holds `network` (params and running statistics), `ema` (their moving averages, where asked for), `training`
(step, optimizer state and factor of the learning rate), `checksums` (one for each array) and `meta` (config, class
names, progress), so that a run's folder is enough to classify videos with.
"""

import contextlib
import dataclasses
import datetime
import errno
import functools
import inspect
import logging as python_logging
import os
import re
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from orbax.checkpoint import checkpoint_managers as policies

from jax_video import lock, metrics, sharding
from jax_video import state as state_lib
from jax_video.data import copies, documents, remote
from jax_video.errors import CheckpointError, UserError, listed, mended
from jax_video.meta import Meta

T = TypeVar("T")
_BEHIND = 60.0  # seconds after which all clients of a network's disk see what one has written
SHARED = "model.safetensors"  # the weights of an exported run, which has no checkpoints (`published`)


class _Corrupted(Exception):
    pass


def _is_said_once(record: python_logging.LogRecord) -> bool:
    """Whether a log record is not the traceback of an error inside Orbax. Such an error is raised, but each thread of
    Orbax, and asyncio for each abandoned task, also logs it."""
    if not record.exc_info:
        return True
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(record.exc_info[2])]
    return all(f"{os.sep}orbax{os.sep}" not in file for file in (record.pathname, *files))


for _logger in (logging.get_absl_logger(), python_logging.getLogger("asyncio")):
    _logger.addFilter(_is_said_once)


def run_folder(name: str | os.PathLike) -> remote.Path:
    """The path of a run's folder: local, or in Google Cloud Storage (gs://…), the only store that Orbax writes to.

    Raises:
      UserError: it is elsewhere, or the package that reaches it is not installed.
    """
    if remote.is_remote(name) and not os.fspath(name).startswith("gs://"):
        raise UserError(
            f"{name}: a run is written to a local folder or to gs:// only. Mount the store (rclone mount, for example) "
            "and give the folder where it is mounted."
        )
    path = remote.path(name)
    with remote.reaching(path):
        path.is_dir()  # fails before anything else if the store cannot be reached
    return path


@contextlib.contextmanager
def hold(
    workdir: str | os.PathLike, *, takeover: bool = False, lost: Callable[[lock.Lost], None] | None = None
) -> Iterator[None]:
    """Hold a run's folder for all processes of the run, as `lock.hold` does; the first process takes it.

    If another process takes it over, a run of several processes ends by default: the others would wait for the first.

    Raises:
      UserError: another run is in this folder (all processes raise it), or it is the local copy of a run in a store.
    """
    if copies.is_copy(workdir):
        raise UserError(
            f"{workdir} is the copy of a run in a store, which is only read: copy it to a folder of your own."
        )
    with contextlib.ExitStack() as stack:
        lost = lost or (lock.end_process if jax.process_count() > 1 else None)
        sharding.on_first(lambda: stack.enter_context(lock.hold(run_folder(workdir), takeover=takeover, lost=lost)))
        yield


def _check_shared(folder: remote.Path) -> None:
    """Raise UserError, in all processes, unless all see the first one's folder: each writes its part of a checkpoint,
    and would wait for ever for those of the others."""
    if jax.process_count() == 1:
        return
    mark = folder / f".shared-{int(multihost_utils.broadcast_one_to_all(np.random.default_rng().integers(2**31)))}"
    with contextlib.ExitStack() as stack:

        def make() -> None:
            if not remote.is_remote(folder):
                folder.mkdir(parents=True, exist_ok=True)
                mark.touch()
                stack.callback(mark.unlink, missing_ok=True)

        sharding.on_first(make)
        found = _seen_by_all(mark)
        if found[0] and not found.all():  # a disk in a network may be some seconds behind
            time.sleep(0 if mark.exists() else _BEHIND)
            found = _seen_by_all(mark)
    if found[0] and not found.all():
        process = np.flatnonzero(~found)[0]
        raise UserError(
            f"process {process} does not see what process 0 writes into {folder}: all write into one folder. Give a "
            "--workdir on a disk that they share, or in gs://."
        )


def _seen_by_all(file: remote.Path) -> np.ndarray:
    """Whether each of the processes sees a file, [P]."""
    return np.asarray(multihost_utils.process_allgather(np.array(file.exists()))).ravel()


def writes_run(function: Callable[..., T]) -> Callable[..., T]:
    """Decorate a function that writes into a run's folder, so that it holds the folder meanwhile. The folder is the
    function's argument `workdir`, or that of its argument `run`."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def holding(*args: Any, **kwargs: Any) -> T:
        given = signature.bind(*args, **kwargs).arguments
        with hold(given["workdir"] if "workdir" in given else given["run"].folder):
            return function(*args, **kwargs)

    return holding


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide Orbax's warnings: that a read-only folder is not written, that an unvalidated checkpoint has no metrics."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


class _Step(ocp.path.step.Metadata):
    """A checkpoint's folder, with time 0 if it is damaged: Orbax asks for the time before it checks the checkpoint."""

    @property
    def commit_timestamp(self) -> datetime.datetime:
        try:
            return super().commit_timestamp
        except Exception:  # damage of any kind
            return datetime.datetime.fromtimestamp(0, datetime.UTC)


@dataclasses.dataclass(frozen=True)
class _Steps(ocp.path.step.NameFormat):
    """How Orbax names checkpoints, and finds them, damaged ones included."""

    standard: ocp.path.step.NameFormat = ocp.path.step.standard_name_format()

    def build_name(self, step: int) -> str:
        return self.standard.build_name(step)

    def find_all(self, base_path: Any) -> Iterator[_Step]:
        return (_Step(found.step, found.path) for found in self.standard.find_all(base_path))

    def find_step(self, base_path: Any, step: int) -> _Step:
        found = self.standard.find_step(base_path, step)
        return _Step(found.step, found.path)


# Codes of TensorStore that are of no file's content.
_OUT_OF_REACH = re.compile(
    r"\b(PERMISSION_DENIED|UNAUTHENTICATED|UNAVAILABLE|RESOURCE_EXHAUSTED|DEADLINE_EXCEEDED|ABORTED|CANCELLED)\b"
)


class _Manager(ocp.CheckpointManager):
    """Orbax's manager, which reads the metrics of all checkpoints when it opens a folder, and fails if one is damaged.

    Here they come from our own record, which has a checksum; earlier versions wrote them to Orbax's file alone.
    """

    def metrics(self, step: int) -> dict[str, float] | None:
        """The validation metrics of a checkpoint; None where there are none, or they are damaged.

        Raises:
          CheckpointError: they cannot be read just now. Without them the best checkpoint would be removed as any other.
        """
        try:
            content = _sound(ocp.JsonCheckpointHandler().restore(self.directory / str(step) / "meta"))
            found = content["validation"] if "validation" in content else super().metrics(step)
            return found if found is not None and np.isfinite(_rank(found)) else None
        except FileNotFoundError:
            return None
        except Exception as error:
            if _is_of_machine(error):
                raise _unreadable(step, self.directory, error) from error
            said = "the validation of checkpoint %d in %s cannot be read (%s): it does not count as the best one"
            logging.error(said, step, self.directory, _first_line(error))
            return None


class Checkpoints:
    """The checkpoints of one run: the last `keep` and the best one by `metrics.headline`."""

    def __init__(
        self,
        workdir: str | remote.Path,
        mesh: Mesh,
        *,
        keep: int = 2,
        read_only: bool = False,
        step: int | None = None,
    ):
        """Open a run's checkpoints, or just the one of `step`; CheckpointError for an export, unless `read_only`."""
        workdir = remote.absolute(run_folder(workdir))
        if not read_only and (workdir / SHARED).exists():
            raise CheckpointError(
                f"{workdir} holds a run that was exported: it is not gone on with. Train in another folder; weights to "
                f"start from may come from here: --config.init_from.path={workdir}"
            )
        if not read_only:
            _check_shared(workdir)
        self.folder, self._only = workdir / "checkpoints", step
        self._sharding = sharding.replicated(mesh)  # arrays are read onto these devices, whichever they were saved on
        with _quiet() if read_only else contextlib.nullcontext():
            self._manager = _Manager(
                self.folder,
                options=ocp.CheckpointManagerOptions(
                    create=not read_only,
                    read_only=read_only,
                    # What a kill has left half written; in a store Orbax would take copied checkpoints for such.
                    cleanup_tmp_directories=not (read_only or remote.is_remote(workdir)),
                    step_name_format=_Steps(),
                    best_fn=_rank,
                    best_mode="max",
                    preservation_policy=policies.AnyPreservationPolicy(
                        [
                            policies.LatestN(keep),
                            policies.BestN(get_metric_fn=_rank, n=1, keep_checkpoints_without_metrics=False),
                        ]
                    ),
                ),
                item_handlers={
                    **{name: ocp.StandardCheckpointHandler() for name in ("network", "ema", "training", "checksums")},
                    "meta": ocp.JsonCheckpointHandler(),
                },
            )

    @property
    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, oldest first."""
        return sorted(step for step in self._manager.all_steps() if self._only in (None, step))

    def save(self, state: state_lib.TrainState, meta: Meta, validation: dict[str, float] | None = None) -> None:
        """Start to save; the arrays are copied before it returns, the files are written during the next steps.

        Replaces a checkpoint of the same step. `validation`, its metrics, decides which checkpoint is kept as the best.
        `ema`, `machines` and `validation` of `meta` are filled in here.
        """
        step = int(state.step)
        machines = {"processes": jax.process_count(), "devices": self._sharding.mesh.size}
        content = dataclasses.replace(
            meta, ema=state.ema is not None, machines=machines, validation=validation
        ).to_json()
        items = _items(state)
        with self._writing(), _quiet():
            if step in self.steps:  # saved before its validation: a kill just here costs this one checkpoint
                self._manager.wait_until_finished()
                self._manager.delete(step)
            sharding.note_saved(step)
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{name: ocp.args.StandardSave(item) for name, item in items.items()},
                    checksums=ocp.args.StandardSave({name: _checksums(item) for name, item in items.items()}),
                    meta=ocp.args.JsonSave({"content": content, "crc32": documents.checksum(content)}),
                ),
                metrics=validation,
            )

    @contextlib.contextmanager
    def _writing(self):
        """Raise CheckpointError for a full disk, which Orbax meets in its own threads and raises from a later call."""
        try:
            yield
        except (OSError, RuntimeError, ValueError) as error:
            number = error.errno if isinstance(error, OSError) else _system_error(error)
            reason = os.strerror(number) if number else _first_line(error)
            raise CheckpointError(
                f"cannot write a checkpoint into {self.folder} ({reason}). {mended(number)}; the same command goes on "
                "from the last checkpoint."
            ) from error

    def restore(self, target: state_lib.TrainState) -> tuple[state_lib.TrainState, Meta] | None:
        """The newest sound checkpoint as (state, meta), on every device; None where the run has none.

        A damaged one is put aside in `corrupted/` and the one before it is taken.

        Args:
          target: a state of the same shapes (jax.ShapeDtypeStruct is enough).

        Raises:
          CheckpointError: there are checkpoints but all are damaged, or one holds other arrays than `target`.
        """
        for step in reversed(self.steps):
            try:
                items, meta = self._read(step, _items(target))
            except _Corrupted as error:
                self._put_aside(step, error)
                continue
            return state_lib.TrainState(**items["training"], **items["network"], ema=items.get("ema")), meta
        if (self.folder.parent / "corrupted").exists():
            raise CheckpointError(
                f"every checkpoint of {self.folder.parent} is damaged: they are in {self.folder.parent / 'corrupted'}. "
                "Start in a new --workdir, or delete this one."
            )
        return None

    def read_best(self, target: dict) -> tuple[dict, Meta, int]:
        """The weights to test with: (network, meta, step) of the best checkpoint, its moving averages if it has any.

        If it is damaged, the newest sound one before it. Raises CheckpointError if there is none.

        Args:
          target: {"params", "batch_stats"} of the same shapes (jax.ShapeDtypeStruct is enough).
        """
        best = self.best_step()
        for step in [best, *(earlier for earlier in reversed(self.steps) if earlier < best)]:
            try:
                item = "ema" if self.read_meta(step).ema else "network"
                items, meta = self._read(step, {item: target})
                return items[item], meta, step
            except _Corrupted as error:
                logging.error("checkpoint %d of %s is damaged (%s): trying the one before", step, self.folder, error)
        raise CheckpointError(f"checkpoint {best} in {self.folder} is damaged, and there is no sound one before it.")

    def best_meta(self) -> Meta:
        """Config, classes and progress of the best checkpoint that can be read: enough to build its network."""
        for step in [self.best_step(), *reversed(self.steps)]:
            with contextlib.suppress(_Corrupted):
                return self.read_meta(step)
        raise CheckpointError(f"every checkpoint in {self.folder} is damaged.")

    def best_step(self) -> int:
        """The step with the best validation, or the last if none was validated; if just one was opened, its step."""
        best = self._manager.best_step() or self._manager.latest_step()
        if best is None:
            raise CheckpointError(f"there is no checkpoint in {self.folder}: is this a run's folder?")
        if self._only is not None and not self.steps:
            there = ", ".join(map(str, sorted(self._manager.all_steps())))
            raise CheckpointError(
                f"there is no checkpoint of step {self._only} in {self.folder}: choose one of {there}."
            )
        return best if self._only is None else self._only

    def read_meta(self, step: int) -> Meta:
        """Config, class names and progress of a checkpoint. Raises CheckpointError, or _Corrupted if it is damaged."""
        try:
            content = _sound(self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta)
            return Meta.from_json(content, self.folder.parent)
        except CheckpointError:
            raise
        except Exception as error:
            raise self._damage(step, error) from error

    def _read(self, step: int, target: dict[str, Any]) -> tuple[dict[str, Any], Meta]:
        meta = self.read_meta(step)
        if "ema" in target and not meta.ema:  # sound, but of another config
            raise CheckpointError(
                f"checkpoint {step} of {self.folder.parent} was saved without moving averages: use the train.ema that "
                "the run began with, or another --workdir."
            )
        try:
            found = self._manager.item_metadata(step)
        except Exception as error:
            raise self._damage(step, error) from error
        for name, item in target.items():
            metadata = getattr(found[name], "tree", found[name])
            if metadata is None:
                raise _Corrupted(f"it has no {name}")
            check_shapes(f"checkpoint {step} of {self.folder.parent}", metadata, item)
            _check_types(f"checkpoint {step} of {self.folder.parent}", metadata, item)
        try:
            checksums = getattr(found["checksums"], "tree", found["checksums"])
            arguments = {
                name: ocp.args.StandardRestore(
                    jax.tree.map(
                        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self._sharding), item
                    )
                )
                for name, item in (target | {"checksums": checksums}).items()
            }
            restored = self._manager.restore(step, args=ocp.args.Composite(**arguments))
            items = {name: restored[name] for name in target}
        except Exception as error:
            raise self._damage(step, error) from error
        for name, item in items.items():
            wrong = np.flatnonzero(np.asarray(_checksums(item)) != np.asarray(restored.checksums[name]))
            if wrong.size:
                first = list(state_lib.named_leaves(item))[wrong[0]]
                raise _Corrupted(f"{wrong.size} arrays do not have their checksum, {name}/{first} first")
        return items, meta

    def _damage(self, step: int, error: Exception) -> Exception:
        """What an error while reading means: damage, unless the machine is at fault."""
        if _is_of_machine(error):
            return _unreadable(step, self.folder, error)
        return _Corrupted(_first_line(error))  # whatever else orbax makes of damaged files

    def _put_aside(self, step: int, error: Exception) -> None:
        aside = self.folder.parent / "corrupted"
        logging.error("checkpoint %d is damaged (%s): moved to %s; using the one before", step, error, aside)
        if jax.process_index() == 0:
            aside.mkdir(exist_ok=True)
            if remote.is_remote(aside):
                (aside / ".folder").write_bytes(b"")  # a store keeps no empty folder
            (self.folder / str(step)).rename(aside / f"{step}-{uuid.uuid4().hex[:8]}")
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"checkpoint {step} is put aside")
        self._manager.reload()

    def wait(self) -> None:
        """Block until everything is on disk."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, and end the manager's threads."""
        with self._writing():
            self._manager.close()


def _rank(validation: dict[str, float]) -> float:
    return metrics.headline(validation)[1]


def _items(state: state_lib.TrainState) -> dict[str, Any]:
    """A state as the items of a checkpoint."""
    items = {
        "network": {"params": state.params, "batch_stats": state.batch_stats},
        "training": {"step": state.step, "opt_state": state.opt_state, "lr_scale": state.lr_scale},
    }
    return items if state.ema is None else items | {"ema": state.ema}


@jax.jit
def _checksums(tree: Any) -> jax.Array:
    """The checksum of each leaf, uint32 [leaves], computed on the device: no host waits for it."""
    return jnp.stack([_checksum(leaf) for leaf in jax.tree.leaves(tree)])


@jax.jit  # so that leaves of one shape are traced and compiled once: a network has hundreds
def _checksum(leaf: jax.Array) -> jax.Array:
    """The sum of an array's 32-bit words, each times an odd number of its own, mod 2³²: uint32 [].

    Odd factors are invertible, so no single wrong word goes unnoticed.
    """
    words = jax.lax.bitcast_convert_type(leaf, jnp.uint32 if leaf.dtype.itemsize >= 4 else jnp.uint16)
    words = words.astype(jnp.uint32).reshape(-1)
    odd = 2 * jax.lax.iota(jnp.uint32, words.size) + 1
    return jnp.sum(words * odd, dtype=jnp.uint32)


def _sound(record: dict[str, Any]) -> dict[str, Any]:
    """The content of a checkpoint's record. Raises documents.Damaged if its checksum is wrong."""
    if record["crc32"] != documents.checksum(record["content"]):
        raise documents.Damaged("its meta data does not have the checksum that was saved with it")
    return record["content"]


def check_shapes(owner: str, found: Any, expected: Any) -> None:
    """Raise CheckpointError with every leaf that is missing, extra or of another shape."""
    found = {name: tuple(leaf.shape) for name, leaf in state_lib.named_leaves(found).items() if hasattr(leaf, "shape")}
    expected = {name: tuple(leaf.shape) for name, leaf in state_lib.named_leaves(expected).items()}
    problems = [f"missing  {name} {shape}" for name, shape in expected.items() if name not in found]
    problems += [f"extra    {name} {shape}" for name, shape in found.items() if name not in expected]
    problems += [
        f"shape    {name}: found {found[name]}, expected {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    if problems:
        raise CheckpointError(
            f"{owner} is of another network: {len(problems)} arrays do not match.\n"
            + listed(problems)
            + "\nUse the config that it was trained with, or another --workdir."
        )


def _check_types(owner: str, found: Any, expected: Any) -> None:
    """Raise CheckpointError for a leaf of another type: read as that, it would seem to be damaged."""
    types = {
        name: np.dtype(leaf.dtype) for name, leaf in state_lib.named_leaves(found).items() if hasattr(leaf, "dtype")
    }
    for name, leaf in state_lib.named_leaves(expected).items():
        if types.get(name, leaf.dtype) != leaf.dtype:
            off = types[name] == np.float64 and not jax.config.read("jax_enable_x64")
            way = "set JAX_ENABLE_X64=1" if off else "use the dtype that it was trained with"
            raise CheckpointError(f"{owner} holds {types[name]}, and {leaf.dtype} is expected, {name} first: {way}.")


def _is_of_machine(error: Exception) -> bool:
    """Whether an error while reading is no damage, but of rights, memory, or a disk or store that is out of reach."""
    if isinstance(error, OSError):
        return not isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError)
    if (number := _system_error(error)) is not None:
        return number not in (errno.ENOENT, errno.EISDIR, errno.ENOTDIR)
    return isinstance(error, MemoryError | jax.errors.JaxRuntimeError) or bool(_OUT_OF_REACH.search(str(error)))


def _unreadable(step: int, folder: Any, error: Exception) -> CheckpointError:
    return CheckpointError(f"cannot read checkpoint {step} in {folder}: {_first_line(error)}.")


def _system_error(error: Exception) -> int | None:
    """The errno that the message of an error of TensorStore names, if any."""
    found = re.search(r"os_error_code='(\d+)'", str(error))
    return int(found[1]) if found else None


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
