"""The check of calibration: is a model right as often as it is sure?"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nanolab.checks.core import Misconception, check, check_function

SEED = 2003


def _rounded(sure: Tensor, right: Tensor, bins: int) -> list[tuple[float, float, int]]:
    place = (sure * bins).round().clamp(max=bins - 1)
    parts = [place == one for one in range(bins)]
    return [
        (sure[part].mean().item(), right[part].double().mean().item(), int(part.sum()))
        for part in parts
        if part.any()
    ]


@check
def calibration(answer: object) -> str:
    """`calibration(sure, right, bins)`: a row for each bin: (mean sureness, share right, count)."""
    generator = torch.Generator().manual_seed(SEED + 5)
    cases = []
    for count, bins, least in ((300, 5, 0), (200, 4, 0), (400, 10, 0), (60, 5, 500)):
        # Never on the edge of a bin, but for those who are quite sure.
        sure = (torch.randint(least, 1000, (count,), generator=generator) + 0.3) / 1000
        sure[:6] = 1.0
        right = torch.rand(count, generator=generator) < sure * 0.8 + 0.05
        cases.append((sure, right, bins))

    def rows(sure: Tensor, right: Tensor, bins: int, closed: bool = True) -> list[tuple[Tensor, Tensor]]:
        sure = sure.double()
        place = (sure * bins).floor().long()
        place = place.clamp_max(bins - 1) if closed else place
        found = [(sure[place == one], right[place == one].double()) for one in range(bins)]
        return [(s, r) for s, r in found if len(s)]

    def by_row(make: Any, closed: bool = True) -> Any:
        def wrong(sure: Tensor, right: Tensor, bins: int) -> Any:
            return [make(s, r, len(sure)) for s, r in rows(sure, right, bins, closed)]

        return wrong

    def middles(sure: Tensor, right: Tensor, bins: int) -> Any:
        return [
            ((math.floor(min(s.mean().item(), 0.999999) * bins) + 0.5) / bins, r.mean().item(), len(s))
            for s, r in rows(sure, right, bins)
        ]

    def equal_counts(sure: Tensor, right: Tensor, bins: int) -> Any:
        order = sure.argsort(stable=True)
        return [(sure[part].mean(), right[part].double().mean(), len(part)) for part in order.chunk(bins)]

    def with_empty(empty: float, closed: bool = True) -> Any:
        def wrong(sure: Tensor, right: Tensor, bins: int) -> Any:
            place = (sure.double() * bins).floor().long()
            place = place.clamp_max(bins - 1) if closed else place
            parts = [(sure[place == one], right[place == one].double()) for one in range(bins)]
            return [usual(s, r, 0) if len(s) else (empty, empty, 0) for s, r in parts]

        return wrong

    def usual(s: Tensor, r: Tensor, total: int) -> tuple[float, float, int]:
        return s.mean().item(), r.mean().item(), len(s)

    check_function(
        answer,
        by_row(usual),
        cases,
        [
            Misconception(
                "Who is quite sure, 1.0, has fallen out of the last bin: it must include its upper edge.",
                by_row(usual, closed=False),
            ),
            *[
                Misconception("Leave out bins that are empty.", with_empty(empty))
                for empty in (0.0, math.nan)
            ],
            *[
                Misconception(
                    "Two things: 1.0 belongs to the last bin, and bins that are empty are to be left out.",
                    with_empty(empty, closed=False),
                )
                for empty in (0.0, math.nan)
            ],
            Misconception(
                "This divides by the number of all tokens. The share must be of those in the bin.",
                by_row(lambda s, r, total: (s.mean().item(), r.sum().item() / total, len(s))),
            ),
            Misconception(
                "This counts how many were right. Give the share of those in the bin.",
                by_row(lambda s, r, total: (s.mean().item(), r.sum().item(), len(s))),
            ),
            Misconception(
                "This is in per cent. A share goes from 0 to 1.",
                by_row(lambda s, r, total: (s.mean().item(), 100 * r.mean().item(), len(s))),
            ),
            *[
                Misconception(
                    "This is the first bin only. Does `return` stand inside the loop?",
                    lambda sure, right, bins, empty=empty: by_row(usual)(sure, right, bins)[
                        : 1 if empty or bool((sure < 1 / bins).any()) else 0
                    ],
                )
                for empty in (True, False)
            ],
            *[
                Misconception(
                    "The last bin is missing. The bins are 0 to bins - 1: `range(bins)`.",
                    lambda *case, closed=closed: by_row(usual, closed)(*case)[:-1],
                )
                for closed in (True, False)
            ],
            Misconception(
                "The first bin is missing. The bins are 0 to bins - 1: `range(bins)`.",
                lambda sure, right, bins: by_row(usual)(sure, right, bins)[
                    int(bool((sure < 1 / bins).any())) :
                ],
            ),
            Misconception(
                "The bins are rounded to the nearest. Cut off what is after the point, with `.long()` alone.",
                lambda sure, right, bins: _rounded(sure, right, bins),
            ),
            Misconception(
                "This is the share that was wrong.",
                by_row(lambda s, r, total: (s.mean().item(), 1 - r.mean().item(), len(s))),
            ),
            Misconception(
                "This gives the middle of each bin. Give the mean of what is in it: they need not be "
                "spread evenly.",
                middles,
            ),
            Misconception(
                "These bins hold equally many tokens each. They should be equally wide, from 0 to 1.",
                equal_counts,
            ),
            Misconception(
                "The first two are swapped: first how sure it was, then how often it was right.",
                by_row(lambda s, r, total: (r.mean().item(), s.mean().item(), len(s))),
            ),
            Misconception(
                "The third is the number of tokens in the bin, and not the number that was right.",
                by_row(lambda s, r, total: (s.mean().item(), r.mean().item(), r.sum().item())),
            ),
        ],
        tolerance=1e-3,
        what="`calibration`",
    )
    return "A model is calibrated where the two agree: of what it says with 70%, 70 in 100 are right."
