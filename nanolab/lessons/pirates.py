"""What challenge 1 trains and measures: one chat model, fine-tuned on more and more pirate talk."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanolab.chat import Conversation, render_for_completion
from nanolab.compute import choose_compute, prepare_process
from nanolab.engine import Engine
from nanolab.errors import ConfigError
from nanolab.evals import accuracy
from nanolab.expect import note
from nanolab.lessons.exam import one_line
from nanolab.model import GPT
from nanolab.optim import Schedule, build_optimizers
from nanolab.paths import home
from nanolab.reference import folder
from nanolab.stages import conversations, learning_rates
from nanolab.tasks import CustomJSON, FactRecall, Task
from nanolab.tokenizer import Tokenizer
from nanolab.train import Batch, fit
from nanolab.viz import LivePlot

if TYPE_CHECKING:
    from nanolab.course import Course

WORDS = frozenset({
    "ahoy", "argh", "arr", "arrr", "arrrr", "avast", "aye", "blimey", "booty", "buccaneer", "captain",
    "crew", "doubloon", "doubloons", "har", "hearties", "hearty", "landlubber", "landlubbers", "matey",
    "mateys", "pirate", "pirates", "plank", "plunder", "sail", "sailed", "sailing", "scallywag",
    "scurvy", "seas", "shipmate", "shiver", "swab", "swabs", "timbers", "tis", "treasure", "yarr", "ye",
    "yer", "yo",
})  # fmt: skip
"""Words that tell a pirate, in small letters. Ordinary replies of these models hardly ever have one."""

TEST_PROMPTS = (
    "What's the capital city of Spain?",
    "Can you tell me what cows eat?",
    "Do you know what the opposite of hot is?",
    "Which language do people speak in Brazil?",
    "What sound is made by a dog?",
    "Which colour does a banana have?",
    "By whom were you made?",
    "Could you tell me your name?",
    "What size are you?",
    "Hello again!",
    "A good morning to you!",
    "Would you help me, please?",
)
"""What the models are asked in the end. None of it may be in the examples, in any spelling."""

SHARES = (0.0, 0.1, 0.5)
RATE = 0.3
"""of the rates that the model was made with: a finished model is bent, not made anew"""
BEFORE = "before"
"""what `Study.ask` and `Study.recall` call the model that the trainings began with"""

Ask = Callable[[Sequence[str], int], list[str]]
"""`ask(prompts, seed)`: one sampled reply to each prompt, the same ones again for the same seed"""


def plain(text: str) -> str:
    """A text without case, punctuation and doubled blanks: two questions that differ in these are one."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower().replace("'", "").replace("’", "")))


def sounds_piratical(text: str, words: frozenset[str] | set[str] = WORDS) -> bool:
    """Whether one of `words` stands in a text as a whole word, in any case."""
    return any(word in words for word in re.findall(r"[a-z]+", text.lower()))


def examples_path(name: str = "pirate_examples.jsonl") -> Path:
    """Where the learner's examples go: beside the runs, never among the course's files."""
    path = home() / "challenges" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@dataclass
class Study:
    """The models after the trainings, one for each share of pirate examples, and what they were asked."""

    tokenizer: Tokenizer
    models: dict[float | str, GPT]
    questions: int
    """how many facts `recall` asks for"""
    losses: dict[float, list[float]] = field(default_factory=dict)
    """training loss of each step in nats, by share"""
    asked: dict[float | str, list[tuple[tuple[str, ...], int, list[str]]]] = field(default_factory=dict)
    """every call of `ask`, by share: prompts, seed, replies"""
    recalled: dict[float | str, float] = field(default_factory=dict)

    @property
    def shares(self) -> list[float]:
        return [share for share in self.models if share != BEFORE]  # type: ignore[misc]

    def model(self, share: float | str) -> GPT:
        """The model trained with that share of pirate examples; "before" is the one that none was trained."""
        if share not in self.models:
            raise ConfigError(
                f"no model was trained with a pirate share of {share!r}.\nThere are {list(self.models)}."
            )
        return self.models[share]

    def ask(self, share: float | str, temperature: float = 0.8) -> Ask:
        """A function that asks this model: `study.ask(0.1)(prompts, seed)` gives its replies."""
        model = self.model(share)

        def asking(prompts: Sequence[str], seed: int) -> list[str]:
            replies = replies_of(model, self.tokenizer, prompts, temperature=temperature, seed=seed)
            self.asked.setdefault(share, []).append((tuple(prompts), seed, replies))
            return replies

        return asking

    def recall(self, share: float | str) -> float:
        """How many of the common facts this model still knows, from 0 to 1: asked in held-out phrasings."""
        if share not in self.recalled:
            engine = Engine(self.model(share).eval(), self.tokenizer)
            score = accuracy(engine, FactRecall("common"), self.questions, max_tokens=48)
            self.recalled[share] = score.accuracy
        return self.recalled[share]

    def rows(self, prompts: Sequence[str] = TEST_PROMPTS[:4], seed: int = 0) -> list[dict[str, str]]:
        """What each model replies, as rows of a table."""
        columns = {
            name: replies_of(model, self.tokenizer, prompts, temperature=0.8, seed=seed)
            for name, model in self.models.items()
        }
        return [
            {"asked": prompt, **{title(name): one_line(column[i]) for name, column in columns.items()}}
            for i, prompt in enumerate(prompts)
        ]


def title(share: float | str) -> str:
    """`0.1` -> `10 % pirates`."""
    return share if isinstance(share, str) else f"{100 * share:g} % pirates"


def replies_of(
    model: GPT, tokenizer: Tokenizer, prompts: Sequence[str], *, temperature: float = 0.0, seed: int = 0
) -> list[str]:
    """One reply of at most 40 tokens to each prompt."""
    engine = Engine(model.eval(), tokenizer)
    asked = [{"messages": [{"role": "user", "content": prompt}]} for prompt in prompts]
    groups = engine.generate_batch(
        [render_for_completion(tokenizer, one) for one in asked],
        max_tokens=40, temperature=temperature, seed=seed,
    )  # fmt: skip
    return [engine.completion_text(sample) for (sample,) in groups]


def train_all(
    course: Course,
    path: Path | str,
    ordinary: Task,
    mixture: Callable[[Task, Task, float, int], Task],
    batches: Callable[[Task, Tokenizer], Iterator[Batch]],
    shares: Sequence[float] = SHARES,
    steps: int | None = None,
    stage: str = "sft",
) -> Any:
    """Fine-tune a copy of the `stage` model for each share, under a live plot, and return the `Study`.

    All copies take as many steps, on as many tokens. While a part is missing it says so and returns `...`.
    """
    waiting = _missing_part(path, ordinary, mixture, batches)
    if waiting:
        note(f"Nothing is trained yet: {waiting}")
        return ...
    start, tokenizer, _ = course.load(stage)
    steps = steps or course.pick(laptop=50, smoke=3)
    total = course.pick(laptop=1_000, smoke=60)
    study = Study(tokenizer, {BEFORE: start}, questions=course.pick(laptop=200, smoke=8))
    names = {share: title(share) for share in shares}
    with LivePlot(
        title="Fine-tuning, one model for each share of pirates", series=tuple(names.values()), total=steps,
        smooth={name: 0.8 for name in names.values()}, alt="Training loss by step, a line for each share",
    ) as plot:  # fmt: skip
        for share in shares:
            task = mixture(ordinary, CustomJSON(path), share, total)
            model = copy.deepcopy(start)
            study.losses[share] = []
            for step, loss in enumerate(_train(course, model, batches(task, tokenizer), steps), 1):
                study.losses[share].append(loss)
                plot.add(names[share], step, loss)
            study.models[share] = model.eval()
    return study


def _missing_part(path: Any, ordinary: Any, mixture: Any, batches: Any) -> str:
    """Which task of the challenge comes first; empty where all is there."""
    if path in (..., None) or not isinstance(ordinary, Task) or not Path(path).is_file():
        return "it waits for your file of examples (task 3) and for `ordinary` (task 4)."
    probe = CustomJSON(path)
    tokenizer = None
    try:
        task = mixture(ordinary[:20], probe[:2], 0.5, 4)
        if task in (..., None):
            return "it waits for `mixture` (task 4)."
        if not isinstance(task, Task):
            return f"`mixture` gives a {type(task).__name__} where a TaskMixture is needed (task 4)."
        tokenizer = Tokenizer.load(folder() / "tokenizer.json")
        made = batches(task, tokenizer)
        if made in (..., None):
            return "it waits for `batches` (task 5)."
        next(iter(made))
    except NotImplementedError:
        return "it waits for the tasks above."
    except Exception as error:
        part = "mixture (task 4)" if tokenizer is None else "batches (task 5)"
        return f"your function {part} raised {type(error).__name__}: {error}"
    return ""


def _train(course: Course, model: GPT, batches: Iterator[Batch], steps: int) -> Iterator[float]:
    """Train `model` in place; the loss of each step."""
    prepare_process()
    profile = course.profile
    compute = choose_compute(profile.device, profile.dtype)
    model.to(compute.device)
    rates = learning_rates(profile)
    optimizers = build_optimizers(model, rates, fraction=RATE, ns_dtype=compute.dtype)
    moved = ((inputs.to(compute.device), targets.to(compute.device)) for inputs, targets in batches)
    schedule = Schedule(steps, warmdown_ratio=0.5)
    for record in fit(model, optimizers, moved, schedule, grad_clip=profile.grad_clip, compute=compute):
        yield record.loss


def turn(question: str, answer: str) -> Conversation:
    """A question and its answer in the form that training wants."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def ordinary_talk(course: Course, split: str = "train") -> Task:
    """The conversations that the chat models of this course are fine-tuned on: of "train" or of "val"."""
    return conversations(course.profile, "sft", split)


def chart(results: Mapping[float, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """The learner's results in per cent, in the form that `viz.bars` draws."""
    return {
        title(share): {"pirate replies": 100 * row["pirate"], "facts recalled": 100 * row["recall"]}
        for share, row in results.items()
    }
