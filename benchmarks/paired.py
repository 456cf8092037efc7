"""Two networks' accuracies on the same videos: their difference, how sure it is, and what that says."""

import collections
from typing import NamedTuple

import numpy as np
from scipy import stats

DRAWS, LEVEL = 10_000, 0.95


class Outcomes(NamedTuple):
    """What networks that were trained alike got right of a set of videos."""

    right: np.ndarray  # bool [seeds, videos]
    groups: list[str]  # of each video: those of one group resemble each other
    labels: list[str]  # of each video


def balanced(outcomes: Outcomes) -> float:
    """The balanced accuracy, mean over the seeds: all classes count alike."""
    counts = collections.Counter(outcomes.labels)
    shares = np.array([1 / counts[label] / len(counts) for label in outcomes.labels])
    return float((outcomes.right * shares).sum(axis=1).mean())


def difference(one: Outcomes, other: Outcomes) -> tuple[float, float, float]:
    """By how much one's accuracy is above the other's, and the ends of its 95 % interval.

    Groups of videos are drawn, with replacement, as many as there are (paired bootstrap): videos of one group are not
    independent, so single ones would make the interval too narrow. So would the quantiles of the draws, where groups
    are few: of five, they miss no difference in 13 % of cases. The interval is the draws' standard deviation times
    Student's t (5 % missed).

    Raises:
      ValueError: they are not of the same videos.
    """
    if one.groups != other.groups or one.labels != other.labels:
        raise ValueError("the two are not of the same videos in the same order")
    gain = one.right.mean(axis=0) - other.right.mean(axis=0)  # of each video, over the seeds
    names = sorted(set(one.groups))
    members = np.array(one.groups)[None] == np.array(names)[:, None]  # [groups, videos]
    sums, sizes = members @ gain, members.sum(axis=1)
    drawn = np.random.default_rng(0).integers(len(names), size=(DRAWS, len(names)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    spread = means.std() * np.sqrt(len(names) / (len(names) - 1))  # draws spread less than samples do
    found, half = float(gain.mean()), float(stats.t.ppf((1 + LEVEL) / 2, len(names) - 1) * spread)
    return found, found - half, found + half


def verdict(low: float, high: float) -> str:
    """What an interval says of the claim that the first is better; where it says nothing, half its width in points."""
    return "holds" if low > 0 else "does not" if high < 0 else f"cannot tell (±{50 * (high - low):.0f})"
