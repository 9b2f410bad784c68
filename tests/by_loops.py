"""The model once more, slowly: Python floats, one token and one head after the other, no tensor.

What `nanolab/model.py` computes with matrices is stated here as sums, so that a test can compare the two.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence

from torch import Tensor

from nanolab.model import GPTConfig

Vector = list[float]


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(map(operator.mul, a, b))


def times(matrix: Sequence[Vector], x: Vector) -> Vector:
    return [dot(row, x) for row in matrix]


def plus(a: Vector, b: Vector, share: float = 1.0) -> Vector:
    return [x + share * y for x, y in zip(a, b, strict=True)]


def normed(x: Vector) -> Vector:
    scale = math.sqrt(dot(x, x) / len(x) + 2.0**-23)
    return [value / scale for value in x]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def turned(x: Vector, position: int, base: float) -> Vector:
    """Channel i and channel i + D/2 are the two coordinates of a point, turned clockwise."""
    half, y = len(x) // 2, list(x)
    for i in range(half):
        angle = position * base ** (-2 * i / len(x))
        y[i] = x[i] * math.cos(angle) + x[i + half] * math.sin(angle)
        y[i + half] = x[i + half] * math.cos(angle) - x[i] * math.sin(angle)
    return y


def attended(query: Vector, keys: Sequence[Vector], values: Sequence[Vector]) -> Vector:
    scores = [dot(query, key) / math.sqrt(len(query)) for key in keys]
    shares = [math.exp(score - max(scores)) for score in scores]
    total = sum(shares)
    return [dot(shares, channel) / total for channel in zip(*values, strict=True)]


def visible(config: GPTConfig, layer: int, position: int) -> range:
    """The positions that a token may look at: nanochat counts the token itself besides its window."""
    letter = config.window_pattern[layer % len(config.window_pattern)]
    if letter == "L" or layer == config.n_layer - 1:
        return range(position + 1)
    short = config.short_window or 128 * math.ceil(config.sequence_len / 4 / 128)
    return range(max(0, position - short), position + 1)


def hidden_by_loops(config: GPTConfig, weights: Mapping[str, Tensor], tokens: Sequence[int]) -> list[Vector]:
    """What the head reads for each token of one sequence. weights: a GPT's state dict."""
    w = {name: weight.double().tolist() for name, weight in weights.items()}
    size, group = config.n_embd // config.n_head, config.n_head // config.n_kv_head

    def heads(x: Vector) -> list[Vector]:
        return [x[start : start + size] for start in range(0, len(x), size)]

    plain = [normed(w["transformer.wte.weight"][token]) for token in tokens]
    stream = [plain[0]]
    for here, before in zip(plain[1:], plain[:-1], strict=True):
        share = 0.0
        if config.smear:
            share = w["smear_lambda"][0] * sigmoid(dot(w["smear_gate.weight"][0], here[:24]))
        stream.append(plus(here, before, share))
    first, middle = stream, stream
    for layer in range(config.n_layer):
        name = f"transformer.h.{layer}."
        if config.residual_scalars:
            keep, again = w["resid_lambdas"][layer], w["x0_lambdas"][layer]
            stream = [plus([keep * v for v in x], x0, again) for x, x0 in zip(stream, first, strict=True)]
        keys: list[list[Vector]] = []
        values: list[list[Vector]] = []
        after = []
        for position, (token, x) in enumerate(zip(tokens, stream, strict=True)):
            seen = normed(x)
            queries = heads(times(w[name + "attn.c_q.weight"], seen))
            keys.append([
                [config.qk_gain * v for v in normed(turned(key, position, config.rotary_base))]
                for key in heads(times(w[name + "attn.c_k.weight"], seen))
            ])  # fmt: skip
            own = heads(times(w[name + "attn.c_v.weight"], seen))
            if config.value_embeddings and layer % 2 == (config.n_layer - 1) % 2:
                gates = times(w[name + "attn.ve_gate.weight"], seen[:12])
                known = heads(w[f"value_embeds.{layer}.weight"][token])
                own = [plus(v, k, 3 * sigmoid(gate)) for v, k, gate in zip(own, known, gates, strict=True)]
            values.append(own)
            answer: Vector = []
            for head, query in enumerate(queries):
                query = [config.qk_gain * v for v in normed(turned(query, position, config.rotary_base))]
                where = visible(config, layer, position)
                answer += attended(
                    query, [keys[t][head // group] for t in where], [values[t][head // group] for t in where]
                )
            x = plus(x, times(w[name + "attn.c_proj.weight"], answer))
            wide = [max(0.0, v) ** 2 for v in times(w[name + "mlp.c_fc.weight"], normed(x))]
            after.append(plus(x, times(w[name + "mlp.c_proj.weight"], wide)))
        stream = after
        if layer == config.n_layer // 2:
            middle = stream
    if config.backout:
        stream = [plus(x, m, -w["backout_lambda"][0]) for x, m in zip(stream, middle, strict=True)]
    return [normed(x) for x in stream]


def logits_by_loops(config: GPTConfig, weights: Mapping[str, Tensor], tokens: Sequence[int]) -> list[Vector]:
    head = weights["lm_head.weight"].double().tolist()
    return [
        [15 * math.tanh(logit / 15) for logit in times(head, x)]
        for x in hidden_by_loops(config, weights, tokens)
    ]
