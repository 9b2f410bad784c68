"""The model opened up for notebook 02: shapes, attention maps, budgets, and what each part is good for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanolab.compute import best_seconds
from nanolab.data import PackedBatches
from nanolab.errors import ConfigError
from nanolab.model import GATE_CHANNELS, GPT, GPTConfig, KVCache, norm, rotary_tables, rotate, visible
from nanolab.optim import LearningRates, Schedule, build_optimizers
from nanolab.train import Diverged, StepRecord, fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from nanolab.tokenizer import Tokenizer

PARTS = ("RMSNorm", "QK norm", "ReLU squared", "soft cap")
"""What `Without` can leave out, of the model of late 2025."""

ADDED: dict[str, dict[str, Any]] = {
    "value embeddings": {"value_embeddings": False},
    "residual scalars": {"residual_scalars": False},
    "the short window": {"window_pattern": "L"},
    "smear": {"smear": False},
    "backout": {"backout": False},
}
"""What `Without` can leave out, of the model of 2026, where the config has it."""

Batch = tuple[Tensor, Tensor]


# ---- what goes in and out


@dataclass(frozen=True)
class Stop:
    """A place on the way through the model and what stands there."""

    name: str
    what: str
    shape: tuple[int, ...]


@torch.inference_mode()
def trace(model: GPT, ids: Tensor) -> list[Stop]:
    """Run `ids` `(B, T)` through the model and note the shapes on the way; only block 0 in detail."""
    stops = [Stop("token ids", "whole numbers", tuple(ids.shape))]
    first = model.blocks[0]
    watched: list[tuple[str, str, nn.Module]] = [
        ("embedding", "each id becomes a row of numbers", model.transformer["wte"]),
        ("queries", "block 0: what each token looks for", first.attn.c_q),
        ("keys", "block 0: what each token offers", first.attn.c_k),
        ("values", "block 0: what it passes on", first.attn.c_v),
        ("attention out", "block 0: gathered from earlier tokens", first.attn),
        ("MLP, widened", "block 0: four times as wide", first.mlp.c_fc),
        ("MLP out", "block 0: and back, added to the stream", first.mlp),
        *(
            (f"block {number}", "the same once more", block)
            for number, block in enumerate(model.blocks)
            if number
        ),
        *(
            (f"value embedding {layer}", f"for block {layer}: each id's second row", table)
            for layer, table in model.value_embeds.items()
        ),
        ("logits", "a score for every token of the vocabulary", model.lm_head),
    ]
    hooks = [
        module.register_forward_hook(
            lambda module, inputs, output, name=name, what=what: stops.append(
                Stop(name, what, tuple(output.shape))
            )
        )
        for name, what, module in watched
    ]
    try:
        model(ids)
    finally:
        for hook in hooks:
            hook.remove()
    return stops


def draw_trace(stops: Sequence[Stop]) -> Figure:
    """The way through the model from top to bottom: a bar as wide as the last dimension, shape beside it."""
    from matplotlib.ticker import NullLocator

    from nanolab.viz.output import COLOURS, GREY, INK, new_figure

    figure = new_figure(7.2, 0.8 + 0.34 * len(stops))
    axes = figure.add_subplot()
    widths = [stop.shape[-1] if len(stop.shape) > 2 else 1 for stop in stops]
    colours = [COLOURS[0] if width == widths[1] else COLOURS[1] for width in widths]
    axes.barh(range(len(stops)), widths, height=0.55, color=colours)
    axes.set_yticks(range(len(stops)), [stop.name for stop in stops])
    axes.invert_yaxis()
    axes.set_xscale("log")
    # Bars to 0.36 of the width, shapes behind them, words from 0.56: nothing overlaps.
    axes.set_xlim(1, max(widths) ** (1 / 0.36))
    axes.set_xticks([10**power for power in range(9) if 10**power <= max(widths)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("numbers for each token, log scale", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    for row, (stop, width) in enumerate(zip(stops, widths, strict=True)):
        shape = " x ".join(f"{size:,}" for size in stop.shape)
        place: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 9}
        axes.annotate(shape, (width, row), xytext=(6, 0), color=INK, fontweight="bold", **place)
        axes.annotate(
            stop.what, (0.56, row), xycoords=("axes fraction", "data"), xytext=(0, 0), color=GREY, **place
        )
    return figure


# ---- attention


@torch.inference_mode()
def queries_and_keys(model: GPT, ids: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Of each block the queries and keys `(T, H, D)` of one text `(T,)`, not yet turned by position."""
    config, caught = model.config, []

    def catch(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        caught.append(output[0].view(ids.numel(), -1, config.head_dim))

    hooks = [layer.register_forward_hook(catch) for b in model.blocks for layer in (b.attn.c_q, b.attn.c_k)]
    try:
        model(ids[None])
    finally:
        for hook in hooks:
            hook.remove()
    return list(zip(caught[::2], caught[1::2], strict=True))


def attention_maps(model: GPT, ids: Tensor) -> Tensor:
    """Who looks at whom: `(blocks, heads, T, T)`, each row the shares of a token's attention, in all 1."""
    maps = []
    cos, sin = model.cos[: ids.numel()], model.sin[: ids.numel()]
    positions = torch.arange(ids.numel())
    for layer, (q, k) in enumerate(queries_and_keys(model, ids)):
        q, k = (norm(rotate(x[None], cos, sin))[0].transpose(0, 1) for x in (q, k))
        k = k.repeat_interleave(q.size(0) // k.size(0), dim=0)
        scores = q @ k.transpose(1, 2) * model.config.qk_gain**2 / model.config.head_dim**0.5
        seen = visible(positions, ids.numel(), model.config.window(layer))
        maps.append(scores.masked_fill(~seen, float("-inf")).softmax(dim=-1))
    return torch.stack(maps)


def busiest_head(maps: Tensor) -> tuple[int, int]:
    """`(block, head)` that looks back most sharply, least at the token itself and at the first one."""
    size = maps.size(-1)
    idle = maps.diagonal(dim1=-2, dim2=-1)[..., 2:].mean(-1) + maps[..., 2:, 0].mean(-1)
    spread = -(maps * maps.clamp_min(1e-9).log()).sum(-1)[..., 2:].mean(-1) / torch.log(
        torch.tensor(float(size))
    )
    return tuple(divmod(int((idle + spread).argmin()), maps.size(1)))  # type: ignore[return-value]


def rotary_scores(query: Tensor, key: Tensor, distance: int, positions: Sequence[int]) -> list[float]:
    """How well a query fits a key `distance` tokens before it, wherever the pair stands.

    query, key: `(D,)`, of two tokens; positions: where the query stands. The score is what the softmax of
    attention gets, but for the model's `qk_gain`: positions count only through rotary's turning.
    """
    if min(positions) < distance:
        raise ConfigError(
            f"no token stands {distance} before position {min(positions)}.\nUse later positions."
        )
    cos, sin = rotary_tables(max(positions) + 1, query.numel())

    def turned(x: Tensor, position: int) -> Tensor:
        return norm(
            rotate(x.view(1, 1, 1, -1), cos[position : position + 1], sin[position : position + 1])
        ).flatten()

    return [
        float(turned(query, place) @ turned(key, place - distance)) / query.numel() ** 0.5
        for place in positions
    ]


# ---- the parts of 2026


@dataclass(frozen=True)
class Inside:
    """What passed through a model that read one text of T tokens."""

    first: Tensor
    """the embedding, as the first block gets it: `(T, C)`"""
    reads: list[Tensor]
    """the stream that each block reads, `(T, C)`"""
    leaves: list[Tensor]
    """the stream that each block leaves behind, `(T, C)`"""
    values: list[Tensor]
    """what the attention of each block gathers from, `(T, H, D)`"""


@torch.no_grad()
def look_inside(model: GPT, ids: Tensor) -> Inside:
    """Run one text `(T,)` through the model, and keep the streams between its blocks and the values."""
    reads: list[Tensor] = []
    leaves: list[Tensor] = []

    def catch(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        reads.append(inputs[0][0])
        leaves.append(output[0])

    hooks = [block.register_forward_hook(catch) for block in model.blocks]
    cache = KVCache(model.config, 1, ids.numel(), model.device)  # keeps the values as attention gets them
    try:
        model(ids[None], kv_cache=cache)
    finally:
        for hook in hooks:
            hook.remove()
    return Inside(model.embed(ids[None], None, None)[0], reads, leaves, list(cache.store[:, 1, 0]))


@torch.no_grad()
def gates(model: GPT, inside: Inside, layer: int) -> Tensor:
    """`(heads, T)`: how much of its own value each token gets in a block, by its gate, from 0 to 3."""
    gate = model.blocks[layer].attn.ve_gate
    if gate is None:
        raise ConfigError(
            f"block {layer} has no value embedding.\nAsk for one of {', '.join(model.value_embeds)}."
        )
    return 3 * torch.sigmoid(gate(norm(inside.reads[layer])[:, :GATE_CHANNELS])).T


# ---- where the parameters are, and the arithmetic


def budget(config: GPTConfig) -> dict[str, tuple[int, int]]:
    """Of each part `(parameters, floating-point operations to train on one token)`.

    The operations add up to `GPT.flops_per_token`: 6 for a weight of a matrix product, none for a look-up.
    """
    width, layers = config.n_embd, config.n_layer
    attention = layers * (2 * width * width + 2 * width * config.n_kv_head * config.head_dim)
    mlp, table = layers * 8 * width * width, config.vocab_size * width
    gates = sum(config.has_values_of_its_own(layer) for layer in range(layers))
    attention += gates * GATE_CHANNELS * config.n_kv_head
    values = gates * config.vocab_size * config.n_kv_head * config.head_dim
    return {
        "embedding": (table, 0),
        **({"value embeddings": (values, 0)} if gates else {}),
        "attention, weights": (attention, 6 * attention),
        "attention, looking": (0, 12 * width * sum(config.window(layer) for layer in range(layers))),
        "MLP": (mlp, 6 * mlp),
        "head": (table, 6 * table),
    }


def shares(config: GPTConfig, column: int) -> dict[str, float]:
    """Each part's percentage of the parameters (column 0) or of the arithmetic (column 1)."""
    parts = {name: values[column] for name, values in budget(config).items()}
    return {name: 100 * value / sum(parts.values()) for name, value in parts.items()}


# ---- one part taken out


class Without(GPT):
    """The same model with one part left out, written once more in a page. `part` "" leaves out nothing.

    A part of 2026 is left out by its setting, the others here.
    Without RMSNorm the stream is not normed before blocks and head; without the QK norm queries and keys are
    not; instead of ReLU squared stands plain ReLU; without the soft cap logits may grow as they like.
    """

    def __init__(self, config: GPTConfig, part: str = "") -> None:
        if part not in ("", *PARTS, *ADDED):
            raise ConfigError(f"there is no part {part!r}.\nChoose one of: {', '.join((*PARTS, *ADDED))}.")
        super().__init__(replace(config, **ADDED.get(part, {})))
        self.part = part

    def hidden(self, idx: Tensor, kv_cache: KVCache | None = None) -> Tensor:
        """`(B, T)` ids to `(B, T, C)`; for training, so without a cache."""
        T, part = idx.size(1), self.part
        shape = (*idx.shape, self.config.n_head, self.config.head_dim)
        normed: Callable[[Tensor], Tensor] = (lambda x: x) if part == "RMSNorm" else norm
        fitted: Callable[[Tensor], Tensor] = (lambda x: x) if part == "QK norm" else norm
        if part not in ("RMSNorm", "QK norm", "ReLU squared"):
            return super().hidden(idx, kv_cache)
        x = x0 = self.embed(idx, None, None) if part != "RMSNorm" else self.transformer["wte"](idx)
        for layer, block in enumerate(self.blocks):
            if self.config.residual_scalars:
                x = self.resid_lambdas[layer] * x + self.x0_lambdas[layer] * x0
            attn, h = block.attn, normed(x)
            q, k = (
                self.config.qk_gain * fitted(rotate(c(h).view(shape), self.cos[:T], self.sin[:T]))
                for c in (attn.c_q, attn.c_k)
            )
            v = attn.c_v(h).view(shape)
            if attn.ve_gate is not None:
                gate = 3 * torch.sigmoid(attn.ve_gate(h[..., :GATE_CHANNELS]))
                v = v + gate.unsqueeze(-1) * self.value_embeds[str(layer)](idx).view(shape)
            heads = (q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
            seen = visible(torch.arange(T), T, self.config.window(layer))
            mixed = F.scaled_dot_product_attention(*heads, attn_mask=seen)
            x = x + attn.c_proj(mixed.transpose(1, 2).flatten(2))
            wide = block.mlp.c_fc(normed(x)).relu()
            x = x + block.mlp.c_proj(wide if part == "ReLU squared" else wide.square())
        return normed(x)

    def forward(
        self,
        idx: Tensor,
        targets: Tensor | None = None,
        kv_cache: KVCache | None = None,
        loss_reduction: str = "mean",
    ) -> Tensor:
        """As GPT's, but for the soft cap where that is the part left out."""
        if self.part != "soft cap" or targets is None:
            return super().forward(idx, targets, kv_cache, loss_reduction)
        logits = self.lm_head(self.hidden(idx)).float().flatten(0, 1)
        return F.cross_entropy(logits, targets.flatten(), ignore_index=-1, reduction=loss_reduction)


def train_on(model: GPT, batches: Iterator[Batch], steps: int, rates: LearningRates) -> Iterator[StepRecord]:
    """`steps` optimizer steps at constant learning rates, as the course trains, without saving anything."""
    optimizers = build_optimizers(model, rates)
    return fit(model, optimizers, batches, Schedule(steps, warmdown_ratio=0.0))


def leave_out(
    config: GPTConfig,
    texts: Sequence[str],
    tokenizer: Tokenizer,
    steps: int,
    rates: LearningRates,
    parts: Sequence[str] = PARTS,
    seed: int = 0,
) -> Iterator[tuple[str, int, float]]:
    """Train the complete model, then one without each of `parts`: same start, same batches of 512 tokens.

    Yields (name, step, loss in nats). A training that diverges ends there, and the next begins.
    """
    for part in ("", *parts):
        torch.manual_seed(seed)
        model = Without(config, part)
        batches = PackedBatches(texts, tokenizer, max(1, 512 // config.sequence_len), config.sequence_len)
        with contextlib.suppress(Diverged):
            for record in train_on(model, batches, steps, rates):
                yield f"without {part}" if part else "complete", record.index, record.loss


def missed(curves: Mapping[str, Sequence[tuple[float, float]]], last: int = 10) -> dict[str, float]:
    """How much worse each curve of (step, loss) ends than the "complete" one, in nats, worst first.

    An end is the mean of the `last` losses: a single step's depends on its text. Below 0 is better.
    """
    ends = {name: sum(y for _, y in points[-last:]) / len(points[-last:]) for name, points in curves.items()}
    gaps = {name: end - ends["complete"] for name, end in ends.items() if name != "complete"}
    return dict(sorted(gaps.items(), key=lambda gap: -gap[1]))


# ---- the KV cache


@torch.inference_mode()
def seconds_per_token(model: GPT, length: int, cached: bool) -> float:
    """Seconds for the logits of the token after `length` others: their keys and values `cached` or not."""
    ids = torch.arange(length + 1)[None] % model.config.vocab_size
    if not cached:
        return best_seconds(lambda: model(ids), repeats=2)
    cache = KVCache(model.config, 1, length + 1)
    model(ids[:, :length], kv_cache=cache)

    def next_token() -> None:
        cache.lengths.fill_(length)  # the same step again, not one further
        model(ids[:, length:], kv_cache=cache)

    return best_seconds(next_token, repeats=5)


def cache_difference(model: GPT, ids: Tensor) -> float:
    """Largest difference between logits computed at once and token by token with a cache; ids `(T,)`."""
    with torch.inference_mode():
        cache = KVCache(model.config, 1, ids.numel())
        one_by_one = [model(id.view(1, 1), kv_cache=cache) for id in ids]
        return float((torch.cat(one_by_one, dim=1) - model(ids[None])).abs().max())
