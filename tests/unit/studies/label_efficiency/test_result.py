"""The label-efficiency curve as table, numbers and figure."""

from __future__ import annotations

import json
from pathlib import Path

from model_build.studies.label_efficiency.result import LABEL_EFFICIENCY, LabelEfficiency, Point


def test_table_and_figure_hold_the_points(tmp_path: Path) -> None:
    points = [Point(10, 0.9, 0.02, 0.8, 0.03, 0.1, 0.01), Point(100, 0.95, 0.01, 0.85, 0.02, 0.1, 0.005)]
    measured = LabelEfficiency(name="x", labels=["PNEUMONIA"], draws=5, held_out_images=20, held_out_patients=11, points=points)
    text = LABEL_EFFICIENCY.write(measured, tmp_path / "new")
    assert "| 100 | 0.950 ± 0.010 | 0.850 ± 0.020 | +0.100 ± 0.005 |" in text
    kept = json.loads((tmp_path / "new" / "label-efficiency.json").read_text())
    assert kept["points"][1]["labels_per_class"] == 100
    assert (tmp_path / "new" / "label-efficiency.png").stat().st_size > 5000
