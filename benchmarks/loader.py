"""Clips per second and core: ours, from files and packed, beside PyAV, decord, torchcodec, torchvision, pytorchvideo.

    python benchmarks/loader.py --videos=kinetics/val,UCF-101
    pip install decord  # and torchcodec, torchvision, pytorchvideo: what can be imported takes part

For each folder of videos (340x256 H.264 and 320x240 Xvid are what Kinetics and UCF101 are) all decode the same clips of
the same files on one core, in turns, so that a machine that is busy for a while is busy for all. What a library hands
out goes through the same resizing and crop. First the frames of all libraries are compared.
"""

import collections
import dataclasses
import itertools
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import av
import cv2
import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from jax_video.data import reader, transforms  # noqa: E402
from jax_video.data.decoding import packed, probing, video  # noqa: E402
from jax_video.data.manifest import Manifest, Packed, Video  # noqa: E402
from jax_video.data.preparing import packing  # noqa: E402
from jax_video.data.sources import finding  # noqa: E402
from jax_video.errors import VideoError  # noqa: E402

VIDEOS = flags.DEFINE_list("videos", None, "Folders of videos, each measured by itself.", required=True)
FILES = flags.DEFINE_integer("files", 8, "How many files of each folder.", lower_bound=1)
CLIPS = flags.DEFINE_integer("clips", 24, "Clips in a turn.", lower_bound=1)
TURNS = flags.DEFINE_integer("turns", 5, "Turns of each contender.", lower_bound=1)
QUALITY = flags.DEFINE_integer("quality", 90, "Of the packed JPEGs.")


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a recipe's clip is."""

    frames: int
    stride: int
    short_side: int
    size: int


KINDS = (Kind(8, 8, 256, 224), Kind(16, 2, 122, 112))  # CoST's and STC's


def pyav(path: str, places: list[int]) -> np.ndarray:
    """As its own examples have it: from the start up to the last frame."""
    wanted = set(places)
    with av.open(path) as container:
        container.streams.video[0].thread_count = 1
        frames = itertools.islice(container.decode(video=0), places[-1] + 1)
        return np.stack([frame.to_ndarray(format="rgb24") for i, frame in enumerate(frames) if i in wanted])


def pyav_seek(path: str, places: list[int]) -> np.ndarray:
    """With a seek to the keyframe before each frame, and the timestamps of a constant rate believed in."""
    images = []
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        step = round(1 / (stream.average_rate * stream.time_base))
        for place in places:
            container.seek(place * step, stream=stream)
            for frame in container.decode(stream):
                if frame.pts >= place * step:
                    images.append(frame.to_ndarray(format="rgb24"))
                    break
    return np.stack(images)


def decord(path: str, places: list[int]) -> np.ndarray:
    import decord

    return decord.VideoReader(path, num_threads=1).get_batch(places).asnumpy()


def torchcodec(path: str, places: list[int]) -> np.ndarray:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="approximate")
    return decoder.get_frames_at(places).data.numpy()


def torchvision(path: str, places: list[int]) -> np.ndarray:
    from torchvision.io import read_video

    return read_video(path, pts_unit="sec")[0].numpy()[places]


def pytorchvideo(path: str, places: list[int]) -> np.ndarray:
    from pytorchvideo.data.encoded_video import EncodedVideo

    clip = EncodedVideo.from_path(path, decode_audio=False).get_clip(0, float("inf"))["video"]
    return clip.permute(1, 2, 3, 0).numpy().astype(np.uint8)[places]


PEERS = (pyav, pyav_seek, decord, torchcodec, torchvision, pytorchvideo)


def index(folder: pathlib.Path, least: int) -> Manifest:
    """Some readable videos of a folder that are long enough."""
    rows = []
    for path in finding.find_videos(folder).videos:
        try:
            info = probing.probe(folder / path)
        except VideoError:
            continue
        if info.frames >= least and len(rows) < FILES.value:
            rows.append(Video(path, None, "train", error=None, source=path, **vars(info)))
    if not rows:
        sys.exit(f"no video of {least} frames or more in {folder}")
    return Manifest(folder.name, (), str(folder.absolute()), tuple(rows))


def pack(files: Manifest, folder: str, short_side: int) -> Manifest:
    settings = Packed("frames", packed.RECORD_FRAMES, short_side, QUALITY.value)
    builder = packing.open_folder(folder, files, settings)
    for shard in packing.shards(files, builder.data_dir, settings):
        packing.write_shard(shard)
    return packing.finish(files, builder, folder)


def bare_jpegs(manifest: Manifest) -> Callable[[Video, np.ndarray], np.ndarray]:
    """Decode the same JPEGs from memory: the most that any packed form can do."""
    size = manifest.packed.record_frames
    held = {}

    def decode(entry: Video, places: np.ndarray) -> np.ndarray:
        return np.stack([cv2.imdecode(held[entry.path][place], cv2.IMREAD_COLOR_RGB) for place in places])

    for entry in manifest.videos:
        held[entry.path] = [
            np.frombuffer(picture, np.uint8)
            for number in range(entry.first // size, (entry.first + entry.frames - 1) // size + 1)
            for picture in packed.read_record(manifest.root, entry.split, number)["frames"].bytes_list.value
        ]
    return decode


def compare(files: Manifest, jobs: list[tuple[int, np.ndarray]], peers: dict[str, Callable]) -> None:
    """Say who gives other frames than decoding in order does; leave out who cannot take part."""
    for name, decode in list(peers.items()):
        other = 0
        try:
            for which, places in jobs:
                path = os.path.join(files.root, files.videos[which].path)
                expected = video.decode(path, places)
                found = decode(path, places.tolist())
                # Other builds of FFmpeg turn YUV to RGB by other roundings; another frame differs by far more.
                other += np.abs(found.astype(int) - expected).mean() > 4
        except Exception as error:  # noqa: BLE001, whatever another library raises
            print(f"  {name} takes no part: {str(error).strip().splitlines()[0][:90]}")
            del peers[name]
            continue
        if other:
            print(f"  {name} gives other frames in {other} of {len(jobs)} clips")


def measure(files: Manifest, kind: Kind) -> None:
    rng = np.random.default_rng(0)
    span = (kind.frames - 1) * kind.stride + 1
    jobs = []
    for number in range(CLIPS.value):
        which = number % len(files.videos)
        start = rng.integers(files.videos[which].frames - span + 1)
        jobs.append((which, start + kind.stride * np.arange(kind.frames)))

    def finish(frames: np.ndarray) -> np.ndarray:
        frames = transforms.resize_short(frames, kind.short_side)
        box = transforms.draw_box(*frames.shape[1:3], kind.size, "center")
        return np.ascontiguousarray(transforms.crop(frames, box))

    def of_files(decode: Callable[[str, list[int]], np.ndarray]) -> Callable[[int, np.ndarray], np.ndarray]:
        return lambda which, places: finish(decode(os.path.join(files.root, files.videos[which].path), places.tolist()))

    def of_set(manifest: Manifest) -> Callable[[int, np.ndarray], np.ndarray]:
        return lambda which, places: finish(
            reader.decode(manifest, manifest.videos[which], places, short_side=kind.short_side)
        )

    peers = {decode.__name__: decode for decode in PEERS}
    print(f"{kind.frames} frames, stride {kind.stride}, {kind.size}² of short side {kind.short_side}:")
    compare(files, jobs[: len(files.videos)], peers)
    with tempfile.TemporaryDirectory() as folder:
        done = pack(files, folder, kind.short_side)
        bare = bare_jpegs(done)
        contenders = {name: of_files(decode) for name, decode in peers.items()}
        contenders |= {"ours, files": of_set(files), "ours, packed": of_set(done)}
        contenders["bare JPEGs"] = lambda which, places: bare(done.videos[which], places)
        seconds = collections.defaultdict(list)
        for turn in range(TURNS.value + 1):
            for name, load in contenders.items():
                start = time.process_time()
                for job in jobs:
                    load(*job)
                if turn:  # The first warms caches.
                    seconds[name].append((time.process_time() - start) / len(jobs))
    for name, times in seconds.items():
        print(f"  {name:13} {1 / statistics.median(times):7.1f} clips/s per core")
    best = min((name for name in peers if name in seconds), key=lambda name: statistics.median(seconds[name]))

    def ratio(one: str, other: str) -> float:  # of the same turn
        return statistics.median(b / a for a, b in zip(seconds[one], seconds[other], strict=True))

    print(f"  ours from files / {best}: {ratio('ours, files', best):.2f}")
    print(f"  packed / bare JPEGs: {ratio('ours, packed', 'bare JPEGs'):.2f}")


def main(_):
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for folder in VIDEOS.value:
        for kind in KINDS:
            files = index(pathlib.Path(folder), (kind.frames - 1) * kind.stride + 1)
            first = files.videos[0]
            print(f"{files.name}: {len(files.videos)} files, {first.width}x{first.height}, {first.frames} frames")
            measure(files, kind)


if __name__ == "__main__":
    app.run(main)
