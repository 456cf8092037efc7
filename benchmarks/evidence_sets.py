"""The sets of evidence.py, split into folds by groups of videos."""

import collections
import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator

from evidence_claims import FOLDS, QUICK_FLOW, STREAM, UNLABELLED, Claim, Row

from jax_video.data.decoding.flow import read_settings
from jax_video.data.manifest import Manifest
from jax_video.data.sources import motions, prepared
from jax_video.errors import UserError


@dataclasses.dataclass(frozen=True)
class Sets:
    """Where the sets of claims come from, and where their folds go.

    Attributes:
      data: folder of the prepared sets, by their names.
      out: folder for the folds' manifests.
    """

    data: pathlib.Path
    out: pathlib.Path | None

    def begin(self) -> None:
        """Nothing: each set's manifest lies in `data`."""

    def manifest(self, name: str) -> Manifest:
        return _motions() if name == "motions" else _read(self.data / name)

    def source(self, claim: Claim) -> pathlib.Path:
        """The prepared set of a claim, as it was prepared."""
        return self.data / claim.data

    def folder(self, claim: Claim, fold: int) -> pathlib.Path:
        """The prepared set of a fold, for `--config=…,data=`."""
        return self.out / "sets" / (f"{claim.data}-{fold}" if claim.folds > 1 else claim.data)

    @property
    def unlabelled(self) -> pathlib.Path:
        """The prepared set of all that a network may see before it is given labels."""
        return self.out / "sets" / "unlabelled"

    def parts(self, claim: Claim) -> list[Manifest]:
        """The set as each fold splits it."""
        whole = self.manifest(claim.data)
        return list(folds(whole)) if claim.folds > 1 else [whole]

    def trained_on(self, claim: Claim, row: Row, fold: int) -> Manifest:
        """What a row is trained on: the set as a fold splits it, or all that it may see without labels."""
        return self.without_labels(claim) if UNLABELLED in row.config else self.parts(claim)[fold]

    def without_labels(self, claim: Claim) -> Manifest:
        """The training videos of the claim's set by its own split, and all fights."""
        return without_labels(self.manifest(claim.data), self.manifest("fights"))

    def write(self, claim: Claim) -> None:
        """Write the manifest of every fold."""
        if self.manifest(claim.data).packed:
            raise UserError(f"the set in {self.source(claim)} is packed, and cannot be split anew: prepare it without")
        for fold, part in enumerate(self.parts(claim)):
            part.write(self.folder(claim, fold) / "manifest.jsonl")
        if any(UNLABELLED in row.config for row in claim.rows.values()):
            self.without_labels(claim).write(self.unlabelled / "manifest.jsonl")

    def flow_method(self) -> str:
        """How the optical flow that motion streams see is computed."""
        return STREAM["clip.flow_method"]

    def flow_command(self, claim: Claim) -> list[str]:
        """What stores the optical flow that the claim's motion streams see, in the prepared set; empty if none does."""
        if not claim.sees_flow:
            return []
        flow = [f"--flow={self.flow_method()}", f"--flow_side={STREAM['clip.short_side']}"]
        return ["python", "-m", "jax_video.prepare", "manifest", f"--out={self.source(claim)}", *flow]


@dataclasses.dataclass(frozen=True)
class OneSet(Sets):
    """One prepared set, with its own splits, in the place of all. `data` is its folder or its manifest, which stay as
    they are: a copy of the manifest lies in `out`, and so does optical flow, if the set has none.
    """

    @property
    def unlabelled(self) -> pathlib.Path:
        return self.out / "set"

    @property
    def _flow(self) -> str:
        """Where flow is stored if the set has none."""
        return str(self.unlabelled / "flow")

    def begin(self) -> None:
        """Write the copy, which names the videos where they are now, and flow such as streams see: what it has named
        before, as runs may have begun with that; else the set's; else what is stored beside it.

        Raises:
          UserError: there is one of another set.
        """
        given, copy = _read(self.data), self.unlabelled / "manifest.jsonl"
        known = Manifest.read(copy) if copy.exists() else given
        if known.hash != given.hash:
            raise UserError(f"{self.out} has runs on other videos than those of {self.data}: choose another --out")
        flow = next(filter(_method, (known.flow, given.flow, self._flow)), None)
        dataclasses.replace(given, flow=flow).write(copy)
        forget()

    def manifest(self, name: str) -> Manifest:
        copied = self.unlabelled
        return _read(copied if (copied / "manifest.jsonl").exists() else self.data)

    def source(self, claim: Claim) -> pathlib.Path:
        return self.unlabelled

    def folder(self, claim: Claim, fold: int) -> pathlib.Path:
        return self.unlabelled

    def parts(self, claim: Claim) -> list[Manifest]:
        return [self.manifest(claim.data)]

    def without_labels(self, claim: Claim) -> Manifest:
        """The set itself: the labels are not looked at."""
        return self.manifest(claim.data)

    def write(self, claim: Claim) -> None:
        """There are no folds."""

    def flow_method(self) -> str:
        """That of stored flow; a quick one for flow that is to be stored."""
        return _method(self.manifest("").flow) or QUICK_FLOW

    def flow_command(self, claim: Claim) -> list[str]:
        copied = self.manifest("")
        command = [] if copied.flow not in (None, self._flow) else super().flow_command(claim)  # ends if all is stored
        if command and copied.packed:
            raise UserError(
                f"{self.data} is packed, and its optical flow is not stored: give the set that it was made of"
            )
        return command


def _method(flow: str | None) -> str | None:
    """How stored flow was computed; None if there is none, or of frames of another size than the streams see."""
    try:
        method, side, *_ = read_settings(flow) if flow is not None else (None, 0)
    except UserError:
        return None
    return method if side == STREAM["clip.short_side"] else None


@functools.cache
def _motions() -> Manifest:
    return motions.read(val=1024, test=1024)


@functools.cache
def _read(folder: pathlib.Path) -> Manifest:
    return prepared.read(folder)


def forget() -> None:
    """Read the sets again when they are needed next."""
    _read.cache_clear()


def group_of(video) -> str:
    return video.source or video.path


def folds(manifest: Manifest) -> Iterator[Manifest]:
    """The set once for each of `FOLDS` parts of about equal size, which is its test; no group is in two parts."""
    sizes = collections.Counter(map(group_of, manifest.videos))
    parts: list[list[str]] = [[] for _ in range(FOLDS)]
    for group, _ in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        min(parts, key=lambda part: sum(sizes[each] for each in part)).append(group)
    for part in parts:
        videos = (
            dataclasses.replace(video, split="test" if group_of(video) in part else "train")
            for video in manifest.videos
        )
        yield dataclasses.replace(manifest, videos=tuple(videos))


def without_labels(of: Manifest, wholly: Manifest) -> Manifest:
    """The training videos of one set and all of another, without labels."""
    root = pathlib.Path(os.path.commonpath([of.root, wholly.root]))
    videos = [
        dataclasses.replace(
            video,
            path=str(pathlib.Path(each.root, video.path).relative_to(root)),
            label=None,
            split="train" if each is wholly else video.split,
        )
        for each in (of, wholly)
        for video in each.videos
    ]
    return Manifest("without labels", (), str(root), tuple(videos))
