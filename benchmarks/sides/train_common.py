"""What the sides of several benchmarks share; imports nothing of ours, since each peer's interpreter runs it."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP, BATCH, WIDTH = 8, 4096, 16
EXPERTS, HIDDEN, TOWER = 4, 128, 64
SHARED_EXPERTS, TASK_EXPERTS = 2, 2
LEARNING_RATE = 1e-3
TASKS = ("click", "buy")
ACCELERATORS = ("cpu", "gpu")


class Place:
    """Where a side computes: ``cpu``, or ``gpu`` for the first CUDA device.

    Attributes:
        gpu: whether it is a GPU. device: torch's name of it.

    Raises:
        SystemExit: for a GPU that torch does not see.
    """

    def __init__(self, accelerator: str) -> None:
        self.gpu = accelerator == "gpu"
        self.device = "cuda:0" if self.gpu else "cpu"
        if self.gpu:
            import torch

            if not torch.cuda.is_available():
                raise SystemExit(
                    f"--accelerator=gpu: torch {torch.__version__} in {sys.executable} sees no CUDA device: "
                    "run on a machine with one and a CUDA build of torch, or with --accelerator=cpu"
                )

    def clock(self) -> float:
        """Seconds, once the GPU has done all that it was given."""
        if self.gpu:
            import torch

            torch.cuda.synchronize()
        return time.perf_counter()

    def found(self) -> dict[str, Any]:
        """Of a GPU: its name, and the most of its memory that tensors took, in MiB."""
        if not self.gpu:
            return {}
        import torch

        return {"gpu": torch.cuda.get_device_name(0), "gpu_mib": torch.cuda.max_memory_allocated(0) / 2**20}


class Work:
    """The arguments of a side and its data: ``SCRIPT SIDE FOLDER MODEL THREADS ACCELERATOR``.

    Attributes:
        ids: (rows, F) int32, local to each field. labels: (rows, 2) float32. sizes: ids of each field.
    """

    def __init__(self) -> None:
        self.side, folder, self.model, threads, self.accelerator = sys.argv[1:6]
        self.place = Place(self.accelerator)
        self.threads = int(threads)
        self.folder = Path(folder)
        self.ids = np.load(self.folder / "ids.npy")
        self.labels = np.load(self.folder / "labels.npy")
        self.sizes: list[int] = json.loads((self.folder / "sizes.json").read_text(encoding="utf-8"))
        self.names = [f"c{position}" for position in range(len(self.sizes))]


class Timed:
    """Iterates over batches; the clock runs from the ``warm_up``-th on until the last one has been worked on."""

    def __init__(self, batches: Collection[Any], place: Place, warm_up: int = WARM_UP) -> None:
        self.batches, self.place, self.warm_up = batches, place, warm_up
        self.seconds = self.cpu = 0.0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        start, cpu = self.place.clock(), time.process_time()
        for number, batch in enumerate(self.batches):
            if number == self.warm_up:
                start, cpu = self.place.clock(), time.process_time()
            yield batch
        self.seconds, self.cpu = self.place.clock() - start, time.process_time() - cpu


class AnonymousMemory:
    """Largest anonymous resident memory of this process, sampled (0 where the system does not tell)."""

    def __init__(self) -> None:
        self.peak = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        status = Path("/proc/self/status")
        while status.is_file():
            for line in status.read_text(encoding="utf-8").splitlines():
                if line.startswith("RssAnon:"):
                    self.peak = max(self.peak, int(line.split()[1]) // 1024)
            time.sleep(0.05)


def finish(seconds: float, cpu: float, memory: AnonymousMemory, place: Place, **found: Any) -> None:
    """The line that the harness reads; ``cpu``: processor seconds of the timed steps, which other processes disturb
    less than the clock. Where a GPU was used: its name, and the most of its memory that tensors took.
    """
    print(json.dumps({"seconds": seconds, "step_cpu": cpu, "anon_mib": memory.peak, **place.found(), **found}))
