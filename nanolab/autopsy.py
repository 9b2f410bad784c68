"""What a model expected, token by token: the arithmetic behind the token autopsy, without any drawing.

autopsy = examine(model, tokenizer, ids)
autopsy.at(5).bits            how surprised the model was by token 5, before it saw it
autopsy.at(5, temperature=2)  the same prediction, flatter: from the logits kept, no forward pass
autopsy.substitute(5, 731)    the same text with another token there
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from nanolab.chat import Conversation, render_conversation, render_for_completion
from nanolab.errors import ConfigError, DataError, NanolabError
from nanolab.model import GPT
from nanolab.tokenizer import Tokenizer


@dataclass(frozen=True)
class Candidate:
    """A token that the model thought possible at some place."""

    id: int
    text: str
    probability: float
    rank: int
    """1 is the likeliest; of equals, the lowest id comes first"""
    true: bool
    """whether it is the token that stands in the text"""

    @property
    def bits(self) -> float:
        return -math.log2(self.probability) if self.probability else math.inf


@dataclass(frozen=True)
class Token:
    """One token of a text, and what the model predicted for its place before it had seen it.

    The first token has nothing before it, so no prediction: its numbers are NaN, its rank 0. The place
    behind the last token has a prediction and no token: its id is None, its own numbers NaN.
    """

    position: int
    id: int | None
    text: str
    """as `Tokenizer.token_text` shows it; "" behind the end"""
    special: bool
    learned: bool | None
    """whether training on this conversation supervises the token; None where the text is no conversation"""
    probability: float
    bits: float
    """surprise: -log2(probability); 1 bit is a coin toss, 11 bits is 1 in 2,048"""
    rank: int
    entropy: float
    """bits: the surprise the model expected here, on average, over all tokens that could have come"""
    top: tuple[Candidate, ...]
    """the likeliest k, and the true token behind them where it is not among them"""

    @property
    def predicted(self) -> bool:
        """Whether there is a prediction for this place: everywhere but for the first token."""
        return not math.isnan(self.entropy)


@dataclass(frozen=True)
class Autopsy:
    """A text, and the logits of every prediction a model made while reading it."""

    model: GPT = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    ids: tuple[int, ...]
    mask: tuple[int, ...] | None
    """of a conversation: 1 where training supervises the token"""
    logits: Tensor = field(repr=False)
    """`(T, V)` in fp32: row t is the prediction for position t + 1"""

    def at(self, position: int, temperature: float = 1.0, k: int = 10) -> Token:
        """The token at `position`, 0 to T, with the `k` likeliest candidates for its place.

        Position T, just behind the text, is what the model would write next. Temperature divides the
        logits; 1 is the model as it is. No forward pass. Raises ConfigError outside these limits.
        """
        self._check(position)
        if not 0 < temperature < math.inf:
            raise ConfigError(
                f"temperature={temperature} gives no probabilities.\n"
                "Choose a number above 0; 1 is the model's own."
            )
        id = self.ids[position] if position < len(self.ids) else None
        probability, rank, entropy = math.nan, 0, math.nan
        top: tuple[Candidate, ...] = ()
        if position > 0:
            chances = torch.softmax(self.logits[position - 1].double() / temperature, dim=-1)
            entropy = max(0.0, -torch.special.xlogy(chances, chances).sum().item() / math.log(2))
            if id is not None:
                probability, rank = chances[id].item(), rank_of(chances, id)
            top = self._candidates(chances, id, rank, k) if k > 0 else ()
        return Token(
            position=position, id=id, text="" if id is None else self.text_of(id),
            special=id is not None and self._is_special(id),
            learned=None if self.mask is None or id is None else bool(self.mask[position]),
            probability=probability, bits=-math.log2(probability) if probability else math.inf,
            rank=rank, entropy=entropy, top=top,
        )  # fmt: skip

    def _candidates(self, chances: Tensor, id: int | None, rank: int, k: int) -> tuple[Candidate, ...]:
        order = chances.sort(descending=True, stable=True).indices[:k].tolist()
        ranked = list(enumerate(order, start=1))
        if id is not None and id not in order:
            ranked.append((rank, id))
        return tuple(
            Candidate(one, self.text_of(one), chances[one].item(), place, one == id) for place, one in ranked
        )

    @cached_property
    def tokens(self) -> list[Token]:
        """Every token of the text, at temperature 1, without candidates."""
        return [self.at(position, k=0) for position in range(len(self.ids))]

    @property
    def mean_bits(self) -> float:
        """Mean surprise of a predicted token: the loss in nats, divided by ln 2. NaN for a single token."""
        bits = [token.bits for token in self.tokens[1:]]
        return sum(bits) / len(bits) if bits else math.nan

    def substitute(self, position: int, token_id: int) -> Autopsy:
        """The same text with `token_id` at `position`, read anew; position T appends it."""
        self._check(position)
        ids = [*self.ids[:position], token_id, *self.ids[position + 1 :]]
        changed = examine(self.model, self.tokenizer, ids)
        mask = self.mask if self.mask is None or position < len(self.ids) else (*self.mask, 0)
        return replace(changed, mask=mask)

    def text_of(self, id: int) -> str:
        """A token for display. A model may have a few more ids than its tokenizer has tokens."""
        return self.tokenizer.token_text(id) if id < self.tokenizer.get_vocab_size() else f"<unused {id}>"

    def _is_special(self, id: int) -> bool:
        sizes = self.tokenizer.token_bytes()
        return id >= len(sizes) or sizes[id] == 0

    def _check(self, position: int) -> None:
        if not 0 <= position <= len(self.ids):
            raise ConfigError(
                f"position {position} is outside this text.\n"
                f"It has {len(self.ids)} tokens: use 0 to {len(self.ids)}."
            )


def rank_of(chances: Tensor, id: int) -> int:
    """How many tokens of `(V,)` are at least as likely as `id`; of equals, the lower id comes first."""
    ahead = (chances > chances[id]).sum() + (chances[:id] == chances[id]).sum()
    return int(ahead) + 1


@torch.no_grad()
def examine(
    model: GPT, tokenizer: Tokenizer, ids: Sequence[int], mask: Sequence[int] | None = None
) -> Autopsy:
    """Let a model read `ids` once and keep all of its predictions. `mask`: 1 where training supervises.

    Raises ConfigError for more tokens than the model's context, DataError for none or an unknown one.
    """
    ids = tuple(int(id) for id in ids)
    if not ids:
        raise DataError("There is no token to look at.\nGive at least one: tokenizer.get_bos_token_id().")
    vocabulary = model.config.vocab_size
    unknown = [id for id in ids if not 0 <= id < vocabulary]
    if unknown:
        raise DataError(f"There is no token {unknown[0]}: this model knows the ids 0 to {vocabulary - 1}.")
    if mask is not None and len(mask) != len(ids):
        raise DataError(f"The mask has {len(mask)} entries for {len(ids)} tokens: give one for each.")
    logits = model(torch.tensor([ids], device=model.device))[0].float().cpu()
    if logits.isnan().any():
        raise NanolabError(
            "the model's output is not a number: its training diverged.\n"
            "Go back to an earlier checkpoint, or train again with a lower learning rate."
        )
    return Autopsy(model, tokenizer, ids, None if mask is None else tuple(map(int, mask)), logits)


def read(
    tokenizer: Tokenizer, text: str | Sequence[int] | Conversation
) -> tuple[list[int], list[int] | None]:
    """`(ids, mask)` of what a learner wants to look at.

    A text becomes a document, `<|bos|>` first, without mask; ids stay as they are. A conversation comes
    with its mask, and one that ends with the user's words with the start of the assistant's answer.
    """
    if isinstance(text, str):
        return [tokenizer.get_bos_token_id(), *tokenizer.encode(text)], None
    if not isinstance(text, Mapping):
        return [int(id) for id in text], None
    ids, mask = render_conversation(tokenizer, text)
    if text["messages"][-1]["role"] != "assistant":
        ids = render_for_completion(tokenizer, text)
        mask = [0] * len(ids)
    return ids, mask
