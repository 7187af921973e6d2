"""What a network of full size costs on one core, against the time that its matrix products alone would take."""

import gc
import time
from dataclasses import dataclass
from pathlib import Path

import torch

TIMES_THE_FLOOR = 2.5
SIDE = 2048


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds of one clip, and what they are at least; GiB held when loaded, and at most while it was judged."""

    taken_s: float
    floor_s: float
    loaded_gib: float
    peak_gib: float

    @property
    def times_the_floor(self):
        return self.taken_s / self.floor_s


def spent(name, detector, clip, operations):
    """Judge a clip that takes so many floating-point operations; returns the evidence and the cost, which it prints."""
    gc.collect()
    floor_s, loaded = _floor_s(operations), _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # forget the peak
    started = time.process_time()
    evidence = detector.assess(clip)
    cost = Cost(time.process_time() - started, floor_s, loaded, _memory("VmHWM"))
    print(
        f"{name}: {cost.taken_s:.1f} s of one core, {cost.times_the_floor:.2f} times its floor of {floor_s:.1f} s; "
        f"the process has {loaded:.2f} GiB when loaded and at most {cost.peak_gib:.2f} GiB while it judges"
    )
    return evidence, cost


def _floor_s(operations):
    """CPU seconds of that many operations at the rate of a large matrix product in float32, the best of some."""
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    taken = []
    for _ in range(8):
        before = time.process_time()
        a @ b
        taken.append(time.process_time() - before)
    return operations / (2 * SIDE**3) * min(taken)


def _memory(line):
    """GiB of memory that the process has now (VmRSS) or had at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(one.split()[1]) for one in lines if one.startswith(f"{line}:")) / 2**20
