"""A run's network and weights as a program of its own: uint8 clips in, probabilities of the classes out."""

import contextlib
import hashlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from jax_video import __version__, objectives
from jax_video.data import samples
from jax_video.errors import UserError
from jax_video.exporting import classify
from jax_video.models import convolution
from jax_video.run import Run

PROGRAM, CARD, READER = "model.stablehlo", "model.json", "classify.py"
PLATFORMS = ("cpu", "cuda", "tpu")


def write(run: Run, folder: pathlib.Path) -> None:
    """Write a run's program into a folder, and a script that classifies videos with it and with its `card`.

    Raises:
      UserError: see `serialized`.
    """
    (folder / PROGRAM).write_bytes(serialized(run))
    (folder / READER).write_bytes(pathlib.Path(classify.__file__).read_bytes())


def serialized(run: Run) -> bytes:
    """The program as `jax.export.deserialize` reads it, for CPU, NVIDIA GPU and TPU, and for any number of clips.

    Raises:
      UserError: the run is a knowledge transfer, its network does not take frames of any size, or a package is missing.
    """
    dimensions = dict(zip(symbols(run), export.symbolic_shape(", ".join(symbols(run))), strict=True))
    sizes = [[dimensions.get(size, size) for size in shape] for shape in shapes(run).values()]
    arguments = [jax.ShapeDtypeStruct(shape, jnp.uint8) for shape in sizes]
    # Our own convolutions and pools need to know the height and width of frames; XLA's do not.
    with convolution.plain() if run.protocol.crop == "full" else contextlib.nullcontext():
        try:
            exported = export.export(jax.jit(function(run)), platforms=PLATFORMS)(*arguments)
        except Exception as error:
            if type(error).__name__ != "InconclusiveDimensionOperation":  # which JAX has had in several modules
                raise
            raise UserError(unknown_size(run)) from error
    try:
        return bytes(exported.serialize())
    except ImportError as error:
        raise UserError("a program is written by the package flatbuffers: pip install flatbuffers") from error


def function(run: Run) -> Callable[..., jax.Array]:
    """The function that the program computes: the clips of a test, an array for each stream, to probabilities [b, K].

    Raises:
      UserError: the run is a knowledge transfer.
    """
    objective = run.objective
    if not isinstance(objective, objectives.Classification):
        raise UserError(
            f"{run.folder} is a run of knowledge transfer, which knows no classes: there is nothing to classify with. "
            "Fine-tune it on labels first, or share its weights: --format=safetensors"
        )
    weights = jax.tree.map(np.asarray, run.weights)

    def probabilities(*streams: jax.Array) -> jax.Array:
        batch = dict(zip(run.sampling.streams, streams, strict=True))
        scores = objective.test(run.definition, weights["params"], weights["batch_stats"], batch)
        return scores if objective.average == "probability" else objective.probabilities(scores)

    return probabilities


def shapes(run: Run) -> dict[str, tuple[Any, ...]]:
    """The shape of each stream of uint8 clips, in the program's order; strings are sizes that may vary."""
    sampling, protocol = run.sampling, run.protocol
    frames = protocol.number if protocol.clips == "spread" else sampling.frames
    side = sampling.short_side if protocol.crop == "three" else sampling.size
    clip = ("b", *([sampling.segments] if sampling.segments else []), frames, *(symbols(run)[1:] or (side, side)))
    return {stream: (*clip, samples.CHANNELS[stream]) for stream in sampling.streams}


def symbols(run: Run) -> tuple[str, ...]:
    """The sizes that may vary: the batch and, of whole frames, both sides: the short side plus a multiple of 32."""
    if run.protocol.crop != "full":
        return ("b",)
    least = run.sampling.short_side - samples.ROUNDED
    return ("b", *(f"{samples.ROUNDED}*{name}{least:+}" for name in "hw"))  # h and w count from 1


def unknown_size(run: Run) -> str:
    """The message for a network that cannot be exported for frames of any height and width."""
    return (
        f"the test of {run.folder} looks at whole frames (test.crop=full), and of {run.config.model.name} no program "
        f"can be made for frames of any size with a short side of {run.sampling.short_side}. Make one for the square "
        "in their middle: --crop=center. Or leave the program out: --format=safetensors"
    )


def card(run: Run, files: Sequence[pathlib.Path]) -> dict[str, Any]:
    """What model.json says, for using these files: the classes, how clips are cut, how the mean over them is taken."""
    sampling, protocol = run.sampling, run.protocol
    objective: Any = run.objective
    return {
        "files": {path.name: {"bytes": path.stat().st_size, "sha256": _checksum(path)} for path in files},
        "network": run.config.model.name,
        "step": run.step,
        "classes": list(run.classes),
        "streams": list(sampling.streams),
        "inputs": {
            stream: {"shape": list(shape), "type": "uint8", "values": _VALUES[stream]}
            for stream, shape in shapes(run).items()
        },
        "where": "b, h and w are whole numbers from 1",
        "output": {"shape": ["b", len(run.classes)], "type": "float32", "values": "probabilities"},
        "short_side": sampling.short_side,
        "size": sampling.size,
        "frames": sampling.frames,
        "stride": sampling.stride,
        "fps": sampling.fps,
        "reflect": sampling.reflect,
        "segments": sampling.segments,
        "clips": protocol.clips,
        "number": protocol.number,
        "crop": protocol.crop,
        "flip": protocol.flip is not False,
        "average": objective.average,
        **({} if run.thresholds is None else {"thresholds": run.thresholds.tolist()}),
        "activations": run.config.dtype,
        "platforms": list(PLATFORMS),
        "jax": {
            "version": jax.__version__,
            "calling_convention": jax.config.jax_export_calling_convention_version,  # type: ignore[attr-defined]
            "read_by": "this version of JAX, and those that come out within six months after it",
        },
        "jax_video": __version__,
    }


def _checksum(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_VALUES = {
    "rgb": "RGB, 0 to 255; it is normalised inside",
    "flow": "x and y of the ten fields of optical flow about each frame, 128 + 127 / 20 of a pixel per frame",
}
