"""Where the arithmetic happens: device, number format, threads. Chosen when asked, never on import."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from nanolab import ranks
from nanolab.errors import ConfigError


@dataclass(frozen=True)
class Compute:
    """A device, the format of its matrix products, and why these."""

    device: torch.device
    dtype: torch.dtype
    reason: str

    def autocast(self) -> contextlib.AbstractContextManager:
        """Matrix products in `dtype`; weights, the residual stream and losses stay in fp32."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def best_seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """The fastest of some runs of `work` after one to warm up, in seconds."""
    work()
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best


def cpu_speedup_of_bf16() -> float:
    """How many times faster this processor multiplies bf16 matrices than fp32 ones (below 1: slower)."""

    def product(dtype: torch.dtype) -> float:
        a, b = torch.ones(512, 256, dtype=dtype), torch.ones(256, 512, dtype=dtype)
        return best_seconds(lambda: a @ b)

    return product(torch.float32) / product(torch.bfloat16)


def choose_compute(device: str = "auto", dtype: str = "auto") -> Compute:
    """CUDA in bf16, MPS in fp32, else the CPU: in bf16 only where measured to be twice as fast.

    Under torchrun each process takes a GPU of its own.
    Raises ConfigError for a device or a format that is not there.
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
    formats = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype != "auto":
        if dtype not in formats:
            raise ConfigError(f"there is no number format {dtype!r}.\nChoose auto, float32 or bfloat16.")
        return Compute(torch.device(device), formats[dtype], "as asked")
    if kind == "cuda":
        return Compute(torch.device(device), torch.bfloat16, "CUDA multiplies bf16 fastest")
    if kind == "mps":
        return Compute(torch.device(device), torch.float32, "fp32 is the reliable format on MPS")
    ratio = cpu_speedup_of_bf16()
    chosen = torch.bfloat16 if ratio >= 2 else torch.float32
    return Compute(torch.device(device), chosen, f"bf16 products run at {ratio:.2g} times the speed of fp32")


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
