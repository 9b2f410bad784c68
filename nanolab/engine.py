"""Text from a model: sampling with the KV cache, many rows at once, and the calculator tool.

Between `<|python_start|>` and `<|python_end|>` the model writes an expression. The engine computes it
and puts `<|output_start|>` result `<|output_end|>` into the model's mouth: those tokens are *forced*,
and their mask is 0, since the model did not choose them. A text that the calculator refuses forces
nothing, and the model goes on alone.
"""

from __future__ import annotations

import codecs
import copy
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nanolab.calculator import calculate
from nanolab.errors import ConfigError, NanolabError
from nanolab.model import GPT, KVCache
from nanolab.tokenizer import Tokenizer


def greedy(logits: Tensor) -> Tensor:
    """The likeliest token of each row: `(B, V)` -> `(B,)`. Of equals, the first."""
    return logits.argmax(dim=-1)


def probabilities(logits: Tensor, temperature: float) -> Tensor:
    """Softmax of logits / temperature: below 1 sharper, above 1 flatter. `(B, V)` -> `(B, V)`."""
    return torch.softmax(logits.float() / temperature, dim=-1)


def draw(probs: Tensor, generator: torch.Generator) -> Tensor:
    """One index a row, each as often as its probability says: `(B, V)` -> `(B,)`.

    Throws one dart a row at the probabilities laid end to end: 128 rows cost 128 random numbers, where
    `torch.multinomial` uses one for every token of the vocabulary.
    """
    ends = probs.cumsum(dim=-1)
    dart = torch.rand(probs.size(0), 1, generator=generator, device=probs.device) * ends[:, -1:]
    return torch.searchsorted(ends, dart, right=True)[:, 0]


def sample(
    logits: Tensor, generator: torch.Generator, temperature: float = 1.0, top_k: int | None = None
) -> Tensor:
    """The next token of each row, `(B, V)` -> `(B,)`, from the `top_k` likeliest or from all.

    Temperature 0 takes the likeliest.
    """
    if temperature == 0 or top_k == 1:
        return greedy(logits)
    if top_k is None or top_k >= logits.size(-1):
        return draw(probabilities(logits, temperature), generator)
    best, ids = logits.topk(top_k)
    return ids.gather(-1, draw(probabilities(best, temperature), generator)[:, None])[:, 0]


@dataclass
class Sample:
    """One completion, without its prompt."""

    ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    """1 where the model chose the token, 0 where a tool forced it"""
    finished: bool = False
    """whether the model ended by itself; its end token is then the last of `ids`"""


@dataclass
class Row:
    """One sequence being written."""

    budget: int
    """tokens at most, forced ones included"""
    sample: Sample = field(default_factory=Sample)
    forced: deque[int] = field(default_factory=deque)
    call: list[int] | None = None
    """the expression so far, between python_start and python_end"""

    @property
    def done(self) -> bool:
        return self.sample.finished or len(self.sample.ids) >= self.budget


class Engine:
    """Writes completions with a model and its tokenizer.

    A completion ends at `<|assistant_end|>` or `<|bos|>`, after `max_tokens`, or where the model's
    context is full. At temperature 0 it does not depend on the other rows of its batch; otherwise the
    same call with the same seed gives the same text.
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        special = tokenizer.encode_special
        self.ends = {special("<|assistant_end|>"), special("<|bos|>")}
        self.python_start, self.python_end = special("<|python_start|>"), special("<|python_end|>")
        self.output_start, self.output_end = special("<|output_start|>"), special("<|output_end|>")
        self.specials = {special(name) for name in tokenizer.get_special_tokens()}
        self.marks = {
            ("", self.python_start): ("<<", "call"),
            ("call", self.python_start): ("<<", "call"),
            ("call", self.python_end): ("", "called"),
            ("called", self.output_start): ("=", "output"),
            ("output", self.output_end): (">>", ""),
        }

    def in_format(self, dtype: torch.dtype) -> Engine:
        """This engine with a copy of the model in `dtype`; itself where the model has that format.

        Where a CPU multiplies bf16 fast, 64 rows are sampled faster in it, and one row slower. Its rounding
        may change a greedy answer. Make a new copy after each training step.
        """
        if self.model.lm_head.weight.dtype == dtype:
            return self
        return type(self)(copy.deepcopy(self.model).to(dtype), self.tokenizer)

    def generate(
        self,
        prompt_ids: Sequence[int],
        *,
        max_tokens: int = 256,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int = 0,
        use_tools: bool = True,
    ) -> Iterator[int]:
        """Yield the completion's tokens one by one, with forced ones and the end token."""
        self.check([prompt_ids], 1, max_tokens, temperature, top_k)
        rows = self.new_rows([prompt_ids], 1, max_tokens)
        steps = self.run([prompt_ids], rows, temperature, top_k, seed, use_tools)
        return (rows[0].sample.ids[-1] for _ in steps)

    def stream_text(
        self,
        prompt_ids: Sequence[int],
        *,
        max_tokens: int = 256,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int = 0,
        use_tools: bool = True,
    ) -> Iterator[str]:
        """Yield the completion's text as it grows, in whole characters; tool calls as `<<3+4=7>>`."""
        tokens = self.generate(
            prompt_ids, max_tokens=max_tokens, temperature=temperature, top_k=top_k, seed=seed,
            use_tools=use_tools,
        )  # fmt: skip
        return self.text_of(tokens)

    def completion_text(self, completion: Sample) -> str:
        """The text of a completion; tool calls as `<<3+4=7>>`, other special tokens not shown."""
        return "".join(self.text_of(completion.ids))

    def generate_batch(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        num_samples: int = 1,
        max_tokens: int = 256,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int = 0,
        use_tools: bool = True,
    ) -> list[list[Sample]]:
        """`num_samples` completions of every prompt, all in one batch: result[prompt][sample]."""
        self.check(prompts, num_samples, max_tokens, temperature, top_k)
        rows = self.new_rows(prompts, num_samples, max_tokens)
        for _ in self.run(prompts, rows, temperature, top_k, seed, use_tools):
            pass
        samples = [row.sample for row in rows]
        return [samples[i : i + num_samples] for i in range(0, len(samples), num_samples)]

    def check(
        self,
        prompts: Sequence[Sequence[int]],
        num_samples: int,
        max_tokens: int,
        temperature: float,
        top_k: int | None,
    ) -> None:
        """Raise ConfigError for what cannot be generated, before anything is computed."""
        if not 0 <= temperature < math.inf:
            raise ConfigError(
                f"temperature={temperature} cannot be sampled at.\n"
                "Choose 0 for the likeliest token each time, 1 for the model's own probabilities."
            )
        if top_k is not None and top_k < 1:
            raise ConfigError(
                f"top_k={top_k} leaves no token to choose from.\nChoose 1 or more, or None for all tokens."
            )
        for name, count in (("max_tokens", max_tokens), ("num_samples", num_samples)):
            if count < 1:
                raise ConfigError(f"{name}={count}: nothing to generate.\nChoose 1 or more.")
        context = self.model.config.sequence_len
        for number, prompt in enumerate(prompts, start=1):
            if len(prompt) == 0:
                raise ConfigError(f"prompt {number} is empty.\nStart it with tokenizer.get_bos_token_id().")
            if len(prompt) >= context:
                raise ConfigError(
                    f"prompt {number} has {len(prompt)} tokens, and this model reads {context}, "
                    "answer included.\n"
                    "Shorten it (nanolab.chat.truncate_history drops the oldest turns of a conversation)."
                )

    def new_rows(self, prompts: Sequence[Sequence[int]], num_samples: int, max_tokens: int) -> list[Row]:
        """The rows of a batch, all samples of the first prompt first."""
        context = self.model.config.sequence_len
        return [Row(min(max_tokens, context - len(prompt))) for prompt in prompts for _ in range(num_samples)]

    @torch.inference_mode()
    def run(
        self,
        prompts: Sequence[Sequence[int]],
        rows: list[Row],
        temperature: float,
        top_k: int | None,
        seed: int,
        use_tools: bool,
    ) -> Iterator[None]:
        """Write all rows, one token each per step, and yield after each step.

        The cache holds what the model has read: all tokens of a row but the last, which the next
        forward pass reads.
        """
        if not rows:
            return
        device = self.model.device
        generator = torch.Generator(device).manual_seed(seed)
        copies = len(rows) // len(prompts)
        room = max(len(prompt) + row.budget - 1 for prompt, row in zip(prompts, rows[::copies], strict=True))
        cache = self.prefill(prompts, room)
        last = torch.tensor([prompt[-1] for prompt in prompts for _ in range(copies)], device=device)
        if copies > 1:
            cache = cache.select(torch.arange(len(prompts), device=device).repeat_interleave(copies))
        while True:
            logits = self.next_logits(last, cache)
            if logits.sum().isnan():
                raise NanolabError(
                    "the model's output is not a number: its training diverged.\n"
                    "Go back to an earlier checkpoint, or train again with a lower learning rate."
                )
            tokens = sample(logits, generator, temperature, top_k).tolist()
            tokens = [self.accept(row, token, use_tools) for row, token in zip(rows, tokens, strict=True)]
            yield
            alive = [i for i, row in enumerate(rows) if not row.done]
            if not alive:
                return
            last = torch.tensor(tokens, device=device)
            if len(alive) <= 0.75 * len(rows):
                kept = torch.tensor(alive, device=device)
                rows, last, cache = [rows[i] for i in alive], last[kept], cache.select(kept)
            elif len(alive) < len(rows):
                # A finished row runs along until enough have finished; from position 0 it cannot
                # outgrow the cache before the others have.
                done = [i for i, row in enumerate(rows) if row.done]
                cache.lengths[torch.tensor(done, device=device)] = 0

    def prefill(self, prompts: Sequence[Sequence[int]], room: int) -> KVCache:
        """A cache for `room` tokens a row, in which the model has read all but each prompt's last token."""
        model, device = self.model, self.model.device
        cache = KVCache(model.config, len(prompts), room, device, model.lm_head.weight.dtype)
        lengths = [len(prompt) - 1 for prompt in prompts]
        width = max(lengths)
        if width:
            padded = [list(prompt[:-1]) + [0] * (width - len(prompt) + 1) for prompt in prompts]
            model.hidden(torch.tensor(padded, device=device), cache)
        cache.lengths = torch.tensor(lengths, device=device)
        return cache

    def next_logits(self, last: Tensor, cache: KVCache) -> Tensor:
        """What the model expects after each row's `last` token: `(B,)` -> `(B, V)`."""
        return self.model(last[:, None], kv_cache=cache)[:, -1]

    def accept(self, row: Row, token: int, use_tools: bool) -> int:
        """Append to a row the forced token that is due, else the sampled `token`; return which."""
        if row.done:
            return token
        if row.forced:
            row.sample.ids.append(row.forced.popleft())
            row.sample.mask.append(0)
            return row.sample.ids[-1]
        row.sample.ids.append(token)
        row.sample.mask.append(1)
        row.sample.finished = token in self.ends
        if use_tools:
            self.watch_for_call(row, token)
        return token

    def watch_for_call(self, row: Row, token: int) -> None:
        """Collect what the model writes as a tool call; when it is complete, force the result."""
        if token == self.python_start:
            row.call = []
        elif token == self.python_end and row.call is not None:
            result = calculate(self.tokenizer.decode(row.call))
            row.call = None
            if result is not None:
                row.forced.extend([self.output_start, *self.tokenizer.encode(result), self.output_end])
        elif row.call is not None:
            row.call.append(token)

    def text_of(self, tokens: Iterator[int] | Sequence[int]) -> Iterator[str]:
        """Yield the tokens' text, only ever in whole characters.

        A character takes up to four bytes and may be spread over as many tokens: its bytes are held
        back until it is complete, and dropped if it never is.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        state = ""  # where in a tool call: "", "call", "called" behind python_end, "output"
        for token in tokens:
            text = ""
            if state == "called" and token != self.output_start:
                text, state = ">>", ""
            if token in self.specials:
                decoder.reset()
                mark, state = self.marks.get((state, token), ("", state))
                text += mark
            else:
                text += decoder.decode(self.tokenizer.decode_bytes([token]))
            if text:
                yield text
        if state == "called":
            yield ">>"
