"""The worksheet's run, against small repositories in the real layout: four stages, from the real formats."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import pytest
import tiktoken
from loopback import Hub, parquet
from test_hub import cache, environment, hub, use  # noqa: F401

from nanolab import worksheet
from nanolab.cli import main
from nanolab.errors import ConfigError
from nanolab.paths import home, run_dir
from nanolab.profiles import get_profile
from nanolab.tasks import ARC, GSM8K, MMLU, SmolTalk
from nanolab.tinyworld.documents import documents
from nanolab.tokenizer import SPECIAL_TOKENS, Tokenizer

DEPTH_ONE = """--depth 1 --sequence-len 256 --dtype float32 --device cpu
    --base.num-iterations 6 --base.total-batch-size 128 --base.max-seq-len 64 --base.device-batch-size 2
    --mid.num-iterations 4 --mid.total-batch-size 256 --mid.max-seq-len 256
    --sft.num-iterations 3 --sft.total-batch-size 256 --sft.max-seq-len 256
    --rl.num-iterations 2 --rl.max-new-tokens 6 --rl.eval-examples 4 --rl.examples-per-step 2
    --base.eval-tokens 512 --mid.eval-tokens 512 --sft.eval-tokens 512"""


def choice(number: int) -> dict:
    return {
        "question": f"What is {number} plus one?",
        "choices": [str(number + k) for k in range(4)],
        "answer": 1,
        "subject": "sums",
    }


def science(number: int) -> dict:
    labels = ["A", "B", "C"] if number % 2 else ["1", "2", "3", "4"]
    choices = {"text": [f"thing {label}" for label in labels], "label": labels}
    return {
        "id": str(number),
        "question": f"Which thing is number {number}?",
        "choices": choices,
        "answerKey": labels[1],
    }


def word_problem(number: int) -> dict:
    working = f"He has {number}+2=<<{number}+2={number + 2}>>{number + 2} apples.\n#### {number + 2}"
    return {"question": f"Tom has {number} apples and gets 2. How many?", "answer": working}


def talk(number: int) -> dict:
    messages = [{"content": f"Say {number}.", "role": "user"}, {"content": f"{number}!", "role": "assistant"}]
    if number % 5 == 0:
        messages.insert(0, {"content": "Be brief.", "role": "system"})
    return {"messages": messages, "source": "test"}


def published_tokenizer(texts: list[str]) -> bytes:
    """tokenizer.pkl as nanochat writes it: a pickled tiktoken Encoding."""
    own = Tokenizer.train(texts, 400, digits=2)
    special = {name: 391 + number for number, name in enumerate(SPECIAL_TOKENS)}
    encoding = tiktoken.Encoding(
        "rustbpe", pat_str=own.pattern, mergeable_ranks=own.mergeable_ranks, special_tokens=special
    )
    return pickle.dumps(encoding)


def worksheet_repositories(server: Hub) -> None:
    """Everything that the workshop profile reads, small, under the real names."""
    stream = documents("train")
    texts = [next(stream) for _ in range(120)]
    shards = {
        f"shard_{number:05d}.parquet": parquet(
            [{"text": text} for text in texts[number * 40 : number * 40 + 40]], 16
        )
        for number in range(3)
    }
    server.add("karpathy/fineweb-edu-100b-shuffle", shards)
    server.add("karpathy/nanochat-d32", {"tokenizer.pkl": published_tokenizer(texts)}, "model")
    many, held_out = range(60), range(1000, 1060)
    server.add(
        "HuggingFaceTB/smol-smoltalk",
        {
            "data/train-00000-of-00002.parquet": parquet([talk(n) for n in many]),
            "data/train-00001-of-00002.parquet": parquet([talk(n + 60) for n in many]),
            "data/test-00000-of-00001.parquet": parquet([talk(n) for n in held_out[:20]]),
        },
    )
    mmlu = {
        f"all/{split}-00000-of-00001.parquet": parquet([choice(n) for n in held_out[:12]])
        for split in ("validation", "test", "dev")
    }
    # On the hub the rows of auxiliary_train lie one level down.
    mmlu["auxiliary_train/train-00000-of-00001.parquet"] = parquet([{"train": choice(n)} for n in many])
    server.add("cais/mmlu", mmlu)
    server.add(
        "allenai/ai2_arc",
        {
            f"{subset}/{split}-00000-of-00001.parquet": parquet([science(n) for n in numbers[:10]])
            for subset in ("ARC-Easy", "ARC-Challenge")
            for split, numbers in (("train", many), ("validation", held_out), ("test", held_out))
        },
    )
    server.add(
        "openai/gsm8k",
        {
            f"main/{split}-00000-of-00001.parquet": parquet([word_problem(n) for n in numbers[:30]])
            for split, numbers in (("train", many), ("test", held_out))
        },
    )
    line = json.dumps(
        [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "I am nanochat."}]
    )
    server.extra["/identity"] = (line + "\n").encode() * 10


@pytest.fixture
def full_hub(hub, monkeypatch, cache):  # noqa: F811
    worksheet_repositories(hub)
    monkeypatch.setenv("NANOLAB_IDENTITY_URL", f"{hub.endpoint}/identity")
    datasets_config = pytest.importorskip("datasets.config")
    monkeypatch.setattr(datasets_config, "HF_DATASETS_CACHE", cache.parent / "datasets")
    return hub


def test_the_workshop_run_goes_through_all_four_stages(hub, cache):  # noqa: F811
    worksheet_repositories(hub)
    command = [
        sys.executable,
        "-m",
        "nanolab",
        "run",
        "--profile",
        "workshop",
        "--tag",
        "real",
        *DEPTH_ONE.split(),
    ]
    done = subprocess.run(command, env=environment(hub, cache), capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr + done.stdout
    out = done.stdout
    sizes, base = out.index("Downloading"), out.index("== base: 6 steps")
    assert "Ready: tokenizer, data, tasks, identity (18 files" in out[sizes:base]
    assert sizes < base < out.index("== mid: 4") < out.index("== sft: 3") < out.index("== rl: 2")
    assert (
        "FineWeb-EDU" in out[sizes:base] and "2 files of karpathy/fineweb-edu-100b-shuffle" in out[sizes:base]
    )
    assert "step 00006/00006 (100.00%) | loss: " in out
    report = (run_dir("real") / "report.md").read_text(encoding="utf-8")
    assert all(name in report for name in ("ARC-Easy", "ARC-Challenge", "MMLU", "GSM8K", "SpellingBee"))
    profile = json.loads((run_dir("real") / "profile.json").read_text(encoding="utf-8"))
    assert profile["vocab_size"] == Tokenizer.load(run_dir("real") / "tokenizer.json").get_vocab_size() == 400
    # Downloads end with the setup, and the third shard of the repository is never asked for.
    assert not hub.fetched("shard_00002") and len(hub.fetched("/storage/dataset/HuggingFaceTB")) == 3
    assert not list(cache.rglob("*.incomplete"))


def test_mid_mixes_everything_with_the_identity_twice(full_hub):
    sizes = {"talk": -1, "mmlu": -1, "gsm": -1, "identity": -1, "spelling": 50, "bee": 20}
    mixture = worksheet.conversations("mid", "train", sizes, seed=1)
    assert len(mixture) == 120 + 60 + 30 + 2 * 10 + 50 + 20
    said = [conversation["messages"][-1]["content"] for conversation in mixture]
    assert said.count("I am nanochat.") == 20
    # auxiliary_train's nested rows arrive as questions with letters.
    assert sum("letters" in conversation for conversation in mixture) == 60


def test_sft_takes_a_sample_of_smoltalk_that_is_the_same_every_time(full_hub):
    sizes = {"arc": -1, "gsm": -1, "talk": 40, "identity": -1, "spelling": 6, "bee": 6}
    first, second = (worksheet.conversations("sft", "train", sizes, seed=1) for _ in range(2))
    assert len(first) == 2 * 10 + 30 + 40 + 10 + 6 + 6
    assert list(first) == list(second)
    assert len(worksheet.conversations("sft", "train", {"talk": 10_000}, seed=1)) == 120


def test_validation_shares_no_conversation_with_training(full_hub):
    sizes = {"talk": -1, "identity": -1, "arc": 60, "gsm": -1, "mmlu": -1, "spelling": 40}
    val = list(worksheet.conversations("sft", "val", sizes, seed=1))
    train = list(worksheet.conversations("sft", "train", sizes, seed=1))
    assert len(val) == 20 + 8 + 30 + 12 + 8
    assert not [conversation for conversation in val if conversation in train]


def test_spelling_without_end_is_refused(full_hub):
    with pytest.raises(ConfigError, match="how many"):
        worksheet.conversations("mid", "train", {"spelling": -1}, seed=0)


def test_each_part_becomes_its_task(full_hub):
    assert len(worksheet.problems("train")) == len(worksheet.problems("val")) == 30
    named = dict(worksheet.report_tasks())
    question = named["MMLU"][0]
    assert named["MMLU"].evaluate(question, "B") and not named["MMLU"].evaluate(question, "A")
    assert named["MMLU"].eval_type == "categorical" and named["GSM8K"].eval_type == "generative"
    assert [type(task) for task in (ARC([]), GSM8K([]), MMLU([]), SmolTalk([]))] == [
        worksheet.TASKS[kind] for kind in ("arc", "gsm", "mmlu", "talk")
    ]


def test_an_unknown_kind_is_answered_with_the_known_ones(full_hub):
    with pytest.raises(ConfigError, match="no conversations called 'poems'.*\n.*talk, mmlu, gsm, arc"):
        worksheet.conversations("mid", "train", {"poems": 3}, seed=0)


def test_the_profiles_sizes_are_the_designs():
    profile = get_profile("workshop")
    assert profile.shards == 2
    assert profile.mid_sizes == {
        "talk": -1,
        "mmlu": -1,
        "gsm": -1,
        "identity": -1,
        "spelling": 200_000,
        "bee": 80_000,
    }
    assert profile.sft_sizes == {
        "arc": -1,
        "gsm": -1,
        "talk": 10_000,
        "identity": -1,
        "spelling": 300,
        "bee": 300,
    }
    # 2,251 + 1,119 questions of ARC, 7,473 of GSM8K, about 1,000 identities: about 23,000.
    assert 22_000 < 2_251 + 1_119 + 7_473 + 10_000 + 1_000 + 600 < 24_000


def test_a_published_model_becomes_a_run_of_its_own(full_hub, monkeypatch, capsys):
    files = {"model_000650.pt": b"weights", "meta_000650.json": b"{}", "tokenizer.pkl": b"vocabulary"}
    full_hub.add("sdobson/nanochat", {**files, "token_bytes.pt": b"not needed"}, "model")
    imported = []
    monkeypatch.setattr("nanolab.nanochat.import_run", lambda *given: imported.append(given))
    assert main(["download", "nanochat-d20"]) == 0
    ((folder, tokenizer, tag),) = imported
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert tokenizer.name == "tokenizer.pkl" and tag == "nanochat-d20"
    assert "nanolab chat --source sft --model-tag nanochat-d20" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="nanochat-d20, nanochat-d32"):
        worksheet.published_files("nanochat-d99")


def test_large_parts_are_mapped_and_not_copied(full_hub):
    rows = worksheet.rows(worksheet.TALK)
    assert type(rows).__module__.startswith("datasets")
    assert SmolTalk(rows).rows is rows
    assert rows[0]["messages"][1]["role"] == "user" and len(rows) == 120


def test_nothing_is_fetched_without_being_asked_for(full_hub):
    from nanolab.stages import conversations, reinforcement_task

    laptop = get_profile("laptop")
    for stage in ("mid", "sft"):
        assert len(conversations(laptop, stage)) > 0
    assert len(reinforcement_task(laptop)) > 0
    assert full_hub.requests == [] and not (home() / "data" / "hub").exists()


DATASETS_CLIENT = """
import json, datasets
print(json.dumps(datasets.load_dataset("openai/gsm8k", "main", split="train")[3]))
"""


def test_the_datasets_library_reads_the_same_rows_from_this_hub(hub, cache):  # noqa: F811
    """The loopback hub is faithful enough for a client that nanolab does not use for downloading."""
    worksheet_repositories(hub)
    card = (
        "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: train\n    path: main/train-*\n---\n"
    )
    hub.repositories["dataset", "openai/gsm8k"].files["README.md"] = card.encode()
    done = subprocess.run(
        [sys.executable, "-c", DATASETS_CLIENT],
        env=environment(hub, cache),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == word_problem(3)
