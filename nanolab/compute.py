"""Where the arithmetic happens: device, number format, threads. Chosen when asked, never on import."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from nanolab import ranks
from nanolab.errors import ConfigError

FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BF16_PAYS = 1.5
"""Times the speed of fp32 from which bf16 is chosen. Processors multiply it twice as fast (AVX-512-BF16: 2.0
to 2.4 measured, and 1.9 times the training), many times as fast (AMX), or far slower: few are near 1.5."""


@dataclass(frozen=True)
class Compute:
    """A device, the format of its matrix products, and why these."""

    device: torch.device
    dtype: torch.dtype
    reason: str
    note: str = ""
    """what to know about a format that is kept although another is faster here"""

    @property
    def format(self) -> str:
        """The name of `dtype`, as a profile writes it."""
        return str(self.dtype).removeprefix("torch.")

    def autocast(self) -> contextlib.AbstractContextManager:
        """Matrix products in `dtype`; weights, the residual stream and losses stay in fp32."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def best_seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """The fastest of some runs of `work` after one to warm up, in seconds."""
    return best_seconds_of_each([work], repeats)[0]


def best_seconds_of_each(
    works: Sequence[Callable[[], object]], repeats: int = 5, patience: float = math.inf
) -> list[float]:
    """The fastest run of each piece of work in seconds, all run in turn so that a neighbour slows all alike.

    One round is to warm up. After `patience` seconds no new round begins, but for the first that counts.
    """
    best = [math.inf] * len(works)
    start = time.perf_counter()
    for round_ in range(repeats + 1):
        if round_ > 1 and time.perf_counter() - start > patience:
            break
        for i, work in enumerate(works):
            began = time.perf_counter()
            work()
            if round_ > 0:
                best[i] = min(best[i], time.perf_counter() - began)
    return best


@functools.cache
def cpu_speedup_of_bf16() -> float:
    """How many times faster this processor multiplies bf16 matrices than fp32 ones (below 1: slower).

    Measured once a process, on one thread: several, waiting for each other beside busy programs, gave
    ratios from 0.8 to 9.9 where one gave 1.9 to 2.3.
    """

    def product(dtype: torch.dtype) -> Callable[[], object]:
        a, b = torch.ones(512, 256, dtype=dtype), torch.ones(256, 512, dtype=dtype)
        return lambda: a @ b

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fp32, bf16 = best_seconds_of_each(
            [product(torch.float32), product(torch.bfloat16)], repeats=20, patience=0.3
        )
    finally:
        torch.set_num_threads(threads)
    return fp32 / bf16


def choose_compute(device: str = "auto", dtype: str = "auto", begun: str | None = None) -> Compute:
    """CUDA in bf16, MPS in fp32, else the CPU: in bf16 only where measured to be clearly faster.

    begun: the format in which a run was trained so far. It is kept, unless another is asked for, and
    the note says so where the other would certainly be better here. Under torchrun each process takes a
    GPU of its own. Raises ConfigError for a device or a format that is not there.
    """
    mps = torch.backends.mps.is_available() and ranks.world_size() == 1  # it cannot be shared
    have = {"cuda": torch.cuda.is_available(), "mps": mps, "cpu": True}
    if device == "auto":
        device = next(name for name, there in have.items() if there)
    kind = device.split(":")[0]
    if not have.get(kind, False):
        there = ", ".join(name for name, is_there in have.items() if is_there)
        raise ConfigError(f"device {device!r} is not available here.\nThis machine has: {there}.")
    if kind == "cuda" and ranks.world_size() > 1:
        device = f"cuda:{ranks.own_gpu(torch.cuda.device_count())}"
    if dtype != "auto":
        if dtype not in FORMATS:
            raise ConfigError(f"there is no number format {dtype!r}.\nChoose auto, float32 or bfloat16.")
        return Compute(torch.device(device), FORMATS[dtype], "as asked")
    best, reason, certain = _best_format(kind)
    if begun not in FORMATS:
        return Compute(torch.device(device), FORMATS[best], reason)
    note = ""
    if begun != best and certain:
        note = (
            f"Kept: {begun}, in which the run began. Here {best} would be better: {reason} (--dtype {best})."
        )
    return Compute(torch.device(device), FORMATS[begun], "as the run began", note)


def _best_format(kind: str) -> tuple[str, str, bool]:
    """The best format of a kind of device, why, and whether that is beyond doubt."""
    if kind == "cuda":
        return "bfloat16", "CUDA multiplies bf16 fastest", True
    if kind == "mps":
        return "float32", "fp32 is the reliable format on MPS", True
    ratio = cpu_speedup_of_bf16()
    reason = f"bf16 products run at {ratio:.2g} times the speed of fp32"
    return ("bfloat16" if ratio >= BF16_PAYS else "float32"), reason, not 1 < ratio < BF16_PAYS**2


def prepare_process() -> None:
    """Let the process keep large buffers instead of returning them to the system after each use.

    On Linux with glibc every large tensor is otherwise fresh memory that the kernel must clear first:
    10 to 15% of a training step. Elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    m_mmap_threshold, m_trim_threshold = -3, -1
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, (1 << 31) - 1)
