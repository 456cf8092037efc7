"""A run's network as an ONNX file: uint8 clips in, probabilities of the classes out.

The package jax2onnx writes it. It has no 3D convolution, so here each is a sum over the frames of its kernel: for each
of them one 2D convolution of all frames of the video at once.
"""

import functools
import json
import logging
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jax_video.errors import UserError
from jax_video.exporting import program
from jax_video.models.platforms import alone, instead
from jax_video.run import Run

MODEL = "model.onnx"
_OPSET = 18  # of 2023; the operators used here have not changed since


def write(run: Run, folder: pathlib.Path) -> None:
    """Write model.onnx into a folder; its metadata has, as JSON, the names of the `classes` and, in a multi-label run,
    the `thresholds`: the least probabilities at which classes hold.

    Raises:
      UserError: the run is a knowledge transfer, tests whole frames or does not compute in float32; or the converter
        is not installed.
    """
    function, shapes = program.function(run), program.shapes(run)
    if run.protocol.crop == "full":
        raise UserError(program.unknown_size(run))
    if run.config.dtype != "float32":
        raise UserError(f"ONNX is written in float32, and this run computes in {run.config.dtype}: --dtype=float32")
    onnx, to_onnx = _converter()
    arguments = [jax.ShapeDtypeStruct(shape, jnp.uint8) for shape in shapes.values()]
    with instead({"conv": alone(_conv), "max_pool": alone(_max_pool)}):
        model = to_onnx(
            function,
            arguments,
            model_name=run.config.model.name,
            opset=_OPSET,
            input_names=list(shapes),
            output_names=["probabilities"],
        )
    told = {"classes": list(run.classes)} | ({} if run.thresholds is None else {"thresholds": run.thresholds.tolist()})
    onnx.helper.set_model_props(model, {key: json.dumps(value, ensure_ascii=False) for key, value in told.items()})
    onnx.save(model, folder / MODEL)


def _converter() -> tuple[Any, Any]:
    """The package onnx, and the function of jax2onnx that turns a JAX function into an ONNX model."""
    for name in ("jax2onnx", "onnx_ir"):  # they log at length about packages that are not needed here
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        import onnx
        from jax2onnx import to_onnx
    except ImportError as error:
        raise UserError(
            f"ONNX files are written by jax2onnx, and {error.name} is not installed: pip install onnx onnx-ir && pip "
            "install --no-deps jax2onnx (without its dependencies: they are of older versions, and not needed here)"
        ) from error
    return onnx, to_onnx


def _conv(x, kernel, *, strides, padding, groups):
    """`[B, T, H, W, C]` and `[t, h, w, C / groups, N]` to `[B, T', H', W', N]`, a sum over the kernel's frames."""
    time, *place = strides
    x = jnp.pad(x, ((0, 0), padding[0], (0, 0), (0, 0), (0, 0)))
    frames = (x.shape[1] - len(kernel)) // time + 1
    images = [
        lax.conv_general_dilated(
            _slice(x, 1, tap, frames, time).reshape(-1, *x.shape[2:]),
            kernel[tap],
            place,
            padding[1:],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
        for tap in range(len(kernel))
    ]
    y = functools.reduce(jnp.add, images)
    return y.reshape(-1, frames, *y.shape[1:])


def _max_pool(x, *, window, strides, padding):
    """`[B, T, H, W, C]` to `[B, T', H', W', C]`, one axis after the other."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
    for axis, (taps, stride) in enumerate(zip(window, strides, strict=True), 1):
        count = (x.shape[axis] - taps) // stride + 1
        x = functools.reduce(jnp.maximum, (_slice(x, axis, tap, count, stride) for tap in range(taps)))
    return x


def _slice(x, axis, first, count, stride):
    return lax.slice_in_dim(x, first, first + (count - 1) * stride + 1, stride, axis)
