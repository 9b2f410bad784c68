"""How well the code uses the machine, as ratios within one run, so that machines can be compared.

Every ratio is of two things timed in turn (A B A B ...), each by its median: other programs that take the
processor for a while then slow both.
"""

from __future__ import annotations

import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from nanolab.compute import Compute, choose_compute
from nanolab.engine import Engine
from nanolab.loss import loss_chunk, softcap
from nanolab.model import GPT, MLP, GPTConfig
from nanolab.optim import LearningRates, Schedule, build_optimizers
from nanolab.profiles import Profile, get_profile
from nanolab.stages import model_config
from nanolab.tokenizer import SPECIAL_TOKENS, Tokenizer
from nanolab.train import StepRecord, fit

STEP_TOKENS = 4096
WORKSHEET = GPTConfig(sequence_len=512, vocab_size=65_536, n_layer=4, n_head=2, n_kv_head=2, n_embd=256)


@dataclass(frozen=True)
class Figure:
    """One measured ratio, and what it should be."""

    name: str
    ratio: float
    goal: float
    at_least: bool = True
    form: str = "{:.1f}"

    @property
    def met(self) -> bool:
        return self.ratio >= self.goal if self.at_least else self.ratio <= self.goal

    def __str__(self) -> str:
        bound = f"{'>=' if self.at_least else '<='} {self.form.format(self.goal)}"
        verdict = "met" if self.met else "NOT MET"
        return f"{self.name:<62} {self.form.format(self.ratio):>7} {bound:>9}   {verdict}"


def synchronise(device: torch.device) -> None:
    """Wait for the device: accelerators take orders and answer before the work is done."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def interleaved_seconds(
    works: dict[str, Callable[[], object]], device: torch.device, repeats: int = 7
) -> dict[str, float]:
    """Median seconds of each piece of work, all run in turn `repeats` times after one round unmeasured."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for round_ in range(repeats + 1):
        for name, work in works.items():
            synchronise(device)
            began = time.perf_counter()
            work()
            synchronise(device)
            if round_ > 0:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def random_batch(config: GPTConfig, rows: int, device: torch.device, seed: int = 0) -> tuple[Tensor, Tensor]:
    """`(inputs, targets)`, each `(rows, sequence_len)`, of random tokens."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(config.vocab_size, (rows, config.sequence_len + 1), generator=generator).to(device)
    return ids[:, :-1], ids[:, 1:]


def training_steps(
    model: GPT,
    optimizers: list[torch.optim.Optimizer],
    rows: int,
    compute: Compute,
    *,
    steps: int = 1_000_000,
) -> Iterator[StepRecord]:
    """The course's own loop over one random batch of `rows` rows; each `next` is one whole step."""
    batch = random_batch(model.config, rows, compute.device)
    return fit(model, optimizers, itertools.repeat(batch), Schedule(steps, warmdown_ratio=0), compute=compute)


def step_products(config: GPTConfig, rows: int, compute: Compute) -> list[tuple[Tensor, Tensor]]:
    """The operands of every matrix product in one training step's forward and backward pass.

    A linear layer has three products (its output, the gradient of its input, that of its weight); the
    head's are cut into chunks as in the loss. Causal attention has two, and five in its backward pass,
    which recomputes the scores; each is counted at half the keys, since the other half is masked.
    The embedding is a look-up and Muon's products belong to the optimizer: neither is counted.
    """

    def operand(*shape: int) -> Tensor:
        return torch.randn(shape, device=compute.device).to(compute.dtype)

    def linear(tokens: int, wide_in: int, wide_out: int) -> list[tuple[Tensor, Tensor]]:
        x, weight, grad = operand(tokens, wide_in), operand(wide_out, wide_in), operand(tokens, wide_out)
        return [(x, weight.mT), (grad, weight), (grad.mT, x)]

    tokens, width = rows * config.sequence_len, config.n_embd
    kv_width = config.n_kv_head * config.head_dim
    products: list[tuple[Tensor, Tensor]] = []
    for _ in range(config.n_layer):
        for out in (width, kv_width, kv_width, width):
            products += linear(tokens, width, out)
        products += linear(tokens, width, 4 * width) + linear(tokens, 4 * width, width)
        queries = operand(rows * config.n_head, config.sequence_len, config.head_dim)
        keys = operand(rows * config.n_head, config.sequence_len // 2, config.head_dim)
        scores = operand(rows * config.n_head, config.sequence_len, config.sequence_len // 2)
        products += [(queries, keys.mT), (scores, keys)]
        products += [(queries, keys.mT), (queries, keys.mT), (scores, keys)] + [(scores.mT, queries)] * 2
    for start in range(0, tokens, loss_chunk(config.vocab_size)):
        products += linear(min(loss_chunk(config.vocab_size), tokens - start), width, config.vocab_size)
    return products


def measure_step(config: GPTConfig, compute: Compute, rows: int, repeats: int = 7) -> list[Figure]:
    """Shares of one whole training step: its matrix products run alone, and Muon."""
    torch.manual_seed(0)
    model = GPT(config).to(compute.device)
    optimizers = build_optimizers(model, LearningRates(), ns_dtype=compute.dtype)
    steps = training_steps(model, optimizers, rows, compute)
    products = step_products(config, rows, compute)

    inputs, targets = random_batch(config, rows, compute.device)
    twin = GPT(config).to(compute.device)
    muon = build_optimizers(twin, LearningRates(), ns_dtype=compute.dtype)[1]
    with compute.autocast():
        twin(inputs, targets).backward()

    def multiply() -> None:
        for a, b in products:
            a @ b

    seconds = interleaved_seconds(
        {"step": lambda: next(steps), "products": multiply, "muon": muon.step}, compute.device, repeats
    )
    tokens = inputs.numel()
    return [
        Figure(
            f"matrix products alone / step of {tokens:,} tokens ({tokens / seconds['step']:,.0f} tok/s)",
            seconds["products"] / seconds["step"], 0.40, form="{:.0%}",
        ),
        Figure(
            f"Muon / step of {tokens:,} tokens",
            seconds["muon"] / seconds["step"], 0.15, at_least=False, form="{:.0%}",
        ),
    ]  # fmt: skip


class PlainMLP(MLP):
    """The MLP with its square left to autograd."""

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.relu(self.c_fc(x)).square())


class PlainGPT(GPT):
    """The same model as one would write its loss and MLP first: all logits at once, and autograd."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        for block in self.blocks:
            block.mlp = PlainMLP(config)

    def forward(self, idx, targets, kv_cache=None, loss_reduction="mean"):  # type: ignore[override]
        logits = softcap(self.lm_head(self.hidden(idx)).float())
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction=loss_reduction)


def plain_optimizers(model: GPT) -> list[torch.optim.Optimizer]:
    """The course's optimizers, with torch's default AdamW."""
    fast, muon = build_optimizers(model, LearningRates())
    plain = torch.optim.AdamW(
        [{"params": group["params"], "lr": group["lr"]} for group in fast.param_groups],
        betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0,
    )  # fmt: skip
    for group in plain.param_groups:
        group["initial_lr"] = group["lr"]
    return [plain, muon]


def measure_plain(config: GPTConfig, compute: Compute, repeats: int = 5) -> list[Figure]:
    """Our training step against the plainly written one in fp32, one row of full context, same weights."""
    torch.manual_seed(0)
    ours, plain = GPT(config).to(compute.device), PlainGPT(config).to(compute.device)
    plain.load_state_dict(ours.state_dict())
    our_steps = training_steps(
        ours, build_optimizers(ours, LearningRates(), ns_dtype=compute.dtype), 1, compute
    )
    fp32 = replace(compute, dtype=torch.float32)
    plain_steps = training_steps(plain, plain_optimizers(plain), 1, fp32)
    seconds = interleaved_seconds(
        {"ours": lambda: next(our_steps), "plain": lambda: next(plain_steps)}, compute.device, repeats
    )
    # Equal loss: of the same trained weights, on text that they have not seen.
    plain.load_state_dict(ours.state_dict())
    batch = random_batch(config, 1, compute.device, seed=1)
    with torch.inference_mode():
        with compute.autocast():
            our_loss = ours(*batch).item()
        difference = abs(our_loss - plain(*batch).item()) / our_loss
    ours_rate, plain_rate = (config.sequence_len / seconds[name] for name in ("ours", "plain"))
    return [
        Figure(
            f"training at vocab {config.vocab_size:,} ({ours_rate:,.0f} tok/s) / plain ({plain_rate:,.0f})",
            ours_rate / plain_rate, 3.0, form="{:.2f}",
        ),
        Figure(
            f"  their losses differ by (at {our_loss:.2f} nats)",
            difference, 0.001, at_least=False, form="{:.2%}",
        ),
    ]  # fmt: skip


def byte_tokenizer(vocab_size: int) -> Tokenizer:
    """A tokenizer of the right size without training: all bytes, then pairs of bytes. `vocab_size` >= 265."""
    pairs = (bytes([first, second]) for first in range(256) for second in range(256))
    singles = (bytes([byte]) for byte in range(256))
    count = vocab_size - len(SPECIAL_TOKENS)
    ranks = {
        token: rank for rank, token in enumerate(itertools.islice(itertools.chain(singles, pairs), count))
    }
    return Tokenizer(ranks, r"[\s\S]")


def measure_generation(
    config: GPTConfig, compute: Compute, rows: int = 64, tokens: int = 48, repeats: int = 5
) -> list[Figure]:
    """Sampling many rows at once against one row, `tokens` new tokens each and none ending early.

    One row is in fp32, as in chat; many rows are in fp32 and, where it differs, in the format of `compute`,
    as in rl. There the time to copy the model into that format counts.
    """
    torch.manual_seed(0)
    model = GPT(config).to(compute.device).eval()
    plain = Engine(model, byte_tokenizer(config.vocab_size))
    prompt = list(range(32))

    def generate(count: int, dtype: torch.dtype) -> None:
        engine = plain.in_format(dtype)
        engine.ends = set()
        engine.generate_batch([prompt], num_samples=count, max_tokens=tokens, use_tools=False)

    names = {dtype: str(dtype).removeprefix("torch.") for dtype in (torch.float32, compute.dtype)}
    works: dict[str, Callable[[], object]] = {"one": lambda: generate(1, torch.float32)}
    works |= {name: functools.partial(generate, rows, dtype) for dtype, name in names.items()}
    seconds = interleaved_seconds(works, compute.device, repeats)
    one = tokens / seconds.pop("one")
    figures = []
    for name, taken in seconds.items():
        many = rows * tokens / taken
        label = f"{rows} rows in {name} ({many:,.0f} tok/s) / one in float32 ({one:,.0f})"
        figures.append(Figure(label, many / one, 20.0))
    return figures


def run_benchmarks(
    say: Callable[[str], None], profile: str | Profile | None = None, *, worksheet: bool = True
) -> list[Figure]:
    """Measure at the profile's size (default: laptop), and at the worksheet's if asked; say a table."""
    chosen = profile if isinstance(profile, Profile) else get_profile(profile)
    config, compute = model_config(chosen), choose_compute(chosen.device, chosen.dtype)
    say(
        f"profile {chosen.name}: {config.n_layer} layers, width {config.n_embd}, "
        f"vocabulary {config.vocab_size:,}, context {config.sequence_len}"
    )
    say(
        f"{compute.device} in {str(compute.dtype).removeprefix('torch.')} ({compute.reason}), "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}\n"
    )
    say(f"{'figure':<62} {'ratio':>7} {'goal':>9}")
    measures: list[Callable[[], list[Figure]]] = [
        lambda: measure_step(config, compute, max(1, STEP_TOKENS // config.sequence_len)),
        lambda: measure_generation(config, compute),
    ]
    if worksheet:
        measures.append(lambda: measure_plain(WORKSHEET, compute))
    figures: list[Figure] = []
    for measure in measures:
        for figure in measure():
            say(str(figure))
            figures.append(figure)
    return figures
