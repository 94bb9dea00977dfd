"""From a decoded image to a verdict: the order of the steps, in one place."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from edge_agent.array_types import Float32Array, UInt8Array
from edge_agent.imaging.preprocess import prepare_input
from edge_agent.imaging.quality import assess_quality
from edge_agent.inference.bundle import make_interpreter
from edge_agent.inference.decision import SCORE_DIGITS, decide
from edge_agent.inference.heatmap import draw_heatmap
from edge_agent.inference.novelty import NoveltyScorer
from edge_agent.inference.scoring import LabelScorer
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
        self._labels = LabelScorer(bundle.manifest.task, bundle.manifest.labels, bundle.heads)
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
        scores = self._rounded_scores(self._labels.probabilities(embedding))
        novelty = round(self._novelty.distance(embedding, feature_map) / manifest.decision.novelty_limit, 4)
        return Verdict(
            **decide(manifest, scores, novelty, quality)._asdict(),
            scores=scores,
            novelty=novelty,
            quality=quality,
            preprocess_ms=preprocess_ms,
            invoke_ms=invoke_ms,
            head_ms=_elapsed_ms(started_ns),
        )

    def _rounded_scores(self, probabilities: Float32Array) -> dict[str, float]:
        manifest = self._bundle.manifest
        scores = {label: round(float(score), SCORE_DIGITS) for label, score in zip(manifest.labels, probabilities, strict=True)}
        if manifest.task == "binary":
            # Rounded on its own, the other label could make the sum differ from 1 by one step.
            (positive,) = manifest.positive
            scores = {label: scores[label] if label == positive else round(1.0 - scores[positive], SCORE_DIGITS) for label in scores}
        return scores

    def heatmap_label(self, verdict: Verdict) -> str:
        """Which label a heatmap of an image shows.

        The positive one (binary); the record's label if it is positive, else the most probable positive one (multiclass); the finding that
        lies farthest above its operating point, or where there is none the most probable label (multilabel).
        """
        positive = self._bundle.manifest.positive
        return verdict.label if verdict.label in positive else max(positive, key=lambda label: verdict.scores[label])

    def classify_with_heatmap(self, frame: Frame) -> tuple[Verdict, UInt8Array]:
        """Classify one image and draw what speaks for one label over it.

        Returns
        -------
        Verdict
            As :meth:`classify`; :meth:`heatmap_label` gives the label of the heatmap.
        ndarray, uint8, shape (rows, columns, 3)
            The image, at the size it was decoded, with the class activation map in colour (RGB).

        Raises
        ------
        ModelContractError
            If the label's head is not linear: its score is no sum over the places of the image, so no map of it would be true.
        """
        verdict = self.classify(frame)
        label = self.heatmap_label(verdict)
        evidence = self._labels.evidence(label, self._interpreter.feature_map())
        return verdict, draw_heatmap(frame.pixels, evidence, verdict.scores[label])
