"""The transformer: nanochat's architecture of late 2025, and what it added until mid-2026, in one file.

Rotary positions, RMSNorm without parameters, a norm on queries and keys, ReLU squared, no biases,
untied embedding and head, logits soft-capped at 15. Parameter names are nanochat's, so its published
weights load; `transformers` has the model of late 2025 as `NanoChatForCausalLM`. What came later are
settings of `GPTConfig`, each with a value that leaves it out.

B = batch, T = time (tokens), C = channels (n_embd), H = heads, D = head size, V = vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanolab.errors import ConfigError
from nanolab.loss import FusedLoss, softcap, token_losses

NORM_EPS = torch.finfo(torch.float32).eps
GATE_CHANNELS, SMEAR_CHANNELS = 12, 24  # of a token's stream, that its gates read; nanochat's numbers
LONGEST_PATTERN = 128


@dataclass(frozen=True)
class GPTConfig:
    """The size and the parts of a model. As they stand, the parts are those of late 2025."""

    sequence_len: int = 1024
    vocab_size: int = 65536
    n_layer: int = 4
    n_head: int = 2
    n_kv_head: int = 2
    """below `n_head`, heads share keys and values (GQA)"""
    n_embd: int = 256
    value_embeddings: bool = False
    """every other layer adds to its values what an embedding of their own knows of the token, as much as a
    gate says (Zhou et al., 2024, ResFormer)"""
    residual_scalars: bool = False
    """each layer learns how much of the stream, and of the first embedding, it goes on with"""
    smear: bool = False
    """a token's embedding learns to take in a little of the one before it"""
    backout: bool = False
    """the head learns to subtract what the middle layer left in the stream"""
    qk_gain: float = 1.0
    """queries and keys times this, after their norm: above 1 attention is sharper"""
    rotary_base: float = 10_000.0
    """the slowest pair of channels turns once in about 6 times as many tokens"""
    window_pattern: str = "L"
    """how far back each layer looks, the last always L: L the whole context, S a short way"""
    short_window: int = 0
    """tokens before its own that a token of a layer S sees; 0 for a quarter of the context, as nanochat"""

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_setting(field.name, getattr(self, field.name), field.default)
        if not 1 <= len(self.window_pattern) <= LONGEST_PATTERN or set(self.window_pattern) - set("LS"):
            raise ConfigError(
                f"window_pattern={self.window_pattern[:20]!r} has to be of the letters L and S, "
                f"1 to {LONGEST_PATTERN} of them."
            )
        for name, channels in (("value_embeddings", GATE_CHANNELS), ("smear", SMEAR_CHANNELS)):
            if getattr(self, name) and self.n_embd < channels:
                raise ConfigError(
                    f"the gate of {name} reads {channels} channels, and n_embd={self.n_embd}.\n"
                    f"Choose a wider model, or {name}=False."
                )
        if self.n_embd % self.n_head or (self.n_embd // self.n_head) % 2:
            raise ConfigError(
                f"n_embd={self.n_embd} cannot be cut into {self.n_head} heads of even size.\n"
                "Choose n_embd as an even multiple of n_head."
            )
        if self.n_head % self.n_kv_head:
            raise ConfigError(f"n_head={self.n_head} is not a multiple of n_kv_head={self.n_kv_head}.")

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    def has_values_of_its_own(self, layer: int) -> bool:
        """Whether a layer has a value embedding: every other one has, the last among them."""
        return self.value_embeddings and (self.n_layer - 1 - layer) % 2 == 0

    def window(self, layer: int) -> int:
        """How many tokens before its own a token of this layer sees; a quarter is rounded up to 128s."""
        short = min(self.sequence_len, self.short_window or math.ceil(self.sequence_len / 512) * 128)
        pattern = self.window_pattern
        is_short = pattern[layer % len(pattern)] == "S" and layer < self.n_layer - 1
        return short if is_short else self.sequence_len


def _check_setting(name: str, value: Any, default: Any) -> None:
    """Raise ConfigError for a value that is of another kind than the default, or a number not above 0."""
    kind = type(default)
    wanted = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}[kind]
    kinds = {int, float} if kind is float else {kind}
    if type(value) not in kinds:
        raise ConfigError(
            f"{name} is a {type(value).__name__}, and has to be {wanted}.\n"
            "Sizes in a dictionary are given as GPTConfig(**sizes)."
        )
    if kind in (int, float) and not (0 < value <= 2**31 or value == default):
        found = "more" if value > 2**31 else value
        raise ConfigError(f"{name} has to be above 0 and at most 2^31, and is {found}.")


class RMSNorm(torch.autograd.Function):
    """`F.rms_norm` over the last dimension of `(..., C)`, with a gradient of three operations in place of
    autograd's chain, which takes several times as long on a CPU."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[override]
        mean_square = torch.linalg.vecdot(x, x).unsqueeze(-1) / x.size(-1)
        scale = (mean_square + NORM_EPS).rsqrt_()
        y = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[override]
        # What points along y is lost, since y has a fixed length; the rest is scaled as x was.
        y, scale = ctx.saved_tensors
        along = torch.linalg.vecdot(grad, y).unsqueeze(-1) / y.size(-1)
        return torch.addcmul(grad, along, y, value=-1).mul_(scale)


def norm(x: Tensor) -> Tensor:
    """RMSNorm over the last dimension, without learnable scale (Zhang and Sennrich, 2019)."""
    return RMSNorm.apply(x) if torch.is_grad_enabled() else F.rms_norm(x, (x.size(-1),), eps=NORM_EPS)


def rotary_tables(length: int, head_dim: int, base: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines `(length, head_dim / 2)` for rotary positions (Su et al., 2021), in fp32."""
    frequencies = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of channels of `x` `(B, T, H, D)` by its position's angle.

    cos, sin: `(T, D/2)`, or `(B, T, D/2)` when the rows stand at different positions.
    """
    cos, sin = cos.unsqueeze(-2).to(x.dtype), sin.unsqueeze(-2).to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos + second * sin, second * cos - first * sin), dim=-1)


def visible(positions: Tensor, count: int, window: int) -> Tensor:
    """Whether a token at each of `positions` `(..., T)` looks at each of the first `count` tokens: `(..., T,
    count)`, true for itself and for at most `window` before it."""
    back = positions.unsqueeze(-1) - torch.arange(count, device=positions.device)
    return (back >= 0) & (back <= window)


class KVCache:
    """Keys and values of the tokens a model has already read, one row per sequence.

    Rows may have different lengths: `lengths` `(B,)` says how many tokens of each row count. A forward
    pass writes T new tokens behind them and advances `lengths` by T. To prefill prompts of different
    lengths, right-pad them, run once, then set `lengths` to the real ones: what lies beyond is masked,
    and overwritten by the next tokens. For inference only: no gradient flows through it.
    """

    def __init__(
        self,
        config: GPTConfig,
        batch_size: int,
        max_len: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (config.n_layer, 2, batch_size, max_len, config.n_kv_head, config.head_dim)
        self.store = torch.zeros(shape, device=device, dtype=dtype)
        self.tokens = torch.zeros(batch_size, max_len, device=device, dtype=torch.long)
        self.lengths = torch.zeros(batch_size, dtype=torch.long, device=device)

    @property
    def max_len(self) -> int:
        return self.store.size(3)

    def positions(self, count: int) -> Tensor:
        """`(B, count)`: where the next `count` tokens of each row belong. Raises when they do not fit."""
        positions = self.lengths[:, None] + torch.arange(count, device=self.lengths.device)
        if count and int(positions.max()) >= self.max_len:
            raise ConfigError(
                f"the KV cache holds {self.max_len} tokens a row and is asked for {int(positions.max()) + 1}."
            )
        return positions

    def write(self, layer: int, k: Tensor, v: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Store `(B, T, H, D)` keys and values; return all `(B, S, H, D)` up to the longest row."""
        rows = torch.arange(k.size(0), device=k.device)[:, None]
        keys, values = self.store[layer, 0], self.store[layer, 1]
        keys[rows, positions] = k.detach().to(keys.dtype)
        values[rows, positions] = v.detach().to(values.dtype)
        longest = int(positions.max()) + 1
        return keys[:, :longest].to(k.dtype), values[:, :longest].to(v.dtype)

    def before(self, idx: Tensor, positions: Tensor) -> Tensor:
        """The token before each of `idx` `(B, T)`, which stand at `positions`; the first one's is its own."""
        self.tokens.scatter_(1, positions, idx)
        return self.tokens.gather(1, (positions - 1).clamp_min(0))

    def select(self, rows: Tensor) -> KVCache:
        """A new cache with these rows, in this order; a row may be repeated or left out."""
        chosen = object.__new__(KVCache)
        chosen.store = self.store[:, :, rows]
        chosen.tokens = self.tokens[rows]
        chosen.lengths = self.lengths[rows]
        return chosen


class Attention(nn.Module):
    """Causal self-attention; each token looks at itself and at what came before it."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.config = layer, config
        kv_width = config.n_kv_head * config.head_dim
        self.c_q = nn.Linear(config.n_embd, config.n_embd, bias=False)
        self.c_k = nn.Linear(config.n_embd, kv_width, bias=False)
        self.c_v = nn.Linear(config.n_embd, kv_width, bias=False)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=False)
        gated = config.has_values_of_its_own(layer)
        self.ve_gate = nn.Linear(GATE_CHANNELS, config.n_kv_head, bias=False) if gated else None

    def forward(
        self,
        x: Tensor,
        values: Tensor | None,
        cos: Tensor,
        sin: Tensor,
        cache: KVCache | None,
        positions: Tensor | None,
    ) -> Tensor:
        B, T, C = x.shape
        q = self.c_q(x).view(B, T, self.config.n_head, self.config.head_dim)
        k = self.c_k(x).view(B, T, self.config.n_kv_head, self.config.head_dim)
        v = self.c_v(x).view(B, T, self.config.n_kv_head, self.config.head_dim)
        if self.ve_gate is not None and values is not None:
            gate = 3 * torch.sigmoid(self.ve_gate(x[..., :GATE_CHANNELS]))
            v = v + gate.unsqueeze(-1) * values.view_as(v)
        q, k = norm(rotate(q, cos, sin)), norm(rotate(k, cos, sin))
        if self.config.qk_gain != 1:
            q, k = q * self.config.qk_gain, k * self.config.qk_gain
        if cache is not None and positions is not None:
            k, v = cache.write(self.layer, k, v, positions)
        mask, window = None, self.config.window(self.layer)
        if positions is not None or window < T - 1:
            # is_causal aligns to the top left, which is wrong once there are more keys than queries.
            query = torch.arange(T, device=x.device)[None] if positions is None else positions
            mask = visible(query[:, None], k.size(1), window)
        y = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
            attn_mask=mask, is_causal=mask is None, enable_gqa=self.config.n_head != self.config.n_kv_head,
        )  # fmt: skip
        return self.c_proj(y.transpose(1, 2).reshape(B, T, C))


class ReluSquared(torch.autograd.Function):
    """relu(x)^2, whose slope is 2 relu(x): one saved tensor and no mask, 10% of a training step less
    than autograd's own chain of two."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[override]
        positive = x.relu()
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[override]
        (positive,) = ctx.saved_tensors
        return (grad * positive).mul_(2)


class MLP(nn.Module):
    """Four times wider, ReLU squared (So et al., 2021), and back."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=False)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(ReluSquared.apply(self.c_fc(x)))


class Block(nn.Module):
    """Attention, then the MLP; each reads the normed stream and adds its answer to it."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.attn = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(
        self,
        x: Tensor,
        values: Tensor | None,
        cos: Tensor,
        sin: Tensor,
        cache: KVCache | None,
        positions: Tensor | None,
    ) -> Tensor:
        x = x + self.attn(norm(x), values, cos, sin, cache, positions)
        return x + self.mlp(norm(x))


class GPT(nn.Module):
    """The language model. Initialised on construction: its first loss is exactly ln(vocab_size)."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.vocab_size, config.n_embd),
                "h": nn.ModuleList(Block(config, layer) for layer in range(config.n_layer)),
            }
        )
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        kv_width, layers = config.n_kv_head * config.head_dim, range(config.n_layer)
        self.value_embeds = nn.ModuleDict(
            {
                str(layer): nn.Embedding(config.vocab_size, kv_width)
                for layer in layers
                if config.has_values_of_its_own(layer)
            }
        )
        if config.residual_scalars:
            self.resid_lambdas = nn.Parameter(torch.empty(config.n_layer))
            self.x0_lambdas = nn.Parameter(torch.empty(config.n_layer))
        if config.smear:
            self.smear_gate = nn.Linear(SMEAR_CHANNELS, 1, bias=False)
            self.smear_lambda = nn.Parameter(torch.empty(1))
        if config.backout:
            self.backout_lambda = nn.Parameter(torch.empty(1))
        cos, sin = rotary_tables(config.sequence_len, config.head_dim, config.rotary_base)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.init_weights()

    def init_weights(self) -> None:
        """nanochat's initialisation: a zero head and zero output projections, so every block starts
        as the identity and every token as equally likely."""
        for name, weight in self.named_parameters():
            if name.endswith("c_proj.weight") or name in ("lm_head.weight", "smear_lambda"):
                nn.init.zeros_(weight)
            elif name.endswith("gate.weight"):
                nn.init.uniform_(weight, 0.0, 0.02)
            elif name == "backout_lambda":
                nn.init.constant_(weight, 0.2)
            elif name.endswith("lambdas"):
                # Early layers take more of the first embedding, late ones less.
                first, last = (1.15, 1.05) if name == "resid_lambdas" else (0.2, 0.05)
                weight.data.copy_(torch.linspace(first, last, len(weight)))
            elif name.startswith("value_embeds"):
                nn.init.normal_(weight, std=self.config.n_embd**-0.5)
            elif name == "transformer.wte.weight":
                nn.init.normal_(weight, std=1.0)
            else:
                fan_out, fan_in = weight.shape
                nn.init.normal_(weight, std=fan_in**-0.5 * min(1.0, (fan_out / fan_in) ** 0.5))

    @property
    def blocks(self) -> Sequence[Block]:
        return cast(Sequence[Block], self.transformer["h"])

    @property
    def device(self) -> torch.device:
        return self.lm_head.weight.device

    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def flops_per_token(self) -> int:
        """Floating-point operations to train on one token: 6 for each weight of a matrix product, and
        12 H D T for attention (Chowdhery et al., 2022, PaLM, appendix B), where a short window is a short T.
        Embeddings are a look-up."""
        matrices = sum(m.weight.numel() for m in self.modules() if isinstance(m, nn.Linear))
        seen = sum(self.config.window(layer) for layer in range(self.config.n_layer))
        return 6 * matrices + 12 * self.config.n_embd * seen

    def hidden(self, idx: Tensor, kv_cache: KVCache | None = None) -> Tensor:
        """What the head reads: `(B, T)` token ids to `(B, T, C)`, normed."""
        T = idx.size(1)
        positions = None if kv_cache is None else kv_cache.positions(T)
        reach = T if kv_cache is None else kv_cache.max_len
        if reach > self.config.sequence_len:
            raise ConfigError(
                f"{reach} tokens are more than this model's context of {self.config.sequence_len}.\n"
                "Shorten the text, or train with a longer context."
            )
        where = slice(T) if positions is None else positions
        cos, sin = self.cos[where], self.sin[where]
        # fp32 even under autocast: a stream in bf16, as nanochat's, is 9% faster on a CPU with fast bf16,
        # but recalled 86% of TinyWorld's common facts in place of 90% (means of six seeds).
        x = x0 = self.embed(idx, kv_cache, positions)
        middle = None
        for layer, block in enumerate(self.blocks):
            if self.config.residual_scalars:
                x = self.resid_lambdas[layer] * x + self.x0_lambdas[layer] * x0
            own = str(layer) in self.value_embeds
            values = self.value_embeds[str(layer)](idx) if own else None
            x = block(x, values, cos, sin, kv_cache, positions)
            if self.config.backout and layer == self.config.n_layer // 2:
                middle = x
        if middle is not None:
            x = x - self.backout_lambda * middle
        if kv_cache is not None:
            kv_cache.lengths = kv_cache.lengths + T
        return norm(x)

    def embed(self, idx: Tensor, kv_cache: KVCache | None, positions: Tensor | None) -> Tensor:
        """What the first block reads: `(B, T)` token ids, at `positions` of a cache, to `(B, T, C)`."""
        x = norm(self.transformer["wte"](idx))
        if not self.config.smear:
            return x
        if kv_cache is None or positions is None:
            before = F.pad(x[:, :-1], (0, 0, 1, 0))
        else:
            before = norm(self.transformer["wte"](kv_cache.before(idx, positions)))
            before = before * (positions > 0).unsqueeze(-1)
        return x + self.smear_lambda * torch.sigmoid(self.smear_gate(x[..., :SMEAR_CHANNELS])) * before

    def forward(
        self,
        idx: Tensor,
        targets: Tensor | None = None,
        kv_cache: KVCache | None = None,
        loss_reduction: str = "mean",
    ) -> Tensor:
        """Logits `(B, T, V)` in fp32; or, given `targets` `(B, T)`, the loss in nats.

        Targets of -1 are ignored. `loss_reduction` is "mean" over the others (0 if there are none),
        "sum", or "none": `(B, T)`, with 0 where ignored.
        """
        x = self.hidden(idx, kv_cache)
        if targets is None:
            return softcap(self.lm_head(x).float())
        if loss_reduction not in ("mean", "sum", "none"):
            raise ConfigError(f"loss_reduction={loss_reduction!r}: choose mean, sum or none.")
        supervised = targets >= 0
        x, wanted = x[supervised], targets[supervised]
        if loss_reduction == "none":
            losses = token_losses(x, self.lm_head.weight, wanted)
            return torch.zeros(targets.shape, device=idx.device).masked_scatter(supervised, losses)
        total = FusedLoss.apply(x, self.lm_head.weight, wanted)
        return total if loss_reduction == "sum" else total / max(1, wanted.numel())
