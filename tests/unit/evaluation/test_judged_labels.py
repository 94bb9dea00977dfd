"""Which labels are judged one by one."""

from __future__ import annotations

import numpy as np

from model_build.evaluation.judged_labels import judged_columns


def test_labels_with_twenty_positive_images_are_judged_or_all_where_none_has() -> None:
    assert judged_columns(np.array([19, 20, 400, 0])).tolist() == [1, 2]
    assert judged_columns(np.array([19, 3, 0])).tolist() == [0, 1, 2]
