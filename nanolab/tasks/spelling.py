"""Spelling, and counting letters: hard for a model that reads tokens and never sees a letter.

A word in double quotes holds the token "apple"; typed into a sentence it is another token, " apple", whose
letters have to be learnt as well. People type both. Written with hyphens, each further letter is one token
of its own: "-p".
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from nanolab.errors import ConfigError, DataError
from nanolab.tasks.base import Conversation, Task, pick, reply_text
from nanolab.tasks.gsm8k import extract_answer
from nanolab.tinyworld.exam import is_in_exam
from nanolab.tinyworld.words import WordsToSpell, held_out, spelling_words

TYPED_SHARE = {"train": 0.4, "val": 1 / 3, "test": 1 / 3}
"""Share of the questions without quotes, by split."""

LENGTH_SHARE = 0.2
"""Share of SpellingBee that asks for the number of all letters."""


class Phrasings(NamedTuple):
    """Ways to ask, with the word in quotes and as people type it; the held-out ones are for evaluation."""

    quoted: tuple[str, ...]
    typed: tuple[str, ...]
    quoted_held_out: tuple[str, ...]
    typed_held_out: tuple[str, ...]

    def ask(self, rng: random.Random, split: str, **words: str) -> str:
        """A question of `split` about `words`, none that the exam asks."""
        training = split == "train"
        while True:
            if rng.random() < TYPED_SHARE[split]:
                templates = self.typed if training else self.typed_held_out
            else:
                templates = self.quoted if training else self.quoted_held_out
            question = pick(rng, templates).format(**words)
            if not is_in_exam(question):
                return question


SPELL = Phrasings(
    quoted=(
        'Spell the word "{word}".',
        'Spell "{word}".',
        'Spell out "{word}" for me.',
        'How do you spell "{word}"?',
        'How is "{word}" spelled?',
        'Please spell "{word}".',
        'Can you spell "{word}"?',
        'What are the letters of "{word}"?',
        'Which letters make up the word "{word}"?',
        'Write "{word}" letter by letter.',
        'Give me the spelling of "{word}".',
        'I want to spell "{word}". How does it go?',
        'Say the letters of "{word}" one by one.',
        'Break the word "{word}" into letters.',
    ),
    typed=(
        "spell {word}",
        "spell {word} please",
        "spell the word {word}",
        "spell out {word}",
        "Spell {word}.",
        "how do you spell {word}",
        "How do you spell {word}?",
        "how do i spell {word}",
        "how to spell {word}",
        "how is {word} spelled",
        "how is {word} spelt",
        "{word} spelled",
        "spelling of {word}",
        "what is the spelling of {word}",
        "can you spell {word}",
        "can you spell {word} for me",
        "Can you spell {word}?",
        "letters of {word}",
        "write {word} letter by letter",
    ),
    quoted_held_out=(
        'Could you tell me how to spell "{word}"?',
        'What are all the letters of the word "{word}"?',
        'My friend asked how to spell the word "{word}".',
        'Now spell this word: "{word}".',
    ),
    typed_held_out=(
        "how would you spell {word}",
        "could you spell {word} please",
        "tell me the letters of {word}",
        "{word} letter by letter",
        "Show me how to spell {word}.",
    ),
)
COUNT = Phrasings(
    quoted=(
        'How many "{letter}" are in "{word}"?',
        'How many times does "{letter}" appear in "{word}"?',
        'How many times is "{letter}" in the word "{word}"?',
        'Count the letter "{letter}" in "{word}".',
        'Count how often "{letter}" occurs in "{word}".',
        'What is the number of "{letter}" in "{word}"?',
        'In the word "{word}", how many "{letter}" are there?',
        'How many letters "{letter}" does "{word}" have?',
        'Tell me how many "{letter}" there are in "{word}".',
        'How often do you see "{letter}" in "{word}"?',
        'Find the count of "{letter}" in "{word}".',
        'Please count every "{letter}" in the word "{word}".',
    ),
    typed=(
        "how many {letter} in {word}",
        "how many {letter} are in {word}",
        "how many {letter} are there in {word}",
        "how many {letter}'s in {word}",
        "How many {letter} are in {word}?",
        "how many letters {letter} in {word}",
        "how many times does {letter} appear in {word}",
        "how often is {letter} in {word}",
        "number of {letter} in {word}",
        "count the {letter} in {word}",
        "count {letter} in {word}",
        "count the letter {letter} in the word {word}",
    ),
    quoted_held_out=(
        'If I write "{word}", how many times do I write "{letter}"?',
        'Look at "{word}" and count each "{letter}" you find.',
        'How many of the letters of "{word}" are "{letter}"?',
    ),
    typed_held_out=(
        "how many {letter} does {word} have",
        "how many times do i write {letter} in {word}",
        "in {word} how many {letter} do you see",
    ),
)
LENGTH = Phrasings(
    quoted=(
        'How many letters does "{word}" have?',
        'How many letters are in "{word}"?',
        'How many letters are there in the word "{word}"?',
        'How many letters has the word "{word}"?',
        'What is the number of letters in "{word}"?',
        'Count the letters of "{word}".',
        'Count all the letters in the word "{word}".',
        'Tell me how many letters "{word}" has.',
    ),
    typed=(
        "how many letters does {word} have",
        "How many letters does {word} have?",
        "how many letters in {word}",
        "how many letters are in {word}",
        "how many letters has {word}",
        "number of letters in {word}",
        "count the letters of {word}",
        "count the letters in the word {word}",
    ),
    quoted_held_out=(
        'Of how many letters is "{word}" made?',
        'If I write "{word}", how many letters do I write?',
        'Tell me the number of letters of "{word}".',
    ),
    typed_held_out=(
        "how many letters make {word}",
        "how many letters do i need for {word}",
        "what number of letters does {word} have",
    ),
)


def spell(word: str) -> str:
    """The letters joined by hyphens: "apple" -> "a-p-p-l-e"."""
    return "-".join(word)


class _WordTask(Task):
    """Words and phrasings by split: what is asked in validation is never asked in training."""

    def __init__(
        self,
        split: str = "train",
        words: Iterable[str] | None = None,
        *,
        size: int = 1000,
        seed: int = 0,
        **view: Any,
    ) -> None:
        super().__init__(**view)
        if split not in ("train", "val", "test"):
            raise ConfigError(f"{type(self).__name__} has no split {split!r}. Use 'train', 'val' or 'test'.")
        training = split == "train"
        self.split, self.size, self.seed = split, size, seed
        self.words = [
            word
            for word in (spelling_words() if words is None else words)
            if re.fullmatch("[a-z]{3,}", word) and held_out(word) != training
        ]
        if not self.words:
            raise DataError(
                f"{type(self).__name__}: no word is left for split {split!r}.\n"
                "Give more words of three or more letters from a to z; one in ten is held out of training."
            )
        self._to_spell = WordsToSpell(self.words)

    def num_examples(self) -> int:
        return self.size

    def _rng(self, index: int) -> random.Random:
        return random.Random(f"{type(self).__name__}/{self.split}/{self.seed}/{index}")


class SimpleSpelling(_WordTask):
    """`Spell the word "apple".` -> `a-p-p-l-e`

    The words that `tinyworld.words.held_out` chooses, and the held-out phrasings, are only in the splits
    "val" and "test". Of `words` only those of three or more letters a to z are used. Raises DataError when
    none is left.
    """

    def get_example(self, index: int) -> Conversation:
        rng = self._rng(index)
        word = self._to_spell.draw(rng) if self.split == "train" else pick(rng, self.words)
        question = SPELL.ask(rng, self.split, word=word)
        return {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": spell(word)},
            ]
        }

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        """Whether the right spelling stands in `completion`, not as part of a longer one."""
        spelling = re.escape(reply_text(conversation))
        return re.search(rf"(?<![\w-]){spelling}(?![\w-])", completion) is not None


def _counted(word: str, letter: str) -> list[dict[str, str]]:
    count = word.count(letter)
    return [
        {"type": "text", "text": f"{spell(word)} has "},
        {"type": "python", "text": f'"{word}".count("{letter}")'},
        {"type": "python_output", "text": str(count)},
        {"type": "text", "text": f"{count} of the letter {letter}.\n#### {count}"},
    ]


class SpellingBee(_WordTask):
    """`How many "r" are in "strawberry"?` -> the word spelled, a calculator call, `#### 3`

    Nine times in ten the letter is one of the word's, else any letter. One question in five asks for the
    number of all letters, which the model has to count by itself: the calculator counts one letter only.
    Splits and words as in SimpleSpelling.
    """

    def get_example(self, index: int) -> Conversation:
        rng = self._rng(index)
        word = pick(rng, self.words)
        if rng.random() < LENGTH_SHARE:
            question = LENGTH.ask(rng, self.split, word=word)
            answer: Any = f"{spell(word)} has {len(word)} letters.\n#### {len(word)}"
        else:
            letter = pick(rng, word if rng.random() < 0.9 else "abcdefghijklmnopqrstuvwxyz")
            question = COUNT.ask(rng, self.split, word=word, letter=letter)
            answer = _counted(word, letter)
        return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        """Whether the number after `####` is the right one."""
        given = extract_answer(completion)
        return given is not None and given == extract_answer(reply_text(conversation))
