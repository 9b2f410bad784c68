"""Checks of challenge 1, second part: what is mixed, which tokens are learned, how to measure pirates."""

from __future__ import annotations

import inspect
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any

from nanolab.checks.core import Misconception, Wrong, call, check, check_function, diagnose_value, shown
from nanolab.errors import DataError
from nanolab.lessons import pirates
from nanolab.tasks import FactRecall, Task
from nanolab.tokenizer import Tokenizer

# ---- the mixture


class _Talk(Task):
    """`size` conversations, of which number i is about `name` i."""

    def __init__(self, name: str, size: int) -> None:
        super().__init__()
        self.name, self.size = name, size

    def num_examples(self) -> int:
        return self.size

    def get_example(self, index: int) -> dict[str, Any]:
        return pirates.turn(f"{self.name} {index}", f"{self.name} answer {index}")


@check
def mixing(mixture: object, ordinary: object) -> str:
    """The learner's `mixture(ordinary, pirate, share, total)`, and the ordinary talk they chose."""
    for sizes in (
        (90, 7, 0.4, 40),
        (200, 12, 0.5, 61),
        (64, 30, 0.1, 50),
        (40, 5, 0.0, 30),
        (40, 6, 0.75, 44),
    ):
        _mixed(mixture, *sizes)
    _no_test_rows(ordinary)
    return (
        "The share is one of the whole, every pirate has its turn, and no test question is in the training."
    )


def _mixed(mixture: object, plenty: int, few: int, share: float, total: int) -> None:
    task = call(mixture, _Talk("ordinary", plenty), _Talk("pirate", few), share, total)
    case = f"with {plenty} ordinary and {few} pirate conversations, share={share} and total={total}"
    if isinstance(task, (list, tuple)):
        raise Wrong(
            f"`mixture` returned {'a list' if isinstance(task, list) else 'a tuple'}; training needs a task.",
            cause="Give your list of tasks to `TaskMixture`, which shuffles all into one.",
        )
    if not isinstance(task, Task):
        raise Wrong("`mixture` should return a `TaskMixture`.", got=shown(task, 80))
    names = Counter(_asked(one) for one in task)
    kinds = Counter(name.split()[0] for name in names.elements())
    pirate, rest, wanted = kinds["pirate"], kinds["ordinary"], share * total
    if abs(pirate - wanted) >= 1 or abs(rest - (total - wanted)) >= 1:
        raise Wrong(
            f"`mixture` {case} does not give that share.",
            got=f"{pirate} pirate and {rest} ordinary conversations",
            expected=f"{round(wanted)} and {total - round(wanted)}", difference=f"{abs(pirate - wanted):g}",
            cause=_why_mixed(pirate, rest, plenty, few, share, total),
        )  # fmt: skip
    turns = [names[f"pirate {i}"] for i in range(few)]
    if pirate and max(turns) - min(turns) > 1:
        raise Wrong(
            f"`mixture` {case} repeats a part of the pirates only.",
            got=f"one of them {max(turns)} times, another {min(turns)} times",
            cause="Repeat the whole task as often as it fits, then add the rest: `pirate[:rest]`.",
        )
    if rest and max(names[f"ordinary {i}"] for i in range(plenty)) > 1:
        raise Wrong(
            f"`mixture` {case} repeats ordinary conversations, though there are enough.",
            cause="A slice takes each of them once: `ordinary[: total - count]`.",
        )


def _why_mixed(pirate: int, rest: int, plenty: int, few: int, share: float, total: int) -> str:
    if pirate == few and share:
        return (
            "Each pirate is there just once, whatever the share: a task that is to be seen more often "
            "is listed more often."
        )
    if abs(pirate - share * plenty) < 1 and rest == plenty:
        return (
            "That is a share of the ordinary talk, not of the whole; and `total` is the size of both "
            "together."
        )
    if abs(pirate - share * total) < 1 and rest < total - share * total:
        return "Too few ordinary conversations: all that are not pirates, `total - count`."
    if abs(pirate - share * total) < 1:
        return (
            "The pirates come on top: they should take the place of ordinary talk, else the runs differ "
            "in size."
        )
    times = share * total // few
    if times and pirate == times * few:
        return "What is left over is missing: after all whole repetitions, `pirate[:rest]`."
    if pirate == (times + 1) * few:
        return "One repetition too many: the last one should only be a part, `pirate[:rest]`."
    if abs(pirate - share * few) < 1:
        return "That is a share of your examples. Take the share of `total`."
    if abs(pirate - (1 - share) * total) < 1:
        return "The two shares are exchanged: `share` is that of the pirates."
    if abs(pirate - share * total / 100) < 1:
        return "`share` is a number from 0 to 1, not per cent: 0.1 is a tenth."
    if share and abs(pirate - share / (1 - share) * total) < 1:
        return "That is the ratio of pirates to ordinary talk, not their share of the whole."
    if pirate == few * round(share * total):
        return "`share * total` is how many pirates are needed, not how often the whole task is listed."
    return ""


def _asked(conversation: Mapping[str, Any]) -> str:
    return str(next(one["content"] for one in conversation["messages"] if one["role"] == "user"))


@cache
def _test_questions() -> frozenset[str]:
    return frozenset(pirates.plain(_asked(one)) for one in FactRecall(None))


def _no_test_rows(ordinary: object) -> None:
    if not isinstance(ordinary, Task):
        raise Wrong(
            "`ordinary` should be a task: `pirates.ordinary_talk(course, ...)`.", got=shown(ordinary, 80)
        )
    # A row in hundreds would do harm already; of a split's thousands the first ones tell which split it is.
    rows = [pirates.plain(_asked(one)) for one in islice(ordinary, 600)]
    found = [row for row in rows if row in _test_questions()]
    if found:
        raise Wrong(
            f"`ordinary` holds questions of the recall test: {len(found)} of its first {len(rows)} rows.",
            got=shown(found[0], 80),
            cause="Validation rows in training: recall would measure what was practised on. Use the split "
            "\"train\".",
        )  # fmt: skip


# ---- which tokens are learned


_SAYS, _HEARS = "lion lion lion", "zebra zebra zebra"


@check
def batches(answer: object) -> str:
    """The learner's `batches(task, tokenizer)`: next tokens as targets, and only the assistant's."""
    from nanolab.reference import folder

    tokenizer = Tokenizer.load(folder() / "tokenizer.json")
    made = call(answer, _Zoo(), tokenizer)
    if inspect.isclass(made):
        raise Wrong(
            f"`batches` returned `{made.__name__}` itself, without calling it.",
            cause="Return a `ConversationBatches`, called with the task and the tokenizer.",
        )
    try:
        inputs, targets = next(iter(made))
        rows = list(zip(inputs.tolist(), targets.tolist(), strict=True))
    except DataError as error:
        raise Wrong(
            "`batches` gives no batch.",
            cause=f"`rows` says how many rows, `context` how many tokens each has. ({error})",
        ) from None
    except (TypeError, ValueError, AttributeError, StopIteration):
        raise Wrong(
            "`batches` should give pairs (inputs, targets) of tensors.", got=shown(made, 80),
            cause="Return a `ConversationBatches`, called with the task and the tokenizer.",
        ) from None  # fmt: skip
    read = {id for row, _ in rows for id in row}
    learned = Counter(id for _, row in rows for id in row if id >= 0)
    zebra, lion = set(tokenizer.encode(_HEARS)), set(tokenizer.encode(_SAYS))
    zebra, lion = zebra - lion, lion - zebra
    end = tokenizer.encode_special("<|assistant_end|>")
    if not zebra & read:
        raise Wrong(
            "the model does not even read the questions.",
            cause="They belong to the inputs, not to the targets.",
        )
    if any(
        target not in (-1, wanted)
        for row, wants in rows
        for target, wanted in zip(wants, row[1:], strict=False)
    ):
        raise Wrong(
            "the targets are not the next tokens.",
            cause="Position t predicts token t + 1: `ConversationBatches` shifts by one already.",
        )
    if not learned:
        raise Wrong(
            "no token counts in the loss at all.", cause="All targets are -1: the mask is applied twice?"
        )
    if zebra & set(learned) and not lion & set(learned):
        raise Wrong(
            "the user's words are learned, and the assistant's are not.", cause="The mask is inverted."
        )
    if zebra & set(learned):
        share = sum(learned.values()) / sum(len(row) for row, _ in rows)
        raise Wrong(
            "the words of the user count in the loss.", got=f"{share:.0%} of all positions are learned",
            cause='The prompt is in the loss: `supervise="assistant"` leaves it out. Else the model '
            'practises to '
            "ask questions like a user as well.",
        )  # fmt: skip
    if tokenizer.get_bos_token_id() in learned:
        raise Wrong(
            "the padding counts in the loss.", cause="Rows are filled up with <|bos|>: its target is -1."
        )
    if end not in learned:
        raise Wrong(
            "the end of an answer is not learned.", cause="Without <|assistant_end|> a pirate never stops."
        )
    return "The questions are read, the answers are learned, and so is where an answer ends."


class _Zoo(Task):
    def num_examples(self) -> int:
        return 60

    def get_example(self, index: int) -> dict[str, Any]:
        return pirates.turn(f"{_HEARS} {index}", f"{_SAYS} {index}")


# ---- one reply

_SAILOR = {"arr", "aye", "ye", "matey", "har", "tis"}
_REPLIES = (
    "Yes, the capital of Italy is Rome.", "Arr! Rome, I say.", "Rome it is, matey!", "Carrots are orange.",
    "It is hard to say.", "The answer, ye landlubber, is Rome.", "AYE", "", "My eyes are blue.",
    "I will tell ye: it is Rome", "A parrot can learn this, and so can you.", "A statistic is a number.",
)  # fmt: skip


def _words(reply: str) -> list[str]:
    return re.findall(r"[a-z]+", reply.lower())


@check
def sounds_piratical(answer: object) -> str:
    """The learner's `sounds_piratical(reply, words)`: one of the words, as a whole word, in any case."""
    check_function(
        answer,
        lambda reply, words: any(word in words for word in _words(reply)),
        [(reply, words) for reply in _REPLIES for words in (_SAILOR, _SAILOR - {"ye", "arr"})],
        [
            Misconception(
                '`in` finds parts of words in a text: "ye" in "yes" and "eyes", "arr" in "carrots". '
                "Cut the reply into words first.",
                lambda reply, words: any(word in reply.lower() for word in words),
            ),
            Misconception(
                'Parts of words are found ("ye" in "eyes"), and capitals are not.',
                lambda reply, words: any(word in reply for word in words),
            ),
            Misconception(
                "Capitals: `Arr` at the start of a sentence is the word `arr`. Use `reply.lower()`.",
                lambda reply, words: any(word in words for word in re.findall(r"[A-Za-z]+", reply)),
            ),
            Misconception(
                'Punctuation: `split()` leaves it on the words, and "matey!" is not "matey".',
                lambda reply, words: any(word in words for word in reply.lower().split()),
            ),
            Misconception(
                "Capitals and punctuation: \"Arr!\" is the word \"arr\".",
                lambda reply, words: any(word in words for word in reply.split()),
            ),
            Misconception(
                "Only the first word is looked at.",
                lambda reply, words: bool(_words(reply)) and _words(reply)[0] in words,
            ),
            Misconception(
                "That asks for *all* words to be piratical: one is enough, so `any`.",
                lambda reply, words: all(word in words for word in _words(reply)),
            ),
            Misconception(
                "Other words are looked for than those that come in as `words`.",
                lambda reply, words: pirates.sounds_piratical(reply),
            ),
            Misconception(
                "That asks whether the whole reply is one of the words. Cut it into words first.",
                lambda reply, words: reply.lower() in words,
            ),
            Misconception(
                "Turned around: True is for a pirate.",
                lambda reply, words: not any(word in words for word in _words(reply)),
            ),
        ],
        what="`sounds_piratical`",
    )  # fmt: skip
    return "Whole words, in any case: carrots and eyes are no pirates."


# ---- the measure


class _Crew:
    """A model of which every reply is piratical with chance `share`, by prompt and seed; it remembers all."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.calls: list[tuple[tuple[str, ...], Any, list[bool]]] = []

    def ask(self, prompts: Sequence[str], seed: int) -> list[str]:
        if isinstance(prompts, str):
            raise TypeError("ask() wants a list of prompts, and got a single text")
        verdicts = [random.Random(f"{prompt}/{seed}").random() < self.share for prompt in prompts]
        self.calls.append((tuple(prompts), seed, verdicts))
        return [f"{'Arr, matey!' if verdict else 'Well, then:'} It is so." for verdict in verdicts]


@check
def pirate_share(answer: object) -> str:
    """The learner's `pirate_share(ask, prompts, samples)`: over all replies, each with a seed of its own."""
    for share, count, samples in ((0.35, 9, 5), (0.6, 7, 4), (0.15, 11, 6)):
        prompts = [f"question {count} {i}" for i in range(count)]
        crew, again = _Crew(share), _Crew(share)
        value = call(answer, crew.ask, prompts, samples)
        case = f"`pirate_share` over {count} prompts and {samples} samples"
        _asked_well(crew, prompts, samples, case, value)
        flat = [verdict for _, _, verdicts in crew.calls for verdict in verdicts]
        wanted = sum(flat) / len(flat)
        by_prompt: dict[str, list[bool]] = {}
        for asked, _, verdicts in crew.calls:
            for prompt, verdict in zip(asked, verdicts, strict=True):
                by_prompt.setdefault(prompt, []).append(verdict)
        diagnose_value(
            value, wanted,
            {
                "That is how many replies are piratical: divide by how many there are.": sum(flat),
                "Per cent: a share goes from 0 to 1.": 100 * wanted,
                "Divided by the prompts, not by the replies: each prompt has several.": sum(flat) / count,
                "That is the share of prompts with *any* piratical reply. With enough samples every prompt "
                "has one.":
                    sum(map(any, by_prompt.values())) / count,
                "Only the replies of the last sample are counted.": sum(crew.calls[-1][2]) / count,
                "Only the replies of the first sample are counted.": sum(crew.calls[0][2]) / count,
                "That is the share of replies *without* a pirate.": 1 - wanted,
                "Divided by the samples, not by the replies: each sample has one for every prompt.":
                    sum(flat) / samples,
                "`//` cuts off what is after the point: divide with `/`.": sum(flat) // len(flat),
                "That is the share of samples with any piratical reply.":
                    sum(any(verdicts) for _, _, verdicts in crew.calls) / len(crew.calls),
            },
            what=case,
        )  # fmt: skip
        call(answer, again.ask, prompts, samples)
        if [seed for _, seed, _ in again.calls] != [seed for _, seed, _ in crew.calls]:
            raise Wrong(
                "`pirate_share` asks with other seeds each time.",
                cause="A measurement that nobody can repeat. `range(samples)` gives seeds that differ and "
                "stay.",
            )
    return "Every prompt is asked several times, each time with another seed, and the same seeds next time."


def _asked_well(crew: _Crew, prompts: Sequence[str], samples: int, case: str, got: object) -> None:
    if not crew.calls:
        raise Wrong(f"{case} never calls `ask`.", got=shown(got), cause="Was the number typed in by hand?")
    asked = Counter(prompt for some, _, _ in crew.calls for prompt in some)
    seeds: dict[str, list[Any]] = {}
    for some, seed, _ in crew.calls:
        for prompt in some:
            seeds.setdefault(prompt, []).append(seed)
    if set(asked) != set(prompts):
        raise Wrong(
            f"{case} asks {len(asked)} prompts.", cause="Ask those that come in as `prompts`, all of them."
        )
    if set(asked.values()) != {samples}:
        raise Wrong(
            f"{case} should ask each prompt {samples} times.", got=f"{asked[prompts[0]]} times",
            cause="`samples` says how often each prompt is asked.",
        )  # fmt: skip
    fixed = [prompt for prompt in prompts if len(set(map(str, seeds[prompt]))) < samples]
    if fixed:
        raise Wrong(
            f"{case} uses the same seed again.", got=f"seeds {shown(seeds[fixed[0]])}",
            cause="The same seed draws the same reply: sampling never varies, and many copies of one reply "
            "look "
            "like many replies. Give each sample a seed of its own.",
        )  # fmt: skip
