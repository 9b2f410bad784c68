"""Challenge 5: a map of words, what a p says, and what the learner's own models say."""

from __future__ import annotations

from typing import Any

from nanolab.checks.choosing import choose_one, letters
from nanolab.checks.core import Wrong, call, check, compare, diagnose_value, same, shown
from nanolab.checks.permutations import MANY, closeness_of_all

Array = Any


# ---- a map


@check
def pca_map(function: object) -> str:
    """Whether the words' first two principal components come back, and each one's share of the variance."""
    import numpy as np

    rng = np.random.default_rng(54)
    for rows, width in ((9, 5), (7, 12), (14, 6)):
        scale = np.geomspace(3, 0.4, width)
        vectors = rng.normal(0, 1, (rows, width)) * scale @ rng.normal(0, 1, (width, width)) + 4
        result = call(function, vectors.copy())
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise Wrong(
                f"for vectors of shape {vectors.shape} two things are expected: (coordinates, shares).",
                got=shown(result), cause="End with `return coordinates, shares`.",
            )  # fmt: skip
        if np.shape(result[0]) == (2,):
            raise Wrong("you return the shares first.", cause="End with `return coordinates, shares`.")
        _place(result[0], vectors)
        _shares(result[1], vectors)
    return "The flattest view that keeps most of the differences. How little that is, the axes say."


def _components(vectors: Array, centre: bool = True) -> tuple[Array, Array, Array]:
    """(coordinates, variances, directions) of all components."""
    import numpy as np

    centred = vectors - vectors.mean(axis=0) if centre else vectors
    left, strengths, directions = np.linalg.svd(centred, full_matrices=False)
    return left * strengths, strengths**2 / (len(vectors) - 1), directions


def _place(coordinates: Any, vectors: Array) -> None:
    right, _, directions = _components(vectors)
    swapped = _components(vectors.T)[0][:, :2]
    unit = vectors / (vectors**2).sum(axis=1, keepdims=True) ** 0.5
    standard = (vectors - vectors.mean(axis=0)) / vectors.std(axis=0)
    wrongs = {
        "Rows and columns are exchanged: PCA wants a row a word. Do not transpose.": [swapped, swapped.T],
        "Those are the directions themselves (`components_`). Asked is where the words lie along them: "
        "`fit_transform`.": [directions[:2], directions[:2].T],
        "The mean was not subtracted, so that the first axis only says where all words lie together.":
            [_components(vectors, centre=False)[0][:, :2]],
        "Each axis was stretched to the same spread (whitening). Leave the lengths as they are.":
            [right[:, :2] / right[:, :2].std(axis=0, ddof=ddof) for ddof in (0, 1)],
        "The vectors were scaled first. PCA takes them as they are.":
            [_components(scaled)[0][:, :2] for scaled in (unit, standard)],
        "Those are the last two components, along which the words differ least.": [right[:, -2:]],
        "The axes are exchanged: the component with the larger share comes first.": [right[:, 1::-1]],
        "Those are two numbers of the vectors as they were. PCA looks for the best two directions.":
            [vectors[:, :2], (vectors - vectors.mean(axis=0))[:, :2]],
        "Those are the coordinates along all components. A map has two: PCA(n_components=2).": [right],
        "The result is lying down: a row a word, a column an axis.": [right[:, :2].T],
    }  # fmt: skip
    cause = next(
        (
            text
            for text, values in wrongs.items()
            for value in values
            if same(_turned(coordinates, value), value)
        ),
        "",
    )
    expected = right[:, :2]
    compare(_turned(coordinates, expected), expected, "the array of the coordinates", 1e-4, cause=cause)


def _turned(got: Any, expected: Array) -> Any:
    """`got` with the sign of each column as in `expected`: a component has no sign of its own."""
    import numpy as np

    try:
        array = np.asarray(got.detach().cpu().numpy() if hasattr(got, "detach") else got, dtype=float)
    except (TypeError, ValueError):
        return got
    if array.shape != expected.shape or array.ndim != 2:
        return got
    # Of the transposed ones the components lie in rows.
    axis = 0 if array.shape[0] >= array.shape[1] or array.shape[1] == 2 else 1
    signs = np.sign((array * expected).sum(axis=axis, keepdims=True))
    return array * np.where(signs == 0, 1, signs)


def _shares(shares: Any, vectors: Array) -> None:
    variances = _components(vectors)[1]
    of_all = variances / variances.sum()
    raw = _components(vectors, centre=False)[1]
    diagnose_value(shares, of_all[:2], {
        "Those are variances (`explained_variance_`), in squared units. Asked are shares: "
        "`explained_variance_ratio_`.": variances[:2],
        "Those are the spreads along the axes. Asked are shares of the variance, their squares, of the sum "
        "of all.":
            variances[:2] ** 0.5,
        "They add up to 1 by construction: divided by the two shown, not by all. The rest, which no map "
        "shows, must count.": variances[:2] / variances[:2].sum(),
        "Those are per cent. Give shares from 0 to 1.": 100 * of_all[:2],
        "That is their sum. Give the share of each axis.": of_all[:2].sum(),
        "Added up: the second number is both together. Give the share of each axis.":
            [of_all[0], of_all[:2].sum()],
        "Those are the shares of all components. A map has two.": of_all,
        "The mean was not subtracted: the first share is mostly where all words lie together.":
            raw[:2] / raw.sum(),
        "They are those of the exchanged table: rows and columns are swapped.":
            (_components(vectors.T)[1] / _components(vectors.T)[1].sum())[:2],
    }, 1e-4, "the array of the shares of the variance")  # fmt: skip


# ---- what follows


@check
def meaning_of_p(answer: object) -> str:
    """Whether it is known what a small p says."""
    choose_one(answer, "C", {
        "A": "p starts from \"the labels say nothing\", and says how odd the data would then be. It cannot "
             "say how "
        "probable the hypothesis is: that depends also on how probable it was before.",
        "B": "Twice the words make p much smaller, though the difference stays what it is. How large it "
             "is, closeness "
        "says.",
        "D": "Not found is not the same as not there: with few words even a real difference may not show.",
    })  # fmt: skip
    return "How odd the data would be if the labels said nothing. No more, and no less."


@check
def verdict(answer: object, trained: Any, untrained: Any, tokenizer: Any) -> str:
    """Whether exactly the statements were chosen that hold for these two models."""
    found = findings(trained, untrained, tokenizer)
    chosen = letters(answer, found)
    wrong = [name for name, (holds, _) in found.items() if holds is not None and holds != (name in chosen)]
    if wrong:
        name = wrong[0]
        what = (
            "does not hold for your models"
            if name in chosen
            else "holds for your models, and you left it out"
        )
        more = f" ({len(wrong)} of the {len(found)} are misjudged; this is the first.)" if wrong[1:] else ""
        raise Wrong(f"statement {name} {what}.{more}", cause=found[name][1])
    return "That is what your two models say, and you did not have to look at a single pair of words."


def findings(trained: Any, untrained: Any, tokenizer: Any) -> dict[str, tuple[bool | None, str]]:
    """Each of `lessons.cartography.STATEMENTS`: whether it holds, None where it is too close, and why."""
    import numpy as np

    from nanolab.lessons.cartography import ANIMALS, COUNTRIES

    animal = np.array([True] * len(ANIMALS) + [False] * len(COUNTRIES))
    p, mixed, shown_share = {}, {}, 0.0
    for name, model in (("trained", trained), ("untrained", untrained)):
        table = model.get_parameter("transformer.wte.weight").detach().cpu().double().numpy()
        words = [table[tokenizer.encode(" " + word)].mean(axis=0) for word in (*ANIMALS, *COUNTRIES)]
        vectors = np.stack(words)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        matrix, rng = unit @ unit.T, np.random.default_rng(58)
        labels = np.stack([animal, *(rng.permutation(animal) for _ in range(MANY))])
        values = closeness_of_all(matrix, labels)
        p[name] = float((values >= values[0]).mean())
        mixed[name] = float(matrix[np.ix_(animal, ~animal)].mean())
        if name == "trained":
            strengths = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False) ** 2
            shown_share = float(strengths[:2].sum() / strengths.sum())

    def below(value: float, limit: float, doubt: float) -> bool | None:
        return None if abs(value - limit) < doubt else value < limit

    side = "so that the test {} them apart from chance"
    return {
        "A": (below(p["trained"], 0.05, 0.02),
              f"with {MANY} shufflings of the check's own p is {p['trained']:.3f} in the trained model, "
              f"{side.format('tells' if p['trained'] < 0.05 else 'cannot tell')}"),
        "B": (below(p["untrained"], 0.05, 0.02),
              f"with {MANY} shufflings of the check's own p is {p['untrained']:.3f} in the untrained model, "
              f"{side.format('tells' if p['untrained'] < 0.05 else 'cannot tell')}"),
        "C": (below(abs(mixed["trained"]), 0.1, 0.01),
              f"the mean cosine of an animal and a country is {mixed['trained']:.2f} in the trained model, "
              "and "
              f"{mixed['untrained']:.2f} in the untrained one"),
        "D": (below(-shown_share, -0.5, 0.02),
              f"the two axes show {shown_share:.0%} of the variance of the trained words"),
    }  # fmt: skip
