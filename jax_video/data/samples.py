"""The clips that are cut out of a video, for training and for a test, and their frames, cropped and mirrored."""

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from jax_video.data import clips, reader, transforms
from jax_video.data.decoding import flow
from jax_video.data.manifest import Manifest, Video
from jax_video.errors import UserError, VideoError, shown

_SAY_IT = "say how many frames there are to a second, fps=25 or --fps=25"
CHANNELS = {"rgb": 3, "flow": flow.CHANNELS}  # of each stream


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a clip is cut out of a video, in training and in test. Raises UserError for impossible values."""

    frames: int  # of a clip
    stride: int  # from one of its frames to the next, in stored frames or, with `fps`, in frames at that rate
    short_side: int  # of the resized frames, in pixels
    size: int  # of the square crop, in pixels
    crop: str = "corners"  # where training crops, one of transforms.CROPS; "scales" and "sizes" are resized to `size`
    flip: bool | None = None  # whether training flips half of the clips; None: if the manifest allows it
    jitter: tuple[int, ...] = ()  # (least, most): training draws the short side from this range (CoST §4.1)
    segments: int = 0  # clips of a video that the network sees together, one from each of as many parts; 0: one clip
    streams: tuple[str, ...] = ("rgb",)  # what a batch holds: RGB, "flow" or both
    strides: tuple[int, ...] = ()  # (least, most): training draws the stride from this range (ST-ResNet §4)
    flow_method: str = "tvl1"  # one of flow.METHODS, for flow that is not stored with the manifest
    # Frames per second to which the video is resampled before clips are cut (clips.Frames); None: as stored. Flow leads
    # from each stored frame to the next one, whatever `fps` is.
    fps: float | None = None

    def __post_init__(self):
        if min(self.frames, self.stride, self.size) < 1 or self.size > self.short_side:
            raise UserError(
                f"clip: {self.frames} frames, stride {self.stride}, a crop of {self.size} from a short side of "
                f"{self.short_side}: expected at least 1 each, and a crop that fits into the short side."
            )
        if self.jitter and (len(self.jitter) != 2 or not self.size <= self.jitter[0] <= self.jitter[1]):
            raise UserError(
                f"clip.jitter is {tuple(self.jitter)}: expected the least and the most of the short side, no less than "
                f"the crop of {self.size}, or () to leave it at {self.short_side}."
            )
        if self.segments < 0:
            raise UserError(f"clip.segments is {self.segments}: expected a number of clips, or 0 for single ones.")
        if self.crop not in transforms.CROPS:
            raise UserError(f"clip.crop is {self.crop!r}: choose {', '.join(transforms.CROPS)}.")
        if tuple(self.streams) not in (("rgb",), ("flow",), ("rgb", "flow")):
            raise UserError(f"clip.streams is {tuple(self.streams)}: choose ('rgb',), ('flow',) or ('rgb', 'flow').")
        if self.strides and (len(self.strides) != 2 or not 1 <= self.strides[0] <= self.strides[1]):
            raise UserError(
                f"clip.strides is {tuple(self.strides)}: expected the least and the most of the stride, from 1, or () "
                f"to leave it at {self.stride}."
            )
        if self.flow_method not in flow.METHODS:
            raise UserError(f"clip.flow_method is {self.flow_method!r}: choose {', '.join(flow.METHODS)}.")
        if self.fps is not None and not (type(self.fps) in (int, float) and clips.is_rate(self.fps)):
            raise UserError(
                f"clip.fps is {self.fps!r}: expected frames per second, from {clips.SLOWEST:g} to {clips.FASTEST:g}, "
                "or None for those that are stored."
            )
        if "flow" in self.streams and (self.jitter or self.short_side < flow.LEAST_SIDE):
            raise UserError(
                f"clip.jitter is {tuple(self.jitter)} and clip.short_side {self.short_side}: flow is computed at one "
                f"short side of at least {flow.LEAST_SIDE}; set clip.jitter=() and vary clip.crop."
            )

    @property
    def span(self) -> int:
        """Frames from a clip's first to its last, both included: stored frames or, with `fps`, frames at that rate."""
        return (self.frames - 1) * self.stride + 1

    def frames_of(self, frames: int, rate: float, *, first: int = 0) -> clips.Frames:
        """The frames that clips are cut from, of a video's `frames` stored frames from `first` on.

        `rate`: the video's frames per second; not needed for a single frame.

        Raises:
          UserError: `fps` is set, and the video's rate is not known.
        """
        if self.fps is None or frames == 1:
            return clips.Frames(first, frames)
        return clips.Frames(first, frames, self.step(rate))

    def step(self, rate: float) -> Fraction:
        """The step between frames at `fps`, in stored frames of a video of this rate. Raises as `frames_of`."""
        if self.fps is not None and not clips.is_rate(rate):
            found = f"{rate:g} frames per second cannot be" if rate else "its frame rate is not known"
            raise UserError(f"{found}, and clips have {self.fps:g}: {_SAY_IT}")
        return clips.step(rate, self.fps)

    @property
    def reflect(self) -> bool:
        """Whether a short video is seen at a smaller stride, then forth and back (ST-ResNet §4), instead of looped."""
        return bool(self.strides) or "flow" in self.streams


TEST_CROPS = {"center": ("center",), "three": ("first", "center", "last"), "full": ("full",)}
ROUNDED = 32  # pixels: long sides of "full" frames differ by multiples of this, so that few shapes are compiled


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Which clips and crops of a video a test sees. Raises UserError for an unknown crop."""

    clips: str  # "nonoverlap", "uniform", "spread" or, with segments, "segments" (clips.test_clips, segment_clips)
    number: int = 1  # of "uniform" clips, or of the frames of the "spread" clip
    crop: str = "center"  # or "three": squares of the short side that cover the frame; or "full": whole frames
    flip: bool | None = False  # whether each crop is also seen mirrored; None: if the manifest allows it

    def __post_init__(self):
        if self.crop not in TEST_CROPS:
            raise UserError(f"test.crop is {self.crop!r}: choose {', '.join(TEST_CROPS)}.")


class CroppedClip(NamedTuple):
    """A clip of a video in one crop, mirrored or not: one sample of a test."""

    video: int  # index in the manifest
    frames: np.ndarray  # indices [T], or [N, T] of several clips, with `segments`
    crop: str
    flip: bool
    size: tuple[int, int]  # height and width of the crop, in pixels


def cropped_clips(manifest: Manifest, split: str, sampling: Sampling, protocol: Protocol) -> list[CroppedClip]:
    """All samples of a test: every clip of every readable video of the split, in every crop, and mirrored if asked for.

    With `segments` the N clips of a video are one sample. Raises UserError if `segments` and `protocol` do not match.
    """
    if (protocol.clips == "segments") != bool(sampling.segments):
        raise UserError(
            f"test.clips is {protocol.clips!r} and clip.segments {sampling.segments}: a network with consensus is "
            "tested with test.clips='segments', others otherwise."
        )
    found = []
    for index, entry in manifest.select(split):
        usable = frames_of(entry, sampling)
        clip = (usable.count, sampling.frames, sampling.stride)
        if sampling.segments:
            wanted = [clips.segment_clips(*clip, sampling.segments, reflect=sampling.reflect)]
        else:
            wanted = clips.test_clips(*clip, clips=protocol.clips, number=protocol.number, reflect=sampling.reflect)
        size = _test_size(sampling, protocol.crop, entry.height, entry.width)
        mirrored = (False, True) if flips(protocol, manifest) else (False,)
        found += [
            CroppedClip(index, usable.places(frames), crop, flip, size)
            for frames in wanted
            for crop in TEST_CROPS[protocol.crop]
            for flip in mirrored
        ]
    return found


def needed(clip: CroppedClip, frames: int, streams: Sequence[str]) -> np.ndarray:
    """The frames that a clip needs, int64 [N], in a video of `frames`; for flow, both frames of each field."""
    fields = flow.around(clip.frames.ravel(), frames).ravel() if "flow" in streams else np.zeros(0, np.int64)
    shown = clip.frames.ravel() if "rgb" in streams or not len(fields) else np.zeros(0, np.int64)
    return np.concatenate([shown, fields, np.minimum(fields + 1, frames - 1)])


def cut(manifest: Manifest, clip: CroppedClip, sampling: Sampling) -> dict[str, np.ndarray]:
    """Read a clip of a test: of each stream uint8 [T, H, W, C], or with `segments` [N, T, H, W, C].

    Raises:
      VideoError: its video, or its flow, cannot be read.
    """
    entry = manifest.videos[clip.video]
    streams = load(manifest, entry, clip.frames, sampling, short_side=sampling.short_side)
    height, width = next(iter(streams.values())).shape[1:3]
    box = transforms.draw_box(height, width, clip.size, "center" if clip.crop == "full" else clip.crop)
    return looked_at(streams, clip.frames, box, clip.size, clip.flip)


def flips(asked: Sampling | Protocol, manifest: Manifest) -> bool:
    """Whether clips of a set are mirrored."""
    return manifest.flip if asked.flip is None else asked.flip


def _test_size(sampling: Sampling, crop: str, height: int, width: int) -> tuple[int, int]:
    """Height and width of a test's crops of a video, in pixels."""
    if crop == "center":
        return sampling.size, sampling.size
    if crop == "three":
        return sampling.short_side, sampling.short_side
    short = sampling.short_side
    high, wide = transforms.resized(height, width, short)
    return short + (high - short) // ROUNDED * ROUNDED, short + (wide - short) // ROUNDED * ROUNDED


def frames_of(entry: Video, sampling: Sampling) -> clips.Frames:
    """The frames of a video that clips are cut from.

    Raises:
      VideoError: `fps` is set, and the video's rate is not known.
    """
    first, count = flow.usable(entry.frames) if "flow" in sampling.streams else (0, entry.frames)
    try:
        return sampling.frames_of(count, entry.fps, first=first)
    except UserError as error:
        raise VideoError(entry.name, str(error)) from error


def random_clips(entry: Video, sampling: Sampling, rng: np.random.Generator) -> np.ndarray:
    """Draw the frames of a training sample: int64 [T], or with `segments` [N, T]. Raises as `frames_of`."""
    usable = frames_of(entry, sampling)
    least, most = sampling.strides or (sampling.stride, sampling.stride)
    stride = int(rng.integers(least, most, endpoint=True)) if sampling.strides else sampling.stride
    clip = (usable.count, sampling.frames, stride)
    if sampling.segments:
        return usable.places(clips.segment_clips(*clip, sampling.segments, rng, reflect=sampling.reflect))
    return usable.places(clips.random_clip(*clip, rng, reflect=sampling.reflect))


def check_rates(manifest: Manifest, sampling: Sampling) -> None:
    """Raise UserError if `fps` is set and the rate of some readable videos of the set is not known."""
    if sampling.fps is None:
        return
    readable = [entry for entry in manifest.videos if entry.error is None and entry.frames > 1]
    if unknown := [entry for entry in readable if not clips.is_rate(entry.fps)]:
        examples = ", ".join(f"{shown(entry.name)} ({entry.fps:g})" for entry in unknown[:3])
        raise UserError(
            f"clip.fps is {sampling.fps:g}, but of {len(unknown):,} of the {len(readable):,} readable videos of "
            f"{manifest.name!r} nobody knows how many frames they have in a second, e.g. {examples}. Say it with "
            "prepare's --fps=25 (of a set that is prepared, python -m jax_video.prepare manifest --out=DIR --fps=25), "
            "or leave clip.fps out, for frames as they are stored."
        )


def load(
    manifest: Manifest, entry: Video, wanted: np.ndarray, sampling: Sampling, *, short_side: int
) -> dict[str, np.ndarray]:
    """Read the wanted frames and the flow around them, not cropped: of each stream uint8 [N T, H, W, C]."""
    streams = {}
    if "rgb" in sampling.streams:
        streams["rgb"] = reader.decode(manifest, entry, wanted.ravel(), short_side=short_side)
    if "flow" in sampling.streams:
        streams["flow"] = reader.flow_stacks(
            manifest, entry, wanted.ravel(), short_side=short_side, method=sampling.flow_method
        )
    return streams


def looked_at(
    streams: dict[str, np.ndarray], wanted: np.ndarray, box: transforms.Box, size: tuple[int, int], flip: bool
) -> dict[str, np.ndarray]:
    """Crop all streams to one box, resize them to `size` and mirror them if asked: each [*wanted.shape, *size, C]."""
    found = {}
    for name, frames in streams.items():
        frames = transforms.resize(transforms.crop(frames, box), size)
        if flip:
            frames = flow.flip(frames) if name == "flow" else transforms.flip(frames)
        found[name] = frames.reshape(*wanted.shape, *frames.shape[1:])
    return found
