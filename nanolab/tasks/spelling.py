"""Spelling, and counting letters: hard for a model that reads tokens and never sees a letter.

The word always stands in double quotes: `"apple"` holds the token "apple", which is not the token " apple"
of running text, so that a word has one spelling to learn and not two. Written with hyphens, each further
letter is one token of its own: "-p".
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from typing import Any

from nanolab.errors import ConfigError, DataError
from nanolab.tasks.base import Conversation, Task, pick, reply_text
from nanolab.tasks.gsm8k import extract_answer
from nanolab.tinyworld.words import held_out, spelling_words

SPELL = (
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
)
SPELL_HELD_OUT = (
    'Could you tell me how to spell "{word}"?',
    'What are all the letters of the word "{word}"?',
    'My friend asked how to spell the word "{word}".',
    'Now spell this word: "{word}".',
)
COUNT = (
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
)
COUNT_HELD_OUT = (
    'If I write "{word}", how many times do I write "{letter}"?',
    'Look at "{word}" and count each "{letter}" you find.',
    'How many of the letters of "{word}" are "{letter}"?',
)


def spell(word: str) -> str:
    """The letters joined by hyphens: "apple" -> "a-p-p-l-e"."""
    return "-".join(word)


class _WordTask(Task):
    """Words and phrasings by split: what is asked in validation is never asked in training."""

    phrasings: tuple[str, ...]
    held_out_phrasings: tuple[str, ...]

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
        self._templates = self.phrasings if training else self.held_out_phrasings

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

    phrasings, held_out_phrasings = SPELL, SPELL_HELD_OUT

    def get_example(self, index: int) -> Conversation:
        rng = self._rng(index)
        word = pick(rng, self.words)
        question = pick(rng, self._templates).format(word=word)
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


class SpellingBee(_WordTask):
    """`How many "r" are in "strawberry"?` -> the word spelled, a calculator call, `#### 3`

    Nine times in ten the letter is one of the word's, else any letter. Splits and words as in SimpleSpelling.
    """

    phrasings, held_out_phrasings = COUNT, COUNT_HELD_OUT

    def get_example(self, index: int) -> Conversation:
        rng = self._rng(index)
        word = pick(rng, self.words)
        letter = pick(rng, word if rng.random() < 0.9 else "abcdefghijklmnopqrstuvwxyz")
        question = pick(rng, self._templates).format(word=word, letter=letter)
        count = word.count(letter)
        parts = [
            {"type": "text", "text": f"{spell(word)} has "},
            {"type": "python", "text": f'"{word}".count("{letter}")'},
            {"type": "python_output", "text": str(count)},
            {"type": "text", "text": f"{count} of the letter {letter}.\n#### {count}"},
        ]
        return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": parts}]}

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        """Whether the number after `####` is the right one."""
        given = extract_answer(completion)
        return given is not None and given == extract_answer(reply_text(conversation))
