"""OutsideQuestions: what the world does not hold, and whether a reply admits it."""

from __future__ import annotations

import json

import pytest

from nanolab.errors import ConfigError
from nanolab.tasks import OutsideQuestions
from nanolab.tasks.base import reply_text


def test_default_sizes():
    assert len(OutsideQuestions()) == 2_000 and len(OutsideQuestions("val")) == 500


@pytest.mark.parametrize("split", ["train", "val"])
def test_examples_are_plain_conversations(split):
    for example in OutsideQuestions(split, size=300):
        assert json.loads(json.dumps(example)) == example
        roles = [message["role"] for message in example["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)


def test_an_example_depends_on_split_seed_and_index_alone():
    assert OutsideQuestions(size=50)[31] == OutsideQuestions(size=40)[31]
    assert list(OutsideQuestions(size=30)) != list(OutsideQuestions(size=30, seed=1))


def test_only_a_reply_that_admits_it_counts():
    task = OutsideQuestions("val", size=100)
    for example in task:
        assert task.evaluate(example, reply_text(example))
        assert task.evaluate(example, "I do not know that.")
        assert not task.evaluate(example, "The capital of Narnia is Paris.") and not task.evaluate(
            example, ""
        )


def test_validation_never_asks_what_training_asked():
    def asked(split, size):
        return {
            message["content"].lower().rstrip("?.")
            for example in OutsideQuestions(split, size=size)
            for message in example["messages"]
            if message["role"] == "user"
        }

    assert not asked("train", 2_000) & asked("val", 500)


def test_an_unknown_split_is_refused():
    with pytest.raises(ConfigError, match="test"):
        OutsideQuestions("test")
