"""What trainings cost, counted before they run, and the rows and lines of notebook 08's tables and charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from nanolab.lessons.scaling import SizeResult
from nanolab.model import GPT
from nanolab.profiles import get_profile
from nanolab.stages import model_config


def model_size(depth: int, vocab_size: int) -> tuple[int, int]:
    """`(parameters, weights in matrix products)` of a model of late 2025, of `depth` and width 64 * depth."""
    width = 64 * depth
    blocks = 12 * depth * width**2
    return blocks + 2 * vocab_size * width, blocks + vocab_size * width


def training_flops(depth: int, vocab_size: int, tokens: float, context: int) -> float:
    """Floating-point operations to train on `tokens` (as `GPT.flops_per_token`, without building it)."""
    _, matrices = model_size(depth, vocab_size)
    return tokens * (6 * matrices + 12 * depth * 64 * depth * context)


def budget_rows(groups: Sequence[Sequence[SizeResult]]) -> list[dict[str, str]]:
    """A row for each budget: the widths tried, and the tokens that each could read for it."""
    return [
        {
            "budget (FLOPs)": f"{group[0].flops:.1e}",
            "widths": ", ".join(str(one.width) for one in group),
            "tokens read": ", ".join(f"{one.tokens:,}" for one in group),
        }
        for group in groups
    ]


def best_rows(best: Sequence[SizeResult]) -> list[dict[str, Any]]:
    """A row for each budget about its best model."""
    return [
        {
            "budget (FLOPs)": f"{one.flops:.1e}",
            "best width": one.width,
            "parameters": f"{one.parameters:,}",
            "tokens": f"{one.tokens:,}",
            "tokens a parameter": f"{one.tokens / one.parameters:.2f}",
            "bits per byte": f"{one.bits_per_byte:.3f}",
        }
        for one in best
    ]


def curves(groups: Sequence[Sequence[SizeResult]]) -> dict[str, tuple[list[int], list[float]]]:
    """A line for each budget: parameters against bits per byte."""
    return {
        f"{group[0].flops:.1e} FLOPs": (
            [one.parameters for one in group],
            [one.bits_per_byte for one in group],
        )
        for group in groups
    }


def profile_rows(names: Sequence[str]) -> list[dict[str, Any]]:
    """What differs between profiles: a row for each."""
    rows = []
    for profile in map(get_profile, names):
        plan = profile.base
        tokens = plan.num_iterations * plan.total_batch_size
        with torch.device("meta"):  # its shapes alone
            model = GPT(replace(model_config(profile), sequence_len=plan.max_seq_len))
        flops = float(tokens) * model.flops_per_token()
        rows.append(
            {
                "profile": profile.name,
                "depth": profile.depth,
                "vocabulary": f"{profile.vocab_size:,}",
                "context": profile.sequence_len,
                "parameters": f"{model.num_parameters():,}",
                "tokens a step": f"{plan.total_batch_size:,}",
                "base tokens": f"{tokens:,}",
                "base FLOPs": f"{flops:.1e}",
                "text from": profile.source,
            }
        )
    return rows


def cost_row(
    depth: int, tokens_a_parameter: float, flops_a_second: float, dollars_an_hour: float
) -> dict[str, str]:
    """What base training at nanochat's vocabulary and context takes on a machine of that speed and price."""
    vocabulary, context = 65_536, 2048
    parameters, _ = model_size(depth, vocabulary)
    tokens = tokens_a_parameter * parameters
    flops = training_flops(depth, vocabulary, tokens, context)
    hours = flops / flops_a_second / 3600
    dollars = hours * dollars_an_hour
    return {
        "depth": str(depth),
        "parameters": f"{parameters / 1e6:,.0f} million",
        "tokens": f"{tokens / 1e9:,.1f} billion",
        "FLOPs": f"{flops:.1e}",
        "hours": f"{hours:.1f}" if hours >= 1 else f"{hours:.2g}",
        "dollars": f"{dollars:,.0f}" if dollars >= 1 else f"{dollars:.2f}",
    }
