"""GRPO against REINFORCE and closed forms; a toy policy really improves."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanolab.compute import Compute
from nanolab.engine import Sample
from nanolab.grpo import Rollout, group_advantages, grpo, policy_loss, rollout_batches, token_logprobs
from nanolab.model import GPT, GPTConfig
from nanolab.optim import LearningRates, Schedule, build_optimizers
from nanolab.profiles import RLPlan

CONFIG = GPTConfig(sequence_len=32, vocab_size=30, n_layer=2, n_head=2, n_kv_head=2, n_embd=32)
CPU = Compute(torch.device("cpu"), torch.float32, "test")


def awake_model(seed=0):
    torch.manual_seed(seed)
    model = GPT(CONFIG)
    torch.nn.init.normal_(model.lm_head.weight, std=0.1)
    return model


def some_rollout(rewards):
    """Two prompts of different length with three answers each, one of them with forced tokens."""
    prompts = [[1, 2, 3], [1, 4]]
    samples = [
        [
            Sample([5, 6, 9], [1, 1, 1], True),
            Sample([7], [1], False),
            Sample([8, 8, 8, 9], [1, 0, 0, 1], True),
        ],
        [Sample([6, 9], [1, 1], True), Sample([10, 11, 12, 13], [1] * 4, False), Sample([9], [1], True)],
    ]
    return Rollout(prompts, samples, torch.tensor(rewards, dtype=torch.float32))


def gradient(model, loss):
    return torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)


def assert_gradients_close(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        if a is None or b is None:
            assert a is None and b is None
        else:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def reinforce(model, rollout, advantages):
    """REINFORCE written naively: one answer at a time, one token at a time."""
    total, tokens = torch.zeros(()), 0
    for prompt, group, row in zip(rollout.prompts, rollout.samples, advantages.tolist(), strict=True):
        for sample, advantage in zip(group, row, strict=True):
            logprobs = torch.log_softmax(model(torch.tensor([prompt + sample.ids]))[0], dim=-1)
            for position, (token, sampled) in enumerate(zip(sample.ids, sample.mask, strict=True)):
                if sampled:
                    total = total - advantage * logprobs[len(prompt) + position - 1, token]
                    tokens += 1
    return total / tokens


def grpo_gradient(model, rollout, rows, **options):
    advantages = group_advantages(rollout.rewards)
    total = torch.zeros(())
    for inputs, targets, advantage in rollout_batches(rollout, advantages, rows, 0, torch.device("cpu")):
        logprobs = token_logprobs(model, inputs, targets, CPU)
        total = total + policy_loss(
            logprobs, advantage, targets >= 0, denominator=rollout.sampled_tokens, **options
        )
    return gradient(model, total)


@pytest.mark.parametrize("options", [{}, {"clip": 0.2}])
def test_first_step_equals_reinforce(options):
    model, rollout = awake_model(), some_rollout([[1, 0, 1], [0, 0, 1]])
    expected = gradient(model, reinforce(model, rollout, group_advantages(rollout.rewards)))
    assert_gradients_close(grpo_gradient(model, rollout, 64, **options), expected)


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_gradient_does_not_depend_on_micro_batches(rows):
    model, rollout = awake_model(), some_rollout([[1, 0, 1], [0, 0, 1]])
    assert_gradients_close(grpo_gradient(model, rollout, rows), grpo_gradient(model, rollout, 64))


def test_a_group_without_variance_contributes_exactly_nothing():
    rollout = some_rollout([[1, 1, 1], [0, 0, 1]])
    inputs, _targets, _ = zip(
        *rollout_batches(rollout, group_advantages(rollout.rewards), 64, 0, torch.device("cpu")), strict=True
    )
    assert inputs[0].size(0) == 3  # the second group's answers only
    nothing = some_rollout([[1, 1, 1], [0, 0, 0]])
    assert not list(rollout_batches(nothing, group_advantages(nothing.rewards), 64, 0, torch.device("cpu")))


def test_prompt_tool_output_and_padding_are_not_trained_and_the_end_token_is():
    rollout = some_rollout([[1, 0, 0], [1, 1, 1]])
    ((inputs, targets, _),) = rollout_batches(
        rollout, group_advantages(rollout.rewards), 64, 0, torch.device("cpu")
    )
    by_length = {tuple(row[row >= 0].tolist()) for row in targets}
    assert by_length == {(7,), (5, 6, 9), (8, 9)}
    assert (inputs[:, 0] == 1).all() and (targets[:, :2] == -1).all()


def test_equal_rewards_teach_nothing():
    assert group_advantages(torch.full((3, 8), 0.1)).eq(0).all()
    assert group_advantages(torch.full((3, 7), 0.1), normalise=True).eq(0).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=6))
def test_advantages_of_a_group_sum_to_zero_and_keep_the_order(rewards):
    rewards = torch.tensor(rewards, dtype=torch.float32)
    for normalise in (False, True):
        advantages = group_advantages(rewards, normalise=normalise)
        assert advantages.sum(dim=1).abs().max() < 1e-4
        difference = rewards[:, :, None] - rewards[:, None, :]
        assert ((advantages[:, :, None] - advantages[:, None, :]) * difference >= -1e-6).all()


def test_normalised_advantages_have_unit_variance():
    advantages = group_advantages(torch.tensor([[0.0, 0.0, 0.0, 1.0], [5.0, 7.0, 5.0, 7.0]]), normalise=True)
    torch.testing.assert_close(advantages.square().mean(dim=1), torch.ones(2))


def test_clipping_stops_the_gradient_beyond_the_trusted_ratio():
    old = torch.zeros(2, 1)
    logprobs = torch.tensor([[0.5], [-0.5]], requires_grad=True)  # ratios 1.65 and 0.61
    advantages = torch.tensor([1.0, -1.0])  # both have already moved far the way they should
    loss = policy_loss(logprobs, advantages, torch.ones(2, 1), old_logprobs=old, clip=0.2)
    assert torch.autograd.grad(loss, logprobs)[0].eq(0).all()
    back = policy_loss(logprobs, -advantages, torch.ones(2, 1), old_logprobs=old, clip=0.2)
    assert torch.autograd.grad(back, logprobs)[0].ne(0).all()


def test_k3_is_zero_at_equality_positive_elsewhere_and_unbiased():
    p = torch.tensor([0.5, 0.3, 0.2])
    q = torch.tensor([0.2, 0.2, 0.6])
    k3 = [
        policy_loss(
            p[i].log().view(1, 1), torch.zeros(1), torch.ones(1, 1),
            reference_logprobs=q[i].log().view(1, 1), kl_weight=1.0,
        )
        for i in range(3)
    ]  # fmt: skip
    expected = (p * (p / q).log()).sum()
    assert sum(p[i] * k3[i] for i in range(3)).item() == pytest.approx(expected.item(), rel=1e-5)
    assert min(k3) > 0
    same = policy_loss(
        p.log()[None], torch.zeros(1), torch.ones(1, 3), reference_logprobs=p.log()[None], kl_weight=1.0
    )
    assert same.item() == 0


class ToyTokenizer:
    """Just enough of a tokenizer for the loop: id 0 begins, 1 ends a text."""

    def get_bos_token_id(self):
        return 0


class ToyEngine:
    """Samples one token after a one-token prompt."""

    tokenizer = ToyTokenizer()

    def __init__(self, model):
        self.model = model

    @torch.no_grad()
    def generate_batch(self, prompts, *, num_samples, seed, **_):
        generator = torch.Generator().manual_seed(seed)
        probs = torch.softmax(self.model(torch.tensor(prompts))[:, -1], dim=-1)
        drawn = torch.multinomial(probs, num_samples, replacement=True, generator=generator)
        return [[Sample([token], [1], True) for token in row] for row in drawn.tolist()]

    def completion_text(self, sample):
        return str(sample.ids[0])

    def in_format(self, dtype):
        return self


class ParityTask:
    """Right answers are the even tokens."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {"messages": [], "index": index}

    def reward(self, conversation, completion):
        return float(int(completion) % 2 == 0)


def test_each_step_samples_from_its_own_weights_in_the_format_of_the_products(monkeypatch):
    monkeypatch.setattr(
        "nanolab.grpo.render_for_completion", lambda tokenizer, example: [2 + example["index"]]
    )
    model, sampled = awake_model(), []

    class Noting(ToyEngine):
        dtype = torch.float32

        def in_format(self, dtype):
            other = Noting(self.model)
            other.dtype = dtype
            return other

        def generate_batch(self, prompts, **options):
            sampled.append((self.dtype, self.model.lm_head.weight.detach().clone()))
            return super().generate_batch(prompts, **options)

    plan = RLPlan(3, examples_per_step=4, num_samples=8)
    compute = Compute(torch.device("cpu"), torch.bfloat16, "for the test")
    optimizers = build_optimizers(model, LearningRates())
    list(grpo(model, Noting(model), optimizers, ParityTask(), plan, Schedule(3), compute=compute))
    assert [dtype for dtype, _ in sampled] == [torch.bfloat16] * 3
    first, second, third = (weight for _, weight in sampled)
    assert not first.equal(second) and not second.equal(third)


@pytest.mark.parametrize(
    "options", [{}, {"normalise_std": True}, {"updates_per_step": 2, "clip": 0.2}, {"kl_weight": 0.001}]
)
def test_rewards_rise_and_shuffled_rewards_do_not(options, monkeypatch):
    monkeypatch.setattr(
        "nanolab.grpo.render_for_completion", lambda tokenizer, example: [2 + example["index"]]
    )

    def final_reward(shuffle):
        model = awake_model()
        optimizers = build_optimizers(model, LearningRates(), fraction=0.1)
        plan = RLPlan(50, examples_per_step=4, num_samples=8, shuffle_rewards=shuffle, **options)
        reference = awake_model() if "kl_weight" in options else None
        records = list(
            grpo(model, ToyEngine(model), optimizers, ParityTask(), plan, Schedule(50), reference=reference)
        )
        assert records[0].reward == pytest.approx(0.5, abs=0.25)
        assert all(record.tokens == 32 and record.length == 1 and record.finished == 1 for record in records)
        return sum(record.reward for record in records[-5:]) / 5

    assert final_reward(shuffle=False) > 0.8
    if not options:
        assert final_reward(shuffle=True) < 0.75


def test_the_kl_penalty_holds_a_run_without_a_signal_near_its_start(monkeypatch):
    """Pushed at random, a model drifts: Muon's steps are as large for noise as for a signal."""
    monkeypatch.setattr(
        "nanolab.grpo.render_for_completion", lambda tokenizer, example: [2 + example["index"]]
    )
    start = awake_model()
    prompts = torch.arange(2, 10)[:, None]

    def drift(kl_weight):
        """KL(trained || start) of the first token's distribution, in nats, mean over the prompts."""
        model = awake_model()
        plan = RLPlan(40, examples_per_step=4, num_samples=8, shuffle_rewards=True, kl_weight=kl_weight)
        optimizers = build_optimizers(model, LearningRates(), fraction=0.1)
        list(grpo(model, ToyEngine(model), optimizers, ParityTask(), plan, Schedule(40), reference=start))
        with torch.no_grad():
            p, q = (one(prompts)[:, -1].log_softmax(-1) for one in (model, start))
        return (p.exp() * (p - q)).sum(-1).mean().item()

    assert drift(0.5) < 0.5 * drift(0.0)
