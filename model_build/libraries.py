"""Which extra brings which library: the agent is installed without the build's, and the build without tracking."""

from __future__ import annotations

_EXTRAS = {
    "alembic": "track",
    "jinja2": "build",
    "keras": "build",
    "matplotlib": "build",
    "mlflow": "track",
    "sklearn": "build",
    "sqlalchemy": "track",
    "sqlparse": "track",
    "tensorflow": "build",
    "tomli_w": "build",
    "wandb": "track",
}


def explain_missing(fault: ModuleNotFoundError) -> str | None:
    """How to install what is missing; None where it is no library of ours, so that the fault is a bug and keeps its traceback."""
    library = (fault.name or "").partition(".")[0]
    extra = _EXTRAS.get(library)
    return None if extra is None else f"{library} is not installed: get what it belongs to with  pip install -e '.[{extra}]'"
