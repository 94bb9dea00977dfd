"""``edge-agent run``: watch the inbox and classify what arrives."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="run")
@click.option("--config", "config_path", type=click.Path(path_type=Path), metavar="FILE", help="TOML configuration.")
@click.option("--inbox", type=click.Path(path_type=Path), metavar="DIR", help="Folder to watch; HOME/inbox if not given.")
@click.option("--home", type=click.Path(path_type=Path), metavar="DIR", help="Folder for results, done, rejected and state.")
@click.option("--model", "bundle", type=click.Path(path_type=Path), metavar="BUNDLE", help="Bundle; the one that ships if not given.")
@click.option("--once", is_flag=True, help="Process what is in the inbox, then end.")
@click.option("--camera", "camera_source", metavar="SOURCE", help="V4L2 index, URL or video file to take pictures from.")
def command(
    config_path: Path | None, inbox: Path | None, home: Path | None, bundle: Path | None, *, once: bool, camera_source: str | None
) -> None:
    """Watch the inbox and classify what arrives, until stopped.

    Every image gets one durable record. Records are kept in HOME/state, and written as JSON lines, CSV and one file each to HOME/results.
    """
    import msgspec

    from edge_agent.agent.agent import Agent
    from edge_agent.config import Config, load_config
    from edge_agent.surfaces.log import configure_logging, thread_faults_logged

    def read_config() -> Config:
        config = load_config(config_path, home=home, inbox=inbox, bundle=bundle)
        if camera_source is None:
            return config
        return msgspec.structs.replace(config, camera=msgspec.structs.replace(config.camera, source=camera_source))

    config = read_config()
    # A single pass ends with its summary; its log is of interest only where something is wrong, or where it was asked for.
    configure_logging("warning" if once and config.log.level == "info" else config.log.level)
    agent = Agent(config, once=once, reread=read_config)
    with thread_faults_logged():
        agent.run()
    if once:
        counts = agent.counts
        click.echo(
            f"{counts['done'] + counts['rejected']} images: {counts['positive']} positive, {counts['negative']} negative, "
            f"{counts['review']} to review, {counts['rejected']} rejected, {counts['duplicate']} duplicates; "
            f"results in {config.home / 'results'}",
            err=True,
        )
