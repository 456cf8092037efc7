"""The embedded data set: eight motions of random textures, as real MP4 files, rendered once into a cache folder.

Only motion tells the classes apart. Every frame of every video, whatever its class and its place in the video, comes
from one and the same distribution; and every video has a twin in the opposite class that shows the very same frames in
reverse order. A network that is blind to the order of frames therefore cannot beat chance within a pair.
"""

import dataclasses
import hashlib
import itertools
import os
import pathlib
import shutil
import sys
import tempfile

import av
import cv2
import numpy as np
import tqdm

from jax_video.data import remote
from jax_video.data.manifest import SPLITS, Manifest, Video
from jax_video.errors import UserError

NAME = "motions"  # of the set, as a config says it
CLASSES = ("left", "right", "up", "down", "clockwise", "counterclockwise", "growing", "shrinking")
FPS = 25

_VERSION = 1  # of the recipe: a change here renders anew, beside what older versions have rendered
_TILE = 64  # side of a layer's texture, which repeats without a seam
_LAYERS = np.arange(-5, 6)  # one octave apart; the fastest zoom of 32 frames passes through less than five octaves
_SPEED = (1.0, 2.0)  # pixels per frame, from and to; of rotation and zoom at _RADIUS from the centre
_RADIUS = 25.0  # pixels


def make(
    folder: str | os.PathLike | None = None,
    *,
    train: int = 320,
    val: int = 64,
    test: int = 160,
    frames: int = 32,
    width: int = 80,
    height: int = 64,
    seed: int = 0,
) -> pathlib.Path:
    """Render the data set unless it is there already, and return the path of its manifest.

    Args:
      folder: where rendered sets are kept; by default $JAX_VIDEO_CACHE or ~/.cache/jax_video. Each recipe (these
        arguments and the version of this code) has a folder of its own in it.
      train, val, test: number of videos in each split, multiples of eight.
      frames, width, height: of every video, at 25 frames per second; width and height are even.
      seed: another seed gives other scenes.

    Raises:
      UserError: impossible numbers, or a folder that cannot be written.
    """
    counts = dict(zip(SPLITS, (train, val, test), strict=True))
    if any(count < 0 or count % len(CLASSES) for count in counts.values()):
        raise UserError(f"motions: train, val and test must be multiples of {len(CLASSES)}, got {counts}")
    if not 1 <= frames <= 32 or min(width, height) < 2 or width % 2 or height % 2:
        raise UserError(f"motions: expected 1 to 32 frames of even size, got {frames} of {width}x{height}")
    folder = remote.cache_folder() if folder is None else folder
    recipe = f"{_VERSION} {train} {val} {test} {frames} {width} {height} {seed}"
    target = pathlib.Path(folder) / f"motions-v{_VERSION}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"
    manifest = target / "manifest.jsonl"
    if manifest.exists():
        return manifest

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: rendered beside its place, then renamed, so a stop leaves nothing half done and of two
        # that start together one wins.
        temporary = pathlib.Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise UserError(
            f"cannot write to {folder} ({error.strerror}); set JAX_VIDEO_CACHE to another folder"
        ) from error
    try:
        _make(temporary, counts, frames, width, height, seed)
        temporary.chmod(0o755)
        temporary.rename(target)
    except OSError as error:
        if not manifest.exists():
            raise UserError(f"cannot write to {folder} ({error.strerror})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def read(folder: str | os.PathLike | None = None, **numbers: int) -> Manifest:
    """The manifest of the data set, which is rendered if it is not there yet; arguments and errors as in `make`."""
    path = make(folder, **numbers)
    try:
        found = Manifest.read(path)
    except UserError as error:
        print(f"{error}. It is rendered again.", file=sys.stderr)
        shutil.rmtree(path.parent)
        found = Manifest.read(make(folder, **numbers))
    return dataclasses.replace(found, flip=False)  # a set that an older version rendered does not say so


def _make(root: pathlib.Path, counts: dict[str, int], frames: int, width: int, height: int, seed: int) -> None:
    videos = []
    with tqdm.tqdm(
        total=sum(counts.values()), desc="rendering motions, once", unit=" videos", disable=None
    ) as progress:
        for split, pair in itertools.product(SPLITS, range(len(CLASSES) // 2)):
            for number in range(counts[split] // len(CLASSES)):
                rng = np.random.default_rng([seed, SPLITS.index(split), pair, number])
                rendered = render(draw(rng), CLASSES[2 * pair], frames=frames, width=width, height=height)
                source = f"{split}_{pair}_{number:03d}"
                for label, twin in ((2 * pair, rendered), (2 * pair + 1, rendered[::-1])):
                    path = f"{split}/{CLASSES[label]}/{CLASSES[label]}_{number:03d}.mp4"
                    (root / path).parent.mkdir(parents=True, exist_ok=True)
                    encode(root / path, twin)
                    videos.append(Video(path, label, split, frames, float(FPS), width, height, None, source))
                    progress.update()
    Manifest(NAME, CLASSES, str(root), tuple(videos), flip=False).write(root / "manifest.jsonl")


def encode(path: str | os.PathLike, video: np.ndarray) -> None:
    """Write uint8 [T, H, W, 3] as H.264 in MP4, each frame coded by itself.

    With prediction between frames, or a rate control that remembers, artefacts would tell the direction of time: here
    a reversed video decodes to the reversed frames, to the bit. The file is the same on any processor.
    """
    with av.open(os.fspath(path), "w", options={"fflags": "+bitexact"}) as container:
        options = {"preset": "ultrafast", "qp": "26", "x264-params": "keyint=1:cpu-independent=1"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = video.shape[2], video.shape[1], "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a video shows at its middle, and how fast it moves; drawn without knowledge of the class.

    A layer is a texture at a scale of its own, an octave from the next one, and fades in and out with its scale. As
    the phase of the scales, the angle and the layers' places are uniform, a frame's distribution does not change when
    the scene moves, turns or grows for ever.
    """

    textures: np.ndarray  # [L, _TILE, _TILE] float32
    places: np.ndarray  # [L, 2] pixels of the texture
    angle: float  # radians
    octave: float  # phase of the scales in [0, 1)
    speed: float  # pixels per frame
    colors: np.ndarray  # [2, 3] RGB in [0, 255], a dark and a light one in random order


def draw(rng: np.random.Generator) -> Scene:
    """Draw a random scene."""
    frequency = np.hypot(np.fft.fftfreq(_TILE)[:, None], np.fft.rfftfreq(_TILE)[None])  # [_TILE, _TILE / 2 + 1]
    band = np.exp(-((np.log2(np.maximum(frequency, 1e-9) * 16) / 0.5) ** 2))  # blobs of about 16 / 2 pixels
    noise = np.fft.rfft2(rng.standard_normal((len(_LAYERS), _TILE, _TILE)))
    textures = np.fft.irfft2(noise * band)
    colors = rng.uniform([[0], [160]], [[95], [255]], (2, 3))
    return Scene(
        textures=(textures / textures.std((1, 2), keepdims=True)).astype(np.float32),
        places=rng.uniform(0, _TILE, (len(_LAYERS), 2)),
        angle=rng.uniform(0, 2 * np.pi),
        octave=rng.uniform(0, 1),
        speed=rng.uniform(*_SPEED),
        colors=rng.permutation(colors),
    )


def render(scene: Scene, motion: str, *, frames: int, width: int, height: int) -> np.ndarray:
    """Render a scene under one of the eight motions: uint8 [frames, height, width, 3].

    Time is counted from the middle of the video, so the opposite motion gives the same frames in reverse.
    """
    pair, reverse = divmod(CLASSES.index(motion), 2)
    way = -1 if reverse else 1
    center = np.array([width - 1, height - 1]) / 2
    video = np.empty((frames, height, width, 3), np.uint8)
    for frame in range(frames):
        moved = way * scene.speed * (frame - (frames - 1) / 2)  # pixels
        shift, angle, octave = np.zeros(2), scene.angle, scene.octave
        match pair:
            case 0:
                shift = np.array([moved, 0])
            case 1:
                shift = np.array([0, moved])
            case 2:
                angle += moved / _RADIUS  # y points down: a growing angle turns clockwise
            case 3:
                octave += moved / _RADIUS / np.log(2)

        field = np.zeros((height, width), np.float32)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        for layer, texture, place in zip(_LAYERS, scene.textures, scene.places, strict=True):
            size = layer + octave  # log2 of the layer's scale
            if abs(size) < 1.5:
                matrix = turn / 2**size
                affine = np.concatenate([matrix, (matrix @ (shift - center) + place)[:, None]], axis=1)
                flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
                warped = cv2.warpAffine(texture, affine, (width, height), flags=flags, borderMode=cv2.BORDER_WRAP)
                field += np.cos(np.pi * size / 3) ** 2 * warped
        mix = 0.5 + 0.5 * np.tanh(2 * field)[..., None]  # [H, W, 1]
        video[frame] = np.rint(scene.colors[0] * (1 - mix) + scene.colors[1] * mix)
    return video
