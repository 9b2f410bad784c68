"""Muon against torch.optim.Muon, Newton-Schulz against constructed spectra, schedules in closed form."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanolab.model import GPT, GPTConfig
from nanolab.optim import (
    NEWTON_SCHULZ,
    POLAR_EXPRESS,
    LearningRates,
    Muon,
    Schedule,
    build_optimizers,
    newton_schulz,
    orthogonalise,
    set_learning_rate,
)

CONFIG = GPTConfig(sequence_len=16, vocab_size=50, n_layer=2, n_head=2, n_kv_head=1, n_embd=32)


def with_spectrum(values: torch.Tensor, rows: int, cols: int) -> torch.Tensor:
    """A `(1, rows, cols)` float32 matrix with these singular values, made in float64."""
    left = torch.linalg.qr(torch.randn(rows, rows, dtype=torch.float64)).Q[:, : len(values)]
    right = torch.linalg.qr(torch.randn(cols, cols, dtype=torch.float64)).Q[:, : len(values)]
    return (left @ torch.diag(values.double()) @ right.T).float()[None]


@pytest.mark.parametrize(("rows", "cols"), [(24, 24), (24, 96), (96, 24), (24, 40)])
def test_newton_schulz_bounds_the_spectrum(rows, cols):
    torch.manual_seed(0)
    values = torch.logspace(-2, 0, 24)
    matrix = with_spectrum(values, rows, cols)
    normalised_smallest = 0.01 / matrix.norm().item()
    result = torch.linalg.svdvals(newton_schulz(matrix)[0])
    in_range = torch.linalg.svdvals(matrix[0]) / matrix.norm() >= max(0.01, normalised_smallest)
    assert result[in_range].min() >= 0.68 and result.max() <= 1.14


@pytest.mark.parametrize("shape", [(2, 24, 96), (2, 96, 24), (3, 16, 16)])
def test_newton_schulz_equals_the_textbook_iteration_in_float64(shape):
    a, b, c = NEWTON_SCHULZ
    matrices = torch.randn(shape)
    x = matrices.double()
    x = x.mT if shape[1] > shape[2] else x
    x = x / x.norm(dim=(-2, -1), keepdim=True)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + b * gram @ x + c * gram @ gram @ x
    expected = (x.mT if shape[1] > shape[2] else x).float()
    torch.testing.assert_close(newton_schulz(matrices), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shape", [(16, 64), (64, 16), (32, 32)])
def test_muon_takes_the_step_of_torchs_muon(shape):
    torch.manual_seed(1)
    ours = torch.nn.Parameter(torch.randn(shape))
    theirs = torch.nn.Parameter(ours.detach().clone())
    mine = Muon([ours], lr=0.02, momentum=0.95)
    torchs = torch.optim.Muon([theirs], lr=0.02, momentum=0.95, weight_decay=0.0)
    for _ in range(3):
        gradient = torch.randn(shape)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        before = theirs.detach().clone()
        mine.step()
        torchs.step()
        # torch orthogonalises in bf16, so its step is only good to about 1%.
        assert (ours - theirs).norm() < 0.03 * (theirs - before).norm() * 3
        assert torch.equal(ours.grad, gradient)


def test_matrices_of_one_shape_are_updated_as_if_alone():
    torch.manual_seed(2)
    start, gradients = torch.randn(3, 8, 8), torch.randn(3, 8, 8)
    together = [torch.nn.Parameter(m.clone()) for m in start]
    alone = [torch.nn.Parameter(m.clone()) for m in start]
    for params in (together, alone):
        for p, gradient in zip(params, gradients, strict=True):
            p.grad = gradient.clone()
    Muon(together).step()
    for p in alone:
        Muon([p]).step()
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b)


def test_every_parameter_is_in_exactly_one_group():
    model = GPT(CONFIG)
    groups = [
        p for o in build_optimizers(model, LearningRates()) for g in o.param_groups for p in g["params"]
    ]
    assert sorted(map(id, groups)) == sorted(map(id, model.parameters()))


def test_adamw_rates_scale_with_width_and_muons_does_not():
    rates = LearningRates(matrix=0.02, embedding=0.2, unembedding=0.004)
    adamw, muon = build_optimizers(GPT(CONFIG), rates, fraction=0.5)
    scale = (32 / 768) ** -0.5
    assert [g["lr"] for g in adamw.param_groups] == pytest.approx([0.1 * scale, 0.002 * scale])
    assert muon.param_groups[0]["lr"] == pytest.approx(0.01)
    set_learning_rate([adamw, muon], 0.25)
    assert muon.param_groups[0]["lr"] == pytest.approx(0.0025)


def test_schedule_rises_stays_and_falls():
    schedule = Schedule(steps=10, warmup_ratio=0.2, warmdown_ratio=0.5)
    assert [round(schedule(i), 3) for i in range(10)] == [0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 300), st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 1))
def test_schedule_is_always_above_zero_and_at_most_one(steps, warmup, warmdown, final):
    schedule = Schedule(steps, warmup, warmdown, final)
    assert all(0 < schedule(i) <= 1 for i in range(steps))


@pytest.mark.parametrize(("rows", "cols"), [(24, 24), (24, 96), (96, 24)])
def test_polar_express_bounds_the_spectrum_in_three_steps(rows, cols):
    torch.manual_seed(0)
    matrix = with_spectrum(torch.logspace(-1.5, 0, 24), rows, cols)
    assert (torch.linalg.svdvals(matrix[0]) / matrix.norm()).min() >= 0.01
    result = torch.linalg.svdvals(orthogonalise(matrix, POLAR_EXPRESS)[0])
    assert result.min() >= 0.70 and result.max() <= 1.31
    assert len(POLAR_EXPRESS) == 3


def test_polar_express_applies_its_polynomials_to_the_singular_values():
    torch.manual_seed(0)
    values = torch.logspace(-1, 0, 12)
    matrix = with_spectrum(values, 12, 30)
    s = (values / matrix.norm()).double()
    for a, b, c in POLAR_EXPRESS:
        s = a * s + b * s**3 + c * s**5
    result = torch.linalg.svdvals(orthogonalise(matrix, POLAR_EXPRESS)[0])
    torch.testing.assert_close(result.double().sort().values, s.sort().values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_normuon_evens_the_rows_as_a_plain_loop_does(shape):
    """Li et al., 2025: each row (here also: each column of a wide matrix) over its running mean square."""
    torch.manual_seed(2)
    rows, cols = shape
    weight = torch.nn.Parameter(torch.randn(shape))
    plain = torch.nn.Parameter(weight.detach().clone())
    even, usual = Muon([weight], lr=1.0, beta2=0.9), Muon([plain], lr=1.0)
    running = [0.0] * max(rows, cols)
    for _ in range(4):
        gradient = torch.randn(shape)
        before, before_plain = weight.detach().clone(), plain.detach().clone()
        for parameter, optimizer in ((weight, even), (plain, usual)):
            parameter.grad = gradient.clone()
            optimizer.step()
        update = (before_plain - plain.detach()).double()  # orthogonalised, and scaled
        lines = update if rows >= cols else update.T
        scale = max(1.0, rows / cols) ** 0.5
        wanted = []
        for i, line in enumerate(lines):
            size = float((line / scale).square().mean())
            running[i] = 0.9 * running[i] + 0.1 * size
            wanted.append(line / running[i] ** 0.5)
        expected = torch.stack(wanted)
        expected = expected * (update.norm() / expected.norm())
        actual = (before - weight.detach()).double()
        torch.testing.assert_close(actual if rows >= cols else actual.T, expected, rtol=1e-3, atol=1e-4)


def test_every_part_of_2026_learns_at_a_rate_of_its_own():
    parts = {"value_embeddings": True, "residual_scalars": True, "smear": True, "backout": True}
    model = GPT(replace(CONFIG, n_embd=96, **parts))
    adamw, muon = build_optimizers(model, LearningRates(0.06, 0.3, 0.004, 0.5))
    scale = (96 / 768) ** -0.5
    rates = {id(p): group["lr"] for group in adamw.param_groups for p in group["params"]}
    names = {name: rates[id(p)] for name, p in model.named_parameters() if id(p) in rates}
    assert names == pytest.approx(
        {
            "transformer.wte.weight": 0.3 * scale, "lm_head.weight": 0.004 * scale,
            "value_embeds.1.weight": 0.15 * scale, "resid_lambdas": 0.005, "x0_lambdas": 0.5,
            "smear_gate.weight": 0.2, "smear_lambda": 0.2, "backout_lambda": 0.2,
        }
    )  # fmt: skip
    blocks = {id(p) for p in model.transformer["h"].parameters()}
    assert {id(p) for group in muon.param_groups for p in group["params"]} == blocks


def test_a_profile_decides_how_muon_steps():
    model = GPT(CONFIG)
    late_2025 = build_optimizers(model, LearningRates())[1]
    today = build_optimizers(model, LearningRates(polar_express=True, muon_beta2=0.9))[1]
    assert (late_2025.polynomials, late_2025.beta2) == ((NEWTON_SCHULZ,) * 5, 0.0)
    assert (today.polynomials, today.beta2) == (POLAR_EXPRESS, 0.9)
