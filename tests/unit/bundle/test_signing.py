"""``model-build keygen``, ``sign`` and ``package``: from a bundle to the file that is carried to a box."""

from __future__ import annotations

import hashlib
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from support.bundles import change_manifest

from edge_agent.errors import ModelSignatureError
from edge_agent.inference.bundle import BUNDLE_FILES, default_bundle_path, load_bundle
from edge_agent.inference.signature import parse_public_key
from model_build import cli
from model_build.bundle.signing import PRIVATE_KEY_NAME


def build(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    """Run ``model-build``; gives its exit code."""
    monkeypatch.setattr(sys, "argv", ["model-build", *map(str, words)])
    try:
        return cli.main()
    except SystemExit as end:
        assert isinstance(end.code, int)
        return end.code


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(default_bundle_path(), tmp_path / "run" / "bundle"))


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    assert build(monkeypatch, "keygen", "--out", tmp_path / "keys") == 0
    return tmp_path / "keys"


def test_keygen_writes_a_private_key_for_its_owner_alone(keys: Path) -> None:
    private, public = keys / PRIVATE_KEY_NAME, next(keys.glob("*.pub"))
    assert sorted(path.name for path in keys.iterdir()) == sorted([private.name, public.name])
    assert private.stat().st_mode & 0o777 == 0o600
    assert keys.stat().st_mode & 0o777 == 0o700
    assert parse_public_key(public.read_text()).key_id == public.stem


def test_keygen_never_overwrites_a_key(keys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in keys.iterdir()}
    assert build(monkeypatch, "keygen", "--out", keys) == 10
    assert "never overwritten" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in keys.iterdir()} == before


def test_two_keys_differ(keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build(monkeypatch, "keygen", "--out", tmp_path / "others") == 0
    assert {path.name for path in keys.glob("*.pub")}.isdisjoint(path.name for path in (tmp_path / "others").glob("*.pub"))


def test_a_signed_bundle_loads_where_its_key_is_trusted(bundle: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = load_bundle(bundle).digest
    assert build(monkeypatch, "sign", bundle, "--key", keys / PRIVATE_KEY_NAME) == 0
    signed = load_bundle(bundle, allow_unsigned=False, trusted_keys=keys)
    assert (signed.signed_by, signed.digest) == (next(keys.glob("*.pub")).stem, digest)
    change_manifest(bundle, lambda manifest: manifest.update(serial=99))
    with pytest.raises(ModelSignatureError, match="is not valid"):
        load_bundle(bundle, trusted_keys=keys)
    assert build(monkeypatch, "sign", bundle.parent, "--key", keys / PRIVATE_KEY_NAME) == 0  # again, and named by its run folder
    assert load_bundle(bundle, allow_unsigned=False, trusted_keys=keys).manifest.serial == 99


def test_a_bundle_that_is_not_whole_is_not_signed(
    bundle: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "head.json").write_text("{}")
    assert build(monkeypatch, "sign", bundle, "--key", keys / PRIVATE_KEY_NAME) == 20
    assert "head.json" in capsys.readouterr().err
    assert not (bundle / "manifest.sig").exists()


def test_what_is_no_key(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    other = Ed448PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for content, message in (
        (None, "cannot be read"),
        (b"", "not a private key"),
        (b"\xff" * 9999, "not a private key"),
        (other, "ed25519"),
    ):
        key = tmp_path / "some.key"
        if content is not None:
            key.write_bytes(content)
        assert build(monkeypatch, "sign", bundle, "--key", key) == 10
        assert message in capsys.readouterr().err


def test_a_key_that_others_may_read_is_warned_of(
    bundle: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (keys / PRIVATE_KEY_NAME).chmod(0o644)
    assert build(monkeypatch, "sign", bundle, "--key", keys / PRIVATE_KEY_NAME) == 0
    assert "chmod 600" in capsys.readouterr().err


def test_the_same_bundle_gives_the_same_archive(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = shutil.copytree(bundle, tmp_path / "again", copy_function=shutil.copyfile)
    for name in reversed(BUNDLE_FILES[2:]):
        (again / name).touch()
    (again / "notes.txt").write_text("stays at home")
    digests = []
    for source, archive in ((bundle.parent, "a.zip"), (bundle, "b.zip"), (again, "c.zip")):
        assert build(monkeypatch, "package", source, "--out", tmp_path / archive) == 0
        digests.append(hashlib.sha256((tmp_path / archive).read_bytes()).hexdigest())
    assert len(set(digests)) == 1
    with zipfile.ZipFile(tmp_path / "c.zip") as packed:
        assert packed.namelist() == [name for name in BUNDLE_FILES if name != "manifest.sig"]
    assert load_bundle(tmp_path / "a.zip").digest == load_bundle(bundle).digest


def test_the_archive_of_an_unsigned_bundle_comes_with_a_warning(
    bundle: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(monkeypatch, "package", bundle, "--out", tmp_path / "a.zip") == 0
    assert "not signed" in capsys.readouterr().err
    assert build(monkeypatch, "sign", bundle, "--key", keys / PRIVATE_KEY_NAME) == 0
    assert build(monkeypatch, "package", bundle, "--out", tmp_path / "a.zip") == 0
    assert capsys.readouterr().err == ""
    assert load_bundle(tmp_path / "a.zip", allow_unsigned=False, trusted_keys=keys).signed_by == next(keys.glob("*.pub")).stem


def test_what_is_no_bundle_is_not_packed(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "model.tflite").unlink()
    for path, message in (
        (tmp_path / "nowhere", "no such bundle folder"),
        (bundle, "model.tflite: missing"),
        (Path(__file__), "is a file"),
    ):
        assert build(monkeypatch, "package", path, "--out", tmp_path / "a.zip") == 20
        assert message in capsys.readouterr().err
    assert not (tmp_path / "a.zip").exists()
