"""The export of a run: all files are written into a hidden folder within its own, and moved when they are complete."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import uuid
from collections.abc import Callable, Sequence

from jax_video import published
from jax_video.data import documents, remote
from jax_video.errors import UserError
from jax_video.exporting import card, onnx, program
from jax_video.run import Run

FORMATS: dict[str, tuple[str, ...]] = {  # format: its files
    "stablehlo": (program.PROGRAM, program.CARD, program.READER),
    "onnx": (onnx.MODEL, program.CARD),
    "safetensors": (published.WEIGHTS, published.CONFIG, card.NAME),
}
USUAL = ("stablehlo", "safetensors")


def check(out: str | os.PathLike, formats: Sequence[str]) -> None:
    """Raise UserError where there is no such format, or the folder cannot take its files."""
    if not formats or not set(formats) <= set(FORMATS):
        raise UserError(f"--format={','.join(formats)}: expected one, or several with commas, of {', '.join(FORMATS)}")
    if remote.is_remote(out):
        raise UserError(f"{out}: export writes to local folders. Write it to one, and copy that.")
    if not os.fspath(out):
        raise UserError("out is empty: expected the name of a folder")
    folder = pathlib.Path(out)
    if (folder / "checkpoints").exists():
        raise UserError(f"{out} is a run's folder, which has files of the same names: choose another --out")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{out} is a file: choose another --out")
    if there := [name for each in formats for name in FORMATS[each] if (folder / name).exists()]:
        raise UserError(f"{out} already holds {', '.join(there)}: choose another --out, or remove them first")


def write(
    run: Run,
    out: str | os.PathLike,
    formats: Sequence[str] = USUAL,
    *,
    license: str | None = None,
    crop: str | None = None,
) -> list[pathlib.Path]:
    """Write a run's network in these formats into a folder, which is created; return the files.

    Args:
      formats: keys of FORMATS.
      license: of the weights, for the model card: an identifier of the Hugging Face Hub, such as apache-2.0.
      crop: what the network sees of a frame, one of samples.TEST_CROPS; None: the same as the run's test.

    Raises:
      UserError: see `check`, `program.write`, `onnx.write` and `card.text`.
    """
    check(out, formats)
    config = run.config.copy_and_resolve_references()
    config.test.crop = crop or config.test.crop
    # All files compute the same, of a run that was loaded with other clips or another dtype, too.
    sections = config.to_dict()
    asked = run.meta.config | {key: sections[key] for key in ("clip", "test", "dtype")}
    if asked != run.meta.config:
        meta = dataclasses.replace(run.meta, config=asked)
        run = Run(run.folder, config, meta, run.step, run.definition, run.weights, run.mesh)
    folder = pathlib.Path(out).absolute()
    names = list(dict.fromkeys(name for each in formats for name in FORMATS[each]))
    is_new = not folder.exists()
    part = folder / f".{uuid.uuid4().hex[:8]}.part"  # within it, as it may be a disk of its own
    part.mkdir(parents=True)
    try:
        if "safetensors" in formats:  # first, as it fails early
            (part / card.NAME).write_bytes(card.text(run, names, license=license).encode(errors="backslashreplace"))
            published.write(part, run.meta, run.step, run.weights, card.result(run))
        writers: dict[str, Callable] = {"stablehlo": program.write, "onnx": onnx.write}
        for each in formats:
            if each in writers:
                writers[each](run, part)
        if models := [part / name for name in (program.PROGRAM, onnx.MODEL) if name in names]:
            documents.write(part / program.CARD, program.card(run, models), indent=1, seal=False)
        for name in names:
            remote.put_in_place(part / name, folder / name)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):  # it is not empty, as all went well
                folder.rmdir()
    return [pathlib.Path(out) / name for name in names]
