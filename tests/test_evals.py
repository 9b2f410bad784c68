"""Evals against closed forms, and against answers whose score is known."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanolab.engine import Engine
from nanolab.evals import Score, accuracy, answers, choice_accuracy, pass_at_k, text_loss
from nanolab.model import GPT, GPTConfig
from nanolab.tasks import Task
from nanolab.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["Which one? A or B or C. The answer is yes or no. " * 20], vocab_size=290)
CONFIG = GPTConfig(sequence_len=64, vocab_size=290, n_layer=1, n_head=1, n_kv_head=1, n_embd=32)


def test_an_untrained_model_needs_log2_vocab_bits_for_each_token():
    torch.manual_seed(0)
    model = GPT(CONFIG)
    ids = torch.tensor([TOKENIZER.encode("The answer is yes or no.")])
    result = text_loss(model, [(ids[:, :-1], ids[:, 1:])], TOKENIZER.token_bytes())
    text_bytes = len(TOKENIZER.decode_bytes(ids[0, 1:].tolist()))
    assert result.nats == pytest.approx(math.log(290), abs=1e-5)
    assert result.bits_per_byte == pytest.approx(math.log2(290) * result.tokens / text_bytes, rel=1e-5)


def test_special_and_ignored_tokens_do_not_count_in_bits_per_byte():
    torch.manual_seed(0)
    model = GPT(CONFIG)
    ids = TOKENIZER.encode("The answer is yes")
    inputs = torch.tensor([[TOKENIZER.get_bos_token_id(), *ids]])
    plain = torch.tensor([[*ids, -1]])
    special = torch.tensor([[*ids, TOKENIZER.encode_special("<|assistant_end|>")]])
    sizes = TOKENIZER.token_bytes()
    without, with_end = (
        text_loss(model, [(inputs, plain)], sizes),
        text_loss(model, [(inputs, special)], sizes),
    )
    assert with_end.bits_per_byte == pytest.approx(without.bits_per_byte)
    assert with_end.tokens == without.tokens + 1


def test_text_loss_over_two_batches_is_the_mean_over_tokens_not_over_batches():
    torch.manual_seed(1)
    model = GPT(CONFIG)
    torch.nn.init.normal_(model.lm_head.weight)
    ids = torch.tensor([TOKENIZER.encode("Which one? A or B or C. The answer is no.")])
    x, y = ids[:, :-1], ids[:, 1:]
    whole = text_loss(model, [(x, y)], TOKENIZER.token_bytes())
    first, rest = y.clone(), y.clone()
    first[:, 2:] = -1
    rest[:, :2] = -1
    parts = text_loss(model, [(x, first), (x, rest)], TOKENIZER.token_bytes())
    assert parts.nats == pytest.approx(whole.nats)
    assert parts.bits_per_byte == pytest.approx(whole.bits_per_byte)


@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_draws_with_a_right_answer(case):
    samples, right, k = case
    draws = list(itertools.combinations([True] * right + [False] * (samples - right), k))
    assert pass_at_k(samples, right, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_a_score_knows_its_standard_error():
    assert Score(50, 100).standard_error == pytest.approx(0.05)
    assert Score(0, 0).accuracy == 0
    assert str(Score(1, 4)) == "25.0% (1/4)"


class Letters(Task):
    """Ten questions whose right letter is always B; every third is far too long for the model."""

    eval_type = "categorical"

    def num_examples(self):
        return 10

    def get_example(self, index):
        question = "Which one? " * (40 if index % 3 == 0 else 1)
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "B"}]
        return {"messages": messages, "letters": ["A", "B", "C"]}

    def evaluate(self, conversation, completion):
        return completion == "B"


def always(letter):
    """A model that gives `letter` after anything."""
    model = GPT(CONFIG)
    torch.nn.init.zeros_(model.transformer["wte"].weight)
    model.transformer["wte"].weight.data[:, 0] = 1.0
    model.lm_head.weight.data[TOKENIZER.encode(letter)[0], 0] = 1.0
    return model


def test_choice_accuracy_counts_the_likeliest_letter_and_long_questions_as_wrong():
    assert choice_accuracy(always("B"), TOKENIZER, Letters(), 10, rows=4) == Score(6, 10)
    assert choice_accuracy(always("C"), TOKENIZER, Letters(), 10) == Score(0, 10)


def test_answers_are_in_the_tasks_order_and_long_questions_are_wrong():
    engine = Engine(always("B"), TOKENIZER)
    found = answers(engine, Letters(), 10, num_samples=2, max_tokens=1, rows=4)
    assert found == [[index % 3 != 0] * 2 for index in range(10)]
    assert accuracy(engine, Letters(), 4, max_tokens=1) == Score(2, 4)
