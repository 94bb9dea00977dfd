"""From a decoded image to a verdict: the order of the steps, in one place."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ModelContractError
from edge_agent.imaging.preprocess import prepare_input
from edge_agent.imaging.quality import assess_quality
from edge_agent.inference.bundle import make_interpreter
from edge_agent.inference.decision import decide
from edge_agent.inference.heatmap import draw_heatmap
from edge_agent.inference.novelty import NoveltyScorer
from edge_agent.inference.scoring import LinearScorer, make_scorer
from edge_agent.records import Verdict

if TYPE_CHECKING:
    from edge_agent.imaging.preprocess import InputContract
    from edge_agent.inference.bundle import Bundle
    from edge_agent.records import Frame, ModelIdentity


def _elapsed_ms(since_ns: int) -> float:
    return round((time.perf_counter_ns() - since_ns) / 1e6, 3)


class Classifier:
    """A bundle ready to classify. Not thread-safe: one for each worker thread; inference releases the GIL."""

    def __init__(self, bundle: Bundle, num_threads: int = 1, runtime: str | None = None) -> None:
        """Load the interpreter and check it against the golden vectors, which also warms it up.

        Raises
        ------
        ModelError
            As :func:`edge_agent.inference.bundle.make_interpreter`.
        """
        self._bundle = bundle
        self._interpreter = make_interpreter(bundle, num_threads, runtime)
        self._head = make_scorer(bundle.head)
        self._novelty = NoveltyScorer(bundle.reference)

    @property
    def identity(self) -> ModelIdentity:
        """Name, version and digest of the bundle."""
        return self._bundle.identity

    @property
    def input(self) -> InputContract:
        """Rows, columns and rules of the model's input."""
        return self._bundle.input

    def classify(self, frame: Frame) -> Verdict:
        """Classify one image.

        Parameters
        ----------
        frame : Frame
            From :func:`edge_agent.imaging.decode.decode_image`.

        Returns
        -------
        Verdict
            Scores in the bundle's label order, decision with its reason, and durations in milliseconds.

        Raises
        ------
        InferenceError
            If the runtime fails: a fault of our own side.
        """
        manifest = self._bundle.manifest
        started_ns = time.perf_counter_ns()
        grey = prepare_input(frame.pixels, manifest.input)
        quality = assess_quality(frame)
        preprocess_ms = _elapsed_ms(started_ns)
        started_ns = time.perf_counter_ns()
        embedding = self._interpreter.invoke(grey)
        feature_map = self._interpreter.feature_map()
        invoke_ms = _elapsed_ms(started_ns)
        started_ns = time.perf_counter_ns()
        # Rounded before they are compared, so that a record and its decision always agree.
        probability = round(float(self._head.probabilities(embedding)), 6)
        novelty = round(self._novelty.distance(embedding, feature_map) / manifest.decision.novelty_limit, 4)
        label, decision, reason = decide(manifest, probability, novelty, quality)
        return Verdict(
            scores={name: probability if name in manifest.positive else round(1.0 - probability, 6) for name in manifest.labels},
            label=label,
            findings=[],
            decision=decision,
            reason=reason,
            novelty=novelty,
            quality=quality,
            preprocess_ms=preprocess_ms,
            invoke_ms=invoke_ms,
            head_ms=_elapsed_ms(started_ns),
        )

    def classify_with_heatmap(self, frame: Frame) -> tuple[Verdict, NDArray[np.uint8]]:
        """Classify one image and draw what speaks for the positive label over it.

        Returns
        -------
        Verdict
            As :meth:`classify`.
        ndarray, uint8, shape (rows, columns, 3)
            The image, at the size it was decoded, with the class activation map in colour (RGB).

        Raises
        ------
        ModelContractError
            If the head is not linear: its score is no sum over the places of the image, so no map of it would be true.
        """
        if not isinstance(self._head, LinearScorer):
            raise ModelContractError(
                f"{self._bundle.directory}: a heatmap needs a linear head (logistic_regression, linear_discriminant or linear_svm),"
                f" and this bundle's is {self._bundle.head.kind!r}; classify without heatmaps"
            )
        verdict = self.classify(frame)
        evidence = self._head.logits(self._interpreter.feature_map())
        return verdict, draw_heatmap(frame.pixels, evidence, verdict.scores[self._bundle.head.positive])
