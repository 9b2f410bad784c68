"""Several processes training one model together, as `torchrun` starts them. In one, nothing happens here.

    torchrun --nproc_per_node=2 -m nanolab base --model-tag T

Every process ("rank") has the whole model and reads the whole stream of batches, but computes only its
share of each step. The gradients are summed, so all take the same step, the one that a single process would
take. Rank 0 alone writes files and talks. torch is imported only when there are several processes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import zlib
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from nanolab.errors import ConfigError, NanolabError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

PATIENCE = 600  # seconds that a process waits for the others; $NANOLAB_TIMEOUT sets another number
LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets


class LostRank(NanolabError):
    """Another process of the training has ended, or answers no more."""


def world_size() -> int:
    """How many processes train together; 1 alone."""
    dist = _group()
    return dist.get_world_size() if dist else 1


def rank() -> int:
    """The number of this process, from 0."""
    dist = _group()
    return dist.get_rank() if dist else 0


def is_main() -> bool:
    """Whether this is the process that writes and talks."""
    return rank() == 0


def _group() -> Any:
    """torch.distributed while this process has joined others, else None."""
    dist = sys.modules.get("torch.distributed")
    return dist if dist is not None and dist.is_available() and dist.is_initialized() else None


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Within it, this process works together with the others that torchrun started, if it did.

    Only rank 0 prints. An error is let through in one process alone, the first to report one; the others,
    whose errors would only follow from it, exit with status 1 in silence.
    """
    if not all(name in os.environ for name in LAUNCHED) or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    patience = timedelta(seconds=float(os.environ.get("NANOLAB_TIMEOUT") or PATIENCE))
    store, number, size = next(dist.rendezvous("env://", timeout=patience))
    # A process that joins a second time must not read what the first time left in the store.
    store = dist.PrefixStore(f"nanolab-{store.add(f'nanolab-{number}', 1)}", store)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=size, timeout=patience)
    # torchrun ends the other processes by SIGTERM when one has failed.
    previous = signal.signal(signal.SIGTERM, _on_terminate)
    try:
        with contextlib.ExitStack() as quiet:
            if number:
                nowhere = quiet.enter_context(open(os.devnull, "w", encoding="utf-8"))
                quiet.enter_context(contextlib.redirect_stdout(nowhere))
                quiet.enter_context(contextlib.redirect_stderr(nowhere))
            yield
    except SystemExit:
        raise
    except BaseException:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the report is not to be cut short
        if not _first_to_report(store):
            sys.exit(1)
        raise
    dist.destroy_process_group()
    signal.signal(signal.SIGTERM, previous)


def _on_terminate(number: int, frame: object) -> None:
    raise LostRank(
        "torchrun has told this process to end (SIGTERM): it was stopped, or another process has failed.\n"
        "Run the same command again: it continues from the last checkpoint."
    )


def _first_to_report(store: Any) -> bool:
    """Whether no other process has reported an error yet; so too when nobody can be asked any more."""
    try:
        return store.add("reports", 1) == 1
    except RuntimeError:
        return True


@contextlib.contextmanager
def _talking() -> Iterator[None]:
    """Around every exchange: turns torch's error about a missing partner into one that says what to do."""
    try:
        yield
    except RuntimeError as error:
        patience = os.environ.get("NANOLAB_TIMEOUT") or PATIENCE
        raise LostRank(
            f"another process of this training has ended, or gave no answer for {patience} seconds "
            f"(seen by process {rank()} of {world_size()}).\n"
            "Run the same command again: it continues from the last checkpoint."
        ) from error


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's part of `items`, which all have alike: every so many-th, beginning with its number."""
    return items[rank() :: world_size()]


def total(value: float) -> float:
    """The sum of every process's `value`; the same number in all."""
    if world_size() == 1:
        return value
    import torch

    number = torch.tensor(value, dtype=torch.float64)
    sum_(number)
    return number.item()


def anyone(flag: bool) -> bool:
    """Whether `flag` is set in at least one process; the same answer in all."""
    return total(float(flag)) > 0


def sum_(*tensors: torch.Tensor) -> None:
    """Replace each tensor by its sum over all processes."""
    if dist := _group():
        with _talking():
            for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
                work.wait()


def sum_gradients(model: torch.nn.Module) -> None:
    """Replace every gradient by its sum over all processes; a process without one counts as 0."""
    if world_size() == 1 or not anyone(any(p.grad is not None for p in model.parameters())):
        return
    for p in model.parameters():
        if p.grad is None:
            p.grad = p.new_zeros(p.shape)
    sum_(*(p.grad for p in model.parameters() if p.grad is not None))


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """The body runs in rank 0, then in the others, who find what rank 0 has downloaded or written.

    They wait for up to a day, since a download takes its time; if rank 0 ends, they notice at once.
    """
    dist = _group()
    if not dist:
        yield
        return
    with _talking():
        waiting = dist.new_group(timeout=timedelta(days=1), backend="gloo")
        if not is_main():
            dist.barrier(waiting)
    yield
    if is_main():
        with _talking():
            dist.barrier(waiting)


def check_alike(**facts: Any) -> None:
    """Raises ConfigError unless all processes start from the same `facts` (compared by how they print)."""
    import torch

    own = torch.tensor([zlib.crc32(repr(fact).encode("utf-8")) for fact in facts.values()])
    table = torch.zeros(world_size(), len(own), dtype=torch.int64)
    table[rank()] = own
    sum_(table)
    for name, column in zip(facts, table.T, strict=True):
        if not column.eq(column[0]).all():
            raise ConfigError(
                f"the processes do not start alike: {name} differs.\n"
                "Give every machine the same command, the same versions and a NANOLAB_HOME with the same run "
                "in it; a folder that they share is simplest."
            )


def own_gpu(available: int) -> int:
    """The GPU of this process, of those its machine has. Raises ConfigError where there are too few."""
    import torch

    local = int(os.environ["LOCAL_RANK"])
    if local >= available:
        raise ConfigError(
            f"process {local} of this machine has no GPU: there are {available}.\n"
            f"Use --nproc_per_node={available}, or --device cpu."
        )
    torch.cuda.set_device(local)
    return local
