"""Conversations as tokens: exactly the assistant's words are learned, and nobody can forge the structure."""

from __future__ import annotations

import copy
import subprocess
import sys
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanolab.chat import (
    calls_to_parts,
    render_conversation,
    render_for_completion,
    truncate_history,
    validate_conversation,
)
from nanolab.errors import ConfigError, DataError
from nanolab.tokenizer import SPECIAL_TOKENS, Tokenizer

TOKENIZER = Tokenizer.train(
    ["The cat sat on the mat. What is 3+4? It is 7, the cat said. 日本語 🙂 <|bos|>"] * 3, 300
)
BOS, USER, USER_END, ASSISTANT, ASSISTANT_END, PYTHON, PYTHON_END, OUTPUT, OUTPUT_END = map(
    TOKENIZER.encode_special, SPECIAL_TOKENS
)


def say(*contents, system=None):
    """A conversation of user, assistant, user, ..."""
    messages = [{"role": "system", "content": system}] if system is not None else []
    roles = ("user", "assistant")
    messages += [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
    return {"messages": messages}


def part(kind, text):
    return {"type": kind, "text": text}


SUM = [part("text", "It is "), part("python", "3+4"), part("python_output", "7"), part("text", "7.")]

pieces = st.sampled_from([*SPECIAL_TOKENS, "the cat ", "7", "<<3+4=7>>", "🙂", "日"])
words = st.one_of(st.text(max_size=8), st.lists(pieces, max_size=4).map("".join))
calls = st.tuples(words, words).map(lambda call: [part("python", call[0]), part("python_output", call[1])])
single = st.tuples(st.sampled_from(["text", "python"]), words).map(lambda one: [part(*one)])
replies = st.one_of(
    words, st.lists(st.one_of(calls, single), max_size=3).map(lambda groups: [*chain(*groups)])
)


@st.composite
def conversations(draw):
    contents = [draw(replies if i % 2 else words) for i in range(draw(st.integers(1, 6)))]
    return say(*contents, system=draw(st.one_of(st.none(), words)))


# Rendering


def test_the_tokens_of_a_conversation_by_hand():
    encode = TOKENIZER.encode
    ids, mask = render_conversation(TOKENIZER, say("What is 3+4?", SUM, "the cat", "said"))
    expected = [
        (BOS, 0), (USER, 0), *((id, 0) for id in encode("What is 3+4?")), (USER_END, 0),
        (ASSISTANT, 0), *((id, 1) for id in encode("It is ")),
        (PYTHON, 1), *((id, 1) for id in encode("3+4")), (PYTHON_END, 1),
        (OUTPUT, 0), *((id, 0) for id in encode("7")), (OUTPUT_END, 0),
        *((id, 1) for id in encode("7.")), (ASSISTANT_END, 1),
        (USER, 0), *((id, 0) for id in encode("the cat")), (USER_END, 0),
        (ASSISTANT, 0), *((id, 1) for id in encode("said")), (ASSISTANT_END, 1),
    ]  # fmt: skip
    assert list(zip(ids, mask, strict=True)) == expected


@given(conversations())
@settings(max_examples=100)
def test_the_mask_covers_exactly_the_assistants_words(conversation):
    ids, mask = render_conversation(TOKENIZER, conversation)
    written = b""
    for message in conversation["messages"]:
        if message["role"] != "assistant":
            continue
        content = message["content"]
        for piece in [part("text", content)] if isinstance(content, str) else content:
            if piece["type"] == "text":
                written += piece["text"].encode()
            elif piece["type"] == "python":
                written += b"<|python_start|>" + piece["text"].encode() + b"<|python_end|>"
        written += b"<|assistant_end|>"
    assert TOKENIZER.decode_bytes(id for id, learned in zip(ids, mask, strict=True) if learned) == written


@given(conversations())
@settings(max_examples=100)
def test_no_message_forges_a_special_token(conversation):
    """As many structural tokens as the messages call for, whatever they say, in every role."""
    ids, _ = render_conversation(TOKENIZER, conversation)
    said = conversation["messages"]
    users = sum(message["role"] == "user" for message in said)
    replies = [message["content"] for message in said if message["role"] == "assistant"]
    kinds = [piece["type"] for reply in replies if isinstance(reply, list) for piece in reply]
    counts = [1, users, users, len(replies), len(replies)]
    counts += [kinds.count("python")] * 2 + [kinds.count("python_output")] * 2
    assert [ids.count(TOKENIZER.encode_special(name)) for name in SPECIAL_TOKENS] == counts


def test_what_the_tool_puts_out_is_not_learned():
    ids, mask = render_conversation(TOKENIZER, say("What?", SUM))
    start, end = ids.index(OUTPUT), ids.index(OUTPUT_END)
    assert mask[start : end + 1] == [0] * (end - start + 1)
    assert mask[start - 1] == mask[end + 1] == 1


def test_the_end_of_the_answer_is_learned():
    ids, mask = render_conversation(TOKENIZER, say("What?", "7"))
    assert ids[-1] == ASSISTANT_END and mask[-1] == 1


@given(conversations())
@settings(max_examples=100)
def test_the_prompt_is_a_prefix_of_the_conversation_and_the_answer_all_that_follows(conversation):
    if conversation["messages"][-1]["role"] != "assistant":
        conversation["messages"].append({"role": "assistant", "content": "the cat"})
    prompt = render_for_completion(TOKENIZER, conversation)
    ids, _mask = render_conversation(TOKENIZER, conversation)
    assert prompt == ids[: len(prompt)] and prompt[-1] == ASSISTANT
    assert ids.count(ASSISTANT) == prompt.count(ASSISTANT)
    asked = {"messages": conversation["messages"][:-1]}
    assert render_for_completion(TOKENIZER, asked) == prompt


def test_the_system_message_goes_before_the_first_question():
    merged = say("Be brief.\n\nWhat?", "7")
    assert render_conversation(TOKENIZER, say("What?", "7", system="Be brief.")) == render_conversation(
        TOKENIZER, merged
    )


@pytest.mark.parametrize("limit", [0, 1, 7, 10_000])
def test_max_tokens_cuts_ids_and_mask_alike(limit):
    whole = render_conversation(TOKENIZER, say("What is 3+4?", SUM))
    assert render_conversation(TOKENIZER, say("What is 3+4?", SUM), limit) == (
        whole[0][:limit],
        whole[1][:limit],
    )


@given(conversations(), st.integers(5, 60))
@settings(max_examples=100)
def test_the_argument_is_not_changed(conversation, limit):
    before = copy.deepcopy(conversation)
    render_conversation(TOKENIZER, conversation)
    render_for_completion(TOKENIZER, conversation)
    truncate_history(TOKENIZER, conversation, limit)
    assert conversation == before


# Truncation


@given(conversations(), st.integers(5, 120))
@settings(max_examples=100)
def test_the_shortened_history_always_fits_and_ends_with_the_last_words(conversation, limit):
    short = truncate_history(TOKENIZER, conversation, limit)
    validate_conversation(short)
    assert len(render_for_completion(TOKENIZER, short)) <= limit
    last = [message["content"] for message in conversation["messages"] if message["role"] == "user"][-1]
    kept = [message["content"] for message in short["messages"] if message["role"] == "user"][-1]
    assert kept.endswith(last) or last.endswith(kept)


def test_the_oldest_turns_go_first_and_go_whole():
    whole = say("one", "two", "three", "four", "five")
    lengths = [len(render_for_completion(TOKENIZER, {"messages": whole["messages"][i:]})) for i in (0, 2, 4)]
    for start, limit in (
        (0, lengths[0]),
        (2, lengths[0] - 1),
        (2, lengths[1]),
        (4, lengths[1] - 1),
        (4, lengths[2]),
    ):
        short = truncate_history(TOKENIZER, whole, limit)
        assert short["messages"] == whole["messages"][start:], limit


def test_what_else_a_conversation_holds_is_kept():
    assert truncate_history(TOKENIZER, {**say("What?"), "letters": ["A"]}, 50)["letters"] == ["A"]


def test_the_system_message_stays_when_turns_go():
    whole = say("one", "two", "three", "four", "five", system="Be brief.")
    limit = len(render_for_completion(TOKENIZER, say("five", system="Be brief.")))
    assert truncate_history(TOKENIZER, whole, limit) == say("five", system="Be brief.")


def test_of_a_question_that_is_too_long_the_end_stays():
    question = "The cat sat on the mat. " * 50 + "What is 3+4?"
    [message] = truncate_history(TOKENIZER, say("one", "two", question), 30)["messages"]
    assert message["content"].endswith("mat. What is 3+4?") and len(message["content"]) < len(question)
    reply = truncate_history(TOKENIZER, say(question, "7"), 30)["messages"]
    assert reply == [message, {"role": "assistant", "content": "7"}]


@pytest.mark.parametrize("limit", range(5, 40))
def test_a_cut_question_begins_with_a_whole_character(limit):
    [message] = truncate_history(TOKENIZER, say("日🙂語é" * 100), limit)["messages"]
    assert message["content"] != "日🙂語é" * 100 and ("日🙂語é" * 100).endswith(message["content"])


def test_a_cut_question_fits_even_where_its_end_alone_encodes_longer():
    """Cut loose from "!!", the quotation mark joins the word and takes its first letter: 3 tokens, not 2."""
    tokens = [*(bytes([byte]) for byte in range(256)), b"'a", b"ab", b"abc"]
    tokenizer = Tokenizer({token: rank for rank, token in enumerate(tokens)}, TOKENIZER.pattern)
    assert len(tokenizer.encode("!!'abc")) == 4 and len(tokenizer.encode("'abc")) == 3
    assert truncate_history(tokenizer, say("!!'abc"), 4 + 2) == say("abc")


@pytest.mark.parametrize("limit", [-5, 0, 4])
def test_no_room_for_a_question_is_said(limit):
    with pytest.raises(ConfigError, match=f"max_tokens={limit} leaves no room(.|\n)*at least 5"):
        truncate_history(TOKENIZER, say("What?"), limit)


# Validation


SYSTEM, USER_SAYS, REPLY = say("Hello", "Ahoy!", system="Be brief.")["messages"]


def reply_of(*parts):
    return [USER_SAYS, {"role": "assistant", "content": list(parts)}]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (None, 'a conversation needs a list of "messages"'),
        ([], 'a conversation needs a list of "messages"'),
        ("hello", 'a conversation needs a list of "messages"'),
        (["Hello"], 'message 1 has no "role" and "content"'),
        ([USER_SAYS, {"role": "assistant"}], 'message 2 has no "role" and "content"'),
        ([USER_SAYS, {"content": "Ahoy!"}], 'message 2 has no "role" and "content"'),
        ([REPLY], 'message 1 is from "assistant", expected "user"'),
        ([USER_SAYS, USER_SAYS], 'message 2 is from "user", expected "assistant"'),
        ([USER_SAYS, REPLY, REPLY], 'message 3 is from "assistant", expected "user"'),
        ([{"role": "human", "content": "Hello"}], 'message 1 is from "human", expected "user"'),
        ([{"role": ["user"], "content": "Hello"}], r"message 1 is from \['user'\], expected \"user\""),
        (
            [USER_SAYS, REPLY, {"role": "system", "content": "x"}],
            'message 3 is from "system", expected "user"',
        ),
        ([{"role": "system", "content": "x"}, REPLY], 'message 2 is from "assistant", expected "user"'),
        ([{"role": "system", "content": "x"}, USER_SAYS, USER_SAYS], 'message 3 is from "user"'),
        ([{"role": "system", "content": "x"}], "a system message alone is no conversation"),
        ([{"role": "system", "content": 7}, USER_SAYS], "message 1 is int, expected a text"),
        ([{"role": "user", "content": None}], "message 1 is NoneType, expected a text"),
        ([{"role": "user", "content": [part("text", "Hello")]}], "message 1 is list, expected a text"),
        ([{"role": "user", "content": "\ud83d"}], "message 1 holds half a character"),
        (reply_of("Ahoy!"), "message 2 has a part 1 of type None"),
        (reply_of({"text": "Ahoy!"}), "message 2 has a part 1 of type None"),
        (reply_of(part("text", "a"), part("image", "b")), 'message 2 has a part 2 of type "image"'),
        (reply_of({"type": "text"}), "message 2 has a part 1 whose text is NoneType"),
        (reply_of(part("text", "\udc00")), "message 2 has a part 1 whose text holds half a character"),
        (reply_of(part("python_output", "7")), "message 2 has a python_output, part 1, without a python"),
        (reply_of(*SUM[:2], SUM[0], SUM[2]), "message 2 has a python_output, part 4, without a python"),
    ],
)
def test_what_is_wrong_with_a_conversation_is_said_with_its_place_and_a_remedy(messages, message):
    with pytest.raises(DataError, match=rf"^pirate\.jsonl, line 17: {message}.*\n.+"):
        validate_conversation({"messages": messages}, "pirate.jsonl, line 17")
    with pytest.raises(DataError, match=f"^{message}"):
        validate_conversation({"messages": messages})
    with pytest.raises(DataError, match=f"^{message}"):
        render_for_completion(TOKENIZER, {"messages": messages})


@pytest.mark.parametrize("conversation", [None, [], "hello", 7, {}, [USER_SAYS, REPLY]])
def test_what_is_no_conversation_at_all_is_said(conversation):
    with pytest.raises(DataError, match="needs a list"):
        validate_conversation(conversation)


def test_the_error_of_the_style_guide_word_for_word():
    with pytest.raises(DataError) as caught:
        validate_conversation({"messages": [USER_SAYS, USER_SAYS]}, "pirate.jsonl, line 17")
    assert str(caught.value) == (
        'pirate.jsonl, line 17: message 2 is from "user", expected "assistant".\n'
        "A conversation alternates user, assistant, user, ..."
    )


@given(conversations())
def test_a_right_conversation_passes(conversation):
    validate_conversation(conversation)


anything = st.one_of(st.none(), st.integers(), st.sampled_from(["", "text", [], {}, ["text"], "\udc00"]))
some_parts = st.dictionaries(st.sampled_from(["type", "text"]), st.one_of(anything, st.just("python_output")))
contents = st.one_of(anything, st.lists(st.one_of(anything, some_parts), max_size=3))
roles = st.one_of(st.sampled_from(["user", "assistant", "system"]), anything)
messages = st.one_of(anything, st.fixed_dictionaries({"role": roles, "content": contents}))


@given(st.one_of(anything, st.fixed_dictionaries({"messages": st.lists(messages, max_size=4)})))
@settings(max_examples=200)
def test_whatever_passes_can_be_rendered_and_nothing_else_is_raised(thing):
    try:
        validate_conversation(thing)
    except DataError:
        return
    render_conversation(TOKENIZER, thing)


# The notation of GSM8K


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "has 3+4=<<3+4=7>>7 apples",
            [("text", "has 3+4="), ("python", "3+4"), ("python_output", "7"), ("text", "7 apples")],
        ),
        (
            "<<1=1>><<2=2>>",
            [("python", "1"), ("python_output", "1"), ("python", "2"), ("python_output", "2")],
        ),
        ('<<"a=b".count("=")=1>>', [("python", '"a=b".count("=")'), ("python_output", "1")]),
        ("no call", [("text", "no call")]),
        ("", []),
        ("2 << 3 = 16 >> 1", [("python", " 3 "), ("python_output", " 16 ")]),
        ("<<3+4>> <<3+4=7", [("text", "<<3+4>> <<3+4=7")]),
        ("<<=7>> <<\n=7>>", [("text", "<<=7>> <<\n=7>>")]),
    ],
)
def test_calls_become_parts(text, parts):
    if text.startswith("2 <<"):
        parts = [("text", "2 "), *parts, ("text", " 1")]
    assert [(one["type"], one["text"]) for one in calls_to_parts(text)] == parts


@given(st.lists(st.sampled_from(["<<", ">>", "=", "3+4", "7", " apples", "\n"])).map("".join))
def test_no_text_is_lost_and_the_parts_are_valid(text):
    parts = calls_to_parts(text)
    written = {"text": "{}", "python": "<<{}=", "python_output": "{}>>"}
    assert "".join(written[one["type"]].format(one["text"]) for one in parts) == text
    validate_conversation(say("What?", parts))


def test_an_endless_line_of_brackets_is_quick():
    assert calls_to_parts("<<1=" * 20_000) == [part("text", "<<1=" * 20_000)]
    assert calls_to_parts("<<" + "=" * 20_000) == [part("text", "<<" + "=" * 20_000)]


def test_chat_does_not_import_torch():
    code = "import sys, nanolab.chat; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
