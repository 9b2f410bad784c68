"""TinyTalk, TinyMMLU, TinyARC, TinyGSM, Identity and FactRecall."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter

import pytest

from nanolab.errors import ConfigError
from nanolab.tasks.base import reply_text
from nanolab.tasks.tiny import FactRecall, Identity, TinyARC, TinyGSM, TinyMMLU, TinyTalk
from nanolab.tinyworld.facts import facts

TASKS = (TinyTalk, TinyMMLU, TinyARC, TinyGSM, Identity)


def user_texts(task):
    return {
        message["content"] for example in task for message in example["messages"] if message["role"] == "user"
    }


@pytest.mark.parametrize(
    ("task", "size"),
    [(TinyTalk, 20_000), (TinyMMLU, 4_000), (TinyARC, 4_000), (TinyGSM, 8_000), (Identity, 500)],
)
def test_default_sizes(task, size):
    assert len(task()) == size and len(task("val")) == 500 and len(task(size=7)) == 7


@pytest.mark.parametrize("task", TASKS)
def test_an_example_depends_on_split_seed_and_index_alone(task):
    assert task(size=50)[31] == task(size=40)[31] == task(size=50, start=30)[1]
    assert list(task(size=30)) != list(task(size=30, seed=1)) and list(task(size=30)) != list(
        task("val", size=30)
    )


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_examples_are_plain_conversations(task, split):
    for example in task(split, size=100):
        assert json.loads(json.dumps(example)) == example
        roles = [message["role"] for message in example["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert reply_text(example)


@pytest.mark.parametrize("task", TASKS)
def test_an_unknown_split_is_refused(task):
    with pytest.raises(ConfigError, match="test"):
        task("test")


@pytest.mark.parametrize("task", [TinyMMLU, TinyARC, TinyGSM])
def test_no_validation_question_is_in_training(task):
    assert not user_texts(task(size=3_000)) & user_texts(task("val"))


@pytest.mark.parametrize("task", [TinyMMLU, TinyARC])
def test_quizzes_are_rendered_and_scored_like_mmlu(task):
    for example in task(size=200):
        prompt, reply, *more = (message["content"] for message in example["messages"])
        assert re.fullmatch(
            r"Multiple Choice question: .+\n(- .+=[A-E]\n){3,5}\n"
            r"Respond only with the letter of the correct answer\.",
            prompt,
        )
        assert re.findall(r"=([A-E])\n", prompt) == example["letters"]
        for letter in [reply, *more[1::2]]:
            assert letter in example["letters"]
        if not more:
            assert [letter for letter in example["letters"] if task().evaluate(example, letter)] == [reply]
        assert example["subject"]


def test_gsm_calls_become_calculator_parts_whose_output_is_right():
    task = TinyGSM(size=500)
    for example in task:
        parts = example["messages"][1]["content"]
        kinds = [part["type"] for part in parts]
        assert kinds == ["text", "python", "python_output"] * kinds.count("python") + ["text"]
        for call, output in itertools.pairwise(parts):
            if call["type"] == "python":
                a, sign, b = re.fullmatch(r"(\d+)([-+*/])(\d+)", call["text"]).groups()
                a, b = int(a), int(b)
                assert {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[sign] == int(output["text"])
        assert "<<" not in "".join(part["text"] for part in parts)


def test_gsm_in_head_is_the_same_answer_without_the_calls():
    for worked, in_head in zip(TinyGSM(size=50), TinyGSM(size=50, in_head=True), strict=True):
        parts = worked["messages"][1]["content"]
        said = "".join(part["text"] for part in parts if part["type"] == "text")
        assert in_head["messages"] == [worked["messages"][0], {"role": "assistant", "content": said}]
        assert re.search(r"\d [-+*/] \d+ = \d", said) and in_head["messages"][1] != worked["messages"][1]


def test_gsm_scores_the_number_after_the_hashes():
    task = TinyGSM(size=20)
    for example in task:
        right = int(reply_text(example).rsplit("#### ", 1)[1])
        assert task.evaluate(example, reply_text(example)) and task.evaluate(example, f"So\n#### {right}")
        assert task.reward(example, f"#### {right}") == 1.0
        for wrong in ("", f"{right}", f"#### {right + 1}", f"#### -{right}", f"#### {right}0", "####"):
            assert not task.evaluate(example, wrong) and task.reward(example, wrong) == 0.0


def test_gsm_steps_can_be_chosen():
    def calls(example):
        return sum(part["type"] == "python" for part in example["messages"][1]["content"])

    for steps in (1, 2, 3):
        assert {calls(example) for example in TinyGSM(size=100, steps=(steps,))} == {steps}
    counts = Counter(calls(example) for example in TinyGSM(size=1_000))
    assert counts[1] == pytest.approx(400, rel=0.15) and counts[2] == pytest.approx(400, rel=0.15)
    assert counts[3] == pytest.approx(200, rel=0.2)


@pytest.mark.parametrize("tier", ["common", "uncommon", "rare", None])
def test_recall_asks_every_fact_in_every_held_out_phrasing(tier):
    task = FactRecall(tier)
    wanted = Counter(
        question for fact in facts() if tier in (None, fact.tier) for question in fact.held_out_questions()
    )
    assert Counter(example["messages"][0]["content"] for example in task) == wanted


def test_recall_accepts_its_own_answers_and_no_other_subject_s():
    task = FactRecall("common")
    examples = list(task)[:300]
    for example in examples:
        assert task.evaluate(example, reply_text(example))
        assert not task.evaluate(example, "") and not task.evaluate(example, "I do not know.")
    shifted = itertools.pairwise(examples)
    assert sum(task.evaluate(one, reply_text(other)) for one, other in shifted) < 15


def test_recall_is_shuffled_always_the_same_way():
    first = [example["fact"][0] for example in FactRecall("common", stop=60)]
    assert first == [example["fact"][0] for example in FactRecall("common", stop=60)]
    assert len(set(first)) >= 5
    assert FactRecall("common", seed=1)[0] != FactRecall("common")[0]


def test_recall_refuses_an_unknown_tier():
    with pytest.raises(ConfigError, match="legendary"):
        FactRecall("legendary")


def test_recall_questions_are_never_in_training_talk():
    asked = {text.lower().rstrip("?.") for text in user_texts(TinyTalk(size=5_000))}
    held = {example["messages"][0]["content"].lower().rstrip("?.") for example in FactRecall(None)}
    assert not asked & held


def test_identity_replies_name_nanolab():
    task = Identity("val")
    assert all(task.evaluate(example, reply_text(example)) for example in task)
    assert not task.evaluate(task[0], "I am a big model.")
