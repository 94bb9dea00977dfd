"""What the board is: a latency without it says nothing.

Every fact is None (or absent from its list) where the system does not report it; reading facts never fails and never needs root.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import msgspec

_ARM_PARTS = {
    0xB76: "ARM1176",
    0xC07: "Cortex-A7",
    0xC08: "Cortex-A8",
    0xC09: "Cortex-A9",
    0xC0D: "Cortex-A17",
    0xC0F: "Cortex-A15",
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD0D: "Cortex-A77",
    0xD0E: "Cortex-A76AE",
    0xD40: "Neoverse-V1",
    0xD41: "Cortex-A78",
    0xD42: "Cortex-A78AE",
    0xD46: "Cortex-A510",
    0xD47: "Cortex-A710",
    0xD49: "Neoverse-N2",
    0xD4D: "Cortex-A715",
    0xD4F: "Neoverse-V2",
    0xD80: "Cortex-A520",
    0xD81: "Cortex-A720",
}
"""ARM's part numbers, for implementer 0x41, as util-linux lists them in sys-utils/lscpu-arm.c: the cores of boards that run Linux."""
_ARM_IMPLEMENTER = 0x41

_FEATURES = ("neon", "asimddp", "asimdhp", "i8mm", "sve", "sse4_1", "avx", "avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8")
"""What decides which int8 kernels XNNPACK chooses; a board has hundreds of other flags."""
_SAME_FEATURE = {"asimd": "neon"}
"""The 64-bit kernel's name for a feature, and the usual one."""

_PACKAGES = ("ai-edge-litert", "tflite-runtime", "tensorflow", "numpy", "pillow")


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """What does not change while a benchmark runs.

    ``cores`` are those that this process may use. ``packages`` maps each installed runtime and pixel library to its version.
    """

    model: str | None
    cpu: str | None
    architecture: str
    features: list[str]
    cores: int
    memory_bytes: int | None
    page_size_bytes: int
    os: str | None
    kernel: str
    glibc: str | None
    python: str
    packages: dict[str, str]
    power_supply: str | None


def read_board(root: Path = Path("/")) -> Board:
    """Read the board's facts; ``root`` is where ``proc``, ``sys`` and ``etc`` stand."""
    cores = list(read_cpuinfo(root))
    return Board(
        model=_board_model(root, cores),
        cpu=_cpu_name(cores),
        architecture=platform.machine(),
        features=_features(cores),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=read_meminfo(root).get("MemTotal"),
        page_size_bytes=os.sysconf("SC_PAGE_SIZE"),
        os=_os_name(root),
        kernel=platform.release(),
        glibc=_glibc(),
        python=platform.python_version(),
        packages=_package_versions(),
        power_supply=_power_supply(root),
    )


def read_text(path: Path) -> str | None:
    """Return a small file's text without the white space around it; None where it is empty or cannot be read."""
    try:
        # Device-tree strings end with a NUL byte.
        return path.read_text("utf-8", "replace").strip("\0 \n\t") or None
    except OSError:
        return None


def read_integer(path: Path) -> int | None:
    """Return the whole number that a file holds; None where it holds none."""
    text = read_text(path)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def read_cpuinfo(root: Path) -> Iterator[dict[str, str]]:
    """Yield the fields of each processor in ``/proc/cpuinfo``, and of its trailing block where there is one."""
    for block in (read_text(root / "proc/cpuinfo") or "").split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        fields = {name.strip(): value.strip() for name, _, value in pairs}
        if fields:
            yield fields


def read_meminfo(root: Path) -> dict[str, int]:
    """Return the sizes of ``/proc/meminfo`` in bytes, by their names."""
    lines = (line.split() for line in (read_text(root / "proc/meminfo") or "").splitlines())
    return {fields[0].rstrip(":"): int(fields[1]) * 1024 for fields in lines if len(fields) == 3 and fields[1].isdigit()}


def _cpu_name(cores: list[dict[str, str]]) -> str | None:
    """Name the CPU; on ARM the kinds of its cores, since one chip may have two."""
    arm = dict.fromkeys(_arm_name(core) for core in cores if "CPU part" in core)
    if arm:
        return " + ".join(arm)
    return next((core["model name"] for core in cores if "model name" in core), None)


def _arm_name(core: dict[str, str]) -> str:
    implementer, part = core.get("CPU implementer", "0"), core["CPU part"]
    try:
        if int(implementer, 16) == _ARM_IMPLEMENTER:
            return _ARM_PARTS[int(part, 16)]
    except (ValueError, KeyError):
        pass
    return f"implementer {implementer} part {part}"


def _features(cores: list[dict[str, str]]) -> list[str]:
    """Which of the features that matter every core has."""
    flags = [set((core.get("flags") or core.get("Features") or "").split()) for core in cores if "flags" in core or "Features" in core]
    common = set.intersection(*flags) if flags else set()
    common |= {name for kernel_name, name in _SAME_FEATURE.items() if kernel_name in common}
    return [name for name in _FEATURES if name in common]


def _board_model(root: Path, cores: list[dict[str, str]]) -> str | None:
    model = read_text(root / "proc/device-tree/model")
    if model is not None:
        return model
    dmi = root / "sys/class/dmi/id"
    named = " ".join(filter(None, (read_text(dmi / "sys_vendor"), read_text(dmi / "product_name"))))
    virtual = any("hypervisor" in core.get("flags", "").split() for core in cores)
    return named or ("virtual machine" if virtual else None)


def _os_name(root: Path) -> str | None:
    for line in (read_text(root / "etc/os-release") or "").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip("\"'")
    return None


def _glibc() -> str | None:
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):  # musl
        return None
    return version.removeprefix("glibc ") if version else None


def _package_versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _power_supply(root: Path) -> str | None:
    """Describe the supply: what a Raspberry Pi 5's firmware negotiated, else the kernel's list (kiosks with a battery)."""
    try:
        promised_ma = int.from_bytes((root / "proc/device-tree/chosen/power/max_current").read_bytes(), "big")
        return f"{promised_ma / 1000:g} A negotiated"
    except OSError:
        pass
    supplies = []
    for supply in sorted((root / "sys/class/power_supply").glob("*")):
        state = read_text(supply / "status") or {"1": "online", "0": "offline"}.get(read_text(supply / "online") or "")
        supplies.append(" ".join(filter(None, (read_text(supply / "type") or supply.name, state))))
    return ", ".join(supplies) or None
