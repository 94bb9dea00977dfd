"""Two agents on one home folder: the second is refused, the first works on."""

from __future__ import annotations

from pathlib import Path

from support.agent_process import run_agent, start_agent
from support.agents import AgentHome, drop, image_bytes


def test_the_second_agent_is_refused(tmp_path: Path) -> None:
    """
    1. An agent runs. A second one is started on the same home folder.
    2. The first is killed, and a third is started.
    Result: the second ends with 40 and names the first; the first works on; the third runs.
    """
    home = AgentHome(tmp_path)
    with start_agent(home.home) as first:
        drop(home.inbox, "a.png", image_bytes(1))
        home.wait_for(1)
        code, said = run_agent(home.home, once=True)
        assert code == 40
        assert f"another agent (process {first.pid})" in said
        assert "--home" in said
        drop(home.inbox, "b.png", image_bytes(2))
        home.wait_for(2)
        first.kill()
        first.communicate()
    drop(home.inbox, "c.png", image_bytes(3))
    code, said = run_agent(home.home, once=True)
    assert code == 0, said
    assert [row["path"] for row in home.rows()] == ["a.png", "b.png", "c.png"]
