"""Names that fit a file system, that tie a file to its record, and that can be shown."""

from __future__ import annotations

import os
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.files.names import fit_name, names_for, printable_path


def test_names_are_tried_best_first() -> None:
    assert list(islice(names_for("scan.png", 12), 4)) == ["scan.png", "scan-12.png", "scan-12-1.png", "scan-12-2.png"]
    assert list(islice(names_for("scan.png", 12, ".json"), 2)) == ["scan.png.json", "scan-12.png.json"]


@pytest.mark.parametrize(
    ("name", "tagged"),
    [
        ("a", "a-1"),
        (".hidden", ".hidden-1"),
        ("1.2.840.10008", "1.2.840.10008-1"),
        ("a.tar.gz", "a.tar-1.gz"),
        ("a.b c.png", "a.b c-1.png"),
    ],
)
def test_a_tag_goes_before_what_is_an_extension(name: str, tagged: str) -> None:
    assert fit_name(name, tag="-1") == tagged


@given(st.binary(min_size=1, max_size=255).filter(lambda name: b"/" not in name and b"\0" not in name))
def test_any_name_fits_and_is_kept_where_it_can_be(name: bytes) -> None:
    for suffix in ("", ".json", ".reason.txt"):
        fitted = os.fsencode(fit_name(os.fsdecode(name), suffix))
        assert 0 < len(fitted) <= 255
        assert fitted.endswith(suffix.encode())
        if len(name) + len(suffix) <= 255:
            assert fitted == name + suffix.encode()


def test_a_long_name_is_cut_between_characters() -> None:
    name = "\N{LUNGS}" * 62 + ".png"  # 252 bytes
    assert fit_name(name, ".json") == "\N{LUNGS}" * 61 + ".png.json"


def test_names_that_are_not_utf_8_can_be_shown() -> None:
    assert printable_path("a/\N{LUNGS}.png") == "a/\N{LUNGS}.png"
    assert printable_path(os.fsdecode(b"a/\xff.png")) == "a/\\xff.png"
