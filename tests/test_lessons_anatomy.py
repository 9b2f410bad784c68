"""What notebook 02 shows of the model is true of the model."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from nanolab.errors import ConfigError
from nanolab.lessons import anatomy
from nanolab.model import GPT, GPTConfig, norm
from nanolab.optim import LearningRates
from nanolab.tokenizer import Tokenizer

CONFIG = GPTConfig(sequence_len=32, vocab_size=50, n_layer=2, n_head=4, n_kv_head=4, n_embd=32)


def stirred(model: GPT) -> GPT:
    """A fresh model answers zero everywhere: give every weight something to do."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
    return model


@pytest.fixture
def model():
    torch.manual_seed(0)
    return stirred(GPT(CONFIG)).eval()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(50, (3, 17), generator=generator)
    return ids[:, :-1], ids[:, 1:]


def test_the_trace_goes_from_ids_to_logits_and_leaves_no_hooks(model):
    stops = anatomy.trace(model, torch.arange(10)[None])
    assert stops[0].shape == (1, 10) and stops[-1].shape == (1, 10, 50)
    assert {stop.name: stop.shape for stop in stops}["MLP, widened"] == (1, 10, 128)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_trace_can_be_drawn(model):
    figure = anatomy.draw_trace(anatomy.trace(model, torch.arange(10)[None]))
    assert figure.axes[0].get_xlabel()


MODERN = replace(CONFIG, value_embeddings=True, residual_scalars=True, qk_gain=1.2)


def test_the_trace_shows_a_value_embedding_where_the_model_has_one():
    stops = anatomy.trace(GPT(replace(MODERN, n_layer=3, n_kv_head=2)), torch.arange(10)[None])
    shapes = {stop.name: stop.shape for stop in stops}
    assert shapes["value embedding 0"] == shapes["value embedding 2"] == (1, 10, 16)
    assert "value embedding 1" not in shapes
    assert not any(
        "value embedding" in stop.name for stop in anatomy.trace(GPT(CONFIG), torch.ones(1, 3).long())
    )


def test_values_are_the_usual_ones_plus_a_gated_share_of_the_tokens_own():
    model, ids = stirred(GPT(MODERN)).eval(), torch.arange(9)
    inside = anatomy.look_inside(model, ids)
    x = norm(inside.reads[1])
    usual, own = model.blocks[1].attn.c_v(x), model.value_embeds["1"](ids)
    share = anatomy.gates(model, inside, 1).T.unsqueeze(-1)
    assert torch.allclose(inside.values[1], usual.view(9, 4, 8) + share * own.view(9, 4, 8), atol=1e-5)
    assert share.min() > 0 and share.max() < 3
    assert torch.allclose(inside.values[0], model.blocks[0].attn.c_v(norm(inside.reads[0])).view(9, 4, 8))


def test_each_block_reads_a_mix_of_the_stream_and_the_first_embedding():
    model, ids = stirred(GPT(MODERN)).eval(), torch.arange(9)
    inside = anatomy.look_inside(model, ids)
    for block, before in enumerate((inside.first, inside.leaves[0])):
        mix = model.resid_lambdas[block] * before + model.x0_lambdas[block] * inside.first
        assert torch.allclose(mix, inside.reads[block], atol=1e-5)


def test_a_block_without_a_value_embedding_has_no_gate():
    model = GPT(MODERN)
    with pytest.raises(ConfigError, match="block 0 has no value embedding"):
        anatomy.gates(model, anatomy.look_inside(model, torch.arange(5)), 0)


def test_attention_rows_sum_to_one_and_never_look_ahead(model):
    maps = anatomy.attention_maps(model, torch.arange(12))
    assert maps.shape == (2, 4, 12, 12)
    assert torch.allclose(maps.sum(-1), torch.ones(2, 4, 12))
    assert maps.triu(1).eq(0).all()


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("pattern", ["L", "SL"])
def test_attention_maps_are_those_the_model_uses(kv_heads, pattern):
    config = replace(CONFIG, n_layer=2, n_kv_head=kv_heads, window_pattern=pattern, short_window=2)
    model, ids = stirred(GPT(config)).eval(), torch.arange(9)
    caught = {}
    attn = model.blocks[0].attn
    attn.c_v.register_forward_hook(lambda module, inputs, output: caught.update(v=output))
    attn.c_proj.register_forward_hook(lambda module, inputs, output: caught.update(mixed=inputs[0]))
    maps = anatomy.attention_maps(model, ids)[0]
    values = caught["v"].view(9, kv_heads, 8).transpose(0, 1).repeat_interleave(4 // kv_heads, dim=0)
    mixed = (maps @ values).transpose(0, 1).reshape(1, 9, 32)
    assert torch.allclose(mixed, caught["mixed"], atol=1e-5)


def test_the_busiest_head_is_the_one_that_looks_back():
    maps = torch.zeros(2, 2, 6, 6)
    maps[..., 0] = 1.0
    maps[1, 0] = torch.eye(6).roll(-1, dims=1)
    maps[1, 0, 0] = torch.eye(6)[0]
    assert anatomy.busiest_head(maps) == (1, 0)


def test_rotary_scores_depend_on_the_distance_alone(model):
    query, key = torch.randn(2, 16)
    near, again = anatomy.rotary_scores(query, key, 3, [5, 900])
    assert near == pytest.approx(again, abs=1e-4)
    assert abs(near - anatomy.rotary_scores(query, key, 1, [5])[0]) > 1e-3


def test_rotary_scores_refuse_a_key_before_the_text(model):
    with pytest.raises(ConfigError, match="before position 2"):
        anatomy.rotary_scores(torch.ones(4), torch.ones(4), 3, [2])


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_the_budget_adds_up_to_the_model(kv_heads):
    config = replace(CONFIG, n_kv_head=kv_heads, window_pattern="SL", short_window=2)
    parts, model = anatomy.budget(config).values(), GPT(config)
    assert sum(parameters for parameters, _ in parts) == model.num_parameters()
    assert sum(flops for _, flops in parts) == model.flops_per_token()


def test_shares_are_percentages():
    for column in (0, 1):
        assert sum(anatomy.shares(CONFIG, column).values()) == pytest.approx(100)


def test_leaving_out_nothing_is_the_model_itself(model, batch):
    same = anatomy.Without(CONFIG)
    same.load_state_dict(model.state_dict())
    assert torch.allclose(same(*batch), model(*batch), atol=1e-5)


@pytest.mark.parametrize("part", ["", *anatomy.ADDED])
def test_what_a_model_of_2026_has_besides_is_in_the_page_too(part, batch):
    config = replace(MODERN, smear=True, backout=True, window_pattern="S", short_window=2)
    model = stirred(GPT(replace(config, **anatomy.ADDED.get(part, {}))))
    same = anatomy.Without(config, part)
    same.load_state_dict(model.state_dict())
    assert torch.allclose(same(*batch), model(*batch), atol=1e-5)


@pytest.mark.parametrize("part", anatomy.PARTS)
def test_leaving_out_a_part_changes_the_loss(part, model, batch):
    other = anatomy.Without(CONFIG, part)
    other.load_state_dict(model.state_dict())
    assert abs(other(*batch).item() - model(*batch).item()) > 1e-4


def test_without_the_soft_cap_logits_pass_15(model, batch):
    other = anatomy.Without(CONFIG, "soft cap")
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        other.lm_head.weight.mul_(100)
    assert model(batch[0]).abs().max() <= 15 < other(*batch).item()


def test_masked_targets_do_not_count_without_the_soft_cap(batch):
    other, (inputs, targets) = stirred(anatomy.Without(CONFIG, "soft cap")), batch
    targets = targets.clone()
    targets[1:] = -1
    assert other(inputs, targets).item() == pytest.approx(other(inputs[:1], targets[:1]).item(), rel=1e-5)


def test_every_part_is_left_out_once_from_the_same_start():
    text = "the cat sat there and then the other cat sat too " * 40
    tokenizer = Tokenizer.train([text], 280)
    config = replace(CONFIG, vocab_size=280)
    rows = list(anatomy.leave_out(config, [text], tokenizer, 3, LearningRates()))
    names = list(dict.fromkeys(name for name, _, _ in rows))
    assert names == ["complete", *(f"without {part}" for part in anatomy.PARTS)]
    first = [loss for _, step, loss in rows if step == 0]
    assert first == pytest.approx([math.log(280)] * 5, abs=1e-4)
    assert all(rows[3 * i + 2][2] < rows[3 * i][2] for i in range(5))


def test_the_part_missed_most_is_the_one_whose_curve_ends_highest():
    curves = {
        name: [(0, 9.0), (1, end), (2, end)] for name, end in (("complete", 3.0), ("a", 3.5), ("b", 2.0))
    }
    assert anatomy.missed({**curves, "c": [(0, 1.0), (1, 5.0), (2, 5.0)]}, last=2) == {
        "c": 2.0,
        "a": 0.5,
        "b": -1.0,
    }


def test_an_unknown_part_is_refused():
    with pytest.raises(ConfigError, match="no part 'dropout'"):
        anatomy.Without(CONFIG, "dropout")


def test_the_cache_changes_no_logit(model):
    assert anatomy.cache_difference(model, torch.arange(20)) < 1e-4


def test_timing_a_token_leaves_the_cache_where_it_was(model):
    assert anatomy.seconds_per_token(model, 31, cached=True) > 0
    assert anatomy.seconds_per_token(model, 31, cached=False) > 0
