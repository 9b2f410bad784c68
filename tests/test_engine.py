"""The engine: batching and caching change nothing, sampling follows its distribution, tools are forced."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanolab.engine import Engine, Sample, draw, probabilities, sample
from nanolab.errors import ConfigError, NanolabError
from nanolab.model import GPT, GPTConfig, KVCache
from nanolab.tokenizer import Tokenizer

CONTEXT = 48


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["the cat sat on the mat. 3+4=7, the cat said. "] * 4, vocab_size=280)


@pytest.fixture(scope="module")
def model(tokenizer) -> GPT:
    """A small model with a random head (a fresh one is zero, and every token equally likely)."""
    torch.manual_seed(0)
    config = GPTConfig(CONTEXT, tokenizer.get_vocab_size(), n_layer=2, n_head=2, n_kv_head=1, n_embd=64)
    model = GPT(config)
    for name, weight in model.named_parameters():
        if name.endswith("c_proj.weight") or name == "lm_head.weight":
            torch.nn.init.normal_(weight, std=0.3)
    return model


@pytest.fixture(scope="module")
def engine(model, tokenizer) -> Engine:
    return Engine(model, tokenizer)


class Scripted:
    """A stand-in for a model that wants one script, token by token, and then the assistant's end.

    A prompt is two tokens: the number of its script, which the stand-in keeps in the cache, and any other.
    """

    def __init__(self, tokenizer: Tokenizer, scripts: list[list[int]], context: int = 4096) -> None:
        vocab = tokenizer.get_vocab_size()
        self.config = GPTConfig(context, vocab, n_layer=1, n_head=1, n_kv_head=1, n_embd=2)
        self.device = torch.device("cpu")
        self.lm_head = SimpleNamespace(weight=torch.zeros(1))
        self.end = tokenizer.encode_special("<|assistant_end|>")
        self.scripts, self.widths = scripts, []

    def hidden(self, idx, kv_cache: KVCache) -> None:
        kv_cache.store[0, 0, :, 0, 0, 0] = idx[:, 0].float()

    def __call__(self, idx, kv_cache: KVCache):
        self.widths.append(len(idx))
        logits = torch.full((len(idx), 1, self.config.vocab_size), float("-inf"))
        for b, (script, length) in enumerate(
            zip(kv_cache.store[0, 0, :, 0, 0, 0].tolist(), kv_cache.lengths.tolist(), strict=True)
        ):
            wanted = self.scripts[int(script)]
            [token] = wanted[length - 1 : length] or [self.end]
            logits[b, 0, token] = 0.0
        kv_cache.positions(1)
        kv_cache.lengths = kv_cache.lengths + 1
        return logits


def scripted(tokenizer: Tokenizer, *scripts: list[int], **keywords) -> list[Sample]:
    engine = Engine(Scripted(tokenizer, list(scripts)), tokenizer)
    return [group[0] for group in engine.generate_batch([[i, 0] for i in range(len(scripts))], **keywords)]


def call(tokenizer: Tokenizer, expression: str) -> list[int]:
    special = tokenizer.encode_special
    return [special("<|python_start|>"), *tokenizer.encode(expression), special("<|python_end|>")]


def output(tokenizer: Tokenizer, result: str) -> list[int]:
    special = tokenizer.encode_special
    return [special("<|output_start|>"), *tokenizer.encode(result), special("<|output_end|>")]


def prompts_of_many_lengths(count: int) -> list[list[int]]:
    torch.manual_seed(1)
    return [torch.randint(256, (1 + 4 * i,)).tolist() for i in range(count)]


# What the model writes


def without_cache(model: GPT, tokenizer: Tokenizer, prompt: list[int], count: int) -> list[int]:
    """Greedy decoding as the definition has it: a full forward pass for every token."""
    ids = list(prompt)
    ends = {tokenizer.encode_special("<|assistant_end|>"), tokenizer.get_bos_token_id()}
    with torch.no_grad():
        while len(ids) < len(prompt) + count and not (len(ids) > len(prompt) and ids[-1] in ends):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def test_greedy_with_cache_and_batch_is_greedy_without_either(engine, model, tokenizer):
    prompts = prompts_of_many_lengths(9)
    batch = engine.generate_batch(prompts, temperature=0, max_tokens=15, use_tools=False)
    for prompt, [completion] in zip(prompts, batch, strict=True):
        assert completion.ids == without_cache(model, tokenizer, prompt, 15)
    assert len({tuple(group[0].ids) for group in batch}) > 1


def test_greedy_in_a_batch_equals_greedy_one_by_one(engine):
    """Up to the full context, so that the rows end at different steps and leave the batch one by one."""
    prompts = prompts_of_many_lengths(12)
    batch = engine.generate_batch(prompts, temperature=0, max_tokens=500)
    for prompt, [completion] in zip(prompts, batch, strict=True):
        assert list(engine.generate(prompt, temperature=0, max_tokens=500)) == completion.ids


def test_another_format_is_a_copy_with_nearly_the_same_probabilities(engine, model):
    assert engine.in_format(torch.float32) is engine
    half = engine.in_format(torch.bfloat16)
    assert all(weight.dtype == torch.float32 for weight in model.parameters())
    assert all(
        torch.equal(copied, weight.bfloat16())
        for copied, weight in zip(half.model.parameters(), model.parameters(), strict=True)
    )
    prompts = [[0, 5, 6, 7, 8], [0, 9]]
    last = torch.tensor([8, 9])
    expected = probabilities(engine.next_logits(last, engine.prefill(prompts, 8)), 1.0)
    found = probabilities(half.next_logits(last, half.prefill(prompts, 8)), 1.0)
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0)
    samples = half.generate_batch(prompts, num_samples=3, max_tokens=12, seed=4)
    assert samples == half.generate_batch(prompts, num_samples=3, max_tokens=12, seed=4)


def test_samples_differ_and_repeat_with_the_seed(engine):
    def run(seed: int) -> list[list[int]]:
        [group] = engine.generate_batch([[1, 2, 3]], num_samples=8, max_tokens=16, seed=seed)
        return [completion.ids for completion in group]

    assert len({tuple(ids) for ids in run(5)}) == 8
    assert run(5) == run(5)
    assert run(5) != run(6)


def test_top_1_is_greedy_at_any_temperature(engine):
    prompts = prompts_of_many_lengths(4)
    hot = engine.generate_batch(prompts, top_k=1, temperature=5.0, max_tokens=12)
    assert hot == engine.generate_batch(prompts, temperature=0, max_tokens=12)


def test_generate_streams_what_generate_batch_returns(engine):
    [[completion]] = engine.generate_batch([[1, 2, 3]], max_tokens=20, seed=3)
    assert list(engine.generate([1, 2, 3], max_tokens=20, seed=3)) == completion.ids


def test_a_stream_leaves_gradients_on_between_tokens(engine):
    stream = engine.generate([1, 2, 3], max_tokens=4)
    next(stream)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_nothing_is_kept_for_a_backward_pass(engine, model):
    seen: list[bool] = []
    hook = model.register_forward_hook(lambda module, inputs, logits: seen.append(logits.requires_grad))
    list(engine.generate([1, 2, 3], max_tokens=4, use_tools=False))
    hook.remove()
    assert seen and not any(seen)


def test_groups_come_back_in_the_order_of_the_prompts(tokenizer):
    scripts = [tokenizer.encode(text) for text in ("the cat", "on the mat", "sat")]
    engine = Engine(Scripted(tokenizer, scripts), tokenizer)
    groups = engine.generate_batch([[2, 0], [0, 0], [1, 0]], num_samples=2)
    texts = [[engine.completion_text(completion) for completion in group] for group in groups]
    assert texts == [["sat"] * 2, ["the cat"] * 2, ["on the mat"] * 2]


def test_no_prompts_give_no_samples(engine):
    assert engine.generate_batch([]) == []


# Sampling


LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, 0.5])


@pytest.mark.parametrize(
    ("temperature", "top_k"), [(1.0, None), (0.5, None), (2.0, 3), (1.0, 2), (1.0, 5), (1.0, 99), (0.7, 4)]
)
def test_sampled_frequencies_follow_the_softmax(temperature, top_k):
    """Chi-squared against exp(logit / temperature), renormalised over the top k; 20,000 draws."""
    generator = torch.Generator().manual_seed(0)
    drawn = sample(LOGITS.expand(20_000, -1), generator, temperature, top_k)
    kept = sorted(range(5), key=lambda i: -LOGITS[i])[: top_k or 5]
    weights = torch.zeros(5)
    weights[kept] = (LOGITS[kept] / temperature).exp()
    expected = 20_000 * weights / weights.sum()
    counts = torch.bincount(drawn, minlength=5)
    assert counts[expected == 0].eq(0).all()
    chi_squared = ((counts - expected)[kept].square() / expected[kept]).sum().item()
    assert chi_squared < 18.5  # 1 in 1,000 at 4 degrees of freedom, less at fewer


def test_top_k_keeps_exactly_k_of_equal_tokens():
    drawn = sample(torch.zeros(2000, 7), torch.Generator().manual_seed(0), top_k=3)
    assert len(drawn.unique()) == 3


def test_impossible_tokens_are_never_drawn():
    probs = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0]).expand(50_000, -1)
    assert set(draw(probs, torch.Generator().manual_seed(0)).tolist()) == {1, 3}


@pytest.mark.parametrize(("dart", "token"), [(0.0, 1), (0.4999999, 1), (0.5, 3), (1 - 2**-24, 3)])
def test_a_dart_on_the_edge_hits_a_possible_token(monkeypatch, dart, token):
    monkeypatch.setattr(torch, "rand", lambda *shape, **keywords: torch.full(shape, dart))
    assert draw(torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]]), torch.Generator()).tolist() == [token]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=9), st.floats(0.05, 20), st.integers(0, 2**31))
def test_every_draw_is_a_token_that_can_occur(logits, temperature, seed):
    probs = probabilities(torch.tensor([logits]), temperature)
    index = int(draw(probs, torch.Generator().manual_seed(seed)))
    assert probs[0, index] > 0


# The tool


def test_a_call_is_answered_with_tokens_the_model_did_not_choose(tokenizer):
    before, asked, answer = tokenizer.encode("the cat "), call(tokenizer, "30+4"), output(tokenizer, "34")
    after = tokenizer.encode(" sat")
    # While the result is forced the script goes on unseen: what it wants there is not written.
    script = before + asked + [0] * len(answer) + after
    [completion] = scripted(tokenizer, script)
    end = tokenizer.encode_special("<|assistant_end|>")
    assert completion.ids == before + asked + answer + after + [end]
    assert completion.mask == [1] * len(before + asked) + [0] * len(answer) + [1] * (len(after) + 1)
    assert completion.finished


@pytest.mark.parametrize("expression", ["9**9**9", "", "cat", "1/0", "__import__('os')", "1+" * 200, "3+"])
def test_a_call_without_a_result_forces_nothing(tokenizer, expression):
    [completion] = scripted(tokenizer, call(tokenizer, expression), max_tokens=1000)
    assert completion.ids[:-1] == call(tokenizer, expression)
    assert set(completion.mask) == {1}


def test_a_special_token_in_a_call_refuses_it(tokenizer):
    start, *expression, end = call(tokenizer, "3+4")
    [completion] = scripted(tokenizer, [start, *expression, tokenizer.encode_special("<|user_end|>"), end])
    assert set(completion.mask) == {1}


def test_a_second_start_begins_the_call_anew(tokenizer):
    script = call(tokenizer, "9")[:-1] + call(tokenizer, "3+4")
    [completion] = scripted(tokenizer, script)
    assert completion.ids[len(script) : -1] == output(tokenizer, "7")


def test_an_end_without_a_start_forces_nothing(tokenizer):
    [completion] = scripted(tokenizer, call(tokenizer, "3+4")[1:])
    assert set(completion.mask) == {1}


def test_two_calls_are_both_answered(tokenizer):
    engine = Engine(Scripted(tokenizer, [two_calls(tokenizer)]), tokenizer)
    [[completion]] = engine.generate_batch([[0, 0]])
    assert engine.completion_text(completion) == "<<3+4=7>> the <<7*2=14>>"


def two_calls(tokenizer: Tokenizer) -> list[int]:
    gap = [0] * len(output(tokenizer, "7"))
    return call(tokenizer, "3+4") + gap + tokenizer.encode(" the ") + call(tokenizer, "7*2")


def test_without_tools_nothing_is_forced(tokenizer):
    [completion] = scripted(tokenizer, call(tokenizer, "3+4"), use_tools=False)
    assert completion.ids[:-1] == call(tokenizer, "3+4")
    assert set(completion.mask) == {1}


def test_each_row_has_its_own_call(tokenizer):
    plain = tokenizer.encode("the cat sat on the mat")
    first, second = call(tokenizer, "1+1"), tokenizer.encode("the ") + call(tokenizer, "2+2")
    answers = scripted(tokenizer, first, plain, second)
    assert answers[0].ids[:-1] == first + output(tokenizer, "2")
    assert answers[1].ids[:-1] == plain
    assert answers[2].ids[:-1] == second + output(tokenizer, "4")


def test_an_end_token_that_a_result_covers_does_not_end_the_row(tokenizer):
    """The model would stop where the result stands; the forced token counts, not the wish."""
    [completion] = scripted(tokenizer, call(tokenizer, "3+4"))
    assert completion.ids[-4:-1] == output(tokenizer, "7")


# Where a completion ends


def test_the_end_token_is_kept_and_is_the_models_own(tokenizer):
    for name in ("<|assistant_end|>", "<|bos|>"):
        end = tokenizer.encode_special(name)
        [completion] = scripted(tokenizer, [5, 6, end, 7])
        assert (completion.ids, completion.mask, completion.finished) == ([5, 6, end], [1, 1, 1], True)


@pytest.mark.parametrize("limit", range(1, 9))
def test_max_tokens_counts_forced_tokens(tokenizer, limit):
    script = call(tokenizer, "3+4")
    whole = script + output(tokenizer, "7")
    [completion] = scripted(tokenizer, script, max_tokens=limit)
    assert completion.ids == whole[:limit]
    assert completion.mask == ([1] * len(script) + [0] * 3)[:limit]
    assert not completion.finished


def test_a_completion_stops_where_the_context_is_full(engine):
    lengths = [1, 30, CONTEXT - 1]
    groups = engine.generate_batch([[9] * n for n in lengths], max_tokens=500, num_samples=2, use_tools=False)
    for length, group in zip(lengths, groups, strict=True):
        for completion in group:
            assert completion.finished or len(completion.ids) == CONTEXT - length


def test_finished_rows_leave_the_batch_and_disturb_no_other(tokenizer):
    scripts = [[65] * (3 * i) for i in range(8)]
    engine = Engine(Scripted(tokenizer, scripts), tokenizer)
    groups = engine.generate_batch([[i, 0] for i in range(8)])
    end = tokenizer.encode_special("<|assistant_end|>")
    assert [group[0].ids for group in groups] == [[*script, end] for script in scripts]
    widths = engine.model.widths
    assert widths[0] == 8 and widths[-1] == 1
    assert sum(widths) < 8 * len(widths) * 0.75


# Streaming text


def streamed(tokenizer: Tokenizer, script: list[int], **keywords) -> list[str]:
    return list(Engine(Scripted(tokenizer, [script]), tokenizer).stream_text([0, 0], **keywords))


def test_a_character_is_never_split(tokenizer):
    """An emoji no training text held is four byte tokens; the family is seven characters, 25 bytes."""
    text = "mat 🙂 é 👨‍👩‍👧‍👦 the"
    pieces = streamed(tokenizer, tokenizer.encode(text))
    assert "".join(pieces) == text
    assert "🙂" in pieces and not any("\ufffd" in piece for piece in pieces)


@settings(deadline=None, max_examples=40)
@given(text=st.text(max_size=20))
def test_any_text_streams_back_whole(tokenizer, text):
    engine = Engine(Scripted(tokenizer, []), tokenizer)
    assert "".join(engine.text_of(tokenizer.encode(text))) == text


def test_half_a_character_at_the_end_is_not_shown(tokenizer):
    ids = tokenizer.encode("the 🙂")
    assert streamed(tokenizer, ids, max_tokens=len(ids) - 1) == streamed(tokenizer, tokenizer.encode("the "))


def test_half_a_character_before_a_special_token_is_not_shown(tokenizer):
    half = tokenizer.encode("🙂")[:2]
    assert streamed(tokenizer, [*half, tokenizer.encode_special("<|user_end|>"), 65]) == streamed(
        tokenizer, [65]
    )


def test_bytes_that_are_no_text_are_replaced_and_the_rest_goes_on(tokenizer):
    stray = next(i for i in range(256) if tokenizer.decode_bytes([i]) == b"\xff")
    assert "".join(streamed(tokenizer, [stray, *tokenizer.encode("cat")])) == "\ufffdcat"


def test_calls_are_shown_as_gsm8k_writes_them_and_specials_are_not(tokenizer):
    script = tokenizer.encode("the ") + call(tokenizer, "3+4") + [0] * 3 + tokenizer.encode(" mat")
    assert "".join(streamed(tokenizer, script)) == "the <<3+4=7>> mat"
    refused = call(tokenizer, "cat") + tokenizer.encode(" mat")
    assert "".join(streamed(tokenizer, refused)) == "<<cat>> mat"
    assert "".join(streamed(tokenizer, [tokenizer.encode_special("<|user_end|>"), 65])) == "".join(
        streamed(tokenizer, [65])
    )


# What cannot be generated


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": float("inf")}, "temperature=inf"),
        ({"top_k": 0}, "top_k=0"),
        ({"top_k": -3}, "top_k=-3"),
        ({"max_tokens": 0}, "max_tokens=0"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(engine, keywords, said):
    for method in (engine.generate, engine.stream_text):
        with pytest.raises(ConfigError, match=said):
            method([1, 2], **keywords)
    with pytest.raises(ConfigError, match=said):
        engine.generate_batch([[1, 2]], **keywords)


def test_no_samples_are_refused(engine):
    with pytest.raises(ConfigError, match="num_samples=0"):
        engine.generate_batch([[1]], num_samples=0)


@pytest.mark.parametrize("length", [CONTEXT, CONTEXT + 1, 10 * CONTEXT])
def test_a_prompt_that_fills_the_context_is_refused_with_advice(engine, length):
    with pytest.raises(ConfigError, match=rf"prompt 2 has {length} tokens(?s:.*)truncate_history"):
        engine.generate_batch([[1], [1] * length])


def test_an_empty_prompt_is_refused(engine):
    with pytest.raises(ConfigError, match="prompt 1 is empty"):
        engine.generate([])


@pytest.mark.parametrize("temperature", [0, 1])
def test_a_diverged_model_is_named_as_such(model, tokenizer, temperature):
    diverged = GPT(model.config)
    torch.nn.init.constant_(diverged.lm_head.weight, float("nan"))
    with pytest.raises(NanolabError, match="diverged"):
        list(Engine(diverged, tokenizer).generate([1], temperature=temperature))
