"""The report of the long proofs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from support.proofs.kills import KillFigures
from support.proofs.report import Result, add_to_report
from support.proofs.soak_figures import SoakFigures


def test_each_proof_has_its_own_lines(tmp_path: Path) -> None:
    soak = SoakFigures(hours=0.5, lost=1, troubles={"killed": 3}, recovery_s={"killed": 1.3}, faults=["chapter 1: a.png has no record"])
    add_to_report("soak", Result("scripts/soak", 1800, asdict(soak)), tmp_path)
    add_to_report("kills", Result("scripts/faults", 60, asdict(KillFigures(kills=7))), tmp_path)
    add_to_report("kills", Result("scripts/faults", 60, asdict(KillFigures(kills=8))), tmp_path)
    assert list(json.loads((tmp_path / "faults.json").read_text("utf-8"))) == ["kills", "soak"]
    page = (tmp_path / "faults.md").read_text("utf-8")
    assert "8 kills" in page
    assert "7 kills" not in page
    assert "| killed | 3 | 1.3 s |" in page
    assert "* chapter 1: a.png has no record" in page
    with pytest.raises(KeyError):
        add_to_report("nothing", Result("", 0, {}), tmp_path)


@pytest.mark.parametrize(("longest_run_s", "said"), [(58.4, "its growth not measured"), (75.0, "growth in one agent at most +3.0 %")])
def test_growth_is_told_only_where_it_was_measured(tmp_path: Path, longest_run_s: float, said: str) -> None:
    soak = SoakFigures(hours=0.5, memory_growth_percent=3.0, longest_run_s=longest_run_s)
    add_to_report("soak", Result("scripts/soak", 1800, asdict(soak)), tmp_path)
    assert said in (tmp_path / "faults.md").read_text("utf-8")


def test_faults_are_counted_for_what_they_are() -> None:
    figures = SoakFigures()
    figures.add_faults(["('a.png',) (there) has no record", "done/ misses 1 of 1 files", "('b.png',) has 2 records", "integrity_check: {}"])
    figures.add_faults(["predictions.jsonl: misses 3 of 9 records, has 0 others: []", "shown record 3 is lost"])
    assert (figures.lost, figures.twice, figures.broken_databases) == (4, 1, 1)
