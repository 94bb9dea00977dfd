"""Write the bundle: manifest, checksums, model card; whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.files.atomic import write_folder
from edge_agent.inference.head import Head, encode_heads
from edge_agent.inference.manifest import FORMAT, DecisionRule, FileEntry, Manifest
from model_build.config import BuildConfig


def write_bundle(
    directory: Path,
    config: BuildConfig,
    *,
    model: bytes,
    heads: Sequence[Head],
    decision: DecisionRule,
    reference: bytes,
    golden: bytes,
    model_card: str,
    metrics: dict[str, Any],
    training: dict[str, Any],
) -> None:
    """Write a bundle folder.

    Parameters
    ----------
    directory : Path
        Where the bundle goes; an older one there is replaced once the new one is whole and on disk.
    config, model, heads, decision, reference, golden, model_card, metrics, training
        The contents: see :class:`edge_agent.inference.manifest.Manifest`.

    Raises
    ------
    DiskFullError, StorageError
        If it cannot be written; the older bundle, where there was one, still stands.
    """
    contents = {
        "model.tflite": model,
        "head.json": encode_heads(heads),
        "reference.npz": reference,
        "golden.npz": golden,
        "MODEL_CARD.md": model_card.encode(),
    }
    manifest = Manifest(
        format=FORMAT,
        name=config.name,
        version=config.version,
        serial=config.serial,
        task=config.task,
        labels=config.source.labels,
        positive=config.source.positive,
        input=config.input,
        decision=decision,
        population=config.card.population,
        intended_use=config.card.intended_use,
        limitations=config.card.limitations,
        metrics=metrics,
        training=training,
        files={name: FileEntry(hashlib.sha256(content).hexdigest(), len(content)) for name, content in contents.items()},
    )
    contents["manifest.json"] = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    write_folder(directory, contents, "free space or name another --out")
