"""Many builds: planned as a whole, skipped where finished, gone on with after a kill, compared at the end."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.runs import CONFIG, FakeBuilds, write_run

from edge_agent.errors import ConfigError, StorageError
from model_build.experiments.build_process import Failure
from model_build.experiments.comparison import COLUMNS, compare, find_figure, render_comparison, write_comparison
from model_build.experiments.plan import (
    Experiment,
    chosen_columns,
    compared_runs,
    experiments_folder,
    read_experiments,
    run_experiments,
)
from model_build.run_folder import Figure, MeasuredFigures, PointFigures, is_finished, read_run

GRID = [{"learning_rate": 1e-4}, {"learning_rate": 1e-3, "verbose": 2, "num_workers": 1}, {"learning_rate": 1e-2, "encoder": "tiny"}]


@pytest.fixture
def grid(tmp_path: Path) -> list[Experiment]:
    (tmp_path / "base.toml").write_text(CONFIG)
    (tmp_path / "grid.json").write_text(json.dumps(GRID))
    return read_experiments([tmp_path / "grid.json"], tmp_path / "out", tmp_path / "base.toml")


def run(experiments: list[Experiment], builds: FakeBuilds, data: Path) -> tuple[dict[str, Failure], list[str]]:
    said: list[str] = []
    return run_experiments(experiments, data, builds, said.append), said


def test_each_config_gets_its_folder(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(CONFIG)
    (tmp_path / "a.json").write_text('{"epochs": 1}')
    (tmp_path / "b.json").write_text(json.dumps([{"model_save_dir": "kept/best"}, {"model_save_dir": str(tmp_path / "else")}]))
    paths = [tmp_path / name for name in ("base.toml", "a.json", "b.json")]
    found = read_experiments(paths, tmp_path / "out", tmp_path / "base.toml")
    assert [(entry.name, entry.folder.relative_to(tmp_path).as_posix()) for entry in found] == [
        ("tiny", "out/tiny"),
        ("a", "out/a"),
        ("best", "out/kept/best"),
        ("else", "else"),
    ]


def test_every_wrong_config_is_told_before_the_first_build(tmp_path: Path) -> None:
    (tmp_path / "twice.toml").write_text(CONFIG)
    (tmp_path / "base.toml").write_text(CONFIG)
    (tmp_path / "bad.toml").write_text("name = ")
    (tmp_path / "bad.json").write_text('{"epochs": 0}')
    (tmp_path / "notes.txt").write_text("")
    names = ("base.toml", "twice.toml", "bad.toml", "bad.json", "notes.txt", "none.toml")
    with pytest.raises(ConfigError) as raised:
        read_experiments([tmp_path / name for name in names], tmp_path / "out", tmp_path / "base.toml")
    lines = str(raised.value).splitlines()
    assert [re.findall(r"(\w+\.\w+)", line.replace(str(tmp_path), ""))[0] for line in lines] == [
        "bad.toml",
        "bad.json",
        "notes.txt",
        "none.toml",
        "twice.toml",
    ]
    assert "as" in lines[-1]
    assert "base.toml does; give one another name" in lines[-1]


def test_a_folder_with_another_build_is_left_alone(tmp_path: Path) -> None:
    write_run(tmp_path / "out" / "tiny", CONFIG.replace("epochs = 2", "epochs = 9"))
    (tmp_path / "base.toml").write_text(CONFIG)
    with pytest.raises(ConfigError, match=r"tiny: holds a build with another config than .*base\.toml; name another --out"):
        read_experiments([tmp_path / "base.toml"], tmp_path / "out")


def test_a_build_gets_what_its_recipe_says(grid: list[Experiment], tmp_path: Path) -> None:
    builds = FakeBuilds()
    failures, said = run(grid, builds, tmp_path)
    assert failures == {}
    assert [(order.folder.name, order.threads, order.verbose) for order in builds.orders] == [
        ("grid-1", None, 1),
        ("grid-2", 1, 2),
        ("grid-3", None, 1),
    ]
    assert said[1].startswith("[2/3] grid-2: building in")
    assert read_run(grid[2].folder).config.trunk.kind == "tiny"
    silent = FakeBuilds()
    for experiment in grid:
        (experiment.folder / "report.md").unlink()
    run_experiments(grid, tmp_path, silent, print, verbose=0)
    assert {order.verbose for order in silent.orders} == {0}


def test_a_kill_costs_no_finished_build(grid: list[Experiment], tmp_path: Path) -> None:
    """
    1. The command is killed in the second of three builds, which has no report yet.
    2. The same command again.

    Result: the first is not built again, the second and the third are, and finished ones are told both times.
    """
    builds, finished = FakeBuilds(), list[str]()
    builds.killed_at = "grid-2"
    with pytest.raises(KeyboardInterrupt):
        run_experiments(grid, tmp_path, builds, lambda _: None, on_finished=lambda entry: finished.append(entry.name))
    again = FakeBuilds()
    run_experiments(grid, tmp_path, again, lambda _: None, on_finished=lambda entry: finished.append(entry.name))
    assert [order.folder.name for order in again.orders] == ["grid-2", "grid-3"]
    assert finished == ["grid-1", "grid-1", "grid-2", "grid-3"]


def test_a_failed_build_is_recorded_and_the_others_go_on(grid: list[Experiment], tmp_path: Path) -> None:
    builds = FakeBuilds()
    builds.broken = {"grid-2": Failure("no patients", 10)}
    failures, said = run(grid, builds, tmp_path)
    assert failures == {str(grid[1].folder): Failure("no patients", 10)}
    assert "[2/3] grid-2: failed: no patients" in said
    assert json.loads((grid[1].folder / "failed.json").read_text()) == {"message": "no patients", "exit_code": 10}
    assert is_finished(grid[2].folder)
    columns = chosen_columns(grid)
    table = render_comparison(compare(compared_runs(grid, failures), columns), columns)
    assert "2 of 3 builds finished" in table
    assert "grid-2 failed: no patients" in table
    # Once it finishes after all, the old message is gone.
    assert run(grid, FakeBuilds(), tmp_path)[0] == {}
    assert not (grid[1].folder / "failed.json").exists()


def test_a_build_that_says_it_is_done_and_is_not_has_failed(grid: list[Experiment], tmp_path: Path) -> None:
    failures = run_experiments(grid[:1], tmp_path, lambda _: None, lambda _: None)
    assert failures[str(grid[0].folder)].message == "the build ended without bundle or report"


def test_a_damaged_report_costs_one_row_and_not_the_table(grid: list[Experiment], tmp_path: Path) -> None:
    run(grid, FakeBuilds(), tmp_path)
    (grid[0].folder / "report.json").write_text("{")
    builds = FakeBuilds()
    failures, _ = run(grid, builds, tmp_path)
    assert builds.orders == []
    assert [(name, failure.exit_code) for name, failure in failures.items()] == [(str(grid[0].folder), 10)]
    assert len([row for row in compare(compared_runs(grid, failures), ["auc"]) if row.failure is None]) == 2


def test_the_folder_is_for_one_command_and_one_data_set(tmp_path: Path) -> None:
    out, data = tmp_path / "out", tmp_path / "data"
    refused = pytest.raises(StorageError, match="another `model-build experiments` is at work")
    with experiments_folder(out, data), refused, experiments_folder(out, data):
        pass
    with experiments_folder(out, data):
        pass
    with (
        pytest.raises(ConfigError, match=r"its builds were made from .*data, not from .*other"),
        experiments_folder(out, tmp_path / "other"),
    ):
        pass
    (out / "experiments.json").write_text("{")
    with pytest.raises(ConfigError, match=r"experiments\.json: cannot be read"), experiments_folder(out, data):
        pass


def test_the_table_shows_what_differs_and_the_intervals(grid: list[Experiment], tmp_path: Path) -> None:
    assert run(grid, FakeBuilds(), tmp_path)[0] == {}
    columns = chosen_columns(grid)
    text = write_comparison(compare(compared_runs(grid, {}), columns), columns, tmp_path)
    lines = text.splitlines()
    titles = [cell.strip() for cell in lines[0].split("|")[1:-1]]
    # The recipes' keys that differ, as they were written; threads and progress are no difference between models.
    assert titles == ["build", "learning_rate", "encoder", "auc", "sensitivity", "specificity", "model bytes", "minutes"]
    cells = dict(zip(titles, [cell.strip() for cell in lines[2].split("|")[1:-1]], strict=True))
    assert (cells["learning_rate"], cells["encoder"]) == ("0.0001", "as the base")
    # AUC at the point as it ships, the others with the point chosen on other patients.
    assert cells["auc"] == "0.9100 (0.8900 to 0.9200)"
    assert cells["sensitivity"] == "0.9500 (0.9300 to 0.9600)"
    assert (cells["model bytes"], cells["minutes"]) == ("123,456", "1.5")
    assert "3 of 3 builds finished" in text
    assert "Highest auc: grid-3, 0.9300 (0.9100 to 0.9400). The intervals of grid-1, grid-2 overlap it" in text
    assert (tmp_path / "comparison.md").read_text() == text
    assert [row["figures"]["auc"]["value"] for row in json.loads((tmp_path / "comparison.json").read_text())] == [0.91, 0.92, 0.93]


def test_builds_of_toml_files_differ_by_any_key_and_the_table_stays_narrow(tmp_path: Path) -> None:
    changes = {"epochs = 2": "epochs = 3", "rows = 32": "rows = 64", "columns = 32": "columns = 64", "block_count = 3": "block_count = 4"}
    changes |= {"batch_size = 8": "batch_size = 4", "held_out_fraction = 0.3": "held_out_fraction = 0.4", "1e-2": "2e-2"}
    other = CONFIG.replace('"tiny"', '"other"')
    for old, new in changes.items():
        other = other.replace(old, new, 1)
    (tmp_path / "a.toml").write_text(CONFIG)
    (tmp_path / "b.toml").write_text(other)
    experiments = read_experiments([tmp_path / "a.toml", tmp_path / "b.toml"], tmp_path / "out")
    failures, _ = run(experiments, FakeBuilds(), tmp_path)
    text = render_comparison(compare(compared_runs(experiments, failures), ["auc"]), ["auc"])
    assert text.startswith(
        "| build | source.held_out_fraction | input.rows | input.columns | trunk.block_count | train.epochs | train.batch_size | auc |"
    )
    assert text.endswith("What else differs:\n\n* tiny: train.weight_decay 0.01\n* other: train.weight_decay 0.02\n")


def test_recipes_choose_the_columns(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(CONFIG)
    (tmp_path / "a.json").write_text('{"metrics": ["specificity", "auc"]}')
    experiments = read_experiments([tmp_path / "a.json"], tmp_path / "out", tmp_path / "base.toml")
    run(experiments, FakeBuilds(), tmp_path)
    columns = chosen_columns(experiments)
    assert columns == ["specificity", "auc"]
    table = render_comparison(compare(compared_runs(experiments, {}), columns), columns)
    assert table.startswith("| build | specificity | auc | model bytes | minutes |")


def test_runs_without_a_figure_have_an_empty_place(tmp_path: Path, grid: list[Experiment]) -> None:
    for number, experiment in enumerate(grid):
        write_run(experiment.folder, experiment.config_text, auc=None if number == 0 else 0.9, findings=("A", "B"))
    rows = compare(compared_runs(grid, {}), ["auc", "mean_auc"])
    assert [row.figures["auc"].value for row in rows] == [None, 0.9, 0.9]
    assert "mean_auc" not in rows[0].figures
    assert "| - |" in render_comparison(rows, ["auc", "mean_auc"])


def test_figures_over_all_labels_come_first() -> None:
    point = PointFigures("A", {"accuracy": Figure(0.5)}, {})
    assert "accuracy" in COLUMNS
    assert find_figure("accuracy", MeasuredFigures([point], {"accuracy": Figure(0.7)})) == Figure(0.7)
    assert find_figure("accuracy", MeasuredFigures([point], {})) == Figure(0.5)
    assert find_figure("auc", MeasuredFigures([point], {})) is None


@pytest.mark.parametrize("name", ["report.json", "environment.json"])
def test_a_damaged_run_is_named(tmp_path: Path, name: str) -> None:
    write_run(tmp_path / "run")
    (tmp_path / "run" / name).write_text("{")
    with pytest.raises(ConfigError, match=rf"{name}: cannot be read as this version writes it"):
        read_run(tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    with pytest.raises(ConfigError, match=rf"{name}: missing"):
        read_run(tmp_path / "run")
