"""A real Dask cluster of two workers, each a process, on the loopback interface."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TESTS = Path(__file__).parent
START_SEC = 60
# More than any test takes.
LIFETIME_SEC = 900


class Cluster:
    """The scheduler and the workers that were started, by their processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []

    def start_scheduler(self) -> None:
        self._start("scheduler", "--port", "0", "--no-show")
        file = self.folder / "scheduler.json"
        deadline = time.monotonic() + START_SEC
        while not file.is_file() or not file.read_text().endswith("}"):
            if time.monotonic() > deadline or self.processes[0].poll() is not None:
                raise RuntimeError(f"no Dask scheduler: {(self.folder / 'scheduler.log').read_text()}")
            time.sleep(0.05)
        self.address: str = json.loads(file.read_text())["address"]

    def add_worker(self, name: str, num_threads: int = 1) -> int:
        """Start a worker; its process id. Without a nanny, so that one that is killed stays dead."""
        options = ["--nthreads", str(num_threads), "--no-nanny", "--memory-limit", "0", "--name", name]
        options += ["--death-timeout", str(START_SEC), "--local-directory", str(self.folder)]
        return self._start("worker", *options)

    def _start(self, kind: str, *options: str) -> int:
        # `timeout` ends them where nobody is left to; it hands a signal on, but not SIGKILL, so it is for the scheduler
        # alone, without which workers end by themselves.
        limit = ["timeout", str(LIFETIME_SEC)] if kind == "scheduler" else []
        command = [*limit, sys.executable, "-m", f"distributed.cli.dask_{kind}", "--host", "127.0.0.1"]
        command += ["--no-dashboard", *options, "--scheduler-file", str(self.folder / "scheduler.json")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
        with (self.folder / f"{kind}.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=self.folder)
        self.processes.append(process)
        return process.pid

    def wait_for_workers(self, count: int) -> None:
        """Until `count` have registered: before that, those that have would do all the work."""
        from distributed import Client  # where it is missing, the module can still be imported

        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=START_SEC)

    def stop_scheduler(self) -> None:
        self.processes[0].terminate()

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)


@contextmanager
def cluster(folder: Path, num_workers: int = 2) -> Iterator[Cluster]:
    """Stopped, each process by its own id, when the block ends."""
    started = Cluster(folder)
    try:
        started.start_scheduler()
        for number in range(num_workers):
            started.add_worker(f"worker{number}")
        if num_workers:
            started.wait_for_workers(num_workers)
        yield started
    finally:
        for process in reversed(started.processes):
            process.terminate()
        for process in started.processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
