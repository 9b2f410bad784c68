"""Error bars, surprise by kind of token, and a test set that leaked: what notebook 07 measures.

low, high = bootstrap([True] * 50 + [False] * 50)      # where the true share may lie
paired = compare(answers_of_sft, answers_of_rl)        # the same questions to both
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from nanolab.autopsy import examine, read
from nanolab.chat import Conversation, render_for_completion
from nanolab.checkpoint import load_model
from nanolab.data import ConversationBatches
from nanolab.engine import Engine
from nanolab.errors import ConfigError
from nanolab.evals import ExamAnswer, answers, exam_answers
from nanolab.expect import note
from nanolab.lessons.exam import one_line
from nanolab.model import GPT
from nanolab.optim import Schedule, build_optimizers
from nanolab.profiles import STAGES, Profile
from nanolab.reference import unpack
from nanolab.stages import learning_rates
from nanolab.tasks import FactRecall, SimpleSpelling, Task, TinyGSM
from nanolab.tinyworld.outside import says_so
from nanolab.tokenizer import Tokenizer
from nanolab.train import fit
from nanolab.viz.words import cosines, word_vectors

if TYPE_CHECKING:
    from nanolab.course import Course

T = TypeVar("T")

MEASURES = ("facts, common", "facts, uncommon", "facts, rare", "spelling", "word problems", "ends its answer")


# ---- the report card


def report_card(
    model: GPT, tokenizer: Tokenizer, count: int, *, max_tokens: int = 48
) -> dict[str, list[bool]]:
    """For each of `MEASURES`, right or not on each of `count` questions: the same ones for every model.

    Nothing asked occurs in training. Answers are the likeliest (temperature 0). "ends its answer" is
    about form alone: whether a reply closes with `<|assistant_end|>` within `max_tokens`, right or wrong.
    Word problems, whose steps take room, get twice as many.
    """
    model.eval()
    engine = Engine(model, tokenizer)
    tasks: list[Task] = [FactRecall(tier=tier) for tier in ("common", "uncommon", "rare")]
    tasks += [SimpleSpelling(split="val", size=500), TinyGSM(split="val", size=500)]
    card = {}
    for name, task in zip(MEASURES, tasks, strict=False):
        given = answers(engine, task, count, max_tokens=max_tokens * (1 + (name == "word problems")))
        card[name] = [right for (right,) in given]
    prompts = [render_for_completion(tokenizer, tasks[0][i]) for i in range(count)]
    written = engine.generate_batch(prompts, max_tokens=max_tokens, temperature=0.0)
    end = tokenizer.encode_special("<|assistant_end|>")
    card[MEASURES[-1]] = [reply.finished and reply.ids[-1] == end for (reply,) in written]
    return card


def share(values: Sequence[bool]) -> float:
    """How many of the values are true, from 0 to 1."""
    return sum(values) / max(1, len(values))


def bootstrap(
    values: Sequence[float], *, draws: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """`(low, high)`: where the mean lies in `level` of `draws` tests made by drawing from this one again.

    Every drawn test has as many questions as this one, some twice, some not at all. The same seed draws the
    same tests on every machine. Raises ConfigError for no values.
    """
    if not values:
        raise ConfigError("there is nothing to draw from: no values.\nAsk at least one question.")
    rng, size = random.Random(seed), len(values)
    means = sorted(sum(values[int(rng.random() * size)] for _ in range(size)) / size for _ in range(draws))
    outside = (1 - level) / 2
    return means[int(outside * draws)], means[min(draws - 1, int((1 - outside) * draws))]


def percent(hits: Any) -> Any:
    """Right answers in per cent: of `[True, False]` 50.0, and of a mapping of such lists each one's."""
    if isinstance(hits, Mapping):
        return {name: percent(one) for name, one in hits.items()}
    return 100 * share(hits)


def error_bars(hits: Any) -> Any:
    """The bootstrap interval of `percent(hits)` as lengths below and above it; of a mapping each one's."""
    if isinstance(hits, Mapping):
        return {name: error_bars(one) for name, one in hits.items()}
    low, high = bootstrap(hits)
    return max(0.0, 100 * (share(hits) - low)), max(0.0, 100 * (high - share(hits)))


def turned(groups: Mapping[str, Mapping[str, T]]) -> dict[str, dict[str, T]]:
    """`{"sft": {"spelling": x}}` -> `{"spelling": {"sft": x}}`."""
    found: dict[str, dict[str, T]] = {}
    for outer, group in groups.items():
        for inner, value in group.items():
            found.setdefault(inner, {})[outer] = value
    return found


@dataclass(frozen=True)
class Comparison:
    """How much better the second of two models did on the same questions."""

    difference: float
    low: float
    high: float

    @property
    def noise(self) -> bool:
        """Whether no difference at all is among the plausible ones."""
        return self.low <= 0 <= self.high


def compare(before: Sequence[bool], after: Sequence[bool], *, draws: int = 1000, seed: int = 0) -> Comparison:
    """The mean of `after - before`, question by question, with its 95% bootstrap interval.

    Pairing matters: a question that is hard for both says nothing about which is better, and drops out.
    Raises ConfigError unless both were asked the same number of questions.
    """
    if len(before) != len(after):
        raise ConfigError(f"{len(before)} answers against {len(after)}: ask both models the same questions.")
    gaps = [float(b) - float(a) for a, b in zip(before, after, strict=True)]
    low, high = bootstrap(gaps, draws=draws, seed=seed)
    return Comparison(sum(gaps) / len(gaps), low, high)


def card_rows(cards: Mapping[str, Mapping[str, Sequence[bool]]]) -> list[dict[str, str]]:
    """The report card as rows for `viz.table`: a measure a row, `41% (34 to 48)` a model."""

    def cell(values: Sequence[bool]) -> str:
        low, high = bootstrap(values)
        return f"{share(values):.0%} ({low:.0%} to {high:.0%})"

    measures = dict.fromkeys(name for card in cards.values() for name in card)
    return [
        {"measure": name, **{stage: cell(card[name]) for stage, card in cards.items()}} for name in measures
    ]


def comparison_rows(cards: Mapping[str, Mapping[str, Sequence[bool]]]) -> list[dict[str, str]]:
    """Each stage against the one before it, measure by measure: the gain, its interval, and the verdict."""
    rows = []
    for earlier, later in pairwise(cards):
        for name in cards[later]:
            gap = compare(cards[earlier][name], cards[later][name])
            rows.append(
                {
                    "from": earlier, "to": later, "measure": name,
                    "gain": f"{100 * gap.difference:+.0f} points",
                    "95% interval": f"{100 * gap.low:+.0f} to {100 * gap.high:+.0f}",
                    "verdict": "could be noise" if gap.noise else "real" + " loss" * (gap.high < 0),
                }
            )  # fmt: skip
    return rows


# ---- the exam


def sit_exam(models: Mapping[str, GPT], tokenizer: Tokenizer, every: int = 1) -> dict[str, list[ExamAnswer]]:
    """The exam, or one in `every` of its questions, as each model answers it: the likeliest replies."""
    return {name: exam_answers(Engine(model.eval(), tokenizer), every) for name, model in models.items()}


def within_and_outside(answered: Mapping[str, Sequence[ExamAnswer]]) -> dict[str, dict[str, list[bool]]]:
    """Right or not, by model, of the questions within TinyWorld and of those from outside."""
    return {
        side: {
            name: [one.right for one in of if one.question.outside == outside]
            for name, of in answered.items()
        }
        for side, outside in (("within its world", False), ("outside", True))
    }


def exam_rows(answered: Mapping[str, Sequence[ExamAnswer]]) -> list[dict[str, Any]]:
    """A row a kind of question, most frequent first: how many there are, how many each model has right, and
    how often the last model says that it doesn't know."""
    *_, last = answered.values()
    rows = []
    for kind, count in Counter(one.question.kind for one in last).most_common():
        of_kind = {name: [one for one in of if one.question.kind == kind] for name, of in answered.items()}
        *_, unknown = ([says_so(one.reply) for one in of] for of in of_kind.values())
        right = {name: f"{share([one.right for one in of]):.0%}" for name, of in of_kind.items()}
        rows.append({"kind": kind, "asked": count, **right, '"I don\'t know"': f"{share(unknown):.0%}"})
    return rows


def exam_failures(answered: Sequence[ExamAnswer], count: int) -> list[dict[str, str]]:
    """`count` wrong answers as rows, spread evenly over all of them."""
    wrong = [one for one in answered if not one.right]
    count = min(count, len(wrong))
    shown = [wrong[place * len(wrong) // count] for place in range(count)]
    return [
        {
            "kind": one.question.kind,
            "you": " ... ".join(one.question.turns),
            "model": one_line(one.reply),
            "right": ", ".join(one.question.accept[:3]) or "I don't know",
        }
        for one in shown
    ]


# ---- inside the model


def surprise_by_kind(
    models: Mapping[str, GPT], tokenizer: Tokenizer, conversation: Conversation
) -> dict[str, dict[str, float]]:
    """Mean surprise in bits of a conversation's tokens by kind, for each model.

    "marks" are special tokens, "answer" what the assistant writes, "question" the words of the user.
    """
    found: dict[str, dict[str, float]] = {}
    for name, model in models.items():
        kinds: dict[str, list[float]] = {"marks": [], "question": [], "answer": []}
        ids, mask = read(tokenizer, conversation)
        for token in examine(model, tokenizer, ids, mask).tokens[1:]:
            kinds["marks" if token.special else "answer" if token.learned else "question"].append(token.bits)
        found[name] = {kind: sum(bits) / max(1, len(bits)) for kind, bits in kinds.items()}
    return found


def mean_cosine(model: GPT, tokenizer: Tokenizer, words: Mapping[str, Sequence[str]], *, same: bool) -> float:
    """The mean cosine between the embeddings of two words of the `same` kind, or of different kinds."""
    kind_of = {word: kind for kind, members in words.items() for word in members}
    vectors = word_vectors(model, tokenizer, list(kind_of))
    matrix = cosines(vectors, vectors)
    pairs = [
        float(matrix[i, j])
        for (i, a), (j, b) in combinations(enumerate(kind_of.values()), 2)
        if (a == b) == same
    ]
    return sum(pairs) / max(1, len(pairs))


# ---- a test that leaked


class Listed(Task):
    """A list of conversations as a task, scored as `FactRecall` scores."""

    def __init__(self, conversations: Iterable[Conversation]) -> None:
        super().__init__()
        self.conversations = list(conversations)

    def num_examples(self) -> int:
        return len(self.conversations)

    def get_example(self, index: int) -> Conversation:
        return self.conversations[index]

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        return FactRecall(tier=None).evaluate(conversation, completion)


def ask(models: Mapping[str, GPT], tokenizer: Tokenizer, test: Task) -> dict[str, list[bool]]:
    """For each model, whether its likeliest answer to each question of a test is right."""
    engines = {name: Engine(model, tokenizer) for name, model in models.items()}
    return {
        name: [right for (right,) in answers(engine, test, len(test), max_tokens=40)]
        for name, engine in engines.items()
    }


def split_test(count: int, tier: str = "rare") -> tuple[Listed, Listed]:
    """Two tests of `count` facts each that share no subject: one to leak, one to stay clean."""
    leaked: dict[str, Conversation] = {}
    clean: dict[str, Conversation] = {}
    for conversation in FactRecall(tier=tier):
        subject = conversation["fact"][2]
        if subject in leaked or subject in clean:
            continue
        side = leaked if len(leaked) <= len(clean) else clean
        side[subject] = conversation
        if len(clean) == count:
            break
    return Listed(leaked.values()), Listed(clean.values())


def shared_phrases(train: Iterable[str], test: Sequence[str], words: int = 8) -> list[bool]:
    """For each text of `test`, whether any `words` words in a row of it occur in a text of `train`.

    A shorter text counts as found when all of it occurs.
    """
    seen: set[tuple[str, ...]] = set()
    wanted = [text.lower().split() for text in test]
    lengths = {min(words, len(text)) for text in wanted}
    for text in train:
        split = text.lower().split()
        for length in lengths:
            seen.update(tuple(split[i : i + length]) for i in range(len(split) - length + 1))
    found = []
    for split in wanted:
        length = min(words, len(split))
        found.append(any(tuple(split[i : i + length]) in seen for i in range(len(split) - length + 1)))
    return found


def train_on(
    model: GPT, tokenizer: Tokenizer, profile: Profile, task: Task, steps: int, *, fraction: float = 0.3
) -> GPT:
    """A copy of `model`, trained for `steps` on conversations as the sft stage would, at `fraction` of its
    rates. The model given stays as it is, and nothing is saved."""
    student = copy.deepcopy(model)
    rates = learning_rates(profile)
    optimizers = build_optimizers(student, rates, fraction=fraction)
    rows, context = profile.sft.device_batch_size, profile.sft.max_seq_len
    batches = ConversationBatches(task, tokenizer, rows, context, seed=profile.seed, device=student.device)
    for _ in fit(student, optimizers, batches, Schedule(steps, warmdown_ratio=0.5)):
        pass
    return student.eval()


# ---- where the models come from


def four_models(course: Course) -> tuple[dict[str, GPT], Tokenizer]:
    """The models of base, mid, sft and rl, and the tokenizer that they share.

    The learner's own where all four are there, or a chain that began with the reference. Where one of the
    learner's is followed by a stand-in, all four are the reference's: a model would else be compared with
    one that is no ancestor of it.
    """
    loaded = {stage: course.load(stage) for stage in STAGES}
    stand_ins = [bool(meta.get("reference")) for _, _, meta in loaded.values()]
    tokenizers = {tokenizer.hash() for _, tokenizer, _ in loaded.values()}
    if len(tokenizers) > 1 or stand_ins != sorted(stand_ins, reverse=True):
        note("Not all four are yours yet, so here all four are the reference's: they belong together.")
        loaded = {stage: load_model(stage, model_tag=unpack()) for stage in STAGES}
    return {stage: model for stage, (model, _, _) in loaded.items()}, loaded["sft"][1]
