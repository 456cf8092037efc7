"""The video below a folder that a listed path means, even in a list that was made for another folder."""

import collections
import functools
import os
import posixpath
from collections.abc import Collection, Sequence

from jax_video.data import remote
from jax_video.data.labels import Label
from jax_video.data.sources import finding, splits, text
from jax_video.data.sources.columns import Entry
from jax_video.errors import UserError


class Places:
    """The videos below a folder, to find the one that a listed path means, even in a list made for another folder."""

    def __init__(self, root: remote.Path, found: Sequence[str]):
        near = not remote.is_remote(root)
        self._found = found
        self._windows = not any("\\" in path for path in found)  # whether paths may be written as under Windows
        self._roots = tuple({os.path.abspath(root), os.path.realpath(root)} if near else {os.fspath(root)})
        self._whole = collections.defaultdict(list)
        self._ends = collections.defaultdict(list)  # by the last part and by the last two
        for path in found:
            key = text.fold(finding.without_extension(path))
            self._whole[key].append(path)
            for count in {1, min(2, key.count("/") + 1)}:
                self._ends["/".join(key.split("/")[-count:])].append(path)

    @functools.cached_property
    def _splits(self) -> dict[str, str]:
        """The splits of the folders that lie in the videos' folder, by name."""
        return splits.of_all(dict.fromkeys(path.split("/")[0] for path in self._found if "/" in path))

    def relative(self, path: str) -> str:
        """A listed path relative to the folder of the videos, as far as that can be told."""
        if "/" not in path or self._windows:
            path = path.replace("\\", "/")
        for root in self._roots:
            if path.startswith(root + "/"):
                path = path[len(root) :]
        return "/".join(part for part in posixpath.normpath(path).split("/") if part not in ("", ".."))

    def candidates(self, path: str) -> list[str]:
        """The videos that a listed path may mean."""
        key = text.fold(finding.without_extension(self.relative(path)))
        if key in self._whole:
            return self._whole[key]
        ends = self._ends.get("/".join(key.split("/")[-2:]), []) + self._whole.get(key.split("/")[-1], [])
        return [path for path in dict.fromkeys(ends) if _ends_alike(key, text.fold(finding.without_extension(path)))]

    def find_all(self, entries: Sequence[Entry], labels: Sequence[Label]) -> tuple[list[str | None], list[str]]:
        """(the video that each entry means, None if there is none; notes on those that are told apart by likeness).

        If entries say different things of one video, it is that of those whose path is most like its own: the video of
        the others, of another folder, extension or case, is missing.

        Raises:
          UserError: a path that means several videos.
        """
        found = [self._find(entry) for entry in entries]
        claims: dict[tuple, dict[tuple[str, str], Label]] = collections.defaultdict(dict)
        for entry, label, place in zip(entries, labels, found, strict=True):
            if place is not None:
                claims[place, entry.span].setdefault((entry.path, entry.split), label)
        best = {
            claimed: max(self._likeness(*each, claimed[0]) for each in said)
            for claimed, said in claims.items()
            if len({*said.values()}) > 1 and not any(isinstance(label, tuple) for label in said.values())
        }
        notes: list[str] = []
        taken: list[str] = []
        elsewhere: list[str] = []
        for i, (entry, place) in enumerate(zip(entries, found, strict=True)):
            claimed = place, entry.span
            if place is not None and (
                (claimed in best and self._likeness(entry.path, entry.split, place) < best[claimed])
                or self._is_of_another_split(entry, place, claims[claimed])
            ):
                taken.append(f"{entry.where}: {text.short(entry.path)} beside {place}")
                found[i] = None
            elif place is not None and not elsewhere and self._is_elsewhere(entry.path, place):
                elsewhere.append(f"{entry.where}: {text.short(entry.path)}, where {place} is taken")
        if taken:
            notes.append(f"missing, though another line has what is like it: {len(taken)}, e.g. {taken[0]}")
        if elsewhere:
            notes.append(
                f"warning: paths that are there, but not below --videos, such as {elsewhere[0]}: if that is another "
                "video, let --videos be the folder of both"
            )
        return found, notes

    def _is_elsewhere(self, path: str, place: str) -> bool:
        """Whether an absolute path is that of another file, or folder of pictures, than the video that is taken."""
        inside = path.startswith(tuple(f"{root}/" for root in self._roots))
        if inside or not os.path.isabs(path) or not os.path.exists(path):
            return False
        try:
            return not os.path.samefile(path, os.path.join(self._roots[0], place))
        except OSError:  # the videos are in a store
            return True

    def _is_of_another_split(self, entry: Entry, place: str, claims: Collection[tuple[str, str]]) -> bool:
        """Whether a video lies in the folder of another split, whose list has it, and the entry's split has a folder,
        in which its own video is missing."""
        of = self._splits.get(place.split("/")[0])
        if of in (None, entry.split) or entry.split not in self._splits.values():
            return False
        return not self._is_exact(entry.path, place) and any(split == of for _, split in claims)

    def _is_exact(self, listed: str, path: str) -> bool:
        """Whether a listed path is that of a video, with or without its extension."""
        listed = text.compose(self.relative(listed))
        return listed in (text.compose(path), text.compose(finding.without_extension(path)))

    def _likeness(self, listed: str, split: str, path: str) -> tuple[bool, bool, bool, bool]:
        """How much a video is like the one that is listed for a split, the most important first."""
        exact = self._is_exact(listed, path)
        listed = text.compose(self.relative(listed))
        return (
            exact,
            text.compose(finding.without_extension(path)) == finding.without_extension(listed),
            exact or self._splits.get(path.split("/")[0]) == split,
            exact or os.path.splitext(path)[1].lower() == os.path.splitext(listed)[1].lower(),
        )

    def _find(self, entry: Entry) -> str | None:
        """The video that an entry may mean; None if there is none. Raises UserError if it may be one of several."""
        candidates = self.candidates(entry.path)
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        alike = {path: self._likeness(entry.path, entry.split, path) for path in candidates}
        best = max(alike.values())
        candidates = [path for path in candidates if alike[path] == best]
        if len({text.fold(posixpath.dirname(path)) for path in candidates}) > 1:
            raise UserError(
                f"{entry.where}: {text.short(entry.path)} may be any of {text.some(candidates)}; "
                "write its path as it is below --videos"
            )
        return candidates[0]


def _ends_alike(one: str, other: str) -> bool:
    """Whether one path ends with all of the other."""
    return f"/{one}".endswith(f"/{other}") or f"/{other}".endswith(f"/{one}")
