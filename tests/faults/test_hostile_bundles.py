"""Bundles that somebody changed, forged, sent again or made to do harm: each is refused by name, and the box is as it was before."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.archives import check_refused, members_of, packed
from support.bundles import replace_file
from support.killer_model import make_killer_model
from support.signed import SERIAL, SHIPPED_SERIAL, Maker, check_is_sound, folders, install

from edge_agent import cli
from edge_agent.deployment import install as installation
from edge_agent.deployment import trial
from edge_agent.deployment.model_store import ModelStore
from edge_agent.errors import ModelError
from model_build.bundle.signing import read_private_key


def signature_of(manifest: bytes, maker: Maker, *, domain: bytes = b"edge-agent bundle manifest, signature 1\0") -> bytes:
    """Sign bytes as they are, whatever stands in them."""
    signature = read_private_key(maker.keys.private).sign(domain + manifest)
    value = {"algorithm": "ed25519", "key_id": maker.keys.key_id, "signature": base64.b64encode(signature).decode()}
    return json.dumps(value).encode()


def with_manifest(files: dict[str, bytes], manifest: dict[str, Any], maker: Maker) -> dict[str, bytes]:
    """The files with another manifest, signed as somebody would who has the key and no scruples."""
    content = json.dumps(manifest).encode()
    return files | {"manifest.json": content, "manifest.sig": signature_of(content, maker)}


def with_signature(files: dict[str, bytes], change: Callable[[bytes], bytes]) -> bytes:
    """The signature file with other bytes as its signature."""
    value = json.loads(files["manifest.sig"])
    value["signature"] = base64.b64encode(change(base64.b64decode(value["signature"]))).decode()
    return json.dumps(value).encode()


def flipped_first(content: bytes) -> bytes:
    return bytes([content[0] ^ 1]) + content[1:]


def flipped(content: bytes) -> bytes:
    return content[:200] + bytes([content[200] ^ 1]) + content[201:]


def test_a_manifest_that_lies_about_a_size(good: dict[str, bytes], maker: Maker, box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = json.loads(good["manifest.json"])
    manifest["files"]["model.tflite"]["size_bytes"] = 5
    check_refused(packed(members_of(with_manifest(good, manifest, maker))), box, "the manifest says 5", capsys)


TAMPERED: dict[str, tuple[Callable[[dict[str, bytes], Maker], dict[str, bytes]], str]] = {
    "the model": (lambda files, _: {"model.tflite": flipped(files["model.tflite"])}, "SHA-256 differs"),
    "the head": (lambda files, _: {"head.json": flipped(files["head.json"])}, "SHA-256 differs"),
    "the golden vectors": (lambda files, _: {"golden.npz": flipped(files["golden.npz"])}, "SHA-256 differs"),
    "the model card": (lambda files, _: {"MODEL_CARD.md": flipped(files["MODEL_CARD.md"])}, "SHA-256 differs"),
    "the manifest": (
        lambda files, _: {"manifest.json": files["manifest.json"].replace(b'"serial":', b'"serial": ')},
        "the signature is not valid",
    ),
    "an operating point": (
        lambda files, _: {"manifest.json": files["manifest.json"].replace(b'"threshold": 0.', b'"threshold": 0.0')},
        "the signature is not valid",
    ),
    "the serial": (lambda files, _: {"manifest.json": files["manifest.json"].replace(b'"serial": 7', b'"serial": 9')}, "is not valid"),
    "the signature": (lambda files, _: {"manifest.sig": with_signature(files, flipped_first)}, "is not valid"),
    "the length of the signature": (lambda files, _: {"manifest.sig": with_signature(files, lambda raw: raw[:-1])}, "has not 64 bytes"),
    "the signature of other bytes": (lambda _, maker: {"manifest.sig": signature_of(b"{}", maker)}, "is not valid"),
    "a signature made for another purpose": (
        lambda files, maker: {"manifest.sig": signature_of(files["manifest.json"], maker, domain=b"")},
        "is not valid",
    ),
    "a signature that is no JSON": (lambda _files, _: {"manifest.sig": b"\xff\xfe"}, "manifest.sig cannot be read"),
    "an algorithm of the attacker's choice": (
        lambda files, _: {"manifest.sig": files["manifest.sig"].replace(b"ed25519", b"none")},
        "manifest.sig cannot be read",
    ),
    "a key's name that is a path": (
        lambda files, _: {"manifest.sig": json.dumps(json.loads(files["manifest.sig"]) | {"key_id": "../../etc/x"}).encode()},
        "manifest.sig cannot be read",
    ),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_changed_after_the_signature(
    what: str, good: dict[str, bytes], maker: Maker, box: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message = TAMPERED[what]
    changed = good | change(good, maker)
    assert changed != good
    check_refused(packed(members_of(changed)), box, message, capsys)


def test_an_unsigned_bundle(good: dict[str, bytes], box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unsigned = {name: content for name, content in good.items() if name != "manifest.sig"}
    check_refused(packed(members_of(unsigned)), box, "this model is not signed", capsys)


def test_a_bundle_signed_by_an_unknown_key(box: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stranger = Maker(tmp_path / "stranger")
    check_refused(stranger.archive(SERIAL), box, f"signed by the key {stranger.keys.key_id}, which is not trusted on this box", capsys)


def test_a_missing_part(good: dict[str, bytes], box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in good:
        if name != "manifest.sig":
            part = {other: content for other, content in good.items() if other != name}
            check_refused(packed(members_of(part)), box, f"{name}: missing", capsys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "../../../etc/cron.d/x"}, "manifest.json"),
        ({"name": "a/b"}, "manifest.json"),
        ({"name": "x\n"}, "manifest.json"),
        ({"version": "\x1b[2J"}, "manifest.json"),
        ({"serial": -1}, "manifest.json"),
        ({"serial": 10**30}, "manifest.json"),
        ({"format": 99}, "format 99"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, dict) else "",
)
def test_a_manifest_whose_words_would_do_harm(
    change: dict[str, object], message: str, good: dict[str, bytes], maker: Maker, box: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = with_manifest(good, json.loads(good["manifest.json"]) | change, maker)
    check_refused(packed(members_of(contents)), box, message, capsys)


def test_arrays_that_unpack_to_far_more_than_a_bundle(
    good: dict[str, bytes], maker: Maker, box: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, inputs=np.zeros((2000, 160, 160, 1), np.uint8), embeddings=np.zeros((2000, 112), np.float32))
    manifest = json.loads(good["manifest.json"])
    manifest["files"]["golden.npz"] = {"sha256": hashlib.sha256(stream.getvalue()).hexdigest(), "size_bytes": len(stream.getvalue())}
    contents = with_manifest(good | {"golden.npz": stream.getvalue()}, manifest, maker)
    check_refused(packed(members_of(contents)), box, "its arrays would have more than", capsys)


# What it does


def test_a_model_whose_golden_vectors_fail(maker: Maker, box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def spoil(bundle: Path) -> None:
        with np.load(bundle / "golden.npz") as arrays:
            inputs, embeddings = arrays["inputs"], arrays["embeddings"]
        stream = io.BytesIO()
        np.savez(stream, inputs=inputs, embeddings=embeddings[:, ::-1])
        replace_file(bundle, "golden.npz", stream.getvalue())

    check_refused(maker.archive(SERIAL, spoil), box, "does not compute on this board", capsys)


def test_a_model_that_kills_the_interpreter(maker: Maker, box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def arm(bundle: Path) -> None:
        replace_file(bundle, "model.tflite", make_killer_model((bundle / "model.tflite").read_bytes()))

    check_refused(maker.archive(SERIAL, arm), box, "brought its process down (SIGSEGV)", capsys)


def test_a_model_that_never_ends(maker: Maker, box: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial.try_bundle, "__kwdefaults__", {"timeout_s": 0.01})  # a Python does not start so soon
    check_refused(maker.archive(SERIAL), box, "had not finished its test images", capsys)


def test_a_module_beside_the_archive_is_not_run(maker: Maker, box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    1. The stick that the model comes on holds a numpy.py; somebody works in its folder.
    Result: it is not imported by the child that tries the model.
    """
    stick = box.with_name("stick")
    stick.mkdir()
    (stick / "numpy.py").write_text("import pathlib\npathlib.Path(__file__).with_name('was-run').touch()\n")
    monkeypatch.chdir(stick)
    install(maker.archive(SERIAL), box)
    assert [path.name for path in stick.iterdir()] == ["numpy.py"]


# Its serial


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the trial in a child process, which takes most of the time of an installation."""
    monkeypatch.setattr(installation, "try_bundle", lambda *_: None)


def test_a_replayed_older_serial(untried: None, maker: Maker, box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    1. Serial 9 is installed, then taken back by rollback. Somebody sends serial 8, signed when it was new.
    Result: refused, also after the rollback; installed only where somebody names the serial.
    """
    old, new = maker.archive(8), maker.archive(9)
    install(new, box)
    ModelStore(box).rollback("a test")
    before = folders(box)
    assert cli.main(["model", "install", str(old), "--home", str(box)]) == 20
    assert "the serial 9 was on this box before" in capsys.readouterr().err
    assert cli.main(["model", "install", str(old), "--home", str(box), "--serial", "7"]) == 20
    assert "--serial asks for 7" in capsys.readouterr().err
    assert (folders(box), check_is_sound(box, allowed={None})) == (before, None)
    assert cli.main(["model", "install", str(old), "--home", str(box), "--serial", "8"]) == 0
    assert check_is_sound(box, allowed={8}) == 8
    with pytest.raises(ModelError, match="the serial 9 was on this box before"):
        install(maker.archive(6), box)  # what was asked for once lowers nothing


def test_a_model_older_than_the_one_that_came_with_the_program(maker: Maker, box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_refused(maker.archive(SHIPPED_SERIAL - 1), box, f"the serial {SHIPPED_SERIAL} was on this box before", capsys)


@pytest.mark.parametrize("serial", [SHIPPED_SERIAL, SERIAL])
def test_the_same_serial_with_another_digest(
    serial: int, untried: None, maker: Maker, box: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if serial != SHIPPED_SERIAL:  # that one came with the program
        install(maker.archive(serial), box)
    other = maker.archive(serial, note="another")
    for options in ([], ["--serial", str(serial)]):
        assert cli.main(["model", "install", str(other), "--home", str(box), *options]) == 20
        assert "which another model of that name had on this box before" in capsys.readouterr().err
    check_is_sound(box, allowed={None if serial == SHIPPED_SERIAL else serial})


def test_nothing_is_written_outside_the_home(maker: Maker, box: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    installed = install(maker.archive(SERIAL), box)
    assert list(temporary.iterdir()) == []
    assert all(stat.S_ISREG(path.lstat().st_mode) for path in installed.directory.iterdir())
