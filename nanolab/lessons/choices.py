"""Multiple choice asked in several ways: by letter, by letter in every order, by the whole sentence."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nanolab.chat import Conversation, render_conversation, render_for_completion
from nanolab.engine import Engine
from nanolab.model import GPT
from nanolab.tasks import multiple_choice
from nanolab.tinyworld.facts import Fact, facts, pick, sample
from nanolab.tinyworld.talk import turn
from nanolab.tokenizer import Tokenizer

LETTERS = "ABCD"


@dataclass(frozen=True)
class ChoiceQuestion:
    """A question about a fact, four choices, and the sentence that each choice would make."""

    question: str
    choices: tuple[str, ...]
    right: int
    sentences: tuple[str, ...]
    """the fact's sentence with each choice in the place of the answer"""

    def rotated(self, by: int) -> ChoiceQuestion:
        """The same question with every choice moved `by` places up, round and round."""
        by %= len(self.choices)
        return ChoiceQuestion(
            self.question, self.choices[by:] + self.choices[:by], (self.right - by) % len(self.choices),
            self.sentences[by:] + self.sentences[:by],
        )  # fmt: skip

    def conversation(self) -> Conversation:
        """The question with lettered choices, answered with the right letter."""
        return multiple_choice(self.question, self.choices, LETTERS[self.right], LETTERS)


def choice_questions(count: int, tier: str = "common", seed: int = 0) -> list[ChoiceQuestion]:
    """`count` questions on facts of one tier, in phrasings never trained on, the right choice anywhere."""
    rng = random.Random(f"choices/{tier}/{seed}")
    usable = [fact for fact in facts() if fact.tier == tier and len(fact.distractors(rng, 3)) == 3]
    return [
        _choice_question(random.Random(f"choices/{tier}/{seed}/{number}"), fact)
        for number, fact in enumerate(sample(rng, usable, count))
    ]


def _choice_question(rng: random.Random, fact: Fact) -> ChoiceQuestion:
    wrong = fact.distractors(rng, 3)
    place = int(rng.random() * 4)
    choices = (*wrong[:place], fact.answer, *wrong[place:])
    sentences = tuple(_with_answer(fact, choice) for choice in choices)
    return ChoiceQuestion(pick(rng, fact.held_out_questions()), choices, place, sentences)


def _with_answer(fact: Fact, answer: str) -> str:
    """The fact's sentence with another answer in it, in the last place where the true one stands."""
    before, _, after = fact.canonical().rpartition(fact.answer)
    return before + answer + after


@torch.inference_mode()
def letter_chances(model: GPT, tokenizer: Tokenizer, questions: Sequence[ChoiceQuestion]) -> Tensor:
    """`(questions, 4)`: the probability of each letter as the first token of the answer, among the four."""
    model.eval()
    ids = [tokenizer.encode(letter)[0] for letter in LETTERS]
    prompts = [render_for_completion(tokenizer, one.conversation()) for one in questions]
    ends = torch.tensor([len(prompt) - 1 for prompt in prompts])
    logits = torch.cat(
        [
            _logits(model, tokenizer, prompts[i : i + 16])[
                torch.arange(len(prompts[i : i + 16])), ends[i : i + 16]
            ]
            for i in range(0, len(prompts), 16)
        ]
    )
    return logits[:, ids].softmax(-1)


def balanced_chances(model: GPT, tokenizer: Tokenizer, questions: Sequence[ChoiceQuestion]) -> Tensor:
    """`(questions, 4)`: each choice's probability, averaged over all four places that it can stand in.

    A liking for one letter is then given to every choice alike, and cancels out.
    """
    turns = [
        letter_chances(model, tokenizer, [one.rotated(by) for one in questions]).roll(by, dims=1)
        for by in range(len(LETTERS))
    ]
    return torch.stack(turns).mean(0)


@torch.inference_mode()
def sentence_scores(model: GPT, tokenizer: Tokenizer, questions: Sequence[ChoiceQuestion]) -> Tensor:
    """`(questions, 4)`: the surprise in bits, below 0, of each choice's whole sentence as the reply.

    No letters are shown: the question is asked as in a chat. Higher is likelier. Summed over the reply, so
    that all that the model must write to say it counts.
    """
    model.eval()
    rendered = [
        render_conversation(tokenizer, {"messages": turn(one.question, sentence)})
        for one in questions
        for sentence in one.sentences
    ]
    scores = []
    for start in range(0, len(rendered), 32):
        part = rendered[start : start + 32]
        logits = _logits(model, tokenizer, [ids for ids, _ in part]).log_softmax(-1)
        for row, (ids, mask) in enumerate(part):
            learned = [i for i in range(1, len(ids)) if mask[i]]
            picked = logits[row, [i - 1 for i in learned], [ids[i] for i in learned]]
            scores.append(picked.sum().item() / math.log(2))
    return torch.tensor(scores).view(len(questions), len(LETTERS))


def _logits(model: GPT, tokenizer: Tokenizer, rows: Sequence[Sequence[int]]) -> Tensor:
    """`(rows, longest, V)`, shorter rows padded on the right, where nothing looks at them."""
    padded = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(ids) for ids in rows], batch_first=True, padding_value=tokenizer.get_bos_token_id()
    )
    return model(padded.to(model.device)).cpu()


def written_letters(model: GPT, tokenizer: Tokenizer, questions: Sequence[ChoiceQuestion]) -> list[str]:
    """What the model writes when it is asked with letters: the whole reply, at temperature 0."""
    model.eval()
    engine = Engine(model, tokenizer)
    prompts = [render_for_completion(tokenizer, one.conversation()) for one in questions]
    replies = engine.generate_batch(prompts, max_tokens=16, temperature=0.0)
    return [engine.completion_text(reply).strip() for (reply,) in replies]


def hits(scores: Tensor, questions: Sequence[ChoiceQuestion]) -> list[bool]:
    """Whether the highest of each question's four scores is the right choice's."""
    return [int(row.argmax()) == one.right for row, one in zip(scores, questions, strict=True)]


def places_chosen(scores: Tensor) -> dict[str, float]:
    """How often each letter has the highest score, as shares that add up to 1."""
    best = scores.argmax(dim=1).tolist()
    return {letter: best.count(i) / len(best) for i, letter in enumerate(LETTERS)}


def four_ways(
    model: GPT, tokenizer: Tokenizer, questions: Sequence[ChoiceQuestion]
) -> tuple[dict[str, list[bool]], dict[str, dict[str, float]]]:
    """The same questions asked in four ways: which were right, and at which letter the choices stood.

    The second part is in per cent, for the right answers, for the likeliest letter when a question is asked
    once, and when it is asked in all four orders.
    """
    once = letter_chances(model, tokenizer, questions)
    balanced = balanced_chances(model, tokenizer, questions)
    written = written_letters(model, tokenizer, questions)
    right = torch.eye(len(LETTERS))[[one.right for one in questions]]
    hits_by_way = {
        "writes the letter": [
            text == LETTERS[one.right] for text, one in zip(written, questions, strict=True)
        ],
        "likeliest letter": hits(once, questions),
        "letter, all four orders": hits(balanced, questions),
        "likeliest sentence": hits(sentence_scores(model, tokenizer, questions), questions),
    }
    places = {"right answers": right, "asked once": once, "all four orders": balanced}
    return hits_by_way, {
        name: {letter: 100 * part for letter, part in places_chosen(scores).items()}
        for name, scores in places.items()
    }
