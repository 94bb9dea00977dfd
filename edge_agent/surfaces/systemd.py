"""Tell systemd how the agent is: ready, alive, reloading, stopping. Outside systemd, or where it does not read, every call does nothing.

The watchdog is pinged from the loop that does the work, after real progress; a thread of its own would report a dead loop as alive.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress

SEND_TIMEOUT_S = 1.0
"""How long a message may wait for room in systemd's queue (net.unix.max_dgram_qlen). A systemd that does not read holds up no image."""
READY_TIMEOUT_S = 10.0
"""Longer, because without this message the start counts as failed; no image is in hand yet."""
STATUS_TIMEOUT_S = 0.1
"""Short, because the next status replaces this one."""


def notify_ready() -> None:
    """Report that the start is over: the model is loaded and the inbox is watched."""
    _notify("READY=1", READY_TIMEOUT_S)


def notify_watchdog() -> None:
    """Report that the main loop has made progress."""
    _notify("WATCHDOG=1", SEND_TIMEOUT_S)


def notify_starting(timeout_s: float) -> None:
    """Report that a start takes long and goes on.

    Parameters
    ----------
    timeout_s : float
        How long systemd should wait for the next message.

    References
    ----------
    sd_notify(3): ``EXTEND_TIMEOUT_USEC`` counts against ``TimeoutStartSec=``; once the service is ready, ``WATCHDOG=1`` is what counts.
    """
    _notify(f"EXTEND_TIMEOUT_USEC={round(timeout_s * 1e6)}\nWATCHDOG=1", SEND_TIMEOUT_S)


def notify_reloading() -> None:
    """Report that the agent reads its configuration again. :func:`notify_ready` reports the end, whichever configuration counts then.

    References
    ----------
    sd_notify(3): ``RELOADING=1`` comes with the time of the monotonic clock in microseconds, in the same datagram, which newer versions of
    systemd (``Type=notify-reload``) hold against the signal that they sent.
    """
    _notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}", SEND_TIMEOUT_S)


def notify_stopping() -> None:
    """Report that the agent finishes what it has in hand and will exit."""
    _notify("STOPPING=1", SEND_TIMEOUT_S)


def notify_status(text: str) -> None:
    """Set the line that ``systemctl status`` shows.

    Parameters
    ----------
    text : str
        One line for a person; line breaks, which would start another assignment, become spaces.
    """
    _notify("STATUS=" + " ".join(text.split()), STATUS_TIMEOUT_S)


def watchdog_interval_s() -> float | None:
    """How often :func:`notify_watchdog` is wanted.

    Returns
    -------
    float or None
        Half of the limit after which systemd takes the agent for dead, in seconds; None where no watchdog is set for this process.

    References
    ----------
    sd_watchdog_enabled(3): ``WATCHDOG_USEC`` counts only for the process named in ``WATCHDOG_PID``, if that is set.
    """
    limit_us, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not limit_us.isdecimal() or int(limit_us) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(limit_us) / 2_000_000


def _notify(assignments: str, timeout_s: float) -> None:
    """Send one datagram, an assignment a line.

    A lost one must not stop the classification, so a failure is ignored, as sd_notify(3) advises. The queue of a datagram socket holds few
    messages (10 where nobody raised it): a blocking send into a full one would wait for ever.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # Linux's abstract namespace: unix(7)
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(timeout_s)
        sender.connect(address)
        sender.sendall(assignments.encode())
