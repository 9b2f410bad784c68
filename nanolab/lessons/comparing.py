"""What challenge 7 compares: two models on the same prompts, a ballot that hides their names, and marks."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nanolab.chat import render_for_completion
from nanolab.engine import Engine
from nanolab.errors import ConfigError
from nanolab.expect import banner, note
from nanolab.lessons.exam import Marked, Question, exam, one_line, sit
from nanolab.model import GPT
from nanolab.reference import TAG
from nanolab.tokenizer import Tokenizer
from nanolab.viz import table

if TYPE_CHECKING:
    from nanolab.course import Course

PROMPTS = (
    "What is the capital of France?",
    "Who are you?",
    'Spell the word "planet".',
    "What do horses eat?",
    "Tom has 3 boxes. Each box holds 4 pens. How many pens does Tom have in all?",
    "Explain why the sky is blue.",
    "Write a haiku about coding.",
    "Tell me a short story about a dog.",
)
"""To begin with; the learner adds some. The last ones ask for more than such a small model can do."""

LEFT, RIGHT, TIE = "L", "R", "="
PUBLISHED = "nanochat-students/d20-chat-transformers"
"""nanochat's d20 chat model on the hub, for `transformers`: about 1 GB, 561 million parameters"""


# ---- who is compared


@dataclass(frozen=True)
class Contender:
    """One of the models, and how to call it."""

    name: str
    model: GPT
    tokenizer: Tokenizer

    def replies(self, prompts: Sequence[str], *, temperature: float = 0.7, seed: int = 0) -> list[str]:
        """One reply of at most 60 tokens to each prompt; sampled anew for another seed."""
        engine = Engine(self.model.eval(), self.tokenizer)
        rendered = [
            render_for_completion(self.tokenizer, {"messages": [{"role": "user", "content": prompt}]})
            for prompt in prompts
        ]
        groups = engine.generate_batch(rendered, max_tokens=60, temperature=temperature, seed=seed)
        return [engine.completion_text(sample) for (sample,) in groups]

    def sit(self, questions: Sequence[Question]) -> list[Marked]:
        """This model's answers to an exam, marked."""
        return sit(self.model, self.tokenizer, questions)


def contenders(course: Course) -> tuple[Contender, Contender]:
    """(mine, theirs): the learner's latest chat model, and that of the same stage that came with the course.

    Who has none of their own compares two stages of the reference, sft and base, under a banner.
    """
    from nanolab.checkpoint import find_checkpoint, load_model
    from nanolab.paths import run_dir
    from nanolab.reference import unpack

    own = [
        stage
        for stage in ("rl", "sft", "mid")
        if find_checkpoint(run_dir(course.tag), stage, missing_ok=True)
    ]
    unpack()
    if not own:
        banner(
            "You have no chat model of your own yet. Two stages of the reference model compete instead: "
            "mine is its sft model, theirs its base model, which was never taught to chat."
        )
        pair = [(f"reference {stage}", load_model(stage, model_tag=TAG)) for stage in ("sft", "base")]
    else:
        stage = own[0]
        pair = [
            (f"my {stage}", load_model(stage, model_tag=course.tag)),
            (f"reference {stage}", load_model(stage, model_tag=TAG)),
        ]
    mine, theirs = (Contender(name, loaded[0], loaded[1]) for name, loaded in pair)
    return mine, theirs


def published(prompts: Sequence[str], wanted: bool = False) -> list[str] | None:
    """Replies of a published nanochat, where it can be had; else None, under a note. Nothing needs it.

    It asks the hub only where `wanted` is true: the download is about 1 GB, and two cores need some
    minutes for a dozen replies. Needs the package `transformers`. Only safetensors are read.
    """
    if not wanted:
        note(
            "A published nanochat joins in with wanted=True: it downloads about 1 GB, once. Nothing needs it."
        )
        return None
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(PUBLISHED, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            PUBLISHED, trust_remote_code=False, use_safetensors=True, dtype=torch.bfloat16
        ).eval()
        return [_published_reply(model, tokenizer, prompt) for prompt in prompts]
    except ImportError:
        note("For this, install transformers: pip install transformers. Nothing else needs it.")
    except Exception as error:
        # Offline, a proxy, a full disk, another layout on the hub: whatever it is, the challenge goes on.
        note(f"The published nanochat can't be had here ({one_line(str(error))[:120]}). Nothing needs it.")
    return None


def _published_reply(model: Any, tokenizer: Any, prompt: str) -> str:
    import torch

    chat = [{"role": "user", "content": prompt}]
    inputs = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        written = model.generate(**inputs, max_new_tokens=60, do_sample=False)
    return str(tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


# ---- the ballot


class Ballot:
    """Pairs of replies without names. Cast the votes first, reveal later: the ballot remembers the order.

    pairs: `(left, right, whether mine is left)` for each prompt.
    """

    def __init__(self, prompts: Sequence[str], pairs: Sequence[tuple[str, str, bool]]) -> None:
        if len(prompts) != len(pairs):
            raise ConfigError(f"{len(prompts)} prompts and {len(pairs)} pairs of replies: one pair a prompt.")
        self.prompts = list(prompts)
        self.pairs = [(prompt, left, right) for prompt, (left, right, _) in zip(prompts, pairs, strict=True)]
        self._mine_is_left = [bool(mine) for _, _, mine in pairs]
        self.votes: str | None = None
        self.revealed = False
        self.votes_when_revealed: str | None = None

    def show(self) -> None:
        """The prompts and the two replies to each; not who wrote them."""
        table(
            [
                {"": number, "prompt": prompt, "left (L)": one_line(left), "right (R)": one_line(right)}
                for number, (prompt, left, right) in enumerate(self.pairs, 1)
            ],
            caption="Which reply is better? L, R, or = for no difference",
        )

    def cast(self, votes: str | Sequence[str]) -> None:
        """Hand in the votes, a letter a prompt; blanks between them don't matter. May be repeated."""
        letters = "".join(map(str, votes)) if isinstance(votes, (list, tuple)) else str(votes)
        self.votes = "".join(letters.split()).upper()

    def reveal(self) -> list[dict[str, Any]]:
        """Who wrote what, as rows of a table. From now on, votes come too late."""
        if not self.revealed:
            self.revealed, self.votes_when_revealed = True, self.votes
        rows = []
        for number, (prompt, mine_left) in enumerate(zip(self.prompts, self._mine_is_left, strict=True)):
            vote = (self.votes or "")[number : number + 1]
            won = {LEFT: mine_left, RIGHT: not mine_left}.get(vote)
            preferred = "neither" if won is None else "mine" if won else "theirs"
            rows.append(
                {"prompt": prompt, "mine was": "left" if mine_left else "right", "preferred": preferred}
            )
        return rows


def quick_judge(prompt: str, left: str, right: str) -> str:
    """A vote by a rule of thumb, for who has no time to read: it knows neither the models nor the answers.

    It prefers the reply that is a sentence, ends, repeats itself less and shares words with the question.
    """
    a, b = (_looks(prompt, text) for text in (left, right))
    return TIE if math.isclose(a, b, abs_tol=0.15) else LEFT if a > b else RIGHT


def _looks(prompt: str, reply: str) -> float:
    words = re.findall(r"\w+", reply.lower())
    if not words:
        return -1.0
    asked = {word for word in re.findall(r"\w+", prompt.lower()) if len(word) > 3}
    fresh = len(set(words)) / len(words)
    ends = reply.rstrip()[-1:] in ".!?" or reply.rstrip()[-1:].isdigit()
    most = max(Counter(words).values()) / len(words)
    return fresh - most + 0.5 * ends + 0.5 * bool(asked & set(words)) - 0.01 * max(0, len(words) - 30)


# ---- marks


def questions(each: int) -> list[Question]:
    """An exam with `each` questions of four kinds, whose answers can be marked by a program."""
    return exam(each)


def marks_table(mine: Sequence[Marked], theirs: Sequence[Marked], count: int = 6) -> None:
    """The first answers of both, side by side."""
    table(
        [
            {
                "question": one_line(a.question.text.partition("\n\n")[0]),
                "mine": one_line(a.reply),
                "theirs": one_line(b.reply),
            }
            for a, b in list(zip(mine, theirs, strict=True))[:: max(1, len(mine) // count)]
        ],
        caption="The same questions to both",
    )
