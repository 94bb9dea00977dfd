"""The classical head: plain numbers from ``head.json``, applied in float32 NumPy to the dequantised embedding."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ModelContractError


class PlattCalibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``probability = sigmoid(slope * logit + intercept)``, fitted on held-out patients (Platt, 1999)."""

    slope: float
    intercept: float


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A logistic regression: ``logit = coefficients . embedding + intercept`` of the positive label."""

    kind: Literal["logistic_regression"]
    positive: str
    coefficients: list[float]
    intercept: float
    calibration: PlattCalibration


def read_head(content: bytes, embedding_size: int) -> Head:
    """Read ``head.json``.

    Raises
    ------
    ModelContractError
        If it is not a head that this version can run, or does not fit the embedding.
    """
    try:
        head = msgspec.json.decode(content, type=Head)
    except msgspec.DecodeError as fault:
        raise ModelContractError(f"head.json: {fault}") from fault
    if len(head.coefficients) != embedding_size:
        raise ModelContractError(f"head.json has {len(head.coefficients)} coefficients for an embedding of {embedding_size} values")
    if not np.isfinite([*head.coefficients, head.intercept, head.calibration.slope, head.calibration.intercept]).all():
        raise ModelContractError("head.json holds a number that is not finite")
    return head


class LinearHead:
    """A head ready to run, with its coefficients as one float32 array."""

    def __init__(self, head: Head) -> None:
        self.coefficients = np.array(head.coefficients, dtype=np.float32)
        self.intercept = np.float32(head.intercept)
        self._slope = np.float32(head.calibration.slope)
        self._offset = np.float32(head.calibration.intercept)

    def logits(self, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
        """Uncalibrated log odds of the positive label.

        Parameters
        ----------
        embedding : ndarray, float32, shape (..., D)

        Returns
        -------
        ndarray, float32, shape (...)
        """
        return np.asarray(embedding @ self.coefficients + self.intercept, dtype=np.float32)

    def probabilities(self, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
        """Calibrated probability of the positive label; shapes as in :meth:`logits`, values in [0, 1]."""
        odds = np.clip(self._slope * self.logits(embedding) + self._offset, -60.0, 60.0)
        return np.asarray(1.0 / (1.0 + np.exp(-odds)), dtype=np.float32)
