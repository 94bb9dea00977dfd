"""What may crash or hang, tried in a process of its own: the model on its golden vectors, one frame of the camera.

``python -P -m edge_agent.doctor.probe TASK DESCRIPTOR`` reads a configuration from standard input and writes JSON lines to a file
descriptor: a step before each step, then what was found. Standard output is not used: runtimes print on it as they like.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import msgspec

from edge_agent.child_process import PythonChild
from edge_agent.config import Config
from edge_agent.errors import EdgeAgentError

Task = Literal["model", "camera"]
Facts = dict[str, str]
Tell = Callable[[str], None]

_TIMED_INVOCATIONS = 5
_RELEASE_S = 1.0
_FIRST_STEP = "starting Python"


class ProbeResult(NamedTuple):
    """What a probe found: the ``facts``; or the ``failure`` and the step during which it came. ``signal`` names what killed it."""

    facts: Facts
    failure: str = ""
    step: str = ""
    signal: str = ""


class Probe:
    """A probe that goes on while other things are looked at. Use it as a context manager; it is killed at the end.

    Parameters
    ----------
    task : {"model", "camera"}
        What to try.
    config : Config
        Which model, which camera.
    """

    def __init__(self, task: Task, config: Config) -> None:
        self._child: PythonChild | None = None
        try:
            self._child = PythonChild("edge_agent.doctor.probe", task, given=encode_config(config), answers=True)
        except OSError as fault:
            self._refusal = f"{sys.executable} cannot be run by this user: {fault.strerror}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        if self._child is not None:
            self._child.close()

    def finish(self, timeout_s: float) -> ProbeResult:
        """Give what it found. A probe that has not ended after ``timeout_s`` is killed."""
        if self._child is None:
            return ProbeResult({}, self._refusal, _FIRST_STEP)
        ended = self._child.wait(timeout_s)
        lines = [msgspec.json.decode(line, type=dict[str, Any]) for line in self._child.answer.splitlines()]
        answer = lines[-1] if lines else {}
        if ended.exit_code == 0 and "facts" in answer:
            return ProbeResult(answer["facts"])
        step = next((line["step"] for line in reversed(lines) if "step" in line), _FIRST_STEP)
        return ProbeResult({}, answer.get("error") or str(ended), step, ended.signal_name)


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
        If the model cannot be used.
    """
    for module in ("numpy", "PIL.Image", "pydicom", "watchdog.observers"):
        tell(f"loading {module}")
        __import__(module)
    tell("reading the model's files")
    from edge_agent.deployment.model_store import bundle_for
    from edge_agent.inference.bundle import default_bundle_path, make_interpreter

    choice = bundle_for(config)
    bundle = choice.load()
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
    """Do one probe. A fault of the model, the camera or the disk is an answer too."""
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
