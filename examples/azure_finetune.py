"""Fine-tune, deploy and ask a model by Azure OpenAI's API.

The steps of Microsoft's tutorial: upload two files, make a job, poll it, read events, checkpoints
and the result file, deploy the tuned model through Resource Manager, ask the deployment. Only the
environment says where::

    export AZURE_OPENAI_ENDPOINT=https://NAME.openai.azure.com
    export AZURE_OPENAI_API_KEY=...
    export AZURE_SUBSCRIPTION_ID=...  AZURE_RESOURCE_GROUP=...  AZURE_OPENAI_ACCOUNT=NAME
    export AZURE_MANAGEMENT_TOKEN=$(az account get-access-token --query accessToken -o tsv)
    python examples/azure_finetune.py training.jsonl validation.jsonl

Against `tunewise serve`, both AZURE_OPENAI_ENDPOINT and AZURE_MANAGEMENT_ENDPOINT are its address
(without ``/v1``). At Azure a deployment bills by the hour until it is deleted; the last line
printed says how.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import httpx2
from openai import AzureOpenAI, NotFoundError

MODEL = "gpt-4o-mini-2024-07-18"
API_VERSION = os.environ.get("AZURE_OPENAI_API_VERSION", "2024-10-21")
MANAGEMENT_VERSION = "2024-10-01"
DEPLOYMENT = "tuned-by-tutorial"
READY_SECONDS = 1800.0


def upload(client: AzureOpenAI, path: Path) -> str:
    """Upload a file and wait until Azure has checked it; its id."""
    made = client.files.create(file=(path.name, path.read_bytes()), purpose="fine-tune")
    checked = client.files.wait_for_processing(made.id, poll_interval=1.0)
    if checked.status != "processed":
        raise SystemExit(f"{path}: {checked.status_details or checked.status}")
    return made.id


def finished_job(client: AzureOpenAI, job_id: str, every_s: float) -> Any:
    """Print each new status of a job until it is over."""
    last = None
    while True:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if job.status != last:
            print(f"Status: {job.status}")
            last = job.status
        if job.status in ("succeeded", "failed", "cancelled"):
            return job
        time.sleep(every_s)


def deployment_url() -> str:
    """Of the deployment in Resource Manager."""
    host = os.environ.get("AZURE_MANAGEMENT_ENDPOINT", "https://management.azure.com")
    return (
        f"{host}/subscriptions/{os.environ['AZURE_SUBSCRIPTION_ID']}"
        f"/resourceGroups/{os.environ['AZURE_RESOURCE_GROUP']}"
        f"/providers/Microsoft.CognitiveServices/accounts/{os.environ['AZURE_OPENAI_ACCOUNT']}"
        f"/deployments/{DEPLOYMENT}"
    )


def deploy(model: str, every_s: float) -> None:
    """Deploy a tuned model and wait until Resource Manager calls it done."""
    with httpx2.Client(
        params={"api-version": MANAGEMENT_VERSION},
        headers={"Authorization": f"Bearer {os.environ['AZURE_MANAGEMENT_TOKEN']}"},
        timeout=60,
    ) as manager:
        answer = manager.put(
            deployment_url(),
            json={
                "sku": {"name": "standard", "capacity": 1},
                "properties": {"model": {"format": "OpenAI", "name": model, "version": "1"}},
            },
        )
        while True:
            if answer.is_error:
                raise SystemExit(f"Resource Manager refused: {answer.status_code} {answer.text}")
            state = answer.json()["properties"]["provisioningState"]
            print(f"Deployment: {state}")
            if state == "Succeeded":
                return
            if state in ("Failed", "Canceled", "Disabled", "Deleting"):
                raise SystemExit("The deployment cannot be used.")
            time.sleep(every_s)
            answer = manager.get(deployment_url())


def ask(client: AzureOpenAI, text: str, every_s: float) -> str:
    """Ask the deployment; it may need some minutes after it is called done."""
    end = time.monotonic() + READY_SECONDS
    while True:
        try:
            answer = client.chat.completions.create(
                model=DEPLOYMENT,
                messages=[{"role": "user", "content": text}],
                temperature=0,
                max_tokens=60,
            )
        except NotFoundError:  # DeploymentNotReady
            if time.monotonic() > end:
                raise
            time.sleep(every_s)
        else:
            return answer.choices[0].message.content or ""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("training", type=Path, help="JSON Lines of conversations, at least 10")
    parser.add_argument("validation", type=Path)
    parser.add_argument("--ask", default="Hello", help="a question for the deployment")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two looks")
    options = parser.parse_args()

    client = AzureOpenAI(
        azure_endpoint=os.environ["AZURE_OPENAI_ENDPOINT"],
        api_key=os.environ["AZURE_OPENAI_API_KEY"],
        api_version=API_VERSION,
    )
    training_id, validation_id = (upload(client, p) for p in (options.training, options.validation))

    job = client.with_options(max_retries=0).fine_tuning.jobs.create(
        model=MODEL,
        training_file=training_id,
        validation_file=validation_id,
        seed=105,
        suffix="tutorial",
        # Without it Azure says that the model does not support fine-tuning.
        extra_body={"trainingType": "Standard"},
    )
    print(f"Job {job.id}")
    job = finished_job(client, job.id, options.every)
    for event in reversed(list(client.fine_tuning.jobs.list_events(job.id, limit=100))):
        print(event.message)
    if job.fine_tuned_model is None:
        raise SystemExit(f"The job {job.status}: {job.error.message if job.error else 'no reason'}")
    for checkpoint in client.fine_tuning.jobs.checkpoints.list(job.id, limit=10):
        print(f"Step {checkpoint.step_number}: {checkpoint.fine_tuned_model_checkpoint}")
    if job.result_files:
        header, *lines = client.files.content(job.result_files[0]).text.splitlines()
        print(f"Result file: {len(lines)} steps of {header}")

    deploy(job.fine_tuned_model, options.every)
    print(f"Answer: {ask(client, options.ask, options.every)}")
    print(f"To end the hosting bill: az rest --method delete --url {deployment_url()}")


if __name__ == "__main__":
    main()
