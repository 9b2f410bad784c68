"""The model against outside authorities: transformers' NanoChat, a plain cross-entropy, its own full pass."""

import math

import pytest
import torch
import torch.nn.functional as F

from nanolab.errors import ConfigError
from nanolab.model import GPT, GPTConfig, KVCache, norm, rotary_tables, rotate

CONFIG = GPTConfig(sequence_len=48, vocab_size=300, n_layer=3, n_head=4, n_kv_head=2, n_embd=64)


def awake(config: GPTConfig = CONFIG, seed: int = 0) -> GPT:
    """A model whose zero-initialised matrices are random too, so that every path matters."""
    torch.manual_seed(seed)
    model = GPT(config)
    for weight in model.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.05)
    return model.eval()


def plain_loss(model: GPT, idx, targets, reduction="mean"):
    return F.cross_entropy(model(idx).flatten(0, 1), targets.flatten(), ignore_index=-1, reduction=reduction)


def some_batch(rows=3, length=20, ignored=0.3):
    idx = torch.randint(CONFIG.vocab_size, (rows, length))
    targets = torch.randint(CONFIG.vocab_size, (rows, length))
    targets[torch.rand(rows, length) < ignored] = -1
    return idx, targets


def test_first_loss_is_exactly_ln_vocab():
    torch.manual_seed(0)
    model = GPT(CONFIG)
    assert model(*some_batch()).item() == pytest.approx(math.log(300), abs=1e-5)


def test_logits_equal_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    model = awake()
    config = transformers.NanoChatConfig(
        vocab_size=300, hidden_size=64, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=48, final_logit_softcapping=15.0,
        rms_norm_eps=torch.finfo(torch.float32).eps,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, attention_bias=False,
        tie_word_embeddings=False,
    )  # fmt: skip
    theirs = transformers.NanoChatForCausalLM(config).eval()
    names = {
        "transformer.wte": "model.embed_tokens", "transformer.h": "model.layers", ".attn.c_q": ".self_attn.q_proj",
        ".attn.c_k": ".self_attn.k_proj", ".attn.c_v": ".self_attn.v_proj", ".attn.c_proj": ".self_attn.o_proj",
        ".mlp.c_fc": ".mlp.fc1", ".mlp.c_proj": ".mlp.fc2",
    }  # fmt: skip
    state = {}
    for name, weight in model.state_dict().items():
        for ours, other in names.items():
            name = name.replace(ours, other)
        state[name] = weight
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected and not missing
    idx = torch.randint(300, (2, 40))
    with torch.no_grad():
        assert (model(idx) - theirs(idx).logits).abs().max() < 1e-5


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_fused_loss_and_gradient_equal_plain_cross_entropy(reduction):
    model, (idx, targets) = awake(), some_batch()
    plain = plain_loss(model, idx, targets, reduction)
    expected = torch.autograd.grad(plain, list(model.parameters()))
    fused = model(idx, targets, loss_reduction=reduction)
    actual = torch.autograd.grad(fused, list(model.parameters()))
    assert fused.item() == pytest.approx(plain.item(), rel=1e-5)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * b.abs().max().item())


def test_loss_over_several_chunks_equals_loss_over_one(monkeypatch):
    model, batch = awake(), some_batch()
    whole = model(*batch)
    monkeypatch.setattr("nanolab.loss.loss_chunk", lambda vocab_size: 7)
    torch.testing.assert_close(model(*batch), whole)
    assert model(*batch, loss_reduction="none").sum().item() == pytest.approx(
        model(*batch, loss_reduction="sum").item(), rel=1e-5
    )


def test_under_autocast_the_stream_is_fp32_and_gradients_stay_those_of_float64():
    model, batch = awake(), some_batch()
    exact = awake().double()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.hidden(batch[0]).dtype == torch.float32
        loss = model(*batch)
    true_loss = exact(*batch)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(true_loss.item(), rel=2e-3)
    loss.backward()
    true_loss.backward()
    for (name, weight), true in zip(model.named_parameters(), exact.parameters(), strict=True):
        assert weight.grad.dtype == torch.float32
        error = (weight.grad - true.grad).norm() / true.grad.norm()
        assert error < 0.03, f"{name}: {error:.3f}"


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 2**-7)])
def test_norm_and_its_gradient_are_torchs(dtype, tolerance):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(3, 5, 2, 16, generator=generator, dtype=torch.float64).to(dtype)
    grad = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(dtype)
    exact = x.double().requires_grad_()
    expected = F.rms_norm(exact, (16,), eps=torch.finfo(torch.float32).eps)
    x.requires_grad_()
    actual = norm(x)
    assert actual.dtype == dtype
    for a, b in (
        (actual, expected),
        (torch.autograd.grad(actual, x, grad)[0], torch.autograd.grad(expected, exact, grad.double())[0]),
    ):
        assert (a.double() - b).norm() <= tolerance * b.norm()
    with torch.no_grad():
        assert (norm(x).double() - expected).norm() <= tolerance * expected.norm()


def test_a_norm_of_zeros_is_zero_and_passes_a_finite_gradient():
    x = torch.zeros(2, 8, requires_grad=True)
    (grad,) = torch.autograd.grad(norm(x).sum(), x)
    assert not norm(x).any() and grad.isfinite().all()


def test_losses_of_single_tokens_are_zero_where_ignored():
    model, (idx, targets) = awake(), some_batch()
    losses = model(idx, targets, loss_reduction="none")
    assert losses[targets < 0].eq(0).all() and losses[targets >= 0].gt(0).all()


def test_all_ignored_batch_gives_zero_loss_and_zero_gradient():
    model, (idx, targets) = awake(), some_batch()
    for reduction in ("mean", "sum"):
        loss = model(idx, torch.full_like(targets, -1), loss_reduction=reduction)
        gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        assert loss.item() == 0
        assert all(gradient is None or not gradient.any() for gradient in gradients)


def test_the_future_does_not_leak():
    model, (idx, _) = awake(), some_batch()
    changed = idx.clone()
    changed[:, 10:] = (changed[:, 10:] + 1) % CONFIG.vocab_size
    torch.testing.assert_close(model(idx)[:, :10], model(changed)[:, :10])
    assert not torch.allclose(model(idx)[:, 10:], model(changed)[:, 10:])


def test_rotary_scores_depend_on_distance_only():
    cos, sin = rotary_tables(30, 16)
    q, k = torch.randn(16), torch.randn(16)
    q, k = rotate(q.expand(1, 30, 1, 16), cos, sin), rotate(k.expand(1, 30, 1, 16), cos, sin)
    scores = torch.einsum("bihd,bjhd->ij", q, k)
    for distance in (0, 3, 11):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pieces", [[20], [1] * 20, [7, 1, 1, 6, 5], [13, 7]])
def test_cached_logits_equal_the_full_forward(pieces):
    model, (idx, _) = awake(), some_batch()
    cache = KVCache(CONFIG, batch_size=3, max_len=20)
    cached = torch.cat([model(part, kv_cache=cache) for part in idx.split(pieces, dim=1)], dim=1)
    torch.testing.assert_close(cached, model(idx), rtol=1e-4, atol=1e-4)
    assert cache.lengths.tolist() == [20] * 3


def test_cached_rows_of_different_lengths_equal_each_alone():
    model = awake()
    rows = [torch.randint(300, (length,)) for length in (5, 12, 1)]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    cache = KVCache(CONFIG, batch_size=3, max_len=16)
    prefill = model(padded, kv_cache=cache)
    cache.lengths[:] = torch.tensor([5, 12, 1])
    extra = torch.randint(300, (3, 4))
    later = torch.cat([model(extra[:, i : i + 1], kv_cache=cache) for i in range(4)], dim=1)
    for row, ids in enumerate(rows):
        alone = model(torch.cat([ids, extra[row]])[None])[0]
        torch.testing.assert_close(prefill[row, : len(ids)], alone[: len(ids)], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(later[row], alone[len(ids) :], rtol=1e-4, atol=1e-4)


def test_selected_cache_rows_continue_as_the_originals_would():
    model = awake()
    idx = torch.randint(300, (2, 6))
    cache = KVCache(CONFIG, batch_size=2, max_len=10)
    model(idx, kv_cache=cache)
    fanned = cache.select(torch.tensor([1, 0, 1]))
    token = torch.randint(300, (3, 1))
    expected = model(torch.cat([idx[[1, 0, 1]], token], dim=1))[:, -1:]
    torch.testing.assert_close(model(token, kv_cache=fanned), expected, rtol=1e-4, atol=1e-4)
    assert cache.lengths.tolist() == [6, 6]


def test_a_full_cache_and_a_long_text_are_refused_in_words():
    model = awake()
    cache = KVCache(CONFIG, batch_size=1, max_len=4)
    with pytest.raises(ConfigError, match="holds 4 tokens"):
        model(torch.zeros(1, 5, dtype=torch.long), kv_cache=cache)
    with pytest.raises(ConfigError, match="context of 48"):
        model(torch.zeros(1, 49, dtype=torch.long))


@pytest.mark.parametrize("sizes", [{"n_head": 3}, {"n_kv_head": 3}, {"n_embd": 60, "n_head": 4}])
def test_impossible_heads_are_refused(sizes):
    with pytest.raises(ConfigError):
        GPTConfig(**sizes)


def test_a_dictionary_of_sizes_that_is_not_unpacked_is_told_how():
    with pytest.raises(ConfigError, match=r"GPTConfig\(\*\*sizes\)"):
        GPTConfig(vars(CONFIG))


def test_flops_per_token_is_six_per_matrix_weight_plus_attention():
    model = GPT(CONFIG)
    matrices = sum(p.numel() for n, p in model.named_parameters() if n != "transformer.wte.weight")
    assert model.flops_per_token() == 6 * matrices + 12 * 3 * 64 * 48


def test_parameter_names_are_nanochats():
    names = set(GPT(CONFIG).state_dict())
    layer = {f"transformer.h.0.attn.{n}.weight" for n in ("c_q", "c_k", "c_v", "c_proj")}
    layer |= {"transformer.h.0.mlp.c_fc.weight", "transformer.h.0.mlp.c_proj.weight"}
    assert layer | {"transformer.wte.weight", "lm_head.weight"} <= names
    assert len(names) == 2 + 3 * 6
