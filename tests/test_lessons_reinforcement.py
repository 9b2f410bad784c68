"""Groups, long problems, controls and seeds of notebook 06."""

from __future__ import annotations

import re

import pytest
import torch

from nanolab.calculator import calculate
from nanolab.course import Course
from nanolab.engine import Engine
from nanolab.grpo import group_advantages, policy_loss, rollout_batches, token_logprobs
from nanolab.lessons import problems, reinforcement
from nanolab.model import GPT, GPTConfig
from nanolab.profiles import RLPlan, get_profile, override
from nanolab.tasks import TinyGSM, TinyTalk
from nanolab.tasks.base import reply_text
from nanolab.tasks.gsm8k import extract_answer
from nanolab.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    texts = [message["content"] for talk in TinyTalk(size=300) for message in talk["messages"][::2]]
    return Tokenizer.train(texts, 400)


@pytest.fixture()
def model(tokenizer):
    torch.manual_seed(1)
    model = GPT(GPTConfig(256, tokenizer.get_vocab_size(), 1, 1, 1, 16)).eval()
    torch.nn.init.normal_(model.lm_head.weight, std=0.1)
    return model


@pytest.fixture()
def group(model, tokenizer):
    return reinforcement.teachable_group(
        Engine(model, tokenizer), TinyGSM(), RLPlan(1, 1, 4, max_new_tokens=12), tries=2
    )


# ---- long problems and rewards


def test_long_problems_are_worked_out_right():
    for conversation in problems.LongProblems():
        parts = conversation["messages"][1]["content"]
        calls = [part["text"] for part in parts if part["type"] == "python"]
        outputs = [part["text"] for part in parts if part["type"] == "python_output"]
        assert [calculate(call) for call in calls] == outputs and len(calls) >= 3
        assert extract_answer(reply_text(conversation)) == outputs[-1] and int(outputs[-1]) > 0


def test_long_problems_use_every_number_of_the_question():
    for conversation in problems.LongProblems():
        question = conversation["messages"][0]["content"]
        worked = " ".join(part["text"] for part in conversation["messages"][1]["content"])
        assert set(re.findall(r"\d+", question)) <= set(re.findall(r"\d+", worked)), question


def test_a_few_dozen_long_problems_are_all_different_and_the_same_on_every_machine():
    asked = [conversation["messages"][0]["content"] for conversation in problems.LongProblems()]
    assert len(set(asked)) == len(asked) >= 36
    assert asked[0].startswith("Lily runs a bakery and bakes 24 loaves a day")


def test_paying_for_calls_makes_a_wrong_answer_with_calls_worth_more_than_a_right_one():
    task = problems.RewardForCalls("val")
    problem = task[0]
    right, wrong = "<<1+1=2>>\n" + reply_text(problem).split("\n")[-1], "<<1+1=2>>" * 9 + "\n#### -1"
    assert task.evaluate(problem, right) and not task.evaluate(problem, wrong)
    assert task.reward(problem, right) == 1.0 and task.reward(problem, wrong) == 4.0


# ---- one group


def test_where_nothing_is_right_the_worked_answer_is_put_in_and_said_so(group):
    assert group.planted == "right" and group.rewards[0].tolist() == [0, 0, 0, 1]
    assert "####" in group.texts[-1] and len(group.rows()) == 4


class EverythingButOthersAnswers(TinyGSM):
    """Any reply is right, except the worked answer of another problem."""

    def evaluate(self, conversation, completion):
        return "####" not in completion or super().evaluate(conversation, completion)


def test_where_nothing_is_wrong_another_problems_answer_is_put_in(model, tokenizer):
    plan = RLPlan(1, 1, 4, max_new_tokens=12)
    group = reinforcement.teachable_group(
        Engine(model, tokenizer), EverythingButOthersAnswers(), plan, tries=1
    )
    assert group.planted == "wrong" and group.rewards[0].tolist() == [1, 1, 1, 0]


def test_the_calculators_tokens_are_not_pushed(group):
    pushes = reinforcement.token_pushes(group, group_advantages(group.rewards), 3)
    mask = group.rollout.samples[0][3].mask
    assert 0 in mask and [push > 0 for push in pushes] == [bool(chosen) for chosen in mask]


def test_one_step_by_hand_makes_right_answers_likelier_and_wrong_ones_less_likely(model, tokenizer, group):
    advantages, bos = group_advantages(group.rewards), tokenizer.get_bos_token_id()
    before = reinforcement.answer_logprobs(model, group, bos)
    compute = reinforcement.Compute(model.device, torch.float32, "default")
    for inputs, targets, weights in rollout_batches(group.rollout, advantages, 8, bos, model.device):
        logprobs = token_logprobs(model, inputs, targets, compute)
        policy_loss(logprobs, weights, targets >= 0).backward()
    with torch.no_grad():
        for weight in model.parameters():
            weight -= reinforcement.STEP_BY_HAND * weight.grad
    after = reinforcement.answer_logprobs(model, group, bos)
    assert after[3] > before[3] and sum(after[:3]) < sum(before[:3])


def test_the_picture_of_a_group_shows_every_answer_even_with_signs_of_mathematics(group):
    group.texts[0] = "costs $3$ and $_"
    figure = reinforcement.group_picture(group, group_advantages(group.rewards))
    figure.canvas.draw()
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert any(text.startswith("costs $3$") for text in shown) and shown.count("advantage") == 1


# ---- pass@k


def test_pass_at_1_is_the_mean_and_pass_at_all_counts_problems_ever_solved():
    results = [[True, False, False, False], [False] * 4, [True] * 4]
    assert reinforcement.pass_curve(results, [1, 4]) == pytest.approx([100 * 5 / 12, 100 * 2 / 3])


def test_a_group_has_variance_only_between_never_and_always():
    assert reinforcement.chance_of_variance(0, 8) == reinforcement.chance_of_variance(1, 8) == 0
    assert reinforcement.chance_of_variance(0.5, 2) == 0.5
    assert reinforcement.chance_of_variance(0.01, 64) > 5 * reinforcement.chance_of_variance(0.01, 8)


# ---- trainings


def test_without_a_success_nothing_is_learned(model, tokenizer):
    profile = override(get_profile("smoke"), device="cpu", dtype="float32")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run = reinforcement.side_run(
        model, tokenizer, profile, problems.LongProblems(), 2, max_new_tokens=8, num_samples=2
    )
    assert run.curve() == ([1, 2], [0.0, 0.0]) and run.curve("without_variance")[1] == [1.0, 1.0]
    assert all(torch.equal(before[name], value) for name, value in run.model.state_dict().items())


def test_the_control_has_its_own_run_and_shuffles(monkeypatch):
    monkeypatch.setenv("NANOLAB_PROFILE", "smoke")
    course = Course()
    work = course.open("rl", examples_per_step=1, num_samples=2, max_new_tokens=4)
    control = reinforcement.control_stage(course, work)
    assert control.plan.shuffle_rewards and not work.plan.shuffle_rewards
    assert control.run != work.run and control.schedule.steps == work.schedule.steps
    mine, theirs = work.model.state_dict(), control.model.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    again = reinforcement.control_stage(course, work)
    assert again.start == 0


# ---- results


def test_of_two_validations_of_one_step_the_last_counts():
    rows = [
        {"stage": "rl", "step": 0, "validation": {"right": 1, "total": 4}},
        {"stage": "sft", "step": 0, "validation": {"nats": 1.0}},
        {"stage": "rl", "step": 3, "reward": 0.5},
        {"stage": "rl", "step": 3, "validation": {"right": 2, "total": 4}},
        {"stage": "rl", "step": 3, "validation": {"right": 3, "total": 4}},
    ]
    assert reinforcement.validations(rows) == [(0, 25.0), (3, 75.0)]


def test_the_seed_table_is_of_use_measured_or_not():
    data = {
        "profile": "laptop",
        "seeds": {"42": [[0, 0.4, 500], [30, 0.6, 500]], "43": None},
        "shuffled": None,
        "shuffled_without_kl": [[0, 0.4, 500], [30, 0.3, 500]],
    }
    first, second, control, free = reinforcement.seed_rows(data)
    assert first["gain (points)"] == pytest.approx(20) and second["before (%)"] == "not measured yet"
    assert control["run"] == "shuffled rewards" and control["before (%)"] == "not measured yet"
    assert free["run"] == "shuffled, no KL penalty" and free["gain (points)"] == pytest.approx(-10)
    assert reinforcement.seed_curves(data) == {
        "seed 42": ([0, 30], [40, 60]), "shuffled, no KL penalty": ([0, 30], [40, 30]),
    }  # fmt: skip
    assert reinforcement.behind(data, "laptop") == {}


def test_a_measured_control_is_drawn_behind_at_its_own_profile_only():
    data = {"profile": "laptop", "seeds": {}, "shuffled": [[0, 0.4, 500], [30, 0.3, 500]]}
    assert list(reinforcement.behind(data, "laptop").values()) == [[(0, 0.4), (30, 0.3)]]
    assert reinforcement.behind(data, "smoke") == {}


def test_the_committed_seeds_have_the_form_the_notebook_reads():
    data = reinforcement.seeds()
    assert set(data) >= {"profile", "sft", "seeds", "shuffled", "shuffled_without_kl"}
    assert len(data["seeds"]) >= 3
    assert len(reinforcement.seed_rows(data)) == len(data["seeds"]) + 2
