"""What MPS refuses, refused here on a CPU: float64 on the device, and what was never moved there.

The pretended device is "cpu:0", which torch tells apart from "cpu" in words only. Tensors made there or moved
there are followed, with all that is computed from them, until `.cpu()`, `.to("cpu")`, `.item()` or `.tolist()`
lets them go.
"""

import weakref
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nanolab import doctor
from nanolab.autopsy import examine
from nanolab.checkpoint import load_model
from nanolab.checks.embeddings import table_of
from nanolab.checks.predictions import logits_after
from nanolab.compute import Compute
from nanolab.lessons.choices import ChoiceQuestion, letter_chances, sentence_scores
from nanolab.lessons.inside import singular_values
from nanolab.lessons.lineup import model_loss
from nanolab.lessons.midtraining import loss_by_kind
from nanolab.profiles import STAGES, RLPlan, StagePlan, get_profile
from nanolab.report import evaluate
from nanolab.stages import open_stage, sum_of_weights

DEVICE = torch.device("cpu:0")
REFUSED = (torch.float64, torch.complex128)
LEAVING = {"cpu", "item", "tolist"}
BY_HOST = {"__getitem__", "__setitem__", "copy_", "to", "cpu", "set_", "__set__"}
"""what takes tensors of both sides: indices and copies"""


class Refused(Exception):
    pass


class PretendedMPS(TorchFunctionMode):
    """In it, tensors of `DEVICE` are on an accelerator that has no float64."""

    def __init__(self):
        super().__init__()
        self.there = {}
        self.calls = 0

    def has(self, item):
        known = self.there.get(id(item))
        return isinstance(item, Tensor) and known is not None and known() is item

    def take(self, item):
        if item.dtype in REFUSED:
            raise Refused("Cannot convert a MPS Tensor to float64: the framework does not support float64.")
        number = id(item)
        self.there[number] = weakref.ref(item, lambda _: self.there.pop(number, None))

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        there = [self.has(item) for item in inputs]
        name = getattr(func, "__name__", "")
        if func == Tensor.device.__get__ and there[0]:
            return DEVICE
        places = [leaf for leaf in leaves if isinstance(leaf, torch.device)]
        places += [
            torch.device(leaf) for leaf in leaves if isinstance(leaf, str) and leaf in ("cpu", "cpu:0")
        ]
        moved_there, moved_away = DEVICE in places, torch.device("cpu") in places or name == "cpu"
        if any(there):
            self.calls += 1
            if name in ("numpy", "__array__") or name.startswith("linalg_svd"):
                raise Refused(f"{name} does not work on MPS: use .cpu() before.")
            strangers = [
                item for item, is_there in zip(inputs, there, strict=True) if not is_there and item.dim()
            ]
            if strangers and name not in BY_HOST and not name.startswith("_"):
                raise Refused(f"{name}: expected all tensors to be on the same device.")
        result = func(*args, **kwargs)
        if func == Tensor.data.__set__:  # what `model.to(device)` does to a parameter
            self.there.pop(id(args[0]), None)
            if there[-1]:
                self.take(args[0])
            return result
        if moved_away and any(there) and isinstance(result, Tensor):
            return result.view(result.shape) if result is args[0] else result
        for item in tree_leaves(result):
            if (
                isinstance(item, Tensor)
                and not self.has(item)
                and (any(there[:1]) or moved_there or any(there))
            ):
                if any(there[1:]) and not there[0] and item is inputs[0]:
                    continue  # `host.copy_(device)` stays where it is
                self.take(item)
        return result


class NoFloat64InBackward(TorchDispatchMode):
    """The gradients of `PretendedMPS`, which that cannot follow."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if torch._C._current_graph_task_id() != -1:
            for item in tree_leaves(result):
                if isinstance(item, Tensor) and item.dtype in REFUSED:
                    raise Refused(f"{func}: float64 in a backward pass.")
        return result


@pytest.fixture
def mps(monkeypatch):
    with PretendedMPS() as mode, NoFloat64InBackward():
        copied = torch.nn.Parameter.__deepcopy__

        def deepcopy(parameter, memo):  # the only way to a tensor that a TorchFunctionMode does not see
            copy = copied(parameter, memo)
            if mode.has(parameter):
                mode.take(copy)
            return copy

        monkeypatch.setattr(torch.nn.Parameter, "__deepcopy__", deepcopy)
        yield mode


PLAN = StagePlan(2, 256, 2, 64, eval_every=-1, eval_tokens=256, save_every=1)
PROFILE = replace(
    get_profile("smoke"), depth=1, vocab_size=400, base=PLAN, mid=PLAN, sft=PLAN,
    rl=RLPlan(
        2, examples_per_step=2, num_samples=3, max_new_tokens=8, eval_examples=4, save_every=1, kl_weight=0.1
    ),
    device=str(DEVICE), dtype="float32",
)  # fmt: skip


def test_the_pretended_device_refuses_what_mps_refuses(mps):
    there = torch.ones(3, device=DEVICE)
    assert there.device == DEVICE and (there + 1).device == DEVICE and there.cpu().device != DEVICE
    assert (there.cpu().double().sum() + there.sum().item()).dtype == torch.float64
    assert mps.has(there.to("cpu").to(DEVICE)) and mps.has(torch.ones(3).to(DEVICE) * 2)
    for wrong in (
        lambda: there.double(),
        lambda: there.sum(dtype=torch.float64),
        lambda: torch.zeros(2, dtype=torch.float64, device=DEVICE),
        lambda: torch.ones(2, dtype=torch.float64).to(DEVICE),
        lambda: there.numpy(),
        lambda: torch.linalg.svdvals(there[None]),
        lambda: there + torch.ones(3),
    ):
        with pytest.raises(Refused):
            wrong()

    class Wide(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad.double().float()

    weight = torch.ones(3, device=DEVICE).requires_grad_()
    with pytest.raises(Refused):
        Wide.apply(weight).sum().backward()


def test_every_stage_trains_validates_and_is_measured_without_float64_on_the_device(mps, monkeypatch):
    monkeypatch.setattr("nanolab.stages.TOKENIZER_CHARACTERS", 50_000)
    monkeypatch.setattr("nanolab.tasks.TinyGSM.reward", lambda self, example, text: float(len(text) % 2))
    for stage in STAGES:
        work = open_stage(PROFILE, stage, "t")
        assert work.model.device == DEVICE
        work.validation()
        before = mps.calls
        records = list(work.steps())
        assert len(records) == 2 and any(record.grad_norm > 0 for record in records)
        assert mps.calls > before + 100, "the pretended device saw no training"
        work.validation()
        assert sum_of_weights(work.model) > 0
    assert open_stage(PROFILE, "rl", "t").finished

    model, tokenizer, _ = load_model("sft", DEVICE, model_tag="t")
    assert model.device == DEVICE
    assert len(list(evaluate(model, tokenizer, count=4))) > 5
    ids = tokenizer.encode("The capital of France is Paris.")
    assert examine(model, tokenizer, ids).at(3).bits > 0
    assert logits_after(model, tokenizer, "The", True).dtype == torch.float64
    assert table_of(model).dtype == "float64"
    assert model_loss(model, tokenizer, [ids]) > 0
    question = ChoiceQuestion("Which?", ("A", "B", "C", "D"), 0, ("a", "b", "c", "d"))
    assert sentence_scores(model, tokenizer, [question]).shape == (1, 4)
    assert letter_chances(model, tokenizer, [question]).shape == (1, 4)
    batch = next(open_stage(PROFILE, "sft", "t").batches)
    assert mps.has(batch[0])
    assert sum(kind.share for kind in loss_by_kind(model, [batch], tokenizer).values()) == pytest.approx(100)
    assert singular_values(model, batch, "transformer.h.0.attn.c_q.weight")[0][0] == 1

    monkeypatch.setattr(doctor, "MEASURING_SECONDS", 0.0)
    assert len(doctor.few_losses(DEVICE)) == 4
    compute = Compute(DEVICE, torch.float32, "for the test")
    assert doctor.training_rate(PROFILE, compute) > 0 and doctor.sampling_rate(PROFILE, compute) > 0
