"""This machine once more, in namespaces of its own, run by a real systemd as process 1: what is installed there is gone with it.

Its root is an overlay of this one's, so that nothing on this machine changes; it has no network but itself, and sees no process of ours.
Needs root, overlayfs and a cgroup of version 2.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Self

SYSTEMD = Path("/lib/systemd/systemd")
START_S = 60.0
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_NAMESPACES = ("--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup")
_QUIET_TIMERS = ("apt-daily.timer", "apt-daily-upgrade.timer", "man-db.timer", "e2scrub_all.timer", "dpkg-db-backup.timer")

# Runs as process 1 of the new namespaces, and becomes systemd.
_ENTER = f"""
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
cd "$1"
mkdir upper work root
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" root
cd root
mount -t proc proc proc
mount -t sysfs sysfs sys -o ro
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run -o mode=755
mount -t tmpfs tmpfs tmp -o mode=1777
mount -t tmpfs tmpfs dev -o mode=755
for device in {" ".join(_DEVICES)}; do touch "dev/$device"; mount --bind "/dev/$device" "dev/$device"; done
mkdir dev/shm dev/pts
mount -t tmpfs tmpfs dev/shm
mount -t devpts devpts dev/pts -o newinstance,ptmxmode=0666
ln -s pts/ptmx dev/ptmx
mkdir -p etc/systemd/system box-old
for timer in {" ".join(_QUIET_TIMERS)}; do ln -sfn /dev/null "etc/systemd/system/$timer"; done
for share in $2; do mkdir -p "./box$share"; mount --bind "$share" "./box$share"; done
pivot_root . box-old
umount --lazy /box-old
# As systemd does on a machine, but not in a container: services see what is mounted after they were started.
mount --make-rshared /
exec env -i container=systemd-box PATH=/usr/sbin:/usr/bin:/sbin:/bin {SYSTEMD} --system --log-target=null systemd.unit=basic.target
"""


class NoBoxError(Exception):
    """This machine cannot run one."""


class SystemdBox:
    """A running box; leaving the ``with`` block ends everything in it.

    Parameters
    ----------
    scratch : Path
        An empty folder.
    shares : list of Path
        Folders of this machine that the box sees below ``/box``.

    Raises
    ------
    NoBoxError
        If it cannot be started.
    """

    def __init__(self, scratch: Path, shares: list[Path]) -> None:
        self._scratch = scratch
        self._shares = shares
        self._cgroup: Path | None = None
        self._outside: subprocess.Popen[bytes] | None = None
        self._init = 0

    def __enter__(self) -> Self:
        if os.getuid() != 0 or not SYSTEMD.exists() or not shutil.which("unshare"):
            raise NoBoxError("needs root, systemd and unshare")
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        (self._scratch / "box").mkdir()
        self._cgroup = _own_cgroup()
        log = self._scratch / "log"
        script = ["unshare", *_NAMESPACES, "--fork", "--kill-child", "sh", "-c", _ENTER, "box"]
        # The cgroup is entered before the namespace is made: it is what the box takes for the root of all.
        enter = f'echo 0 >{self._cgroup}/cgroup.procs && exec "$@"'
        command = ["sh", "-c", enter, "sh", *script, str(self._scratch / "box"), " ".join(map(str, self._shares))]
        with log.open("wb") as stream:
            self._outside = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s:
            if self._outside.poll() is not None:
                raise NoBoxError(f"the box did not start: {log.read_text('utf-8', 'replace')[-500:]}")
            self._init = self._find_init()
            if self._init and self.run("systemctl is-system-running --wait", check=False).stdout.strip() in ("running", "degraded"):
                return
            time.sleep(0.2)
        raise NoBoxError("systemd did not come up in the box")

    def _find_init(self) -> int:
        assert self._outside is not None
        children = Path(f"/proc/{self._outside.pid}/task/{self._outside.pid}/children").read_text().split()
        if children and Path(f"/proc/{children[0]}/comm").read_text().strip() == "systemd":
            return int(children[0])
        return 0

    def __exit__(self, *_: object) -> None:
        if self._outside is not None:
            if self._init:
                os.kill(self._init, signal.SIGKILL)  # process 1 of its namespace: all others die with it
            else:
                self._outside.kill()
            self._outside.wait(60)
        if self._cgroup is not None and self._cgroup.exists():
            wait_for(partial(_removed, self._cgroup), 5, required=False)

    def run(self, script: str, *, check: bool = True, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a line of shell in the box as root."""
        command = ["nsenter", f"--target={self._init}", *_NAMESPACES, "--", "sh", "-c", script]
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s)
        if check and done.returncode:
            raise AssertionError(f"{script}\nended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def output(self, script: str) -> str:
        """Give what a line of shell prints, also where it ends badly."""
        return self.run(script, check=False).stdout.strip()

    def wait(self, script: str, timeout_s: float = 30) -> None:
        """Wait until a line of shell succeeds."""
        wait_for(lambda: self.run(script, check=False).returncode == 0, timeout_s, what=script)


def wait_for(condition: Callable[[], bool], timeout_s: float, *, required: bool = True, what: str = "it") -> None:
    """Wait until something is so."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            assert not required, f"{what} was not so within {timeout_s:g} s"
            return
        time.sleep(0.1)


def _own_cgroup() -> Path:
    for root in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        if (root / "cgroup.procs").exists() and (root / "cgroup.controllers").exists():
            folder = root / f"systemd-box-{os.getpid()}"
            try:
                folder.mkdir(exist_ok=True)
            except OSError as fault:
                raise NoBoxError(f"no cgroup can be made: {fault}") from fault
            return folder
    raise NoBoxError("there is no cgroup of version 2")


def _removed(cgroup: Path) -> bool:
    """Remove an empty cgroup and those below it; they empty as their processes end."""
    folders = sorted((path for path in [cgroup, *cgroup.rglob("*")] if path.is_dir()), reverse=True)
    try:
        for folder in folders:
            folder.rmdir()
    except OSError:
        return False
    return True
