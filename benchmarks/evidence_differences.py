"""Two rows' accuracies on the same videos: their difference, how sure it is, and what that says."""

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


def balanced_accuracy(outcomes: Outcomes) -> float:
    """The balanced accuracy, in which all classes count alike: the mean of the classes' accuracies, over the seeds."""
    return float(_mean_of_classes(outcomes.right.mean(axis=0), _members(outcomes.labels)))


def _members(of: list) -> np.ndarray:
    """Which videos are of which class, or group: bool [classes, videos]."""
    return np.array(of)[None] == np.array(sorted(set(of)))[:, None]


def _mean_of_classes(values: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The mean over the classes, bool [classes, videos], of their means of the values [..., videos]; one that has no
    video is left out."""
    there = classes.any(axis=1)
    return (values.astype(float) @ classes[there].T / classes[there].sum(axis=1)).mean(axis=-1)


class Difference(NamedTuple):
    """By how much one accuracy is above another, and the ends of two 95 % intervals around it."""

    gain: float
    videos: tuple[float, float]  # with other test videos
    networks: tuple[float, float]  # with newly trained networks; infinite if there is one of each kind

    @property
    def ends(self) -> tuple[float, float]:
        """Of both intervals together."""
        return min(self.videos[0], self.networks[0]), max(self.videos[1], self.networks[1])


def verdict(*found: Difference) -> str:
    """What is known of the claim that the first is better, by these measures of it; if nothing, with half the widest
    interval in points."""
    low, high = min(each.ends[0] for each in found), max(each.ends[1] for each in found)
    widest = max(each.ends[1] - each.ends[0] for each in found)
    return said(low, high) + (f" (±{50 * widest:.0f})" if low <= 0 <= high else "")


def said(low: float, high: float) -> str:
    """What the interval of a difference says of the claim that it is above zero."""
    return "holds" if low > 0 else "does not" if high < 0 else "cannot tell"


def difference(one: Outcomes, other: Outcomes, *, balanced: bool = False) -> Difference:
    """The difference of two accuracies, or of two balanced ones, on the same videos. A balanced one is the mean over
    the classes, in every draw and in every fold anew, so that folds with other shares of the classes count alike.

    *Videos.* Groups of videos are drawn, with replacement, as many as there are (paired bootstrap): videos of one group
    are not independent, so single ones would make the interval too narrow. So would the quantiles of the draws, if
    groups are few: of five, in 13 % of cases they leave out zero though there is no difference. The interval is the
    draws' standard deviation times Student's t (5 %).

    *Networks.* All videos of a fold are told by the same networks, and another seed, or another rounding, can change a
    network's accuracy by more than what is compared. So this is Student's t interval of the mean of the folds'
    differences or, of one fold, of the seeds', around that mean. Folds share most of their training videos, which it
    does not know.

    Raises:
      ValueError: they are not of the same videos.
    """
    if one[1:] != other[1:]:
        raise ValueError("the two are not of the same videos in the same order")
    classes = _members(one.labels if balanced else [""] * len(one.labels))  # [classes, videos]
    gain = one.right.mean(axis=0) - other.right.mean(axis=0)  # of each video, over the seeds
    found = float(_mean_of_classes(gain, classes))

    groups = _members(one.groups)  # [groups, videos]
    sums, sizes = groups @ (gain * classes).T, groups @ classes.T.astype(int)  # [groups, classes]
    drawn = np.random.default_rng(0).integers(len(groups), size=(DRAWS, len(groups)))
    with np.errstate(invalid="ignore"):  # a class of which a draw has no video is left out of it
        means = np.nanmean(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), axis=1)
    # Draws spread less than samples do. Of a single group nothing is known.
    spread = means.std() * np.sqrt(len(groups) / (len(groups) - 1)) if len(groups) > 1 else np.inf

    folds = _members(one.folds)
    if len(folds) > 1:
        each = np.array([_mean_of_classes(gain[fold], classes[:, fold]) for fold in folds])
    else:
        each = _mean_of_classes(one.right, classes) - _mean_of_classes(other.right, classes)  # of each seed
    error = stats.sem(each) if len(each) > 1 else np.inf
    return Difference(found, _interval(found, spread, len(groups)), _interval(float(each.mean()), error, len(each)))


def above_chance(outcomes: Outcomes) -> Difference:
    """By how much the balanced accuracy is above that of a guess, which has each class right as often."""
    guess = np.full((1, len(outcomes.labels)), 1 / len(set(outcomes.labels)))
    return difference(outcomes, outcomes._replace(right=guess), balanced=True)


def _interval(middle: float, error: float, number: int) -> tuple[float, float]:
    """Student's t interval of a mean of so many numbers with this standard error."""
    if number < 2:
        return -np.inf, np.inf
    half = float(stats.t.ppf((1 + LEVEL) / 2, number - 1) * error)
    return middle - half, middle + half


def mean_interval(values: list[float]) -> tuple[float, float]:
    """Student's t interval of the mean of some numbers."""
    return _interval(float(np.mean(values)), float(stats.sem(values)), len(values))


def interval_between(ones: list[float], others: list[float]) -> tuple[float, float]:
    """The 95 % interval of the difference of the means of some numbers and of some others, which may differ in spread
    (Welch)."""
    found = stats.ttest_ind(ones, others, equal_var=False).confidence_interval(LEVEL)
    return float(found.low), float(found.high)
