"""The exam: what counts as right, that its answers are TinyWorld's, and that training never asks it."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice, pairwise

import pytest
import torch

from nanolab.engine import Engine
from nanolab.evals import converse, exam_scores
from nanolab.model import GPT, GPTConfig
from nanolab.tasks import SimpleSpelling, SpellingBee, TinyARC, TinyGSM, TinyMMLU, TinyTalk
from nanolab.tinyworld.documents import documents
from nanolab.tinyworld.exam import ExamQuestion, exam_questions, is_in_exam, words
from nanolab.tinyworld.facts import facts
from nanolab.tokenizer import Tokenizer


def question(*accept, wrong=(), count=1, kind="fact"):
    return ExamQuestion(kind, ("?",), tuple(accept), tuple(wrong), count)


RIGHT = [
    (question("Paris"), "The capital of France is Paris."),
    (question("Paris"), "paris"),
    (question("seven", "7"), "Tom has 7 apples."),
    (question("7"), "3 + 4 = <<3+4=7>>7\n#### 7"),
    (question("no", wrong=["yes"]), "No. Yes is wrong."),
    (question("Jupiter", wrong=["Mars"]), "Jupiter is bigger than Mars."),
    (question("owl", "duck", "hen", count=2), "Two birds are the owl and the duck."),
    (question("c-a-t"), "c-a-t"),
    (question(kind="outside"), "I don't know. My world is small."),
    (question(kind="outside"), "Sorry, I do not know that."),
    (question(kind="outside"), "I don’t know."),
]
WRONG = [
    (question("Paris"), "The capital of France is Rome."),
    (question("Paris"), "Parisian"),
    (question("7"), "17"),
    (question("four", "4"), "twenty-four"),
    (question("no", wrong=["yes"]), "I don't know. My world is small."),
    (question("no", wrong=["yes"]), "Yes. No is wrong."),
    (question("thirty", wrong=["thirty-one"]), "It has thirty-one days."),
    (question("Jupiter", wrong=["Mars"]), "Mars is bigger than Jupiter."),
    (question("owl", "duck", "hen", count=2), "Two birds are the owl and the owl."),
    (question("c-a-t"), "c-a-t-s"),
    (question("c-a-t"), "s-c-a-t"),
    (question(kind="outside"), "The capital of Narnia is Rome."),
    (question(kind="outside"), "I know."),
]


@pytest.mark.parametrize(("asked", "reply"), RIGHT)
def test_a_right_answer_is_right(asked, reply):
    assert asked.marks(reply)


@pytest.mark.parametrize(("asked", "reply"), WRONG)
def test_a_wrong_answer_is_wrong(asked, reply):
    assert not asked.marks(reply)


def test_the_exam_is_large_and_asks_nothing_twice():
    inside = [one for one in exam_questions() if not one.outside]
    assert len(inside) >= 300 and len(exam_questions()) - len(inside) >= 60
    twice = [asked for asked, n in Counter(one.turns for one in exam_questions()).items() if n > 1]
    assert not twice


def test_every_question_within_the_world_can_be_answered_and_no_accepted_answer_is_a_wrong_one():
    for one in exam_questions():
        if one.outside:
            assert not one.accept and not one.wrong
            continue
        assert len(set(one.accept)) >= one.count >= 1, one
        assert not {w.lower() for w in one.wrong} & {a.lower() for a in one.accept}, one
        assert one.marks(", ".join(one.accept)), one


def test_facts_asked_for_stand_in_the_tables():
    known = " \n ".join({value.lower() for fact in facts() for value in fact.row.values()})
    for one in exam_questions():
        if one.kind == "fact":
            assert any(answer.lower() in known for answer in one.accept), one


def test_case_and_punctuation_do_not_make_another_question():
    assert words("What's 7 x 8?") == words("what's 7 x 8") != words("what's 7 + 8")
    first = exam_questions()[0].turns[0]
    assert is_in_exam(first.upper() + "?!") and not is_in_exam(first, first)


TRAINING = (
    TinyTalk("train", size=15_000), SimpleSpelling("train", size=3_000), SpellingBee("train", size=1_000),
    TinyGSM("train", size=3_000), TinyMMLU("train", size=1_500), TinyARC("train", size=1_500),
)  # fmt: skip


@pytest.mark.parametrize("task", TRAINING, ids=lambda task: type(task).__name__)
def test_conversations_of_training_ask_nothing_of_the_exam(task):
    for example in task:
        asked = [m["content"].removeprefix("Multiple Choice question: ").split("\n- ")[0]
                 for m in example["messages"] if m["role"] == "user"]  # fmt: skip
        assert not any(map(is_in_exam, asked)), asked
        assert not any(is_in_exam(*two) for two in pairwise(asked)), asked


def test_base_text_asks_nothing_of_the_exam():
    for document in islice(documents("train"), 15_000):
        for sentence in re.split(r"(?<=[?.!])\s|\n", document):
            assert not is_in_exam(sentence), document


def test_the_guard_is_needed_and_sees_what_it_should(monkeypatch):
    monkeypatch.setattr("nanolab.tinyworld.talk.is_in_exam", lambda *turns: False)
    monkeypatch.setattr("nanolab.tinyworld.asking.is_in_exam", lambda *turns: False)
    asked = [
        message["content"]
        for one in TinyTalk("train", size=15_000, seed=1)
        for message in one["messages"]
        if message["role"] == "user"
    ]
    assert any(map(is_in_exam, asked))


@pytest.fixture(scope="module")
def engine():
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(["what is a cat? a cat is a pet. and a dog?"] * 9, 280, digits=1)
    model = GPT(GPTConfig(64, tokenizer.get_vocab_size(), 1, 1, 1, 16))
    torch.nn.init.normal_(model.lm_head.weight)
    return Engine(model.eval(), tokenizer)


def test_a_follow_up_is_asked_after_the_models_own_answer(engine, monkeypatch):
    seen = []
    make = Engine.generate_batch

    def watch(self, prompts, **options):
        seen.append([self.tokenizer.decode(prompt) for prompt in prompts])
        return make(self, prompts, **options)

    monkeypatch.setattr(Engine, "generate_batch", watch)
    alone, both = converse(engine, [["what is a cat?"], ["what is a cat?", "and a dog?"]], max_tokens=4)
    assert len(seen[0]) == 2 and len(seen[1]) == 1
    assert alone in seen[1][0] and "and a dog?" in seen[1][0] and both != ""


def test_a_conversation_too_long_for_the_context_is_answered_with_nothing(engine):
    assert converse(engine, [["cat " * 200], []]) == ["", ""]


def test_the_exam_is_marked_in_two_parts(engine, monkeypatch):
    monkeypatch.setattr("nanolab.evals.converse", lambda engine, asked: ["I don't know."] * len(list(asked)))
    scores = exam_scores(engine)
    assert scores["exam, outside its world"].accuracy == 1 and scores["exam"].accuracy == 0
    assert sum(score.total for score in scores.values()) == len(exam_questions())
