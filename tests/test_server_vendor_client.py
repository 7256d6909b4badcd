"""The `openai` package's own tests, run against our server.

They come with the package's source, which pip fetches; what they need beside pytest goes into a
folder of its own. They name objects that are in ``vendor_fixtures.yaml``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path
from xml.etree import ElementTree

import openai
import pytest

from server_support import running_server

FIXTURES = Path(__file__).parent / "vendor_fixtures.yaml"
MODELS = dict.fromkeys(("gpt-4o-mini", "gpt-6-astra"), "tunewise/tiny")
NEEDED = ("pytest-asyncio", "httpx-aiohttp", "aiohttp")
PARTS = (
    "test_files.py", "test_uploads.py", "uploads", "test_models.py", "fine_tuning",
    "test_batches.py",
)  # fmt: skip
PLACEHOLDERS = {
    "test_method_complete_with_all_params": "the md5 of the joined parts is given as 'md5'",
}
"""What no server can accept, and why."""

# The folder comes last on the path: it has a pytest of its own, and ours shall run.
RUN = "import sys; sys.path.append(sys.argv.pop(1)); import pytest; sys.exit(pytest.main())"


def pip(*arguments: object) -> None:
    """Run pip; the test is skipped where it cannot fetch."""
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    except subprocess.TimeoutExpired:
        pytest.skip("pip took too long to fetch the vendor's tests")
    if done.returncode:
        pytest.skip(f"pip cannot fetch the vendor's tests: {done.stderr.strip()[-200:]}")


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source of the installed version."""
    folder = tmp_path_factory.mktemp("vendor")
    version = openai.__version__
    source = ("--no-binary", "openai", "--no-deps", f"openai=={version}")
    pip("download", "-q", "-d", folder, *source)
    [archive] = folder.glob("openai-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    root = folder / f"openai-{version}"
    if not (root / "tests" / "api_resources").is_dir():
        pytest.skip("the source of this version comes without its tests")
    pip("install", "-q", "--target", folder / "needed", *NEEDED)
    return root


@pytest.mark.timeout(600)
def test_all_of_the_vendors_tests_pass(vendor: Path, tmp_path: Path) -> None:
    options = ("--seed-fixtures", FIXTURES)
    settings = {"auth": False, "workers": 0, "max_queued_jobs": 10_000, "max_batches": 10_000,
                "models": MODELS}  # fmt: skip
    with running_server(tmp_path, options=options, **settings) as running:
        done = subprocess.run(
            [sys.executable, "-c", RUN, vendor.parent / "needed", "-q", "-p", "no:cacheprovider",
             "-o", "addopts=", "--tb=short", f"--junitxml={tmp_path / 'report.xml'}",
             *(f"tests/api_resources/{part}" for part in PARTS)],
            cwd=vendor,
            env={**os.environ, "TEST_API_BASE_URL": running.base_url},
            capture_output=True,
            text=True,
            timeout=500,
        )  # fmt: skip
    assert done.returncode in (0, 1), done.stdout[-3000:] + done.stderr
    cases = list(ElementTree.parse(tmp_path / "report.xml").iter("testcase"))
    failed = {c.get("name", "") for c in cases if c.find("failure") is not None}
    failed |= {c.get("name", "") for c in cases if c.find("error") is not None}
    skipped = [c.get("name", "") for c in cases if c.find("skipped") is not None]
    unexpected = {name for name in failed if name.partition("[")[0] not in PLACEHOLDERS}
    assert not unexpected, done.stdout[-5000:]
    assert {name.partition("[")[0] for name in failed} == set(PLACEHOLDERS), "one is accepted now"
    assert len(cases) >= 500, "their tests lie elsewhere"
    assert all("aiohttp" in name for name in skipped), skipped  # they cannot mock that client
