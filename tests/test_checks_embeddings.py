"""The checks of challenge 5: right answers pass, and each wrong one hears of its own misconception."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace

import checking
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from checking import waits
from sklearn.decomposition import PCA

from nanolab.checks import cartography as maps
from nanolab.checks import embeddings as checks
from nanolab.checks.choosing import letters
from nanolab.lessons.cartography import ANIMALS, COUNTRIES, STATEMENTS
from nanolab.model import GPT, GPTConfig
from nanolab.reference import folder
from nanolab.tokenizer import Tokenizer

TOKENIZER = Tokenizer.load(folder() / "tokenizer.json")
tok = TOKENIZER


def refused(check, *answers) -> str:
    """What a check says to a wrong answer, in small letters."""
    return checking.refused(check, *answers).lower()


@functools.cache
def model(seed: int = 0) -> GPT:
    torch.manual_seed(seed)
    return GPT(GPTConfig(8, TOKENIZER.get_vocab_size(), n_layer=1, n_head=1, n_kv_head=1, n_embd=16))


def rows_of(model, word, name="transformer.wte.weight"):
    return model.get_parameter(name).detach().numpy()[TOKENIZER.encode(word)]


def stacked(one):
    """A function of model and words from one of model and word."""
    return lambda model, words: np.stack([one(model, word) for word in words])


# ---- looking up


def worksheets_embeddings(model, words):
    """As the worksheet of the course has it."""
    embeddings = []
    for word in words:
        tokens = tok.encode(word)
        if tokens:
            emb = model.transformer.wte.weight[tokens[0]].detach().cpu().numpy()
            embeddings.append(emb)
    return np.array(embeddings)


def worksheets_cosine(a, b):
    return np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))


def normalised_in_place(model, words):
    table = model.transformer.wte.weight.detach().numpy()
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    return np.stack([table[tok.encode(word)[0]] for word in words])


def test_the_code_of_the_worksheet_is_right():
    checks.get_embeddings(worksheets_embeddings, TOKENIZER)
    checks.cosine_sim(worksheets_cosine)
    trained = model()
    checks.untrained(GPT(GPTConfig(**vars(trained.config))).to("cpu"), trained)


@pytest.mark.parametrize("space", ["", " "])
@pytest.mark.parametrize("take", [lambda rows: rows[0], lambda rows: rows.mean(axis=0)])
def test_any_token_of_the_word_will_do_at_first(space, take):
    checks.get_embeddings(stacked(lambda model, word: take(rows_of(model, space + word))), TOKENIZER)


def test_tensors_and_lists_of_tensors_are_vectors_too():
    def table(model):
        return model.transformer.wte.weight.detach()

    checks.get_embeddings(lambda m, words: table(m)[[tok.encode(w)[0] for w in words]], TOKENIZER)
    checks.get_embeddings(lambda m, words: [table(m)[tok.encode(w)[0]] for w in words], TOKENIZER)
    checks.word_vectors(
        lambda m, words: torch.stack([table(m)[tok.encode(" " + w)].mean(0) for w in words]), TOKENIZER
    )


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (stacked(lambda m, w: rows_of(m, w, "lm_head.weight")[0]), "rows of `lm_head`"),
        (lambda m, words: worksheets_embeddings(m, words).T, "Rows and columns are exchanged"),
        (lambda m, words: [tok.encode(w)[0] for w in words], "the numbers of the tokens"),
        (stacked(lambda m, w: rows_of(m, w)[-1]), "the last token of each word"),
        (lambda m, words: worksheets_embeddings(model(), words), "always looks into the same model"),
        (lambda m, words: worksheets_embeddings(m, words).mean(axis=0), "one vector for all words"),
        (lambda m, words: [rows_of(m, w) for w in words], "however many tokens"),
        (lambda m, words: np.ones((len(words), 256)), "the same model"),
        (lambda m, words: worksheets_embeddings(m, words)[0], "the first word only"),
        (lambda m, words: np.concatenate([rows_of(m, w) for w in words]), "the rows of all tokens"),
        (lambda m, words: rows_of(m, words.pop())[None], "changed what it was given"),
        (normalised_in_place, "changed the model"),
        (lambda m, words: m.wte.weight, "AttributeError"),
        (lambda m, words: [m.transformer.wte.weight[tok.encode(w)[0]] for w in words], "keep a gradient"),
        (lambda m, words: m.transformer.wte.weight[[tok.encode(w)[0] for w in words]], "keep a gradient"),
    ],
)
def test_other_look_ups_hear_what_they_are(wrong, says):
    assert says.lower() in refused(checks.get_embeddings, wrong, TOKENIZER)


def unit(vector):
    return vector / np.linalg.norm(vector)


def test_all_tokens_of_a_word_as_in_a_sentence_are_right():
    checks.word_vectors(stacked(lambda m, w: rows_of(m, " " + w).mean(axis=0)), TOKENIZER)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (stacked(lambda m, w: rows_of(m, w).mean(axis=0)), "without the space before them"),
        (stacked(lambda m, w: rows_of(m, " " + w)[0]), "Only the first token of each word"),
        (worksheets_embeddings, "Two things. The words are looked up without the space"),
        (stacked(lambda m, w: rows_of(m, " " + w).sum(axis=0)), "added up, and not divided"),
        (stacked(lambda m, w: rows_of(m, " " + w)[-1]), "Only the last token"),
        (stacked(lambda m, w: rows_of(m, w + " ").mean(axis=0)), "The space stands behind the word"),
        (stacked(lambda m, w: rows_of(m, f" {w} ").mean(axis=0)), "A space too many"),
        (stacked(lambda m, w: rows_of(m, "␣" + w).mean(axis=0)), "stands for a space"),
        (stacked(lambda m, w: rows_of(m, " " + w).mean()), "The mean is taken over everything"),
        (lambda m, words: np.concatenate([rows_of(m, " " + w) for w in words]), "the rows of all tokens"),
        (
            lambda m, words: np.concatenate([rows_of(m, " " + w) for w in words]).mean(axis=0),
            "one vector for all words",
        ),
        (stacked(lambda m, w: rows_of(model(), " " + w).mean(axis=0)), "always looks into the same model"),
        (stacked(lambda m, w: unit(rows_of(m, " " + w).mean(axis=0))), "divided by their length"),
        (
            stacked(lambda m, w: m.transformer.wte.weight.detach()[sorted(set(tok.encode(" " + w)))].mean(0)),
            "comes twice in a word",
        ),
        (stacked(lambda m, w: rows_of(m, " " + w, "lm_head.weight").mean(axis=0)), "rows of `lm_head`"),
        (lambda m, words: np.stack([rows_of(m, " " + w).mean(axis=0) for w in words]).T, "Rows and columns"),
        (lambda m, words: np.zeros((len(words), m.config.n_embd)), "is not right"),
    ],
)
def test_other_vectors_of_words_hear_what_they_are(wrong, says):
    assert says.lower() in refused(checks.word_vectors, wrong, TOKENIZER)


# ---- an untrained model


def test_a_new_model_of_the_same_size_is_untrained():
    checks.untrained(model(1), model())
    waits(checks.untrained, ..., model())


def broken(change):
    copied = copy.deepcopy(model(1))
    change(copied)
    return copied


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: model(), "trained model under another name"),
        (lambda: copy.deepcopy(model()), "its embeddings are those of the trained model"),
        (lambda: GPT(GPTConfig(8, 300, n_layer=1, n_head=1, n_kv_head=1, n_embd=16)), "another size"),
        (lambda: model().config, "the size of a model, not a model"),
        (lambda: broken(lambda m: m.transformer.wte.weight.data.zero_()), "all its embeddings are equal"),
        (lambda: broken(lambda m: m.lm_head.weight.data.normal_()), "output layer has learned"),
        (lambda: {"n_embd": 16}, "a model is expected"),
        (lambda: GPT, "it got <class"),
        (lambda: GPT(GPTConfig()), "has the defaults"),
        (lambda: GPT(replace(model().config, n_layer=2)), 'cause: give it the sizes in meta["model_config"]'),
    ],
)
def test_what_is_no_untrained_model_hears_why(wrong, says):
    assert says.lower() in refused(checks.untrained, wrong(), model())


# ---- cosines


def test_cosines_by_numpy_by_torch_and_by_hand_are_right():
    checks.cosine_sim(lambda a, b: a @ b / np.sqrt((a @ a) * (b @ b)))
    checks.cosine_sim(lambda a, b: F.cosine_similarity(a, b, dim=0))
    checks.cosine_sim(
        lambda a, b: sum(x * y for x, y in zip(a, b, strict=True)) / sum(a**2) ** 0.5 / sum(b**2) ** 0.5
    )


norm = np.linalg.norm


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda a, b: np.dot(a, b), "the dot product alone"),
        (lambda a, b: np.dot(a, b) / (norm(a) ** 2 * norm(b) ** 2), "Divided by the squared lengths"),
        (lambda a, b: abs(worksheets_cosine(a, b)), "the absolute value"),
        (lambda a, b: np.dot(a, b) / norm(a), "length of one vector only"),
        (lambda a, b: np.dot(a, b) / norm(a) * norm(b), "in brackets"),
        (lambda a, b: 1 - worksheets_cosine(a, b), "cosine *distance*"),
        (lambda a, b: norm(a - b), "how far apart"),
        (lambda a, b: np.corrcoef(a, b)[0, 1], "that is a correlation"),
        (lambda a, b: np.arccos(worksheets_cosine(a, b)), "That is the angle"),
        (lambda a, b: 0.87, "typed in by hand"),
        (lambda a, b: np.dot(a, b) / (len(a) * len(b)), "`len` counts the numbers"),
        (lambda a, b: 100 * worksheets_cosine(a, b), "per cent"),
        (lambda a, b: round(float(worksheets_cosine(a, b)), 2), "Is it rounded?"),
        (lambda a, b: np.array([[worksheets_cosine(a, b)]]), "one inside an array"),
        (lambda a, b: np.dot(a.__itruediv__(norm(a)), b) / norm(b), "changed what it was given"),
    ],
)
def test_other_similarities_hear_what_they_are(wrong, says):
    assert says.lower() in refused(checks.cosine_sim, wrong)


# ---- a map


def fitted(vectors, **options):
    analysis = PCA(n_components=2, **options)
    return analysis.fit_transform(vectors), analysis


def test_two_components_and_their_shares_are_right_whatever_their_signs():
    checks.pca_map(lambda v: (fitted(v)[0], fitted(v)[1].explained_variance_ratio_))
    checks.pca_map(lambda v: (fitted(v)[0] * [1, -1], list(fitted(v)[1].explained_variance_ratio_)))


def ratio(vectors):
    return fitted(vectors)[1].explained_variance_ratio_


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda v: (fitted(v.T)[0], ratio(v.T)), "Rows and columns are exchanged"),
        (lambda v: (fitted(v)[1].components_.T, ratio(v)), "the directions themselves"),
        (
            lambda v: (np.linalg.svd(v)[0][:, :2] * np.linalg.svd(v)[1][:2], ratio(v)),
            "mean was not subtracted",
        ),
        (lambda v: (fitted(v, whiten=True)[0], ratio(v)), "whitening"),
        (lambda v: (v[:, :2], ratio(v)), "PCA looks for the best two directions"),
        (lambda v: (fitted(v)[0], fitted(v)[1].explained_variance_), "explained_variance_ratio_"),
        (lambda v: (fitted(v)[0], ratio(v) / ratio(v).sum()), "add up to 1 by construction"),
        (lambda v: (fitted(v)[0], 100 * ratio(v)), "per cent"),
        (lambda v: (fitted(v)[0], np.cumsum(ratio(v))), "Added up"),
        (lambda v: (fitted(v)[0], [0.31, 0.12]), "the shares of the variance"),
        (lambda v: fitted(v)[0], "two things are expected"),
        (lambda v: (ratio(v), fitted(v)[0]), "you return the shares first"),
        (lambda v: (fitted(v / norm(v, axis=1, keepdims=True))[0], ratio(v)), "were scaled first"),
    ],
)
def test_other_maps_hear_what_they_are(wrong, says):
    assert says.lower() in refused(checks.pca_map, wrong)


# ---- the statistic


def parts(matrix, animal):
    off = ~np.eye(len(animal), dtype=bool)
    return (
        matrix[np.outer(animal, animal) & off],
        matrix[np.outer(~animal, ~animal) & off],
        matrix[np.ix_(animal, ~animal)],
    )


def closeness(matrix, animal):
    within, _, across = parts(matrix, animal)
    return within.mean() - across.mean()


def with_itself(matrix, animal):
    return matrix[np.ix_(animal, animal)].mean() - matrix[np.ix_(animal, ~animal)].mean()


def in_loops(matrix, animal):
    pairs, mixed = [], []
    for i in range(len(animal)):
        for j in range(i + 1, len(animal)):
            if animal[i] and animal[j]:
                pairs.append(matrix[i, j])
            elif animal[i] or animal[j]:
                mixed.append(matrix[i, j])
    return sum(pairs) / len(pairs) - sum(mixed) / len(mixed)


def first_words(matrix, animal):
    return closeness(matrix, np.arange(len(animal)) < animal.sum())


def diagonal_in_the_triangle(matrix, animal):
    within, _, across = parts(matrix, animal)
    return (within.sum() / 2 + animal.sum()) / (len(within) / 2 + animal.sum()) - across.mean()


def animals_first(matrix, animal):
    pairs, mixed = [], []
    for i in range(len(animal)):
        for j in range(i + 1, len(animal)):
            if animal[i]:
                (pairs if animal[j] else mixed).append(matrix[i, j])
    return np.mean(pairs) - np.mean(mixed)


def without_the_diagonal_for_good(matrix, animal):
    np.fill_diagonal(matrix, np.nan)
    return np.nanmean(matrix[np.ix_(animal, animal)]) - matrix[np.ix_(animal, ~animal)].mean()


def test_closeness_with_numpy_and_in_loops_is_right():
    checks.closeness(closeness)
    checks.closeness(in_loops)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (with_itself, "compared with itself"),
        (
            lambda m, a: np.concatenate(parts(m, a)[:2]).mean() - parts(m, a)[2].mean(),
            "Pairs of two countries",
        ),
        (lambda m, a: parts(m, a)[0].mean() - parts(m, a)[1].mean(), "compared with pairs of two countries"),
        (lambda m, a: -closeness(m, a), "sign is turned round"),
        (lambda m, a: abs(closeness(m, a)), "The sign is left out"),
        (lambda m, a: closeness(m, ~a), "The groups are exchanged"),
        (lambda m, a: parts(m, a)[0].sum() - parts(m, a)[2].sum(), "Sums instead of means"),
        (lambda m, a: parts(m, a)[0].mean() / parts(m, a)[2].mean(), "That is a ratio"),
        (lambda m, a: parts(m, a)[0].mean(), "only how close animals are"),
        (lambda m, a: 0.134, "typed in by hand"),
        (
            lambda m, a: m[np.ix_(a, a)][m[np.ix_(a, a)] != 1].mean() - parts(m, a)[2].mean(),
            "but for rounding",
        ),
        (lambda m, a: np.triu(m[np.ix_(a, a)], 1).mean() - parts(m, a)[2].mean(), "puts zeros below"),
        (first_words, "The first words are taken for animals"),
        (diagonal_in_the_triangle, "np.triu_indices(n, 1)"),
        (animals_first, "the country comes before the animal"),
        (without_the_diagonal_for_good, "changed what it was given"),
    ],
)
def test_other_statistics_hear_what_they_are(wrong, says):
    assert says.lower() in refused(checks.closeness, wrong)


# ---- the test


def permuted(count, *, labels=None, matrix=None, total=lambda n: n + 1, extra=1):
    """A permutation test in which something may be exchanged."""

    def p_value(m, animal, permutations, seed):
        rng = np.random.default_rng(seed)
        real, found = closeness(m, animal), 0
        for _ in range(permutations):
            other = animal if matrix else labels(rng, animal) if labels else rng.permutation(animal)
            if not 1 < other.sum() < len(other):
                continue
            found += bool(count(closeness(matrix(rng, m) if matrix else m, other), real))
        return (extra + found) / total(permutations)

    return p_value


def at_least(value, real):
    return value >= real


def counted(m, animal, permutations, seed):
    rng, real = np.random.default_rng(seed), closeness(m, animal)
    return sum(bool(closeness(m, rng.permutation(animal)) >= real) for _ in range(permutations))


def one_shuffling(m, animal, permutations, seed):
    values = [
        closeness(m, np.random.default_rng(seed).permutation(animal)) >= closeness(m, animal)
        for _ in range(permutations)
    ]
    return (1 + sum(values)) / (1 + permutations)


def shuffled_in_place(m, animal, permutations, seed):
    rng, real, found = np.random.default_rng(seed), closeness(m, animal), 0
    for _ in range(permutations):
        rng.shuffle(animal)
        found += closeness(m, animal) >= real
    return (1 + found) / (1 + permutations)


def returned_in_the_loop(m, animal, permutations, seed):
    found = closeness(m, np.random.default_rng(seed).permutation(animal)) >= closeness(m, animal)
    return (1 + found) / (1 + permutations)


@functools.cache
def generator():
    return np.random.default_rng()


def test_shuffled_labels_counted_with_the_real_ones_are_right():
    checks.p_value(permuted(at_least))
    # Words shuffled as a whole, with their rows and columns, are shuffled labels.
    checks.p_value(lambda m, a, n, s: permuted(at_least)(m[::-1, ::-1], a[::-1], n, s))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (permuted(at_least, extra=0, total=lambda n: n), "the real labels are one of all the possible ones"),
        (permuted(at_least, extra=0), "(1 + count) / (1 + permutations)"),
        (permuted(at_least, total=lambda n: n), "the real labels"),
        (permuted(lambda v, real: abs(v) >= abs(real)), "Two-sided"),
        (permuted(lambda v, real: v <= real), "the other side"),
        (permuted(lambda v, real: v > real), "count with >=, not with >"),
        (permuted(lambda v, real: v >= 0), "gives more than 0"),
        (permuted(at_least, matrix=lambda rng, m: rng.permutation(m)), "The values are shuffled"),
        (permuted(at_least, matrix=lambda rng, m: rng.permutation(m.ravel()).reshape(m.shape)), "The values are shuffled"),
        (permuted(at_least, labels=lambda rng, a: rng.choice(a, len(a))), "with replacement"),
        (lambda m, a, n, s: permuted(at_least)(m, a, n, 0), "Is the seed fixed inside"),
        (lambda m, a, n, s: permuted(at_least)(m, a, n, generator().integers(1 << 30)), "same seed give two answers"),
        (lambda m, a, n, s: 0.001, "tenths"),
        (lambda m, a, n, s: 100 * permuted(at_least)(m, a, n, s), "p is a share"),
        (lambda m, a, n, s: round(permuted(at_least)(m, a, n, s), 2), "Is p rounded?"),
        (lambda m, a, n, s: (counted(m, a, n, s) + 2) / (n + 1), "Are the real labels counted twice"),
        (lambda m, a, n, s: min(1.0, (counted(m, a, n, s) + 2) / (n + 1)), "The real labels count once"),
        (lambda m, a, n, s: (counted(m, a, n + 1, s) + 1) / (n + 1), "a shuffling too many"),
        (lambda m, a, n, s: (counted(m, a, n - 1, s) + 1) / (n + 1), "no more and no less"),
        (lambda m, a, n, s: 1 + counted(m, a, n, s) / (n + 1), "Two pairs of brackets"),
        (lambda m, a, n, s: (counted(m, a, 1000, s) + 1) / 1001, "it seems to make 1000"),
        (one_shuffling, "once, before the loop"),
        (returned_in_the_loop, "`return` stand inside the loop"),
        (shuffled_in_place, "`rng.shuffle` works in place"),
        (lambda m, a, n, s: 0.1, "the same"),
        (lambda m, a, n, s: "small", "p is a share"),
        (lambda m, a, n, s: closeness(m, a) - 5, "p is a share"),
    ],
)  # fmt: skip
def test_other_tests_hear_what_they_are(wrong, says):
    assert says.lower() in refused(checks.p_value, wrong)


@pytest.mark.parametrize("check", [checks.cosine_sim, checks.pca_map, checks.closeness, checks.p_value])
def test_a_blank_function_waits(check):
    waits(check, lambda *case: None)
    waits(check, ...)


def test_blank_look_ups_wait():
    waits(checks.get_embeddings, lambda model, words: None, TOKENIZER)
    waits(checks.word_vectors, lambda model, words: ..., TOKENIZER)
    waits(checks.verdict, {"A"}, model(), ..., TOKENIZER)


# ---- what follows


@pytest.mark.parametrize(
    ("letter", "says"),
    [("A", "cannot say how probable the hypothesis is"), ("B", "How large it is, closeness says"),
     ("d", "Not found is not the same as not there"), ("E", "none of the statements")],
)  # fmt: skip
def test_only_what_p_says_passes(letter, says):
    checks.meaning_of_p("C")
    assert says.lower() in refused(checks.meaning_of_p, letter)


@functools.cache
def grouped() -> GPT:
    """A model in which animals share a direction, and all words another."""
    taught = copy.deepcopy(model(2))
    with torch.no_grad():
        weight = taught.transformer.wte.weight
        weight.mul_(0.2 / weight.std())
        weight[:, 0] += 0.5
        for word in ANIMALS:
            weight[TOKENIZER.encode(" " + word), 1] += 1.0
    return taught


def test_the_statements_that_hold_for_the_models_are_right():
    found = maps.findings(grouped(), model(), TOKENIZER)
    assert found.keys() == STATEMENTS.keys()
    right = {letter for letter, (holds, _) in found.items() if holds}
    assert "A" in right and not {"B", "C"} & right
    checks.verdict(right, grouped(), model(), TOKENIZER)
    checks.verdict(", ".join(sorted(right)), grouped(), model(), TOKENIZER)


def test_empty_braces_are_meant_as_no_statement():
    assert letters({}, "ABCD") == set()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda right: right - {"A"}, "statement A holds for your models, and you left it out"),
        (lambda right: right | {"B"}, "in the untrained model, so that the test cannot tell them apart"),
        (lambda right: right | {"C"}, "the mean cosine of an animal and a country is"),
        (lambda right: right ^ {"D"}, "of the variance of the trained words"),
        (lambda right: {"A", "Q"}, "none of the statements"),
    ],
)
def test_a_misjudged_statement_hears_the_numbers(change, says):
    right = {letter for letter, (holds, _) in maps.findings(grouped(), model(), TOKENIZER).items() if holds}
    assert says.lower() in refused(checks.verdict, change(right), grouped(), model(), TOKENIZER)


def test_two_untrained_models_make_other_statements_true():
    assert "statement a does not hold" in refused(checks.verdict, {"A"}, model(3), model(), TOKENIZER)


def test_the_words_of_the_challenge_are_as_many_animals_as_countries():
    assert len(set(ANIMALS)) == len(set(COUNTRIES)) == 12
