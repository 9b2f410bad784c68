"""What notebook 03 looks up in a trained base model: what its loss means, an update, what it knows."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence

import ipywidgets
import torch
from torch import Tensor

from nanolab.engine import Engine
from nanolab.evals import Score
from nanolab.model import GPT
from nanolab.optim import newton_schulz
from nanolab.tasks.base import shuffled
from nanolab.tinyworld.facts import Fact, facts, matches
from nanolab.tokenizer import Tokenizer
from nanolab.train import Batch
from nanolab.widgets.common import beside, in_html_table, in_text_table

# ---- what a loss means


def meaning(loss: float, bytes_per_token: float) -> dict[str, str]:
    """One loss in nats a token, said in other ways."""
    bits = loss / math.log(2)
    return {
        "loss (nats)": f"{loss:.2f}",
        "as unsure as between so many tokens": f"{math.exp(loss):,.1f}",
        "chance of the right token": f"{math.exp(-loss):.3%}",
        "bits a token": f"{bits:.2f}",
        "bits a byte": f"{bits / bytes_per_token:.2f}",
    }


def loss_slider(start: float, bytes_per_token: float, highest: float = math.log(65_536)) -> None:
    """Display a slider from `highest` nats to 0 that says what a loss means; a table where no kernel runs."""

    def rows(loss: float) -> list[list[str]]:
        return [[name, value] for name, value in meaning(loss, bytes_per_token).items()]

    def picture(loss: float) -> str:
        dots = "●" * min(400, round(math.exp(loss))) + (" and more" if math.exp(loss) > 400 else "")
        table = in_html_table(rows(loss), ["what", "value"], style="padding:0 14px 0 0")
        return f'{table}<div style="max-width:640px;overflow-wrap:anywhere;line-height:1.1">{dots}</div>'

    slider = ipywidgets.FloatSlider(
        value=start, min=0.0, max=highest, step=0.05, description="loss", readout_format=".2f",
        layout={"width": "480px"},
    )  # fmt: skip
    page = ipywidgets.HTML(picture(start))
    slider.observe(lambda change: setattr(page, "value", picture(change["new"])), "value")
    marks = [highest, 9.0, 7.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.5, 0.0]
    said = [list(meaning(loss, bytes_per_token).values()) for loss in marks]
    head = list(meaning(1.0, bytes_per_token))
    beside(ipywidgets.VBox([slider, page]), in_text_table(said, head), in_html_table(said, head))


def zlib_bits(texts: Iterable[str]) -> float:
    """Bits a byte that a file compressor needs for these texts, joined: a yardstick for a language model."""
    data = "\n".join(texts).encode()
    return 8 * len(zlib.compress(data, 9)) / max(1, len(data))


# ---- Muon's update


def singular_values(model: GPT, batch: Batch, name: str) -> tuple[list[float], list[float]]:
    """Of the gradient of weight matrix `name` on one batch: its singular values, before and after Muon's
    Newton-Schulz steps. Both are divided by the largest one before, or by 1, so that they share an axis."""
    model.train()
    model.zero_grad(set_to_none=True)
    inputs, targets = (part.to(model.device) for part in batch)
    model(inputs, targets).backward()
    gradient = model.get_parameter(name).grad
    assert isinstance(gradient, Tensor)
    gradient = gradient.detach().float().cpu()
    model.zero_grad(set_to_none=True)
    before = torch.linalg.svdvals(gradient)
    after = torch.linalg.svdvals(newton_schulz(gradient[None])[0])
    return (before / before[0]).tolist(), after.tolist()


def directions(values: Sequence[float], share: float = 0.9) -> int:
    """How many of the largest singular values carry `share` of the sum of all squares."""
    squares = sorted((value * value for value in values), reverse=True)
    wanted, total = share * sum(squares), 0.0
    for count, square in enumerate(squares, start=1):
        total += square
        if total >= wanted:
            return count
    return len(squares)


# ---- what it knows


def cloze(tier: str, count: int, seed: int = 0) -> list[tuple[str, Fact]]:
    """Up to `count` facts of a tier, their sentences without the end: ("The capital of France is", fact)."""
    found = []
    for fact in facts():
        sentence = fact.canonical().rstrip(".")
        if fact.tier == tier and sentence.endswith(" " + fact.answer):
            found.append((sentence[: -len(fact.answer) - 1], fact))
    return [found[index] for index in list(shuffled(len(found), seed))[:count]]


def recall(model: GPT, tokenizer: Tokenizer, questions: Sequence[tuple[str, Fact]], rows: int = 64) -> Score:
    """How many sentences of `cloze` the model completes with the right answer, by its likeliest tokens."""
    engine, bos, right = Engine(model.eval(), tokenizer), tokenizer.get_bos_token_id(), 0
    for start in range(0, len(questions), rows):
        part = questions[start : start + rows]
        prompts = [[bos, *tokenizer.encode(prompt)] for prompt, _ in part]
        answers = engine.generate_batch(prompts, max_tokens=12, temperature=0.0)
        for (_, fact), group in zip(part, answers, strict=True):
            # Only up to the end of the sentence: what comes after it answers something else.
            right += matches(fact, engine.completion_text(group[0]).split(".")[0])
    return Score(right, len(questions))


def interval(score: Score) -> tuple[float, float]:
    """Lengths of the 95% interval below and above a score, in % (Wilson, 1927: right for 0 of n as well)."""
    n, share, z = max(1, score.total), score.accuracy, 1.96
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return 100 * max(0.0, share - centre + reach), 100 * max(0.0, centre + reach - share)
