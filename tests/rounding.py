"""How far two right answers may lie apart.

To the bit equal is only what one program computes on one machine: how a sum is ordered, and what is fused, follows
from the processor, the number of threads and devices, and the compiler. Else a test compares in float64, or allows what
so many roundings can do.
"""

import math

import numpy as np


def roundings(count: int, dtype: np.typing.DTypeLike = np.float32) -> float:
    """The largest relative error of a value that was rounded so many times (Higham, Accuracy and Stability of Numerical
    Algorithms, 2002, Lemma 3.1); of a sum of n terms, in any order, n - 1 relative to the sum of their absolute values
    (eq. 4.4)."""
    unit = np.finfo(dtype).eps / 2
    return count * unit / (1 - count * unit)


def of_a_sum(terms: int, dtype: np.typing.DTypeLike = np.float32) -> float:
    """The same of a sum of so many terms, relative to the sum of their absolute values, where roundings are as good as
    random: they add up to the square root of their number (Higham and Mary, A New Approach to Probabilistic Rounding
    Error Analysis, 2019). Four times as much is out of reach."""
    return roundings(math.ceil(4 * math.sqrt(terms)), dtype)
