"""The loop: it learns, its gradient does not depend on micro-batches, it stops and resumes exactly."""

import math

import pytest
import torch

from nanolab.model import GPT, GPTConfig
from nanolab.optim import LearningRates, Schedule, build_optimizers
from nanolab.train import Diverged, fit

CONFIG = GPTConfig(sequence_len=16, vocab_size=40, n_layer=2, n_head=2, n_kv_head=2, n_embd=32)


def endless(batches):
    while True:
        yield from batches


def counting_batches(rows=4, seed=0):
    """Rows that count upwards: learnt within a few steps."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        start = torch.randint(40, (rows, 1), generator=generator)
        row = (start + torch.arange(17)) % 40
        yield row[:, :-1], row[:, 1:]


def fresh(seed=0, **rates):
    torch.manual_seed(seed)
    model = GPT(CONFIG)
    return model, build_optimizers(model, LearningRates(**rates))


def test_counting_is_learnt_from_ln_vocab():
    model, optimizers = fresh()
    records = list(fit(model, optimizers, counting_batches(), Schedule(80)))
    assert records[0].loss == pytest.approx(math.log(40), abs=1e-4)
    assert records[-1].loss < 0.3
    assert [r.index for r in records] == list(range(80))
    assert all(r.tokens == r.supervised == 64 and r.seconds > 0 for r in records)


def test_one_batch_can_be_learnt_by_heart():
    torch.manual_seed(3)
    batch = (torch.randint(40, (2, 16)), torch.randint(40, (2, 16)))
    model, optimizers = fresh()
    assert list(fit(model, optimizers, endless([batch]), Schedule(120)))[-1].loss < 0.05


def test_the_step_does_not_depend_on_micro_batches():
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randint(40, (4, 16), generator=generator)
    targets = torch.randint(40, (4, 16), generator=generator)
    targets[0, 3:] = -1
    targets[2] = -1
    weights = []
    for parts in (1, 2, 4):
        model, optimizers = fresh()
        batches = zip(inputs.chunk(parts), targets.chunk(parts), strict=True)
        record = next(fit(model, optimizers, batches, Schedule(1), micro_batches=parts))
        weights.append((record.loss, [p.detach().clone() for p in model.parameters()]))
    for loss, params in weights[1:]:
        assert loss == pytest.approx(weights[0][0], rel=1e-5)
        for a, b in zip(params, weights[0][1], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same_losses_bit_for_bit():
    runs = []
    for _ in range(2):
        model, optimizers = fresh()
        runs.append([r.loss for r in fit(model, optimizers, counting_batches(), Schedule(10))])
    assert runs[0] == runs[1]


def test_stopping_early_leaves_a_usable_model():
    model, optimizers = fresh()
    for record in fit(model, optimizers, counting_batches(), Schedule(50)):
        if record.index == 4:
            break
    assert all(p.grad is None for p in model.parameters())
    rest = fit(model, optimizers, counting_batches(), Schedule(50), start=5)
    assert next(rest).index == 5


def test_a_loss_that_is_not_a_number_stops_before_the_weights_are_touched():
    model, optimizers = fresh()
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    before = model.transformer["wte"].weight.clone()
    with pytest.raises(Diverged, match="step 0.*\n.*learning rate"):
        next(fit(model, optimizers, counting_batches(), Schedule(5)))
    assert torch.equal(before, model.transformer["wte"].weight)


def test_a_step_without_targets_changes_nothing():
    model, optimizers = fresh()
    before = [p.detach().clone() for p in model.parameters()]
    batch = (torch.zeros(2, 16, dtype=torch.long), torch.full((2, 16), -1))
    record = next(fit(model, optimizers, endless([batch]), Schedule(1)))
    assert record.loss == 0 and record.supervised == 0 and record.grad_norm == 0
    for a, b in zip(before, model.parameters(), strict=True):
        assert torch.equal(a, b)
