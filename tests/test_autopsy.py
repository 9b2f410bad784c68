"""The token autopsy's arithmetic: by hand, against the loss, and what needs no forward pass."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanolab.autopsy import Autopsy, examine, rank_of, read
from nanolab.errors import ConfigError, DataError, NanolabError
from nanolab.evals import text_loss
from nanolab.model import GPT, GPTConfig
from nanolab.tokenizer import Tokenizer

TEXT = "the cat sat on the mat. 3+4=7, the cat said."


class Counting(GPT):
    """A model that counts how often it is asked to read."""

    reads = 0

    def forward(self, *args, **keywords):
        self.reads += 1
        return super().forward(*args, **keywords)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([TEXT] * 4, vocab_size=280)


@pytest.fixture(scope="module")
def model(tokenizer) -> Counting:
    """A small model with a random head (a fresh one is zero, and every token equally likely)."""
    torch.manual_seed(0)
    config = GPTConfig(64, tokenizer.get_vocab_size() + 3, n_layer=2, n_head=2, n_kv_head=1, n_embd=64)
    model = Counting(config)
    for name, weight in model.named_parameters():
        if name.endswith("c_proj.weight") or name == "lm_head.weight":
            torch.nn.init.normal_(weight, std=0.3)
    return model


@pytest.fixture(scope="module")
def autopsy(model, tokenizer) -> Autopsy:
    return examine(model, tokenizer, read(tokenizer, TEXT)[0])


def by_hand(tokenizer: Tokenizer, chances: list[float]) -> Autopsy:
    """Two tokens; the second, "A" (id 65), was predicted with these chances for the ids from 64 on."""
    logits = torch.full((2, 300), -math.inf)
    logits[:, 64 : 64 + len(chances)] = torch.tensor(chances).log()
    return Autopsy(None, tokenizer, (64, 65), None, logits)  # type: ignore[arg-type]


def test_half_quarter_quarter_by_hand(tokenizer):
    token = by_hand(tokenizer, [0.5, 0.25, 0.25]).at(1)
    assert token.text == "A"
    assert token.probability == pytest.approx(0.25)
    assert token.bits == pytest.approx(2)
    assert token.rank == 2
    assert token.entropy == pytest.approx(0.5 * 1 + 0.25 * 2 + 0.25 * 2)
    assert [(one.text, one.rank, one.true) for one in token.top[:3]] == [
        ("@", 1, False), ("A", 2, True), ("B", 3, False),
    ]  # fmt: skip


def test_temperature_two_takes_square_roots(tokenizer):
    token = by_hand(tokenizer, [0.64, 0.36]).at(1, temperature=2)
    assert token.probability == pytest.approx(0.6 / (0.8 + 0.6))


def test_an_impossible_token_is_infinitely_surprising(tokenizer):
    token = by_hand(tokenizer, [1.0, 0.0]).at(1)
    assert token.probability == 0 and token.bits == math.inf and token.entropy == 0


def test_bits_are_the_loss_of_training(autopsy, model, tokenizer):
    ids = torch.tensor([autopsy.ids])
    sizes = tokenizer.token_bytes() + [0] * 3
    loss = text_loss(model, [(ids[:, :-1], ids[:, 1:])], sizes)
    assert autopsy.mean_bits * math.log(2) == pytest.approx(loss.nats, rel=1e-4)


def test_a_fresh_model_is_surprised_by_log2_of_the_vocabulary(tokenizer):
    model = GPT(GPTConfig(64, 512, n_layer=1, n_head=1, n_kv_head=1, n_embd=16))
    for token in examine(model, tokenizer, [65, 66, 67]).tokens[1:]:
        assert token.bits == pytest.approx(9) and token.entropy == pytest.approx(9)
        assert token.rank == token.id + 1  # of equals, the lower id comes first


def test_a_prediction_does_not_know_its_token(autopsy):
    """What was expected at a place is the same whatever stands there and behind."""
    other = autopsy.substitute(5, autopsy.at(5).top[0].id)
    assert [(c.id, pytest.approx(c.probability, rel=1e-3)) for c in other.at(5).top] == [
        (c.id, c.probability) for c in autopsy.at(5, k=10).top[: len(other.at(5).top)]
    ]
    assert other.at(5).entropy == pytest.approx(autopsy.at(5).entropy, rel=1e-4)
    assert other.at(6).entropy != pytest.approx(autopsy.at(6).entropy, rel=1e-4)


def test_the_first_token_has_no_prediction(autopsy):
    first = autopsy.at(0)
    assert first.text == "<|bos|>" and first.special and not first.predicted
    assert math.isnan(first.bits) and first.rank == 0 and first.top == ()


def test_behind_the_text_stands_what_would_come_next(autopsy, model):
    behind = autopsy.at(len(autopsy.ids), k=3)
    assert behind.id is None and behind.predicted and math.isnan(behind.bits)
    with torch.no_grad():
        likeliest = model(torch.tensor([autopsy.ids]))[0, -1].topk(3).indices.tolist()
    assert [one.id for one in behind.top] == likeliest


@given(st.data())
def test_numbers_agree_with_each_other(autopsy, data):
    position = data.draw(st.integers(1, len(autopsy.ids) - 1))
    temperature = data.draw(st.floats(0.1, 3))
    k = data.draw(st.integers(1, 12))
    token = autopsy.at(position, temperature, k)
    assert token.bits == pytest.approx(-math.log2(token.probability))
    assert 0 <= token.entropy <= math.log2(autopsy.logits.size(1)) + 1e-6
    chances = [one.probability for one in token.top]
    assert chances == sorted(chances, reverse=True) and sum(chances) <= 1 + 1e-6
    true = [one for one in token.top if one.true]
    assert len(true) == 1 and true[0].id == token.id and true[0].rank == token.rank
    assert len(token.top) == (k if token.rank <= k else k + 1)
    assert [one.rank for one in token.top[:k]] == list(range(1, k + 1))


def test_temperature_moves_no_rank(autopsy):
    for position in range(1, len(autopsy.ids)):
        assert {autopsy.at(position, t).rank for t in (0.3, 1.0, 2.0)} == {autopsy.at(position).rank}


def test_sliders_need_no_forward_pass(autopsy, model):
    before = model.reads
    for temperature in (0.2, 1.0, 1.7):
        autopsy.at(7, temperature, k=20)
    assert model.reads == before
    autopsy.substitute(7, 65)
    assert model.reads == before + 1


def test_substitution_changes_one_token_and_keeps_the_original(autopsy):
    before = autopsy.ids
    other = autopsy.substitute(4, 65)
    assert other.ids == (*before[:4], 65, *before[5:]) and autopsy.ids == before
    assert [one.bits for one in other.tokens[1:4]] == pytest.approx(
        [t.bits for t in autopsy.tokens[1:4]], rel=1e-3
    )
    assert other.substitute(4, before[4]).tokens[5].bits == pytest.approx(autopsy.tokens[5].bits, rel=1e-3)


def test_substituting_behind_the_end_appends(autopsy):
    longer = autopsy.substitute(len(autopsy.ids), 65)
    assert longer.ids == (*autopsy.ids, 65) and longer.at(len(autopsy.ids)).text == "A"


def test_rank_counts_equals_by_id():
    chances = torch.tensor([0.2, 0.3, 0.2, 0.3])
    assert [rank_of(chances, id) for id in range(4)] == [3, 1, 4, 2]


def test_bytes_of_a_character_and_ids_without_a_token_have_a_text(model, tokenizer):
    autopsy = examine(model, tokenizer, [*read(tokenizer, "é日")[0], model.config.vocab_size - 1])
    assert [token.text for token in autopsy.tokens[1:]] == [
        "<c3>", "<a9>", "<e6>", "<97>", "<a5>", f"<unused {model.config.vocab_size - 1}>",
    ]  # fmt: skip
    assert not autopsy.at(1).special and autopsy.at(6).special


def test_a_conversation_brings_its_mask(model, tokenizer):
    messages = [{"role": "user", "content": "cat"}, {"role": "assistant", "content": "mat"}]
    autopsy = examine(model, tokenizer, *read(tokenizer, {"messages": messages}))
    learned = [token.text for token in autopsy.tokens if token.learned]
    assert "".join(learned) == "mat<|assistant_end|>"
    assert [token.text for token in autopsy.tokens if token.special] == [
        "<|bos|>", "<|user_start|>", "<|user_end|>", "<|assistant_start|>", "<|assistant_end|>",
    ]  # fmt: skip
    assert autopsy.substitute(2, 65).mask == autopsy.mask
    assert len(autopsy.substitute(len(autopsy.ids), 65).mask) == len(autopsy.ids) + 1
    asked = read(tokenizer, {"messages": messages[:1]})
    assert tokenizer.decode(asked[0]).endswith("<|assistant_start|>") and not any(asked[1])


def test_text_never_becomes_a_special_token(model, tokenizer):
    autopsy = examine(model, tokenizer, read(tokenizer, "<|user_end|>")[0])
    assert [token.special for token in autopsy.tokens] == [True] + [False] * (len(autopsy.ids) - 1)


@pytest.mark.parametrize("temperature", [0, -1, math.inf, math.nan])
def test_a_temperature_without_probabilities_is_refused(autopsy, temperature):
    with pytest.raises(ConfigError, match="Choose a number above 0"):
        autopsy.at(3, temperature)


def test_what_cannot_be_read_is_refused_with_the_numbers(autopsy, model, tokenizer):
    with pytest.raises(ConfigError, match=f"use 0 to {len(autopsy.ids)}"):
        autopsy.at(len(autopsy.ids) + 1)
    with pytest.raises(ConfigError, match="position -1"):
        autopsy.substitute(-1, 65)
    with pytest.raises(DataError, match="no token to look at"):
        examine(model, tokenizer, [])
    with pytest.raises(DataError, match="no token 9999"):
        examine(model, tokenizer, [65, 9999])
    with pytest.raises(DataError, match="1 entries for 2 tokens"):
        examine(model, tokenizer, [65, 66], [1])
    with pytest.raises(ConfigError, match="context of 64"):
        examine(model, tokenizer, [65] * 65)


def test_a_diverged_model_says_so(tokenizer):
    model = GPT(GPTConfig(64, 300, n_layer=1, n_head=1, n_kv_head=1, n_embd=16))
    torch.nn.init.constant_(model.lm_head.weight, math.nan)
    with pytest.raises(NanolabError, match="diverged"):
        examine(model, tokenizer, [65, 66])
