"""Challenge 3: right answers pass in any form, and each misconception is told by its name."""

from __future__ import annotations

import math

import pytest
import torch

from nanolab.checkpoint import load_model
from nanolab.checks import NotAttempted, Wrong, autopsy
from nanolab.checks.core import Printed
from nanolab.checks.predictions import read_guesses
from nanolab.reference import unpack

LN2 = math.log(2)


@pytest.fixture(scope="module")
def course_model(tmp_path_factory):
    """The reference's sft model with its tokenizer, as `course.load("sft")` gives them in an empty home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NANOLAB_HOME", str(tmp_path_factory.mktemp("home")))
        model, tokenizer, _ = load_model("sft", model_tag=unpack())
    return model, tokenizer


@pytest.fixture
def logits_of(course_model):
    """`(1, T, V)` of a text, as a learner would compute them."""
    model, tokenizer = course_model

    def compute(text, bos=True):
        ids = [tokenizer.get_bos_token_id()] * bos + tokenizer.encode(text)
        with torch.inference_mode():
            return model(torch.tensor([ids]))

    return compute


def pairs(tokenizer, chances, largest=True):
    best = chances.topk(5, largest=largest)
    return [
        (tokenizer.decode([i]), p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


# ---- predict_next


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("form", ["pairs", "ids", "dictionary", "topk", "tensors", "stripped", "turned"])
def test_predictions_are_accepted_in_any_form(course_model, logits_of, bos, form):
    model, tokenizer = course_model

    def predict_next(text):
        chances = logits_of(text, bos)[0, -1].softmax(-1)
        best = chances.topk(5)
        return {
            "pairs": pairs(tokenizer, chances),
            "ids": list(zip(best.indices.tolist(), best.values.tolist(), strict=True)),
            "dictionary": dict(pairs(tokenizer, chances)),
            "topk": best,
            "tensors": tuple(
                (tokenizer.token_text(i), p) for i, p in zip(best.indices.tolist(), best.values, strict=True)
            ),
            "stripped": [(text.strip(), round(p, 4)) for text, p in pairs(tokenizer, chances)],
            "turned": [(p, text) for text, p in pairs(tokenizer, chances)],
        }[form]

    autopsy.predict_next(predict_next, model, tokenizer)


@pytest.mark.parametrize(
    "line",
    [
        "  {token!r} {chance:.1%}",
        "{token}: {chance:.4f}",
        "'{token}' ({percent:.1f}%)",
        "{token!r:>14} {percent:.0f} %",
        "{token} {chance}",
    ],
)
def test_predictions_may_be_printed(course_model, logits_of, line):
    model, tokenizer = course_model

    def predict_next(text):
        print(f"After '{text}' come, most likely:")
        for token, chance in pairs(tokenizer, logits_of(text)[0, -1].softmax(-1)):
            print(line.format(token=token, chance=chance, percent=100 * chance))

    autopsy.predict_next(predict_next, model, tokenizer)


def test_code_that_loads_the_model_itself_and_prints_is_accepted():
    # The way one would write it against the library, without the course.
    where = unpack()
    device = torch.device("cpu")
    net, tok, _ = load_model("sft", device=device, phase="eval", model_tag=where)
    again, *_ = load_model("sft", device=device, phase="eval")

    def show_next(prompt):
        row = torch.tensor([tok.encode(prompt)], device=device)
        with torch.no_grad():
            scores = again(row)
        likely = torch.topk(torch.softmax(scores[0, -1], dim=-1), 5)
        print(f"\nAfter '{prompt}':")
        for share, number in zip(likely.values, likely.indices, strict=True):
            print(f"  '{tok.decode([number.item()])}' ({share.item() * 100:.1f}%)")

    autopsy.predict_next(show_next, net, tok)


WRONG_PREDICTIONS = [
    (lambda tokenizer, logits: pairs(tokenizer, logits[0, -1]), "logits, and not probabilities"),
    (lambda tokenizer, logits: pairs(tokenizer, logits[0, -1].log_softmax(-1)), "logarithms of probabilities"),
    (lambda tokenizer, logits: pairs(tokenizer, logits.softmax(1)[0, -1]), "wrong axis: over the places"),
    (lambda tokenizer, logits: pairs(tokenizer, logits[0].softmax(0)[-1]), "wrong axis: over the places"),
    (lambda tokenizer, logits: pairs(tokenizer, logits.softmax(0)[0, -1]), "wrong axis: over the batch"),
    (lambda tokenizer, logits: pairs(tokenizer, logits[0, -2].softmax(-1)), "one place too early"),
    (lambda tokenizer, logits: pairs(tokenizer, logits[0, 0].softmax(-1)), "after the first token"),
    (lambda tokenizer, logits: pairs(tokenizer, logits[0, -1].sigmoid()), "sigmoid"),
    (lambda tokenizer, logits: pairs(tokenizer, logits[0, -1].softmax(-1).softmax(-1)), "taken twice"),
    (lambda tokenizer, logits: pairs(tokenizer, logits[0, -1].softmax(-1), largest=False), "unlikeliest"),
    (lambda tokenizer, logits: pairs(tokenizer, logits[0, -1].softmax(-1))[::-1], "likeliest comes first"),
    (lambda tokenizer, logits: [(t, 100 * p) for t, p in pairs(tokenizer, logits[0, -1].softmax(-1))], "per cent"),
    (
        lambda tokenizer, logits: [
            (tokenizer.decode([place]), p)
            for place, (_, p) in enumerate(pairs(tokenizer, logits[0, -1].softmax(-1)))
        ],
        "beside other tokens",
    ),
    (lambda tokenizer, logits: [(" Paris", 0.5), (" a", 0.2), (" the", 0.1), (".", 0.05), (",", 0.01)], "typed in by hand"),
    (lambda tokenizer, logits: pairs(tokenizer, logits[0, -1].softmax(-1))[:3], "gives 3 tokens"),
    (lambda tokenizer, logits: logits[0, -1].softmax(-1), "list of"),
    (lambda tokenizer, logits: logits[0, -1].softmax(-1).max().item(), "list of pairs"),
]  # fmt: skip


@pytest.mark.parametrize(("way", "message"), WRONG_PREDICTIONS)
def test_a_wrong_prediction_is_told(course_model, logits_of, way, message):
    model, tokenizer = course_model
    with pytest.raises(Wrong, match=f"(?i){message}"):
        autopsy.predict_next(lambda text: way(tokenizer, logits_of(text)), model, tokenizer)


def test_wrong_predictions_that_are_printed_are_told_as_well(course_model, logits_of):
    model, tokenizer = course_model

    def predict_next(text):
        for token, chance in pairs(tokenizer, logits_of(text)[0, -2].softmax(-1)):
            print(f"{token!r} {chance:.2%}")

    with pytest.raises(Wrong, match="One place too early"):
        autopsy.predict_next(predict_next, model, tokenizer)


def test_a_blank_that_neither_returns_nor_prints_is_not_attempted(course_model):
    def predict_next(text):
        ids = course_model[1].encode(text)  # noqa: F841 (as in the notebook: something stands there already)
        ...

    for answer in (..., predict_next):
        with pytest.raises(NotAttempted):
            autopsy.predict_next(answer, *course_model)


def test_printed_tokens_may_hold_digits_quotes_and_line_breaks():
    guesses = read_guesses(
        Printed(None, "Next:\n '4' (50.0%)\n '\n' (20.0%)\n ''' (9%)\n '%' (8.5%)\n 'e' (1.25%)\n")
    )
    assert [round(guess.value, 4) for guess in guesses] == [0.5, 0.2, 0.09, 0.085, 0.0125]
    assert guesses[0].slack == pytest.approx(0.0006) and guesses[2].slack == pytest.approx(0.006)


# ---- the token of a word


def test_the_first_token_of_a_word_carries_its_space(course_model):
    tokenizer = course_model[1]
    autopsy.first_id(lambda word: tokenizer.encode(" " + word)[0], tokenizer)
    before = len(tokenizer.encode("the"))
    autopsy.first_id(lambda word: tokenizer.encode("the " + word)[before], tokenizer)


@pytest.mark.parametrize(
    ("way", "message"),
    [
        (lambda tokenizer, word: tokenizer.encode(word)[0], "without its leading space"),
        (lambda tokenizer, word: tokenizer.encode(" " + word)[-1], "last token"),
        (lambda tokenizer, word: tokenizer.encode(word)[-1], "last token of the word without"),
        (lambda tokenizer, word: tokenizer.encode(word + " ")[-1], "a lone space"),
        (lambda tokenizer, word: tokenizer.get_bos_token_id(), "<|bos|>"),
        (lambda tokenizer, word: tokenizer.encode("  " + word)[0], "a lone space"),
        (lambda tokenizer, word: tokenizer.encode(" " + word), "(?s)shape.*all tokens"),
        (lambda tokenizer, word: tokenizer.encode(" " + word)[:1], "a list with the id in it"),
        (lambda tokenizer, word: 731, "typed in by hand"),
        (lambda tokenizer, word: word, "should be a number, and is a text"),
    ],
)
def test_a_wrong_token_is_told(course_model, way, message):
    tokenizer = course_model[1]
    with pytest.raises(Wrong, match=message.replace("|", "\\|")):
        autopsy.first_id(lambda word: way(tokenizer, word), tokenizer)


# ---- surprise, rank, entropy, and a whole text


def chances(logits):
    return logits.softmax(-1)


def right_entropy(logits):
    return -(chances(logits) * chances(logits).log2()).sum()


def take(rows, ids):
    return rows[torch.arange(len(ids)), ids]


def right_surprises(logits, ids):
    return take(-chances(logits).log2()[:-1], ids[1:])


def bins_of(sure, bins, clamp=True):
    place = (sure * bins).long()
    return place.clamp(max=bins - 1) if clamp else place


def rows_of(make, clamp=True, empty=False):
    def calibration(sure, right, bins):
        place = bins_of(sure, bins, clamp)
        parts = [(sure[place == one], right[place == one].float()) for one in range(bins)]
        return [make(s, r, len(sure)) for s, r in parts if len(s) or empty]

    return calibration


usual = rows_of(lambda s, r, total: (s.mean().item(), r.mean().item(), len(s)))


def rounded(sure, right, bins):
    parts = [(sure * bins).round().clamp(max=bins - 1) == one for one in range(bins)]
    return [(sure[p].mean(), right[p].float().mean(), p.sum()) for p in parts if p.any()]


RIGHT = [
    (autopsy.bits, lambda logits, id: -chances(logits)[id].log2().item()),
    (autopsy.bits, lambda logits, id: -logits.log_softmax(-1)[id] / LN2),
    (autopsy.bits, lambda logits, id: torch.nn.functional.cross_entropy(logits, torch.tensor(id)) / LN2),
    (autopsy.rank, lambda logits, id: int((logits > logits[id]).sum()) + 1),
    (autopsy.rank, lambda logits, id: (chances(logits) >= chances(logits)[id]).sum()),
    (autopsy.rank, lambda logits, id: logits.argsort(descending=True).tolist().index(id) + 1),
    (autopsy.entropy, right_entropy),
    (autopsy.entropy, lambda logits: torch.distributions.Categorical(logits=logits).entropy().item() / LN2),
    (autopsy.surprises, right_surprises),
    (autopsy.surprises, lambda logits, ids: right_surprises(logits, ids).tolist()),
    (autopsy.calibration, usual),
    (autopsy.calibration, lambda *case: torch.tensor(usual(*case))),
    (autopsy.calibration, lambda *case: [list(row) for row in usual(*case)]),
]  # fmt: skip

WRONG = [
    (autopsy.bits, lambda logits, id: -chances(logits)[id].log().item(), "in nats"),
    (autopsy.bits, lambda logits, id: chances(logits)[id], "this is the probability"),
    (autopsy.bits, lambda logits, id: logits[id], "logit"),
    (autopsy.bits, lambda logits, id: -logits[id], "minus the logit"),
    (autopsy.bits, lambda logits, id: -logits[id].log2(), "logarithm of the logit itself"),
    (autopsy.bits, lambda logits, id: -logits[id].log(), "logarithm of the logit itself"),
    (autopsy.bits, lambda logits, id: chances(logits)[id].log2(), "sign"),
    (autopsy.bits, lambda logits, id: -chances(logits).max().log2(), "likeliest"),
    (autopsy.bits, lambda logits, id: 3.1, "typed in by hand"),
    (autopsy.bits, lambda logits, id: -chances(logits).log2(), "(?s)shape.*pick that of token"),
    (autopsy.bits, lambda logits, id: -chances(chances(logits))[id].log2(), "softmax was taken twice"),
    (autopsy.rank, lambda logits, id: int((logits > logits[id]).sum()), "counts from 0"),
    (autopsy.rank, lambda logits, id: int((logits < logits[id]).sum()) + 1, "unlikeliest"),
    (autopsy.rank, lambda logits, id: logits.argsort(descending=True)[id], "other way round"),
    (autopsy.rank, lambda logits, id: id, "id itself"),
    (autopsy.rank, lambda logits, id: logits > logits[id], "(?s)shape.*count them"),
    (autopsy.rank, lambda logits, id: (logits > logits[id]) + 1, "(?s)shape.*count them"),
    (autopsy.rank, lambda logits, id: int((logits > id).sum()) + 1, "compares the logits with the number"),
    (autopsy.entropy, lambda logits: right_entropy(logits) * LN2, "in nats"),
    (autopsy.entropy, lambda logits: -right_entropy(logits), "sign"),
    (autopsy.entropy, lambda logits: -(chances(logits) * chances(logits).log2()).mean(), "mean over the vocabulary"),
    (autopsy.entropy, lambda logits: -chances(logits).log2().mean(), "weigh it"),
    (autopsy.entropy, lambda logits: math.log2(len(logits)), "equally likely"),
    (autopsy.entropy, lambda logits: -(logits * logits.log2()).sum(), "(?s)not finite.*may be negative"),
    (autopsy.entropy, lambda logits: -(logits * chances(logits).log2()).sum(), "weights are logits"),
    (autopsy.entropy, lambda logits: -chances(logits) * chances(logits).log2(), "(?s)shape.*add them up"),
    (autopsy.entropy, lambda logits: right_entropy(chances(logits)), "softmax was taken twice"),
    (autopsy.entropy, lambda logits: -(chances(logits) * chances(chances(logits)).log2()).sum(), "softmax was taken twice"),
    (autopsy.surprises, lambda logits, ids: take(-chances(logits).log2(), ids)[1:], "off by one"),
    (autopsy.surprises, lambda logits, ids: take(-chances(logits).log2(), ids), "(?s)shape.*off by one"),
    (autopsy.surprises, lambda logits, ids: take(-chances(logits).log2()[1:], ids[:-1]), "wrong way"),
    (autopsy.surprises, lambda logits, ids: take(-logits.softmax(0).log2()[:-1], ids[1:]), "wrong axis"),
    (autopsy.surprises, lambda logits, ids: right_surprises(logits, ids) * LN2, "in nats"),
    (autopsy.surprises, lambda logits, ids: take(logits[:-1], ids[1:]), "logits, without a softmax"),
    (autopsy.surprises, lambda logits, ids: take(-chances(logits.roll(1, 0)).log2(), ids), "one number too many"),
    (autopsy.surprises, lambda logits, ids: [0.0, *right_surprises(logits, ids)], "one number too many"),
    (autopsy.surprises, lambda logits, ids: [*right_surprises(logits, ids), 0.0], "one number too many"),
    (autopsy.surprises, lambda logits, ids: right_surprises(logits, ids).sum(), "this is the sum"),
    (autopsy.surprises, lambda logits, ids: right_surprises(logits, ids)[0], "inside the loop"),
    (
        autopsy.calibration,
        rows_of(lambda s, r, total: (s.mean().item(), r.mean().item(), len(s)), clamp=False),
        "fallen out of the last bin",
    ),
    (
        autopsy.calibration,
        rows_of(lambda s, r, total: (s.mean(), r.mean(), len(s)), empty=True),
        "bins that are empty",
    ),
    (
        autopsy.calibration,
        rows_of(lambda s, r, total: (s.mean(), r.mean(), len(s)), clamp=False, empty=True),
        "two things",
    ),
    (
        autopsy.calibration,
        rows_of(lambda s, r, total: (s.mean().item(), r.sum().item() / total, len(s))),
        "number of all tokens",
    ),
    (autopsy.calibration, rows_of(lambda s, r, total: (s.mean(), r.sum(), len(s))), "how many were right"),
    (autopsy.calibration, rows_of(lambda s, r, total: (s.mean(), 1 - r.mean(), len(s))), "was wrong"),
    (autopsy.calibration, rows_of(lambda s, r, total: (r.mean(), s.mean(), len(s))), "swapped"),
    (autopsy.calibration, lambda sure, right, bins: [(0.9, 0.8, 10)], "shape"),
    (autopsy.calibration, lambda *case: usual(*case)[:1], "inside the loop"),
    (autopsy.calibration, lambda *case: usual(*case)[:-1], "last bin is missing"),
    (autopsy.calibration, rows_of(lambda s, r, total: (s.mean(), 100 * r.mean(), len(s))), "per cent"),
    (autopsy.calibration, rounded, "rounded to the nearest"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_right_answers_are_accepted_in_any_form(check, answer):
    check(answer)


@pytest.mark.parametrize(("check", "answer", "message"), WRONG)
def test_a_misconception_is_told(check, answer, message):
    with pytest.raises(Wrong, match=f"(?i){message}"):
        check(answer)


def test_bins_that_are_empty_are_told():
    with pytest.raises(Wrong, match="(?i)bins that are empty"):
        autopsy.calibration(rows_of(lambda s, r, total: (s.mean(), r.mean(), len(s)), empty=True))


def test_each_check_has_at_least_three_wrong_answers():
    for check in {check for check, _ in RIGHT}:
        assert sum(other is check for other, _, _ in WRONG) >= 3, check.__name__


@pytest.mark.parametrize("check", list(dict.fromkeys(check for check, _ in RIGHT)))
def test_a_blank_is_not_attempted(check):
    def blank(*args):
        """To be written."""
        ...

    for answer in (..., blank):
        with pytest.raises(NotAttempted):
            check(answer)


# ---- two prompts


@pytest.mark.parametrize("bos", [True, False])
def test_uncertainty_is_accepted_with_bos_and_without(course_model, logits_of, bos):
    autopsy.uncertainty(lambda text: right_entropy(logits_of(text, bos)[0, -1]), *course_model)


@pytest.mark.parametrize(
    ("way", "message"),
    [
        (lambda logits: right_entropy(logits[0, -1]) * LN2, "in nats"),
        (lambda logits: chances(logits[0, -1]).max(), "probability of the likeliest"),
        (lambda logits: right_entropy(logits[0, -2]), "One place too early"),
        (lambda logits: right_entropy(logits[0, 0]), "after the first token|typed in by hand"),
        (lambda logits: 4.2, "typed in by hand, or does it use `logits`"),
        (lambda logits: sum(map(right_entropy, logits[0])) / logits.shape[1], "mean over all places"),
        (lambda logits: right_entropy(logits), "adds up all places"),
        (lambda logits: right_entropy(chances(logits[0, -1])), "softmax was taken twice"),
    ],
)
def test_a_wrong_uncertainty_is_told(course_model, logits_of, way, message):
    with pytest.raises(Wrong, match=message):
        autopsy.uncertainty(lambda text: way(logits_of(text)), *course_model)
