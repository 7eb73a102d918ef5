"""Flags are True or False; what merely counts as one of them is refused."""

from typing import Any

import numpy as np
import pytest

from blockflow.errors import PlanError
from blockflow.plan.flags import check_flags, checked_flag


@pytest.mark.parametrize("value", [True, False, np.True_, np.False_])
def test_booleans_of_python_and_numpy_are_flags(value: Any) -> None:
    assert checked_flag("reset", value) is bool(value)


@pytest.mark.parametrize("value", ["no", 0, 1, None, [], np.zeros(1, dtype=bool)])
def test_nothing_else_is(value: Any) -> None:
    with pytest.raises(PlanError, match="reset must be True or False, got"):
        checked_flag("reset", value)


def test_several_flags_are_checked_by_name() -> None:
    check_flags(reset=True, overwrite=np.False_)
    with pytest.raises(PlanError, match="overwrite must be True or False, got 'no'"):
        check_flags(reset=True, overwrite="no")
