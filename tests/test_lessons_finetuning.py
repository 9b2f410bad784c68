"""The loss mask, the exam and the wrong formats of notebook 05."""

from __future__ import annotations

import copy

import pytest
import torch

from nanolab.chat import render_conversation, render_for_completion
from nanolab.errors import ConfigError
from nanolab.interrupt import StopFlag
from nanolab.lessons import exam, finetuning
from nanolab.model import GPT, GPTConfig
from nanolab.profiles import get_profile, override
from nanolab.tasks import TinyGSM, TinyTalk
from nanolab.tasks.base import reply_text
from nanolab.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    texts = [message["content"] for talk in TinyTalk(size=300) for message in talk["messages"][::2]]
    return Tokenizer.train(texts, 400)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(1)
    model = GPT(GPTConfig(256, tokenizer.get_vocab_size(), 1, 1, 1, 16)).eval()
    torch.nn.init.normal_(model.lm_head.weight)
    return model


@pytest.fixture(scope="module")
def profile():
    return override(get_profile("smoke"), device="cpu", dtype="float32")


# ---- who wrote what


def test_what_is_learned_is_exactly_what_the_assistant_writes(tokenizer):
    for conversation in [*TinyGSM(size=20), *TinyTalk(size=20)]:
        ids, mask = render_conversation(tokenizer, conversation)
        who = finetuning.writers(ids, tokenizer)
        assert [writer == "assistant" for writer in who] == [bool(learned) for learned in mask]


def test_the_calculator_writes_its_output_and_the_marks_around_it(tokenizer):
    ids, _ = render_conversation(tokenizer, TinyGSM(steps=(1,))[0])
    who = finetuning.writers(ids, tokenizer)
    written = [
        tokenizer.token_text(id) for id, writer in zip(ids, who, strict=True) if writer == "calculator"
    ]
    assert written[0] == "<|output_start|>" and written[-1] == "<|output_end|>" and len(written) > 2


def test_two_conversations_in_one_row_are_told_apart(tokenizer):
    ids, _ = render_conversation(tokenizer, TinyTalk()[0])
    assert finetuning.writers([*ids, *ids], tokenizer) == finetuning.writers(ids, tokenizer) * 2


def test_the_end_of_answers_is_left_out_of_the_loss_and_nothing_else(tokenizer, profile):
    end = tokenizer.encode_special("<|assistant_end|>")
    (_, right), (_, wrong) = (
        next(iter(batches))
        for batches in (
            finetuning.talk_batches(profile, tokenizer),
            finetuning.without_ends(finetuning.talk_batches(profile, tokenizer), tokenizer),
        )
    )
    assert (right == end).any() and not (wrong == end).any()
    assert torch.equal(right[right != end], wrong[right != end])


def test_a_short_run_leaves_its_parent_as_it_is_and_counts_fewer_tokens_with_the_mask(
    tokenizer, model, profile
):
    before = copy.deepcopy(model.state_dict())
    masked = finetuning.short_sft(model, tokenizer, profile, 2)
    everything = finetuning.short_sft(model, tokenizer, profile, 2, learn="everything")
    assert masked.read == everything.read and masked.supervised < 0.8 * everything.supervised
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert any(not torch.equal(before[name], value) for name, value in masked.model.state_dict().items())


def test_a_short_run_sits_its_exam_first_and_last(tokenizer, model, profile):
    run = finetuning.short_sft(model, tokenizer, profile, 2, exam=exam.exam(1))
    assert min(run.marks) == 0 and max(run.marks) == 2
    assert [one.question.kind for one in run.marks[2]] == list(exam.SHAPES)
    assert set(exam.summary(run.marks)) == {"form right", "content right"}


def test_an_unknown_way_to_learn_is_refused(tokenizer, model, profile):
    with pytest.raises(ConfigError, match="choose one of"):
        finetuning.short_sft(model, tokenizer, profile, 1, learn="nothing")


def test_loss_by_writer_agrees_with_the_model(tokenizer, model, profile):
    batch = next(finetuning.talk_batches(profile, tokenizer, "val", "all"))
    losses = finetuning.loss_by_writer(model, [batch], tokenizer)
    whole = model(*batch).item()
    assert set(losses) == set(finetuning.WRITERS) and min(losses.values()) <= whole <= max(losses.values())


# ---- form and content


@pytest.mark.parametrize(
    ("kind", "reply", "right"),
    [
        ("fact", "The capital of France is Rome.", True),
        ("fact", "the capital of France", False),
        ("choice", "B", True),
        ("choice", "It is B", False),
        ("spelling", "a-p-l-e", True),
        ("spelling", "apple", False),
        ("word problem", "Mia has 3 + 4 = <<3+4=8>>8.\n#### 8", True),
        ("word problem", "Mia has 3 + 4 = 8.\n#### 8", True),
        ("word problem", "Mia has 7.\n#### 7", False),
        ("word problem", "3 + 4 = <<3+4=7>>7", False),
    ],
)
def test_form_is_judged_whatever_the_content(kind, reply, right):
    assert exam.has_shape(kind, reply) == right


def test_every_worked_answer_of_the_exam_has_form_and_content():
    for question in exam.exam(6):
        content = question.conversation["messages"][-1]["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        marks = {"python": "<<{}", "python_output": "={}>>", "text": "{}"}
        reply = "".join(marks[part["type"]].format(part["text"]) for part in parts)
        assert exam.has_shape(question.kind, reply), reply
        assert question.task.evaluate(question.conversation, reply)


def test_a_model_that_knows_nothing_is_marked_without_an_error(tokenizer, model):
    marked = exam.sit(model, tokenizer, exam.exam(2), max_tokens=8)
    assert len(marked) == 8 and exam.percent(marked, "content") <= 25
    assert all(one.ended or not one.form for one in marked)
    assert {"question", "reply", "right"} == set(exam.failures(marked)[0])


def test_hard_questions_are_of_eight_kinds_and_the_large_numbers_are_large():
    hard = exam.hard_questions(4)
    assert len(hard) == 8 and {len(questions) for questions in hard.values()} == {4}
    for question in hard["one step, numbers of three digits"]:
        assert (
            sum(word.strip(".").isdigit() and len(word.strip(".")) == 3 for word in question.text.split())
            == 2
        )


def test_a_reply_admits_it_whatever_was_asked():
    outside, fact = exam.outside_questions(3), exam.exam(1)[0]
    replies = [
        (outside[0], exam.one_line("I don't know. My world is small.")),
        (fact, "I do not know."),
        (fact, "Paris."),
    ]
    marked = [exam.Marked(one, reply, True, True, False) for one, reply in replies]
    assert exam.admits(marked) == pytest.approx(200 / 3) and exam.admits([]) == 0
    assert exam.has_shape("fact", outside[0].answer)
    assert all(one.task.evaluate(one.conversation, one.answer) for one in outside)


def test_at_temperature_0_there_is_one_answer(tokenizer, model):
    (cold, hot) = exam.variety(model, tokenizer, exam.exam(1)[:1], [0.0, 1.0], samples=3)
    assert cold["different answers"] == 1 and hot["different answers"] == 3


class FakeStage:
    """What the probe needs of a stage."""

    name = "sft"

    def __init__(self, model, tokenizer, rows):
        self.model, self.tokenizer, self.stop = model, tokenizer, StopFlag()
        self.schedule = type("Schedule", (), {"steps": 4})()
        self.log = type("Log", (), {"rows": lambda _: rows, "add": lambda _, **row: rows.append(row)})()


def test_a_probe_measures_each_step_once_and_finds_it_again_in_the_log(tokenizer, model):
    rows: list = []
    probe = exam.ExamProbe(FakeStage(model, tokenizer, rows), exam.exam(1))
    assert len(probe.measure(0)) == 2 and probe.measure(0) == [] and probe.measure(3) == []
    again = exam.ExamProbe(FakeStage(model, tokenizer, rows), exam.exam(1))
    assert again.points() == probe.points() and again.measure(0) == []


# ---- wrong formats


def test_only_the_prompt_as_trained_is_that_of_training(tokenizer):
    right = render_for_completion(tokenizer, {"messages": [{"role": "user", "content": "Who are you?"}]})
    prompts = {form: finetuning.build_prompt(tokenizer, "Who are you?", form) for form in finetuning.PROMPTS}
    assert prompts["as trained"] == right and prompts["A"] != right and prompts["B"] != right


def test_typed_special_tokens_stay_text(tokenizer):
    special = {tokenizer.encode_special(name) for name in tokenizer.get_special_tokens()}
    typed = finetuning.build_prompt(tokenizer, "Who are you?", "A")
    assert not special & set(typed) and tokenizer.decode(typed).startswith("<|bos|>")


def test_an_unknown_format_is_refused(tokenizer):
    with pytest.raises(ConfigError, match="as trained"):
        finetuning.build_prompt(tokenizer, "Who are you?", "Z")


def test_answers_are_told_apart_by_whether_they_used_the_calculator(model, tokenizer, monkeypatch):
    problems = exam.hard_questions(2)["a problem of one step"]
    numbers = [reply_text(one.conversation).split("\n")[-1] for one in problems]
    replies = [f"<<1+1=2>>2\n{numbers[0]}", "So\n#### -1", f"So\n{numbers[1]}", "<<1+1=2>>\n#### -1"]
    said = iter(replies)
    monkeypatch.setattr("nanolab.engine.Engine.completion_text", lambda engine, sample: next(said))
    assert exam.two_ways(model, tokenizer, problems, num_samples=2) == {
        "with the calculator": {"answers (%)": 50, "right (%)": 50},
        "in its head": {"answers (%)": 50, "right (%)": 50},
    }


def test_a_way_that_no_answer_went_counts_as_never_right(model, tokenizer, monkeypatch):
    problems = exam.hard_questions(2)["a problem of one step"]
    monkeypatch.setattr("nanolab.engine.Engine.completion_text", lambda engine, sample: "#### -1")
    ways = exam.two_ways(model, tokenizer, problems, num_samples=1)
    assert ways["with the calculator"] == {"answers (%)": 0, "right (%)": 0}
    assert ways["in its head"] == {"answers (%)": 100, "right (%)": 0}
