"""An engine for several processes: each reads and continues its own problems, and all see all logits.

Each process samples every row from the summed logits with the same random numbers, so that the answers are
those of one process, and all processes hold all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nanolab import ranks
from nanolab.engine import Engine
from nanolab.model import KVCache


class SharedCache(KVCache):
    """The cache of a batch of which this process holds only its own rows.

    `owner` `(B,)`: the process that holds each row. `lengths` `(B,)` counts for all rows.
    """

    def __init__(self, own: KVCache, owner: Tensor) -> None:
        self.own, self.owner = own, owner
        self.lengths = torch.zeros_like(owner)

    @property
    def mine(self) -> Tensor:
        """`(B,)` bool: the rows of this process."""
        return self.owner == ranks.rank()

    def select(self, rows: Tensor) -> SharedCache:
        place = self.mine.cumsum(0) - 1  # of each row of mine in `own`
        chosen = SharedCache(self.own.select(place[rows[self.mine[rows]]]), self.owner[rows])
        chosen.lengths = self.lengths[rows]
        return chosen


class SharedEngine(Engine):
    """Writes the same completions as `Engine`, with the work dealt among the processes by prompt."""

    def prefill(self, prompts: Sequence[Sequence[int]], room: int) -> SharedCache:
        model, device = self.model, self.model.device
        own_prompts = ranks.share(prompts)
        if own_prompts:
            own = super().prefill(own_prompts, room)
        else:
            own = KVCache(model.config, 0, room, device, model.lm_head.weight.dtype)
        owner = torch.arange(len(prompts), device=device) % ranks.world_size()
        cache = SharedCache(own, owner)
        cache.lengths = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
        return cache

    def next_logits(self, last: Tensor, cache: KVCache) -> Tensor:
        assert isinstance(cache, SharedCache)
        mine = cache.mine
        logits = torch.zeros(len(last), self.model.config.vocab_size, device=last.device)
        if mine.any():
            cache.own.lengths = cache.lengths[mine]
            logits[mine] = super().next_logits(last[mine], cache.own)
        cache.lengths = cache.lengths + 1
        ranks.sum_(logits)  # everybody else's rows are 0
        return logits


def engine_for(engine: Engine) -> Engine:
    """`engine`, or under torchrun one that shares its work with the other processes."""
    return SharedEngine(engine.model, engine.tokenizer) if ranks.world_size() > 1 else engine
