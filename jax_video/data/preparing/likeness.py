"""Videos that look alike: re-encoded copies, found by how their pictures change.

A video's print is a perceptual hash of eight pictures, one from the middle of each eighth of it, after what they have
in common, their mean, was subtracted. So two videos of one place, taken by a camera that stands still, are told apart
by what moves in them; a video in which almost nothing moves has no print. A print hardly changes with codec, quality,
size, frame rate and brightness, or if a border of 3 % or a few frames at the ends are cut off. It does change if more
is cut off, if black bars are added, and in a mirrored or reversed video.
"""

from typing import Any

import cv2
import numpy as np

from jax_video.data.decoding import pictures, video, workers

PICTURES = 8  # of a video
WORD = 64  # bits of one picture's hash
NEAREST = 0.14  # part of the bits in which the prints of copies differ, at most
_STORED = np.dtype(">u8")
_SIDE = 32  # of the pictures that are compared, in pixels
_LEAST_CHANGE = 1.0  # grey levels (standard deviation) by which a picture must differ from the mean
_LEAST_PICTURES = 6  # pictures that do so, in both videos
_ESTIMATE = 0.02, 2  # part of the frames, plus frames, by which a file may hold more or fewer than it promises
_BAND = 16  # bits; two prints are compared if they have a part of this length in common, at the same place
_COMMON = 256  # prints, at most, that share such a part: what more have in common says nothing
_AT_ONCE = 4096  # videos that are looked up at once


class Sampler(pictures.Watcher):
    """An observer that takes the pictures while a file is probed, and reports the probe's progress."""

    def begin(self, frames: int) -> None:
        self._promised = frames
        self._seen = 0
        self._waiting = [int((number + 0.5) * frames / PICTURES) for number in range(PICTURES)][::-1]
        self._taken: list[np.ndarray] = []
        self._rgb = video.image_of(None)

    def go_on(self) -> None:
        workers.go_on()

    def see(self, frame: Any) -> None:
        while self._waiting and self._waiting[-1] == self._seen:
            self._waiting.pop()
            self._taken.append(_small(self._grey(frame)))
        self._seen += 1

    def _grey(self, frame: Any) -> np.ndarray:
        """A frame in grey, uint8 [H, W]; mostly without a conversion, which would take longer than all else here."""
        if isinstance(frame, np.ndarray):
            return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        kind = frame.format
        if kind.is_planar and not kind.is_rgb and kind.components[0].bits == 8:
            plane = frame.planes[0]
            return video.lines_of(plane)[:, : plane.width]
        return cv2.cvtColor(self._rgb(frame), cv2.COLOR_RGB2GRAY)

    def words(self) -> str | None:
        """The print in hexadecimal digits, as `read` reads it; None if there is none.

        There is none for too few frames, or for another number than the file promised, so that other pictures were
        taken than meant; nor if too little changes.
        """
        part, more = _ESTIMATE
        surplus = abs(self._seen - self._promised)
        if self._waiting or self._promised < PICTURES or surplus > part * self._promised + more:
            return None
        grey = np.stack(self._taken).astype(np.float32)
        changes = grey - grey.mean(axis=0)
        changes -= changes.mean(axis=(1, 2), keepdims=True)  # without changes of brightness
        scaled = (128 + changes * (127 / np.maximum(np.abs(changes).max(axis=(1, 2), keepdims=True), 1))).astype(
            np.uint8
        )
        words = np.zeros(PICTURES, np.uint64)
        for place in np.flatnonzero(changes.std(axis=(1, 2)) >= _LEAST_CHANGE):
            words[place] = cv2.img_hash.pHash(scaled[place]).view(np.uint64)[0, 0]
        return words.astype(_STORED).tobytes().hex() if np.count_nonzero(words) >= _LEAST_PICTURES else None


def read(words: str) -> np.ndarray:
    """Parse a print: uint64 [PICTURES], 0 for a picture without change; all zeros if the text is not a print."""
    try:
        return np.frombuffer(bytes.fromhex(words), _STORED, PICTURES).astype(np.uint64)
    except (TypeError, ValueError):
        return np.zeros(PICTURES, np.uint64)


def _small(grey: np.ndarray) -> np.ndarray:
    """Shrink uint8 [H, W] to [_SIDE, _SIDE], each pixel from 36: enough, since a hash has only the low frequencies."""
    sampled = cv2.resize(grey, (3 * _SIDE, 3 * _SIDE), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(sampled, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)


def find(prints: np.ndarray, others: np.ndarray) -> dict[int, int]:
    """For each video that looks like one of the others, the nearest of these.

    Time grows in proportion to the number of videos, and memory no faster: only prints that have a part in common are
    compared.

    Args:
      prints: uint64 [N, PICTURES], zeros for a video without one.
      others: uint64 [M, PICTURES].

    Returns:
      places in `prints` -> places in `others`.
    """
    bands = [(place, shift) for place in range(PICTURES) for shift in range(0, WORD, _BAND)]
    tables = []  # for each band: what the others have there, sorted, and their places
    for place, shift in bands:
        keys = _keys(others, place, shift)
        order = np.argsort(keys, kind="stable")
        order = order[others[order, place] != 0]
        tables.append((keys[order], order))
    nearest = {}
    for first in range(0, len(prints), _AT_ONCE):
        rows = prints[first : first + _AT_ONCE]
        pairs = [np.zeros((0, 2), np.int64)]
        for (place, shift), (sorted_keys, order) in zip(bands, tables, strict=True):
            keys = _keys(rows, place, shift)
            begin, end = (np.searchsorted(sorted_keys, keys, side=side) for side in ("left", "right"))
            count = np.where((rows[:, place] != 0) & (end - begin <= _COMMON), end - begin, 0)
            which = np.repeat(np.arange(len(rows)), count)
            within = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
            pairs.append(_close(rows, others, np.stack([which, order[begin[which] + within]], axis=1)))
        found = np.unique(np.concatenate(pairs), axis=0)
        distance = _distance(rows, others, found)
        for (which, other), _ in sorted(zip(found.tolist(), distance.tolist(), strict=True), key=lambda row: -row[1]):
            nearest[first + which] = other
    return nearest


def _keys(prints: np.ndarray, place: int, shift: int) -> np.ndarray:
    return (prints[:, place] >> np.uint64(shift)).astype(np.uint16)


def _close(prints: np.ndarray, others: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Those of the `pairs`, int64 [P, 2], whose prints look alike."""
    pieces = [pairs[start : start + 2**18] for start in range(0, len(pairs), 2**18)]
    return np.concatenate([pairs[:0], *(piece[_distance(prints, others, piece) <= NEAREST] for piece in pieces)])


def _distance(prints: np.ndarray, others: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The part of the bits that differ, in pictures that both prints have: float [P]; 1 if there are too few."""
    one, other = prints[pairs[:, 0]], others[pairs[:, 1]]  # [P, PICTURES]
    both = (one != 0) & (other != 0)
    differing = np.where(both, np.bitwise_count(one ^ other), 0).sum(axis=1)
    count = both.sum(axis=1)
    return np.where(count >= _LEAST_PICTURES, differing / np.maximum(WORD * count, 1), 1.0)
