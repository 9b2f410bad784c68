"""`python -m nanolab` for test_ranks.py, with a reward that any model can earn, and faults on demand.

FAULT is "KILL RANK STEP" (that process ends by SIGKILL before that step) or "INTERRUPT RANK STEP" (torchrun
gets the signal of Ctrl-C then).
"""

import os
import signal
import sys

from nanolab import cli, stages
from nanolab.tasks.tiny import TinyGSM


def main() -> int:
    kind, rank, step = (os.environ.get("FAULT") or "NONE -1 -1").split()
    agreed = stages.StopFlag.agreed
    asked = 0

    def faulty(flag: stages.StopFlag) -> bool:
        nonlocal asked
        if os.environ.get("RANK") == rank and asked == int(step):
            if kind == "KILL":
                os.kill(os.getpid(), signal.SIGKILL)
            os.kill(os.getppid(), signal.SIGINT)
        asked += 1
        return agreed(flag)

    stages.StopFlag.agreed = faulty
    TinyGSM.reward = lambda task, conversation, completion: float(len(set(completion)) > 12)
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
