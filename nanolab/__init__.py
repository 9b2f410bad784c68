"""nanolab: train a chat model end to end on your own laptop."""

import os
import sys

__version__ = "0.1.0"

# The threads of a training wait for each other all the time. On Linux torch has GNU's OpenMP, which lets them
# spin 300,000 times before they sleep: beside busy programs that takes the processor from the one waited for.
# Tokens/s of the laptop profile (depth 4, bf16, 2 threads on 2 cores, AMD EPYC; medians of 1 to 3 tries),
# alone / beside one busy process / beside three:
#     300,000 spins  6,565 /       / 131      1,000 spins  5,719 / 3,055 / 1,145
#      10,000        7,143 / 1,727 / 666      none         4,702 / 3,502 / 1,142
#       3,000        6,258 / 2,739 / 948      one thread   3,884 / 3,396 /   597
# torch reads it when it is loaded, so it is set here, and handed on to what `nanolab lab` starts. On macOS
# and Windows torch has LLVM's and Intel's OpenMP, which do not know it; nothing was measured there.
if sys.platform == "linux" and {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}.isdisjoint(os.environ):
    os.environ["GOMP_SPINCOUNT"] = "1000"
