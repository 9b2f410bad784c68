"""A nanolab model for `transformers`: this file belongs beside the weights it was exported with.

    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)

runs this file, and it needs torch and transformers only. The model is nanochat's: rotary positions, RMSNorm
without parameters, a norm on queries and keys, ReLU squared, logits soft-capped at 15; and what nanochat
added until mid-2026, each part where config.json says so.

B = batch, T = time (tokens), C = channels (hidden_size), D = head size.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache, DynamicCache, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

GATE_CHANNELS, SMEAR_CHANNELS = 12, 24  # of a token's stream, that its gates read


class NanolabConfig(PretrainedConfig):
    """The names are those of transformers; below them, what only this architecture has."""

    model_type = "nanolab"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012

    def __init__(
        self,
        vocab_size: int = 65536,
        hidden_size: int = 256,
        intermediate_size: int = 1024,
        num_hidden_layers: int = 4,
        num_attention_heads: int = 2,
        num_key_value_heads: int = 2,
        max_position_embeddings: int = 1024,
        rms_norm_eps: float = 2.0**-23,
        rope_parameters: dict[str, Any] | None = None,
        final_logit_softcapping: float = 15.0,
        layer_types: list[str] | None = None,
        sliding_window: int | None = None,
        value_embeddings: bool = False,
        residual_scalars: bool = False,
        smear: bool = False,
        backout: bool = False,
        qk_gain: float = 1.0,
        use_cache: bool = True,
        tie_word_embeddings: bool = False,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads
        self.head_dim = hidden_size // num_attention_heads
        self.max_position_embeddings = max_position_embeddings
        self.rms_norm_eps = rms_norm_eps
        self.rope_parameters = rope_parameters or {"rope_type": "default", "rope_theta": 10000.0}
        self.final_logit_softcapping = final_logit_softcapping
        self.layer_types = layer_types or ["full_attention"] * num_hidden_layers
        self.sliding_window = sliding_window
        self.value_embeddings = value_embeddings
        self.residual_scalars = residual_scalars
        self.smear = smear
        self.backout = backout
        self.qk_gain = qk_gain
        self.use_cache = use_cache
        kwargs.pop("head_dim", None)
        super().__init__(**{**kwargs, "tie_word_embeddings": tie_word_embeddings})

    def has_values_of_its_own(self, layer: int) -> bool:
        """Whether a layer has a value embedding: every other one has, the last among them."""
        return self.value_embeddings and (self.num_hidden_layers - 1 - layer) % 2 == 0


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of channels of `x` `(B, heads, T, D)` by its position's angle `(B, 1, T, D/2)`."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos + second * sin, second * cos - first * sin), dim=-1)


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Attention written out, which also returns how much each token looks at each."""
    key, value = (x.repeat_interleave(query.size(1) // x.size(1), dim=1) for x in (key, value))
    scores = query @ key.transpose(2, 3) * scaling
    weights = F.softmax(scores if mask is None else scores + mask, dim=-1, dtype=torch.float32)
    weights = weights.to(query.dtype)
    return (weights @ value).transpose(1, 2), weights


class NanolabAttention(nn.Module):
    def __init__(self, config: NanolabConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer_idx = config, layer
        self.is_causal = True
        self.scaling = config.head_dim**-0.5
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        is_short = config.layer_types[layer] == "sliding_attention"
        self.sliding_window = config.sliding_window if is_short else None
        width, kv_width = config.hidden_size, config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, kv_width, bias=False)
        self.v_proj = nn.Linear(width, kv_width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        if config.has_values_of_its_own(layer):
            self.ve_gate = nn.Linear(GATE_CHANNELS, config.num_key_value_heads, bias=False)

    def norm(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.size(-1),), eps=self.config.rms_norm_eps)

    def forward(
        self,
        x: Tensor,
        values: Tensor | None,
        cos: Tensor,
        sin: Tensor,
        attention_mask: Tensor | None,
        past_key_values: Cache | None,
        **kwargs: Any,
    ) -> Tensor:
        shape = (*x.shape[:-1], -1, self.config.head_dim)
        q, k, v = (project(x).view(shape) for project in (self.q_proj, self.k_proj, self.v_proj))
        if values is not None:
            gate = 3 * torch.sigmoid(self.ve_gate(x[..., :GATE_CHANNELS]))
            v = v + gate.unsqueeze(-1) * values.view(shape)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        q, k = self.norm(rotate(q, cos, sin)), self.norm(rotate(k, cos, sin))
        q, k = q * self.config.qk_gain, k * self.config.qk_gain
        if past_key_values is not None:
            k, v = past_key_values.update(k, v, self.layer_idx)
        name = self.config._attn_implementation
        attend = eager_attention if name in (None, "eager") else ALL_ATTENTION_FUNCTIONS[name]
        y, _ = attend(
            self, q, k, v, attention_mask, dropout=0.0, scaling=self.scaling,
            sliding_window=self.sliding_window, **kwargs,
        )  # fmt: skip
        return self.o_proj(y.reshape(x.shape).contiguous())


class NanolabMLP(nn.Module):
    def __init__(self, config: NanolabConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(x)).square())


class NanolabDecoderLayer(GradientCheckpointingLayer):
    def __init__(self, config: NanolabConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = NanolabAttention(config, layer)
        self.mlp = NanolabMLP(config)

    def forward(self, x: Tensor, values: Tensor | None, cos: Tensor, sin: Tensor, **kwargs: Any) -> Tensor:
        x = x + self.self_attn(self.self_attn.norm(x), values, cos, sin, **kwargs)
        return x + self.mlp(self.self_attn.norm(x))


class NanolabPreTrainedModel(PreTrainedModel):
    config_class = NanolabConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["NanolabDecoderLayer"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True


class NanolabModel(NanolabPreTrainedModel):
    def __init__(self, config: NanolabConfig) -> None:
        super().__init__(config)
        layers, kv_width = config.num_hidden_layers, config.num_key_value_heads * config.head_dim
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(NanolabDecoderLayer(config, layer) for layer in range(layers))
        self.value_embeds = nn.ModuleDict(
            {
                str(layer): nn.Embedding(config.vocab_size, kv_width)
                for layer in range(layers)
                if config.has_values_of_its_own(layer)
            }
        )
        if config.residual_scalars:
            self.resid_lambdas = nn.Parameter(torch.ones(layers))
            self.x0_lambdas = nn.Parameter(torch.zeros(layers))
        if config.smear:
            self.smear_gate = nn.Linear(SMEAR_CHANNELS, 1, bias=False)
            self.smear_lambda = nn.Parameter(torch.zeros(1))
        if config.backout:
            self.backout_lambda = nn.Parameter(torch.zeros(1))
        self.gradient_checkpointing = False
        self.post_init()

    def norm(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.size(-1),), eps=self.config.rms_norm_eps)

    def angles(self, position_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines `(B, 1, T, D/2)`."""
        size, base = self.config.head_dim, self.config.rope_parameters["rope_theta"]
        channels = torch.arange(0, size, 2, dtype=torch.float32, device=position_ids.device)
        angles = position_ids[:, None, :, None].float() * base ** (-channels / size)
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def positions(self, inputs: Tensor, attention_mask: Any, past: int) -> Tensor:
        """`(B, T)`: from 0 at each row's first token that is no padding."""
        length = inputs.size(1)
        if isinstance(attention_mask, Tensor) and attention_mask.dim() == 2:
            return (attention_mask.long().cumsum(-1) - 1).clamp_min(0)[:, -length:]
        return torch.arange(past, past + length, device=inputs.device)[None]

    def tokens_before(self, input_ids: Tensor, past_key_values: Cache | None) -> Tensor:
        """The token before each of `(B, T)`; 0 at the very first.

        A cache remembers them as a layer of its own behind the others, so that it follows what `generate`
        does with the rows.
        """
        before = F.pad(input_ids[:, :-1], (1, 0))
        if past_key_values is not None:
            layers: list[Any] = past_key_values.layers
            if len(layers) == self.config.num_hidden_layers:
                layers.append(DynamicLayer())
            ids = input_ids[:, None, :, None]
            seen, _ = layers[-1].update(ids, ids)
            before = F.pad(seen[:, 0, :-1, 0], (1, 0))[:, -input_ids.size(1) :]
        return before

    def smeared(self, x: Tensor, before: Tensor, position_ids: Tensor) -> Tensor:
        """Each token takes in a little of the one before it, if there is one."""
        share = self.smear_lambda * torch.sigmoid(self.smear_gate(x[..., :SMEAR_CHANNELS]))
        share = share * (position_ids > 0).unsqueeze(-1)
        return x + share * self.norm(self.embed_tokens(before))

    def masks(self, **given: Any) -> dict[str, Any]:
        masks = {"full_attention": create_causal_mask(**given)}
        if "sliding_attention" in self.config.layer_types:
            masks["sliding_attention"] = create_sliding_window_causal_mask(**given)
        return masks

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        config = self.config
        if input_ids is None and (inputs_embeds is None or config.value_embeddings or config.smear):
            raise ValueError("This model reads token ids (input_ids), not embeddings of them.")
        if config.smear and "attention_instances" in kwargs:
            raise ValueError("smear=True needs the token before each, which vLLM does not pass on.")
        use_cache = config.use_cache if use_cache is None else use_cache
        if use_cache and past_key_values is None and not (self.gradient_checkpointing and self.training):
            past_key_values = DynamicCache(config=config)
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if position_ids is None:
            past = 0 if past_key_values is None else past_key_values.get_seq_length()
            position_ids = self.positions(x, attention_mask, past)
        masks = attention_mask
        if not isinstance(masks, dict):  # `generate` may have made them already
            masks = self.masks(
                config=config, inputs_embeds=x, attention_mask=attention_mask,
                past_key_values=past_key_values, position_ids=position_ids,
            )  # fmt: skip
        cos, sin = self.angles(position_ids, x.dtype)
        x = self.norm(x)
        if config.smear and input_ids is not None:
            x = self.smeared(x, self.tokens_before(input_ids, past_key_values), position_ids)
        first = middle = x
        states = [x]
        for number, layer in enumerate(self.layers):
            if config.residual_scalars:
                x = self.resid_lambdas[number] * x + self.x0_lambdas[number] * first
            own = config.has_values_of_its_own(number)
            values = self.value_embeds[str(number)](input_ids) if own else None
            x = layer(
                x, values, cos, sin, attention_mask=masks[config.layer_types[number]],
                past_key_values=past_key_values, position_ids=position_ids, **kwargs,
            )  # fmt: skip
            states.append(x)
            if number == config.num_hidden_layers // 2:
                middle = x
        if config.backout:
            x = x - self.backout_lambda * middle
        x = states[-1] = self.norm(x)
        output = BaseModelOutputWithPast(
            last_hidden_state=x,
            past_key_values=past_key_values if use_cache else None,
            hidden_states=tuple(states) if output_hidden_states else None,
        )
        return output.to_tuple() if return_dict is False else output


class NanolabForCausalLM(NanolabPreTrainedModel, GenerationMixin):
    def __init__(self, config: NanolabConfig) -> None:
        super().__init__(config)
        self.model = NanolabModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """labels: `(B, T)`, the tokens themselves: they are moved by one here. -100 is ignored."""
        outputs = self.model(
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache,
            output_hidden_states, **kwargs,
        )  # fmt: skip
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        cap = self.config.final_logit_softcapping
        logits = cap * torch.tanh(self.lm_head(outputs.last_hidden_state[:, kept]).float() / cap)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config.vocab_size, **kwargs)
        output = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
        )
        return output.to_tuple() if return_dict is False else output
