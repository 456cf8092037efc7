"""What a run says of itself: metrics.jsonl, TensorBoard and the progress bar."""

import json
import pathlib
import shutil
import sys
import tempfile
import time

from tqdm import tqdm

from jax_video import lock, metrics
from jax_video.data import remote

# tensorboardX imports PyTorch where it is installed, for the type of an argument: seconds, and a broken one's errors.
_hidden = sys.modules.setdefault("torch", None) is None  # `import torch` fails as where it is not installed
try:
    import tensorboardX
finally:
    if _hidden:
        del sys.modules["torch"]

_SYNC_SECONDS = 30  # between copies into a store, which allows one a second of a file


class RunLog:
    """The rows of `metrics.jsonl` ({"step", "split", …}), which TensorBoard and the progress bar show too.

    Opened on a resumed run it drops the rows after the restored step, which the run will write again. Where there is
    no terminal for a bar, the rows are printed, one a line.

    Nothing can be appended to a file in a store (gs://…): there the files are written beside it and copied by `sync`.
    """

    def __init__(self, workdir: remote.Path, *, step: int, validated: int, total: int, batch: int, write: bool = True):
        """Opens the log of a run that is at `step` of `total` and was last validated after step `validated`.

        `batch`: examples per step, for the rate. `write`: False on all processes but the first.
        """
        self._batch, self._total, self._write = batch, total, write
        self._since, self._steps = time.perf_counter(), 0
        if write:
            ends = {"train": step, "val": validated}
            rows = read(workdir / "metrics.jsonl")
            kept = [json.dumps(row) + "\n" for row in rows if row["step"] <= ends[row["split"]]]
            self._workdir, self._synced = workdir, time.monotonic()
            self._folder = pathlib.Path(tempfile.mkdtemp()) if remote.is_remote(workdir) else workdir
            path = self._folder / "metrics.jsonl"
            temporary = path.with_suffix(".tmp")
            temporary.write_text("".join(kept))
            temporary.replace(path)
            self._file = path.open("a")
            self._board = tensorboardX.SummaryWriter(str(self._folder / "tensorboard"), purge_step=step + 1)
        self._bar = tqdm(initial=step, total=total, desc="train", unit="step", disable=None if write else True)

    def stepped(self) -> None:
        """Counts a step that is done."""
        self._bar.update()
        self._steps += 1

    def row(self, step: int, split: str, **values: float) -> None:
        """Writes one row; a row of the split "train" gets its `examples_per_second` since the last row."""
        if split == "train":
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
                self._board.add_scalar(f"{split}/{name}", value, step)
            if time.monotonic() > self._synced + _SYNC_SECONDS:
                self.sync()

    def _show(self, step: int, split: str, values: dict[str, float]) -> None:
        name, accuracy = metrics.headline(values)
        shown = {"loss": f"{values['loss']:.3f}", {"top1": "top-1"}.get(name, name): f"{accuracy:.1%}"}
        if split == "train":
            shown["examples/s"] = f"{values['examples_per_second']:.1f}"
        if split == "train" and not self._bar.disable:
            self._bar.set_postfix(shown)
        else:
            text = "  ".join(f"{name} {value}" for name, value in shown.items())
            tqdm.write(f"step {step}/{self._total}  {split:<5}  {text}", file=sys.stderr)

    def close(self) -> None:
        self._bar.close()
        if self._write:
            self._file.close()
            self._board.close()
            try:
                self.sync()
            finally:
                if self._folder != self._workdir:
                    shutil.rmtree(self._folder)

    def sync(self) -> None:
        """Brings all rows to where they will survive this machine: before a checkpoint, whose run has written them.

        Raises lock.Lost where another run has taken the folder over.
        """
        if self._write:
            lock.check(self._workdir)
        if self._write and self._folder != self._workdir:
            self._board.flush()
            with remote.reaching(self._workdir):
                for path in filter(pathlib.Path.is_file, self._folder.rglob("*")):
                    (self._workdir / path.relative_to(self._folder)).write_bytes(path.read_bytes())
            self._synced = time.monotonic()


def read(path: remote.Path) -> list[dict]:
    """The rows of a metrics.jsonl, without a last one that a kill left unfinished."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]
