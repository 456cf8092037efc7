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
    folds: list[int]  # of each video: those of one fold are told by one network, or by one of each seed


def balanced(outcomes: Outcomes) -> float:
    """The balanced accuracy, mean over the seeds: all classes count alike."""
    counts = collections.Counter(outcomes.labels)
    shares = np.array([1 / counts[label] / len(counts) for label in outcomes.labels])
    return float((outcomes.right * shares).sum(axis=1).mean())


class Difference(NamedTuple):
    """By how much one accuracy is above another, and what else it could be (95 % intervals)."""

    gain: float
    videos: tuple[float, float]  # had other videos been tested
    networks: tuple[float, float]  # had other networks been trained; of a single one of each kind, any

    @property
    def verdict(self) -> str:
        """What is known of the claim that the first is better; if nothing, with half the wider interval in points."""
        low, high = (choose(self.videos[end], self.networks[end]) for end, choose in ((0, min), (1, max)))
        return "holds" if low > 0 else "does not" if high < 0 else f"cannot tell (±{50 * (high - low):.0f})"


def difference(one: Outcomes, other: Outcomes) -> Difference:
    """The difference of two accuracies on the same videos.

    *Videos.* Groups of videos are drawn, with replacement, as many as there are (paired bootstrap): videos of one group
    are not independent, so single ones would make the interval too narrow. So would the quantiles of the draws, where
    groups are few: of five, they miss no difference in 13 % of cases. The interval is the draws' standard deviation
    times Student's t (5 % missed).

    *Networks.* All videos of a fold are told by the same networks, and another seed, or another rounding, can change a
    network's accuracy by more than what is compared. So this is Student's t interval of the mean of the folds'
    differences or, of one fold, of the seeds'.

    Raises:
      ValueError: they are not of the same videos.
    """
    if one[1:] != other[1:]:
        raise ValueError("the two are not of the same videos in the same order")
    gain = one.right.mean(axis=0) - other.right.mean(axis=0)  # of each video, over the seeds
    names = sorted(set(one.groups))
    members = np.array(one.groups)[None] == np.array(names)[:, None]  # [groups, videos]
    sums, sizes = members @ gain, members.sum(axis=1)
    drawn = np.random.default_rng(0).integers(len(names), size=(DRAWS, len(names)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    spread = means.std() * np.sqrt(len(names) / (len(names) - 1))  # draws spread less than samples do
    found, half = float(gain.mean()), float(stats.t.ppf((1 + LEVEL) / 2, len(names) - 1) * spread)

    folds, numbers = np.array(one.folds), sorted(set(one.folds))
    if len(numbers) > 1:
        each = np.array([gain[folds == number].mean() for number in numbers])
    else:
        each = one.right.mean(axis=1) - other.right.mean(axis=1)
    spread = stats.sem(each) if len(each) > 1 else np.inf
    half_of_networks = float(stats.t.ppf((1 + LEVEL) / 2, max(len(each) - 1, 1)) * spread)
    return Difference(found, (found - half, found + half), (found - half_of_networks, found + half_of_networks))
