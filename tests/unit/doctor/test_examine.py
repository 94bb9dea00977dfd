"""Each look of the doctor, on the files that real boards show and on folders that are as bad as real ones."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.agents import AgentHome, drop, image_bytes

from edge_agent.agent.home_lock import HomeLock
from edge_agent.bench.board import Board, read_board
from edge_agent.bench.condition import BoardState, read_state
from edge_agent.config import Config, IntakeConfig
from edge_agent.doctor.access import User, home_findings, inbox_findings, user_finding
from edge_agent.doctor.board import board_findings
from edge_agent.doctor.clock import clock_findings
from edge_agent.doctor.disk import file_system_findings, space_finding, wear_findings
from edge_agent.doctor.finding import Finding, ok, problem, warning, worst
from edge_agent.doctor.probe import ProbeResult, decode_config, encode_config
from edge_agent.doctor.program import build_finding, config_finding, model_findings, package_findings, python_findings
from edge_agent.doctor.service import agent_finding, agent_umask, crash_finding, database_findings, running_agent, unit_verdict
from edge_agent.files.mounts import Mount
from edge_agent.surfaces.state import StateFile
from edge_agent.version import describe_build

AGENT = User("edge-agent", is_agent=True)
NOON = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
GIGABYTE = 10**9

PI_4 = {
    "proc/cpuinfo": "\n\n".join(f"processor : {core}\nCPU implementer : 0x41\nCPU part : 0xd08" for core in range(4)),
    "proc/meminfo": "MemTotal:        3885396 kB\nMemFree: 1 kB\nMemAvailable:    3500000 kB\nSwapTotal:        102396 kB\n",
    "proc/swaps": "Filename\tType\tSize\tUsed\tPriority\n/var/swap file 102396 0 -2\n",
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.1\0",
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "sys/class/thermal/thermal_zone0/temp": "48312\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "0\n",
}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.fixture(autouse=True)
def no_vcgencmd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")


def look_at_board(root: Path, max_pixels: int = 100_000_000, **changes: Any) -> dict[str, Finding]:
    board = msgspec.structs.replace(read_board(root), architecture="aarch64", **changes)
    return by_check(board_findings(board, read_state(root), max_pixels, root))


def by_check(findings: Iterator[Finding] | list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


class TestBoard:
    def test_a_healthy_raspberry_pi_4(self, tmp_path: Path) -> None:
        found = look_at_board(write(tmp_path, PI_4))
        assert worst(found.values()) == "ok"
        assert found["board"].saw.startswith("Raspberry Pi 4 Model B Rev 1.1, Cortex-A72")
        assert "Debian GNU/Linux 12" in found["operating system"].saw
        assert found["memory"].saw == "4.0 GB, 3.6 GB free, 0.1 GB swap on the card"
        assert found["temperature"].saw == "48 °C"
        assert found["power supply"].saw == "never too low since the start"

    def test_a_raspberry_pi_5_has_large_pages_and_says_what_its_supply_promised(self, tmp_path: Path) -> None:
        (tmp_path / "proc/device-tree/chosen/power").mkdir(parents=True)
        (tmp_path / "proc/device-tree/chosen/power/max_current").write_bytes((5000).to_bytes(4, "big"))
        found = look_at_board(write(tmp_path, PI_4), page_size_bytes=16384)
        assert found["memory pages"].verdict == "ok"
        assert "16 KiB" in found["memory pages"].saw
        assert "kernel8.img" in found["memory pages"].saw
        assert found["power supply"].saw.startswith("5 A negotiated")

    @pytest.mark.parametrize(
        ("bits", "verdict", "word"),
        [("50005", "problem", "cable"), ("50000", "warning", "cable"), ("60002", "warning", "cooler"), ("80008", "warning", "cooler")],
    )
    def test_a_throttled_board_is_told_with_its_cause(self, tmp_path: Path, bits: str, verdict: str, word: str) -> None:
        found = look_at_board(write(tmp_path, PI_4 | {"sys/devices/platform/soc/soc:firmware/get_throttled": bits}))["power supply"]
        assert found.verdict == verdict
        assert word in found.advice

    @pytest.mark.parametrize(("millidegrees", "verdict"), [(79_900, "ok"), (81_000, "warning"), (86_000, "problem")])
    def test_a_hot_board(self, tmp_path: Path, millidegrees: int, verdict: str) -> None:
        found = look_at_board(write(tmp_path, PI_4 | {"sys/class/thermal/thermal_zone0/temp": str(millidegrees)}))
        assert found["temperature"].verdict == verdict

    @pytest.mark.parametrize(("available_kb", "verdict"), [(300_000, "ok"), (200_000, "warning"), (90_000, "problem")])
    def test_little_memory(self, tmp_path: Path, available_kb: int, verdict: str) -> None:
        meminfo = f"MemTotal: 949448 kB\nMemAvailable: {available_kb} kB\nSwapTotal: 0 kB\n"
        assert look_at_board(write(tmp_path, PI_4 | {"proc/meminfo": meminfo}))["memory"].verdict == verdict

    def test_an_image_that_would_not_fit_into_a_small_board_is_foreseen(self, tmp_path: Path) -> None:
        root = write(tmp_path, PI_4 | {"proc/meminfo": "MemTotal: 949448 kB\nMemAvailable: 700000 kB\n"})
        found = look_at_board(root)["largest image"]
        assert found.verdict == "warning"
        assert "max_pixels = 81000000" in found.advice
        assert "largest image" not in look_at_board(root, max_pixels=81_000_000)

    def test_a_kernel_that_does_not_count_memory_is_told_where_the_service_is_installed(self, tmp_path: Path) -> None:
        root = write(tmp_path, PI_4 | {"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io pids\n"})
        assert "memory limit" not in look_at_board(root)
        write(root, {"etc/systemd/system/edge-agent.service": ""})
        assert "cgroup_enable=memory" in look_at_board(root)["memory limit"].advice
        write(root, {"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n"})
        assert "memory limit" not in look_at_board(root)

    def test_a_32_bit_system_is_named_with_the_way_out(self, tmp_path: Path) -> None:
        board = msgspec.structs.replace(read_board(write(tmp_path, PI_4)), architecture="armv7l")
        found = by_check(board_findings(board, read_state(tmp_path), 1, tmp_path))["operating system"]
        assert found.verdict == "problem"
        assert "64-bit" in found.advice

    def test_a_system_that_tells_nothing_is_no_crash(self, tmp_path: Path) -> None:
        found = look_at_board(tmp_path)
        assert found["memory"].verdict == "warning"
        assert worst(found.values()) == "warning"


def mount(kind: str, options: str = "rw,relatime", source: str = "/dev/mmcblk0p2") -> Mount:
    return Mount("/", kind, source, "179:2", options)


class TestDisk:
    @pytest.mark.parametrize(
        ("role", "stands_on", "verdict", "word"),
        [
            ("home", mount("ext4"), "ok", ""),
            ("home", mount("vfat"), "problem", "ext4"),
            ("inbox", mount("vfat"), "ok", ""),
            ("home", mount("ext4", "ro,noatime"), "problem", "dmesg"),
            ("inbox", mount("exfat", "ro"), "problem", "dmesg"),
            ("home", mount("tmpfs"), "problem", "real disk"),
            ("inbox", mount("tmpfs"), "warning", "real disk"),
            ("home", mount("cifs", source="//nas/home"), "problem", "disk of this box"),
            ("inbox", mount("cifs", source="//nas/xray"), "ok", ""),
            ("home", mount("ext4", "rw,relatime,rw,data=writeback"), "problem", "fstab"),
            ("home", mount("ext4", "rw,relatime,rw,nobarrier"), "problem", "fstab"),
            ("home", mount("overlay"), "ok", ""),
        ],
    )
    def test_each_kind_of_file_system(self, tmp_path: Path, role: Any, stands_on: Mount, verdict: str, word: str) -> None:
        (found,) = file_system_findings(role, stands_on, tmp_path)
        assert found.verdict == verdict, found
        assert word in found.advice

    def test_a_card_that_forgets_at_the_next_start(self, tmp_path: Path) -> None:
        """raspi-config's overlay file system."""
        write(tmp_path, {"proc/cmdline": "console=tty1 root=/dev/mmcblk0p2 overlayroot=tmpfs quiet"})
        (found,) = file_system_findings("home", mount("overlay"), tmp_path)
        assert found.verdict == "problem"
        assert "gone at the next start" in found.saw

    @pytest.mark.parametrize(
        ("free", "files", "verdict"),
        [(20 * GIGABYTE, 10**6, "ok"), (GIGABYTE // 2, 10**6, "warning"), (10**6, 10**6, "problem"), (0, 0, "problem")],
    )
    def test_room(self, free: int, files: int, verdict: str) -> None:
        space = os.statvfs_result((4096, 4096, 32 * GIGABYTE // 4096, free // 4096, free // 4096, 2 * 10**6, files, files, 0, 255))
        assert space_finding("home", space, 200 * 1024**2).verdict == verdict

    def test_room_for_files_can_end_before_room_for_bytes_but_not_where_files_are_not_counted(self) -> None:
        few = os.statvfs_result((4096, 4096, 10**7, 10**7, 10**7, 10**6, 10, 10, 0, 255))
        assert space_finding("home", few, 0).verdict == "problem"
        assert "10 more files" in space_finding("home", few, 0).saw
        vfat = os.statvfs_result((4096, 4096, 10**7, 10**7, 10**7, 0, 0, 0, 0, 255))
        assert space_finding("home", vfat, 0).verdict == "ok"

    @pytest.fixture
    def card(self, tmp_path: Path) -> Path:
        partition = tmp_path / "sys/devices/mmc0/block/mmcblk0/mmcblk0p2"
        write(partition.parent, {"mmcblk0p2/partition": "2", "device/type": "SD\n", "device/name": "SC32G\n", "device/date": "08/2021\n"})
        (tmp_path / "sys/dev/block").mkdir(parents=True)
        (tmp_path / "sys/dev/block/179:2").symlink_to(partition)
        return write(tmp_path, {"sys/fs/ext4/mmcblk0p2/lifetime_write_kbytes": "797000000", "sys/fs/ext4/mmcblk0p2/errors_count": "0"})

    def test_a_card_says_what_it_is_and_how_much_was_written(self, card: Path) -> None:
        (found,) = wear_findings(mount("ext4"), card)
        assert (found.verdict, found.saw) == ("ok", "SD card SC32G, made 08/2021, 816 GB written so far")

    def test_a_file_system_that_noted_errors(self, card: Path) -> None:
        (found,) = wear_findings(mount("ext4"), write(card, {"sys/fs/ext4/mmcblk0p2/errors_count": "3"}))
        assert found.verdict == "problem"
        assert "3 errors" in found.saw

    def test_an_emmc_near_its_end(self, card: Path) -> None:
        write(card, {"sys/devices/mmc0/block/mmcblk0/device/life_time": "0x02 0x09\n"})
        (found,) = wear_findings(mount("ext4"), card)
        assert found.verdict == "warning"
        assert "90 % of its life" in found.saw

    def test_what_has_no_disk_has_no_wear(self, tmp_path: Path) -> None:
        assert list(wear_findings(Mount("/", "tmpfs", "tmpfs", "0:25", "rw"), tmp_path)) == []


class TestClock:
    def test_a_clock_kept_by_a_time_server(self, tmp_path: Path) -> None:
        found = clock_findings({"the newest record": NOON - timedelta(days=1)}, NOON, synchronised=True, root=tmp_path)
        assert [finding.verdict for finding in found] == ["ok", "ok"]

    def test_1970(self, tmp_path: Path) -> None:
        witnesses = {"the program": NOON - timedelta(days=30), "the newest record": NOON}
        date, keeper = clock_findings(witnesses, datetime(1970, 1, 1, 0, 5, tzinfo=UTC), synchronised=False, root=tmp_path)
        assert date.verdict == "problem"
        assert "the newest record is of 2026-07-01 12:00 UTC" in date.saw
        assert "date --utc --set" in date.advice
        assert keeper.verdict == "warning"

    @pytest.mark.parametrize(("chip_s", "verdict"), [(20, "ok"), (86_400, "warning")])
    def test_a_clock_chip(self, tmp_path: Path, chip_s: int, verdict: str) -> None:
        write(
            tmp_path, {"sys/class/rtc/rtc0/since_epoch": f"{int(NOON.timestamp()) + chip_s}\n", "sys/class/rtc/rtc0/name": "rtc-ds1307\n"}
        )
        _, keeper = clock_findings({}, NOON, synchronised=False, root=tmp_path)
        assert keeper.verdict == verdict
        assert "rtc-ds1307" in keeper.saw

    def test_the_kernel_of_this_machine_can_be_asked(self) -> None:
        assert {finding.check for finding in clock_findings({})} == {"date and time", "kept right by"}


class TestProgram:
    def test_a_missing_wheel_is_a_problem_and_a_missing_extra_is_not(self) -> None:
        there = {"click": "8.1", "numpy": "2.0"}

        def version(name: str) -> str:
            if name not in there:
                raise importlib.metadata.PackageNotFoundError(name)
            return there[name]

        requires = ["click>=8.1", "numpy>=1.26", "opencv-python-headless>=4.9; extra == 'camera'", "tensorflow; extra == 'build'"]
        found = by_check(package_findings(version, requires))
        assert found["packages"].verdict == "ok"
        assert found["packages"].saw == "click 8.1, numpy 2.0"
        assert found["extras"] == ok("extras", "none; not installed: camera")
        found = by_check(package_findings(version, [*requires, "ai-edge-litert<2.2,>=2.1.6"]))
        assert found["packages"].verdict == "problem"
        assert found["packages"].saw.startswith("missing: ai-edge-litert;")

    def test_the_build_is_named_as_its_version_option_names_it(self) -> None:
        assert build_finding() == ok("edge-agent", describe_build())

    def test_the_packages_of_this_environment(self) -> None:
        found = by_check(package_findings())
        assert found["packages"].verdict == "ok"
        assert "ai-edge-litert" in found["packages"].saw

    @pytest.mark.parametrize(("glibc", "verdict"), [("2.36", "ok"), ("2.27", "ok"), ("2.26", "problem"), (None, "problem")])
    def test_the_c_library(self, glibc: str | None, verdict: str) -> None:
        board = msgspec.structs.replace(read_board(), glibc=glibc)
        assert by_check(python_findings(board))["C library"].verdict == verdict

    @pytest.mark.parametrize(
        ("result", "page_size_bytes", "word"),
        [
            (ProbeResult({}, "was killed by SIGILL", "running the model", "SIGILL"), 4096, "newer board"),
            (ProbeResult({}, "was killed by SIGSEGV", "loading numpy", "SIGSEGV"), 16384, "kernel8.img"),
            (ProbeResult({}, "was killed by SIGSEGV", "loading numpy", "SIGSEGV"), 4096, "scripts/install"),
            (ProbeResult({}, "was killed by SIGKILL", "running the model", "SIGKILL"), 4096, "memory"),
            (ProbeResult({}, "No module named 'numpy'", "loading numpy"), 4096, "scripts/install"),
            (ProbeResult({}, "model.tflite: not the file that was packed", "reading the model's files"), 4096, "rollback"),
        ],
    )
    def test_a_crash_is_a_result_with_its_advice(self, result: ProbeResult, page_size_bytes: int, word: str) -> None:
        (found,) = model_findings(msgspec.structs.replace(read_board(), page_size_bytes=page_size_bytes), result)
        assert found.verdict == "problem"
        assert result.failure in found.saw
        assert word in found.advice

    def test_the_configuration(self) -> None:
        assert config_finding(None, "").verdict == "ok"
        assert config_finding(Path("/etc/edge-agent/edge-agent.toml"), "intake.inbx: unknown key").verdict == "problem"

    def test_a_configuration_reaches_the_probe_as_it_is(self) -> None:
        config = Config(home=Path(os.fsdecode(b"/srv/r\xf6ntgen")), intake=IntakeConfig(inbox=Path("/srv/日本")))
        assert decode_config(encode_config(config)) == config


class TestAccess:
    def test_a_home_that_can_be_written(self, tmp_path: Path) -> None:
        for name in ("state", "results", "done", "rejected"):
            (tmp_path / name).mkdir()
        before = sorted(tmp_path.rglob("*"))
        (found,) = home_findings(tmp_path, AGENT)
        assert found.verdict == "ok"
        assert sorted(tmp_path.rglob("*")) == before

    def test_a_home_that_is_not_there_yet(self, tmp_path: Path) -> None:
        (found,) = home_findings(tmp_path / "none", AGENT)
        assert found.verdict == "warning"

    def test_files_that_somebody_else_left_in_the_state_folder(self, tmp_path: Path) -> None:
        if os.getuid() != 0:
            pytest.skip("only root can give a file to somebody else")
        (tmp_path / "state").mkdir()
        (tmp_path / "state" / "edge-agent.db").touch()
        os.chown(tmp_path / "state" / "edge-agent.db", 54321, 54321)
        (found,) = home_findings(tmp_path, AGENT)
        assert found.verdict == "problem"
        assert "1 of the agent's own files" in found.saw
        assert "chown -R root" in found.advice

    def test_an_inbox_that_can_be_emptied(self, tmp_path: Path) -> None:
        (tmp_path / "ward").mkdir()
        (tmp_path / "ward" / "a.png").touch()
        (found,) = inbox_findings(tmp_path, IntakeConfig())
        assert found.verdict == "ok"
        assert [path.name for path in tmp_path.rglob("*.*")] == ["a.png"]

    def test_the_umask_of_the_agent(self) -> None:
        assert user_finding(AGENT, 0o027).verdict == "ok"
        assert user_finding(AGENT, 0o077).verdict == "warning"
        assert "sudo" in user_finding(User("someone", is_agent=False), 0o027).advice


class TestService:
    def test_no_agent_has_been_here(self, tmp_path: Path) -> None:
        assert agent_finding(tmp_path / "state").verdict == "ok"
        assert database_findings(tmp_path) == ([ok("database", "none yet: no agent has run on this home")], None)
        assert crash_finding(tmp_path / "state") is None

    def test_an_agent_that_runs_and_one_that_waits(self, tmp_path: Path) -> None:
        lock, state = HomeLock(tmp_path), StateFile(tmp_path)
        try:
            state.show("working")
            assert running_agent(tmp_path) == os.getpid()
            assert agent_finding(tmp_path).saw.startswith(f"runs, process {os.getpid()}, working since")
            state.show("waiting", "inbox_away", "mount the share")
            found = agent_finding(tmp_path)
            assert (found.verdict, found.advice) == ("problem", "mount the share")
            assert "inbox_away" in found.saw
        finally:
            lock.release()
        assert agent_finding(tmp_path).saw == "none runs on this home now"

    def test_the_state_of_an_agent_that_is_gone_is_no_news(self, tmp_path: Path) -> None:
        StateFile(tmp_path).show("waiting", "disk_full", "free some space")
        assert agent_finding(tmp_path).verdict == "ok"

    def test_umask_of_a_process(self, tmp_path: Path) -> None:
        write(tmp_path, {"proc/7/status": "Name:\tedge-agent\nUmask:\t0027\nState:\tS\n"})
        assert agent_umask(7, tmp_path) == 0o027
        assert agent_umask(8, tmp_path) is None
        assert agent_umask(None, tmp_path) is None

    def test_what_the_last_crash_said(self, tmp_path: Path) -> None:
        (tmp_path / "crash-last.txt").write_text("Fatal Python error: Segmentation fault\n\nThread 0x0000\n")
        found = crash_finding(tmp_path)
        assert found is not None
        assert found.verdict == "warning"
        assert found.saw.endswith("Fatal Python error: Segmentation fault")

    def test_a_sound_database_and_a_damaged_one(self, tmp_path: Path) -> None:
        home = AgentHome(tmp_path)
        for seed in range(3):
            drop(home.inbox, f"{seed}.png", image_bytes(seed))
        home.run_once()
        (found,), newest = database_findings(home.home)
        assert found.verdict == "ok"
        assert found.saw.startswith("3 records, ")
        assert newest is not None
        with home.database.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * (home.database.stat().st_size - 4096))
        (found,), _ = database_findings(home.home)
        assert found.verdict == "problem"

    @pytest.mark.parametrize(
        ("said", "verdict"),
        [
            ({"LoadState": "not-found"}, "ok"),
            ({"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled", "NRestarts": "0"}, "ok"),
            ({"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "disabled", "NRestarts": "0"}, "warning"),
            ({"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled", "NRestarts": "7"}, "warning"),
            ({"LoadState": "loaded", "ActiveState": "activating", "UnitFileState": "enabled", "ExecMainStatus": "10"}, "problem"),
            ({"LoadState": "bad-setting", "ActiveState": "inactive"}, "problem"),
        ],
    )
    def test_what_systemd_says(self, said: dict[str, str], verdict: str) -> None:
        assert unit_verdict(said).verdict == verdict


def test_the_gravest_verdict_counts() -> None:
    assert worst([]) == "ok"
    assert worst([ok("a", ""), warning("b", "", "do"), ok("c", "")]) == "warning"
    assert worst([problem("a", "", "do"), warning("b", "", "do")]) == "problem"


def test_whatever_is_not_ok_says_what_to_do(tmp_path: Path) -> None:
    state: BoardState = msgspec.structs.replace(read_state(), temperature_c=90.0, throttled=0xF000F)
    board: Board = msgspec.structs.replace(read_board(), architecture="armv7l", glibc=None)
    findings = [
        *board_findings(board, state, 10**9, tmp_path),
        *python_findings(board),
        *(finding for role in ("home", "inbox") for finding in file_system_findings(role, mount("tmpfs", "ro"), tmp_path)),
        *clock_findings({"the program": NOON}, NOON - timedelta(days=1), synchronised=False, root=tmp_path),
    ]
    bad = [finding for finding in findings if finding.verdict != "ok"]
    assert len(bad) >= 8
    assert [finding for finding in bad if not finding.advice] == []
