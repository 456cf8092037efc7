"""The file with the report of a run, or of two side by side."""

import contextlib
import os
import pathlib
from typing import Any

from jax_video import published
from jax_video.data import copies, remote
from jax_video.data.manifest import Manifest
from jax_video.errors import UserError, writing
from jax_video.reporting import comparison, page, record, single
from jax_video.run import Run

NAME = "report.html"  # in a run's folder


def write_report(
    run: Run | str | os.PathLike,
    other: Run | str | os.PathLike | None = None,
    *,
    out: str | os.PathLike | None = None,
    mistakes: int = 8,
    explain: bool = True,
    data: str | os.PathLike | Manifest | None = None,
) -> remote.Path:
    """Write one HTML file about a run, or about two side by side, that needs no network and no other file.

    It is made from what is in the run's folder, also while the run is trained; the page says what is missing there.

    Args:
      run, other: folders of runs or of fused scores, local or in gs://; runs in other stores or behind URLs; or a run
        that is open.
      out: the file; by default report.html in the folder of the first. It must be given where that folder is only read:
        in stores other than gs://, and for an exported folder in which no test was run.
      mistakes: how many to show, those of which the network was surest.
      explain: whether to show what the network looked at, which takes some seconds.
      data: the set that they were tested on, if not the one that their config names.

    Returns:
      The file that was written.

    Raises:
      UserError: no run is there, both are the same one, `out` must be given, or the file cannot be written.
    """
    if not isinstance(mistakes, int) or mistakes < 0:
        raise UserError(f"mistakes is {mistakes!r}: expected a number from 0")
    if out is None and (published.is_copied(_folder(run)) or copies.is_copy(_folder(run))):
        place = copies.without_password(os.fspath(_folder(run)))
        raise UserError(f"{place} is only read: say where to write, such as --out={NAME}")
    records = [
        record.read(_folder(each), data=data, opened=each if isinstance(each, Run) else None)
        for each in (run, other)
        if each is not None
    ]
    if len({remote.real(each.folder) for each in records}) < len(records):
        raise UserError(f"{records[0].folder} is named twice: expected two runs")
    if out is None and records[0].exported and not (records[0].folder / "test.json").exists():
        raise UserError(
            f"{records[0].folder} is a run that was exported, for others: say where to write, such as --out={NAME}"
        )
    target = records[0].folder / NAME if out is None else remote.path(out)
    if not remote.is_remote(target) and target.is_dir():
        target = target / NAME
    if not remote.is_remote(target) and target.exists() and not _is_report(target):
        raise UserError(f"{target} is no report, and one would take its place: choose another --out")
    if out is not None and os.fspath(out).endswith(("/", os.sep)) and target.name != NAME:
        raise UserError(f"--out={os.fspath(out)}: there is no such folder; make it, or name a file")
    if len(records) == 2:
        content = comparison.document(*records)
    else:
        opened = run if isinstance(run, Run) else None
        content = single.document(records[0], opened, most=mistakes, explain=explain)
    with writing(target, "then give the same command"):
        try:
            remote.write_whole(target, [content])
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise UserError(f"cannot write {target} ({error.strerror}): choose another --out") from error
    return target


def _is_report(path: pathlib.Path) -> bool:
    """Whether a file is a page, or empty."""
    if not path.is_file():
        return False
    with contextlib.suppress(OSError), path.open("rb") as file:
        head = file.read(1024)
        return not head or page.SIGN in head
    return True  # writing it says why it cannot be


def _folder(run: Any) -> str | os.PathLike:
    return run.folder if isinstance(run, Run) else run
