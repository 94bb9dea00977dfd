"""Pixels on disk: the same as in memory, decoded once, and never half a cache that looks whole."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_agent.errors import ConfigError, DiskFullError, StorageError
from edge_agent.imaging.preprocess import InputContract
from model_build.config import SourceConfig
from model_build.data import images as images_module
from model_build.data import pixel_store
from model_build.data.images import ImageSet, read_images
from model_build.data.pixel_store import DiskStore
from model_build.data.pixels import StoredPixels
from model_build.data.prepare import Prepared, prepare_file
from model_build.data.read_ahead import in_order

SOURCE = SourceConfig(labels=["A", "B"], positive=["B"], patient_pattern=r"^(p\d+)", title="t", licence="l", attribution="a")
CONTRACT = InputContract(rows=8, columns=12)
IMAGE_BYTES = 8 * 12


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(10):
        put(tmp_path / "data", number)
    return tmp_path / "data"


def put(root: Path, number: int) -> None:
    folder = root / "AB"[number % 2]
    folder.mkdir(parents=True, exist_ok=True)
    grain = np.random.default_rng(number).integers(0, 256, (20, 24), dtype=np.uint8)
    Image.fromarray(grain).save(folder / f"p{number}.png")


def cached(root: Path, contract: InputContract = CONTRACT) -> ImageSet:
    return read_images(root, SOURCE, contract, task="binary", cache=root.parent / "cache", in_memory_bytes=0)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The length of every file that is decoded."""
    seen: list[int] = []

    def counting(content: bytes, contract: InputContract) -> Prepared:
        seen.append(len(content))
        return prepare_file(content, contract)

    monkeypatch.setattr(images_module, "prepare_file", counting)
    return seen


def test_what_is_read_from_disk_is_what_stood_in_memory(root: Path) -> None:
    ours, plain = cached(root), read_images(root, SOURCE, CONTRACT, task="binary")
    assert isinstance(ours.pixels, StoredPixels)
    assert isinstance(plain.pixels, np.ndarray)
    assert ours.pixels.shape == plain.pixels.shape == (10, 8, 12, 1)
    assert len(ours.pixels) == 10
    flags = np.arange(10) % 3 == 0
    for index in (0, -1, np.int64(4), slice(2, 7), slice(None, None, -2), slice(3, 3), np.array([7, 1, 1, 2, 3]), np.array([], int), flags):
        np.testing.assert_array_equal(ours.pixels[index], plain.pixels[index])  # type: ignore[index]
    for index in (10, np.array([3, 10])):
        with pytest.raises(IndexError):
            ours.pixels[index]
    np.testing.assert_array_equal(ours.thumbnails, plain.thumbnails)
    np.testing.assert_array_equal(ours.properties, plain.properties)
    assert ours.fingerprint == plain.fingerprint


def test_properties_are_those_of_the_file(root: Path) -> None:
    found = read_images(root, SOURCE, CONTRACT, task="binary")
    first = root / found.files[0].path
    assert found.properties[0].tolist() == [first.stat().st_size, 20, 24, np.asarray(Image.open(first)).mean()]


def test_a_small_set_stays_in_memory_and_writes_nothing(root: Path) -> None:
    found = read_images(root, SOURCE, CONTRACT, task="binary", cache=root.parent / "cache", in_memory_bytes=10 * IMAGE_BYTES)
    assert isinstance(found.pixels, np.ndarray)
    assert not (root.parent / "cache").exists()
    found = read_images(root, SOURCE, CONTRACT, task="binary", cache=root.parent / "cache", in_memory_bytes=10 * IMAGE_BYTES - 1)
    assert isinstance(found.pixels, StoredPixels)


def test_only_new_bytes_are_decoded_again(root: Path, decoded: list[int]) -> None:
    before = cached(root)
    assert len(decoded) == 10
    decoded.clear()
    np.testing.assert_array_equal(cached(root).pixels[:], before.pixels[:])
    assert decoded == []
    put(root, 11)
    (root / "A" / "p0.png").rename(root / "A" / "p90.png")
    again = cached(root)
    assert len(decoded) == 1
    assert [entry.patient for entry in again.files] == ["p2", "p4", "p6", "p8", "p90", "p1", "p11", "p3", "p5", "p7", "p9"]
    np.testing.assert_array_equal(again.pixels[:], read_images(root, SOURCE, CONTRACT, task="binary").pixels[:])


def test_another_contract_has_a_file_of_its_own(root: Path, decoded: list[int]) -> None:
    cached(root)
    assert cached(root, InputContract(rows=4, columns=4)).pixels.shape == (10, 4, 4, 1)
    decoded.clear()
    cached(root)
    assert decoded == []


@pytest.mark.parametrize("fault", ["index cut", "index gone", "pixels cut", "older format"])
def test_a_cache_that_is_not_whole_is_made_anew(root: Path, decoded: list[int], fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cached(root)
    index, pixels = (root.parent / "cache" / "8x12" / name for name in ("index.npz", "pixels.u8"))
    match fault:
        case "index cut":
            index.write_bytes(index.read_bytes()[:-100])
        case "index gone":
            index.unlink()
        case "pixels cut":
            os.truncate(pixels, 5)
        case "older format":
            monkeypatch.setattr(pixel_store, "_FORMAT", 99)
    decoded.clear()
    again = cached(root)
    assert len(decoded) == 10
    if fault != "pixels cut":
        np.testing.assert_array_equal(again.pixels[:], before.pixels[:])
    assert pixels.stat().st_size == 10 * IMAGE_BYTES


def test_a_build_killed_while_it_decodes_leaves_nothing_that_counts(root: Path, decoded: list[int]) -> None:
    """
    1. A cache holds ten images.
    2. A build adds an eleventh to the pixel file and is killed before it writes the index.
    Result: the next build cuts that off and decodes the eleventh again.
    """
    before = cached(root)
    pixels = root.parent / "cache" / "8x12" / "pixels.u8"
    pixels.write_bytes(pixels.read_bytes() + b"\x99" * 70)
    put(root, 11)
    decoded.clear()
    again = cached(root)
    assert len(decoded) == 1
    assert pixels.stat().st_size == 11 * IMAGE_BYTES
    np.testing.assert_array_equal(again.pixels[:5], before.pixels[:5])


def test_an_interrupted_build_keeps_what_it_has_decoded(root: Path, decoded: list[int]) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_images(root, SOURCE, CONTRACT, interrupt, task="binary", cache=root.parent / "cache", in_memory_bytes=0)
    decoded.clear()
    cached(root)
    assert len(decoded) == 4


def test_a_disk_that_fills_is_told_and_gives_its_space_back(root: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[int]) -> None:
    """
    1. A cache holds ten images; three new ones come.
    2. The disk is full after the second of them.
    Result: exit code 41, the file is named, the ten still count, and nothing else is left behind.
    """
    before = cached(root)
    kept = before.pixels[:]
    for number in (11, 13, 15):
        put(root, number)
    room, write = [2], os.pwrite

    def failing(descriptor: int, content: bytes, offset: int) -> int:
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, content, offset)

    monkeypatch.setattr(pixel_store.os, "pwrite", failing)
    with pytest.raises(DiskFullError, match=r"pixels\.u8: no space left .* name a folder on another disk") as caught:
        cached(root)
    assert caught.value.exit_code == 41
    assert (root.parent / "cache" / "8x12" / "pixels.u8").stat().st_size == 10 * IMAGE_BYTES
    np.testing.assert_array_equal(before.pixels[:], kept)
    room[0] = 100
    decoded.clear()
    np.testing.assert_array_equal(cached(root).pixels[:], read_images(root, SOURCE, CONTRACT, task="binary").pixels[:])
    assert len(decoded) == 3 + 13


def test_two_builds_do_not_fill_one_cache(tmp_path: Path) -> None:
    with (
        DiskStore(tmp_path, 1, CONTRACT),
        pytest.raises(ConfigError, match="another build is filling this cache"),
        DiskStore(tmp_path, 1, CONTRACT),
    ):
        pass
    with DiskStore(tmp_path, 1, CONTRACT):
        pass


def test_a_file_cut_while_it_is_used_is_told(root: Path) -> None:
    pixels = cached(root).pixels
    os.truncate(root.parent / "cache" / "8x12" / "pixels.u8", 3 * IMAGE_BYTES)
    assert pixels[0].shape == (8, 12, 1)
    with pytest.raises(StorageError, match="cut short"):
        pixels[9]


def test_a_place_that_cannot_be_written(root: Path) -> None:
    (root.parent / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written: Not a directory"):
        read_images(root, SOURCE, CONTRACT, task="binary", cache=root.parent / "file", in_memory_bytes=0)


def test_work_ahead_keeps_the_order_and_its_bounds() -> None:
    begun: list[int] = []
    gate = threading.Event()

    def work(number: int) -> int:
        begun.append(number)
        if number == 0:
            gate.wait(60)
        return number * number

    results = in_order(work, range(1000))
    threading.Timer(0.05, gate.set).start()
    assert next(results) == (0, 0)
    assert len(begun) <= (os.cpu_count() or 1) * 4 + 1
    assert list(results) == [(number, number * number) for number in range(1, 1000)]
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda number: 1 // number, [1, 0]))
