"""Checks for the challenges: each knows the right answer by a way of its own, and the likely wrong ones.

One module per challenge; `core.py` is what they share. Only notebooks and the command line import them.
"""

from nanolab.checks.core import CheckFailed, NotAttempted, Wrong, attempted

__all__ = ["CheckFailed", "NotAttempted", "Wrong", "attempted"]
