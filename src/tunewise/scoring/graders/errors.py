"""The error of a grader that cannot be meant as written."""

from __future__ import annotations

from tunewise.errors import TunewiseError


class GraderError(TunewiseError):
    """A bad grader; ``where`` is the path of the bad value, such as ``grader.graders.a.input``."""

    exit_code = 2
