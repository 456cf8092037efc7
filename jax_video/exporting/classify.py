"""Classifies videos, and folders of numbered pictures, with the program in this folder: python classify.py VIDEO...

Needs jax, flatbuffers, numpy and av (PyAV), and model.stablehlo and model.json in this folder. A file that cannot be
read is reported and skipped, and the exit code is then 1. Frames, clips, crops and their mean are those of `python -m
jax_video.predict`, bit for bit, and what it refuses, as files that are cut or damaged and folders with a gap, is
refused. Only colours of JPEG pictures may differ by a rounding.
"""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import re
import sys
from fractions import Fraction
from typing import Any

import av
import numpy as np
from jax import export

HERE = pathlib.Path(__file__).parent
SLOWEST, FASTEST = 0.01, 1000  # frames per second that a video can have
PICTURE = re.compile(r"(.*?)([0-9]+)\.(?:jpe?g|png)", re.IGNORECASE)
FLOW = re.compile(r"(?:flow_)?[xy]_", re.IGNORECASE)  # how the names of stored flow begin
MOST_PIXELS = 2**25
LIMITS = {"max_pixels": str(MOST_PIXELS)}
DIRECT = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"}  # always converted alike
DEEP = {"gray16be": 1, "ya16be": 2, "rgb48be": 3, "rgba64be": 4}  # numbers of channels
JPEG = {"gray", "yuvj420p", "yuvj422p", "yuvj440p", "yuvj444p", "yuvj411p"}
RAW = {"h264", "hevc", "vvc", "mjpeg", "obu", "m4v", "mpegvideo", "h263", "h261", "cavsvideo"}  # formats without times
PYAV = int(av.__version__.partition(".")[0])


def classify(path, program, card, fps=0.0):
    """{class: probability} of a video, best first; `fps` is its frame rate, used where the file does not say it."""
    images, rate = frames(path, card["short_side"])
    wanted = cut(len(images), rate if SLOWEST <= rate <= FASTEST else fps, card)
    rows = [program.call(crop[None]) for clip in wanted for crop in crops(images[clip], card)]  # [1, classes] each
    scores = np.concatenate(rows).astype(np.float64)
    if card["average"] == "logit" and "thresholds" in card:  # with several labels, each class by itself
        odds = np.maximum(scores, np.finfo(np.float32).tiny) / np.maximum(1 - scores, 2.0**-25)
        scores = 1 / (1 + np.exp(-np.log(odds).mean(axis=0, keepdims=True)))
    elif card["average"] == "logit":  # the log of a probability is its logit, up to a constant
        scores = np.exp(np.log(np.maximum(scores, np.finfo(np.float32).tiny)).mean(axis=0, keepdims=True))
        scores /= scores.sum()
    mean = scores.mean(axis=0)
    return {card["classes"][place]: float(mean[place]) for place in np.argsort(-mean, kind="stable")}


def frames(path, short_side):
    """(all frames of a video, upright, resized: uint8 [T, H, W, 3]; how many it has in a second, 0 if it tells none).

    Raises ValueError, OSError or av.FFmpegError for what `predict` does not use.
    """
    images: list = []
    size, told = None, {"fps": 0.0}
    for image in pictures(path) if os.path.isdir(path) else decoded(path, told):
        height, width = size = size or image.shape[:2]
        if height * width > MOST_PIXELS or max(size) > 32 * min(size):
            raise ValueError(f"strange size: frames of {width}x{height}")
        if image.shape[:2] != size:
            raise ValueError(f"frames change size: from {width}x{height} at frame {len(images)}")
        images.append(resize(image, *(round(side * short_side / min(size)) for side in size)))
    return np.stack(images), told["fps"]


def pictures(path):
    """Yield the pictures of a folder in the order of their numbers, upright: uint8 [H, W, 3]."""
    found = [name for name in os.listdir(path) if not name.startswith(".")]
    found = [match for match in map(PICTURE.fullmatch, found) if match and not FLOW.fullmatch(match[1])]
    found.sort(key=lambda match: int(match[2]))
    if not found:
        raise ValueError("no frames: the folder has no numbered pictures, as image_00001.jpg")
    if len({match[1] for match in found}) > 1:
        raise ValueError(f"pictures of several videos: their names begin with {sorted({match[1] for match in found})}")
    first = min(int(found[0][2]), 1)
    for expected, match in enumerate(found, first):
        if int(match[2]) != expected:
            raise ValueError(f"a gap in the numbering, or a number twice: {match[0]} is where {expected} is expected")
    for match in found:
        with regular(os.path.join(path, match[0])) as file:
            data = file.read()
        try:
            yield picture(data)
        except (av.FFmpegError, ValueError) as error:
            raise ValueError(f"unreadable picture: {match[0]} ({getattr(error, 'strerror', None) or error})") from error


def picture(data):
    """A JPEG or PNG, turned and mirrored as its EXIF says: uint8 [H, W, 3]."""
    codec = "png" if data.startswith(b"\x89PNG\r\n\x1a\n") else "mjpeg" if data.startswith(b"\xff\xd8") else None
    if codec is None:
        raise ValueError("not a JPEG or PNG" if data else "empty file")
    if (b"IEND" not in data) if codec == "png" else (b"\xff\xd9" not in data[-1024:]):
        raise ValueError("truncated")
    decoder: Any = av.CodecContext.create(codec, "r")
    decoder.options, decoder.thread_count = LIMITS | ({"err_detect": "crccheck+explode"} if codec == "png" else {}), 1
    shown = decoder.decode(av.Packet(data)) + decoder.decode(None)
    if not shown:
        raise ValueError("it does not decode")
    frame, name = shown[0], shown[0].format.name
    if name in DEEP:  # of the 16 bits, as OpenCV does it, the first eight count, and transparency does not
        deep = lines(frame.planes[0])[:, : 2 * DEEP[name] * frame.width : 2]
        image = deep.reshape(frame.height, frame.width, -1)[..., [0, 1, 2] if DEEP[name] > 2 else [0, 0, 0]]
    else:
        image = of_jpeg(frame) if name in JPEG else rgb(frame)
    turn = orientation(data)
    image = image.swapaxes(0, 1) if turn in (5, 6, 7, 8) else image
    return image[:: -1 if turn in (3, 4, 7, 8) else 1, :: -1 if turn in (2, 3, 6, 7) else 1]


def orientation(data):
    """What EXIF says of a picture, 1 to 8: 1, if nothing, is upright."""
    found = re.search(rb"(?:Exif\0\0|eXIf)(?=II\*\0|MM\0\*)", data)
    exif = data[found.end() :] if found else b""
    order: Any = "little" if exif.startswith(b"II") else "big"
    first = int.from_bytes(exif[4:8], order)
    for place in range(first + 2, first + 2 + 12 * int.from_bytes(exif[first : first + 2], order), 12):
        if int.from_bytes(exif[place : place + 2], order) == 0x112:
            return int.from_bytes(exif[place + 8 : place + 10], order)
    return 1


def of_jpeg(frame):
    """A JPEG's RGB as OpenCV, and so `predict`, converts it, which enlarges colour by another filter than FFmpeg."""
    luma, *chroma = (lines(plane)[:, : plane.width].astype(int) for plane in frame.planes)
    height, width = luma.shape
    full = []
    for plane in chroma:
        if 2 * plane.shape[1] < width:  # a quarter as wide: repeated, without a filter
            plane = plane.repeat(4, 1)[:, :width]
        tall, wide = plane.shape[0] < height, plane.shape[1] < width
        plane = _doubled(plane, 0)[:height] if tall else plane
        plane = _doubled(plane, 1)[:, :width] if wide else plane
        odd = np.arange(width) % 2 if wide else np.arange(height)[:, None] % 2
        if tall and wide:
            plane = plane + 8 - odd >> 4
        elif tall or wide:
            plane = plane + 1 + odd >> 2
        full.append(plane - 128)
    blue, red = full or (0, 0)
    parts = 91881 * red, -22554 * blue - 46802 * red, 116130 * blue  # in 65536ths
    image = np.stack([luma + (part + 32768 >> 16) for part in parts], axis=-1)
    return image.clip(0, 255).astype(np.uint8)


def _doubled(plane, axis):
    """Twice as many lines, each three parts of the nearest one and one part of the next: four times as large."""
    places = np.arange(plane.shape[axis])
    before, after = (np.take(plane, (places + step).clip(0, places[-1]), axis) for step in (-1, 1))
    pairs = np.stack((3 * plane + before, 3 * plane + after), axis + 1)
    return pairs.reshape(plane.shape[0] * (2 - axis), plane.shape[1] * (1 + axis))


def regular(path):
    """A regular file, open for reading: a pipe could wait for ever."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{path} is not a file")
    return open(path, "rb", buffering=0)


@contextlib.contextmanager
def container_of(path):
    """(a video file, its best video stream other than a cover picture).

    FFmpeg gets the open file, and no other protocol: its content decides the format, and it opens no other file.
    """
    options: dict[str, Any] = {} if PYAV >= 19 else {"metadata_errors": "ignore"}  # titles may be in any encoding
    with regular(path) as file:
        told = {"protocol_whitelist": "fd", "fd": str(file.fileno())}
        with av.open("fd:", container_options=told, **options) as container:
            cover = av.stream.Disposition.attached_pic
            streams = [stream for stream in container.streams.video if not stream.disposition & cover]
            if not streams:
                raise ValueError("there is no video in it")
            best = container.streams.best("video")
            yield container, best if best in streams else streams[0]


def packets_of(container, *streams):
    """The packets of some streams, or of all."""
    with contextlib.suppress(IndexError):  # of a stream that begins after PyAV has listed them
        yield from container.demux(*streams)


def decoded(path, told):
    """Yield the frames of a video file in order, upright: uint8 [H, W, 3]; then write its frame rate into `told`.

    At the end, raise ValueError if the file is cut or damaged: if it holds fewer pictures than its header promises, or
    more than a twentieth of them does not decode. The rules are those of jax_video/data/decoding/probing.py.
    """
    converter = av.video.reformatter.VideoReformatter()
    shown: list = []
    seconds: list = []
    hidden, slots, lost, cut_off, has_keyframe, matrix = 0, 0, 0, False, False, None
    with container_of(path) as (container, stream):
        if stream.codec_context is None:
            raise ValueError("its video codec is unknown")
        stream.codec_context.options, stream.codec_context.thread_count = LIMITS, 1
        codec = stream.codec_context.name
        tick, start, kind = float(stream.time_base), (container.start_time or 0) / av.time_base, container.format.name
        told_rates = (stream.codec_context.framerate,) if kind in RAW else (stream.average_rate, stream.guessed_rate)
        rates = [float(rate) for rate in told_rates if rate] or [0.0]
        rate = next((rate for rate in rates if rate < 1000), rates[0])  # larger ones are ticks of a clock
        promised, listed = stream.frames, len(stream.index_entries)
        if "mov" in kind and 0 < listed < promised:  # an edit list cuts frames away
            promised = listed
        lasts = (container.duration or 0) / av.time_base if kind not in ("mpegts", "mpeg") else 0.0
        own = np.nan if stream.duration is None or kind == "avi" else stream.duration * tick
        if "matroska" in kind:
            own = clock(stream.metadata.get("DURATION", "")) - (stream.start_time or 0) * tick
        for packet in packets_of(container, stream):
            is_shown = packet.size > 0 and not packet.is_discard  # others flush the decoder, or an edit list hides them
            has_keyframe |= packet.is_keyframe
            hidden += packet.is_discard
            slots = slots if packet.dts is None else max(slots, packet.dts + 1)
            if is_shown:
                shown.append((packet.pts, packet.duration or 0, packet.is_keyframe))
            try:
                found = packet.decode()
            except av.FFmpegError as error:
                if not stream.codec_context.is_open or isinstance(error, (EOFError, MemoryError)):
                    raise
                lost += is_shown and (has_keyframe or len(seconds) > 0)
                cut_off |= is_shown
                continue
            cut_off &= not is_shown
            for frame in found:
                if seconds and display_matrix(frame) != matrix:
                    raise ValueError(f"frames change orientation at frame {len(seconds)}")
                matrix = display_matrix(frame)
                seconds.append(np.nan if frame.time is None else frame.time - start)
                yield upright(frame, converter)
    if not seconds:
        raise ValueError("there is no frame in it")

    count, timed = len(shown), [(pts, duration) for pts, duration, _ in shown if pts is not None] or [(0, 0)]
    last, duration = max(timed)
    interval = 1 / rate if rate else 0.0
    held = (last - min(timed)[0]) * tick + (duration * tick or interval)
    is_whole = held > own - 0.6 * interval - 0.01  # the pictures last as long as is said of their own stream
    missing = promised - hidden - (slots if kind == "avi" and count <= slots <= promised - hidden + 2 else count)
    if missing > 2 and not is_whole:  # files of HMDB51 promise one that does not exist
        raise ValueError(f"truncated: the header promises {promised - hidden} frames, the file holds {count}")
    if cut_off and abs(promised - hidden - count) > 2:
        raise ValueError(f"truncated: the file ends within a frame, the last of {count}")
    # Without a number of frames only a duration is promised, which may be that of sound.
    if promised <= 0 and max(seconds) < 0.9 * lasts - 1 and not is_whole and not reaches(path, start + lasts - 0.5):
        raise ValueError(f"truncated: the header promises {lasts:.1f} s, the frames end at {max(seconds):.1f} s")
    begin = next((place for place, (*_, is_keyframe) in enumerate(shown) if is_keyframe), None)
    leading = 0  # packets before the first keyframe need frames that are not there
    if not hidden and begin is not None:
        times = [-(2**63) if pts is None else pts for pts, *_ in shown]
        leading = begin + sum(time < times[begin] for time in times[begin:])
    expected = (min(promised - hidden, count) if promised > 0 else count) - leading
    short = expected - len(seconds) if promised > 0 or codec == "hevc" != kind else 0  # which leaves lost frames out
    lost = max(lost, short if lost or short > 2 else 0)
    if lost > 0.05 * (len(seconds) + lost):
        raise ValueError(f"damaged: {lost} of {len(seconds) + lost} frames do not decode")
    told["fps"] = rate if kind in RAW else frame_rate(np.array(seconds), rate, tick)


def clock(text):
    """The seconds of 00:01:02.5; nan of what is no such time."""
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d*)?)", text)
    return 3600 * int(match[1]) + 60 * int(match[2]) + float(match[3]) if match else np.nan


def reaches(path, end):
    """Whether any stream of a file, such as its sound, goes on for more than `end` seconds."""
    with contextlib.suppress(av.FFmpegError), container_of(path) as (container, _):
        for packet in packets_of(container):
            if packet.size > 0 and packet.pts is not None:
                if float((packet.pts + (packet.duration or 0)) * packet.time_base) > end:
                    return True
    return False


def upright(frame, converter):
    """A frame as RGB, turned and mirrored as its file says: uint8 [H, W, 3]."""
    image, matrix = rgb(frame, converter), display_matrix(frame)
    if matrix is None:
        return image
    (a, b, _), (c, d, _), _ = np.frombuffer(matrix, np.int32).reshape(3, 3).tolist()
    if abs(a) + abs(d) < abs(b) + abs(c):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def display_matrix(frame):
    """The bytes of a frame's display matrix, int32 [3, 3]; None where it has none."""
    # Not `frame.side_data`, which keeps the frame's memory: what a decoder finds there shows in damaged frames.
    matrix = av.sidedata.sidedata.SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[attr-defined]
    return None if matrix is None else bytes(matrix)


def rgb(frame, converter=None):
    """A frame as RGB, neither turned nor mirrored. A `converter` keeps its tables from frame to frame."""
    converter, form = converter or av.video.reformatter.VideoReformatter(), frame.format
    if form.is_planar and not form.is_rgb and (frame.interlaced_frame or form.name not in DIRECT):
        # Without the marks for interlacing and places of chroma, which PyAV heeds, and `predict` does not.
        plain = av.VideoFrame(frame.width, frame.height, form.name)
        plain.colorspace, plain.color_range = frame.colorspace, frame.color_range
        for source, target in zip(frame.planes, plain.planes, strict=True):
            width = min(source.line_size, target.line_size)
            lines(target)[:, :width] = lines(source)[:, :width]
        frame = plain
    return converter.reformat(frame, format="rgb24", interpolation="BICUBIC").to_ndarray()


def lines(plane):
    """The lines of a plane of a frame, uint8 [height, bytes of a line]."""
    return np.frombuffer(memoryview(plane), np.uint8)[: plane.height * plane.line_size].reshape(plane.height, -1)


def frame_rate(seconds, declared, tick):
    """The frames per second that a file declares, or the mean rate of its frames where that is another."""
    steps = np.diff(seconds)
    if len(steps) and steps.min() >= -1:  # out of order, as in AVI files, but not joined
        steps = np.diff(np.sort(seconds))
    if len(steps) and 2 * steps.max() > steps.sum():  # most of all is one pause
        steps = np.delete(steps, steps.argmax())
    lasting = steps.sum()
    if not len(steps) or not (steps > 0).all():
        return declared
    if declared and abs(len(steps) / declared - lasting) <= 0.05 * lasting + tick:
        return declared
    return len(steps) / lasting if SLOWEST <= len(steps) / lasting <= FASTEST else declared


def cut(stored, rate, card):
    """The indices of the frames of each clip, for `stored` frames: a list of int [T]; with segments of one [N, T]."""
    step = Fraction(1)  # from one counted frame to the next; at another rate the nearest in time
    if card["fps"] and stored > 1:
        if not SLOWEST <= rate <= FASTEST:
            raise ValueError("its frame rate is not known: say how many frames there are to a second, --fps=25")
        step = Fraction(rate / card["fps"]).limit_denominator(10**6)
    up, down = step.numerator, step.denominator
    count = max(1, (2 * stored * down + up) // (2 * up))
    return [np.minimum((2 * clip * up + down) // (2 * down), stored - 1) for clip in clips(count, card)]


def clips(count, card):
    """The frames of each clip, as `cut` gives them, among `count` frames at the rate of the clips."""
    length, stride, number = card["frames"], card["stride"], card["number"]
    if card["reflect"] and length > 1:  # a short video has a smaller stride, then runs forth and back
        stride = min(stride, max(1, (count - 1) // (length - 1)))
    last, parts = max(0, count - (length - 1) * stride - 1), card["segments"]
    if card["clips"] == "spread":
        return [(2 * (count - 1) * np.arange(number) + number - 1) // (2 * (number - 1))]
    if card["clips"] == "nonoverlap":
        starts = np.arange(0, last + 1, length * stride)
    elif card["clips"] == "segments":
        firsts = np.arange(parts + 1) * (last + 1) // parts
        starts = (firsts[:-1] + np.maximum(firsts[:-1], firsts[1:] - 1)) // 2
    elif number == 1:
        starts = np.array([last // 2])
    else:
        starts = (2 * last * np.arange(number) + number - 1) // (2 * (number - 1))
    places = starts[:, None] + stride * np.arange(length)
    turned = places % (2 * count)
    places = np.minimum(turned, 2 * count - 1 - turned) if card["reflect"] else places % count
    return [places] if card["clips"] == "segments" else list(places)


def crops(images, card):
    """Yield what a test sees of a clip [..., H, W, 3]: each crop, and where the test flips, each crop mirrored."""
    high, wide = images.shape[-3:-1]
    height = width = card["short_side"] if card["crop"] == "three" else card["size"]
    if card["crop"] == "full":  # without a border: each side is the short side plus a multiple of 32
        height, width = (side - (side - card["short_side"]) % 32 for side in (high, wide))
    ends = [(0, 0), ((high - height) // 2, (wide - width) // 2), (high - height, wide - width)]
    for top, left in ends if card["crop"] == "three" else ends[1:2]:
        crop = images[..., top : top + height, left : left + width, :]
        yield from (crop, crop[..., ::-1, :]) if card["flip"] else (crop,)


def resize(image, height, width):
    """Resize uint8 [H, W, 3]: halve while at least twice too large, then interpolate, with OpenCV's roundings."""
    while image.shape[0] >= 2 * height and image.shape[1] >= 2 * width:
        exact = image.shape[0] % 2 == image.shape[1] % 2 == 0
        means = _halve(_halve(image.astype(np.float32), 1), 0)
        image = np.uint8(np.floor(means + 0.5) if exact else np.rint(means))
    if image.shape[:2] == (height, width):
        return image
    left, right, p, q = _neighbours(image.shape[1], width)
    inside = (left >= 0) & (right < image.shape[1])
    p, q = np.where(inside, p, 2048), np.where(inside, q, 0)
    columns = image.astype(np.int64)
    rows = columns[:, left.clip(0)] * p[:, None] + columns[:, right.clip(0, image.shape[1] - 1)] * q[:, None] >> 4
    top, bottom, p, q = (each[:, None, None] for each in _neighbours(image.shape[0], height))
    top, bottom = top.clip(0)[:, 0, 0], bottom.clip(0, image.shape[0] - 1)[:, 0, 0]
    return np.uint8(((rows[top] * p >> 16) + (rows[bottom] * q >> 16) + 2) >> 2)


def _halve(image, axis):
    count = image.shape[axis]
    half = count // 2
    first = np.arange(half)
    weights = (half - first, half + 0 * first, first + 1) if count % 2 else (half + 0 * first,) * 2
    shares = [np.float32(weight / count).reshape(-1, *(1,) * (2 - axis)) for weight in weights]
    return sum(np.take(image, 2 * first + tap, axis) * share for tap, share in enumerate(shares))


def _neighbours(count, wanted):
    """For each of `wanted` places, the two neighbours among `count`, and their weights in 2048ths."""
    places = np.float32((np.arange(wanted) + 0.5) * (1 / (wanted / count)) - 0.5)
    before = np.floor(places).astype(int)
    share = places - before.astype(np.float32)
    weights = (np.rint(each * np.float32(2048)).astype(int) for each in (1 - share, share))
    return before, before + 1, *weights


def opened():
    """The program and the card of this folder. Exits with one line if they do not belong together."""
    again = "take both files from one export"
    try:
        card = json.loads((HERE / "model.json").read_text(encoding="utf-8"))
        told, data = card["files"]["model.stablehlo"], (HERE / "model.stablehlo").read_bytes()
        if hashlib.sha256(data).hexdigest() != told["sha256"]:
            size = f"{len(data):,} bytes, expected {told['bytes']:,}"
            sys.exit(f"{HERE / 'model.stablehlo'} is damaged, or not the one of model.json ({size}): {again}")
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}: {again}")
    except (ValueError, KeyError, TypeError) as error:
        sys.exit(f"{HERE / 'model.json'} does not describe a program ({error!r}): {again}")
    return export.deserialize(bytearray(data)), card


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names may be of any bytes
    if PYAV < 17:
        sys.exit(f"PyAV {av.__version__} converts some colours otherwise: pip install 'av>=17'")
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("videos", nargs="+", metavar="VIDEO")
    parser.add_argument("--fps", type=float, default=0.0, help="frames per second, of what does not say it")
    given = parser.parse_args()
    program, card = opened()
    if card["streams"] != ["rgb"]:
        sys.exit(f"this network takes {' and '.join(card['streams'])}: see model.json for what to give the program")
    if given.fps and not card["fps"]:
        parser.error("--fps: clips of this network count frames, whatever their rate; leave it out")
    if given.fps and not SLOWEST <= given.fps <= FASTEST:
        parser.error(f"--fps={given.fps:g}: expected {SLOWEST:g} to {FASTEST:g} frames per second")
    bad = 0
    for path in given.videos:
        try:
            found = classify(path, program, card, given.fps)
        except (av.FFmpegError, OSError, ValueError) as error:
            print(f"{path}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
            bad += 1
            continue
        print(path)
        least = dict(zip(card["classes"], card.get("thresholds", ()), strict=False))  # for a class to hold
        for place, (name, probability) in enumerate(found.items()):
            if place < 5 or probability >= least.get(name, 2):
                print(f"  {probability:8.4f} {'*' if probability >= least.get(name, 2) else ' ' * bool(least)} {name}")
    sys.exit(bad > 0)
