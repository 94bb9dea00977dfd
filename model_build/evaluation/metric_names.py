"""The names of figures as people read them."""

from __future__ import annotations

from model_build.evaluation.judged_labels import MIN_POSITIVES

METRIC_NAMES = {
    "auc": "AUC",
    "mean_auc": f"mean AUC over labels with {MIN_POSITIVES} or more positive images",
    "mean_auc_raw_pixels": "the same of raw pixels alone",
    "accuracy": "accuracy",
    "accuracy_most_probable": "accuracy of the most probable class",
    "mean_recall": "mean recall of the classes",
    "balanced_accuracy": "balanced accuracy",
}


def metric_name(key: str) -> str:
    """The name of a figure as people read it."""
    return METRIC_NAMES.get(key, key.replace("_", " "))
