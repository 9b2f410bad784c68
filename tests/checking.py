"""What the tests of the challenges' checks share."""

from __future__ import annotations

import pytest

from nanolab.checks import NotAttempted, Wrong


def refused(check, *answers) -> str:
    """What a check says to a wrong answer."""
    with pytest.raises(Wrong) as caught:
        check(*answers)
    return str(caught.value)


def waits(check, *answers) -> None:
    """The check sees nothing to look at yet."""
    with pytest.raises(NotAttempted):
        check(*answers)
