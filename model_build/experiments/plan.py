"""Many builds one after another: planned before the first starts, resumed after a kill, compared at the end."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.errors import ConfigError, EdgeAgentError, StorageError
from model_build.config import BuildConfig, load_build_config
from model_build.experiments.build_process import Failure, Order
from model_build.experiments.comparison import DEFAULT_COLUMNS, ComparedRun
from model_build.experiments.recipes import DEFAULT_BASE, KEYS, Settings, read_recipes
from model_build.run_folder import CONFIG, flatten, is_finished, read_run, write_json

FAILED = "failed.json"
"""In the folder of a build that failed: its message and exit code, until it finishes after all."""

PLAN = "experiments.json"
"""In the common folder: on which data the builds there are made."""

_OF_THE_RUN = ("num_workers", "metrics", "verbose", "callbacks", "model_save_dir")
"""Keys of a recipe that make no difference between models."""
_OF_THE_CARD = ("name", "version", "serial", "card.", "source.title", "source.licence", "source.attribution")


@dataclass(frozen=True)
class Experiment:
    """One build of many: its name in the table, its run folder, the file that asks for it, and what is built.

    ``recipe`` has the keys of a JSON recipe, None where the build is a TOML file.
    """

    name: str
    folder: Path
    origin: str
    config_text: str
    config: BuildConfig
    settings: Settings
    recipe: dict[str, Any] | None = None


class _Plan(msgspec.Struct, frozen=True):
    data: str


def read_experiments(paths: Sequence[Path], out: Path, base: Path = DEFAULT_BASE) -> list[Experiment]:
    """Read every config before the first build starts.

    Parameters
    ----------
    paths : sequence of Path
        TOML files of builds, and JSON files of recipes.
    out : Path
        The common folder. A TOML's build gets OUT/NAME by its key ``name``; a recipe OUT/STEM, or OUT/STEM-1, -2... where the file is a
        list, or its ``model_save_dir``.
    base : Path
        The TOML that says what recipes do not.

    Raises
    ------
    ConfigError
        If any of them cannot be used, two want one folder, or a folder holds another build: everything at once.
    """
    experiments: list[Experiment] = []
    faults: list[str] = []
    for path in paths:
        try:
            experiments += _read(path, out, base)
        except ConfigError as fault:
            faults.append(str(fault))
    taken: dict[Path, Experiment] = {}
    for experiment in experiments:
        other = taken.setdefault(experiment.folder.resolve(), experiment)
        if other is not experiment:
            faults.append(f"{experiment.origin}: writes into {experiment.folder}, as {other.origin} does; give one another name")
        if _holds_another_build(experiment):
            faults.append(f"{experiment.folder}: holds a build with another config than {experiment.origin}; name another --out")
    if faults:
        raise ConfigError("\n".join(faults))
    return experiments


def _read(path: Path, out: Path, base: Path) -> list[Experiment]:
    if path.suffix == ".toml":
        config = load_build_config(path)
        return [Experiment(config.name, out / config.name, str(path), path.read_text(encoding="utf-8"), config, Settings())]
    if path.suffix != ".json":
        raise ConfigError(f"{path}: is neither a build's .toml nor a recipe's .json")
    recipes = read_recipes(path, base)
    found = []
    for number, recipe in enumerate(recipes, start=1):
        name = path.stem if len(recipes) == 1 else f"{path.stem}-{number}"
        if recipe.settings.save_dir:
            name = Path(recipe.settings.save_dir).name
        folder = out / (recipe.settings.save_dir or name)
        found.append(Experiment(name, folder, recipe.origin, recipe.config_text, recipe.config, recipe.settings, recipe.keys))
    return found


def _holds_another_build(experiment: Experiment) -> bool:
    kept = experiment.folder / CONFIG
    try:
        return kept.read_text(encoding="utf-8") != experiment.config_text
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError):
        return True


@contextmanager
def experiments_folder(out: Path, data: Path) -> Iterator[None]:
    """Hold the common folder: for these data, and for one command at a time.

    Raises
    ------
    ConfigError
        If its builds were made from other data.
    StorageError
        If another command is at work in it, or it cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("w")
    except OSError as fault:
        raise StorageError(f"{out}: cannot be written: {fault.strerror}; name another --out") from fault
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(f"{out}: another `model-build experiments` is at work here; wait for it, or name another --out") from None
        plan, path = _Plan(str(data.resolve())), out / PLAN
        if path.exists():
            try:
                kept = msgspec.json.decode(path.read_bytes(), type=_Plan)
            except (OSError, msgspec.DecodeError) as fault:
                raise ConfigError(f"{path}: cannot be read ({fault}); name another --out") from fault
            if kept != plan:
                raise ConfigError(f"{out}: its builds were made from {kept.data}, not from {plan.data}; name another --out")
        write_json(path, plan)
        yield


def run_experiments(
    experiments: Sequence[Experiment],
    data: Path,
    run_build: Callable[[Order], Failure | None],
    say: Callable[[str], None],
    *,
    verbose: int | None = None,
    on_finished: Callable[[Experiment], None] = lambda _: None,
) -> dict[str, Failure]:
    """Build each experiment that is not finished yet.

    Parameters
    ----------
    experiments : sequence of Experiment
    data : Path
    run_build : callable
        Builds one and gives None, or why it failed.
    say : callable
        Called with one line when a build begins, is skipped, or fails.
    verbose : int, optional
        Instead of what each experiment says.
    on_finished : callable
        Called with every finished experiment, those of earlier calls too.

    Returns
    -------
    dict of str to Failure
        Those that failed, by their run folders.
    """
    failures: dict[str, Failure] = {}
    for number, experiment in enumerate(experiments, start=1):
        settings, title = experiment.settings, f"[{number}/{len(experiments)}] {experiment.name}"
        failure = None
        if is_finished(experiment.folder):
            say(f"{title}: finished earlier, in {experiment.folder}")
        else:
            say(f"{title}: building in {experiment.folder}")
            shown = settings.verbose if verbose is None else verbose
            failure = run_build(Order(experiment.folder, experiment.config_text, data, settings.threads, shown))
        failure = failure or _unreadable(experiment.folder)
        if failure is None:
            (experiment.folder / FAILED).unlink(missing_ok=True)
            on_finished(experiment)
        else:
            say(f"{title}: failed: {failure.message}")
            failures[str(experiment.folder)] = failure
            write_json(experiment.folder / FAILED, failure)
    return failures


def _unreadable(folder: Path) -> Failure | None:
    """Why a build that ended without an error cannot be compared."""
    if not is_finished(folder):
        return Failure("the build ended without bundle or report", EdgeAgentError.exit_code)
    try:
        read_run(folder)
    except EdgeAgentError as fault:
        return Failure(str(fault), fault.exit_code)
    return None


def compared_runs(experiments: Sequence[Experiment], failures: dict[str, Failure]) -> list[ComparedRun]:
    """The experiments as the comparison takes them: recipes by their own keys, as they were written, builds of TOML files by all keys."""
    by_recipe = all(experiment.recipe is not None for experiment in experiments)
    found = []
    for experiment in experiments:
        failure = failures.get(str(experiment.folder))
        if by_recipe:
            settings = {key: (experiment.recipe or {}).get(key, "as the base") for key in KEYS if key not in _OF_THE_RUN}
        else:
            everything = flatten(msgspec.to_builtins(experiment.config))
            settings = {key: value for key, value in everything.items() if not key.startswith(_OF_THE_CARD)}
        outcome = read_run(experiment.folder) if failure is None else failure.message
        found.append(ComparedRun(experiment.name, experiment.folder, settings, outcome))
    return found


def chosen_columns(experiments: Sequence[Experiment]) -> list[str]:
    """The figures to compare: those that the recipes ask for, else those that belong to each task."""
    asked = [experiment.settings.metrics or DEFAULT_COLUMNS[experiment.config.task] for experiment in experiments]
    return list(dict.fromkeys(name for names in asked for name in names))
