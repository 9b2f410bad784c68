"""Words as the model's embedding sees them: a map by PCA, nearest neighbours, cosines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from nanolab.errors import ConfigError, DataError
from nanolab.model import GPT
from nanolab.tokenizer import Tokenizer
from nanolab.viz.charts import heatmap
from nanolab.viz.output import COLOURS, GREY, dress, new_figure, show

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def embedding_table(model: GPT) -> np.ndarray:
    """The token embeddings, `(vocabulary, width)`, as float32."""
    weight: torch.Tensor = model.get_parameter("transformer.wte.weight")
    return weight.detach().float().cpu().numpy()


def word_vectors(model: GPT, tokenizer: Tokenizer, words: Sequence[str]) -> np.ndarray:
    """`(words, width)`: the mean embedding of each word's tokens, written as inside a sentence.

    Raises DataError for a word without tokens.
    """
    table = embedding_table(model)
    ids = [word_ids(tokenizer, word) for word in words]
    return np.stack([table[one].mean(axis=0) for one in ids])


def word_ids(tokenizer: Tokenizer, word: str) -> list[int]:
    """The tokens of a word inside a sentence: `"cat"` -> the ids of `" cat"`."""
    if not word.strip():
        raise DataError(f"{word!r} is no word: it has no tokens to look up.\nGive words with letters.")
    return tokenizer.encode(" " + word.strip())


def project(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two directions in which the vectors, `(n, width)`, differ most.

    Returns coordinates `(n, 2)` and the share of the whole variance along each, `(2,)`.
    Raises ConfigError for fewer than three vectors.
    """
    if len(vectors) < 3:
        raise ConfigError(f"a map of {len(vectors)} words says nothing.\nGive at least 3 different words.")
    # Imported here: it takes a second, and most notebooks draw no map.
    from sklearn.decomposition import PCA

    analysis = PCA(n_components=2, svd_solver="full")
    coordinates = analysis.fit_transform(vectors)
    return coordinates, analysis.explained_variance_ratio_


def embedding_map(
    model: GPT,
    tokenizer: Tokenizer,
    words: Sequence[str] | Mapping[str, Sequence[str]],
    groups: Mapping[str, Any] | Sequence[str] | None = None,
    title: str = "",
) -> np.ndarray:
    """Display words on a map: PCA of their mean token embeddings. Returns the coordinates, `(words, 2)`.

    Groups get a colour and a shape each: `words` as `{"group": [words]}`, or `groups` as the same, as
    `{"word": "group"}`, or as a list beside `words`. The axes say which share of the variance they show.
    """
    if isinstance(words, Mapping):
        groups = {word: group for group, members in words.items() for word in members}
        words = [word for members in words.values() for word in members]
    group_of = _groups(list(words), groups)
    coordinates, shares = project(word_vectors(model, tokenizer, words))
    figure = new_figure(7.2, 5.4)
    axes = figure.add_subplot()
    names = list(dict.fromkeys(group_of))
    for index, name in enumerate(names):
        chosen = coordinates[[group == name for group in group_of]]
        axes.scatter(
            chosen[:, 0], chosen[:, 1], s=34, color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)], label=name or None,
        )  # fmt: skip
    axis = "component {}: {:.0%} of the variance"
    dress(axes, axis.format(1, shares[0]), axis.format(2, shares[1]), title)
    axes.margins(0.12)
    place_labels(axes, coordinates, list(words))
    what = title or "Map of word embeddings"
    members = "; ".join(
        f"{name or 'words'}: {', '.join(w for w, g in zip(words, group_of, strict=True) if g == name)}"
        for name in names
    )
    show(figure, f"{what}. The two axes show {shares.sum():.0%} of the variance. {members}.")
    return coordinates


def _groups(words: list[str], groups: Mapping[str, Any] | Sequence[str] | None) -> list[str]:
    """The group of each word, "" for none."""
    if groups is None:
        return [""] * len(words)
    if not isinstance(groups, Mapping):
        if len(groups) != len(words):
            raise ConfigError(f"{len(words)} words and {len(groups)} groups.\nGive each word its group.")
        return list(groups)
    if all(isinstance(value, str) for value in groups.values()):
        return [groups.get(word, "other") for word in words]
    of = {word: name for name, members in groups.items() for word in members}
    return [of.get(word, "other") for word in words]


def place_labels(axes: Any, points: np.ndarray, texts: Sequence[str]) -> None:
    """Write a label beside each point, on the side where it covers least of the labels and points so far."""
    axes.figure.canvas.draw()
    pixels = axes.transData.transform(points)
    per_point = axes.figure.dpi / 72
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in pixels]
    sides = [(6, -3), (6, 5), (6, -11), (-6, -3), (-6, 5), (-6, -11), (0, 8), (0, -15), (10, 14), (-10, 14)]
    frame = axes.bbox
    for (x, y), point, text in zip(pixels, points, texts, strict=True):
        wide, high = 5.2 * per_point * len(text), 9.0 * per_point
        best = None
        for order, (right, up) in enumerate(sides):
            left = x + right * per_point - (0 if right > 0 else wide if right < 0 else wide / 2)
            low = y + up * per_point
            box = (left, low, left + wide, low + high)
            cost = sum(_overlap(box, other) for other in taken) + 0.5 * order
            outside = max(0, frame.x0 - box[0]) + max(0, box[2] - frame.x1) + max(0, frame.y0 - box[1])
            cost += 30 * (outside + max(0, box[3] - frame.y1))
            if best is None or cost < best[0]:
                best = (cost, box, (right, up))
        assert best is not None
        taken.append(best[1])
        right, up = best[2]
        axes.annotate(
            text, point, xytext=(right, up), textcoords="offset points", fontsize=9,
            ha="left" if right > 0 else "right" if right < 0 else "center", va="bottom",
            arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.5} if abs(right) > 6 else None,
        )  # fmt: skip


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def cosines(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """`(n, width)` and `(m, width)` -> `(n, m)` cosines, 0 where a vector is 0."""
    a = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    b = others / np.maximum(np.linalg.norm(others, axis=1, keepdims=True), 1e-12)
    return a @ b.T


def nearest(model: GPT, tokenizer: Tokenizer, word: str, k: int = 8) -> list[tuple[str, float]]:
    """The `k` tokens whose embeddings point most nearly where the word's does: (text, cosine), best first.

    The word's own tokens are left out.
    """
    row = cosines(word_vectors(model, tokenizer, [word]), embedding_table(model))[0]
    own = set(word_ids(tokenizer, word))
    order = [int(id) for id in np.argsort(-row, kind="stable") if int(id) not in own]
    vocabulary = tokenizer.get_vocab_size()
    return [(tokenizer.token_text(id), float(row[id])) for id in order if id < vocabulary][:k]


def cosine_table(model: GPT, tokenizer: Tokenizer, words: Sequence[str], title: str = "") -> np.ndarray:
    """Display the cosine of every pair of words, from -1 to 1. Returns it, `(words, words)`."""
    vectors = word_vectors(model, tokenizer, words)
    matrix = cosines(vectors, vectors)
    heatmap(
        matrix, rows=list(words), columns=list(words), title=title, numbers=len(words) <= 14,
        label="cosine", alt=title or "Cosines between the embeddings of words",
    )  # fmt: skip
    return matrix
