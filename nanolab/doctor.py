"""`nanolab doctor`: what this machine is, whether the course will run on it, and how long it will take.

Plain text, made to be pasted into an issue. torch is imported only once the checks that need none are done:
a torch that cannot be imported is one of the things to find.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nanolab import __version__
from nanolab.errors import NanolabError
from nanolab.paths import home
from nanolab.profiles import STAGES, Profile, get_profile

if TYPE_CHECKING:
    import torch

    from nanolab.compute import Compute

PACKAGES = (
    "torch", "numpy", "tiktoken", "rustbpe", "pyarrow", "datasets", "safetensors", "tyro", "rich",
    "jupyterlab", "ipywidgets", "matplotlib", "scikit-learn",
)  # fmt: skip
REINSTALL = "Install again, in the course's folder: pip install -e . -c constraints.txt"
DISK_NEEDED = 2e9
LOSS_TOLERANCE = 0.01
MEASURING_SECONDS = 4.0
PATIENCE_MINUTES = 20
ANSWER_SHARE = 0.6
"""of the tokens an answer may have, how many it has on average: for the estimate of rl only"""


@dataclass(frozen=True)
class Finding:
    """One line of the report; with a remedy, a problem."""

    name: str
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{'PROBLEM' if self.remedy else 'ok':<8} {self.name:<12} {self.found}"
        return line + "".join(f"\n{'':<21} -> {part}" for part in self.remedy.splitlines())


def examine(say: Callable[[str], None], *, quick: bool = False) -> int:
    """Say the report line by line; returns 0 when all is well, else 1. `quick` leaves out measurements."""
    say(f"nanolab {__version__} doctor: paste this into an issue if you need help\n")
    problems = 0
    for finding in itertools.chain(environment(), storage(), arithmetic(quick)):
        say(str(finding))
        problems += bool(finding.remedy)
    say(
        "\nEverything is in order." if not problems else f"\nProblems: {problems}. The arrows say what to do."
    )
    return int(problems > 0)


def environment() -> Iterator[Finding]:
    """System, processor, memory, Python and packages: nothing that needs torch."""
    yield Finding("system", f"{platform.platform()} ({platform.machine()})")
    yield Finding("processor", f"{processor()}, {cores()} cores for this process")
    memory = memory_bytes()
    yield Finding("memory", f"{memory / 2**30:.1f} GiB" if memory else "unknown")
    if load := load_of_others():
        yield Finding(
            "load", f"{load:.1f}: other programs are busy; all speeds below are too low, close them"
        )
    version = platform.python_version()
    old = sys.version_info < (3, 11)
    yield Finding(
        "python", f"{version}, {sys.executable}", "nanolab needs Python 3.11 or newer." if old else ""
    )
    yield packages()


def cores() -> int:
    """How many of them this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_of_others() -> float:
    """How many programs wanted to run during the last minute; 0.0 where a core was left, or nothing tells.

    Ask before any measurement, which would count as well.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return load if load > 0.8 * cores() else 0.0


def processor() -> str:
    """The processor's name, or "unknown"."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return ask_sysctl("machdep.cpu.brand_string") or platform.processor() or "unknown"


def memory_bytes() -> int | None:
    """Bytes of memory; None where neither POSIX nor macOS tells."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        answer = ask_sysctl("hw.memsize")
        return int(answer) if answer.isdigit() else None


def ask_sysctl(name: str) -> str:
    """macOS's answer about its hardware; "" on other systems."""
    if sys.platform != "darwin":
        return ""
    try:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def packages() -> Finding:
    """The versions of what the course uses."""
    versions: list[str] = []
    missing: list[str] = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    rows = [", ".join(versions[i : i + 5]) for i in range(0, len(versions), 5)]
    found = f",\n{'':<21} ".join(rows)
    if missing:
        return Finding("packages", f"{found}; missing: {', '.join(missing)}", REINSTALL)
    return Finding("packages", found)


def storage() -> Iterator[Finding]:
    """Whether runs can be kept in NANOLAB_HOME, and the space left there."""
    folder = home()
    elsewhere = "Set the environment variable NANOLAB_HOME to a folder that you may write to"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"nanolab")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        yield Finding("home", f"{folder} cannot be written to ({error.strerror})", f"{elsewhere}.")
        return
    remedy = ""
    if free < DISK_NEEDED:
        remedy = (
            f"Free {DISK_NEEDED / 1e9:.0f} GB, or {elsewhere[0].lower() + elsewhere[1:]} on another disk."
        )
    yield Finding("home", f"{folder}, {free / 1e9:.1f} GB free", remedy)


def arithmetic(quick: bool) -> Iterator[Finding]:
    """Device and number format, the speed of products, whether the device computes right, and the plan."""
    try:
        import torch

        from nanolab.compute import choose_compute
    except (ImportError, OSError) as error:
        remedy = REINSTALL
        if sys.platform == "win32":
            remedy += "\nStill so? torch needs Microsoft's Visual C++ Redistributable: install that."
        yield Finding("torch", f"cannot be imported: {error}", remedy)
        return
    profile = get_profile()
    load = load_of_others()
    try:
        compute = choose_compute(profile.device, profile.dtype)
    except NanolabError as error:
        yield Finding("device", str(error).splitlines()[0], str(error).splitlines()[-1])
        return
    threads = f", {torch.get_num_threads()} threads" if compute.device.type == "cpu" else ""
    yield Finding("device", f"{compute.device} in {compute.format}: {compute.reason}{threads}")
    if quick:
        return
    rates = product_rates(compute.device)
    yield Finding(
        "products", "fp32 {:,.0f} GFLOP/s, bf16 {:,.0f} GFLOP/s (512 x 256 by 256 x 512)".format(*rates)
    )
    yield compare_devices(compute)
    yield from plan(get_profile("laptop"), compute, load)


def product_rates(device: torch.device) -> list[float]:
    """Billions of floating-point operations a second in small products as training has: in fp32, in bf16."""
    import torch

    from nanolab.bench import synchronise
    from nanolab.compute import best_seconds_of_each

    def product(dtype: torch.dtype) -> Callable[[], object]:
        a, b = (torch.ones(shape, device=device, dtype=dtype) for shape in ((512, 256), (256, 512)))

        def multiply() -> None:
            a @ b
            synchronise(device)

        return multiply

    works = [product(torch.float32), product(torch.bfloat16)]
    seconds = best_seconds_of_each(works, repeats=20, patience=0.3)
    return [2 * 512 * 256 * 512 / best / 1e9 for best in seconds]


def few_losses(device: torch.device, steps: int = 3) -> list[float]:
    """The losses in nats before and after each of the first few training steps of a small model, in fp32."""
    import torch

    from nanolab.bench import training_steps
    from nanolab.compute import Compute
    from nanolab.model import GPT
    from nanolab.optim import LearningRates, build_optimizers
    from nanolab.stages import model_config

    torch.manual_seed(0)
    model = GPT(replace(model_config(get_profile("smoke")), sequence_len=64)).to(device)
    records = training_steps(
        model, build_optimizers(model, LearningRates()), 4, Compute(device, torch.float32, "")
    )
    return [record.loss for record in itertools.islice(records, steps + 1)]


def compare_devices(compute: Compute) -> Finding:
    """Three training steps on the device and on the CPU, or twice on the CPU: the losses must agree."""
    import torch

    name = "3 steps"
    reference = few_losses(torch.device("cpu"))
    if compute.device.type == "cpu":
        again = few_losses(compute.device)
        if again == reference:
            return Finding(name, "the same to the last bit when repeated on the CPU")
        return Finding(
            name,
            f"differ when repeated on the CPU: {reference} and {again}",
            "Resumed runs will differ a little from unbroken ones. Set OMP_NUM_THREADS=1 to get rid of it;\n"
            "if they differ even then, please report this with the whole text.",
        )
    there = few_losses(compute.device)
    difference = max(abs(a - b) for a, b in zip(reference, there, strict=True))
    found = f"largest difference in loss between {compute.device} and CPU: {difference:.1e} nats"
    if difference <= LOSS_TOLERANCE:
        return Finding(name, found)
    return Finding(name, found, f"{compute.device} computes wrongly: use --device cpu, or update torch.")


def training_rate(profile: Profile, compute: Compute) -> float:
    """Tokens a second when training the profile's model: in the fastest step of a few seconds, so that what
    other programs do meanwhile counts little."""
    import torch

    from nanolab.bench import training_steps
    from nanolab.model import GPT
    from nanolab.optim import build_optimizers
    from nanolab.stages import learning_rates, model_config

    torch.manual_seed(0)
    model = GPT(model_config(profile)).to(compute.device)
    optimizers = build_optimizers(model, learning_rates(profile), ns_dtype=compute.dtype)
    steps = training_steps(model, optimizers, profile.base.device_batch_size, compute)
    next(steps)
    rates: list[float] = []
    began = time.perf_counter()
    while not rates or time.perf_counter() - began < MEASURING_SECONDS:
        rates.append(next(steps).tokens_per_second)
    return max(rates)


def sampling_rate(profile: Profile, compute: Compute, steps: int = 4, tries: int = 5) -> float:
    """Tokens a second when sampling as many answers at once as one rl step of the profile does: at best."""
    import torch

    from nanolab.bench import synchronise
    from nanolab.compute import best_seconds
    from nanolab.model import GPT, KVCache
    from nanolab.stages import model_config

    config = model_config(profile)
    rows = profile.rl.examples_per_step * profile.rl.num_samples
    model = GPT(config).to(compute.device).eval()
    half = profile.rl.max_new_tokens
    cache = KVCache(config, rows, min(config.sequence_len, 2 * half), compute.device)
    token = torch.zeros(rows, 1, dtype=torch.long, device=compute.device)

    @torch.inference_mode()
    def go_on() -> None:
        # From the middle of an answer on: the average amount to attend to.
        cache.lengths = torch.full_like(cache.lengths, half)
        for _ in range(steps):
            torch.softmax(model(token, kv_cache=cache)[:, -1], dim=-1).cumsum(dim=-1)
        synchronise(compute.device)

    return rows * steps / best_seconds(go_on, tries)


def stage_minutes(profile: Profile, trained: float, sampled: float) -> dict[str, float]:
    """Estimated minutes of each stage's steps, given tokens/s of training and of sampling.

    Supervised stages: steps times tokens per step. Reinforcement: the tokens of all answers are sampled,
    then trained on together with prompts of about the same length; for the KL penalty the parent reads
    them too, a third of the work of training on them.
    """
    minutes = {
        stage: profile.plan(stage).num_iterations * profile.plan(stage).total_batch_size / trained / 60
        for stage in STAGES[:-1]
    }
    rl = profile.rl
    answers = rl.num_iterations * rl.examples_per_step * rl.num_samples
    tokens = answers * rl.max_new_tokens * ANSWER_SHARE
    passes = rl.updates_per_step * (4 / 3 if rl.kl_weight > 0 else 1)
    minutes["rl"] = (tokens / sampled + 2 * passes * tokens / trained) / 60
    return minutes


def training_time(minutes: dict[str, float]) -> str:
    """`5.0 minutes of training (base 3.0, mid 2.0)`; below 3 in whole seconds, from 180 on in hours."""
    total = sum(minutes.values())
    if total < 3:
        unit, scale, digits = "seconds", 60.0, 0
    elif total < 180:
        unit, scale, digits = "minutes", 1.0, 1
    else:
        unit, scale, digits = "hours", 1 / 60, 1
    parts = ", ".join(f"{stage} {value * scale:.{digits}f}" for stage, value in minutes.items())
    return f"{total * scale:.{digits}f} {unit} of training ({parts})"


def plan(profile: Profile, compute: Compute, load: float = 0.0) -> Iterator[Finding]:
    """Measured speed at the profile's size, what every stage will take, and which profile to use.

    The workshop profile's speed is scaled by its arithmetic per token. Under the `load` of other programs
    no smaller profile is advised: they will end.
    """
    trained, sampled = training_rate(profile, compute), sampling_rate(profile, compute)
    yield Finding("speed", f"{profile.name}: training {trained:,.0f} tok/s, sampling {sampled:,.0f} tok/s")
    totals: dict[str, float] = {}
    for other in ("smoke", profile.name, "workshop"):
        chosen = get_profile(other)
        share = arithmetic_per_token(profile) / arithmetic_per_token(chosen)
        minutes = stage_minutes(chosen, trained * share, sampled * share)
        totals[other] = sum(minutes.values())
        yield Finding("time", f"{other}: about {training_time(minutes)}")
    if totals[profile.name] <= PATIENCE_MINUTES:
        advice = f"use the profile {profile.name}: nanolab run"
    elif load:
        advice = f"close the busy programs and ask again; without them {profile.name} may do: nanolab run"
    else:
        advice = f"{profile.name} will take a while here; to see all stages soon: nanolab run --profile smoke"
    yield Finding("advice", advice)


def arithmetic_per_token(profile: Profile) -> int:
    """Floating-point operations to train the profile's model on one token."""
    import torch

    from nanolab.model import GPT
    from nanolab.stages import model_config

    with torch.device("meta"):
        return GPT(model_config(profile)).flops_per_token()
