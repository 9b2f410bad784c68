"""The checks of challenge 8: right answers pass, and each wrong one hears of its own misconception."""

from __future__ import annotations

import math
import random
import re
from types import SimpleNamespace

import pytest
import torch
from checking import refused

from nanolab.checks import NotAttempted, broken_runs
from nanolab.grpo import group_advantages
from nanolab.lessons import broken
from nanolab.tasks.gsm8k import extract_answer


def patient(case: str):
    return SimpleNamespace(case=case, curves={"train": [(1, 7.6), (2, 0.02)]})


# ---- naming the fault

RIGHT_NAMES = {"A": "targets", "B": "too fast", "C": "leak", "D": "mask", "E": "division", "F": "reward"}


@pytest.mark.parametrize("case", "ABCDEF")
def test_each_fault_is_accepted_by_its_name_and_no_other_suspect_is(case):
    for suspect in broken.SUSPECTS:
        if suspect == RIGHT_NAMES[case]:
            broken_runs.diagnosis(patient(case), suspect)
        else:
            assert f"has another fault than '{suspect}'" in refused(
                broken_runs.diagnosis, patient(case), suspect
            )


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("A", "The targets are not shifted."), ("A", "unshifted targets"), ("B", "learning rate times 100"),
        ("B", "the learning rate is much too high"), ("C", "validation rows are in the training set"),
        ("C", "data leak"), ("D", "prompt tokens in the loss"), ("D", "The mask is ignored"),
        ("E", "zero variance group"), ("E", "division by zero"), ("F", "reward hacking"), ("F", "REWARD"),
        ("F", "the model is paid for calls"), ("A", "it copies"), ("A", "off by one"), ("C", "contamination"),
        ("E", "0/0"), ("E", "the std is 0"),
    ],
)  # fmt: skip
def test_a_fault_may_be_named_in_other_words(case, words):
    broken_runs.diagnosis(patient(case), words)


@pytest.mark.parametrize(
    ("case", "blamed", "says"),
    [
        ("A", "learning rate too high", "falls smoothly, and far too low"),
        ("A", "leak", "ask it for a sentence"),
        ("A", "small", "too good to be true"),
        ("B", "too slow", "leaps above where it began"),
        ("B", "targets", "can be learned as well"),
        ("B", "division", "These losses are numbers"),
        ("C", "too fast", "both losses fall smoothly"),
        ("C", "small", "by heart"),
        ("C", "mask", "every token counts"),
        ("D", "too fast", "it falls as it should"),
        ("D", "leak", "The validation is honest"),
        ("D", "targets", "is it its job"),
        ("E", "too fast", "lost in a single step"),
        ("E", "reward", "The reward is honest"),
        ("E", "too slow", "Nothing that was measured speaks for it"),
        ("F", "too fast", "just what it was paid for"),
        ("F", "division", "all numbers are finite"),
        ("F", "leak", "Which number went up"),
    ],
)
def test_what_clears_a_suspect_is_said(case, blamed, says):
    assert says in refused(broken_runs.diagnosis, patient(case), blamed)


def test_a_diagnosis_names_one_known_suspect():
    for words in ("bad luck", "the answer stood in the question"):
        assert "none of the suspects" in refused(broken_runs.diagnosis, patient("A"), words)
    assert "Make up your mind" in refused(broken_runs.diagnosis, patient("A"), "targets or the leak")
    assert "by a text" in refused(broken_runs.diagnosis, patient("A"), 7)
    with pytest.raises(NotAttempted):
        broken_runs.diagnosis(patient("A"), ...)


# ---- mending it


def mended_cut(stream, rows, context):
    return stream[:-1].view(rows, context), stream[1:].view(rows, context)


def mended_rate(step, peak, warmup):
    return peak * min(1.0, (step + 1) / warmup)


def mended_split(texts, count):
    validation = texts[:count]
    return [text for text in texts if text not in set(validation)], validation


def mended_targets(ids, mask):
    return ids[1:].masked_fill(mask[1:] == 0, -1)


def mended_advantages(rewards):
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    spread = centred.square().mean(dim=1, keepdim=True).sqrt()
    equal = (rewards == rewards[:, :1]).all(dim=1, keepdim=True)
    return torch.where(equal, 0.0, centred / spread)


def mended_points(reply, answer):
    return 1.0 if extract_answer(reply) == answer else 0.0


MENDED = {
    "cut_rows": mended_cut, "rate_at": mended_rate, "split_documents": mended_split,
    "chat_targets": mended_targets, "scaled_advantages": mended_advantages, "points": mended_points,
}  # fmt: skip
FOUND = {function.__name__: function for function in broken.FAULTY.values()}


@pytest.mark.parametrize("name", MENDED)
def test_the_mended_function_passes(name):
    getattr(broken_runs, name)(MENDED[name])


def last_for_validation(texts, count):
    validation = texts[-count:]
    return tuple(text for text in texts if text not in validation), tuple(validation)


def shuffled_split(texts, count):
    distinct = sorted(set(texts))
    random.Random(1).shuffle(distinct)
    return distinct[count:], distinct[:count]


def listed_targets(ids, mask):
    return [int(id) if learned else -1 for id, learned in zip(ids[1:], mask[1:], strict=True)]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("cut_rows", lambda s, r, c: [s[:-1].reshape(r, c), s[1:].reshape(r, c)]),
        ("rate_at", lambda step, peak, warmup: torch.tensor(mended_rate(step, peak, warmup))),
        ("rate_at", lambda step, peak, warmup: peak * min(100, 100 * (step + 1) / warmup) / 100),
        ("split_documents", last_for_validation),
        ("split_documents", shuffled_split),
        ("chat_targets", lambda ids, mask: torch.tensor(listed_targets(ids, mask))),
        ("scaled_advantages", lambda rewards: group_advantages(rewards, normalise=True)),
        ("points", lambda reply, answer: extract_answer(reply) == answer),
    ],
)
def test_other_right_ways_pass_as_well(name, other):
    getattr(broken_runs, name)(other)


@pytest.mark.parametrize("name", MENDED)
def test_a_function_that_is_still_blank_was_not_attempted(name):
    with pytest.raises(NotAttempted):
        getattr(broken_runs, name)(lambda *args: ...)
    with pytest.raises(NotAttempted):
        getattr(broken_runs, name)(...)


def drop_equal(rewards):
    return mended_advantages(rewards)[(rewards != rewards[:, :1]).any(dim=1)]


def rolled_rows(s, r, c):
    return s[:-1].view(r, c), s[:-1].view(r, c).roll(-1, dims=1)


def centre(rewards):
    return rewards - rewards.mean(dim=1, keepdim=True)


def spread(rewards):
    return centre(rewards).square().mean(dim=1, keepdim=True).sqrt()


def after_marks(reply):
    return re.findall(r"####\s*([\d,]+)", reply)


WRONG = [
    ("cut_rows", FOUND["cut_rows"], "not shifted. It need only copy"),
    ("cut_rows", lambda s, r, c: (s[:-1].view(r, c), s.roll(-2)[:-1].view(r, c)), "two tokens ahead"),
    ("cut_rows", lambda s, r, c: (s[1:].view(r, c), s[:-1].view(r, c)), "shifted the wrong way"),
    ("cut_rows", lambda s, r, c: (s[:-1].view(r, c), s.roll(1)[:-1].view(r, c)), "shifted the wrong way"),
    ("cut_rows", rolled_rows, "first token of the same row"),
    ("cut_rows", lambda s, r, c: (s[:-1].view(r, c), s[:-1].roll(-1).view(r, c)), "of the whole batch"),
    ("cut_rows", lambda s, r, c: mended_cut(s, r, c)[::-1], "wrong way"),
    ("cut_rows", lambda s, r, c: (s[2:].view(r, c), s[2:].view(r, c)), "raised RuntimeError"),
    ("cut_rows", lambda s, r, c: [x.tolist() for x in mended_cut(s, r, c)], "should return tensors"),
    ("cut_rows", lambda s, r, c: [x.float() for x in mended_cut(s, r, c)], "whole numbers"),
    ("chat_targets", listed_targets, "should return tensors"),
    ("chat_targets", lambda i, m: mended_targets(i, m).float(), "whole numbers"),
    ("scaled_advantages", lambda r: mended_advantages(r).tolist(), "should return tensors"),
    ("rate_at", lambda step, peak, warmup: (mended_rate(step, peak, warmup),), "makes a tuple"),
    ("rate_at", lambda step, peak, warmup: mended_rate(step, 1, warmup), "multiply by `peak`"),
    ("rate_at", lambda s, p, w: p * (s + 1) / w if s <= w else p, "One stair too many"),
    ("split_documents", lambda t, n: (t[n:], [x for x in t[:n] if x not in t[n:]]), "not the validation"),
    ("scaled_advantages", lambda r: centre(r) / spread(r).clamp_min(1e-6), "to a computer"),
    ("scaled_advantages", lambda r: torch.where(r == r[:, :1], 0.0, centre(r) / spread(r)), "whole row"),
    ("points", lambda r, a: float(f"#### {a}" in r), "begins a longer number"),
    ("points", lambda r, a: 1.0 if mended_points(r, a) else -1.0, "not less"),
    ("points", lambda r, a: float(extract_answer(r) == int(a)), "It never pays"),
    ("rate_at", FOUND["rate_at"], "per cent are taken for shares"),
    ("rate_at", lambda step, peak, warmup: peak * min(1, 100 * (step + 1) / warmup), "no warm-up left"),
    ("rate_at", lambda step, peak, warmup: peak, "no warm-up left"),
    ("rate_at", lambda step, peak, warmup: peak * min(1, step / warmup), "teaches nothing"),
    ("rate_at", lambda step, peak, warmup: peak * (step + 1) / warmup, "climbs on beyond the peak"),
    ("rate_at", lambda step, peak, warmup: mended_rate(step, peak, warmup) / 100, "hundred times too low"),
    ("rate_at", lambda step, peak, warmup: 0.02, "typed in by hand"),
    ("split_documents", FOUND["split_documents"], "Validation rows in training"),
    ("split_documents", lambda t, n: (t[n:], t[:n]), "A text may be there twice"),
    ("split_documents", lambda t, n: (t, []), "leaks nothing, and measures nothing"),
    ("split_documents", lambda t, n: (t[n + 2 :], t[:n]), "in neither list"),
    ("split_documents", lambda t, n: mended_split(t, n)[::-1], "the two are exchanged"),
    ("split_documents", lambda t, n: ([t.pop() for _ in range(n)], t), "changed the list"),
    ("split_documents", lambda t, n: (["one"], ["two"] * n), "was not among them"),
    ("split_documents", lambda t, n: 0.1, "Two lists are expected"),
    ("chat_targets", FOUND["chat_targets"], "the prompt still counts"),
    ("chat_targets", lambda i, m: i[1:].masked_fill(m[1:] == 1, -1), "mask is inverted"),
    ("chat_targets", lambda i, m: i[1:].masked_fill(m[:-1] == 0, -1), "was not shifted with the targets"),
    ("chat_targets", lambda i, m: i[1:].masked_fill((m[1:] * m[:-1]) == 0, -1), "first token of each answer"),
    ("chat_targets", lambda i, m: i[1:].masked_fill((m * m.roll(-1))[1:] == 0, -1), "learn to stop"),
    ("chat_targets", lambda i, m: i[1:] * m[1:], "must be -1"),
    ("chat_targets", lambda i, m: i.masked_fill(m == 0, -1), "T tokens have T - 1 targets"),
    ("chat_targets", lambda i, m: i[:-1].masked_fill(m[:-1] == 0, -1), "inputs are given as targets"),
    ("scaled_advantages", FOUND["scaled_advantages"], "0 / 0 is nan"),
    *[("scaled_advantages", lambda r, e=e: centre(r) / (spread(r) + e), "hides the division")
      for e in (1e-8, 1e-6, 1e-4, 1e-3)],
    ("scaled_advantages", lambda r: torch.nan_to_num(centre(r) / spread(r)), "to a computer"),
    ("scaled_advantages", lambda r: torch.where(spread(r) > 0, centre(r) / spread(r), 0.0), "to a computer"),
    ("scaled_advantages", lambda r: mended_advantages(r) * math.sqrt((r.size(1) - 1) / r.size(1)), "n - 1"),
    ("scaled_advantages", centre, "Not divided at all"),
    ("scaled_advantages", drop_equal, "each group keeps its row"),
    ("scaled_advantages", lambda r: centre(r) / centre(r).square().mean().sqrt(), "whole batch"),
    ("points", FOUND["points"], "still pays for calls"),
    ("points", lambda r, a: mended_points(r, a) + min(4, r.count("<<")), "on top of the right answer"),
    ("points", lambda r, a: a in r, "lists all numbers"),
    ("points", lambda r, a: r.endswith(a), "ends with the digits"),
    ("points", lambda r, a: "####" in r, "It pays for the form"),
    ("points", lambda r, a: float(extract_answer("####" + r.split("####")[-1]) == a and "####" in r), "The first counts"),
    ("points", lambda r, a: after_marks(r)[:1] == [a], "are the same number"),
    ("points", lambda r, a: 1 - mended_points(r, a), "exchanged"),
    ("points", lambda r, a: 1.0, "typed in by hand"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "wrong", "says"), WRONG, ids=[f"{n}-{says[:24]}" for n, _, says in WRONG])
def test_a_wrong_function_hears_of_its_misconception(name, wrong, says):
    assert says in refused(getattr(broken_runs, name), wrong)


def test_a_function_without_an_end_is_given_up(monkeypatch):
    def endless(reply, answer):
        while True:
            pass

    monkeypatch.setattr(
        broken_runs, "check_function",
        lambda *args, **more: broken_runs_check(*args, **{**more, "seconds": 0.3}),
    )  # fmt: skip
    from nanolab.checks.core import check_function as broken_runs_check

    assert "a loop that never ends" in refused(broken_runs.points, endless)
