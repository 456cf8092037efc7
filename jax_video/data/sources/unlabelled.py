"""Any folder of videos, without labels."""

import pathlib

from jax_video.data.sources import finding, listing
from jax_video.data.sources.listing import Listing
from jax_video.errors import UserError


def find(videos: pathlib.Path, *, fraction: float = 0.1, seed: int = 0) -> Listing:
    """Any folder of videos, at any depth, for knowledge transfer: no labels are read, and there are no classes.

    The fraction is for test, and as much for validation, drawn by `seed`.

    Raises:
      UserError: no videos, or a fraction that cannot be.
    """
    listing.check_fraction(fraction)
    found, ignored, faults = finding.find_videos(videos)
    if not found:
        raise UserError(
            f"no videos in {videos}: looked for {finding.LOOKED_FOR} in it and below{finding.instead(ignored)}"
        )
    rows = [listing.unopened(path, None, "train", finding.stem(path), faults.get(path)) for path in found]
    rows = listing.split_by_fraction(rows, fraction, seed, ("test", "val"))
    notes = [*finding.ignored_note(ignored), f"{fraction:.0%} is for test and as much for validation (seed {seed})"]
    return Listing(videos.absolute().name, (), videos, tuple(rows), tuple(notes))
