"""A stick with the inbox that is pulled out and plugged in again, faster than the agent looks after it."""

from __future__ import annotations

from pathlib import Path

from support.agents import AgentHome, drop, image_bytes
from support.disks import LoopDisk, scratch

from edge_agent.agent.timings import Timings


def test_images_are_seen_at_once_on_a_stick_that_was_out_for_a_moment(disks: None, tmp_path: Path) -> None:
    """
    1. The inbox is on a stick. It is pulled out and plugged in again at once: the same device number, the same folder.
    2. An image comes.
    Result: it has its record long before the next scan (300 s): the kernel's watch ended with the mount, and a new one was begun.
    """
    with scratch() as folder:
        stick = LoopDisk.make(folder / "stick.img", folder / "stick", 16)
        with stick.mounted() as mount_point:
            home = AgentHome(tmp_path, inbox=mount_point / "inbox")
            home.timings = Timings(first_wait_s=0.1)
            with home.running():
                for number in range(3):
                    drop(home.inbox, f"{number}.png", image_bytes(number))
                    home.wait_for(number + 1)
                    stick.unmount()
                    stick.mount()
    assert home.files("done") == ["0.png", "1.png", "2.png"]
