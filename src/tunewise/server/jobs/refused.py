"""Why a request about a job is not fulfilled; each dialect has its own words and statuses."""

from __future__ import annotations


class JobRefused(Exception):
    """A request about a job that cannot be fulfilled.

    Attributes:
        code: ``job_not_found``, ``model_not_found``, ``permission_not_found``, ``invalid_file``,
            ``invalid_hyperparameter``, ``invalid_method``, ``invalid_grader``, ``wrong_state``,
            ``too_many_jobs``, ``project_not_found``; each dialect has its own words and statuses
            for them.
        message: what is wrong, for the user.
        param: which field of the request.
    """

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
