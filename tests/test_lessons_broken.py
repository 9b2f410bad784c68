"""The trainings of challenges 2 and 8: what a sweep keeps, and what each fault does."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import pytest
import torch

from nanolab.errors import ConfigError
from nanolab.lessons import broken, sweeps
from nanolab.lessons.ward import Ward
from nanolab.model import GPT, GPTConfig
from nanolab.profiles import get_profile, override
from nanolab.tinyworld.documents import documents
from nanolab.tokenizer import Tokenizer
from nanolab.train import Diverged

TEXTS = list(islice(documents("train"), 400))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 400)


@pytest.fixture(scope="module")
def course(tokenizer):
    """A course with an untrained model of one layer, for small trainings."""
    profile = override(
        get_profile("smoke"), vocab_size=400, device="cpu", dtype="float32",
        mid_sizes={"talk": 200}, sft_sizes={"talk": 200},
    )  # fmt: skip
    profile = replace(profile, base=replace(profile.base, max_seq_len=32, device_batch_size=4))
    torch.manual_seed(0)
    model = GPT(GPTConfig(128, tokenizer.get_vocab_size(), 1, 2, 2, 32))
    return SimpleNamespace(
        profile=profile, load=lambda stage: (model, tokenizer, {}), pick=lambda *, laptop, smoke: smoke
    )


@pytest.fixture(scope="module")
def ward(course) -> Ward:
    return Ward(course)


# ---- sweeps


def test_a_sweep_changes_nothing_but_the_rate(course, tokenizer):
    runs = sweeps.sweep(course, tokenizer, [0.0, 0.02], 10)
    assert [len(run.losses) for run in runs.values()] == [10, 10]
    assert runs[0.0].losses[0] == runs[0.02].losses[0] == pytest.approx(math.log(400), abs=1e-3)
    assert list(runs[0.02].validation) == sweeps.marks_of(10) == [2, 6, 10]
    assert runs[0.02].losses[1] != runs[0.0].losses[1] or runs[0.02].losses[2] != runs[0.0].losses[2]
    again = sweeps.sweep(course, tokenizer, [0.02], 10, behind=runs)
    assert again[0.02].losses == runs[0.02].losses


def test_a_sweep_of_adamw_trains_the_matrices_with_adamw(course, tokenizer):
    muon, adamw = (
        sweeps.sweep(course, tokenizer, [0.02], 4, optimizer=optimizer)[0.02]
        for optimizer in sweeps.OPTIMIZERS
    )
    assert (muon.name, adamw.name) == ("Muon 0.02", "AdamW 0.02")
    assert muon.losses[-1] != adamw.losses[-1]
    with pytest.raises(ConfigError, match="choose one of Muon, AdamW"):
        sweeps.sweep(course, tokenizer, [0.02], 4, optimizer="SGD")


@pytest.mark.parametrize("rates", [0.02, [], [-0.02], ["0.02"]])
def test_a_sweep_needs_a_list_of_rates(course, tokenizer, rates):
    with pytest.raises(ConfigError, match="a list of numbers, none below 0"):
        sweeps.sweep(course, tokenizer, rates, 4)


def test_a_run_that_diverges_ends_and_the_others_go_on(course, tokenizer, monkeypatch):
    rightly, lost = sweeps.fit, []

    def fit(model, optimizers, *rest, **more):
        for record in rightly(model, optimizers, *rest, **more):
            yield record
            if record.index == 2 and optimizers[1].param_groups[0]["initial_lr"] == 0.5:
                lost.append(record)
                raise Diverged("the loss is nan")

    monkeypatch.setattr(sweeps, "fit", fit)
    runs = sweeps.sweep(course, tokenizer, [0.5, 0.02], 10)
    assert len(runs[0.5].losses) == 4 and math.isnan(runs[0.5].losses[-1]) and lost
    assert list(runs[0.5].validation) == [2]
    assert len(runs[0.02].losses) == 10


# ---- the ward


def mended_cut(stream, rows, context):
    return stream[:-1].view(rows, context), stream[1:].view(rows, context)


def mended_advantages(rewards):
    return rewards - rewards.mean(dim=1, keepdim=True)


def test_unshifted_targets_are_learned_at_once_and_only_them(ward):
    sick = ward.run("A")
    healed = ward.run("A", mended_cut, before=sick)
    assert sick.curves["train"][0][1] == pytest.approx(healed.curves["train"][0][1])
    assert sick.last() < healed.last() - 0.5
    assert ward.copies(sick) > ward.copies(healed) + 30


def test_a_rate_a_hundred_times_too_high_is_worse_than_none(ward):
    sick = ward.run("B")
    healed = ward.run("B", lambda step, peak, warmup: peak * min(1, (step + 1) / warmup), before=sick)
    assert max(loss for _, loss in sick.curves["train"]) > sick.curves["train"][0][1] + 0.5
    assert healed.last() < sick.last()


def test_what_leaked_flatters_the_validation(ward):
    def mended(texts, count):
        return [text for text in texts if text not in texts[:count]], texts[:count]

    sick, healed = ward.run("C"), ward.run("C", mended)
    assert sick.last("validation", 1) < healed.last("validation", 1)
    assert ward.fresh_loss(sick) > sick.last("validation", 1)


def test_a_model_taught_the_questions_predicts_them_better(ward):
    sick = ward.run("D")
    healed = ward.run("D", lambda ids, mask: ids[1:].masked_fill(mask[1:] == 0, -1))
    assert sick.last("new questions", 1) < healed.last("new questions", 1)
    assert ward.losses_by_writer(sick)["user"] < ward.losses_by_writer(healed)["user"]


def test_equal_rewards_end_the_training_unless_the_division_is_mended(ward):
    sick = ward.run("E")
    assert sick.rewards[-1] == [[0.0] * 4] and "the gradient of step 1 is nan" in sick.ended
    assert "no answer" in sick.write("One morning")
    healed = ward.run("E", mended_advantages, before=sick)
    assert healed.ended == "" and len(healed.rewards) == 3 and "no answer" not in healed.write("One")


def test_calls_are_paid_as_found_and_right_numbers_when_mended(ward):
    assert broken.points("3 + 4 = <<3+4=7>>7 <<7=7>>", "12") == 2.0
    assert len(ward.run("F").curves["mean reward"]) == 2
    assert set(ward.habits(ward.chat_model)) == {"reward", "right (%)", "calls an answer", "an answer"}


def test_only_the_six_cases_can_be_run_and_each_shows_its_function(ward, capsys):
    with pytest.raises(ConfigError, match="The cases are A, B, C, D, E, F"):
        ward.run("G")
    for case, function in broken.FAULTY.items():
        broken.show_code(case)
        assert f"def {function.__name__}(" in capsys.readouterr().out
