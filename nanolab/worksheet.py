"""The real thing: what the workshop and gpu profiles read from the hub, and how it is mixed.

Text of FineWeb-EDU for base; SmolTalk, MMLU and GSM8K for mid; ARC, GSM8K and some of SmolTalk for sft;
GSM8K for rl; everywhere the tokenizer of nanochat d32. The identity conversations come from where nanochat
keeps them, which is not the hub; the words to spell are nanolab's own.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from nanolab.errors import ConfigError, NanolabError
from nanolab.hub import Part, fetch
from nanolab.net import Say, megabytes, plain_errors, read_url
from nanolab.paths import atomic_write, home
from nanolab.tasks import (
    ARC,
    GSM8K,
    MMLU,
    CustomJSON,
    SimpleSpelling,
    SmolTalk,
    SpellingBee,
    Task,
    TaskMixture,
)
from nanolab.tasks.base import load_rows
from nanolab.tasks.tiny import Identity

IDENTITY = "the identity conversations"
IDENTITY_URL = "https://karpathy-public.s3.us-west-2.amazonaws.com/identity_conversations.jsonl"
OWN_IDENTITIES = 1_000
MOST_SHARDS = 1_823
WHAT = ("tokenizer", "data", "tasks", "identity")
HELD_OUT_SHARE = 20  # where training takes a number of conversations, validation takes one in so many

TOKENIZER = Part("tokenizer of nanochat d32", "karpathy/nanochat-d32", ("tokenizer.pkl",), "model")
_CHECKPOINT = ("*model_*.pt", "*meta_*.json", "*tokenizer.pkl")
PUBLISHED = {
    "nanochat-d20": Part("nanochat d20, by Sam Dobson", "sdobson/nanochat", _CHECKPOINT, "model"),
    "nanochat-d32": Part("nanochat d32", TOKENIZER.repo, _CHECKPOINT, "model"),
}
TALK = Part("SmolTalk", "HuggingFaceTB/smol-smoltalk", ("data/train-*.parquet",))
TALK_VAL = Part("SmolTalk, held out", TALK.repo, ("data/test-*.parquet",))
MMLU_AUXILIARY = Part("MMLU, auxiliary_train", "cais/mmlu", ("auxiliary_train/train-*.parquet",))
MMLU_VAL = Part("MMLU, validation", MMLU_AUXILIARY.repo, ("all/validation-*.parquet",))
MMLU_TEST = Part("MMLU, test", MMLU_AUXILIARY.repo, ("all/test-*.parquet",))
GSM = Part("GSM8K", "openai/gsm8k", ("main/train-*.parquet",))
GSM_TEST = Part("GSM8K, test", GSM.repo, ("main/test-*.parquet",))


def arc(subset: str, split: str) -> Part:
    """One split of ARC-Easy or ARC-Challenge."""
    return Part(f"{subset}, {split}", "allenai/ai2_arc", (f"{subset}/{split}-*.parquet",))


ARC_PARTS = {
    split: [arc("ARC-Easy", split), arc("ARC-Challenge", split)] for split in ("train", "validation", "test")
}
TRAIN: dict[str, list[Part]] = {
    "talk": [TALK], "mmlu": [MMLU_AUXILIARY], "gsm": [GSM], "arc": ARC_PARTS["train"],
}  # fmt: skip
HELD_OUT: dict[str, list[Part]] = {
    "talk": [TALK_VAL], "mmlu": [MMLU_VAL], "gsm": [GSM_TEST], "arc": ARC_PARTS["validation"],
}  # fmt: skip
REPORT = [*ARC_PARTS["test"], MMLU_TEST, GSM_TEST]
TASKS: dict[str, Callable[[Sequence[dict[str, Any]]], Task]] = {
    "talk": SmolTalk, "mmlu": MMLU, "gsm": GSM8K, "arc": ARC,
}  # fmt: skip
# 460,000 and 100,000 rows as Python objects would take gigabytes: these are read from disk one by one.
LARGE = (TALK, MMLU_AUXILIARY)


def text_part(shards: int) -> Part:
    """The first `shards` files of FineWeb-EDU. Raises ConfigError for fewer than two, or too many."""
    if not 2 <= shards <= MOST_SHARDS:
        raise ConfigError(f"shards={shards}: choose 2 to {MOST_SHARDS}. The last of them is for validation.")
    names = tuple(f"shard_{number:05d}.parquet" for number in range(shards))
    return Part("FineWeb-EDU", "karpathy/fineweb-edu-100b-shuffle", names)


def text_shards(shards: int = 2, say: Say = print) -> list[Path]:
    """Parquet files with a column `text`, downloaded if they are not there."""
    return fetch([text_part(shards)], say)[0]


def tokenizer_file(say: Say = print) -> Path:
    """nanochat's tokenizer.pkl: to be read by `nanolab.nanochat.import_tokenizer`, never unpickled."""
    return fetch([TOKENIZER], say)[0][0]


def published_files(name: str, say: Say = print) -> tuple[Path, Path]:
    """(folder with the weights and their meta file, tokenizer.pkl) of a published nanochat.

    To be read by `nanolab.nanochat.import_run`. Raises ConfigError for a name that is not known.
    """
    if name not in PUBLISHED:
        raise ConfigError(f"there is no published model {name!r}.\nChoose one of: {', '.join(PUBLISHED)}.")
    files = fetch([PUBLISHED[name]], say)[0]
    weights = next(file for file in files if file.suffix == ".pt")
    return weights.parent, next(file for file in files if file.name == "tokenizer.pkl")


def task_parts(sizes: Iterable[dict[str, int]]) -> list[Part]:
    """What the mixtures with these sizes train and validate on, each once."""
    kinds = [kind for one in sizes for kind, size in one.items() if size and kind in TASKS]
    return list(dict.fromkeys(part for kind in kinds for part in (*TRAIN[kind], *HELD_OUT[kind])))


def prepare(
    shards: int, sizes: Sequence[dict[str, int]], say: Say = print, what: Sequence[str] = WHAT
) -> str:
    """Stage 0: fetch what a run reads before it begins, or only some of it; returns a line about it.

    Without "tasks", "identity" fetches the identity conversations anew.
    """
    parts: list[Part] = []
    if "tokenizer" in what:
        parts.append(TOKENIZER)
    if "data" in what:
        parts.append(text_part(shards))
    if "tasks" in what:
        parts += dict.fromkeys([*task_parts(sizes), GSM, *REPORT])
    files = [file for files in fetch(parts, say) for file in files]
    if "identity" in what or "tasks" in what:
        files.append(identity_file(say, again="tasks" not in what))
    for part in LARGE:
        if part in parts:
            rows(part, say)  # unpacked now, so that a full disk is met before the training
    total = megabytes(sum(file.stat().st_size for file in files))
    return f"Ready: {', '.join(one for one in WHAT if one in what)} ({len(files)} files, {total})."


def rows(part: Part, say: Say = print) -> Sequence[dict[str, Any]]:
    """The rows of a part, downloaded if they are not there."""
    files = fetch([part], say)[0]
    if part not in LARGE:
        return [row for file in files for row in load_rows(file)]
    # Here datasets helps: it unpacks the files once into its cache and maps that into memory.
    with plain_errors(f"unpacking {part.what}"):
        from datasets import Dataset

        return Dataset.from_parquet([str(file) for file in files])


def identity_file(say: Say = print, *, again: bool = False) -> Path:
    """nanochat's identity conversations ("I am nanochat"), fetched once and kept under `home()/data`.

    They are not on the hub ($NANOLAB_IDENTITY_URL names another address). Where they cannot be had,
    nanolab's own are kept instead, so that a run has the same ones from its first to its last stage;
    `again` fetches them anew, or raises DownloadError.
    """
    path = home() / "data" / "identity_conversations.jsonl"
    if path.exists() and not again:
        return path
    with plain_errors(IDENTITY):
        try:
            data = read_url(os.environ.get("NANOLAB_IDENTITY_URL") or IDENTITY_URL, IDENTITY)
            _check_conversations(data)
        except NanolabError as error:
            if again:
                raise
            say(
                f"{str(error).splitlines()[0]}\nnanolab's own stand in: the model will say that it is "
                "nanolab. To try again:  nanolab download identity"
            )
            own = (json.dumps(conversation["messages"]) for conversation in Identity(size=OWN_IDENTITIES))
            data = "".join(line + "\n" for line in own).encode("utf-8")
        atomic_write(path, data)
    return path


def _check_conversations(data: bytes) -> None:
    """Raises DataError unless these are conversations: a login page of a hotel, for instance, is none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "identity_conversations.jsonl"
        path.write_bytes(data)
        CustomJSON(path)


def conversations(stage: str, split: str, sizes: dict[str, int], seed: int) -> Task:
    """The mixture of a stage ("mid" or "sft"): for each kind `sizes` says how many, -1 for all there are.

    A number takes that many at random, the same ones every time. In mid the identity conversations come
    twice. The split "val" holds one conversation for every twenty of training, where it has as many.
    """
    tasks: list[Task] = []
    for kind, size in sizes.items():
        if size and (split == "train" or kind != "identity"):
            tasks += _kind(kind, split, size, seed) * (2 if (stage, kind) == ("mid", "identity") else 1)
    return TaskMixture(tasks, seed)


def _kind(kind: str, split: str, size: int, seed: int) -> list[Task]:
    """The tasks of one kind, cut to `size`."""
    training = split == "train"
    if not training and size > 0:
        size = max(8, size // HELD_OUT_SHARE)
    if kind in ("spelling", "bee"):
        if size < 0:
            raise ConfigError(f"{kind}={size}: there is no end of them; say how many.")
        return [(SimpleSpelling if kind == "spelling" else SpellingBee)(split=split, size=size)]
    if kind == "identity":
        tasks: list[Task] = [CustomJSON(identity_file())]
    elif kind in TASKS:
        tasks = [TASKS[kind](rows(part)) for part in (TRAIN if training else HELD_OUT)[kind]]
    else:
        known = ", ".join([*TASKS, "identity", "spelling", "bee"])
        raise ConfigError(f"there are no conversations called {kind!r} on the hub.\nChoose among: {known}.")
    if 0 < size < sum(len(task) for task in tasks):
        return [TaskMixture(tasks, seed)[:size]]
    return tasks


def problems(split: str) -> Task:
    """GSM8K for reinforcement learning; the split "val" is its test set."""
    return GSM8K(rows(GSM if split == "train" else GSM_TEST))


def report_tasks() -> list[tuple[str, Task]]:
    """(name, task) of what a report card measures: the test sets, as in nanochat's."""
    easy, challenge = ARC_PARTS["test"]
    named: list[tuple[str, Task]] = [
        ("ARC-Easy", ARC(rows(easy))), ("ARC-Challenge", ARC(rows(challenge))),
        ("MMLU", MMLU(rows(MMLU_TEST))), ("GSM8K", GSM8K(rows(GSM_TEST))),
        ("SpellingBee", SpellingBee(split="test", size=256)),
    ]  # fmt: skip
    # MMLU's test set goes subject by subject, and a report asks the first hundred only.
    return [(name, Shuffled(task)) for name, task in named]


class Shuffled(TaskMixture):
    """One task in a fixed other order, which still scores its own answers."""

    def __init__(self, task: Task) -> None:
        super().__init__([task])
        self.eval_type = task.eval_type

    def evaluate(self, conversation: dict[str, Any], completion: str) -> bool:
        return self.tasks[0].evaluate(conversation, completion)
