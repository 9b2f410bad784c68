"""The report card: what a run cost, what it learnt, and a few words with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nanolab import worksheet
from nanolab.chat import render_for_completion
from nanolab.engine import Engine
from nanolab.evals import Score, accuracy, choice_accuracy, exam_scores
from nanolab.model import GPT
from nanolab.paths import atomic_write
from nanolab.profiles import STAGES
from nanolab.runlog import Log
from nanolab.tasks.spelling import SimpleSpelling
from nanolab.tasks.tiny import FactRecall, TinyARC, TinyGSM, TinyMMLU
from nanolab.tokenizer import Tokenizer

PROMPTS = (
    "what is the capital of france",
    "2 + 2",
    'Spell the word "garden".',
    "Why are leaves green?",
    "Tell me a joke",
    "Tom has 6 apples. Mia gives him 7 more. How many apples does Tom have now?",
)


def evaluate(
    model: GPT, tokenizer: Tokenizer, *, count: int = 200, seed: int = 0, source: str = "tinyworld"
) -> Iterator[tuple[str, Score]]:
    """(name, Score) of each measure of a chat model, one by one as they are ready.

    Nothing asked here occurs in training: facts are asked in held-out phrasings, words and number pairs
    are held out. Answers are the model's likeliest (temperature 0) except where the name says "sampled".
    A model trained on the hub's data (`source` "hub") is asked from the test sets there.
    """
    model.eval()
    engine = Engine(model, tokenizer)
    if source == "hub":
        # Multiple choice needs all logits of a question: half a gigabyte of them at a time.
        rows = max(1, 2**27 // (model.config.vocab_size * model.config.sequence_len))
        for name, task in worksheet.report_tasks():
            if task.eval_type == "categorical":
                yield name, choice_accuracy(model, tokenizer, task, count, rows=min(32, rows))
            else:
                yield name, accuracy(engine, task, count, max_tokens=128)
        return
    for tier in ("common", "uncommon", "rare"):
        yield f"facts, {tier}", accuracy(engine, FactRecall(tier=tier), count, max_tokens=40)
    yield "spelling", accuracy(engine, SimpleSpelling(split="val", size=500), count, max_tokens=40)
    problems = TinyGSM(split="val", size=500)
    yield "TinyGSM", accuracy(engine, problems, count, max_tokens=96)
    yield "TinyGSM, sampled", accuracy(engine, problems, count, max_tokens=96, temperature=1.0, seed=seed)
    yield "TinyMMLU", choice_accuracy(model, tokenizer, TinyMMLU(split="val", size=500), count)
    yield "TinyARC", choice_accuracy(model, tokenizer, TinyARC(split="val", size=500), count)
    yield from exam_scores(engine).items()


def reply(engine: Engine, question: str, *, max_tokens: int = 96) -> str:
    """The model's likeliest answer to one question."""
    prompt = render_for_completion(engine.tokenizer, {"messages": [{"role": "user", "content": question}]})
    return "".join(engine.stream_text(prompt, max_tokens=max_tokens, temperature=0.0)).strip()


def log_scores(run: Path, stage: str, step: int, scores: dict[str, Score]) -> None:
    """Keep measured scores in the run's log, where the report finds them."""
    Log(run).add(stage=stage, step=step, scores={name: asdict(score) for name, score in scores.items()})


def stage_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One stage's line of the report from its log rows."""
    steps = [row for row in rows if "seconds" in row]
    checks = [row for row in rows if "validation" in row]
    row: dict[str, Any] = {
        "steps": len(steps),
        "seconds": sum(row["seconds"] for row in steps),
        "tokens": sum(row["tokens"] for row in steps),
    }
    if steps and "loss" in steps[0]:
        row["loss"] = (steps[0]["loss"], steps[-1]["loss"])
    if len(checks) > 1:
        row["validation"] = (checks[0]["validation"], checks[-1]["validation"])
    return row


def quoted(text: str) -> str:
    """A Markdown quotation with the line breaks of `text`, in which a solution's `#### 13` is no heading."""
    return "  \n".join(f"> \\{line}" if line.startswith("#") else f"> {line}" for line in text.splitlines())


def report(run: Path, samples: dict[str, str] | None = None) -> str:
    """The run's report card in Markdown, from its log; also written to `report.md`."""
    log = Log(run).rows()
    lines = [
        f"# Report card of {run.name}",
        "",
        "| stage | steps | training loss | validation loss (nats) | bits per byte | seconds | tokens/s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    scores: dict[str, dict[str, Score]] = {}
    accuracies: list[str] = []
    for stage in STAGES:
        rows = [row for row in log if row.get("stage") == stage]
        if not rows:
            continue
        for entry in rows:
            if "scores" in entry:
                scores[stage] = {name: Score(**score) for name, score in entry["scores"].items()}
        row = stage_row(rows)
        loss = "{:.3f} → {:.3f}".format(*row["loss"]) if "loss" in row else ""
        nats = bits = ""
        if "validation" in row and stage != "rl":
            before, after = row["validation"]
            nats = f"{before['nats']:.3f} → {after['nats']:.3f}"
            bits = f"{before['bits_per_byte']:.3f} → {after['bits_per_byte']:.3f}"
        elif "validation" in row:
            before, after = (Score(**score) for score in row["validation"])
            accuracies.append(f"rl: held-out problems, sampled: {before} → {after}")
        speed = row["tokens"] / max(row["seconds"], 1e-9)
        lines.append(
            f"| {stage} | {row['steps']} | {loss} | {nats} | {bits} | {row['seconds']:.0f} | {speed:,.0f} |"
        )
    lines += ["", *accuracies]
    if scores:
        names = list(dict.fromkeys(name for stage_scores in scores.values() for name in stage_scores))
        lines += ["", "| held out | " + " | ".join(scores) + " |", "| --- |" + " ---: |" * len(scores)]
        for name in names:
            cells = [str(stage_scores.get(name, "")) for stage_scores in scores.values()]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if samples:
        lines += ["", "## A few words with it", ""]
        for question, answer in samples.items():
            lines += [f"**{question}**", "", quoted(answer or "(nothing)"), ""]
    text = "\n".join(lines).rstrip() + "\n"
    atomic_write(run / "report.md", text)
    return text
