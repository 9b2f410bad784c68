"""Challenge 5's test: are animals closer to each other than chance would have them?"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import combinations
from typing import Any

from nanolab.checks.core import (
    Misconception,
    Wrong,
    call,
    check,
    check_function,
    check_unchanged,
    same,
    shown,
)

Array = Any

FEW = 9
"""Permutations of which each possible answer can be told from its neighbours."""
MANY = 1000
CHANCE = 0.04
"""How far a p from three times `MANY` shufflings may be off: about four standard errors."""


# ---- the statistic


def closeness_of(matrix: Array, animal: Array) -> float:
    """Mean of the pairs of two animals minus mean of the pairs of an animal and something else."""
    pairs = [float(matrix[i, j]) for i, j in combinations(range(len(animal)), 2) if animal[i] and animal[j]]
    mixed = [float(matrix[i, j]) for i, j in combinations(range(len(animal)), 2) if animal[i] != animal[j]]
    return sum(pairs) / len(pairs) - sum(mixed) / len(mixed)


def symmetric(rng: Any, size: int) -> Array:
    """A matrix like that of cosines: symmetric, 1 on the diagonal, between -1 and 1."""
    import numpy as np

    matrix = np.tanh(rng.normal(0.3, 0.6, (size, size)))
    matrix = np.triu(matrix, 1)
    return matrix + matrix.T + np.eye(size)


@check
def closeness(function: object) -> str:
    """Whether pairs of two animals are compared with pairs of an animal and a country, and nothing else."""
    import numpy as np

    rng = np.random.default_rng(57)
    cases = []
    for size, count in ((7, 3), (8, 5), (9, 4), (6, 2)):
        animal = np.zeros(size, bool)
        animal[rng.choice(size, count, replace=False)] = True
        matrix = symmetric(rng, size)
        matrix[0, 0] = matrix[animal.argmax(), animal.argmax()] = 1 - 2e-16  # as rounding makes it
        cases.append((matrix, animal))

    def blocks(matrix: Array, animal: Array) -> tuple[Array, Array, Array]:
        """Pairs of two animals (without the diagonal), of two others, and mixed ones."""
        off = ~np.eye(len(animal), dtype=bool)
        both, none = np.outer(animal, animal) & off, np.outer(~animal, ~animal) & off
        return matrix[both], matrix[none], matrix[np.outer(animal, ~animal)]

    def difference(way: Callable[[Array, Array, Array], float]) -> Callable[..., float]:
        return lambda matrix, animal: float(way(*blocks(matrix, animal)))

    def with_itself(matrix: Array, animal: Array) -> float:
        within = matrix[np.ix_(animal, animal)]
        return float(within.mean() - matrix[np.ix_(animal, ~animal)].mean())

    check_function(function, closeness_of, cases, [
        Misconception("Each animal is compared with itself, too: the ones on the diagonal make every group "
                      "look close. Leave out i == j.", with_itself),
        Misconception("Each animal is compared with itself, too: np.triu_indices(n, 1) leaves out the "
                      "diagonal.",
                      lambda m, a: float(m[np.ix_(a, a)][np.triu_indices(a.sum())].mean()
                                         - m[np.ix_(a, ~a)].mean())),
        Misconception("The cosine of a word with itself is 1 but for rounding, so `!= 1` does not find them "
                      "all. Leave out i == j.",
                      lambda m, a: float(m[np.ix_(a, a)][m[np.ix_(a, a)] != 1].mean()
                                         - m[np.ix_(a, ~a)].mean())),
        Misconception("np.triu puts zeros below the diagonal, and they count in the mean. "
                      "np.triu_indices(n, 1) gives the places above it.",
                      lambda m, a: float(np.triu(m[np.ix_(a, a)], 1).mean() - m[np.ix_(a, ~a)].mean())),
        Misconception("The diagonal is left out of the sum but counted in the number of pairs: n * (n - "
                      "1), not n * n.",
                      lambda m, a: float((m[np.ix_(a, a)].sum() - a.sum()) / a.sum() ** 2
                                         - m[np.ix_(a, ~a)].mean())),
        Misconception("Pairs of two countries are counted as well. The hypothesis is about animals: how "
                      "close they are, and how far from countries.",
                      difference(lambda w, o, x: np.concatenate([w, o]).mean() - x.mean())),
        Misconception("Animals are compared with all other pairs, those of two countries among them. Take "
                      "the pairs of an animal and a country.",
                      difference(lambda w, o, x: w.mean() - np.concatenate([o, x, x]).mean())),
        Misconception("Animals are compared with pairs of two countries. Take the pairs of an animal and a "
                      "country.",
                      difference(lambda w, o, x: w.mean() - o.mean())),
        Misconception("The groups are exchanged: those are the countries among themselves.",
                      difference(lambda w, o, x: o.mean() - x.mean())),
        Misconception("The sign is turned round: closer must be a larger number.",
                      difference(lambda w, o, x: x.mean() - w.mean())),
        Misconception("The sign is left out. Closer and farther must not look alike.",
                      difference(lambda w, o, x: abs(w.mean() - x.mean()))),
        Misconception("Sums instead of means: the group with more pairs wins.",
                      difference(lambda w, o, x: w.sum() - x.sum())),
        Misconception("Sums instead of means: the group with more pairs wins.",
                      difference(lambda w, o, x: w.sum() / 2 - x.sum())),
        Misconception("That is a ratio. Cosines can be 0 or negative, so take the difference.",
                      difference(lambda w, o, x: w.mean() / x.mean())),
        Misconception("That is only how close animals are to each other. In a trained model all words may "
                      "be: subtract how close they are to countries.", difference(lambda w, o, x: w.mean())),
        Misconception("The first words are taken for animals. `animal` says which words are.",
                      lambda m, a: closeness_of(m, np.arange(len(a)) < a.sum())),
        Misconception("Pairs are left out in which the country comes before the animal.",
                      lambda m, a: float(blocks(m, a)[0].mean()
                                         - np.triu(m)[np.ix_(a, ~a)][np.triu(m)[np.ix_(a, ~a)] != 0].mean())),
    ], tolerance=1e-6)  # fmt: skip
    check_unchanged(function, *cases[0],
                    cause="`np.fill_diagonal` and the like work in place: use a copy.")  # fmt: skip
    return "One number that says what the hypothesis says. The labels go into it, so they can be shuffled."


# ---- the test


def all_labels(size: int, count: int) -> Array:
    """`(ways, size)`: every way to call `count` of `size` words animals."""
    import numpy as np

    labels = np.zeros((math.comb(size, count), size), bool)
    for row, chosen in zip(labels, combinations(range(size), count), strict=True):
        row[list(chosen)] = True
    return labels


def closeness_of_all(matrices: Array, labels: Array) -> Array:
    """`closeness_of` for many rows of labels, `(ways, size)`, of one matrix or of as many; nan for less than
    two animals."""
    import numpy as np

    labels = labels.astype(float)
    count = labels.sum(axis=1)
    rows = np.einsum("ki,...ij->kj" if matrices.ndim == 2 else "ki,kij->kj", labels, matrices)
    itself = np.einsum("ki,...ii->k" if matrices.ndim == 2 else "ki,kii->k", labels, matrices)
    with np.errstate(invalid="ignore", divide="ignore"):
        within = ((rows * labels).sum(axis=1) - itself) / (count * (count - 1))
        return within - (rows * (1 - labels)).sum(axis=1) / (count * (labels.shape[1] - count))


def small_cases() -> list[tuple[Array, Array]]:
    """Three tables of a few words, with a p in the middle, where each mistake gives another p somewhere.

    In the first the cosines are 0 or 1: many shufflings are exactly as good as the real labels. In the second
    some words are close to all others, which is lost if values are shuffled. In the third there are only two
    animals, so that it matters how many are drawn.
    """
    import numpy as np

    cases = []
    for seed, size, count, kind in CASES:
        rng = random.Random(seed)
        matrix = np.array([[rng.uniform(-0.6, 0.6) for _ in range(size)] for _ in range(size)])
        if kind == "ties":
            matrix = (matrix > 0).astype(float)
        if kind == "hubs":
            warmth = np.array([rng.uniform(-0.45, 0.45) for _ in range(size)])
            matrix = matrix / 6 + warmth[:, None] + warmth[None, :]
        upper = np.triu(matrix, 1)
        cases.append((upper + upper.T + np.eye(size), np.arange(size) < count))
    return cases


CASES = ((24, 8, 3, "ties"), (18, 8, 3, "hubs"), (18, 9, 2, "few"))
"""Of each table the seed, the words, the animals among them, and what is special about it."""


@check
def p_value(function: object) -> str:
    """Whether labels are shuffled, and those that do as well are counted, the real ones included.

    `function(matrix, animal, permutations, seed)`. Held against all possible labellings, which for a few
    words can be counted.
    """
    cases = small_cases()
    _whole_numbers(function)
    matrix, animal = cases[1]
    some = [float(_number(call(function, matrix.copy(), animal.copy(), 40, seed))) for seed in range(6)]
    if len(set(some)) == 1:
        raise Wrong(
            f"for six different seeds the answer is the same, {some[0]:.4g}.",
            cause="Is the seed fixed inside, or is nothing shuffled? np.random.default_rng(seed) takes the "
            "one that "
            "comes in, once, before the loop.",
        )
    rounded = [p for p in some if not same(p * 41, round(p * 41), 1e-6)]
    if rounded:
        raise Wrong(
            "of 40 shufflings and the real labels, a share has to be a number of 41sts.",
            got=f"{rounded[0]:.4g}", expected="1/41, 2/41, ... 41/41",
            cause="Is p rounded? Give it as it is: a small p would become 0.",
        )  # fmt: skip
    if set(some) <= {1 / 41, 1.0}:
        raise Wrong(
            "of 40 shufflings either all do as well as the real labels, or none does.",
            cause="They are all the same shuffling. Make the generator once, before the loop.",
        )
    if max(some) < 2.5 / 41:
        raise Wrong(
            "of 40 shufflings no more than one is ever counted.",
            cause="Does `return` stand inside the loop? Then the first shuffling is the last.",
        )
    check_unchanged(
        function, matrix, animal, 40, 0,
        cause="`rng.shuffle` works in place. `rng.permutation(animal)` gives new labels.",
    )  # fmt: skip
    again = [float(_number(call(function, matrix.copy(), animal.copy(), 40, seed))) for seed in range(6)]
    if again != some:
        raise Wrong(
            "two calls with the same seed give two answers.", got="two answers", expected="one",
            cause="Take all chance from np.random.default_rng(seed), so that others can repeat your test.",
        )  # fmt: skip
    found = []
    for matrix, animal in cases:
        answers = [_number(call(function, matrix.copy(), animal.copy(), MANY, 90 + i)) for i in range(3)]
        found.append(sum(answers) / len(answers))
    rights = [_right(*case) for case in cases]
    gaps = [abs(got - right) for got, right in zip(found, rights, strict=True)]
    if max(gaps) < CHANCE:
        _exact_counts(function)
        return (
            "The real labels are one of the shufflings, so p is never 0, and the hypothesis names the side."
        )
    wrongs = [_wrong(*case) for case in cases]

    def miss(text: str) -> float:
        return max(abs(got - wrong[text]) for got, wrong in zip(found, wrongs, strict=True))

    likely, worst = min(wrongs[0], key=miss), gaps.index(max(gaps))
    size, count = len(cases[worst][1]), int(cases[worst][1].sum())
    raise Wrong(
        f"for {size} words, {count} of them animals, all {math.comb(size, count)} labellings can be counted: "
        "p is another.",
        got=f"{found[worst]:.3f}", expected=f"{rights[worst]:.3f}, give or take what chance does",
        difference=f"{gaps[worst]:.3f}", cause=likely.strip() if miss(likely) < CHANCE else "",
    )  # fmt: skip


def _number(value: Any) -> float:
    """A p as a float. Raises `Wrong` for what is none."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise Wrong(
            f"p is a share, a number from 0 to 1, and yours is {shown(value, 60)}.",
            cause="Divide how many shufflings did as well by how many there were."
            if not isinstance(value, str)
            else "",
        )
    return float(value)


def _whole_numbers(function: object) -> None:
    """With nine shufflings p is 1/10, 2/10 ... 10/10. Raises `Wrong` where it is something else."""
    import numpy as np

    animal, extreme = _far_apart()
    middle = symmetric(np.random.default_rng(58), 9)
    for matrix in (extreme, middle):
        for seed in range(5):
            value = call(function, matrix.copy(), animal.copy(), FEW, seed)
            value = value.item() if hasattr(value, "item") else value
            plus_one = value * (FEW + 1) if isinstance(value, float) else 0.0
            if isinstance(value, float) and 1 < value < 1.2 and same(value * FEW, round(value * FEW), 1e-6):
                raise Wrong(
                    f"of {FEW} shufflings, p came out as {value:.4g}, above 1.",
                    cause="The real labels are counted above the line, but not below: divide by "
                    "permutations + 1.",
                )
            if isinstance(value, float) and 1 < value <= 2 and same(plus_one, round(plus_one), 1e-6):
                raise Wrong(
                    f"of {FEW} shufflings, p came out as {value:.4g}, above 1.",
                    cause="Two pairs of brackets are needed: (1 + count) / (1 + permutations)."
                    if value > 1.15
                    else "Are the real labels counted twice, or is there a shuffling too many? Begin to "
                    "count at 0, shuffle `permutations` times, and add 1 at the end.",
                )
            value = _number(value)
            if value == 0:
                raise Wrong(
                    f"after {FEW} shufflings p is 0: that would be \"impossible\".",
                    got="0", expected=f"at least 1/{FEW + 1}",
                    cause="The real labels are one of all the possible ones, so they count as well: "
                    "(1 + count) / (1 + permutations).",
                )  # fmt: skip
            if not same(plus_one, round(plus_one), 1e-6):
                ninths = same(value * FEW, round(value * FEW), 1e-6)
                shares = {made: value * (made + 1) for made in (100, MANY, 10_000)}
                made = next((made for made, found in shares.items() if same(found, round(found), 1e-9)), 0)
                if made:
                    raise Wrong(
                        f"asked for {FEW} shufflings, it seems to make {made}.",
                        cause="Take `permutations`, which comes in, for their number.",
                    )
                raise Wrong(
                    f"of {FEW} shufflings and the real labels, a share has to be a number of tenths.",
                    got=f"{value:.4g}", expected="1/10, 2/10, ... 10/10",
                    cause="The real labels count as well, above the line and below: (1 + count) / "
                    "(1 + permutations)." if ninths else "Count the shufflings that do at least as well as "
                                                         "the real labels, "
                    "add 1, and divide by permutations + 1.",
                )  # fmt: skip


def _far_apart() -> tuple[Array, Array]:
    """Labels, and a table in which no other labels do as well."""
    import numpy as np

    animal = np.arange(9) < 4
    matrix = symmetric(np.random.default_rng(56), 9) * 0.2 + 0.7 * np.outer(animal, animal)
    np.fill_diagonal(matrix, 1.0)
    return animal, matrix


def _exact_counts(function: object) -> None:
    """Where no shuffling does as well p is the least there is, and where all do, it is 1. Raises `Wrong`."""
    import numpy as np

    animal, matrix = _far_apart()
    least = min(_number(call(function, matrix.copy(), animal.copy(), FEW, seed)) for seed in range(5))
    if not same(least, 1 / (FEW + 1), 1e-6):
        raise Wrong(
            f"after {FEW} shufflings p is never below {least:.4g}, also where none of them does as well.",
            got=f"{least:.4g}", expected=f"1/{FEW + 1}",
            cause="The real labels count once: start to count at 0, and add 1 at the end.",
        )  # fmt: skip
    matrix = np.where(np.eye(9, dtype=bool), 1.0, 0.5)
    most = call(function, matrix, animal.copy(), FEW, 0)
    if not same(most, 1.0, 1e-6):
        raise Wrong(
            f"where all {FEW} shufflings do as well as the real labels, p is 1.",
            got=shown(most, 60), expected="1",
            cause="Shuffle as often as `permutations` says, no more and no less.",
        )  # fmt: skip


def _right(matrix: Array, animal: Array) -> float:
    """p by counting all labellings."""
    values = closeness_of_all(matrix, all_labels(len(animal), int(animal.sum())))
    return float((values >= closeness_of_all(matrix, animal[None])[0]).mean())


def _wrong(matrix: Array, animal: Array, draws: int = 4000) -> dict[str, float]:
    """What p comes to when something is misunderstood, by what to say then."""
    import numpy as np

    values = closeness_of_all(matrix, all_labels(len(animal), int(animal.sum())))
    real, rng = closeness_of_all(matrix, animal[None])[0], np.random.default_rng(57)
    anew = np.stack([rng.choice(animal, len(animal)) for _ in range(draws)])
    rows = np.stack([rng.permutation(matrix) for _ in range(draws)])
    flat = np.stack([rng.permutation(matrix.ravel()).reshape(matrix.shape) for _ in range(draws)])
    same_labels = np.repeat(animal[None], draws, axis=0)
    values_shuffled = (
        "The values are shuffled, not the labels. Then cosines of a word with itself stand anywhere, and "
        "what makes it a table of cosines is lost. Leave the matrix, and shuffle `animal`."
    )
    right = float((values >= real).mean())
    return {
        "Every shuffling counts as one that does as well: are the shuffled labels used?": 1.0,
        "That is the other side: shufflings that do at most as well. Count those that are *at least* as "
        "close.": float((values <= real).mean()),
        "That is 1 minus p.": 1 - right,
        "Two-sided: shufflings that make animals *farther* count as well. The hypothesis says closer, so "
        "only one side counts.": float((np.abs(values) >= abs(real)).mean()),
        "Twice the one-sided p: that is for a hypothesis without a side. This one says closer.":
            min(1.0, 2 * right),
        "Shufflings that do exactly as well are left out: count with >=, not with >.":
            float((values > real).mean()),
        "That is how often chance gives more than 0, not how often it gives as much as the real labels.":
            float((values >= 0).mean()),
        "The labels are drawn anew (with replacement), so that the number of animals changes. Shuffle those "
        "there are: rng.permutation.": float((closeness_of_all(matrix, anew) >= real).mean()),
        values_shuffled: float((closeness_of_all(rows, same_labels) >= real).mean()),
        values_shuffled + " ": float((closeness_of_all(flat, same_labels) >= real).mean()),
    }  # fmt: skip
