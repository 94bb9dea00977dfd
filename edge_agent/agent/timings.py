"""How long the agent waits for what; tests wait less."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timings:
    """The agent's intervals and limits, in seconds."""

    heartbeat_s: float = 5.0
    """How often it looks after what no event reports, and says that it is alive; more often where systemd's watchdog asks for it."""
    stuck_s: float = 120.0
    """A worker with one image in hand for longer is stuck: systemd's watchdog is not fed any more."""
    group_s: float = 0.1
    """How long the first outcome under load waits for others to share its commit."""
    drain_s: float = 1.2
    """How long a stop waits for the images in hand: together with the next three less than the two seconds that a stop may take."""
    camera_stop_s: float = 0.3
    """How long it waits for the camera."""
    workers_stop_s: float = 0.1
    """How long it waits for the workers to end."""
    sync_stop_s: float = 0.2
    """How long it waits for the disk to have ``results/``."""
    sync_once_s: float = 60.0
    """The same at the end of a single pass."""
    camera_poll_s: float = 0.2
    """How often a single pass asks whether the camera's video has ended."""
    space_look_s: float = 1.0
    """How long a measurement of the free space stays valid."""
    start_report_s: float = 1.0
    """How often a long start says that it goes on."""
    first_wait_s: float = 1.0
    """The wait after a first transient error; each further one waits twice as long."""
    longest_wait_s: float = 30.0
    """The longest of these waits."""
