"""The audit as a page of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from model_build.data.audit.audit import Audit, SamePicture
from model_build.data.audit.shortcuts import ALARM_AUC, MIN_PATIENTS
from model_build.data.similarity import CORRELATION_LIMIT, HASH_LIMIT_BITS

_SHOWN = 20


def render_audit(audit: Audit) -> str:
    """Write an audit for a terminal: what is there, then each finding, then the alarms."""
    known = f"{audit.patients:,} patients" if audit.patients_known else "patients unknown: every file counts as one"
    outside = f"; {audit.outside_the_build:,} more are no class of this build" if audit.outside_the_build else ""
    lines = [f"{audit.images:,} readable images, {known}{outside}", ""]
    lines += [f"{'split':<12}{'class':<24}{'images':>8}{'patients':>10}"]
    for split, per_label in audit.counts.items():
        lines += [f"{split:<12}{label:<24}{cell.images:>8,}{cell.patients:>10,}" for label, cell in per_label.items()]
    lines += ["", f"sizes (rows x columns): {_most(audit.sizes)}", f"modes: {_most(audit.modes)}", ""]
    lines += _section("unreadable", len(audit.unreadable), (f"{entry.file}: {entry.reason}" for entry in audit.unreadable))
    lines += _groups("groups of byte-identical files", audit.identical)
    lines += _groups(
        f"pairs of nearly identical images (within {HASH_LIMIT_BITS} of 64 hash bits, correlation from {CORRELATION_LIMIT:g})",
        audit.near_identical,
    )
    lines += _groups("the same picture under different labels", audit.label_conflicts)
    lines += _section("patients in several splits", len(audit.patients_in_several_splits), audit.patients_in_several_splits)
    lines += _shortcuts(audit)
    alarms = alarms_of(audit)
    return "\n".join([*lines, "", *(f"ALARM: {alarm}" for alarm in alarms or ()), *(() if alarms else ("No alarm.",))])


def alarms_of(audit: Audit) -> list[str]:
    """What should be settled before a model is trained, a sentence each."""
    alarms = []
    leaking = [group for group in (*audit.identical, *audit.near_identical) if group.across_splits]
    if leaking:
        alarms.append(f"{len(leaking)} picture(s) stand in several splits; give their files one patient, or remove all but one")
    if audit.patients_in_several_splits:
        alarms.append(f"{len(audit.patients_in_several_splits)} patient(s) stand in several splits; training refuses that split")
    if audit.label_conflicts:
        alarms.append(f"{len(audit.label_conflicts)} picture(s) carry different labels; find out which label is right")
    for shortcut in audit.shortcuts:
        if shortcut.alarm:
            properties = {"file size": shortcut.file_size, "image size": shortcut.image_size, "mean intensity": shortcut.mean_intensity}
            telling = [f"{name} {auc:.2f}" for name, auc in properties.items() if auc >= ALARM_AUC] or [
                f"all together {shortcut.together:.2f}"
            ]
            alarms.append(f"{shortcut.label!r} can be guessed without looking at the picture (AUC by {', '.join(telling)})")
    return alarms


def _most(counts: dict[str, int]) -> str:
    shown = [f"{name} ({count:,})" for name, count in list(counts.items())[:5]]
    more = [f"and {len(counts) - 5} others"] if len(counts) > 5 else []
    return ", ".join([*shown, *more])


def _section(title: str, count: int, entries: Iterable[str]) -> list[str]:
    lines = [f"{title}: {count:,}"]
    lines += [f"  {entry}" for _, entry in zip(range(_SHOWN), entries, strict=False)]
    return [*lines, f"  and {count - _SHOWN:,} more; --format json lists all"] if count > _SHOWN else lines


def _groups(title: str, groups: Sequence[SamePicture]) -> list[str]:
    patients, splits = sum(group.across_patients for group in groups), sum(group.across_splits for group in groups)
    where = f" ({patients} across patients, {splits} across splits)" if groups else ""
    lines = _section(title, len(groups), (f"{' = '.join(group.files)}  [{', '.join(group.labels)}]" for group in groups))
    return [lines[0] + where, *lines[1:]]


def _shortcuts(audit: Audit) -> list[str]:
    if not audit.shortcuts:
        return ["", f"shortcuts: too few patients to measure ({MIN_PATIENTS} with and {MIN_PATIENTS} without a class are needed)"]
    lines = ["", f"how well a class is guessed from (cross-validated AUC by patient, alarm from {ALARM_AUC:g}):"]
    lines += [f"{'class':<24}{'file size':>11}{'image size':>12}{'intensity':>11}{'together':>10}"]
    lines += [
        f"{s.label:<24}{s.file_size:>11.2f}{s.image_size:>12.2f}{s.mean_intensity:>11.2f}{s.together:>10.2f}{'  ALARM' if s.alarm else ''}"
        for s in audit.shortcuts
    ]
    if any(shortcut.alarm for shortcut in audit.shortcuts):
        lines += [
            "An alarm asks for a look: at equal image size, file size follows sharpness and noise, and intensity follows exposure. Where",
            "they come from the device or the export and not from the disease, a model learns them and fails at the next hospital.",
        ]
    return lines
