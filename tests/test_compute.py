"""Device and number format are chosen on request, and say why."""

import subprocess
import sys

import pytest
import torch

from nanolab import compute
from nanolab.compute import choose_compute, prepare_process
from nanolab.errors import ConfigError


def test_bf16_is_chosen_on_a_cpu_only_where_it_is_twice_as_fast(monkeypatch):
    monkeypatch.setattr(compute, "cpu_speedup_of_bf16", lambda: 1.9)
    assert choose_compute("cpu").dtype == torch.float32
    monkeypatch.setattr(compute, "cpu_speedup_of_bf16", lambda: 4.0)
    chosen = choose_compute("cpu")
    assert chosen.dtype == torch.bfloat16 and "4 times" in chosen.reason


def test_what_is_asked_for_is_taken():
    assert choose_compute("cpu", "bfloat16").dtype == torch.bfloat16
    with choose_compute("cpu", "bfloat16").autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with choose_compute("cpu", "float32").autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.parametrize(
    ("device", "dtype", "words"), [("tpu", "auto", "This machine has"), ("cpu", "int8", "Choose auto")]
)
def test_what_is_not_there_is_refused_with_the_choice(device, dtype, words):
    with pytest.raises(ConfigError, match=words):
        choose_compute(device, dtype)


def test_preparing_the_process_twice_is_harmless():
    prepare_process()
    prepare_process()
    assert torch.ones(1000, 1000).sum() == 1e6


def test_a_model_trains_in_bf16_autocast_with_fp32_weights():
    code = (
        "import torch; from nanolab.model import *; from nanolab.optim import *; from nanolab.train import fit\n"
        "from nanolab.compute import choose_compute\n"
        "torch.manual_seed(0); m = GPT(GPTConfig(8, 20, 1, 1, 1, 32)); x = torch.arange(8)[None]\n"
        "o = build_optimizers(m, LearningRates(), ns_dtype=torch.bfloat16)\n"
        "b = iter(lambda: (x, x + 1), None)\n"
        "l = [r.loss for r in fit(m, o, b, Schedule(40), compute=choose_compute('cpu', 'bfloat16'))]\n"
        "assert l[-1] < 0.2 and all(p.dtype == torch.float32 for p in m.parameters()), l[-1]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
