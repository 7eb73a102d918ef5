"""How many random examples do property tests try, and are they the same ones in every run?

``dev`` (the default) looks for new examples in each run and remembers failures; ``ci`` always tries the same ones,
so that a red build is the fault of the change. Choose with the environment variable ``HYPOTHESIS_PROFILE``.
"""

from __future__ import annotations

import os

from hypothesis import settings

# No deadline: how long an example takes depends on the machine, and says nothing about the code.
settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=75, deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
