"""A run's metrics as it goes: metrics.jsonl, TensorBoard and the progress bar."""

import json
import os
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from jax_video import lock, metrics, pictures
from jax_video.data import documents, processes, remote
from jax_video.errors import UserError, listed

_ROW = {"step": int, "split": str}  # in each row, beside the metrics, which are numbers
_SPLITS = ("train", "val")
_SYNC_SECONDS = 30  # between syncs to the disk or a store, which allows one write of a file per second


class RunLog:
    """The rows of `metrics.jsonl` ({"step", "split", …}), which TensorBoard and the progress bar show too; pictures are
    for TensorBoard alone.

    Opened on a resumed run, it drops the rows after the restored step: the run will write them again. Without a
    terminal for the progress bar, each row is printed as a line. The time left is shown from the second step on, as the
    first one includes the compilation.

    Files in a store (gs://…) cannot be appended to: for a run there, the files are written into a temporary folder and
    copied by `sync`.
    """

    def __init__(
        self,
        workdir: remote.Path,
        *,
        step: int,
        validated: int,
        total: int,
        batch: int,
        held: int = 0,
        write: bool = True,
    ):
        """Open the log of a run that is at `step` of `total` and was last validated after step `validated`.

        `batch`: examples per step, for the rate. `held`: the last steps, of which there is no row yet. `write`: False
        on all processes but the first.
        """
        self._batch, self._total, self._write = batch, total, write
        self._since, self._steps = time.perf_counter(), 0  # time of the last row, and steps since
        self._begin, self._done = step, step
        self._first = self._since  # when the first step was done; until then, when it was begun
        self._batch_due = write  # whether the next batch is to be shown
        self._workdir, self._synced = workdir, time.monotonic()
        self._folder: Any = _temporary_folder() if write and remote.is_remote(workdir) else workdir
        self._copied: dict[pathlib.Path, tuple[int, int]] = {}  # {file: its size and time when it was copied}
        if write:
            ends = {"train": step - held, "val": validated}
            rows = read(workdir / "metrics.jsonl")
            kept = [json.dumps(row) + "\n" for row in rows if row["step"] <= ends[row["split"]]]
            if step > held and not kept:
                print(f"{workdir / 'metrics.jsonl'} begins anew: no row up to step {step} is there.", file=sys.stderr)
            path = self._folder / "metrics.jsonl"
            remote.write_whole(path, [row.encode() for row in kept])
            self._file = path.open("a")
            self._board = _Board(self.tensorboard, step + 1)
        self._bar: tqdm | None = None  # made when the first step is done

    @property
    def tensorboard(self) -> pathlib.Path:
        """TensorBoard's folder, on a local disk; files that are added there are kept with the run."""
        return self._folder / "tensorboard"

    def batch(
        self,
        step: int,
        rows: Mapping[str, Any],
        classes: tuple[str, ...],
        seen: Callable[[dict[str, Any]], Mapping[str, Any]] = dict,
    ) -> None:
        """Take the batch of a step before it is trained on. TensorBoard shows some clips of the first batch and of the
        first one after each validation, with the names of their classes if `classes` are given.

        Args:
          seen: the augmentation of a step, for the first rows of its batch.
        """
        if self._batch_due:
            self._batch_due = False
            first = {name: values[: pictures.CLIPS] for name, values in rows.items()}
            labels = first["label"]
            several = [np.flatnonzero(label > 0) for label in labels] if labels.ndim > 1 else labels[:, None]
            names = [", ".join(classes[label] for label in found) for found in several] if classes else []
            self._board.add_picture("train/batch", pictures.strip(seen(first), names), step)

    def confusion(self, step: int, classes: tuple[str, ...], matrix: np.ndarray) -> None:
        """Draw a validation's confusion matrix [K, K], for TensorBoard."""
        if self._write:
            self._board.add_picture("val/confusion", pictures.confusion(classes, matrix), step)

    def stepped(self) -> None:
        """Count a step that is done."""
        self._steps, self._done = self._steps + 1, self._done + 1
        if self._bar is None:
            begun, self._first = self._first, time.perf_counter()
            hidden = None if self._write else True
            self._bar = tqdm(initial=self._done, total=self._total, desc="train", unit="step", disable=hidden)
            if self._write:
                tqdm.write(f"The first step took {self._first - begun:.1f} s.", file=sys.stderr)
        else:
            self._bar.update()
            if self._done == self._begin + 2 and self._write and self._bar.disable:
                tqdm.write(f"{self._left()} left, by what the second took.", file=sys.stderr)

    def _left(self) -> str:
        """The time left, estimated from the steps after the first."""
        taken = (time.perf_counter() - self._first) / (self._done - self._begin - 1)
        return tqdm.format_interval(taken * (self._total - self._done))

    def row(self, step: int, split: str, **values: float) -> None:
        """Write one row; a row of the split "train" gets its `examples_per_second` since the last row, if there were
        steps since."""
        if split == "train" and self._steps:
            seconds = time.perf_counter() - self._since
            values["examples_per_second"] = round(self._steps * self._batch / max(seconds, 1e-9), 2)
        self._since, self._steps = time.perf_counter(), 0
        if self._write:
            if self._folder == self._workdir:
                lock.check(self._workdir)
            self._show(step, split, values)
            self._file.write(json.dumps({"step": step, "split": split, **values}) + "\n")
            self._file.flush()
            for name, value in values.items():
                self._board.add(f"{split}/{name}", value, step)
            self._batch_due |= split == "val"
            if time.monotonic() > self._synced + _SYNC_SECONDS:
                self.sync()

    def _show(self, step: int, split: str, values: dict[str, float]) -> None:
        name, accuracy = metrics.headline(values)
        shown = {"loss": f"{values['loss']:.3f}", metrics.HEADLINES[name]: f"{accuracy:.1%}"}
        if "examples_per_second" in values:
            shown["examples/s"] = f"{values['examples_per_second']:.1f}"
        if split == "train" and self._bar is not None and not self._bar.disable:
            return self._bar.set_postfix(shown)  # it shows the time left itself
        if split == "train" and self._done > self._begin + 1:
            shown["left"] = self._left()
        text = "  ".join(f"{name} {value}" for name, value in shown.items())
        tqdm.write(f"step {step}/{self._total}  {split:<5}  {text}", file=sys.stderr)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._write:
            try:
                self.sync()
            finally:
                self._file.close()
                self._board.close()
                if self._folder != self._workdir:
                    shutil.rmtree(self._folder)

    def sync(self) -> None:
        """Write all rows to the disk, or to the store of the run's folder, before it returns.

        Call it before a checkpoint is saved, so that no row that belongs to it can be missing.

        Raises lock.Lost if another process has taken the folder over.
        """
        if self._write:
            lock.check(self._workdir)
            os.fsync(self._file.fileno())
            self._board.flush()
            self._synced = time.monotonic()
        if self._write and self._folder != self._workdir:
            with remote.reaching(self._workdir):
                for path in filter(pathlib.Path.is_file, self._folder.rglob("*")):
                    about = path.stat()
                    version = about.st_size, about.st_mtime_ns
                    if self._copied.get(path) != version:  # traces are large: copy them once
                        (self._workdir / path.relative_to(self._folder)).write_bytes(path.read_bytes())
                        self._copied[path] = version


def _temporary_folder() -> pathlib.Path:
    """Make a temporary folder; remove those of runs that were killed."""
    processes.remove_leftovers(tempfile.gettempdir())
    return pathlib.Path(tempfile.mkdtemp(prefix=processes.mark()))


class _Board:
    """The file of events that TensorBoard shows.

    Not written by tensorboardX's SummaryWriter, which has a thread of its own: an error about a full disk would be lost
    there, and the run would wait for the thread for ever.

    tensorboardX imports PyTorch if it is installed, only for the type of an argument. That takes seconds, and fails if
    PyTorch is broken; so `import torch` fails meanwhile, as if it were not installed.
    """

    def __init__(self, folder: pathlib.Path, first_step: int):
        """Begin a file; older events of `first_step` and later steps are hidden."""
        modules: dict[str, Any] = sys.modules
        hidden = modules.setdefault("torch", None) is None
        try:
            from tensorboardX import event_file_writer, summary
            from tensorboardX.proto import event_pb2
        finally:
            if hidden:
                del modules["torch"]
        self._event, self._scalar, self._summary = event_pb2.Event, summary.scalar, summary.Summary
        folder.mkdir(exist_ok=True)
        self._file = event_file_writer.EventsWriter(str(folder / "events"))
        self._write(first_step, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

    def add(self, name: str, value: float, step: int) -> None:
        self._write(step, summary=self._scalar(name, value))

    def add_picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Add a picture, `pixels`: uint8 [H, W, 3]."""
        _, png = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
        high, wide, _ = pixels.shape
        picture = {"height": high, "width": wide, "colorspace": 3, "encoded_image_string": png.tobytes()}
        self._write(step, summary=self._summary(value=[{"tag": name, "image": picture}]))

    def _write(self, step: int, **content: Any) -> None:
        self._file.write_event(self._event(step=step, wall_time=time.time(), **content))

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read(path: remote.Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, without a last one that is unfinished because the run was killed.

    Other lines that are no rows, such as after a power loss, are left out and named on stderr.

    Raises:
      UserError: the file cannot be read.
    """
    try:
        found = documents.read_lines(path, _ROW)
    except FileNotFoundError:
        return []
    except documents.Damaged as error:
        raise UserError(f"{path}: {error}. Move it away, and the run goes on with a new one.") from error
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    wrong = []
    for number, row in found:
        if isinstance(row, documents.Damaged):
            wrong += [f"line {number}: {row}"] if str(row) != documents.UNFINISHED else []
        elif (
            row["split"] not in _SPLITS
            or row["step"] < 0
            or not all(isinstance(row[key], int | float) for key in row.keys() - _ROW)
        ):
            wrong.append(f"line {number}: not a row of metrics")
        elif rows.setdefault((row["step"], row["split"]), row) is not row:
            wrong.append(f"line {number}: there is a row of step {row['step']} and split {row['split']} before")
    if wrong:
        print(f"{path}: {len(wrong)} of its lines are damaged and left out:\n{listed(wrong, 3)}", file=sys.stderr)
    return list(rows.values())
