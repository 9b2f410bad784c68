"""The benchmark measures what it says: same model, same loss, all products, all tokens."""

import pytest
import torch

from nanolab import bench
from nanolab.compute import Compute
from nanolab.model import GPT, GPTConfig
from nanolab.optim import LearningRates, build_optimizers
from nanolab.profiles import get_profile, override

CPU = Compute(torch.device("cpu"), torch.float32, "for the test")
CONFIG = GPTConfig(sequence_len=32, vocab_size=300, n_layer=2, n_head=2, n_kv_head=1, n_embd=64)


def randomised(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.1)
    return model


def test_the_plain_model_is_the_same_model():
    ours, plain = randomised(GPT(CONFIG)), randomised(bench.PlainGPT(CONFIG))
    batch = bench.random_batch(CONFIG, 3, CPU.device)
    ours_loss, plain_loss = ours(*batch), plain(*batch)
    torch.testing.assert_close(ours_loss, plain_loss)
    ours_loss.backward()
    plain_loss.backward()
    for (name, p), q in zip(ours.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_the_plain_optimizers_take_the_same_steps():
    ours, plain = randomised(GPT(CONFIG)), randomised(bench.PlainGPT(CONFIG))
    ours_steps = bench.training_steps(ours, build_optimizers(ours, LearningRates()), 2, CPU, steps=4)
    plain_steps = bench.training_steps(plain, bench.plain_optimizers(plain), 2, CPU, steps=4)
    ours_losses, plain_losses = ([record.loss for record in steps] for steps in (ours_steps, plain_steps))
    assert ours_losses == pytest.approx(plain_losses, rel=1e-3)
    assert ours_losses[-1] < ours_losses[0] - 0.1


def test_every_product_of_a_step_is_counted():
    """Closed form: three products of 2 N in out operations a layer, and 7 halves of 2 T^2 C for attention."""
    rows = 3
    config = GPTConfig(sequence_len=64, vocab_size=300, n_layer=2, n_head=2, n_kv_head=2, n_embd=64)
    operations = 0
    for a, b in bench.step_products(config, rows, CPU):
        product = a @ b
        operations += 2 * product.numel() * a.size(-1)
    model = GPT(config)
    weights = model.num_parameters() - model.transformer["wte"].weight.numel()
    tokens = rows * config.sequence_len
    attention = config.n_layer * 7 * tokens * config.sequence_len * config.n_embd
    assert operations == 6 * tokens * weights + attention


def test_a_figure_says_whether_its_goal_is_met():
    assert bench.Figure("a", 0.5, 0.4).met and not bench.Figure("a", 0.3, 0.4).met
    assert bench.Figure("a", 0.1, 0.15, at_least=False).met
    assert not bench.Figure("a", 0.2, 0.15, at_least=False).met
    assert "NOT MET" in str(bench.Figure("a", 0.3, 0.4))


def test_medians_leave_out_the_first_round():
    calls = []
    seconds = bench.interleaved_seconds(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, CPU.device, repeats=3
    )
    assert calls == ["a", "b"] * 4 and set(seconds) == {"a", "b"}


@pytest.mark.parametrize("vocab_size", [265, 1024, 65_536])
def test_the_byte_tokenizer_has_the_size_asked_for(vocab_size):
    tokenizer = bench.byte_tokenizer(vocab_size)
    assert tokenizer.get_vocab_size() == vocab_size
    assert tokenizer.decode(tokenizer.encode("héllo")) == "héllo"


@pytest.mark.parametrize(("dtype", "sampling"), [("float32", [20.0]), ("bfloat16", [20.0, 20.0])])
def test_all_figures_are_measured(dtype, sampling):
    profile = override(get_profile("smoke"), depth=1, sequence_len=64, dtype=dtype)
    lines: list[str] = []
    figures = bench.run_benchmarks(lines.append, profile, worksheet=False)
    assert [figure.goal for figure in figures] == [0.40, 0.15, *sampling]
    assert all(figure.ratio > 0 for figure in figures)
    assert sum("goal" in line for line in lines) == 1 and "4,096 tokens" in "\n".join(lines)
    worksheet = bench.measure_plain(CONFIG, CPU, repeats=1)
    assert [figure.goal for figure in worksheet] == [3.0, 0.001]
    assert worksheet[1].met
