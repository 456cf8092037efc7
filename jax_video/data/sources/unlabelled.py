"""Any folder of videos, without labels."""

from jax_video.data import remote
from jax_video.data.sources import finding, listing
from jax_video.data.sources.listing import Listing
from jax_video.errors import UserError


def find(videos: remote.Path, *, fraction: float = listing.DRAWN, seed: int = 0) -> Listing:
    """Any folder of videos, at any depth, for knowledge transfer: no labels are read, and there are no classes.

    The fraction is for test, and as much for validation, drawn by `seed`.

    Raises:
      UserError: no videos, or an impossible fraction.
    """
    listing.check_fraction(fraction)
    found = finding.find_videos(videos)
    paths, twin_notes = finding.once(videos, found)
    if not paths:
        raise UserError(
            f"no videos in {videos}: looked for {finding.LOOKED_FOR} in it and below{finding.instead(found)}"
        )
    rows = [listing.unopened(path, None, "train", finding.stem(path), found.faults.get(path)) for path in paths]
    rows = listing.split_by_fraction(rows, fraction, seed, ("test", "val"))
    draw = f"{fraction:.0%} is for test and as much for validation (seed {seed})"
    notes = [*finding.ignored_note(found), *twin_notes, draw]
    return Listing(remote.absolute(videos).name, (), videos, tuple(rows), tuple(notes))
