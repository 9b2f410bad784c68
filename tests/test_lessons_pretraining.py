"""The lessons of notebooks 03 and 04: what they count, train and measure."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import islice

import pytest
import torch

from nanolab.chat import render_conversation
from nanolab.checkpoint import load_model
from nanolab.data import ConversationBatches
from nanolab.errors import ConfigError
from nanolab.evals import Score
from nanolab.lessons import inside, midtraining, pretraining
from nanolab.model import GPT, GPTConfig
from nanolab.profiles import Profile, get_profile, override
from nanolab.stages import SupervisedStage, conversations, open_stage
from nanolab.tasks.tiny import TinyGSM
from nanolab.tinyworld.documents import documents
from nanolab.tinyworld.facts import facts
from nanolab.tinyworld.talk import turn
from nanolab.tokenizer import Tokenizer

TEXTS = list(islice(documents("train"), 400))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 400)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """Base text on disk, far less than a run would write."""
    path = tmp_path_factory.mktemp("text")
    for start in range(0, len(TEXTS), 10):
        (path / f"{start:03}.txt").write_text("\n\n".join(TEXTS[start : start + 10]), encoding="utf-8")
    return str(path)


@pytest.fixture
def profile(folder, tmp_path, monkeypatch) -> Profile:
    monkeypatch.setenv("NANOLAB_HOME", str(tmp_path))
    small = override(get_profile("smoke"), vocab_size=400, data=folder, device="cpu", dtype="float32")
    plan = replace(small.base, num_iterations=4, total_batch_size=128, device_batch_size=4, max_seq_len=32,
                   eval_every=-1, eval_tokens=128)  # fmt: skip
    return replace(small, sequence_len=64, base=plan, mid=plan)


@pytest.fixture
def stage(profile, tokenizer, tmp_path) -> SupervisedStage:
    tokenizer.save(tmp_path / "runs" / "t" / "tokenizer.json")
    return open_stage(profile, "base", "t")


def tiny(tokenizer: Tokenizer) -> GPT:
    return GPT(GPTConfig(64, tokenizer.get_vocab_size(), 1, 2, 2, 32))


# ---- 03


def test_a_fact_is_counted_in_each_of_its_phrasings():
    fact = next(fact for fact in facts() if len(fact.statements) > 2)
    counts = pretraining.told([" ".join(fact.statements[:2]), "Nothing is told here."])
    assert counts == {fact: 2}


def test_common_facts_are_told_far_more_often_than_rare_ones():
    common, uncommon, rare = pretraining.tier_rows(pretraining.told(islice(documents("train"), 3000)))
    assert common["times each was told"] > 4 * uncommon["times each was told"]
    assert uncommon["times each was told"] > 4 * rare["times each was told"] > 0


def test_a_histogram_holds_every_value_and_the_long_ones_last():
    shares = pretraining.histogram([3, 9, 10, 99], width=10, last=20)
    assert shares == {"0–9": 50.0, "10–19": 25.0, "20+": 25.0}
    with pytest.raises(ConfigError, match="nothing to count"):
        pretraining.histogram([], 10, 20)


def test_milestones_double_up_to_the_last_step():
    assert pretraining.milestones(320) == [0, 10, 20, 40, 80, 160, 320]
    assert pretraining.milestones(2) == [0, 1, 2]


def test_a_finished_stage_shows_its_childhood_again(stage, profile):
    panel = pretraining.Growth(stage, ["A <cat>"])
    for record in stage.steps():
        if panel.due(record):
            panel.write(record.index + 1)
    later = pretraining.Growth(open_stage(profile, "base", "t"), ["A <cat>"])
    assert later.samples == panel.samples
    assert sorted(later.samples) == later.steps == [0, 1, 2, 4]
    assert "&lt;cat&gt;" in later._repr_html_()
    assert "…" not in repr(later)


def test_the_panel_has_all_its_rows_before_training(stage):
    assert repr(pretraining.Growth(stage, ["A"])).count("…") == len([1, 2, 4])


def test_unshifted_targets_are_learnt_at_once(profile, tokenizer):
    batches = pretraining.base_batches(profile, tokenizer, rows=4)
    right = pretraining.trial(profile, tokenizer, 15)
    wrong = pretraining.trial(profile, tokenizer, 15, batches=((x, x) for x, _ in batches))
    assert right.train[0][1] == wrong.train[0][1] == pytest.approx(math.log(400), abs=1e-3)
    assert wrong.last() < right.last() - 1


def test_a_few_documents_are_learnt_by_heart(profile, tokenizer):
    new = list(islice(documents("train", seed=1), 3))
    few = pretraining.base_batches(profile, tokenizer, rows=4, documents=new)
    found = pretraining.trial(profile, tokenizer, 40, batches=few, validate_every=10)
    assert [step for step, _ in found.validation] == [0, 10, 20, 30, 40]
    assert found.last() < 2 < found.validation[-1][1]
    assert found.best[1] == min(loss for _, loss in found.validation)


def test_adamw_takes_muons_place(profile, tokenizer):
    by_muon, by_adamw = (pretraining.trial(profile, tokenizer, 3, adamw=rate) for rate in (None, 0.004))
    assert by_muon.train[0] == by_adamw.train[0]
    assert by_muon.train[2] != by_adamw.train[2]


def test_a_curve_is_smoothed_over_the_past():
    run = pretraining.Trial(torch.nn.Identity(), [(0, 4.0), (1, 2.0), (2, 0.0)])  # type: ignore[arg-type]
    assert run.curve(smooth=2) == ([0, 1, 2], [4.0, 3.0, 1.0])


def test_a_stopped_practice_goes_on_where_it_stopped(profile, tokenizer):
    class Course:
        def __init__(self) -> None:
            self.profile = profile

        def scratch(self, name: str) -> str:
            return f"scratch-{name}"

    practice = pretraining.practice_stage(Course(), tokenizer, steps=6)  # type: ignore[arg-type]
    for record in practice.steps():
        practice.stop.set = record.index == 2
    assert practice.stopped
    assert pretraining.reopened(practice).start == 3


def test_a_loss_is_as_many_tokens_as_it_says():
    said = inside.meaning(math.log(8), bytes_per_token=3.0)
    assert said["as unsure as between so many tokens"] == "8.0"
    assert (said["bits a token"], said["bits a byte"]) == ("3.00", "1.00")


def test_repetition_compresses_and_noise_does_not():
    noise = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=3000))
    assert inside.zlib_bits(["a cow. " * 500]) < 0.5 < 3 < inside.zlib_bits([noise])


def test_muon_evens_out_the_singular_values(tokenizer):
    model, ids = tiny(tokenizer), torch.arange(64).view(2, 32)
    with torch.no_grad():  # past the zeros that every model starts with, where most gradients vanish
        for weight in model.parameters():
            weight.normal_(std=0.1)
    before, after = inside.singular_values(model, (ids, ids), "transformer.h.0.mlp.c_fc.weight")
    assert before[0] == 1 and before == sorted(before, reverse=True)
    assert inside.directions(before) + 5 < inside.directions(after)
    assert all(weight.grad is None for weight in model.parameters())


def test_directions_are_counted_by_strength():
    assert inside.directions([3.0, 0.1, 0.1]) == 1
    assert inside.directions([1.0] * 10) == 9


def test_a_cloze_ends_before_its_answer():
    questions = inside.cloze("common", 50)
    assert len(questions) == 50
    for prompt, fact in questions:
        assert f"{prompt} {fact.answer}." == fact.canonical()


def test_a_model_that_writes_noise_recalls_nothing(tokenizer):
    assert inside.recall(tiny(tokenizer), tokenizer, inside.cloze("rare", 5)) == Score(0, 5)


def test_an_interval_stays_between_0_and_100():
    assert inside.interval(Score(0, 40))[0] == pytest.approx(0)
    below, above = inside.interval(Score(39, 40))
    assert below > above >= 0 and 97.5 + above <= 100


# ---- 04


def test_every_token_of_a_conversation_has_its_kind(tokenizer):
    conversation = {"messages": turn("I am 7.", "Good.")}
    names, mask = midtraining.as_chips(conversation, tokenizer)
    ids, _ = render_conversation(tokenizer, conversation)
    kinds = midtraining.token_kinds(ids, tokenizer)
    assert [kind for kind, name in zip(kinds, names, strict=True) if name.startswith("<|")] == ["special"] * 5
    assert kinds[names.index("7")] == "digits"
    assert {kind for kind, learned in zip(kinds, mask, strict=True) if learned} == {"assistant", "special"}
    assert kinds[2] == "user"


def test_the_parts_of_a_loss_add_up_to_it(profile, tokenizer):
    model = tiny(tokenizer)
    task = conversations(profile, "mid", "val")
    batches = list(islice(ConversationBatches(task, tokenizer, 4, 64, supervise="all"), 2))
    kinds = midtraining.loss_by_kind(model, batches, tokenizer)
    assert sum(kind.part for kind in kinds.values()) == pytest.approx(math.log(400), abs=1e-3)
    assert sum(kind.share for kind in kinds.values()) == pytest.approx(100)


def test_the_spike_is_shown_again_by_a_finished_stage(stage, profile):
    for _ in stage.steps():
        pass
    base, _, _ = load_model("base", model_tag="t")
    mid = open_stage(profile, "mid", "t")
    probe = midtraining.SpikeProbe(mid, base, batches=1)
    for record in mid.steps():
        if probe.due(record):
            probe.measure(record.index + 1)
    later = midtraining.SpikeProbe(open_stage(profile, "mid", "t"), base, batches=1)
    assert later.found == probe.found and sorted(later.found) == [0, 1, 2, 4]
    assert sum(later.part_of_fall(kind) for kind in midtraining.KINDS) == pytest.approx(100)
    curves = midtraining.joined(mid.log.rows(), tail=2)
    assert curves["base, its last steps"][0] == [-2, -1] and curves["mid"][0] == [0, 1, 2, 3]


def test_a_stage_trained_elsewhere_still_has_both_ends_of_its_spike(stage, profile):
    for _ in stage.steps():
        pass
    base, _, _ = load_model("base", model_tag="t")
    mid = open_stage(profile, "mid", "t")
    for _ in mid.steps():
        pass
    assert sorted(midtraining.SpikeProbe(mid, base, batches=1).found) == [0, 4]


def test_rows_of_base_text_replace_rows_of_talk():
    talk, text = (torch.zeros(4, 8), torch.zeros(4, 8)), (torch.ones(4, 8), torch.ones(4, 8))
    inputs, targets = next(midtraining.with_base_text(iter([talk]), iter([text]), 1))
    assert inputs[:, 0].tolist() == targets[:, 0].tolist() == [1, 0, 0, 0]


def test_a_short_midtraining_leaves_its_model_alone(profile, tokenizer):
    model = tiny(tokenizer)
    before = model.lm_head.weight.clone()
    student = midtraining.short_mid(model, tokenizer, profile, 2, text_rows=1, rows=2)
    assert model.lm_head.weight.equal(before)
    assert not student.lm_head.weight.equal(before)


def test_only_a_reply_that_ends_with_the_token_hands_over():
    assert midtraining.hands_over(["Yes.<|assistant_end|>", "Yes.<|bos|>"]) == 50


def test_the_calculator_writes_what_the_model_does_not():
    rows = midtraining.pieces(TinyGSM(split="train")[0])
    assert [row["who writes it"] for row in rows if row["part"] == "python_output"] == ["the calculator"]
    assert rows[0]["who writes it"] == "the user" and rows[-1]["who writes it"] == "the model"
