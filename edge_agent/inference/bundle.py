"""A bundle on disk: read, verified, and refused with a reason where it is not what its manifest says."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_agent.array_types import Float32Array, UInt8Array
from edge_agent.errors import GoldenVectorError, ModelChecksumError, ModelContractError, ModelError
from edge_agent.imaging.preprocess import InputContract
from edge_agent.inference.archive import read_archive, read_bounded
from edge_agent.inference.head import Head, read_heads
from edge_agent.inference.interpreter import Interpreter
from edge_agent.inference.manifest import MANIFEST_NAME, Manifest, parse_manifest
from edge_agent.inference.novelty import Reference, read_reference
from edge_agent.inference.scoring import LabelScorer
from edge_agent.inference.signature import check_signature, read_trusted_keys
from edge_agent.records import ModelIdentity

SIGNATURE_NAME = "manifest.sig"
REQUIRED_FILES: tuple[str, ...] = ("model.tflite", "head.json", "reference.npz", "golden.npz", "MODEL_CARD.md")
BUNDLE_FILES: tuple[str, ...] = (MANIFEST_NAME, SIGNATURE_NAME, *REQUIRED_FILES)
"""All that a bundle may hold; the signature may be absent."""
MAX_FILE_BYTES = 32 * 1024**2
"""A bundle is about 1.2 MB; a larger file does not belong to one, and is not read into memory."""
GOLDEN_TOLERANCE_STEPS = 8.0
GOLDEN_MEAN_TOLERANCE_STEPS = 2.0
"""Kernels round differently in every layer: XNNPACK, plain and reference kernels differed by at most 4 steps, 1.05 on average, on the same
images, while the embedding itself spreads over 15 steps. What a broken kernel does is far larger."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle, its files in memory: what was checked is what runs.

    ``heads``: one, of the positive label (binary), or one for each label, in label order. ``signed_by``: the id of the trusted key that
    signed it; None where its origin is not known, and for the bundle that ships, which needs no signature.
    """

    directory: Path
    manifest: Manifest
    digest: str
    model: bytes
    heads: list[Head]
    reference: Reference
    golden_inputs: UInt8Array
    golden_embeddings: Float32Array
    signed_by: str | None = None

    @property
    def is_shipped(self) -> bool:
        """Whether it is the bundle that is installed with the package."""
        return _is_shipped(self.directory)

    @property
    def origin(self) -> str:
        """Where it comes from, as far as this box can tell; for people."""
        if self.signed_by is not None:
            return f"signed by the key {self.signed_by}"
        return "came with the program" if self.is_shipped else "not signed by a key that is trusted here"

    @property
    def identity(self) -> ModelIdentity:
        """Name, version and digest, as in every record."""
        return ModelIdentity(self.manifest.name, self.manifest.version, self.digest)

    @property
    def input(self) -> InputContract:
        """Rows, columns and rules of the model's input."""
        return self.manifest.input


def default_bundle_path() -> Path:
    """The bundle that is installed with the package."""
    return Path(__file__).parent.parent / "models" / "cxr-pneumonia"


def _is_shipped(path: Path) -> bool:
    return path.resolve() == default_bundle_path().resolve()


def read_contents(path: Path) -> dict[str, bytes]:
    """Read the files of a bundle into memory, from its folder or from a zip file; nothing is verified yet.

    Returns
    -------
    dict of str to bytes
        Those of :data:`BUNDLE_FILES` that are there.

    Raises
    ------
    ModelError
        If there is no such folder or file, or it cannot be read.
    ModelContractError
        If a file is too large, or an archive holds what it must not (:func:`edge_agent.inference.archive.read_archive`).
    """
    if path.is_file():
        return read_archive(path, BUNDLE_FILES, MAX_FILE_BYTES)
    if not path.is_dir():
        raise ModelError(f"{path}: no such bundle folder; name the folder that holds manifest.json, or the zip file of a bundle")
    contents = {name: read_bounded(path / name, MAX_FILE_BYTES) for name in BUNDLE_FILES}
    return {name: content for name, content in contents.items() if content is not None}


def _check_files(path: Path, contents: dict[str, bytes], manifest: Manifest) -> None:
    absent = [name for name in REQUIRED_FILES if name not in manifest.files]
    if absent:
        raise ModelContractError(f"{path}: the manifest lists no {', '.join(absent)}")
    for name in REQUIRED_FILES:
        content, entry = _present(path, contents, name), manifest.files[name]
        if len(content) != entry.size_bytes:
            raise ModelChecksumError(
                f"{path / name}: has {len(content):,} bytes and the manifest says {entry.size_bytes:,}; copy the bundle again"
            )
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise ModelChecksumError(f"{path / name}: not the file that was packed (SHA-256 differs); copy the bundle again")
        if name.endswith(".npz") and _unpacked_bytes(content) > MAX_FILE_BYTES:
            raise ModelContractError(
                f"{path / name}: its arrays would have more than {MAX_FILE_BYTES:,} bytes; this is not a bundle's file"
            )


def _unpacked_bytes(npz: bytes) -> int:
    """What the arrays of a compressed file claim to be in memory; no more than this is unpacked of them."""
    try:
        with zipfile.ZipFile(io.BytesIO(npz)) as archive:
            return sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile:
        return 0  # its reader says what is wrong with it


def _present(path: Path, contents: dict[str, bytes], name: str) -> bytes:
    if name not in contents:
        raise ModelError(f"{path / name}: missing; copy the whole bundle again")
    return contents[name]


def _read_golden(content: bytes, contract: InputContract) -> tuple[UInt8Array, Float32Array]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            inputs, embeddings = arrays["inputs"], arrays["embeddings"]
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as fault:
        raise ModelContractError(f"golden.npz: {fault}") from fault
    shape = (contract.rows, contract.columns, contract.channels)
    if inputs.dtype != np.uint8 or inputs.shape[1:] != shape or len(inputs) == 0 or len(inputs) != len(embeddings):
        raise ModelContractError(f"golden.npz: inputs of shape {inputs.shape} do not fit the model's input {shape}")
    return inputs, embeddings.astype(np.float32)


def load_bundle(path: Path, *, allow_unsigned: bool = True, trusted_keys: Path | None = None) -> Bundle:
    """Read a bundle and verify everything that can be verified without running it.

    Parameters
    ----------
    path : Path
        The folder that holds ``manifest.json``, or a zip file of it.
    allow_unsigned : bool
        Whether a bundle of unknown origin may run: without a signature, or with one by a key that is not trusted here. The one
        installed with the package always may.
    trusted_keys : Path or None
        Folder of the public keys that a signature is checked with; None is no key.

    Returns
    -------
    Bundle

    Raises
    ------
    ModelError
        If a file is missing or cannot be read.
    ModelSignatureError
        If the signature is wrong, or the bundle's origin is not known and must be.
    ModelChecksumError
        If a file is not the one that was packed.
    ModelContractError
        If the manifest or a file says something that this version cannot honour.
    """
    return verify_bundle(path, read_contents(path), allow_unsigned=allow_unsigned, trusted_keys=trusted_keys)


def verify_bundle(path: Path, contents: dict[str, bytes], *, allow_unsigned: bool, trusted_keys: Path | None) -> Bundle:
    """Verify the files of a bundle that have been read from ``path``; the rest is as for :func:`load_bundle`."""
    content = _present(path, contents, MANIFEST_NAME)
    # Before anything else is read from it: what a stranger made is not parsed further than needed.
    signed_by = check_signature(
        str(path),
        content,
        contents.get(SIGNATURE_NAME),
        read_trusted_keys(trusted_keys),
        allow_unsigned=allow_unsigned or _is_shipped(path),
    )
    manifest = parse_manifest(path, content)
    _check_files(path, contents, manifest)
    inputs, embeddings = _read_golden(contents["golden.npz"], manifest.input)
    embedding_size = int(embeddings.shape[1])
    heads = read_heads(contents["head.json"], embedding_size)
    # So that heads which do not fit are refused here and not at the first image.
    LabelScorer(manifest.task, manifest.labels, heads)
    if manifest.task == "binary" and heads[0].positive != manifest.positive[0]:
        raise ModelContractError(f"{path}: head.json scores {heads[0].positive!r}, the manifest calls {manifest.positive[0]!r} positive")
    return Bundle(
        directory=path,
        manifest=manifest,
        digest=hashlib.sha256(content).hexdigest(),
        model=contents["model.tflite"],
        heads=heads,
        reference=read_reference(contents["reference.npz"], embedding_size),
        golden_inputs=inputs,
        golden_embeddings=embeddings,
        signed_by=signed_by,
    )


def make_interpreter(bundle: Bundle, num_threads: int = 1, runtime: str | None = None) -> Interpreter:
    """Load the bundle's model and check it against the golden vectors, so that a broken kernel is an error and not a wrong answer.

    Raises
    ------
    ModelContractError
        If the model does not fit the manifest.
    GoldenVectorError
        If this board computes other embeddings than the build did.
    """
    interpreter = Interpreter(bundle.model, num_threads=num_threads, runtime=runtime)
    contract = bundle.input
    if interpreter.input_shape != (contract.rows, contract.columns, contract.channels):
        raise ModelContractError(f"{bundle.directory}: model.tflite takes {interpreter.input_shape}, the manifest says otherwise")
    if interpreter.embedding_size != bundle.golden_embeddings.shape[1]:
        raise ModelContractError(f"{bundle.directory}: model.tflite gives {interpreter.embedding_size} values, golden.npz holds others")
    for grey, expected in zip(bundle.golden_inputs, bundle.golden_embeddings, strict=True):
        steps = np.abs(interpreter.invoke(grey) - expected) / interpreter.embedding_step
        if not (steps.max() <= GOLDEN_TOLERANCE_STEPS and steps.mean() <= GOLDEN_MEAN_TOLERANCE_STEPS):
            raise GoldenVectorError(
                f"{bundle.directory}: {interpreter.runtime} does not compute on this board what the model computed when it was built"
                f" (embedding off by {steps.max():.1f} steps, {steps.mean():.1f} on average); do not use this board with this runtime"
            )
    return interpreter
