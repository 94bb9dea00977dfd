"""What may crash or hang, tried in a process of its own: the model on its golden vectors, one frame of the camera.

``python -P -m edge_agent.doctor.trial TASK DESCRIPTOR`` reads a configuration from standard input and writes JSON lines to a file
descriptor: a step before each step, then what was found. Standard output is not used: runtimes print on it as they like.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import msgspec

from edge_agent.config import Config
from edge_agent.errors import EdgeAgentError

Task = Literal["model", "camera"]
Facts = dict[str, str]
Tell = Callable[[str], None]

_TIMED_INVOCATIONS = 5
_RELEASE_S = 1.0
_FIRST_STEP = "starting Python"


class Outcome(NamedTuple):
    """How a trial ended: ``facts``, or the ``failure`` and the step during which it came. ``signal`` names what killed it."""

    facts: Facts
    failure: str = ""
    step: str = ""
    signal: str = ""


class Trial:
    """A trial that goes on while other things are looked at.

    Parameters
    ----------
    task : {"model", "camera"}
        What to try.
    config : Config
        Which model, which camera.
    """

    def __init__(self, task: Task, config: Config) -> None:
        # In memory: the disk may be full.
        self._answer, self._said, given = (os.fdopen(os.memfd_create(name), "w+b") for name in ("answer", "said", "given"))
        given.write(encode_config(config))
        given.seek(0)
        # -P: what lies in the folder where somebody happens to stand is not imported.
        command = [sys.executable, "-P", "-m", "edge_agent.doctor.trial", task, str(self._answer.fileno())]
        self._process: subprocess.Popen[bytes] | None = None
        self._refusal = ""
        try:
            self._process = subprocess.Popen(  # noqa: S603
                command, stdin=given, stdout=subprocess.DEVNULL, stderr=self._said, pass_fds=[self._answer.fileno()]
            )
        except OSError as fault:
            self._refusal = f"{sys.executable} can not be run by this user: {fault.strerror}"
        given.close()

    def finish(self, timeout_s: float) -> Outcome:
        """Wait for the end of the trial, for so many seconds at most, and give what it found."""
        if self._process is None:
            return Outcome({}, self._refusal, _FIRST_STEP)
        killed_by = refusal = ""
        try:
            code = self._process.wait(timeout_s)
            killed_by = signal.Signals(-code).name if code < 0 else ""
            refusal = f"was killed by {killed_by}" if killed_by else ""
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            refusal = f"did not answer within {timeout_s:g} s"
        lines = [msgspec.json.decode(line, type=dict[str, Any]) for line in _content(self._answer).splitlines()]
        last_words = _content(self._said).decode("utf-8", "replace").strip().rpartition("\n")[2]
        answer = lines[-1] if lines else {}
        if not refusal and "facts" in answer:
            return Outcome(answer["facts"])
        step = next((line["step"] for line in reversed(lines) if "step" in line), _FIRST_STEP)
        return Outcome({}, refusal or answer.get("error") or last_words or "ended without a word", step, killed_by)


def _content(file: IO[bytes]) -> bytes:
    with file:
        file.seek(0)
        return file.read()


def encode_config(config: Config) -> bytes:
    """Write a configuration as JSON; names of folders that are not UTF-8 keep their bytes."""
    return msgspec.json.encode(config, enc_hook=lambda path: os.fsencode(path).decode("latin-1"))


def decode_config(content: bytes) -> Config:
    """Read what :func:`encode_config` wrote."""
    return msgspec.json.decode(content, type=Config, dec_hook=lambda _, text: Path(os.fsdecode(text.encode("latin-1"))))


def try_model(config: Config, tell: Tell) -> Facts:
    """Load all that the agent loads, and run the model on its golden vectors.

    Raises
    ------
    ImportError
        If a package is missing or broken.
    EdgeAgentError
        If the model can not be used.
    """
    for module in ("numpy", "PIL.Image", "pydicom", "watchdog.observers"):
        tell(f"loading {module}")
        __import__(module)
    tell("reading the model's files")
    from edge_agent.deployment.model_store import bundle_for
    from edge_agent.inference.bundle import default_bundle_path, load_bundle, make_interpreter

    choice = bundle_for(config)
    bundle = load_bundle(choice.directory, allow_unsigned=choice.allow_unsigned, trusted_keys=choice.trusted_keys)
    tell("running the model")
    interpreter = make_interpreter(bundle)
    grey = bundle.golden_inputs[0]
    started_s = time.perf_counter()
    for _ in range(_TIMED_INVOCATIONS):
        interpreter.invoke(grey)
    invoke_ms = (time.perf_counter() - started_s) * 1000 / _TIMED_INVOCATIONS
    manifest = bundle.manifest
    origin = "came with the program" if choice.directory == default_bundle_path() else "not signed"
    return {
        "model": f"{manifest.name} {manifest.version}, for {manifest.population}",
        "folder": str(bundle.directory),
        "origin": f"signed by {bundle.signed_by}" if bundle.signed_by else origin,
        "runtime": interpreter.runtime,
        "invoke": f"{len(bundle.golden_inputs)} golden vectors match, {invoke_ms:.1f} ms an image",
    }


def try_camera(config: Config, tell: Tell) -> Facts:
    """Open the camera and take one frame.

    Raises
    ------
    EdgeAgentError
        If OpenCV is missing, or no frame comes.
    """
    from edge_agent.intake.capture import FrameReader, TimedFrame, open_capture, prepare_opencv, source_kind

    tell("loading OpenCV")
    prepare_opencv()
    tell("opening the camera")
    source, timeout_s = config.camera.source, config.camera.stall_timeout_s
    reader = FrameReader(lambda: open_capture(source, timeout_s), source_kind(source))
    reader.start()
    got = reader.next_frame(timeout_s)
    reader.abandon()
    reader.join(_RELEASE_S)
    if got is None:
        raise EdgeAgentError(f"no frame came within {timeout_s:g} s")
    if not isinstance(got, TimedFrame):
        raise EdgeAgentError(got.reason)
    rows, columns = got.pixels.shape[:2]
    return {"frame": f"{columns} x {rows} pixels"}


def main(task: Task, descriptor: int) -> None:
    """Do one trial, and write its answer also where that is a fault that was foreseen."""
    with os.fdopen(descriptor, "wb", buffering=0) as answer:

        def write(**line: object) -> None:
            answer.write(msgspec.json.encode(line) + b"\n")

        config = decode_config(sys.stdin.buffer.read())
        try:
            facts = (try_model if task == "model" else try_camera)(config, lambda step: write(step=step))
        except (EdgeAgentError, ImportError, OSError) as fault:
            write(error=str(fault))
        else:
            write(facts=facts)


if __name__ == "__main__":
    main("model" if sys.argv[1] == "model" else "camera", int(sys.argv[2]))
    os._exit(0)  # without Python's own end, which aborts where a thread still hangs in the camera's driver
