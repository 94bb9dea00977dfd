"""The figures of the long proofs, as files: ``docs/reports/faults.json``, and ``faults.md`` made from it."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_agent.files.atomic import replacing
from support.proofs.soak_figures import A_RUN_S

REPORTS = Path(__file__).resolve().parents[3] / "docs" / "reports"
Figures = dict[str, Any]


@dataclass
class Result:
    """What a proof came to: the command that repeats it, how long it took, and its figures."""

    command: str
    seconds: float
    figures: Figures
    day: str = ""
    machine: str = ""


def add_to_report(name: str, result: Result, reports: Path = REPORTS) -> None:
    """Enter the result of one proof into the report, in the place of its last one; the others stay.

    Parameters
    ----------
    name : str
        One of the proofs.
    result : Result
        With or without the day and the machine: those of now are put in.
    reports : Path
        The folder of the two files.

    Raises
    ------
    KeyError
        If no proof is called that.
    """
    if name not in _PROOFS:
        raise KeyError(name)
    path = reports / "faults.json"
    results: dict[str, Figures] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    result.day, result.machine = f"{datetime.now(UTC):%Y-%m-%d}", _machine()
    results[name] = asdict(result)
    ordered = {each: results[each] for each in _PROOFS if each in results}
    with replacing(path) as file:
        file.write(f"{json.dumps(ordered, indent=2)}\n".encode())
    with replacing(reports / "faults.md") as file:
        file.write(_page(ordered).encode())


def _page(results: dict[str, Figures]) -> str:
    lines = ["# What the agent outlived", "", _INTRODUCTION, "", "| proof | asked | measured | lost, twice or not in agreement |"]
    lines.append("|---|---|---|---|")
    for name, result in results.items():
        title, asked, measured = _PROOFS[name]
        faults = len(result["figures"]["faults"])
        lines.append(f"| {title} | {asked} | {measured(result['figures'])} | {faults} |")
    lines += ["", "| proof | command | took | day | machine |", "|---|---|---|---|---|"]
    for name, result in results.items():
        took = f"{result['seconds'] / 60:.0f} min"
        lines.append(f"| {_PROOFS[name][0]} | `{result['command']}` | {took} | {result['day']} | {result['machine']} |")
    for name, result in results.items():
        faults = result["figures"]["faults"]
        lines += ["", f"## {_PROOFS[name][0]}: what went wrong", "", *[f"* {fault}" for fault in faults]] if faults else []
    if "soak" in results:
        lines += ["", "## What happened in the soak", "", *_troubles(results["soak"]["figures"])]
    return "\n".join(lines) + "\n"


def _troubles(figures: Figures) -> list[str]:
    lines = ["| trouble | times | longest until an image that came then had its durable record |", "|---|---|---|"]
    lines += [f"| {name} | {count} | {figures['recovery_s'][name]:.1f} s |" for name, count in sorted(figures["troubles"].items())]
    states = ", ".join(f"{name} {count} times" for name, count in sorted(figures["states"].items()))
    return [*lines, "", f"The agent said meanwhile that it waited: {states or 'never'}."]


def _kills(of: Figures) -> str:
    shipped = f"{of['kills_of_the_shipped_model']} of them of the agent with the model that ships"
    return f"{of['kills']} kills ({shipped}), {of['drops']} drops, {of['records']} records; {of['broken_databases']} broken databases"


def _power(of: Figures) -> str:
    cuts = f"{of['cuts']} cuts ({of['cuts_of_the_shipped_model']} with the model that ships), {of['drops']} drops"
    return (
        f"{cuts}; before the cuts {of['shown']} records were shown, {of['exported']} exported, {of['moved']} images moved: all still there"
    )


def _space(of: Figures) -> str:
    fillings = f"{of['fillings']} fillings, shown as such {of['shown_as_full']} times"
    return f"{fillings}; worked again within {of['longest_recovery_s']:.1f} s; {of['records']} records"


def _load(of: Figures) -> str:
    stream = f"{of['stream_hz']:.0f}/s for {of['stream_s'] / 60:g} min: median {of['median_ms']:.1f} ms, 99 % within {of['p99_ms']:.1f} ms"
    burst = f"{of['burst']:,} at once: {of['images_per_s']:.0f}/s, order as by date to {of['order_correlation']:.4f} (rank correlation)"
    queue = f"at most {of['longest_queue']:,} files held (bound {of['queue_bound']:,})"
    memory = f"memory (PSS) {of['memory_first_mib']:.1f} to {of['memory_highest_mib']:.1f} MiB ({of['memory_growth_percent']:+.1f} %)"
    return f"{stream}; {burst}; {queue}; {memory}"


def _soak(of: Figures) -> str:
    course = f"{of['hours'] * 60:.0f} min, {of['drops']} drops, {of['records']} records, {sum(of['troubles'].values())} troubles of"
    course += f" {len(of['troubles'])} kinds; {of['lost']} lost, {of['twice']} twice, {of['broken_databases']} broken databases"
    memory = f"resident memory (RSS) at most {of['memory_mib']:.1f} MiB, "
    if of["longest_run_s"] > A_RUN_S:
        memory += f"growth in one agent at most {of['memory_growth_percent']:+.1f} %"
    else:
        memory += f"its growth not measured, as no agent lived for {A_RUN_S:.0f} s"
    return f"{course}; {memory}; recovered within {of['longest_recovery_s']:.1f} s"


_INTRODUCTION = (
    "Each proof drops images in many manners (fast, slowly, closed and opened again, renamed, the same again, under one name, no image),\n"
    "lets something happen to the agent, and compares database, `results/`, folders and bytes with the book of what was dropped.\n"
    "There are fewer records than drops where a file was replaced before it was seen, and more where a writer was cut off in the middle."
)
_PROOFS: dict[str, tuple[str, str, Callable[[Figures], str]]] = {
    "kills": ("`kill -9` at random moments", "200 kills over 2,000 drops", _kills),
    "power": ("Power cuts, on ext4", "50 cuts", _power),
    "space": ("Full disks, tmpfs and ext4", "fill while working, recover, lose nothing", _space),
    "load": ("Load", "50/s for 10 min, then 20,000 at once; bounded queue, PSS within 10 %", _load),
    "soak": ("Soak", "30 min of faults, one after the other", _soak),
}


def _machine() -> str:
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return f"{platform.machine()}, {cores} cores, {memory_gib:.0f} GiB, Python {sys.version_info.major}.{sys.version_info.minor}"
