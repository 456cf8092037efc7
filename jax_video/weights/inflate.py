"""From 2D to 3D: kernels get a temporal extent, or other input channels.

Mean and centre make a network whose output on a video of one repeated frame is the 2D network's (Carreira and Zisserman
2017, §2.1), away from the temporal border where a convolution's padding is seen.
"""

import numpy as np

from jax_video.networks import CHANNELS

METHODS = ("mean", "centre")


def inflate(kernel: np.ndarray, shape: tuple[int, ...], method: str, *, views: bool = False) -> np.ndarray | None:
    """A kernel `[t₀, h, w, I₀, O]` as one of `shape` `[t, h, w, I, O]`; None where no rule gives that shape.

    Args:
      method: how one tap in time becomes t. "mean": each is the kernel divided by t. On the 1×1×1 convolutions of
        ST-ResNet this is its replicate-and-divide. "centre": the tap that sees the frame itself is the kernel, the
        others are zero.
      views: the first axis is CoST's views, not time: each gets the kernel as it is.

    The first layer of a motion stream, where I₀ = 3 and I = 20, gets the kernel's mean over RGB in all its channels.
    """
    if kernel.ndim != 5 or len(shape) != 5:
        return None
    if kernel.shape[3] == 3 and shape[3] == CHANNELS["flow"]:
        kernel = np.repeat(kernel.mean(axis=3, keepdims=True), CHANNELS["flow"], axis=3)
    if kernel.shape[0] == 1 < shape[0]:
        taps = shape[0]
        if views:
            kernel = np.repeat(kernel, taps, axis=0)
        elif method == "mean":
            kernel = np.repeat(kernel / np.asarray(taps, kernel.dtype), taps, axis=0)
        else:
            before = (taps - 1) // 2  # taps that see earlier frames, as `layers.padded_conv` pads
            kernel = np.pad(kernel, ((before, taps - 1 - before), (0, 0), (0, 0), (0, 0), (0, 0)))
    return kernel if kernel.shape == tuple(shape) else None
