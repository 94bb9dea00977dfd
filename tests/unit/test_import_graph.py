"""The house rules on imports, read from the source: one direction, no cycles, nothing heavy on the device."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ORDER = {
    "edge_agent": (
        *(
            "cli",
            "command_group",
            "commands",
            "doctor",
            "bench",
            "agent",
            "surfaces",
            "upkeep",
            "outbox",
            "deployment",
            "intake",
            "inference",
        ),
        *("database", "imaging", "config", "files", "records", "config_errors", "array_types", "child_process", "errors", "version"),
    ),
    "model_build": (
        *("__main__", "cli", "commands", "experiments", "build", "report", "studies", "training", "bundle", "evaluation", "heads"),
        *("data", "tables", "metrics", "run_folder", "plots", "progress", "config", "libraries", "environment", "arrays", "array_types"),
    ),
}
"""The rooms of each package, and the modules beside them. Each imports itself and what stands after it, nothing that stands before."""

TRAINING_MAY_USE = ("command_group", "version", "errors", "child_process", "records", "files", "imaging", "inference")
MOST_MODULES = 14
"""A folder with more modules is two folders."""
NOT_ON_THE_DEVICE = {"model_build", "tensorflow", "keras", "sklearn", "matplotlib", "mlflow", "torch", "scipy"}
SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|PRAGMA)\s")
LAZY = {"PIL", "pydicom", "rich", "cv2", "ai_edge_litert", "tflite_runtime", "watchdog"}
"""Loaded when first needed, so that every command starts at once."""


class Source:
    """The modules below ``root`` and what each imports, at the top or inside a function."""

    def __init__(self, root: Path) -> None:
        files = {file: file.relative_to(root).with_suffix("").parts for package in root.iterdir() for file in package.rglob("*.py")}
        self.modules = {".".join(parts[:-1] if parts[-1] == "__init__" else parts): file for file, parts in files.items()}
        self.imports = {name: self._read(name, file) for name, file in self.modules.items()}

    def _read(self, name: str, file: Path) -> set[str]:
        found: set[str] = set()
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        for node in ast.walk(ast.parse(file.read_text("utf-8"), str(file))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                base = ".".join([*above, *([node.module] if node.module else [])])
                # "from edge_agent import records" names a module, "from edge_agent.records import Record" does not.
                found |= {whole if (whole := f"{base}.{alias.name}") in self.modules else base for alias in node.names}
        return found - {name}

    def pairs(self, package: str) -> list[tuple[str, str]]:
        return [(name, used) for name, imports in sorted(self.imports.items()) if name.split(".")[0] == package for used in sorted(imports)]


def cycle(source: Source) -> list[str]:
    graph = {name: {used for used in imports if used in source.modules} for name, imports in source.imports.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def room_of(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def arrows_back(source: Source) -> list[str]:
    wrong = []
    for package, order in ORDER.items():
        place = {room: index for index, room in enumerate(order)}
        for name, used in source.pairs(package):
            here, there = room_of(name), room_of(used)
            if here in place and used.startswith(f"{package}.") and place.get(there, -1) < place[here]:
                wrong.append(f"{name} imports {used}")
    return wrong


def forbidden(source: Source) -> list[str]:
    wrong = [f"{name} imports {used}" for name, used in source.pairs("edge_agent") if used.split(".")[0] in NOT_ON_THE_DEVICE]
    for name, used in source.pairs("model_build"):
        if used.startswith("edge_agent.") and used.split(".")[1] not in TRAINING_MAY_USE:
            wrong.append(f"{name} imports {used}")
    wrong += [
        f"{name} imports sqlite3, which only edge_agent.database may"
        for name, imports in sorted(source.imports.items())
        if "sqlite3" in imports and not name.startswith("edge_agent.database")
    ]
    return wrong


def sql_outside(source: Source) -> list[str]:
    return [
        f"{name}: {node.value[:40]!r}"
        for name, file in sorted(source.modules.items())
        if not name.startswith("edge_agent.database")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.match(node.value)
    ]


def unknown_rooms(source: Source) -> list[str]:
    return sorted(name for name in source.modules if "." in name and room_of(name) not in {*ORDER[name.split(".")[0]], "models"})


@pytest.fixture(scope="module")
def source(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Source:
    both = tmp_path_factory.mktemp("packages")
    for package in ("edge_agent", "model_build"):
        (both / package).symlink_to(repository / package)
    return Source(both)


def test_no_module_imports_in_a_circle(source: Source) -> None:
    assert cycle(source) == []


def test_imports_go_one_way(source: Source) -> None:
    assert arrows_back(source) == []


def test_training_stays_off_the_device_and_the_database_in_its_room(source: Source) -> None:
    assert forbidden(source) == []


def test_sql_stands_in_the_database_room_only(source: Source) -> None:
    assert sql_outside(source) == []


def test_every_module_stands_in_a_known_room(source: Source) -> None:
    assert unknown_rooms(source) == []
    rooms = {package: {room_of(name) for name in source.modules if name.startswith(f"{package}.")} for package in ORDER}
    assert {package: set(order) for package, order in ORDER.items()} == rooms  # none is named that is not there


def test_no_folder_is_a_hall(source: Source) -> None:
    folders = Counter(file.parent for file in source.modules.values() if file.name != "__init__.py")
    assert {str(folder): count for folder, count in folders.items() if count > MOST_MODULES} == {}


def test_the_architecture_lists_the_modules_that_exist_in_this_order(source: Source, repository: Path) -> None:
    """Section "Modules" of ``docs/architecture.md``: a heading for each folder, a line for each module."""
    text = (repository / "docs" / "architecture.md").read_text("utf-8").partition("\n## Modules\n")[2]
    parts = re.findall(r"^### `([\w/]+)/`\n(.*?)(?=^### |\Z)", text, re.MULTILINE | re.DOTALL)
    listed = [f"{folder}/{name}" for folder, part in parts for name in re.findall(r"^\* `(\w+\.py)`: \S", part, re.MULTILINE)]
    there = {name.replace(".", "/") + ".py" for name, file in source.modules.items() if file.name != "__init__.py"}
    missing, gone = sorted(there - set(listed)), sorted(set(listed) - there)
    assert (missing, gone) == ([], []), "write the lines of the first, remove those of the second"
    assert len(listed) == len(there)
    for package, order in ORDER.items():
        stated = dict(parts)[package].partition("after it: ")[2].partition(".")[0]
        assert tuple(re.findall(r"`(\w+)`", stated)) == order
        rooms = [folder.split("/")[1] for folder, _ in parts if folder.startswith(f"{package}/")]
        assert list(dict.fromkeys(rooms)) == [room for room in order if room in rooms]


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    listing = subprocess.run(
        [sys.executable, "-c", "import edge_agent.cli, sys; print(*{name.split('.')[0] for name in sys.modules})"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "click" in listing
    assert set(listing) & (LAZY | NOT_ON_THE_DEVICE) == set()


@pytest.mark.parametrize(
    ("file", "text", "rule"),
    [
        ("edge_agent/imaging/decode.py", "def f():\n    from edge_agent.inference import head", arrows_back),
        ("edge_agent/imaging/decode.py", "from ..database import database", arrows_back),
        ("edge_agent/records.py", "import edge_agent.imaging.preprocess", arrows_back),
        ("edge_agent/outbox/export.py", "from edge_agent.agent import agent", arrows_back),
        ("model_build/data/split.py", "from model_build.evaluation import calibration", arrows_back),
        ("model_build/evaluation/calibration.py", "from model_build import build", arrows_back),
        ("edge_agent/intake/folder.py", "import sqlite3", forbidden),
        ("edge_agent/upkeep/orphans.py", "def f(r):\n    return r.rows(f'SELECT {r} FROM record')", sql_outside),
        ("edge_agent/inference/head.py", "from sklearn.linear_model import LogisticRegression", forbidden),
        ("edge_agent/agent/agent.py", "import model_build.training.train", forbidden),
        ("model_build/training/train.py", "from edge_agent.database.database import Database", forbidden),
        ("edge_agent/imaging/decode.py", "from edge_agent.imaging import dicom", cycle),
        ("edge_agent/helpers/paths.py", "", unknown_rooms),
    ],
)
def test_each_rule_sees_what_it_forbids(tmp_path: Path, file: str, text: str, rule: object) -> None:
    tree = {
        "edge_agent/imaging/dicom.py": "from .decode import decode_image",
        "edge_agent/inference/head.py": "from edge_agent.imaging import dicom\nfrom edge_agent.records import Record",
        "edge_agent/database/database.py": "import sqlite3\nNEWEST = 'SELECT max(id) FROM record'",
        "edge_agent/agent/agent.py": "from edge_agent.database import database",
        "edge_agent/records.py": "",
        "model_build/build.py": "",
    }
    for name, content in tree.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert callable(rule)
    assert not rule(Source(tmp_path))
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    assert rule(Source(tmp_path))
