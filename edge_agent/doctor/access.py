"""Whether the agent's user can do in its folders what it must do: tried, not guessed."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from edge_agent.config import WRITTEN_FOLDERS, IntakeConfig
from edge_agent.doctor.finding import Finding, ok, problem, warning

SERVICE_USER = "edge-agent"
_LISTED = 2000
"""How many files and folders of an inbox are looked at."""


class User(NamedTuple):
    """Whose rights count, and whether it is the agent's own user."""

    name: str
    is_agent: bool


def become_agent(home: Path) -> User:
    """Give up root's rights for good and go on as the user that the agent runs as: the home's owner, else the one of the service.

    Root may read and write everything, so root's own rights say nothing about the agent's. Only root can change users. Root stays root
    where that user cannot run this Python, as where it is installed in somebody's home folder.
    """
    try:
        owner, group = home.stat().st_uid, home.stat().st_gid
    except FileNotFoundError:
        owner, group = next(((user.pw_uid, user.pw_gid) for user in pwd.getpwall() if user.pw_name == SERVICE_USER), (os.geteuid(), 0))
    except OSError:
        return User(_user_name(os.geteuid()), is_agent=False)
    if os.geteuid() == 0 and owner != 0:
        _change_user(owner, group)
    return User(_user_name(os.geteuid()), is_agent=os.geteuid() == owner)


def _change_user(uid: int, group: int) -> None:
    os.seteuid(uid)
    may_run = os.access(os.path.realpath(sys.executable), os.X_OK, effective_ids=True)
    os.seteuid(0)
    if not may_run:
        return
    try:
        user = pwd.getpwuid(uid)
        group = user.pw_gid
        os.initgroups(user.pw_name, group)
    except KeyError:  # the disk comes from another box
        os.setgroups([])
    os.setgid(group)
    os.setuid(uid)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"number {uid}"


def user_finding(user: User, umask: int) -> Finding:
    """Name the user whose rights count.

    Parameters
    ----------
    user : User
        From :func:`become_agent`.
    umask : int
        The agent's, where it runs; else that of this process.
    """
    groups = []
    for number in sorted({os.getegid(), *os.getgroups()}):
        try:
            groups.append(grp.getgrgid(number).gr_name)
        except KeyError:
            groups.append(str(number))
    saw = f"{user.name}, in the groups {', '.join(groups)}; umask {umask:04o}"
    if not user.is_agent:
        advice = (
            "look again with  sudo edge-agent doctor"
            if os.geteuid()
            else "install the program where that user can run it:  sudo scripts/install"
        )
        return warning("user", f"looked at as {saw}; the agent runs as another user", advice)
    if umask & stat.S_IRGRP:
        return warning("user", f"{saw}: results are hidden from the agent's group", "set  UMask=0027  in the service, as its unit does")
    return ok("user", saw)


def home_findings(home: Path, user: User) -> Iterator[Finding]:
    """Try to write in each folder of the home, and look for what another user has left there."""
    if not home.is_dir():
        yield warning("home", f"{home} is not there yet", "the agent makes it when it starts; make it yourself if its user may not")
        return
    folders = [home, *(home / name for name in WRITTEN_FOLDERS if (home / name).is_dir())]
    refused = [(folder, fault) for folder in folders if (fault := _refusal(folder)) is not None]
    if refused:
        folder, fault = refused[0]
        report = problem if user.is_agent else warning
        who = "the agent" if user.is_agent else user.name
        advice = f"give it back to its user:  sudo chown -R {_user_name(home.stat().st_uid)} {home}"
        yield report("home", f"{who} cannot write to {folder}: {fault.strerror}", advice if user.is_agent else "look again as that user")
        return
    strange = [path for path in _own_files(home) if path.lstat().st_uid != home.stat().st_uid]
    if strange:
        owner, rightful = _user_name(strange[0].lstat().st_uid), _user_name(home.stat().st_uid)
        advice = f"sudo chown -R {rightful} {home / 'state'}; run commands that change models or results as  sudo -u {rightful}"
        yield problem("home", f"{len(strange)} of the agent's own files in {home / 'state'} belong to {owner}", advice)
    else:
        yield ok("home", f"{home}: can be written")


def _own_files(home: Path) -> Iterator[Path]:
    for folder in (home / "state", home / "state" / "models"):
        if folder.is_dir():
            yield from folder.iterdir()


def inbox_findings(inbox: Path, intake: IntakeConfig) -> Iterator[Finding]:
    """Try to take a file out of the inbox, and look for files and folders that the agent may not read or empty.

    Parameters
    ----------
    inbox : Path
        Existing.
    intake : IntakeConfig
        Whether images leave the inbox.
    """
    group = _group_name(inbox.stat().st_gid)
    advice = (
        f"give it to the agent's group:  sudo chgrp {SERVICE_USER} {inbox} && sudo chmod 2770 {inbox}  (a share: mount options uid, gid)"
    )
    if not os.access(inbox, os.R_OK | os.X_OK, effective_ids=True):
        yield problem("inbox", f"the agent may not list {inbox} (group {group})", advice)
        return
    leaves = intake.on_done != "keep"
    if leaves and (fault := _refusal(inbox)) is not None:
        yield problem("inbox", f"images cannot be moved out of {inbox} (group {group}): {fault.strerror}", advice)
        return
    unreadable = stuck = 0
    for path in islice(_below(inbox), _LISTED):
        if path.is_symlink():
            continue
        if path.is_dir():
            stuck += leaves and not os.access(path, os.W_OK | os.X_OK, effective_ids=True)
        else:
            unreadable += not os.access(path, os.R_OK, effective_ids=True)
    if unreadable or stuck:
        yield warning(
            "inbox",
            f"{inbox}: {unreadable} files cannot be read and {stuck} folders cannot be emptied",
            f"sudo chgrp -R {SERVICE_USER} {inbox} && sudo chmod -R g+rwX {inbox}; copy files in instead of moving them: a moved file "
            "keeps its old group",
        )
    else:
        yield ok("inbox", f"{inbox} (group {group}): can be listed{' and emptied' if leaves else ''}")


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _below(folder: Path) -> Iterator[Path]:
    """The files and folders below a folder that may be listed; in no order."""
    folders = [folder]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    yield Path(entry.path)
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
        except OSError:
            continue  # gone, or refused: it was counted when it was listed


def _refusal(folder: Path) -> OSError | None:
    """Make, rename and remove a file; give the fault that prevents it. Its name is one that the agent's inbox ignores."""
    first, second = (folder / f".edge-agent-doctor-{os.getpid()}-{number}.tmp" for number in (1, 2))
    try:
        os.close(os.open(first, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        first.rename(second)
        second.unlink()
    except OSError as fault:
        for left in (first, second):
            try:
                left.unlink(missing_ok=True)
            except OSError:
                break
        return fault
    return None
