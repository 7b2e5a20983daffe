"""The arrays that figures are computed from. Those of vectors and pixels are in models/info.py."""

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
# indices of rows, labels or pictures, and counts of them
Places = npt.NDArray[np.int64]
# yes and no
Truth = npt.NDArray[np.bool_]
