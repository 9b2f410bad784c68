"""Challenge 8: six functions of a training with one fault each, and a list of suspects."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

Part = Callable[..., Any]

SUSPECTS = {
    "targets": "each input token is trained towards the wrong target token",
    "mask": "tokens count in the loss that the model will never have to write",
    "too fast": "the learning rate is far too high",
    "too slow": "the learning rate is far too low",
    "leak": "text that is kept for validation is trained on",
    "division": "something is divided by zero",
    "reward": "the reward pays for something other than what is wanted",
    "small": "the model is too small for its text",
}
"""What may be wrong, by its short name. There are more of them than cases."""

# ---- six functions, each with one fault


def cut_rows(stream: Tensor, rows: int, context: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets, both `(rows, context)`, from a stream of `rows * context + 1` tokens."""
    inputs = stream[: rows * context].view(rows, context)
    targets = stream[: rows * context].view(rows, context)
    return inputs, targets


def chat_targets(ids: Tensor, mask: Tensor) -> Tensor:
    """The `T - 1` targets of a conversation of `T` tokens; -1 where nothing is to be learned.

    ids: `(T,)`. mask: `(T,)`, 1 at each token that the assistant has to write, else 0.
    """
    targets, learned = ids[1:], mask[1:] >= 0
    return targets.masked_fill(~learned, -1)


def rate_at(step: int, peak: float, warmup: int) -> float:
    """The learning rate of a step (from 0): in `warmup` equal stairs up to `peak`, then `peak`."""
    percent = min(100, 100 * (step + 1) / warmup)
    return peak * percent


def split_documents(texts: list[str], count: int) -> tuple[list[str], list[str]]:
    """(training texts, `count` validation texts). No text that validates may be trained on as well."""
    validation = texts[:count]
    training = texts[:]
    return training, validation


def scaled_advantages(rewards: Tensor) -> Tensor:
    """How many standard deviations each answer is above its group's mean; rewards: `(groups, samples)`.

    The standard deviation of a group is the root of its mean squared distance from the mean. Where all
    rewards of a group are equal, there is nothing to learn, and its row is 0.
    """
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    spread = centred.square().mean(dim=1, keepdim=True).sqrt()
    return centred / spread


def points(reply: str, answer: str) -> float:
    """What a reply to a word problem is paid: it should give `answer`, such as "12", after its `####`."""
    worked = reply.count("<<")  # who works it out with the calculator gets it right more often
    return float(min(4, worked))


FAULTY: Mapping[str, Part] = {
    "A": cut_rows, "B": rate_at, "C": split_documents, "D": chat_targets, "E": scaled_advantages, "F": points,
}  # fmt: skip
"""The function with the fault, by case."""


def show_code(case: str) -> None:
    """Print the function in which the fault of a case is."""
    print(inspect.getsource(FAULTY[case]).rstrip())
