"""Keys that a box trusts, and what a signature must be to count."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_agent.errors import ModelError, ModelSignatureError
from edge_agent.inference.signature import (
    TrustedKeys,
    check_signature,
    key_id_of,
    parse_public_key,
    public_key_text,
    read_trusted_keys,
    signed_message,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
RAW = KEY.public_key().public_bytes_raw()
MANIFEST = b'{"format": 2}'


def signature(manifest: bytes = MANIFEST, key: Ed25519PrivateKey = KEY) -> bytes:
    raw = key.public_key().public_bytes_raw()
    text = base64.b64encode(key.sign(signed_message(manifest))).decode()
    return json.dumps({"algorithm": "ed25519", "key_id": key_id_of(raw), "signature": text}).encode()


@pytest.fixture
def trusted(tmp_path: Path) -> TrustedKeys:
    (tmp_path / "one.pub").write_text(public_key_text(RAW))
    return read_trusted_keys(tmp_path)


def test_a_public_key_is_a_line_of_text_that_names_itself() -> None:
    text = public_key_text(RAW)
    comment, line = text.splitlines()
    assert comment.startswith("# ")
    assert line == f"ed25519 56475aa75463474c {base64.b64encode(RAW).decode()}"
    assert parse_public_key(text) == ("56475aa75463474c", RAW)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment",
        "ed25519",
        f"rsa {key_id_of(RAW)} {base64.b64encode(RAW).decode()}",
        f"ed25519 0000000000000000 {base64.b64encode(RAW).decode()}",
        f"ed25519 {key_id_of(RAW)} {base64.b64encode(RAW[:-1]).decode()}",
        f"ed25519 {key_id_of(RAW)} not-base-64!",
        public_key_text(RAW) * 2,
        "-----BEGIN PRIVATE KEY-----",
    ],
)
def test_what_is_no_public_key(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_public_key(text)


def test_spoiled_files_among_the_keys_are_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "good.pub").write_text(public_key_text(RAW))
    (tmp_path / "noise.pub").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty.pub").touch()
    (tmp_path / "folder.pub").mkdir()
    (tmp_path / "README").write_text(public_key_text(Ed25519PrivateKey.generate().public_key().public_bytes_raw()))
    keys = read_trusted_keys(tmp_path)
    assert set(keys.keys) == {key_id_of(RAW)}
    assert keys.described() == f"{tmp_path} holds 56475aa75463474c; no public key in empty.pub, folder.pub, noise.pub"


def test_a_folder_that_is_not_there_holds_no_key(tmp_path: Path) -> None:
    assert read_trusted_keys(tmp_path / "keys").keys == {}
    assert read_trusted_keys(None).described() == "no folder of trusted keys was given"
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="cannot be read"):
        read_trusted_keys(tmp_path / "file")


@pytest.mark.parametrize("allow_unsigned", [True, False])
def test_a_true_signature_names_its_key(trusted: TrustedKeys, allow_unsigned: bool) -> None:
    assert check_signature("b", MANIFEST, signature(), trusted, allow_unsigned=allow_unsigned) == key_id_of(RAW)


@pytest.mark.parametrize("allow_unsigned", [True, False])
def test_a_wrong_signature_is_refused_whatever_is_allowed(trusted: TrustedKeys, allow_unsigned: bool) -> None:
    with pytest.raises(ModelSignatureError, match="is not valid"):
        check_signature("b", MANIFEST + b" ", signature(), trusted, allow_unsigned=allow_unsigned)
    with pytest.raises(ModelSignatureError, match=r"manifest\.sig cannot be read"):
        check_signature("b", MANIFEST, b"{}", trusted, allow_unsigned=allow_unsigned)


def test_an_unknown_origin_is_taken_only_where_that_is_allowed(trusted: TrustedKeys) -> None:
    by_a_stranger = signature(key=Ed25519PrivateKey.from_private_bytes(bytes(32)))
    for content, message in ((None, "not signed"), (by_a_stranger, "is not trusted on this box")):
        assert check_signature("b", MANIFEST, content, trusted, allow_unsigned=True) is None
        with pytest.raises(ModelSignatureError, match=message) as caught:
            check_signature("b", MANIFEST, content, trusted, allow_unsigned=False)
        assert caught.value.exit_code == 20


def test_without_the_library_a_signature_is_not_taken_on_trust(trusted: TrustedKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    for allow_unsigned in (True, False):
        with pytest.raises(ModelError, match="pip install cryptography"):
            check_signature("b", MANIFEST, signature(), trusted, allow_unsigned=allow_unsigned)
