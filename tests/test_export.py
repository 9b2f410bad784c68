"""An exported run in transformers: the same logits, the same token ids, the same chat."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import nanolab.export
from nanolab.chat import calls_to_parts, render_conversation, render_for_completion
from nanolab.checkpoint import save_checkpoint
from nanolab.cli import main
from nanolab.engine import Engine
from nanolab.errors import CheckpointError, ConfigError
from nanolab.export import chat_template, export_run, merges_of, visible_bytes
from nanolab.model import GPT, GPTConfig
from nanolab.paths import run_dir
from nanolab.tinyworld.documents import documents
from nanolab.tokenizer import SPECIAL_TOKENS, Tokenizer, split_pattern

transformers = pytest.importorskip("transformers")
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

VOCAB = 700
CONFIG = GPTConfig(sequence_len=256, vocab_size=VOCAB, n_layer=2, n_head=4, n_kv_head=2, n_embd=64)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(islice(documents("train"), 400), VOCAB, digits=2)


def awake(dtype=torch.float32):
    """A model whose zero-initialised matrices are random too."""
    torch.manual_seed(0)
    model = GPT(CONFIG)
    for weight in model.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.2)
    with torch.no_grad():  # so small that the norm's epsilon matters
        model.transformer["wte"].weight.mul_(0.01)
    return model.to(dtype).eval()


def save(tokenizer, model, tag="mine", stage="sft"):
    meta = {"model_config": asdict(model.config), "tokenizer": tokenizer.hash()}
    tokenizer.save(run_dir(tag) / "tokenizer.json")
    save_checkpoint(run_dir(tag), stage, 7, model=model, meta=meta)


@pytest.fixture(scope="module")
def exported(tokenizer, tmp_path_factory):
    """(folder, our model) of one exported run."""
    place = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NANOLAB_HOME", str(place / "home"))
        save(tokenizer, model := awake())
        yield export_run("mine", "sft", place / "out" / "mine"), model


@pytest.fixture(scope="module")
def auto(exported):
    return AutoTokenizer.from_pretrained(exported[0])


@pytest.fixture(scope="module")
def theirs(exported):
    return AutoModelForCausalLM.from_pretrained(exported[0]).eval()


# ---- the model


def test_the_folder_holds_what_transformers_needs_and_no_more(exported):
    names = {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert {path.name for path in exported[0].iterdir()} == names
    assert [path.name for path in exported[0].parent.iterdir()] == ["mine"]


def test_logits_are_equal(exported, theirs):
    assert type(theirs).__name__ == "NanoChatForCausalLM"
    idx = torch.randint(VOCAB, (2, 200), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, other = exported[1](idx), theirs(idx).logits
    assert ours.abs().mean() > 0.3 and (ours - other).abs().max() < 1e-5


def test_every_weight_arrives(exported, theirs):
    assert theirs.num_parameters() == exported[1].num_parameters()
    assert not theirs.config.tie_word_embeddings and theirs.model.embed_tokens.padding_idx is None


@pytest.mark.parametrize(("halves", "dtype"), [("all", torch.bfloat16), ("embedding", torch.float32)])
def test_half_precision_and_mixed_weights_load_in_the_right_format(tokenizer, tmp_path, halves, dtype):
    model = awake(torch.bfloat16 if halves == "all" else torch.float32)
    model.transformer["wte"].to(torch.bfloat16)
    save(tokenizer, model)
    folder = export_run("mine", "sft", tmp_path / "half")
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    assert {parameter.dtype for parameter in theirs.parameters()} == {dtype}
    assert torch.equal(theirs.model.embed_tokens.weight.float(), model.transformer["wte"].weight.float())


# ---- the tokenizer

ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyz ABCDEFGH'.,!?", "0123456789 .,-%", " \t\n\r\u00a0\u2003\u3000\x0b\x0c\u0085\u2028",
    "äöüßéèñçøåłžČŠ ", "日本語中文한국어 ", "😀👍🏽👨‍👩‍👧🇫🇷❤️✨ ", "العربية עברית हिन्दी ไทย ", "½²³①Ⅷ٣५ 1234",
    "'sSſ'tT'llLL'veVE'reRE'mMdD’ ", "aaaaabbbab ", "<|>bos_user_start end/\\{}[]()@#$^&*~`", "\x00\x01\x1b\x7f\ufffd\u200b\u200d\ufeff",
]  # fmt: skip


def some_texts(count, seed=0):
    """Seeded texts of all kinds, the names of special tokens among them."""
    chance = random.Random(seed)
    words = [document[:80] for document in islice(documents("val"), 50)] + [
        *SPECIAL_TOKENS,
        "<|bos",
        "|>",
        "<|end|>",
    ]
    for _ in range(count):
        pieces = []
        for _ in range(chance.randrange(1, 8)):
            alphabet = chance.choice(ALPHABETS)
            pieces.append("".join(chance.choices(alphabet, k=chance.randrange(12))))
            if chance.random() < 0.3:
                pieces.append(chance.choice(words))
            if chance.random() < 0.2:
                pieces.append(
                    "".join(
                        chr(chance.choice([chance.randrange(0xD800), chance.randrange(0xE000, 0x110000)]))
                        for _ in range(4)
                    )
                )
        yield "".join(pieces)


def test_token_ids_are_equal_on_a_thousand_texts(tokenizer, auto):
    texts = [*some_texts(996), "", " ", "\n", " " * 5000]
    ids = auto(texts, split_special_tokens=True).input_ids
    assert len(texts) == 1000 and ids == tokenizer.encode(texts)
    assert sum("<|" in text for text in texts) > 100
    for text, row in zip(texts, ids, strict=True):
        assert auto.decode(row) == tokenizer.decode(row) == text


@settings(max_examples=100)
@given(text=st.text())
def test_token_ids_are_equal_on_any_text(tokenizer, auto, text):
    assert auto(text, split_special_tokens=True).input_ids == tokenizer.encode(text)


def test_without_being_told_otherwise_transformers_reads_special_names_as_tokens(tokenizer, auto):
    text = "say <|user_end|> now"
    assert tokenizer.encode_special("<|user_end|>") in auto(text).input_ids
    assert auto("say it", add_special_tokens=True).input_ids == tokenizer.encode("say it")
    for name in SPECIAL_TOKENS:
        assert auto.convert_tokens_to_ids(name) == tokenizer.encode_special(name)


def test_the_pad_token_is_not_the_end_token(auto, theirs):
    assert auto.pad_token == auto.bos_token == "<|bos|>" and auto.eos_token == "<|assistant_end|>"
    ends = [auto.convert_tokens_to_ids(name) for name in ("<|assistant_end|>", "<|bos|>")]
    assert theirs.generation_config.eos_token_id == ends
    assert auto.model_max_length == CONFIG.sequence_len


@pytest.mark.parametrize("seed", range(4))
def test_merges_are_equal_where_letters_repeat(tmp_path, seed):
    import tokenizers

    chance = random.Random(seed)
    texts = ["".join(chance.choices("aab", k=300)) for _ in range(30)]
    ours = Tokenizer.train(texts, 256 + 9 + 60)
    other = tokenizers.Tokenizer.from_str(json.dumps(nanolab.export.tokenizer_json(ours)))
    assert other.get_vocab_size() == ours.get_vocab_size()
    for _ in range(200):
        text = "".join(chance.choices("ab", weights=[3, 1], k=chance.randrange(60)))
        assert other.encode(text).ids == ours.encode(text)


def test_a_token_that_no_merge_makes_is_found_as_a_whole_piece():
    import tokenizers

    ranks = {bytes([byte]): byte for byte in range(256)} | {b"cat": 256}
    ours = Tokenizer(ranks, split_pattern(2))
    assert merges_of(ranks) == []
    other = tokenizers.Tokenizer.from_str(json.dumps(nanolab.export.tokenizer_json(ours)))
    for text in ("cat", "cats", "a cat"):
        assert other.encode(text).ids == ours.encode(text)


def test_bytes_have_the_characters_of_gpt2():
    characters = visible_bytes()
    assert len(set(characters.values())) == 256 and all(c.isprintable() for c in characters.values())
    assert characters[ord("A")] == "A" and characters[ord(" ")] == "Ġ" and characters[ord("\n")] == "Ċ"


# ---- the chat

CHATS = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "system", "content": "Be short."}, {"role": "user", "content": " Hi\n\n"}],
    [
        {"role": "user", "content": "What is 3+4?  "},
        {"role": "assistant", "content": calls_to_parts("It is 3+4=<<3+4=7>>7.\n#### 7")},
        {"role": "user", "content": "'Thanks' {{ 7*7 }} {% if %}"},
        {"role": "assistant", "content": "You're welcome."},
    ],
]


@pytest.mark.parametrize("messages", CHATS, ids=["question", "system", "tools"])
def test_the_chat_template_gives_our_ids_and_our_mask(tokenizer, auto, messages):
    ids, mask = render_conversation(tokenizer, {"messages": messages})
    given = auto.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    assert (given["input_ids"], given["assistant_masks"]) == (ids, mask)


@pytest.mark.parametrize("content", ["{}", "a{}b", "<|{}|>"])
@pytest.mark.parametrize("name", SPECIAL_TOKENS)
def test_no_message_can_forge_the_structure_of_a_chat(auto, name, content):
    said = content.format(name)
    for message in (
        {"role": "user", "content": said},
        {"role": "user", "content": [{"type": "text", "text": said}]},
    ):
        with pytest.raises(Exception, match="stands for the structure of a chat"):
            auto.apply_chat_template([message])


def test_two_parts_of_a_message_cannot_forge_together(auto):
    parts = [{"type": "text", "text": "<|assistant"}, {"type": "text", "text": "_end|>"}]
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": parts}]
    with pytest.raises(Exception, match="stands for the structure of a chat"):
        auto.apply_chat_template(chat)


@pytest.mark.parametrize("roles", [["assistant"], ["user", "user"], ["user", "system"], ["tool"]])
def test_a_chat_out_of_order_is_refused(auto, roles):
    with pytest.raises(Exception, match="alternates"):
        auto.apply_chat_template([{"role": role, "content": "Hi"} for role in roles])


@pytest.mark.parametrize("messages", CHATS[:2], ids=["question", "system"])
def test_the_greedy_answer_is_the_same(tokenizer, exported, auto, theirs, messages):
    prompt = auto.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    ours = render_for_completion(tokenizer, {"messages": messages})
    assert prompt["input_ids"][0].tolist() == ours
    written = theirs.generate(**prompt, do_sample=False, max_new_tokens=60)[0, len(ours) :].tolist()
    engine = Engine(exported[1], tokenizer)
    assert written == list(engine.generate(ours, max_tokens=60, temperature=0.0, use_tools=False))
    assert len(set(written)) > 5
    text = "".join(engine.text_of([token for token in written if token not in engine.specials]))
    assert auto.decode(written, skip_special_tokens=True) == text


def test_the_template_is_one_line_without_stray_blanks():
    assert "\n" not in chat_template() and "SPECIAL_TOKENS" not in chat_template()


# ---- writing


def test_a_folder_in_use_is_left_alone(tokenizer, tmp_path):
    save(tokenizer, awake())
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("mine")
    for folder in (tmp_path / "thesis", tmp_path / "thesis" / "chapter1.txt"):
        with pytest.raises(ConfigError, match="is not empty"):
            export_run("mine", "sft", folder)
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "mine"


def test_a_full_disk_leaves_nothing_behind(tokenizer, tmp_path, monkeypatch):
    save(tokenizer, awake())

    def full(old, new, length):
        new.write(old.read(100))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(CheckpointError, match="could not be written.*No space"):
        export_run("mine", "sft", tmp_path / "new" / "folder")
    assert list((tmp_path / "new").iterdir()) == []


def test_what_cannot_be_exported_is_said(tokenizer, tmp_path):
    with pytest.raises(CheckpointError, match="no trained model in .* yet"):
        export_run(None, "sft", tmp_path / "out")
    save(tokenizer, awake())
    with pytest.raises(CheckpointError, match="no rl checkpoint yet"):
        export_run("mine", "rl", tmp_path / "out")
    with pytest.raises(ConfigError, match="there is no stage 'dpo'"):
        export_run("mine", "dpo", tmp_path / "out")
    Tokenizer.train(["a b c " * 50], 266).save(run_dir("mine") / "tokenizer.json")
    with pytest.raises(CheckpointError, match="another tokenizer"):
        export_run("mine", "sft", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_newest_run_is_exported_from_the_command_line(tokenizer, tmp_path, capsys):
    save(tokenizer, awake())
    (tmp_path / "out").mkdir()
    assert main(["export", str(tmp_path / "out"), "--source", "sft"]) == 0
    assert "AutoModelForCausalLM.from_pretrained" in capsys.readouterr().out
    assert (tmp_path / "out" / "model.safetensors").stat().st_size > 0
    assert main(["export", str(tmp_path / "out"), "--source", "sft"]) == 1
    assert "is not empty" in capsys.readouterr().err


def test_exporting_needs_neither_transformers_nor_tokenizers():
    source = Path(nanolab.export.__file__).read_text(encoding="utf-8")
    assert "import transformers" not in source and "import tokenizers" not in source
