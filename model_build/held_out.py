"""What a build keeps of its held-out images, to draw the report again without the data: scores and truth, no pixel, no name."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ConfigError
from edge_agent.inference.head import Head, LinearHead
from edge_agent.inference.interpreter import Interpreter
from edge_agent.inference.scoring import make_scorer
from model_build.curves import log_odds
from model_build.package import pack_arrays

WORST_PER_KIND = 6


@dataclass(frozen=True)
class HeldOut:
    """The measured model's output on the held-out images.

    ``probabilities`` (calibrated on all held-out patients) and ``cross_fitted`` (calibrated on the other folds' patients) are float32,
    shape (images,); ``positive`` is the truth. ``patients`` are numbers without meaning, equal where the patient is. ``indices`` are the
    images' places in the image set. ``worst`` are positions in these arrays: missed images, then false alarms, the most certain ones
    first; ``evidence``, float32, shape (worst, h, w), is what :func:`edge_agent.inference.heatmap.draw_heatmap` takes for them; shape
    (0, 1, 1) where the head is not linear, as no map of it would be true.
    """

    probabilities: NDArray[np.float32]
    cross_fitted: NDArray[np.float32]
    positive: NDArray[np.bool_]
    patients: NDArray[np.int64]
    indices: NDArray[np.int64]
    worst: NDArray[np.int64]
    evidence: NDArray[np.float32]


def worst_mistakes(probabilities: NDArray[np.float32], positive: NDArray[np.bool_], threshold: float) -> NDArray[np.int64]:
    """Positions of the most certain mistakes: at most six missed images, then at most six false alarms."""
    distance = log_odds(probabilities) - log_odds(np.array(threshold))
    predicted = probabilities >= threshold
    missed, alarms = np.flatnonzero(positive & ~predicted), np.flatnonzero(~positive & predicted)
    return np.concatenate(
        [
            missed[np.argsort(distance[missed], kind="stable")][:WORST_PER_KIND],
            alarms[np.argsort(-distance[alarms], kind="stable")][:WORST_PER_KIND],
        ]
    )


def keep_held_out(
    path: Path,
    *,
    probabilities: NDArray[np.float32],
    cross_fitted: NDArray[np.float32],
    positive: NDArray[np.bool_],
    patients: Sequence[str],
    held_out: NDArray[np.bool_],
    threshold: float,
    evidence_of: Callable[[int], NDArray[np.float32]] | None,
) -> None:
    """Write ``held_out.npz``.

    Parameters
    ----------
    path : Path
        Where it goes.
    probabilities, cross_fitted, positive
        As in :class:`HeldOut`.
    patients : sequence of str
        The patient of each held-out image; only which ones are equal is kept.
    held_out : ndarray, bool, shape (image set,)
        Which images of the set are held out.
    threshold : float
        The operating point, which says what a mistake is.
    evidence_of : callable or None
        From :func:`evidence_mapper`.
    """
    codes = {patient: code for code, patient in enumerate(dict.fromkeys(patients))}
    indices, worst = np.flatnonzero(held_out), worst_mistakes(probabilities, positive, threshold)
    evidence = (
        np.stack([evidence_of(int(index)) for index in indices[worst]]) if evidence_of and len(worst) else np.zeros((0, 1, 1), np.float32)
    )
    kept = HeldOut(probabilities, cross_fitted, positive, np.array([codes[patient] for patient in patients]), indices, worst, evidence)
    path.write_bytes(pack_arrays(**asdict(kept)))


def evidence_mapper(model: bytes, pixels: NDArray[np.uint8], head: Head) -> Callable[[int], NDArray[np.float32]] | None:
    """From an index into ``pixels`` to the log odds at each place of the feature map, shape (h, w); None where the head is not linear."""
    if not isinstance(head, LinearHead):
        return None
    interpreter, scorer = Interpreter(model), make_scorer(head)

    def evidence(index: int) -> NDArray[np.float32]:
        interpreter.invoke(pixels[index])
        return scorer.logits(interpreter.feature_map())

    return evidence


def read_held_out(path: Path) -> HeldOut:
    """Read ``held_out.npz``.

    Raises
    ------
    ConfigError
        If it is missing or not what a build wrote.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return HeldOut(**arrays)
    except FileNotFoundError:
        raise ConfigError(f"{path}: missing; the run was not finished, or was made by an earlier version: train again") from None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as fault:
        raise ConfigError(f"{path}: is not what a build wrote ({fault}); train again") from fault
