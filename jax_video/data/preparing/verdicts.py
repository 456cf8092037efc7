"""Which of the videos that give frames are used: what was found in a file, compared with what the user allows."""

import dataclasses
import fnmatch
import glob
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jax_video.data import clips, labels
from jax_video.data.decoding import probing
from jax_video.data.manifest import MISSING, SPLITS, FrameIndex, Manifest, Video
from jax_video.data.sources import text
from jax_video.errors import UserError

# Beginnings of the remarks on a video that is used although something is wrong with it.
LOST = "some frames lost"
ACCEPTED = "accepted"
BEYOND = "reaches beyond its file"
_NONE_THERE = "too short: no frame"  # begins the reason of a part that lies beyond its file altogether
# What may lie beyond, as the ends that lists give are rounded, or those of a longer version: seconds, part of the part.
_BEYOND_SECONDS, _BEYOND_PART = 1.0, 0.1
# Beginnings of the reasons that another `max_damage`, or `accept`, may overrule.
_OVERRULED = ("truncated", "damaged", "frames change size")


def is_loss(value: Any) -> bool:
    """Whether a value is a `probing.Loss` as a record stores it, or None."""
    return value is None or (
        isinstance(value, list) and [type(each) for each in value] == [int, int, str] and value[1] > 0
    )


def judged(
    row: Video, record: dict[str, Any], *, min_frames: int, max_damage: float, accepted: bool
) -> tuple[Video, str | None]:
    """(a row with what was found in its file, a remark if it is used although something is wrong).

    Args:
      row: the video; its rate is kept where the file does not say one.
      record: what `checks` has stored of its file.
      min_frames: a video with fewer is broken.
      max_damage: the part of its frames that may be lost, from 0 to 1.
      accepted: whether it is used for the frames that it gives, whatever is wrong with it.
    """
    if record["reason"] is not None:
        return row.broken(record["reason"]), None
    found = dict(record["video"])
    if not clips.is_rate(found["fps"]):  # as of pictures: what --fps has said stays
        found["fps"] = row.fps or found["fps"]
    if found["frames"] < min_frames:
        return row.broken(f"too short: {found['frames']} frames, expected at least {min_frames}"), None
    loss = record["loss"] and probing.Loss(*record["loss"])
    reason = probing.verdict(loss, record["fault"], max_damage)
    if reason is not None and not accepted:
        return row.broken(reason), None
    if found["index"] is not None:
        found["index"] = FrameIndex.from_json(found["index"])
    remarks = [f"{ACCEPTED}: {reason}" if reason else f"{LOST}: {loss.reason}"] if reason or loss else []
    checked = dataclasses.replace(row, **found, error=None)
    if row.span is not None and clips.is_rate(checked.fps):
        asked, there = row.span[1] - row.span[0], checked.frames / checked.fps
        if asked - there > max(_BEYOND_SECONDS, _BEYOND_PART * asked):
            remarks.append(f"{BEYOND}: {there:.1f} of its {asked:.1f} s are there")
    return checked, "; ".join(remarks) or None


def accepted(patterns: Sequence[str], root: str, paths: Iterable[str]) -> set[str]:
    """Those of the `paths` below `root` that `patterns` name.

    A pattern is the path of a file or a folder, from `root` or from the working folder, or such a path with *, ? or [].

    Raises:
      UserError: a pattern names none of the paths.
    """
    if not patterns:
        return set()
    paths = list(paths)
    found: set[str] = set()
    for pattern in patterns:
        below = os.path.relpath(pattern, root)
        named = {
            path
            for path in paths
            for each in (pattern.rstrip("/"), below)
            if path == each or path.startswith(f"{each}/") or fnmatch.fnmatchcase(path, each)
        }
        if not named:
            raise UserError(
                f"--accept={pattern} names none of the {len(paths):,} videos: expected the path of one, such as "
                f"{paths[0] if paths else 'a/b.mp4'}, of a folder, or a pattern such as '*.avi'"
            )
        found |= named
    return found


def advice(videos: Sequence[Video], remarks: Mapping[str, str], reasons: str | os.PathLike) -> list[str]:
    """Lines on what the user may do about broken videos, and about remarks; `reasons`: the file that lists both."""
    parts = [row for row in videos if row.span is not None and row.error != MISSING]
    beyond = [row for row in parts if BEYOND in remarks.get(row.name, "") or (row.error or "").startswith(_NONE_THERE)]
    lines = []
    if 2 * len(beyond) > len(parts):
        lines.append(
            f"warning: {len(beyond):,} of the {len(parts):,} parts reach beyond their files, {beyond[0].name} first: "
            f"start and end are taken for seconds; are they frames, or milliseconds? (see {reasons})"
        )
    broken = [row for row in videos if row.error is not None and row.error.startswith(_OVERRULED)]
    return lines + (_how_to_accept(broken, reasons) if broken else [])


def untrained(found: Manifest) -> list[str]:
    """A warning of classes that are tested, or validated, and that no video teaches."""
    classes: dict[str, set] = {split: set() for split in SPLITS}
    for row in found.videos:
        if row.error is None and row.label is not None:
            classes[row.split] |= labels.all_of(row.label)
    if not classes["train"]:
        return []
    strange = sorted((classes["test"] | classes["val"]) - classes["train"])
    if not strange:
        return []
    named = text.some([found.classes[index] for index in strange])
    return [f"warning: classes without a readable video to train on, which are tested all the same: {named}"]


def revived(before: Mapping[str, str | None], videos: Sequence[Video]) -> list[str]:
    """A warning of videos that are used now, and were not by other rules: {name: why not} `before`."""
    rules = ("too short", *_OVERRULED)
    names = [row.name for row in videos if row.error is None and (before.get(row.name) or "").startswith(rules)]
    if not names:
        return []
    return [
        f"warning: used now, and not before: {text.some(names)}; if the files are the same, say the rules again "
        "(--min_frames, --max_damage, --accept), which are not kept"
    ]


def _how_to_accept(broken: Sequence[Video], reasons: str | os.PathLike) -> list[str]:
    """A line on how to use broken videos that may still give frames."""
    path = broken[0].path
    named = glob.escape(path).replace(",", "?") if "," in path else path  # a comma would end the flag's value
    line = (
        f"truncated or damaged: {len(broken):,} (see {reasons}); {shlex.quote(f'--accept={named}')} uses the frames "
        "that this one still gives (or those of a folder or a pattern)"
    )
    if any(row.error and row.error.startswith(probing.LOSSES) for row in broken):
        line += ", --max_damage=0.2 all videos that have lost up to a fifth"
    return [line]
