"""The parts of mid-2026 against a model of loops, and, where they are told to do nothing, against late 2025."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from by_loops import hidden_by_loops, logits_by_loops
from torch import nn

from nanolab.errors import ConfigError
from nanolab.model import GPT, GPTConfig, KVCache

SMALL = GPTConfig(sequence_len=160, vocab_size=40, n_layer=4, n_head=4, n_kv_head=2, n_embd=32)
PARTS = {
    "late 2025": {},
    "value embeddings": {"value_embeddings": True},
    "residual scalars": {"residual_scalars": True},
    "smear": {"smear": True},
    "backout": {"backout": True},
    "gain": {"qk_gain": 1.2},
    "rotary base": {"rotary_base": 100_000.0},
    "windows": {"window_pattern": "SSL"},
}
ALL = {name: value for part in PARTS.values() for name, value in part.items()}
"""everything that nanochat has in July 2026"""
PARTS["short windows"] = {"window_pattern": "SSL", "short_window": 2}
LONG = 140
"""tokens; the short window of a context of 160 is 128 and the token itself"""


def awake(config: GPTConfig, seed: int = 0) -> GPT:
    """A model in double precision of random weights, so that every path matters, with exact rotary tables."""
    generator = torch.Generator().manual_seed(seed)
    model = GPT(config).double().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            scale = {"transformer.wte.weight": 1.0, "lm_head.weight": 0.5, "resid_lambdas": 0.2}.get(
                name, 0.3
            )
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64) * scale)
            if name in ("resid_lambdas", "smear_lambda"):
                weight.add_(0.9)
    channels = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
    angles = torch.outer(torch.arange(config.sequence_len).double(), config.rotary_base**-channels)
    model.cos, model.sin = angles.cos(), angles.sin()
    return model


def some_tokens(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(SMALL.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def by_loops(model: GPT, tokens: torch.Tensor) -> torch.Tensor:
    rows = hidden_by_loops(model.config, model.state_dict(), tokens.tolist())
    return torch.tensor(rows, dtype=torch.float64)


# ---- against loops


@pytest.fixture(scope="module", params=["every part", "every part, no sharing of heads"])
def everything(request):
    """(model with every part, a row of tokens longer than the short window, its hidden states by loops)."""
    config = replace(SMALL, **ALL, n_kv_head=2 if request.param == "every part" else 4)
    model, tokens = awake(config), some_tokens(LONG)
    return model, tokens, by_loops(model, tokens)


@pytest.mark.parametrize("part", PARTS)
def test_each_part_alone_is_the_model_of_loops(part):
    model, tokens = awake(replace(SMALL, **PARTS[part])), some_tokens(LONG if part == "windows" else 24)
    expected = by_loops(model, tokens)
    torch.testing.assert_close(model.hidden(tokens[None])[0], expected, rtol=1e-10, atol=1e-10)
    plain = awake(SMALL).hidden(tokens[None])[0]
    assert torch.allclose(plain, expected, atol=1e-3) == (part == "late 2025")


@torch.no_grad()
@pytest.mark.parametrize(
    "pieces",
    [None, [1] * LONG, [129, 1, 1, 9], [50, 7, 83]],
    ids=["whole", "by token", "long first", "chunks"],
)
def test_every_part_together_is_the_model_of_loops(everything, pieces):
    model, tokens, expected = everything
    if pieces is None:
        actual = model.hidden(tokens[None])
    else:
        cache = KVCache(model.config, batch_size=1, max_len=LONG, dtype=torch.float64)
        actual = torch.cat([model.hidden(part, cache) for part in tokens[None].split(pieces, dim=1)], dim=1)
    torch.testing.assert_close(actual[0], expected, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_logits_in_single_precision_are_those_of_loops():
    exact = awake(replace(SMALL, **ALL))
    model = GPT(exact.config).eval()
    model.load_state_dict({name: weight.float() for name, weight in exact.state_dict().items()})
    tokens = some_tokens(LONG)
    expected = logits_by_loops(model.config, model.state_dict(), tokens.tolist())
    assert (model(tokens[None])[0] - torch.tensor(expected)).abs().max() < 1e-5 * 15


@torch.no_grad()
def test_rows_of_different_lengths_go_on_as_each_alone():
    """As the engine prefills: padded to the right, read at once, then cut to their own lengths."""
    model = awake(replace(SMALL, **ALL))
    lengths, rows = [131, 3, 60, 1], [some_tokens(136, seed=seed) for seed in range(4)]
    padded = nn.utils.rnn.pad_sequence(
        [row[:length] for row, length in zip(rows, lengths, strict=True)], batch_first=True
    )
    cache = KVCache(model.config, batch_size=4, max_len=140, dtype=torch.float64)
    prefill = model.hidden(padded, cache)
    cache.lengths[:] = torch.tensor(lengths)
    order = torch.tensor([2, 0, 3, 1])  # rows are selected between prefill and generation, too
    cache, later = cache.select(order), []
    for ahead in range(5):
        ids = torch.stack([rows[row][lengths[row] + ahead] for row in order])[:, None]
        later.append(model.hidden(ids, cache))
    for place, row in enumerate(order.tolist()):
        alone = by_loops(model, rows[row][: lengths[row] + 5])
        torch.testing.assert_close(prefill[row, : lengths[row]], alone[:-5], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(torch.cat(later, 1)[place], alone[-5:], rtol=1e-10, atol=1e-10)


def test_a_window_ends_a_quarter_of_the_context_back():
    config = replace(SMALL, window_pattern="S", n_layer=2)
    model, tokens = awake(config), some_tokens(1, LONG)
    changed = tokens.clone()
    changed[0, 0] = (tokens[0, 0] + 1) % SMALL.vocab_size
    stream = [model.embed(ids, None, None) for ids in (tokens, changed)]
    after = [model.blocks[0](x, None, model.cos[:LONG], model.sin[:LONG], None, None) for x in stream]
    differs = (after[0] - after[1]).abs().amax(dim=(0, 2)) > 1e-12
    assert differs.tolist() == [True] * 129 + [False] * (LONG - 129)  # 128 back and the token itself
    assert [config.window(layer) for layer in range(2)] == [128, 160]
    assert [replace(config, sequence_len=2048).window(layer) for layer in range(2)] == [512, 2048]
    assert replace(config, sequence_len=2052).window(0) == 640
    assert replace(config, short_window=2).window(0) == 2
    assert replace(config, short_window=1_000).window(0) == 160


# ---- losses and gradients


def plain_loss(model: GPT, idx, targets):
    logits = 15 * torch.tanh(F.linear(model.hidden(idx), model.lm_head.weight) / 15)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)


@pytest.mark.parametrize("part", [*PARTS, "all"])
def test_fused_loss_and_gradients_are_those_of_plain_cross_entropy_in_float64(part):
    exact = awake(replace(SMALL, **PARTS.get(part, ALL)))
    model = GPT(exact.config)
    model.load_state_dict({name: weight.float() for name, weight in exact.state_dict().items()})
    idx, targets = some_tokens(2, LONG), some_tokens(2, LONG, seed=2)
    targets[:, ::3] = -1
    expected, actual = plain_loss(exact, idx, targets), model(idx, targets)
    assert actual.item() == pytest.approx(expected.item(), rel=1e-5)
    expected.backward()
    actual.backward()
    for (name, weight), true in zip(model.named_parameters(), exact.parameters(), strict=True):
        error = (weight.grad - true.grad).norm() / true.grad.norm()
        assert error < 1e-4, f"{name}: {error:.1e}"


def test_every_gradient_is_the_slope_of_the_model_of_loops():
    model = awake(replace(SMALL, **ALL))
    idx, targets = some_tokens(7), some_tokens(7, seed=2)
    plain_loss(model, idx[None], targets[None]).backward()

    def loss(weights) -> float:
        rows = logits_by_loops(model.config, weights, idx.tolist())
        right = [row[target] for row, target in zip(rows, targets.tolist(), strict=True)]
        return sum(math.log(sum(map(math.exp, row))) for row in rows) / 7 - sum(right) / 7

    for name, weight in model.named_parameters():
        place, step = int(weight.grad.abs().argmax()), 1e-4
        sides = []
        for move in (step, -step):
            moved = {other: value.clone() for other, value in model.state_dict().items()}
            moved[name].view(-1)[place] += move
            sides.append(loss(moved))
        slope = (sides[0] - sides[1]) / (2 * step)
        assert weight.grad.view(-1)[place].item() == pytest.approx(slope, rel=1e-5), name


def test_under_autocast_gradients_of_every_part_stay_those_of_float64():
    exact = awake(replace(SMALL, **ALL))
    model = GPT(exact.config)
    model.load_state_dict({name: weight.float() for name, weight in exact.state_dict().items()})
    idx, targets = some_tokens(2, LONG), some_tokens(2, LONG, seed=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.hidden(idx).dtype == torch.float32
        loss = model(idx, targets)
    true_loss = plain_loss(exact, idx, targets)
    assert loss.item() == pytest.approx(true_loss.item(), rel=1e-2)
    loss.backward()
    true_loss.backward()
    for (name, weight), true in zip(model.named_parameters(), exact.parameters(), strict=True):
        # The scalars' gradients are small sums of large terms of both signs.
        error = (weight.grad - true.grad).norm() / true.grad.norm()
        assert weight.grad.dtype == torch.float32
        assert error < (0.3 if "lambda" in name else 0.1), f"{name}: {error:.3f}"


# ---- against late 2025


def without_effect(model: GPT) -> None:
    """Weights of the parts with which they leave everything as it was."""
    neutral = {"resid_lambdas": 1.0, "x0_lambdas": 0.0, "smear_lambda": 0.0, "backout_lambda": 0.0}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in neutral or name.startswith("value_embeds"):
                weight.fill_(neutral.get(name, 0.0))


@pytest.mark.parametrize("part", [*PARTS, "all"])
def test_a_part_without_effect_changes_not_one_bit(part):
    given = {"qk_gain": 1.0, "rotary_base": 10_000.0, "short_window": LONG}
    parts = {
        **PARTS.get(part, ALL),
        **(given if part in ("gain", "rotary base", "short windows", "all") else {}),
    }
    plain, model = GPT(SMALL), GPT(replace(SMALL, **parts))
    plain.load_state_dict({n: w.float() for n, w in awake(SMALL).state_dict().items()})
    model.load_state_dict(plain.state_dict(), strict=False)
    without_effect(model)
    idx, targets = some_tokens(2, 100), some_tokens(2, 100, seed=2)  # shorter than the short window
    assert torch.equal(plain(idx), model(idx))
    caches = [KVCache(m.config, 2, 100) for m in (plain, model)]
    for ids in idx.split([90, 1, 1, 8], dim=1):
        assert torch.equal(plain(ids, kv_cache=caches[0]), model(ids, kv_cache=caches[1]))
    losses = [m(idx, targets) for m in (plain, model)]
    assert torch.equal(*losses)
    for loss in losses:
        loss.backward()
    for name, weight in plain.named_parameters():
        assert torch.equal(weight.grad, model.get_parameter(name).grad), name


def test_as_it_stands_a_model_draws_the_random_numbers_of_late_2025():
    torch.manual_seed(5)
    model, after = GPT(SMALL), torch.rand(3)
    torch.manual_seed(5)
    width, kv, vocab = SMALL.n_embd, SMALL.n_kv_head * SMALL.head_dim, SMALL.vocab_size
    expected = {"transformer.wte.weight": nn.Embedding(vocab, width).weight}
    for layer in range(SMALL.n_layer):
        shapes = {"attn.c_q": (width, width), "attn.c_k": (width, kv), "attn.c_v": (width, kv)}
        shapes |= {"attn.c_proj": (width, width), "mlp.c_fc": (width, 4 * width)}
        for name, shape in {**shapes, "mlp.c_proj": (4 * width, width)}.items():
            expected[f"transformer.h.{layer}.{name}.weight"] = nn.Linear(*shape, bias=False).weight
    expected["lm_head.weight"] = nn.Linear(width, vocab, bias=False).weight
    for name, weight in expected.items():
        rows, columns = weight.shape
        if name == "transformer.wte.weight":
            nn.init.normal_(weight)
        elif "c_proj" in name or name == "lm_head.weight":
            nn.init.zeros_(weight)
        else:
            nn.init.normal_(weight, std=columns**-0.5 * min(1.0, (rows / columns) ** 0.5))
    assert list(model.state_dict()) == list(expected)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, expected[name]), name
    assert torch.equal(after, torch.rand(3))


# ---- how the parts begin


def test_new_parts_begin_as_nanochats_do():
    model = GPT(replace(SMALL, **ALL))
    assert model.resid_lambdas.tolist() == pytest.approx([1.15, 1.15 - 0.1 / 3, 1.15 - 0.2 / 3, 1.05])
    assert model.x0_lambdas.tolist() == pytest.approx([0.2, 0.15, 0.1, 0.05])
    assert model.smear_lambda.item() == 0 and model.backout_lambda.item() == pytest.approx(0.2)
    gates = [w for n, w in model.named_parameters() if "gate" in n]
    assert len(gates) == 3 and all(w.min() >= 0 and w.max() <= 0.02 for w in gates)
    for table in model.value_embeds.values():
        assert table.weight.shape == (40, 16) and table.weight.std().item() == pytest.approx(
            32**-0.5, rel=0.1
        )
    idx, targets = some_tokens(2, 20), some_tokens(2, 20, seed=2)
    assert model(idx, targets).item() == pytest.approx(math.log(40), abs=1e-5)


def test_new_names_are_nanochats():
    ours = set(GPT(replace(SMALL, **ALL)).state_dict()) - set(GPT(SMALL).state_dict())
    assert ours == {
        "resid_lambdas", "x0_lambdas", "smear_gate.weight", "smear_lambda", "backout_lambda",
        "value_embeds.1.weight", "value_embeds.3.weight", "transformer.h.1.attn.ve_gate.weight",
        "transformer.h.3.attn.ve_gate.weight",
    }  # fmt: skip


@pytest.mark.parametrize(("layers", "own"), [(1, [0]), (2, [1]), (3, [0, 2]), (6, [1, 3, 5])])
def test_every_other_layer_has_value_embeddings_and_the_last_always(layers, own):
    model = GPT(replace(SMALL, n_layer=layers, value_embeddings=True))
    assert [int(name) for name in model.value_embeds] == own


def test_a_model_of_one_layer_can_have_every_part():
    model, tokens = awake(replace(SMALL, **ALL, n_layer=1)), some_tokens(10)
    torch.testing.assert_close(model.hidden(tokens[None])[0], by_loops(model, tokens), rtol=1e-10, atol=1e-10)


def test_a_short_window_costs_less_attention():
    full, short = (GPT(replace(SMALL, sequence_len=1024, window_pattern=p)) for p in ("L", "SSSL"))
    assert full.flops_per_token() - short.flops_per_token() == 12 * 32 * 3 * (1024 - 256)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"smear": 1}, "smear is a int, and has to be True or False"),
        ({"value_embeddings": "yes"}, "value_embeddings is a str"),
        ({"n_layer": True}, "n_layer is a bool, and has to be a whole number"),
        ({"n_layer": 2.0}, "n_layer is a float"),
        ({"n_layer": 0}, "n_layer has to be above 0"),
        ({"n_head": -4}, "n_head has to be above 0 and at most 2^31, and is -4"),
        ({"qk_gain": True}, "qk_gain is a bool, and has to be a number"),
        ({"qk_gain": "1.2"}, "qk_gain is a str"),
        ({"qk_gain": float("nan")}, "qk_gain has to be above 0 and at most 2^31, and is nan"),
        ({"qk_gain": 0.0}, "qk_gain has to be above 0 and at most 2^31, and is 0.0"),
        ({"rotary_base": -1.0}, "rotary_base has to be above 0 and at most 2^31, and is -1.0"),
        ({"rotary_base": float("inf")}, "rotary_base has to be above 0 and at most 2^31, and is more"),
        ({"rotary_base": 10**400}, "rotary_base has to be above 0 and at most 2^31, and is more"),
        ({"window_pattern": None}, "window_pattern is a NoneType, and has to be a text"),
        ({"window_pattern": ""}, "window_pattern='' has to be of the letters L and S"),
        ({"window_pattern": "SSM"}, "window_pattern='SSM'"),
        ({"window_pattern": "X" * 10**6}, "window_pattern='XXX"),
        ({"window_pattern": "S" * 129}, "1 to 128 of them"),
        ({"smear": True, "n_embd": 16}, "smear reads 24 channels"),
        ({"value_embeddings": True, "n_embd": 8}, "value_embeddings reads 12 channels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_setting_that_cannot_work_is_refused_in_one_short_line(setting, says):
    with pytest.raises(ConfigError) as caught:
        replace(SMALL, **setting)
    assert says in str(caught.value) and len(str(caught.value)) < 300
