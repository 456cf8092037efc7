"""A folder as the Hugging Face package `datasets` reads it (VideoFolder): class folders, or files of metadata."""

import posixpath
from collections.abc import Sequence

from jax_video.data import remote
from jax_video.data.sources import finding, folder, splits, table
from jax_video.data.sources.listing import Listing
from jax_video.errors import UserError


def find(
    videos: remote.Path,
    *,
    columns: Sequence[str] = (),
    label_separator: str | None = None,
    class_names: remote.Path | None = None,
    fraction: float | None = None,
    seed: int | None = None,
) -> Listing:
    """A folder with metadata.csv, metadata.jsonl or metadata.parquet in it or in its folders, or with class folders.

    Each row of metadata names a video, `file_name`, by its path from the folder of that file, and its `label`. A video
    is for the split that one of the folders on the way to it is named after (train, validation, dev, test, eval, ...),
    or that a column `split` says. All else is as in `table.find`. Unlike here, `datasets` takes `eval` for test even
    where others are for test and none for validation.

    As with `datasets`, class folders count only where there is no metadata; they are read by `folder.find`.

    Raises:
      UserError: as `table.find` or `folder.find`; or a folder has two files of metadata.
    """
    finding.check_folder(videos)
    table.check_separator(label_separator)
    files = _metadata(videos)
    if not files:
        if columns or class_names is not None or label_separator is not None:
            raise UserError(
                "--columns, --label_separator and --class_names need metadata, and "
                f"{videos} has no {' or '.join(finding.METADATA)}"
            )
        return folder.find(videos, fraction=fraction, seed=seed)
    rows: list[table.Row] = []
    notes: list[str] = []
    for below, name in files:
        path = videos / below / name
        found, said = table.read(path, asked=columns, below=below, label_separator=label_separator)
        rows += [row if row.entry.split else row.of_split(_folder_of_split(row.entry.path)) for row in found]
        notes += said
    return table.place("the metadata", videos, rows, notes, class_names, fraction, seed, label_separator)


def _metadata(videos: remote.Path) -> list[tuple[str, str]]:
    """(folder, relative to that of the videos, name) of each file of metadata. Raises UserError for two in a folder."""
    found = []
    for below in finding.folders_below(videos):
        there = [name for name in finding.METADATA if (videos / below / name).is_file()]
        if len(there) > 1:
            raise UserError(f"{videos / below} has {' and '.join(there)}: leave one of them, which says all")
        found += [(below, name) for name in there]
    return found


def _folder_of_split(path: str) -> str:
    """The first folder in a video's path that is named after a split; empty if none is."""
    return next((part for part in posixpath.dirname(path).split("/") if splits.of(part)), "")
