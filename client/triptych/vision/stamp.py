"""Class names travel with the candidates: which names the labels mean, as a column of `candidates`.

Only the detector knows for sure. While a server switches over, candidates of one version may meet a postprocess that
was started with another one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from triptych.contract import CANDIDATE_FIELDS

_COLUMNS = len(CANDIDATE_FIELDS)


def stamp(candidates: NDArray[np.float32], names: int) -> NDArray[np.float32]:
    """Return candidates float32 [n, K, 6] with a last column that says whose class names are meant, see `names_id`."""
    stamped = np.empty((*candidates.shape[:2], _COLUMNS + 1), np.float32)
    stamped[..., :_COLUMNS] = candidates
    stamped[..., _COLUMNS] = names
    return stamped


def read_stamp(candidates: NDArray[np.float32], names: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Undo `stamp`.

    Args:
        candidates: float32 [n, K, 6] or [n, K, 7].
        names: which class names those without a stamp mean.

    Returns:
        The candidates [n, K, 6], and `NAMES`, int32 [n, 1].
    """
    meant = np.full((len(candidates), 1), names, np.int32)
    if candidates.ndim == 3 and candidates.shape[2] == _COLUMNS + 1:
        if candidates.shape[1]:
            meant[:, 0] = candidates[:, 0, _COLUMNS]
        candidates = candidates[..., :_COLUMNS]
    return candidates, meant
