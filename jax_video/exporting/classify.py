"""Classifies videos, and folders of numbered pictures, with the program in this folder: python classify.py VIDEO...

Needs jax, flatbuffers, numpy and av (PyAV), and model.stablehlo and model.json in this folder. A file that cannot be
read is reported and skipped, and the exit code is then 1. Frames, clips, crops and their mean are those of `python -m
jax_video.predict`, bit for bit, except for interlaced videos, mirrored ones, JPEG pictures and unusual pixel formats,
whose colours may differ by a rounding.
"""

import argparse
import hashlib
import json
import pathlib
import re
import sys
from fractions import Fraction

import av
import numpy as np
from jax import export

HERE = pathlib.Path(__file__).parent
SLOWEST, FASTEST = 0.01, 1000  # frames per second that a video can have
PICTURE = re.compile(r"(?!\.|(?:flow_)?[xy]_\d).*?(\d+)\.(?:jpe?g|png)", re.IGNORECASE)  # neither hidden nor flow


def classify(path, program, card, fps=0.0):
    """{class: probability} of a video, best first; `fps` is its frame rate, used where the file does not say it."""
    images, rate = frames(path, card["short_side"]), frame_rate(path) if card["fps"] else 0.0
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
    """All frames of a video, upright, resized: uint8 [T, H, W, 3]."""
    reformatter, images = av.video.reformatter.VideoReformatter(), []
    for file in files(path):
        with av.open(str(file)) as container:
            if not container.streams.video:
                raise ValueError("there is no video in it")
            for frame in container.decode(video=0):
                image = reformatter.reformat(frame, format="rgb24", interpolation="BICUBIC").to_ndarray()
                image = np.rot90(image, frame.rotation // 90)
                height, width = (round(side * short_side / min(image.shape[:2])) for side in image.shape[:2])
                images.append(resize(image, height, width))
    if not images:
        raise ValueError("there is no frame in it")
    return np.stack(images)


def files(path):
    """The file of a video, or those of a folder of numbered pictures, in order."""
    if not pathlib.Path(path).is_dir():
        return [path]
    found = {int(name[1]): file for file in pathlib.Path(path).iterdir() if (name := PICTURE.fullmatch(file.name))}
    return [found[number] for number in sorted(found)]


def frame_rate(path):
    """The frames per second that a file declares, or the mean rate of its frames where that is another; 0 if it tells
    none, as pictures."""
    if pathlib.Path(path).is_dir():
        return 0.0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rates = [float(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate] or [0.0]
        tick = float(stream.time_base or 0)
        shown = [packet.pts for packet in container.demux(stream) if packet.pts is not None and not packet.is_discard]
    declared = next((rate for rate in rates if rate < 1000), rates[0])  # larger ones are ticks of a clock
    steps = np.diff(np.sort(shown)) * tick
    lasting = steps.sum()
    if not len(steps) or steps.min() <= 0 or 2 * steps.max() > lasting:  # most of all is one pause
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
    """The same among `count` frames at the rate of the clips, where every frame counts."""
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
