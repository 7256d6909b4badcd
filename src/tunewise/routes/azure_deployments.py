"""Azure deployments: a tuned model is asked only through one, and one bills by the hour.

Resource Manager's own API; shapes from ``Microsoft.CognitiveServices`` 2024-10-01.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunewise.errors import StudyError, TrainingError
from tunewise.models.retry import Patience, retry_after
from tunewise.study.keys import parse_base_url, redact, resolve_key

if TYPE_CHECKING:
    import httpx2

MANAGEMENT_URL = "https://management.azure.com"
API_VERSION = "2024-10-01"
TOKEN = "AZURE_MANAGEMENT_TOKEN"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._()-]{0,89}")
_ENDED_BADLY = ("Failed", "Canceled", "Disabled", "Deleting")
_GET_TOKEN = (
    f"Get one and run again: export {TOKEN}=$(az account get-access-token "
    "--resource https://management.azure.com --query accessToken -o tsv)"
)


@dataclass(frozen=True, slots=True)
class Account:
    """Which Azure OpenAI resource deployments are made in.

    Attributes:
        management_url: of Resource Manager; AZURE_MANAGEMENT_ENDPOINT for other clouds.
    """

    management_url: str
    subscription: str
    resource_group: str
    name: str

    @classmethod
    def from_environment(cls, endpoint: str) -> Account:
        """From AZURE_SUBSCRIPTION_ID, AZURE_RESOURCE_GROUP and AZURE_OPENAI_ACCOUNT.

        Args:
            endpoint: of the resource; its first label is the account's name where none is set.

        Raises:
            StudyError: one is missing, or cannot be a name.
        """
        host = parse_base_url(endpoint).host
        own = host.partition(".")[0] if host.endswith(".openai.azure.com") else ""
        found = {
            "AZURE_SUBSCRIPTION_ID": os.environ.get("AZURE_SUBSCRIPTION_ID", ""),
            "AZURE_RESOURCE_GROUP": os.environ.get("AZURE_RESOURCE_GROUP", ""),
            "AZURE_OPENAI_ACCOUNT": os.environ.get("AZURE_OPENAI_ACCOUNT") or own,
        }
        for name, value in found.items():
            if not _NAME.fullmatch(value):
                raise StudyError(
                    f"the environment variable {name} "
                    + ("holds no name" if value else "is not set"),
                    where="fine_tune.hosted.deploy",
                    hint="A deployment needs the subscription, the resource group and the "
                    "resource's name; the portal shows them on the resource's first page.",
                )
        url = os.environ.get("AZURE_MANAGEMENT_ENDPOINT", "").strip().rstrip("/")
        return cls(url or MANAGEMENT_URL, *found.values())

    def path(self, deployment: str) -> str:
        """Of one deployment, in Resource Manager's URLs."""
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}/providers/"
            f"Microsoft.CognitiveServices/accounts/{self.name}/deployments/{deployment}"
        )


class Deployments:
    """The deployments of one account. The token is read anew each time: it lives an hour."""

    def __init__(
        self, account: Account, *, patience: Patience | None = None, poll_seconds: float = 5.0
    ) -> None:
        self.account = account
        self.patience = patience or Patience(attempts=6, total_s=180.0, first_s=2.0)
        self.poll_seconds = poll_seconds

    def create(self, name: str, model: str, *, sku: str, capacity: int) -> None:
        """Deploy a model and wait until Resource Manager calls it done; twice is once.

        Args:
            name: of the deployment.
            model: the tuned model's own name, or a checkpoint's id.

        Raises:
            TrainingError: refused, failed, or not done in an hour.
        """
        body = {
            "sku": {"name": sku, "capacity": capacity},
            "properties": {"model": {"format": "OpenAI", "name": model, "version": "1"}},
        }
        state = _state(self._call("PUT", name, body))
        end = time.monotonic() + 3600
        while state != "Succeeded":
            if state in _ENDED_BADLY:
                raise TrainingError(
                    f"the deployment ended as {state}",
                    where=name,
                    hint="Look at it in the portal; quota for this type of deployment is the "
                    "usual reason. Delete it there before the next attempt.",
                )
            if time.monotonic() > end:
                raise TrainingError("the deployment is not done after an hour", where=name)
            time.sleep(self.poll_seconds)
            state = _state(self._call("GET", name))

    def get(self, name: str) -> Mapping[str, Any] | None:
        """A deployment as Resource Manager shows it, or None.

        Raises:
            TrainingError: refused.
        """
        return self._call("GET", name, missing_is_fine=True)

    def delete(self, name: str) -> None:
        """Delete a deployment, which ends its bill; the model stays. One that is gone is fine.

        Raises:
            TrainingError: refused.
        """
        self._call("DELETE", name, missing_is_fine=True)

    def _call(
        self,
        method: str,
        name: str,
        body: Mapping[str, Any] | None = None,
        *,
        missing_is_fine: bool = False,
    ) -> Mapping[str, Any] | None:
        import httpx2

        url = self.account.management_url + self.account.path(name)
        attempts = self.patience.start()
        with httpx2.Client(follow_redirects=False, timeout=60.0) as client:
            while True:
                key = resolve_key(f"${{{TOKEN}}}", self.account.management_url)
                wait: float | None = None
                try:
                    answer = client.request(
                        method,
                        url,
                        params={"api-version": API_VERSION},
                        json=body,
                        headers={"Authorization": f"Bearer {key}"},
                    )
                except httpx2.TransportError as error:
                    failure = TrainingError(
                        f"Azure's Resource Manager cannot be reached: {redact(str(error))}",
                        where=self.account.management_url,
                        hint="Run the same again; nothing is deployed twice.",
                    )
                else:
                    if answer.is_success:
                        return _json(answer)
                    if answer.status_code == 404 and missing_is_fine:
                        return None
                    failure = _refusal(answer, name)
                    if answer.status_code not in (409, 429) and answer.status_code < 500:
                        raise failure
                    wait = retry_after(answer.headers)
                # All three verbs may be repeated: they say how it shall be, not what to add.
                if (pause := attempts.next_pause(wait)) is None:
                    raise failure
                time.sleep(pause)


def _state(value: Mapping[str, Any] | None) -> str:
    properties = (value or {}).get("properties") or {}
    return str(properties.get("provisioningState", ""))


def _json(answer: httpx2.Response) -> Mapping[str, Any]:
    try:
        value = answer.json()
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _refusal(answer: httpx2.Response, name: str) -> TrainingError:
    error = _json(answer).get("error")
    said = error if isinstance(error, dict) else {}
    text = " ".join(str(said.get(k, "")) for k in ("code", "message")).strip()
    text = redact(text)[:300] or "no reason given"
    if answer.status_code in (401, 403):
        hint = f"The token may have expired (they last about an hour). {_GET_TOKEN}"
    elif answer.status_code == 404:
        hint = (
            "Check AZURE_SUBSCRIPTION_ID, AZURE_RESOURCE_GROUP and AZURE_OPENAI_ACCOUNT, and that "
            "the model was tuned in this resource."
        )
    elif answer.status_code == 409:
        hint = "A deployment of this name serves another model, or is being changed: look at it."
    else:
        hint = "Look at the account's quota and at the type of deployment."
    return TrainingError(
        f"Azure refused the deployment: {answer.status_code}: {text}", where=name, hint=hint
    )
