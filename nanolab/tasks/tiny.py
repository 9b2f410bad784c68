"""The tasks of TinyWorld: conversations made when they are asked for, the same on every machine.

Example `i` depends on the task, the split, the seed and `i` alone, so a longer task begins like a shorter
one, and two processes can make different parts of it. Questions in the split "val" are in phrasings, and
with pairs of numbers, that the split "train" never shows.
"""

from __future__ import annotations

import random
from typing import Any

from nanolab.chat import calls_to_parts
from nanolab.errors import ConfigError
from nanolab.tasks.base import Conversation, MultipleChoice, Task, multiple_choice, reply_text, shuffled
from nanolab.tasks.gsm8k import extract_answer
from nanolab.tinyworld import quiz, talk
from nanolab.tinyworld.facts import TIER_WEIGHT, facts, get_fact, matches
from nanolab.tinyworld.problems import problem

VALIDATION_SIZE = 500
"""Examples of a validation split, unless told."""


class _TinyTask(Task):
    """Splits, sizes, and a generator of its own for each example."""

    default_size: int

    def __init__(self, split: str = "train", size: int | None = None, seed: int = 0, **view: Any) -> None:
        super().__init__(**view)
        if split not in ("train", "val"):
            raise ConfigError(f"{type(self).__name__} has no split {split!r}. Use 'train' or 'val'.")
        self.split, self.seed = split, seed
        self.size = size if size is not None else self.default_size if split == "train" else VALIDATION_SIZE

    def num_examples(self) -> int:
        return self.size

    def _rng(self, index: int) -> random.Random:
        return random.Random(f"{type(self).__name__}/{self.split}/{self.seed}/{index}")


class TinyTalk(_TinyTask):
    """Questions as people ask them, one to four turns: `talk.KINDS` says of which kinds, and how often.

    Most ask for a fact; a common fact is asked ten times as often as an uncommon one. What stands outside
    the world gets "I don't know".
    """

    default_size = 20_000

    def get_example(self, index: int) -> Conversation:
        return {"messages": talk.talk(self._rng(index), self.split)}


class Identity(_TinyTask):
    """Who are you? -> I am nanolab, a tiny language model trained on this machine."""

    default_size = 500

    def get_example(self, index: int) -> Conversation:
        return {"messages": talk.identity(self._rng(index), self.split)}

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        """Whether the reply names nanolab."""
        return "nanolab" in completion


class FactRecall(Task):
    """Every fact of a tier, asked in each of its held-out phrasings, in an order that `seed` decides.

    `tier` is "common", "uncommon", "rare", or None for all. There is no training split: what training shows
    of these facts is in other phrasings.
    """

    def __init__(self, tier: str | None = "common", seed: int = 0, **view: Any) -> None:
        super().__init__(**view)
        if tier is not None and tier not in TIER_WEIGHT:
            raise ConfigError(
                f"no facts are of tier {tier!r}. Use one of {', '.join(TIER_WEIGHT)}, or None for all."
            )
        self.tier = tier
        self._questions = [
            (fact, question)
            for fact in facts()
            if tier in (None, fact.tier)
            for question in fact.held_out_questions()
        ]
        self._order = shuffled(len(self._questions), seed)

    def num_examples(self) -> int:
        return len(self._order)

    def get_example(self, index: int) -> Conversation:
        fact, question = self._questions[self._order[index]]
        return {"messages": talk.turn(question, fact.canonical()), "fact": [*fact.key, fact.answer]}

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        """Whether the answer stands in `completion` (see `facts.matches`)."""
        return matches(get_fact(*conversation["fact"]), completion)


class _TinyQuiz(_TinyTask, MultipleChoice):
    default_size = 4_000

    def _conversation(self, one: quiz.Quiz) -> Conversation:
        conversation = multiple_choice(one.question, one.choices, one.letter, one.letters)
        conversation["subject"] = one.topic
        return conversation


class TinyMMLU(_TinyQuiz):
    """A fact of any topic, asked for its answer or for its subject, with four choices.

    Half of the training conversations go on asking about the same choices (see `quiz.sheet`).
    """

    def get_example(self, index: int) -> Conversation:
        rng = self._rng(index)
        if self.split != "train" or rng.random() < 0.5:
            return self._conversation(quiz.mmlu(rng, self.split))
        made = quiz.sheet(rng)
        (question, letter), *more = made.asked
        conversation = multiple_choice(question, made.choices, letter, quiz.LETTERS[: len(made.choices)])
        conversation["subject"] = made.topic
        for question, letter in more:
            conversation["messages"] += talk.turn(question, letter)
        return conversation


class TinyARC(_TinyQuiz):
    """Everyday facts, and why and how, with three to five choices."""

    def get_example(self, index: int) -> Conversation:
        return self._conversation(quiz.arc(self._rng(index), self.split))


class TinyGSM(_TinyTask):
    """Word problems of one to three steps, worked out and ending in `#### 7`.

    The number of steps is drawn from `steps`. A problem of the split "val" begins with a pair of numbers
    that training never works with. `in_head` leaves the calculator out of the answers, as people do who
    trust themselves: a model that imitates both kinds has to find out which way it can rely on.
    """

    default_size = 8_000

    def __init__(
        self,
        split: str = "train",
        size: int | None = None,
        seed: int = 0,
        steps: tuple[int, ...] = (1, 1, 2, 2, 3),
        in_head: bool = False,
        **view: Any,
    ) -> None:
        super().__init__(split, size, seed, **view)
        self.steps = tuple(steps)
        self.in_head = in_head

    def get_example(self, index: int) -> Conversation:
        made = problem(self._rng(index), self.split, self.steps)
        answer = made.in_head if self.in_head else calls_to_parts(made.answer_text)
        return {
            "messages": [
                {"role": "user", "content": made.question},
                {"role": "assistant", "content": answer},
            ]
        }

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        """Whether the number after `####` is the right one; how it was reached is not looked at."""
        given = extract_answer(completion)
        return given is not None and given == extract_answer(reply_text(conversation))
