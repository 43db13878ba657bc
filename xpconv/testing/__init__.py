"""Checks for arrays and operators of any library: for this project's tests and for users' own.

`assert_close` compares an array with what was wanted, `check_adjoint` holds a linear map to its adjoint, and
`check_vjp` holds every gradient of an operator to finite differences, with a few evaluations at any size. The pytest
fixture ``backend`` is in `xpconv.testing.plugin`; nothing else here needs pytest.
"""

from xpconv.testing.comparison import assert_close
from xpconv.testing.gradients import check_adjoint, check_vjp

__all__ = ["assert_close", "check_adjoint", "check_vjp"]
