"""Whether a network with imported weights computes what it computed at its source: `convert --check`."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from jax_video import networks
from jax_video import state as state_lib
from jax_video.errors import UserError
from jax_video.weights import files
from jax_video.weights.settings import normalization_text

TOLERANCE = 1e-4  # of the logits, relative to the largest


def compare(config: ConfigDict, num_classes: int, state: state_lib.TrainState, path: str | pathlib.Path) -> list[str]:
    """Run the network on a video in an .npz file and compare its logits with those in the file.

    The file holds
      - `logits` [B, K], or with further axes, as I3D's for time, over which the mean is taken;
      - `video`, raw RGB in uint8, or `input`, the same normalised, or both: [B, 3, T, H, W] as PyTorch has it ([B, 3,
        H, W] for a 2D network), or [B, T, H, W, 3]. With `video`, normalisation is compared as well.

    Returns:
      Lines that say what was compared: in float32, and in the run's own type where that is another.

    Raises:
      UserError: it is not such a file, or the normalised videos or the logits differ by more than `TOLERANCE` of the
        largest.
    """
    arrays = files.read(path)
    if "logits" not in arrays or not {"input", "video"} & set(arrays):
        raise UserError(f"{path}: expected the arrays logits and video or input; it has {', '.join(sorted(arrays))}")
    if networks.find(config.model.name).streams != ("rgb",):
        raise UserError(f"--check is for networks of RGB; {config.model.name} sees optical flow")
    expected = arrays["logits"].astype(np.float64)
    expected = expected.mean(axis=tuple(range(2, expected.ndim)))
    video = _channels_last(path, "input", arrays["input"].astype(np.float32)) if "input" in arrays else None
    if "video" in arrays:
        if arrays["video"].dtype != np.uint8:
            raise UserError(f"{path}: expected video in uint8, raw RGB; its values are {arrays['video'].dtype}")
        raw = _channels_last(path, "video", arrays["video"])
        ours = np.asarray(state_lib.normalize(jnp.asarray(raw), state_lib.Normalization.of(config.normalize)))
        if video is not None:
            _compare_inputs(path, config, raw, ours, video)
        video = ours
    error = _logit_error(config, "float32", num_classes, state, video, expected, path, precision="highest")
    if not error <= TOLERANCE:
        doubt = (
            f"Has it seen {normalization_text(config.normalize)}, and was the network in test mode (eval())?"
            if "video" in arrays
            else "Was the input normalised, and the network in test mode (eval())?"
        )
        raise UserError(
            f"{path}: the logits differ by {error:.1e} of the largest, more than {TOLERANCE:.0e}: this network "
            f"computes something else with these weights. {doubt} Weights of a scale that no training gives can differ "
            "so much by rounding alone."
        )
    lines = [f"the largest difference from the logits in {path} is {error:.1e} of the largest logit"]
    if "video" not in arrays:
        lines.append("normalisation is not compared: for that, put raw RGB there too, as `video` in uint8")
    if config.dtype != "float32" or jax.default_backend() != "cpu":
        error = _logit_error(config, config.dtype, num_classes, state, video, expected, path)
        lines.append(f"as the run computes, in {config.dtype} on a {jax.default_backend().upper()}, it is {error:.1e}")
    return lines


@functools.partial(jax.jit, static_argnums=0)
def forward(definition: nnx.GraphDef, params: dict, batch_stats: dict, video: jax.Array) -> jax.Array:
    """Logits in test mode. Weights are arguments: constants would be compiled, and copied, with the rest."""
    return state_lib.join(definition, params, batch_stats, train=False)(video)


def _logit_error(config, dtype, num_classes, state, video, expected, path, *, precision=None) -> float:
    """The largest difference from the expected logits [B, K], relative to the largest of them."""
    config = config.copy_and_resolve_references()
    config.dtype = dtype
    definition, _, _ = state_lib.abstract(config, num_classes)
    with jax.default_matmul_precision(precision):  # by default TPUs and some GPUs multiply float32 with less precision
        outputs = forward(definition, state.params, state.batch_stats, jnp.asarray(video))
    logits = np.asarray(outputs, np.float64)
    logits = logits.reshape(logits.shape[0], -1, logits.shape[-1]).mean(axis=1)  # a stream has logits for every frame
    if logits.shape != expected.shape or not expected.size:
        raise UserError(f"{path}: has logits of shape {expected.shape}; ours, for its input, are of {logits.shape}")
    return _difference(logits, expected)


def _channels_last(path: str | pathlib.Path, name: str, video: np.ndarray) -> np.ndarray:
    """A video [B, 3, T, H, W] or [B, T, H, W, 3] as the latter; images, without T, become videos of one frame."""
    if video.ndim in (4, 5) and video.shape[-1] != 3 and video.shape[1] == 3:
        video = np.moveaxis(video, 1, -1)
    if video.ndim == 4:
        video = video[:, None]
    if video.ndim < 5 or video.shape[-1] != 3:
        raise UserError(f"{path}: {name} is of shape {video.shape}; expected [B, 3, T, H, W] or [B, T, H, W, 3]")
    return video


def _compare_inputs(path, config: ConfigDict, raw: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Raise UserError, with what PyTorch has seen, unless that is raw RGB normalised as the config says."""
    if ours.shape != theirs.shape:
        raise UserError(f"{path}: video is of shape {ours.shape} and input of {theirs.shape}, channels last")
    error = _difference(ours, theirs)
    if error <= TOLERANCE:
        return
    advice = "No mean and std leads from one to the other: are they of the same video?"
    for order, channels in ((", and the order of channels BGR, which no run has", raw[..., ::-1]), ("", raw)):
        if (found := _find_normalization(channels, theirs)) is not None:
            values = (tuple(round(float(value), 4) for value in values) for values in found)
            mean, std = map(str, values)
            advice = f"It has '--config.normalize.mean={mean}' '--config.normalize.std={std}'{order}."
    raise UserError(
        f"{path}: input is not video as this run normalises it, by {normalization_text(config.normalize)}: the largest "
        f"difference is {error:.1e} of the largest value. {advice}"
    )


def _find_normalization(raw: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """(mean [3], std [3]) that turn raw RGB into theirs, by a linear fit of each channel; None where none do."""
    x, y = (video.reshape(-1, 3).astype(np.float64) for video in (raw, theirs))
    center, height = x.mean(axis=0), y.mean(axis=0)
    slope = ((x - center) * (y - height)).sum(axis=0) / np.maximum(((x - center) ** 2).sum(axis=0), 1e-9)
    if not slope.all():
        return None  # a channel of one value
    mean, std = center - height / slope, 1 / slope
    return (mean, std) if _difference((x - mean) / std, y) <= TOLERANCE else None


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest expected value."""
    return np.abs(found - expected).max() / max(np.abs(expected).max(), np.finfo(np.float32).tiny)
