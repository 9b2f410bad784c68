"""nanolab: train a chat model end to end on your own laptop."""

import os
import sys

__version__ = "0.1.0"

# The threads of a training wait for each other all the time. On Linux torch has GNU's OpenMP, which lets them
# spin 300,000 times before they sleep: beside busy programs that takes the processor from the one waited for.
# Tokens/s of the laptop profile in bf16, 2 threads on 2 cores, alone / beside one busy process / beside two:
#     300,000 spins  29,600 /        / no end in 1 min     3,000  25,500 / 12,100 / 9,500
#      10,000        29,200 /        /  7,300            1,000  19,600 / 14,400 / 8,800
#       5,000        27,000 / 10,100 / 10,200        one thread 18,400
# (Intel Xeon with AMX, medians of 50 steps, one or two tries. On an AMD EPYC the larger model of before lost
# less: alone 6,565 with 300,000, 7,143 with 10,000, 6,258 with 3,000 and 5,719 with 1,000.)
# torch reads it when it is loaded, so it is set here, and handed on to what `nanolab lab` starts. On macOS
# and Windows torch has LLVM's and Intel's OpenMP, which do not know it; nothing was measured there.
if sys.platform == "linux" and {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}.isdisjoint(os.environ):
    os.environ["GOMP_SPINCOUNT"] = "5000"
