"""The workers of a session, each in a thread of its own, and the queue of their jobs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from edge_agent.agent.worker import Job, Outcome, Worker


class WorkerPool:
    """Lets workers examine arrivals, each one at a time.

    Parameters
    ----------
    report : callable
        Called from a worker's thread with its outcome, or with the fault of our own side that it met.
    """

    def __init__(self, report: Callable[[Outcome | Exception], None]) -> None:
        self._report = report
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._workers: list[Worker] = []
        self._threads: list[threading.Thread] = []

    def __len__(self) -> int:
        return len(self._workers)

    def hire(self, worker: Worker) -> None:
        """Start a worker."""
        self._workers.append(worker)
        thread = threading.Thread(target=self._run, args=(worker,), name=f"worker-{len(self)}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def give(self, job: Job) -> None:
        """Give a job to the worker that is free first."""
        self._jobs.put(job)

    def take_back(self) -> list[Job]:
        """Take back the jobs that no worker has begun."""
        jobs: list[Job] = []
        with suppress(Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    jobs.append(job)
        return jobs

    def dismiss(self, timeout_s: float) -> None:
        """Let each worker end after what it has in hand, and wait for that: the last one to close the database folds its journal."""
        for _ in self._workers:
            self._jobs.put(None)
        until_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))

    def stuck(self, limit_s: float) -> int:
        """Count those that have had one image in hand for longer."""
        now_s = time.monotonic()
        return sum(worker.busy_s(now_s) > limit_s for worker in self._workers)

    def _run(self, worker: Worker) -> None:
        while (job := self._jobs.get()) is not None:
            worker.busy_since_s = time.monotonic()
            message: Outcome | Exception
            try:
                message = worker.examine(job)
            except Exception as fault:  # our own: raised again in the main loop, which is where the session ends
                message = fault
            worker.busy_since_s = None
            self._report(message)
        worker.close()
