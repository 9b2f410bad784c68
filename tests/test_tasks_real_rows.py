"""Every row that the hub serves must parse, render and score. Skips where there are none."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from nanolab.calculator import calculate
from nanolab.chat import render_conversation, render_for_completion
from nanolab.tasks import ARC, GSM8K, MMLU, CustomJSON, SimpleSpelling, SmolTalk, Task, TaskMixture, load_rows

DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no real rows beside the checkout")

SPECIALS = [
    "bos",
    "user_start",
    "user_end",
    "assistant_start",
    "assistant_end",
    "python_start",
    "python_end",
    "output_start",
    "output_end",
]


class Bytes:
    """A tokenizer of single bytes: quick, and exact to decode."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8"))

    def encode_special(self, name: str) -> int:
        return 256 + SPECIALS.index(name.strip("<|>"))

    def get_bos_token_id(self) -> int:
        return 256


def rows(pattern: str) -> list[dict]:
    files = sorted(DATA.glob(pattern))
    assert files, pattern
    return [row for file in files for row in load_rows(file)]


def check_rendering(conversation: dict) -> None:
    """Ends as its last speaker does, learns from the assistant only, and begins as the prompt does."""
    ids, mask = render_conversation(Bytes(), conversation)
    last = conversation["messages"][-1]["role"]
    assert len(ids) == len(mask) and set(mask) == {0, 1}
    assert (ids[0], ids[-1], mask[-1]) == (256, 256 + SPECIALS.index(f"{last}_end"), int(last == "assistant"))
    prompt = render_for_completion(Bytes(), conversation)
    assert prompt[-1] == 256 + SPECIALS.index("assistant_start")
    if last == "assistant":
        assert ids[: len(prompt)] == prompt and mask[len(prompt) - 1 : len(prompt) + 1] == [0, 1]


def test_every_gsm8k_row_parses_and_scores_right_against_itself_alone():
    task = GSM8K(raw := rows("openai--gsm8k/main/*.parquet"))
    assert len(task) == 7473
    for row, conversation in zip(raw, task, strict=True):
        parts = conversation["messages"][1]["content"]
        shown = "".join(part["text"] for part in parts if part["type"] == "text")
        assert shown == re.sub(r"<<[^<>]*>>", "", row["answer"])
        assert [part["text"] for part in parts if part["type"] == "python"] == re.findall(
            r"<<([^<>]*)=[^<>=]*>>", row["answer"]
        )
        check_rendering(conversation)
        assert task.reward(conversation, row["answer"]) == 1.0
        working, _, answer = row["answer"].rpartition("#### ")
        number = float(answer.replace(",", ""))
        assert task.reward(conversation, f"{working}#### {number + 1:g}") == 0.0
        assert task.reward(conversation, f"{working}#### {number + 0.5}") == 0.0
        assert task.reward(conversation, f"{working}{answer}") == 0.0


def test_every_calculator_call_of_gsm8k_gives_the_result_stated_in_it():
    answers = [row["answer"] for row in rows("openai--gsm8k/main/*.parquet")]
    calls = [call for answer in answers for call in re.findall(r"<<([^<>]*)=([^<>=]*)>>", answer)]
    assert len(calls) == 23_716
    wrong = [
        (call, calculate(call[0])) for call in calls if float(calculate(call[0]) or "nan") != float(call[1])
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("task", "pattern", "count"),
    [
        (ARC, "allenai--ai2_arc/ARC-Easy/*.parquet", 2821),
        (ARC, "allenai--ai2_arc/ARC-Challenge/*.parquet", 1418),
        (MMLU, "cais--mmlu/all/*.parquet", 1816),
    ],
)
def test_every_multiple_choice_row_renders_and_has_one_right_letter(task, pattern, count):
    examples = task(rows(pattern))
    assert len(examples) == count
    for conversation in examples:
        check_rendering(conversation)
        letters = conversation["letters"]
        right = [letter for letter in letters if examples.evaluate(conversation, letter)]
        assert right == [conversation["messages"][1]["content"]]
        assert all(f"={letter}\n" in conversation["messages"][0]["content"] for letter in letters)
        assert not any(examples.evaluate(conversation, junk) for junk in ("", "Z", "".join(letters), "####"))


def test_arc_has_the_odd_rows_that_the_code_allows_for():
    letters = {tuple(conversation["letters"]) for conversation in ARC(rows("allenai--ai2_arc/*/*.parquet"))}
    assert ("1", "2", "3", "4") in letters and {3, 4, 5} <= {len(labels) for labels in letters}


def test_every_smoltalk_row_renders():
    task = SmolTalk(rows("HuggingFaceTB--smol-smoltalk/data/*.parquet"))
    assert len(task) == 1700
    for conversation in task:
        check_rendering(conversation)
    assert sum(conversation["messages"][0]["role"] == "system" for conversation in task) > 0


def test_nanochats_identity_conversations_load_and_render():
    path = DATA / "misc" / "identity_conversations.jsonl"
    task = CustomJSON(path)
    with path.open(encoding="utf-8") as file:
        assert [conversation["messages"] for conversation in task] == [json.loads(line) for line in file]
    assert len(task) == 996
    for conversation in task:
        check_rendering(conversation)


def test_the_worksheets_mixture_holds_the_sum_of_its_parts():
    parts: list[Task] = [
        ARC(rows("allenai--ai2_arc/ARC-Easy/train*.parquet")),
        ARC(rows("allenai--ai2_arc/ARC-Challenge/train*.parquet")),
        GSM8K(rows("openai--gsm8k/main/*.parquet")),
        SmolTalk(rows("HuggingFaceTB--smol-smoltalk/data/train*.parquet"), stop=1000),
        CustomJSON(DATA / "misc" / "identity_conversations.jsonl"),
        SimpleSpelling(size=300),
    ]
    mixture = TaskMixture(parts)
    assert len(mixture) == 2251 + 1119 + 7473 + 1000 + 996 + 300
    assert all(conversation["messages"] for conversation in mixture)
