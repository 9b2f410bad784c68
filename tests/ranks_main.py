"""`python -m nanolab` for test_ranks.py: one command after the other, an easy reward, and a fault on demand.

Commands are separated by "then". $FAULT is for the last of them: "KILL RANK STEP" (that process ends by SIGKILL
before that step) or "INTERRUPT RANK STEP" (torchrun then gets the signal of Ctrl-C). $SPEEDUP, such as "4 0.5": how many times
faster than fp32 each process finds bf16.
"""

import os
import signal
import sys
from itertools import groupby

from nanolab import cli, compute
from nanolab.interrupt import StopFlag
from nanolab.tasks.tiny import TinyGSM


def easy_reward(task: TinyGSM, conversation: object, completion: str) -> float:
    """Many different characters: a model that knows nothing can earn that, and get better at it."""
    return len(set(completion)) / 20


def arm(fault: str) -> None:
    kind, rank, step = fault.split()
    agreed, asked = StopFlag.agreed, 0

    def faulty(flag: StopFlag) -> bool:
        nonlocal asked
        if os.environ["RANK"] == rank and asked == int(step):
            if kind == "KILL":
                os.kill(os.getpid(), signal.SIGKILL)
            os.kill(os.getppid(), signal.SIGINT)
        asked += 1
        return agreed(flag)

    StopFlag.agreed = faulty


def main() -> int:
    TinyGSM.reward = easy_reward
    if "SPEEDUP" in os.environ:
        speedup = float(os.environ["SPEEDUP"].split()[int(os.environ["RANK"])])
        compute.cpu_speedup_of_bf16 = lambda: speedup
    *earlier, last = [list(command) for then, command in groupby(sys.argv[1:], "then".__eq__) if not then]
    for command in earlier:
        if status := cli.main(command):
            return status
    if "FAULT" in os.environ:
        arm(os.environ["FAULT"])
    return cli.main(last)


if __name__ == "__main__":
    sys.exit(main())
