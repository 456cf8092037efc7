"""A strict match of arrays with a network: every array that does not fit is named, in one error."""

import dataclasses
from collections.abc import Callable, Collection, Sequence

import jax
import numpy as np

from jax_video import state as state_lib
from jax_video.errors import UserError, listed
from jax_video.models.layers import check_choice
from jax_video.weights import mismatch
from jax_video.weights.inflate import METHODS, inflate
from jax_video.weights.names import shape_text


@dataclasses.dataclass
class Merged:
    """The result of a merge: the arrays, and their names by what happened to them."""

    arrays: dict[str, np.ndarray]  # those that were loaded or inflated, by our names
    loaded: list[str]
    inflated: list[str]
    fresh: list[str]  # of the network, left out by a pattern or not in the weights: to be initialised
    skipped: list[str]  # of the source, left out by a pattern

    def table(self) -> str:
        """A line for what was loaded, inflated, left fresh and skipped, and some names of what was left out."""
        sizes = {name: array.size for name, array in self.arrays.items()}
        lines = []
        for what in ("loaded", "inflated", "fresh", "skipped"):
            found = getattr(self, what)
            if not found:
                continue
            values = sum(sizes.get(name, 0) for name in found)
            named = ", ".join(found[:4]) + ", …" * (len(found) > 4)
            detail = f"{values:13,} values" if what in ("loaded", "inflated") else named
            lines.append(f"  {what:9}{len(found):5} arrays  {detail}".rstrip())
        return "\n".join(lines)


def merge(
    arrays: dict[str, np.ndarray],
    target: dict[str, jax.ShapeDtypeStruct],
    *,
    skip: Sequence[str] = (),
    partial: bool = False,
    method: str = "",
    views: Collection[str] = (),
    problems: Sequence[str] = (),
    source: str = "the weights",
    their_name: Callable[[str], str] = str,
    network: str = "",
    section: str = "model",
) -> Merged:
    """Match weights with the arrays of a network.

    Args:
      arrays: by our names, `params/…` and `batch_stats/…`; other names are reported as extra. The dict is emptied on
        the way.
      target: what the network has, by the same names.
      skip: shell patterns of names without `params/` and `batch_stats/`: what they match is not loaded, and starts
        afresh in the network.
      partial: arrays that the weights do not have start afresh. Those that they have must fit all the same.
      method: "mean" or "centre": kernels may be inflated (`inflate.inflate`). Empty: they must fit.
      views: names of CoST's kernels.
      problems: lines of what has gone wrong before, for the same message.
      source: where the weights are from, for the message.
      their_name: what the source calls an array of ours, for the message.
      network, section: its name, and the section of the config that describes it, for the message.

    Raises:
      UserError: arrays missing, left over or of another shape, or patterns that match nothing: in one message, which
        names the likely causes first; or values that are not finite, or negative variances.
    """
    if method:
        check_choice("inflate", method, METHODS)
    problems, merged = list(problems), Merged({}, [], [], [], [])
    of_views = mismatch.view_kernels(arrays)

    def skips(name: str) -> bool:
        return any(mismatch.matches(name, pattern) for pattern in skip)

    for pattern in skip:
        if not any(mismatch.matches(name, pattern) for name in (*arrays, *target)):
            problems.append(f"pattern  {pattern!r} of skip matches no name")
    merged.skipped = [name for name in arrays if skips(name)]
    for name in merged.skipped:
        del arrays[name]
    found = {name: array.shape for name, array in arrays.items()}
    for name, wanted in target.items():
        if skips(name) or (partial and name not in arrays):
            merged.fresh.append(name)
            continue
        if name not in arrays:
            called = f", there {their_name(name)}" if their_name(name) != name else ""
            problems.append(f"missing  {name} {shape_text(wanted.shape)}{called}")
            continue
        array = arrays.pop(name)
        fitting: np.ndarray | None = array
        if array.ndim == 5 and array.shape[0] > 1 and wanted.shape[0] > 1 and (name in of_views) != (name in views):
            there, here = ("views", "frames")[:: 1 if name in of_views else -1]
            problems.append(f"axis     {name}: the first axis is of {there}, expected one of {here}")
            continue
        if array.shape == wanted.shape:
            merged.loaded.append(name)
        elif method and (fitting := inflate(array, wanted.shape, method, views=name in views)) is not None:
            merged.inflated.append(name)
        else:
            problems.append(f"shape    {name}: found {shape_text(array.shape)}, expected {shape_text(wanted.shape)}")
            continue
        with np.errstate(over="ignore"):  # reported below
            merged.arrays[name] = np.asarray(fitting, wanted.dtype)
    if partial and not merged.loaded + merged.inflated:
        problems.append("nothing  of them is in the network")
    problems += [f"extra    {name} {shape_text(array.shape)}" for name, array in arrays.items()]
    if problems:
        expected = {name: leaf.shape for name, leaf in target.items() if name not in merged.fresh}
        likely = mismatch.causes(found, expected, network=network, section=section, inflates=bool(method))
        causes = "\n".join(f"Likely: {cause}." for cause in likely) or (
            "Is the config, with its width and depth, of their network? What shall start afresh in a training run is "
            "left out, by name in init_from.skip."
        )
        raise UserError(
            f"{source} do not fit the network: {len(problems)} problem{'s' * (len(problems) > 1)}. {causes}\n"
            + listed(problems)
        )
    if broken := [line for name, array in merged.arrays.items() if (line := state_lib.defect(name, array))]:
        raise UserError(
            f"{source} are no values that a network computes with, in {len(broken)} of {len(merged.arrays)} arrays; "
            "has their training diverged, or is the file damaged?\n" + listed(broken)
        )
    return merged
