"""Two streams, ST-ResNet and ST-ResNet* (Feichtenhofer et al. 2016), on the 2D ResNet."""

import functools

from flax import nnx

from jax_video.errors import UserError
from jax_video.models.convolution import avg_pool, max_pool
from jax_video.models.layers import check_choice, output, rematerialised, sequence
from jax_video.models.resnet2d import BOTTLENECK_LAYERS, Bottleneck, ResNet2D
from jax_video.networks import CHANNELS, STAGES


class Stream(ResNet2D):
    """One stream, with class scores for every frame and every place of its 7×7 average pool.

    Args (and those of `ResNet2D`):
      temporal: gives the first and the last convolution of every stage's second unit three taps in time (§3.2).
      temporal_pool: ST-ResNet*'s max pool over 5 frames with stride 2: "after" the spatial pool (the paper), "before"
        it (the authors' code), or "none".
    """

    depths = BOTTLENECK_LAYERS  # every unit is a bottleneck

    def __init__(self, depth, *, temporal=False, temporal_pool="none", **resnet):
        check_choice("temporal_pool", temporal_pool, ("none", "after", "before"))
        self.temporal_pool = temporal_pool
        self.smallest = (1 if temporal_pool == "none" else 5, 5, 5)

        def unit(number, index):
            del number
            return functools.partial(Bottleneck, taps=(3, 1, 3)) if temporal and index == 1 else Bottleneck

        super().__init__(depth, unit=unit, **resnet)

    def head(self, x):
        """Class scores `[B, T', h, w, K]` of the last stage's output `[B, T, H, W, D]`; small maps are pooled whole."""
        x = x.astype(self.fc.dtype)
        if self.temporal_pool == "before":
            x = pool_over_time(x)
        x = avg_pool(x, (1, min(7, x.shape[2]), min(7, x.shape[3])), strides=(1, 1, 1))
        if self.temporal_pool == "after":
            x = pool_over_time(x)
        return self.fc(x)

    def __call__(self, video, *, keys=None):
        """Class scores `[B, T', h, w, K]` of normalised video `[B, T, H, W, channels]`, without dropout."""
        del keys
        return self.head(self.features(video))


def pool_over_time(x):
    return max_pool(x, (5, 1, 1), strides=(2, 1, 1), padding=((0, 0),) * 3)


class TwoStreams(nnx.Module):
    """Appearance and motion stream, side by side or as ST-ResNet.

    Args (and those of `Stream`):
      connections: ST-ResNet's motion residuals: at every stage's second unit, the input of the motion unit is added to
        the input of the appearance unit's residual branch (§3.1, equation 3). Gradients flow into both streams.
      flow_channels: of the motion stream's input.
    """

    def __init__(
        self,
        depth,
        *,
        connections=True,
        temporal=True,
        flow_channels=CHANNELS["flow"],
        layers=None,
        remat=False,
        **stream,
    ):
        if layers is not None and max(layers) < 2 and (connections or temporal):
            raise UserError(
                f"layers={tuple(layers)} has no second unit in any stage, where connections and temporal convolutions "
                "are; expected at least one number above 1, or connections=False and temporal=False."
            )
        stream |= {"temporal": temporal, "layers": layers, "remat": remat}
        self.appearance = Stream(depth, **stream)
        self.motion = Stream(depth, channels=flow_channels, **stream)
        self.connections, self.remat = connections, remat

    def features(self, rgb, flow):
        """The last stages' outputs: `[B, T, H, W, 3]` and `[B, T, H, W, 20]` to a pair of `[B, T, H', W', D]`."""
        if rgb.shape[:4] != flow.shape[:4]:
            raise UserError(
                f"got RGB of shape {rgb.shape} and flow of shape {flow.shape}; expected the same batch, frames, height "
                "and width of both: ten fields of flow for every RGB frame, cropped alike."
            )
        a, m = output("pool", (self.appearance.stem(rgb)["pool"], self.motion.stem(flow)["pool"]))
        step = connected_stage if self.connections else separate_stage
        for name in STAGES:
            units = (getattr(self.appearance, name), getattr(self.motion, name))
            a, m = output(name, rematerialised(step, units, a, m) if self.remat else step(units, a, m))
        return a, m

    def __call__(self, rgb, flow, *, keys=None):
        """A pair of class scores `[B, T', h, w, K]`, of appearance and of motion, for normalised RGB and flow."""
        del keys
        a, m = self.features(rgb, flow)
        return self.appearance.head(a), self.motion.head(m)


def separate_stage(units, a, m):
    """One stage of both streams, `[B, T, H, W, C]` each; `units` are appearance's and motion's."""
    appearance_units, motion_units = units
    return sequence(appearance_units, a), sequence(motion_units, m)


def connected_stage(units, a, m):
    """The same with a motion residual at the second unit: x̂ᵃ = f(xᵃ) + F(xᵃ + f(xᵐ)), where f is the ReLU."""
    appearance_units, motion_units = units
    total = appearance_units[0].total(a)  # xᵃ
    m = motion_units[0](m)  # f(xᵐ)
    if len(appearance_units) > 1:
        total, m = nnx.relu(total) + appearance_units[1].residual(total + m), motion_units[1](m)
    return sequence(appearance_units[2:], nnx.relu(total)), sequence(motion_units[2:], m)
