"""Error bars, ways to ask, and leaks: the arithmetic behind notebook 07."""

from __future__ import annotations

import math

import pytest
import torch

from nanolab.errors import ConfigError
from nanolab.evals import ExamAnswer
from nanolab.lessons import choices, measuring
from nanolab.model import GPT, GPTConfig
from nanolab.profiles import get_profile
from nanolab.tasks import FactRecall, TinyTalk
from nanolab.tinyworld.exam import ExamQuestion, exam_questions
from nanolab.tinyworld.facts import get_fact, matches
from nanolab.tokenizer import Tokenizer


def test_per_cent_and_bars_keep_the_form_of_what_was_asked():
    hits = {"sft": {"spelling": [True, False]}}
    assert measuring.percent(hits) == {"sft": {"spelling": 50.0}}
    assert measuring.error_bars(hits) == {"sft": {"spelling": (50.0, 50.0)}}


@pytest.fixture(scope="module")
def tokenizer():
    texts = [message["content"] for talk in TinyTalk(size=400) for message in talk["messages"][::2]]
    return Tokenizer.train(texts, 400)


def tiny_model(tokenizer: Tokenizer) -> GPT:
    """A model whose predictions depend on what it reads: the head of a new one is all zeros."""
    torch.manual_seed(1)
    model = GPT(GPTConfig(256, tokenizer.get_vocab_size(), 1, 1, 1, 16)).eval()
    torch.nn.init.normal_(model.lm_head.weight)
    return model


# ---- error bars


def test_the_error_bar_of_a_half_is_that_of_the_binomial():
    low, high = measuring.bootstrap([True] * 200 + [False] * 200, draws=4000)
    expected = 1.96 * math.sqrt(0.25 / 400)
    assert low == pytest.approx(0.5 - expected, abs=0.01) and high == pytest.approx(0.5 + expected, abs=0.01)


def test_four_times_the_questions_halve_the_error_bar():
    short, long = (measuring.bootstrap([True, False] * n, draws=4000) for n in (50, 200))
    assert short[1] - short[0] == pytest.approx(2 * (long[1] - long[0]), rel=0.15)


def test_the_bootstrap_is_the_same_on_every_machine():
    assert measuring.bootstrap([True] * 3 + [False] * 7) == (0.0, 0.6)


def test_no_answers_have_no_error_bar():
    with pytest.raises(ConfigError, match="no values"):
        measuring.bootstrap([])


def test_a_paired_gain_is_seen_where_two_separate_bars_overlap():
    hard = [False] * 100 + [True] * 100
    better = [False] * 88 + [True] * 112
    gap = measuring.compare(hard, better)
    assert gap.difference == pytest.approx(0.06) and not gap.noise
    assert measuring.bootstrap(hard)[1] > measuring.bootstrap(better)[0]


def test_equal_answers_differ_by_nothing():
    assert measuring.compare([True, False], [True, False]).noise


def test_comparing_tests_of_different_length_is_refused():
    with pytest.raises(ConfigError, match="same questions"):
        measuring.compare([True], [True, False])


def test_a_stage_that_got_worse_is_called_a_loss():
    cards = {"mid": {"spelling": [True] * 50}, "sft": {"spelling": [False] * 50}}
    (row,) = measuring.comparison_rows(cards)
    assert (row["gain"], row["verdict"]) == ("-100 points", "real loss")


def test_turning_a_table_swaps_rows_and_columns():
    assert measuring.turned({"sft": {"a": 1, "b": 2}}) == {"a": {"sft": 1}, "b": {"sft": 2}}


def test_a_report_card_has_every_measure_and_every_answer(tokenizer):
    card = measuring.report_card(tiny_model(tokenizer), tokenizer, 3, max_tokens=4)
    assert list(card) == list(measuring.MEASURES)
    assert all(len(hits) == 3 for hits in card.values())
    assert not any(card["word problems"])


def test_only_the_end_of_an_answer_counts_as_one(tokenizer):
    """A new document after the reply is no end of a chat."""
    for name, expected in (("<|assistant_end|>", 1.0), ("<|bos|>", 0.0)):
        model = tiny_model(tokenizer)
        model.lm_head = _always(tokenizer.encode_special(name), model)
        card = measuring.report_card(model, tokenizer, 2, max_tokens=4)
        assert measuring.share(card["ends its answer"]) == expected


class _always(torch.nn.Module):
    """A head that always says the same token."""

    def __init__(self, token: int, model: GPT) -> None:
        super().__init__()
        self.weight, self.token = model.lm_head.weight, token

    def forward(self, x):
        logits = torch.zeros(*x.shape[:-1], self.weight.size(0))
        logits[..., self.token] = 100.0
        return logits


# ---- the exam

QUESTIONS = (
    ExamQuestion("fact", ("capital of peru",), ("Lima",)),
    ExamQuestion("fact", ("moon of earth",), ("the Moon",)),
    ExamQuestion("sum", ("1 + 1", "and 2 + 2"), ("4",)),
    ExamQuestion("outside", ("who won",)),
)


def answered(*replies):
    return [ExamAnswer(one, reply, one.marks(reply)) for one, reply in zip(QUESTIONS, replies, strict=True)]


def test_a_model_that_never_knows_is_right_about_all_that_is_outside():
    silent, bold = answered(*["I don't know."] * 4), answered("Lima.", "I don't know.", "5", "France won.")
    found = measuring.within_and_outside({"silent": silent, "bold": bold})
    assert found["within its world"] == {"silent": [False] * 3, "bold": [True, False, False]}
    assert found["outside"] == {"silent": [True], "bold": [False]}


def test_the_exam_by_kind_tells_how_often_the_last_model_does_not_know():
    rows = measuring.exam_rows(
        {"a": answered(*["Lima"] * 4), "b": answered("Lima", "I don't know.", "4", "No.")}
    )
    assert rows[0] == {"kind": "fact", "asked": 2, "a": "50%", "b": "50%", '"I don\'t know"': "50%"}
    assert [row["kind"] for row in rows] == ["fact", "sum", "outside"]


def test_wrong_answers_are_drawn_from_the_whole_exam():
    marked = answered("Lima", "Mars", "5", "France won.")
    assert [row["model"] for row in measuring.exam_failures(marked, 2)] == ["Mars", "5"]
    assert measuring.exam_failures(marked, 9)[-1] == {
        "kind": "outside", "you": "who won", "model": "France won.", "right": "I don't know"
    }  # fmt: skip
    assert measuring.exam_failures(marked, 9)[1]["you"] == "1 + 1 ... and 2 + 2"
    assert measuring.exam_failures(marked[:1], 3) == []


def test_a_part_of_the_exam_is_asked_of_every_model(tokenizer):
    found = measuring.sit_exam({"a": tiny_model(tokenizer), "b": tiny_model(tokenizer)}, tokenizer, every=60)
    assert len(found["a"]) == -(-len(exam_questions()) // 60)
    assert [one.question for one in found["a"]] == [one.question for one in found["b"]]


# ---- inside the model


def test_an_even_model_is_equally_surprised_by_every_kind_of_token(tokenizer):
    torch.manual_seed(0)
    even = GPT(GPTConfig(64, tokenizer.get_vocab_size(), 1, 1, 1, 16))
    talk = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}
    kinds = measuring.surprise_by_kind({"new": even}, tokenizer, talk)["new"]
    assert list(kinds) == ["marks", "question", "answer"]
    assert kinds == pytest.approx(dict.fromkeys(kinds, math.log2(tokenizer.get_vocab_size())), rel=1e-4)


def test_words_of_one_kind_with_one_embedding_have_cosine_1(tokenizer):
    model = tiny_model(tokenizer)
    table = model.get_parameter("transformer.wte.weight").data
    for word, column in (("cat", 0), ("dog", 0), ("red", 1), ("blue", 1)):
        for id in tokenizer.encode(" " + word):
            table[id] = torch.eye(16)[column]
    words = {"animals": ["cat"], "colours": ["red"]}
    assert measuring.mean_cosine(model, tokenizer, words, same=False) < 1
    assert measuring.mean_cosine(model, tokenizer, {"one": ["cat", "cat "]}, same=True) == pytest.approx(1)


# ---- multiple choice


def test_a_question_has_one_right_choice_and_its_sentence_is_the_fact():
    for one in choices.choice_questions(40, "common"):
        assert len(set(one.choices)) == 4
        assert one.choices[one.right] in one.sentences[one.right]
        assert len(set(one.sentences)) == 4


def test_rotating_moves_the_right_choice_and_four_times_is_none():
    (one,) = choices.choice_questions(1)
    turned = one.rotated(1)
    assert turned.choices[turned.right] == one.choices[one.right] and turned.right != one.right
    assert one.rotated(4) == one


def test_a_longer_list_of_questions_begins_like_a_shorter_one():
    assert choices.choice_questions(20)[:5] == choices.choice_questions(5)


def test_a_liking_for_a_letter_cancels_out_over_all_orders(tokenizer, monkeypatch):
    """A model that only ever says B chooses every place equally often once each choice has stood at B."""

    def likes_b(model, tokenizer, questions):
        return torch.tensor([[0.1, 0.7, 0.1, 0.1]]).repeat(len(questions), 1)

    monkeypatch.setattr(choices, "letter_chances", likes_b)
    questions = choices.choice_questions(4)
    balanced = choices.balanced_chances(tiny_model(tokenizer), tokenizer, questions)
    assert torch.allclose(balanced, torch.full((4, 4), 0.25))


def test_knowledge_survives_the_balancing(tokenizer, monkeypatch):
    def knows(model, tokenizer, questions):
        return torch.stack([torch.eye(4)[one.right] for one in questions])

    monkeypatch.setattr(choices, "letter_chances", knows)
    questions = choices.choice_questions(8)
    balanced = choices.balanced_chances(tiny_model(tokenizer), tokenizer, questions)
    assert all(choices.hits(balanced, questions))


def test_scores_do_not_depend_on_the_other_rows_of_a_batch(tokenizer):
    model, questions = tiny_model(tokenizer), choices.choice_questions(20)
    for score in (choices.letter_chances, choices.sentence_scores):
        together = score(model, tokenizer, questions)
        alone = torch.cat([score(model, tokenizer, [one]) for one in questions])
        assert torch.allclose(together, alone, atol=1e-3)


def test_a_new_model_prefers_the_shortest_sentence(tokenizer):
    """Summed over the reply: a new model finds every token equally likely, so fewest tokens win."""
    torch.manual_seed(0)
    new = GPT(GPTConfig(256, tokenizer.get_vocab_size(), 1, 1, 1, 16)).eval()
    questions = choices.choice_questions(10)
    scores = choices.sentence_scores(new, tokenizer, questions)
    for one, row in zip(questions, scores, strict=True):
        lengths = [len(tokenizer.encode(sentence)) + 1 for sentence in one.sentences]
        expected = [-length * math.log2(tokenizer.get_vocab_size()) for length in lengths]
        assert row.tolist() == pytest.approx(expected, rel=1e-3)


def test_places_chosen_add_up_to_one():
    shares = choices.places_chosen(torch.eye(4)[[0, 1, 1, 3]])
    assert shares == {"A": 0.25, "B": 0.5, "C": 0.0, "D": 0.25}


# ---- a test that leaked


def test_the_halves_of_a_test_share_no_subject():
    leaked, clean = measuring.split_test(20)
    subjects = [{talk["fact"][2] for talk in side} for side in (leaked, clean)]
    assert len(leaked) == len(clean) == 20 and not subjects[0] & subjects[1]


def test_a_listed_test_is_scored_like_the_facts_it_came_from():
    leaked, _ = measuring.split_test(3)
    talk = leaked[0]
    reply = talk["messages"][-1]["content"]
    assert leaked.evaluate(talk, reply) and matches(get_fact(*talk["fact"]), reply)
    assert not leaked.evaluate(talk, "I do not know.")


def test_training_on_a_test_changes_the_copy_only(tokenizer):
    model = tiny_model(tokenizer)
    before = {name: p.clone() for name, p in model.named_parameters()}
    leaked, _ = measuring.split_test(4)
    student = measuring.train_on(model, tokenizer, get_profile("smoke"), leaked, 2)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert not torch.equal(student.lm_head.weight, model.lm_head.weight)


def test_a_leak_is_found_and_an_accident_of_a_few_words_is_not():
    test = ["What is the capital of the country of France today?", "Which sound does a cow make?"]
    assert measuring.shared_phrases([test[0].upper() + " Paris."], test) == [True, False]
    assert measuring.shared_phrases(["What is the capital of the moon?"], test) == [False, False]
    assert measuring.shared_phrases(["So: Which sound does a cow make? Moo."], test) == [False, True]


def test_the_facts_asked_for_evaluation_are_not_in_the_conversations_of_training():
    asked = [FactRecall(tier="common")[i]["messages"][0]["content"] for i in range(50)]
    train = [message["content"] for talk in TinyTalk(size=500) for message in talk["messages"][::2]]
    assert not any(measuring.shared_phrases(train, asked))
