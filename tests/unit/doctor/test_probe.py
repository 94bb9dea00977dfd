"""What a probe is given reaches it as it is."""

from __future__ import annotations

import os
from pathlib import Path

from edge_agent.config import Config, IntakeConfig
from edge_agent.doctor.probe import decode_config, encode_config


def test_a_configuration_reaches_the_probe_as_it_is() -> None:
    config = Config(home=Path(os.fsdecode(b"/srv/r\xf6ntgen")), intake=IntakeConfig(inbox=Path("/srv/日本")))
    assert decode_config(encode_config(config)) == config
