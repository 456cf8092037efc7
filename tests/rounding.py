"""How far two right answers may lie apart.

To the bit equal is only what one program computes on one machine: how a sum is ordered, and what is fused, follows
from the processor, the number of threads and devices, and the compiler. Else a test compares in float64, or allows what
so many roundings can do.
"""

import numpy as np


def roundings(count: int, dtype: np.typing.DTypeLike = np.float32) -> float:
    """The largest relative error of a value that was rounded so many times (Higham, Accuracy and Stability of Numerical
    Algorithms, 2002, Lemma 3.1); of a sum of n terms, in any order, n - 1 relative to the sum of their absolute values
    (eq. 4.4)."""
    unit = np.finfo(dtype).eps / 2
    return count * unit / (1 - count * unit)
