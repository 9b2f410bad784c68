"""What challenge 5 needs: the words to place, a map of them, and a picture of what chance does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nanolab.tokenizer import Tokenizer
from nanolab.viz.output import COLOURS, INK, dress, new_figure, show
from nanolab.viz.words import MARKERS, place_labels

ANIMALS = (
    "cat", "dog", "cow", "horse", "lion", "frog", "spider", "penguin", "whale", "tiger", "polar bear",
    "crocodile",
)  # fmt: skip
COUNTRIES = (
    "France", "Spain", "Italy", "Germany", "Egypt", "China", "Japan", "Brazil", "Canada", "Norway", "Russia",
    "Argentina",
)  # fmt: skip

STATEMENTS = {
    "A": "In the trained model animals lie closer to each other than to countries: p is below 0.05.",
    "B": "In the untrained model they do, too.",
    "C": "In the trained model an animal and a country have nothing in common: the mean of their cosines is "
    "between -0.1 and 0.1.",
    "D": "A map of the trained words shows more than half of how they differ.",
}
"""What may be true of a learner's models, or not. `nanolab.checks.embeddings` looks."""


def tokens_of(tokenizer: Tokenizer, words: Sequence[str]) -> list[dict[str, Any]]:
    """A row a word: its tokens at the beginning of a text, and inside a sentence."""

    def cut(text: str) -> str:
        return " | ".join(tokenizer.token_text(id).replace(" ", "␣") for id in tokenizer.encode(text))

    return [{"word": word, "begins a text": cut(word), "in a sentence": cut(" " + word)} for word in words]


def cosine_matrix(cosine: Callable[[Any, Any], Any], vectors: Any) -> np.ndarray:
    """`(n, n)`: the cosine of every pair of `n` vectors, found with the given function."""
    return np.array([[float(cosine(a, b)) for b in vectors] for a in vectors])


def draw_map(groups: Mapping[str, Sequence[str]], coordinates: Any, shares: Any, title: str) -> None:
    """Display words, `{"group": [words]}`, at their `coordinates`, `(words, 2)`. The axes say how much of the
    variance they show: `shares`, two numbers from 0 to 1."""
    points, shares = np.asarray(coordinates, float), np.asarray(shares, float)
    figure = new_figure(7.2, 5.0)
    axes, start = figure.add_subplot(), 0
    for index, (name, words) in enumerate(groups.items()):
        of_group, start = points[start : start + len(words)], start + len(words)
        x, y = of_group.T
        axes.scatter(x, y, s=34, color=COLOURS[index], marker=MARKERS[index], label=name)
    axis = "component {}: {:.0%} of the variance"
    dress(axes, axis.format(1, shares[0]), axis.format(2, shares[1]), title)
    axes.margins(0.12)
    place_labels(axes, points, [word for words in groups.values() for word in words])
    show(figure, f"{title}. The two axes show {shares.sum():.0%} of the variance.")


def draw_chance(
    closeness: Callable[[Any, Any], Any], matrices: Mapping[str, Any], animal: Any, shuffles: int = 500
) -> None:
    """Display what `closeness` gives with shuffled labels and with the real ones, for each matrix."""
    figure = new_figure(7.2, 3.0)
    panels = np.atleast_1d(figure.subplots(1, len(matrices), sharex=True, sharey=True))
    words, labels, rng = [], np.asarray(animal, bool), np.random.default_rng(0)
    for axes, (name, matrix) in zip(panels, matrices.items(), strict=True):
        chance = [float(closeness(matrix, rng.permutation(labels))) for _ in range(shuffles)]
        real = float(closeness(matrix, labels))
        axes.hist(chance, bins=25, color=COLOURS[5], label="shuffled labels")
        axes.axvline(real, color=INK, linewidth=2, label="real labels")
        dress(axes, "closeness", "shuffles", name)
        words.append(f"{name}: shuffled from {min(chance):.2f} to {max(chance):.2f}, real {real:.2f}")
    show(figure, f"Histograms of the closeness under shuffled labels. {'; '.join(words)}.")
