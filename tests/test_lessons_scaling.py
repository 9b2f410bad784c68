"""Sizes, budgets, the line through them, and the step that many machines share."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from nanolab.data import ConversationBatches
from nanolab.errors import ConfigError
from nanolab.lessons import costs, scaling
from nanolab.model import GPT, GPTConfig
from nanolab.profiles import PROFILES, get_profile, override
from nanolab.stages import model_config
from nanolab.tasks import TinyTalk
from nanolab.tokenizer import Tokenizer

WORLD = {"train": ["The cow eats grass. The cow is an animal."] * 40, "val": ["The cow eats grass."] * 20}


@pytest.fixture(scope="module")
def tokenizer():
    texts = [message["content"] for talk in TinyTalk(size=300) for message in talk["messages"][::2]]
    return Tokenizer.train(texts, 320)


def result(width: int, flops: float, bits: float) -> scaling.SizeResult:
    return scaling.SizeResult(width, 1000 * width, 1000, flops, 1.0, bits, 1.0)


# ---- sizes


@pytest.mark.parametrize("name", PROFILES)
def test_the_width_of_a_profile_gives_the_profile_s_own_model_at_64_channels_a_layer(name):
    profile = get_profile(name)
    own = replace(model_config(profile), n_layer=profile.n_embd // 64)
    assert scaling.config_of(profile, profile.n_embd) == own
    assert (own == model_config(profile)) == (name != "laptop"), "of which only laptop has more layers"


def test_counting_without_building_agrees_with_the_model():
    for depth in (1, 2, 4):
        profile = override(
            get_profile("laptop"), value_embeddings=False, residual_scalars=False, window_pattern="L"
        )
        model = GPT(scaling.config_of(profile, 64 * depth))
        assert costs.model_size(depth, profile.vocab_size)[0] == model.num_parameters()
        flops = costs.training_flops(depth, profile.vocab_size, 10, profile.sequence_len)
        assert flops == 10 * model.flops_per_token()


def test_a_budget_buys_a_small_model_more_steps():
    profile = get_profile("smoke")
    steps = [scaling.budget_steps(profile, width, 1e11) for width in scaling.WIDTHS]
    assert steps == sorted(steps, reverse=True) and steps[0] > 10 * max(1, steps[-1])


# ---- training one


def test_training_a_size_costs_what_was_asked_and_learns(tokenizer):
    profile = get_profile("smoke")
    short, long = (scaling.train_size(profile, tokenizer, 16, steps=n, texts=WORLD) for n in (1, 12))
    assert long.tokens == 12 * profile.base.total_batch_size
    assert long.flops == 12 * short.flops and long.bits_per_byte < short.bits_per_byte


def test_the_same_training_twice_gives_the_same_number(tokenizer):
    profile = get_profile("smoke")
    a, b = (scaling.train_size(profile, tokenizer, 16, steps=3, texts=WORLD) for _ in range(2))
    assert a.nats == b.nats


def test_a_length_must_be_given_and_only_once(tokenizer):
    profile = get_profile("smoke")
    for length in ({}, {"steps": 1, "flops": 1e9}):
        with pytest.raises(ConfigError, match="not both"):
            scaling.train_size(profile, tokenizer, 16, texts=WORLD, **length)
    with pytest.raises(ConfigError, match="pay"):
        scaling.train_size(profile, tokenizer, 256, flops=1.0, texts=WORLD)


def test_measuring_leaves_out_what_makes_no_sense(tokenizer, monkeypatch):
    profile, asked = get_profile("smoke"), []

    def pretend(profile, tokenizer, width, *, steps):
        asked.append((width, steps))
        return result(width, 1.0, 1.0)

    monkeypatch.setattr(scaling, "train_size", pretend)
    scaling.measure(profile, tokenizer, (16, 256), (1e10,), longest=40_000)
    assert asked == []
    scaling.measure(profile, tokenizer, (16, 256), (1e10,), longest=100_000)
    assert asked == [(16, scaling.budget_steps(profile, 16, 1e10))]


# ---- the law


def test_a_law_is_found_again_from_its_own_points():
    law = scaling.Law(80.0, 0.15)
    found = scaling.fit_law([(flops, law.at(flops)) for flops in (1e10, 1e11, 1e13)])
    assert found.scale == pytest.approx(80.0) and found.exponent == pytest.approx(0.15)
    assert found.at(found.flops_for(0.7)) == pytest.approx(0.7)


@pytest.mark.parametrize("points", [[], [(1e9, 2.0)], [(1e9, 2.0), (1e9, 3.0)], [(1e9, 2.0), (1e10, 0.0)]])
def test_a_line_needs_two_places_and_logarithms(points):
    with pytest.raises(ConfigError, match="two points"):
        scaling.fit_law(points)


def test_groups_are_by_compute_and_the_best_is_the_lowest():
    results = [
        result(64, 1.02e10, 2.0),
        result(16, 1e10, 2.5),
        result(32, 4.1e10, 1.5),
        result(16, 4e10, 1.7),
    ]
    groups = scaling.by_budget(results)
    assert [[one.width for one in group] for group in groups] == [[16, 64], [16, 32]]
    assert [one.width for one in scaling.best_of_each(results)] == [64, 32]


# ---- the saved tables


@pytest.mark.parametrize("profile", ["smoke", "laptop"])
def test_a_saved_table_shows_a_budget_with_a_best_size_in_the_middle(profile):
    results, about = scaling.saved_table(profile)
    best = scaling.best_of_each(results)
    assert about["command"].endswith(about["profile"]) and len(best) >= 3
    assert [one.bits_per_byte for one in best] == sorted((one.bits_per_byte for one in best), reverse=True)
    last = scaling.by_budget(results)[-1]
    assert last[0].bits_per_byte > best[-1].bits_per_byte < last[-1].bits_per_byte


def test_a_new_table_replaces_its_own_profile_s_and_keeps_the_others():
    before = json.loads(scaling.with_table(get_profile("smoke"), scaling.saved_table("smoke")[0]))
    after = json.loads(scaling.with_table(get_profile("laptop"), [result(16, 1e10, 2.0)]))
    assert after["smoke"]["results"] == before["smoke"]["results"]
    assert after["laptop"]["results"][0]["width"] == 16


# ---- costs


def test_twice_the_speed_is_half_the_hours_and_half_the_price():
    slow, fast = (costs.cost_row(20, 20, speed, 24.0) for speed in (3e15, 6e15))
    assert float(slow["hours"]) == pytest.approx(2 * float(fast["hours"]), rel=0.05)
    assert int(slow["dollars"]) == pytest.approx(2 * int(fast["dollars"]), rel=0.05)


def test_every_profile_and_budget_has_its_row():
    rows = costs.profile_rows(tuple(PROFILES))
    assert [row["profile"] for row in rows] == list(PROFILES)
    assert rows[0]["parameters"] == f"{GPT(model_config(get_profile(rows[0]['profile']))).num_parameters():,}"
    results, _ = scaling.saved_table("smoke")
    groups = scaling.by_budget(results)
    assert len(costs.budget_rows(groups)) == len(costs.curves(groups))
    best = scaling.best_of_each(results)
    assert len(costs.best_rows(best)) == len(groups)


# ---- many machines


def uneven(tokenizer):
    """A batch of conversations, cut where one part has far more supervised tokens than the other."""
    inputs, targets = next(ConversationBatches(TinyTalk(size=60), tokenizer, 4, 96))
    targets = targets.clone()
    targets[:1, 8:] = -1
    parts = [(inputs[:1], targets[:1]), (inputs[1:], targets[1:])]
    return (inputs, targets), parts, [int((part >= 0).sum()) for _, part in parts]


def test_parts_divided_by_the_tokens_of_all_add_up_to_the_whole_gradient(tokenizer):
    torch.manual_seed(0)
    model = GPT(GPTConfig(96, tokenizer.get_vocab_size(), 1, 1, 1, 16))
    torch.nn.init.normal_(model.lm_head.weight, std=0.1)
    batch, parts, counts = uneven(tokenizer)
    whole = scaling.gradient_of(model, [batch], sum(counts))
    shares = [scaling.gradient_of(model, [part], sum(counts)) for part in parts]
    added = {name: shares[0][name] + shares[1][name] for name in whole}
    assert scaling.largest_gap(added, whole) < 1e-4

    means = [scaling.gradient_of(model, [part], n) for part, n in zip(parts, counts, strict=True)]
    averaged = {name: (means[0][name] + means[1][name]) / 2 for name in whole}
    assert scaling.largest_gap(averaged, whole) > 1e-2
    assert all(p.grad is None for p in model.parameters())
