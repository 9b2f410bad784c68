"""Challenge 5, embedding cartography: rows of a table, an untrained model, cosines, words of several tokens.

The map and the conclusion are in `cartography.py`, the permutation test is in `permutations.py`.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from typing import Any

from nanolab.checks.cartography import meaning_of_p, pca_map, verdict
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
from nanolab.checks.permutations import closeness, p_value

__all__ = [
    "closeness", "cosine_sim", "get_embeddings", "meaning_of_p", "p_value", "pca_map", "untrained", "verdict",
    "word_vectors",
]  # fmt: skip

WORDS = (
    "rabbit", "whale", "squirrel", "Mexico", "Iceland", "bread", "hippopotamus", "polar bear", "New Zealand",
    "zyzzogeton", "mountain", "Monday",
)  # fmt: skip
"""None of them is among the words of the notebook."""
TWICE = "Bora Bora island"
"""In a sentence some of its tokens come twice, others once, whatever the tokenizer."""

ALL_ROWS = "Those are the rows of all tokens. A word is one vector, however many tokens it has."

Array = Any


# ---- looking up


def small_models(tokenizer: Any) -> list[Any]:
    """Models of two widths with random weights in every table, the output layer too."""
    import torch

    from nanolab.model import GPT, GPTConfig

    generator = torch.Generator().manual_seed(51)
    models = []
    for width in (8, 12):
        model = GPT(GPTConfig(8, tokenizer.get_vocab_size(), n_layer=1, n_head=1, n_kv_head=1, n_embd=width))
        for weight in model.parameters():
            # A model is made with an output layer of zeros, where every wrong look-up would look alike.
            weight.data = torch.randn(weight.shape, generator=generator)
        models.append(model)
    return models


def table_of(model: Any, name: str = "transformer.wte.weight") -> Array:
    """The token embeddings of a model, `(vocabulary, width)`."""
    return model.get_parameter(name).detach().cpu().double().numpy()


def word_cases(tokenizer: Any) -> list[tuple[Any, list[str]]]:
    rng = random.Random(52)
    return [
        (model, [*rng.sample(WORDS[:6], 2), *rng.sample(WORDS[6:], 3), TWICE])
        for model in small_models(tokenizer) * 2
    ]


def looked_up(
    tokenizer: Any,
    before: str = "",
    take: Callable[[Array], Array] = lambda rows: rows[0],
    parameter: str = "transformer.wte.weight",
) -> Callable[..., Array]:
    """A way to look words up: `before` stands in front of each, `take` makes one vector of its tokens'."""
    import numpy as np

    def find(model: Any, words: Sequence[str]) -> Array:
        table = table_of(model, parameter)
        return np.stack([take(table[tokenizer.encode(before + word)]) for word in words])

    return find


@check
def get_embeddings(function: object, tokenizer: Any) -> str:
    """Whether rows of the embedding table come back, one a word; of which of its tokens is left open."""
    cases = word_cases(tokenizer)
    answers = _answers(function, cases)

    def all_same(way: Callable[..., Array]) -> bool:
        return all(same(answer, way(*case)) for answer, case in zip(answers, cases, strict=True))

    mean: Callable[[Array], Array] = lambda rows: rows.mean(axis=0)  # noqa: E731
    if all_same(looked_up(tokenizer, " ", mean)):
        return "A row a word. You take all its tokens, written as inside a sentence: task 4 is done as well."
    if all_same(looked_up(tokenizer, "", mean)):
        return "A row a word, the mean over its tokens. Task 4 asks how the word is written in a sentence."
    if all_same(looked_up(tokenizer, " ")):
        return (
            "A row a word, that of its first token, in a sentence. Task 4 asks about words of several tokens."
        )
    if all_same(looked_up(tokenizer)):
        return "A row a word, that of its first token. Task 4 asks whether that is the word."
    bos = tokenizer.get_bos_token_id()
    check_function(function, looked_up(tokenizer), cases, [
        Misconception("Those are rows of `lm_head`, the output layer: how a token is predicted, not how it "
                      "is read. The embedding is `transformer.wte`.",
                      looked_up(tokenizer, parameter="lm_head.weight")),
        Misconception("Those are rows of `lm_head`, the output layer: how a token is predicted, not how it "
                      "is read. The embedding is `transformer.wte`.",
                      looked_up(tokenizer, " ", parameter="lm_head.weight")),
        Misconception("Rows and columns are exchanged: a row a word is expected.",
                      lambda *case: looked_up(tokenizer)(*case).T),
        Misconception("Those are the numbers of the tokens. Take the rows of `wte` that have these numbers.",
                      lambda model, words: [tokenizer.encode(word)[0] for word in words]),
        Misconception("That is the last token of each "
                      "word.", looked_up(tokenizer, take=lambda rows: rows[-1])),
        Misconception("The vectors of a word's tokens are added up: long words would be long vectors. Take "
                      "the first, or their mean.", looked_up(tokenizer, take=lambda rows: rows.sum(axis=0))),
        Misconception("That is the embedding of <|bos|>, the same for every word: it stands before the word.",
                      lambda model, words: table_of(model)[[bos] * len(words)]),
        Misconception("The vectors are divided by their length. Give them as they are: the cosine comes "
                      "later.",
                      looked_up(tokenizer, take=lambda rows: rows[0] / (rows[0] ** 2).sum() ** 0.5)),
        Misconception("That is one vector for all words. Give each its row.",
                      lambda *case: looked_up(tokenizer)(*case).mean(axis=0)),
        Misconception("That is the vector of the first word only.",
                      lambda *case: looked_up(tokenizer)(*case)[0]),
        Misconception(ALL_ROWS, _all_rows(tokenizer)),
        Misconception(ALL_ROWS, _all_rows(tokenizer, " ")),
    ])  # fmt: skip
    return ""


def _answers(function: object, cases: list[tuple[Any, list[str]]]) -> list[Array]:
    """What a look-up gives for models of two widths. Raises `Wrong` if it looks into another one."""
    before = [table_of(model).copy() for model, _ in cases]
    check_unchanged(function, *cases[0], cause="Put the result into a list of your own, not into `words`.")
    answers = [_array(call(function, *case), case) for case in cases]
    if any((table_of(model) != table).any() for (model, _), table in zip(cases, before, strict=True)):
        raise Wrong(
            "your function changed the model: its embeddings are others now.",
            cause="`.numpy()` gives a view of the weights, and `/=` works in place: write `a = a / ...`.",
        )
    widths = {answer.shape[-1] for answer in answers}
    if len(widths) == 1 and widths.pop() not in (len(cases[0][1]), len(cases[0])):
        raise Wrong(
            "for models of 8 and of 12 numbers a token, your vectors have the same length.",
            got=f"vectors of {answers[0].shape[-1]} numbers",
            cause="It always looks into the same model. Use the `model` that comes in, not one of the "
            "notebook.",
        )
    return answers


def _all_rows(tokenizer: Any, before: str = "") -> Callable[..., Array]:
    """The rows of all tokens of all words, one below the other."""

    def find(model: Any, words: Sequence[str]) -> Array:
        return table_of(model)[[id for word in words for id in tokenizer.encode(before + word)]]

    return find


def _distinct(tokenizer: Any) -> Callable[..., Array]:
    """The mean of each word's tokens, each of them counted once."""

    def find(model: Any, words: Sequence[str]) -> Array:
        return [table_of(model)[sorted(set(tokenizer.encode(" " + word)))].mean(axis=0) for word in words]

    return find


def _array(value: Any, case: tuple[Any, list[str]]) -> Array:
    """The learner's vectors as an array of two dimensions, or what is wrong with them."""
    import numpy as np

    several = isinstance(value, (list, tuple))
    if any(getattr(one, "requires_grad", False) for one in (value if several else [value])):
        raise Wrong(
            "these are parts of the model itself, which keep a gradient: numpy cannot compute with them.",
            cause="Make an array of the table first: `.detach().cpu().numpy()`.",
        )
    rows = [row.detach().cpu().numpy() if hasattr(row, "detach") else row for row in value] if (
        several
    ) else value  # fmt: skip
    rows = rows.detach().cpu().numpy() if hasattr(rows, "detach") else rows
    try:
        array = np.asarray(rows, dtype=float)
    except (TypeError, ValueError):
        raise Wrong(
            f"{len(case[1])} vectors are expected, and it gave {shown(value, 60)}.",
            cause="If each word has another number of rows: a word is one vector here, however many tokens.",
        ) from None
    if array.ndim == 0:
        raise Wrong("vectors are expected, and it gave a single number.", got=shown(value))
    return array


@check
def word_vectors(function: object, tokenizer: Any) -> str:
    """Whether a word is taken as inside a sentence, and as the mean of all its tokens."""
    mean: Callable[[Array], Array] = lambda rows: rows.mean(axis=0)  # noqa: E731
    no_space = (
        "The words are looked up without the space before them: `cat` at the beginning of a text has other "
        'tokens than ` cat` in a sentence. Encode " " + word.'
    )
    first = (
        "Only the first token of each word is taken: ` polar bear` would be ` polar`. Take the mean of all "
        "its rows."
    )
    cases = word_cases(tokenizer)
    _answers(function, cases)
    check_function(function, looked_up(tokenizer, " ", mean), cases, [
        Misconception(no_space, looked_up(tokenizer, "", mean)),
        Misconception(first, looked_up(tokenizer, " ")),
        Misconception(f"Two things. {no_space} And only the first token is taken: use the mean of all its "
                      "rows.",
                      looked_up(tokenizer, "")),
        Misconception("The rows are added up, and not divided by their number. For cosines that makes no "
                      "difference, for a map it does: words of many tokens would lie far out.",
                      looked_up(tokenizer, " ", lambda rows: rows.sum(axis=0))),
        Misconception("Only the last token of each word is taken. Take the mean of all its rows.",
                      looked_up(tokenizer, " ", lambda rows: rows[-1])),
        Misconception("The space stands behind the word. In a sentence it belongs to the word that follows "
                      "it.",
                      lambda model, words: looked_up(tokenizer, "", mean)(model, [f"{w} " for w in words])),
        Misconception("The sign of the table stands for a space. Write a real one: \" \" + word.",
                      looked_up(tokenizer, "␣", mean)),
        Misconception("A space too many: one is enough, before the word.",
                      looked_up(tokenizer, "  ", mean)),
        Misconception("Those are rows of `lm_head`, the output layer. The embedding is `transformer.wte`.",
                      looked_up(tokenizer, " ", mean, "lm_head.weight")),
        Misconception("Rows and columns are exchanged: a row a word is expected.",
                      lambda *case: looked_up(tokenizer, " ", mean)(*case).T),
        Misconception("The mean is taken over the numbers of a token: `mean(axis=0)` is the mean over "
                      "tokens.",
                      looked_up(tokenizer, " ", lambda rows: rows.mean(axis=1)[:1])),
        Misconception("The mean is taken over everything: `mean(axis=0)` is the mean over tokens.",
                      looked_up(tokenizer, " ", lambda rows: rows.mean())),
        Misconception("A token that comes twice in a word is counted once. Take the mean over all of them, "
                      "not over a set.", _distinct(tokenizer)),
        Misconception("That is one vector for all words. Give each its mean.",
                      lambda *case: _all_rows(tokenizer, " ")(*case).mean(axis=0)),
        Misconception(ALL_ROWS, _all_rows(tokenizer, " ")),
        Misconception("The vectors are divided by their length. Give them as they are: the cosine does that.",
                      looked_up(tokenizer, " ", lambda rows: mean(rows) / (mean(rows) ** 2).sum() ** 0.5)),
    ])  # fmt: skip
    return "The whole word, and as it stands in a sentence."


# ---- an untrained model


@check
def untrained(model: Any, trained: Any) -> str:
    """Whether `model` has the size of `trained` and weights of its own."""
    import torch

    from nanolab.model import GPT, GPTConfig

    if isinstance(model, GPTConfig):
        raise Wrong("that is the size of a model, not a model.", cause="GPT(config) makes one of it.")
    if not isinstance(model, GPT):
        raise Wrong(f"a model is expected, and it got {shown(model, 60)}.", cause="GPT(config) makes one.")
    if model is trained:
        raise Wrong(
            "that is the trained model under another name.",
            cause="`untrained = trained` copies nothing. GPT(config) makes a new one.",
        )
    if model.config != trained.config:
        ours, theirs = vars(trained.config), vars(model.config)
        names = [name for name in ours if ours[name] != theirs[name]]
        raise Wrong(
            f"it has another size than the trained model: {', '.join(names)}.",
            got=", ".join(f"{name}={theirs[name]}" for name in names),
            expected=", ".join(f"{name}={ours[name]}" for name in names),
            cause=("GPTConfig() alone has the defaults. " if model.config == GPTConfig() else "")
            + 'Give it the sizes in meta["model_config"], all of them, as they are.',
        )
    table, theirs_table = table_of(model), table_of(trained)
    if (table == theirs_table).all():
        raise Wrong(
            "its embeddings are those of the trained model.",
            cause="A copy, or loaded weights. GPT(config) has random weights: load nothing into it.",
        )
    if not float(torch.from_numpy(table).std()) > 0:
        raise Wrong("all its embeddings are equal.", cause="GPT(config) draws random ones: leave them.")
    if bool(model.lm_head.weight.any()):
        raise Wrong(
            "its output layer has learned something: that of a new model is all zeros.",
            cause="Another trained model, or loaded weights. GPT(config) makes a new one.",
        )
    size = f"{table.shape[0]:,} x {table.shape[1]}"
    return f"The same {size} table, filled with noise: all that is not noise was learned."


# ---- cosines


@check
def cosine_sim(function: object) -> str:
    """Whether the cosine of the angle between two vectors comes back. Arrays and tensors are both fine."""
    import numpy as np

    rng = np.random.default_rng(53)
    cases: list[tuple[Any, Any]] = []
    for size in (6, 9, 16, 5, 11):
        a, b = rng.normal(0.7, 1.0, size), rng.normal(0.7, 1.0, size)
        cases.append((a * rng.uniform(0.2, 4), b * rng.uniform(0.2, 4)))
    cases.append((cases[0][0], -3 * cases[0][0] + 0.5 * cases[2][0][:6]))
    if not _takes(function, cases[0]):
        import torch

        tensors = [(torch.from_numpy(a), torch.from_numpy(b)) for a, b in cases]
        cases = tensors if _takes(function, tensors[0]) else cases

    def numbers(formula: Callable[[Any, Any], Any]) -> Callable[[Any, Any], float]:
        return lambda a, b: float(formula(np.asarray(a, float), np.asarray(b, float)))

    def length(vector: Array) -> float:
        return float(np.sqrt((vector**2).sum()))

    def right(a: Array, b: Array) -> float:
        return float((a * b).sum() / (length(a) * length(b)))

    one = "Divided by the length of one vector only. Divide by both."
    check_function(function, numbers(right), cases, [
        Misconception("`len` counts the numbers of a vector. Its length is `np.linalg.norm`.",
                      numbers(lambda a, b: (a * b).sum() / (len(a) * len(b)))),
        Misconception("That is the dot product alone: long vectors win. Divide it by both lengths.",
                      numbers(lambda a, b: (a * b).sum())),
        Misconception("Divided by the squared lengths: take their square root, as np.linalg.norm does.",
                      numbers(lambda a, b: (a * b).sum() / (length(a) * length(b)) ** 2)),
        Misconception("That is the absolute value. The sign is a part of it: -1 means opposite directions.",
                      numbers(lambda a, b: abs(right(a, b)))),
        Misconception(one, numbers(lambda a, b: (a * b).sum() / length(a))),
        Misconception(one, numbers(lambda a, b: (a * b).sum() / length(b))),
        Misconception("Divided by the squared length of one vector only.",
                      numbers(lambda a, b: (a * b).sum() / length(a) ** 2)),
        Misconception("Divided by the length of the first, then multiplied by the other: `a / x * y` goes "
                      "from left to right. Put the product of the lengths in brackets.",
                      numbers(lambda a, b: (a * b).sum() / length(a) * length(b))),
        Misconception("That is per cent. A cosine lies between -1 and 1.",
                      numbers(lambda a, b: 100 * right(a, b))),
        Misconception("The lengths are added. Multiply them.",
                      numbers(lambda a, b: (a * b).sum() / (length(a) + length(b)))),
        Misconception("That is the cosine *distance*, 1 minus the "
                      "cosine.", numbers(lambda a, b: 1 - right(a, b))),
        Misconception("That is how far apart the ends of the vectors are. Asked is the angle between them.",
                      numbers(lambda a, b: length(a - b))),
        Misconception("That is the angle. Asked is its "
                      "cosine.", numbers(lambda a, b: np.arccos(right(a, b)))),
        Misconception("The mean of each vector was subtracted first: that is a correlation.",
                      numbers(lambda a, b: right(a - a.mean(), b - b.mean()))),
        Misconception("Lengths are roots of sums of squares, not sums of absolute values.",
                      numbers(lambda a, b: (a * b).sum() / (np.abs(a).sum() * np.abs(b).sum()))),
    ])  # fmt: skip
    check_unchanged(function, *cases[0], cause="`/=` works in place: write `a = a / ...`.")
    number = call(function, *cases[0])
    if getattr(number, "ndim", 0):
        raise Wrong("a single number is expected, and it gave one inside an array.",
                    got=shown(number), cause="`.item()` takes it out.")  # fmt: skip
    return "1 is the same direction, 0 none in common, -1 the opposite one, however long the vectors are."


def _takes(function: object, case: tuple[Any, ...]) -> bool:
    """Whether a function gets by with this kind of vectors."""
    try:
        call(function, *copy.deepcopy(case))
    except Wrong:
        return False
    return True
