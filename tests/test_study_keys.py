"""Keys go to their own hosts only, and into no message."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewise.errors import StudyError
from tunewise.study.keys import parse_base_url, redact, resolve_key
from tunewise.study.loading import load_study

SECRET = "zq-9f8e7d6c5b4a-zq"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "HF_TOKEN", "MY_KEY"):
        monkeypatch.setenv(name, SECRET)
        monkeypatch.delenv(f"{name}_HOST", raising=False)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("OPENAI_API_KEY", "https://api.openai.com/v1"),
        ("OPENAI_API_KEY", "https://API.OpenAI.com:443"),
        ("AZURE_OPENAI_API_KEY", "https://mine.openai.azure.com/openai/v1/"),
        ("AZURE_OPENAI_API_KEY", "https://a-b.services.ai.azure.com/models"),
        ("AZURE_OPENAI_API_KEY", "https://x.cognitiveservices.azure.com"),
        ("HF_TOKEN", "https://router.huggingface.co/v1"),
        ("HF_TOKEN", "https://huggingface.co"),
    ],
)
def test_known_keys_go_home(name: str, url: str) -> None:
    assert resolve_key(f"${{{name}}}", url) == SECRET


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("OPENAI_API_KEY", "https://evil.example/v1"),
        ("OPENAI_API_KEY", "https://api.openai.com.evil.example/v1"),
        ("OPENAI_API_KEY", "https://evil.example/api.openai.com"),
        ("OPENAI_API_KEY", "https://xapi.openai.com/v1"),
        ("OPENAI_API_KEY", "https://api.openai.com@evil.example/v1"),
        ("OPENAI_API_KEY", "https://api.openai.com:x@evil.example/v1"),
        ("OPENAI_API_KEY", "https://evil.example#@api.openai.com"),
        ("OPENAI_API_KEY", "https://evil.example?@api.openai.com"),
        ("OPENAI_API_KEY", "https://evil.example\\@api.openai.com"),
        ("OPENAI_API_KEY", "https://api.openai.com\\.evil.example"),
        ("OPENAI_API_KEY", "https://api.openai.com%2eevil.example/"),
        ("OPENAI_API_KEY", "https://api.openai.com%00.evil.example/"),
        ("OPENAI_API_KEY", "https://api.openai.com\n.evil.example/"),
        ("OPENAI_API_KEY", " https://api.openai.com/"),
        ("OPENAI_API_KEY", "https:/\\api.openai.com/"),
        ("OPENAI_API_KEY", "https:api.openai.com/"),
        ("OPENAI_API_KEY", "//api.openai.com/"),
        ("OPENAI_API_KEY", "https://api.openai.com./v1"),
        ("OPENAI_API_KEY", "https://api..openai.com/v1"),
        ("OPENAI_API_KEY", "https://api.openai.com:8443/v1"),
        ("OPENAI_API_KEY", "https://api.openai.com:99999/v1"),
        ("OPENAI_API_KEY", "https://api.openai.com:/v1"),
        ("OPENAI_API_KEY", "https://аpi.openai.com/v1"),
        ("OPENAI_API_KEY", "https://api。openai。com/v1"),
        ("OPENAI_API_KEY", "https://xn--pi-7kc.openai.com/v1"),
        ("OPENAI_API_KEY", "http://api.openai.com/v1"),
        ("OPENAI_API_KEY", "ftp://api.openai.com/v1"),
        ("OPENAI_API_KEY", "http://localhost:8000/v1"),
        ("OPENAI_API_KEY", "https://${HOST}/v1"),
        ("OPENAI_API_KEY", ""),
        ("AZURE_OPENAI_API_KEY", "https://openai.azure.com"),
        ("AZURE_OPENAI_API_KEY", "https://.openai.azure.com"),
        ("AZURE_OPENAI_API_KEY", "https://evilopenai.azure.com"),
        ("AZURE_OPENAI_API_KEY", "https://x.openai.azure.com.evil.example"),
        ("HF_TOKEN", "https://user.huggingface.co"),
        ("HF_TOKEN", "https://hf.co"),
        ("MY_KEY", "https://evil.example/v1"),
        ("MY_KEY", "http://localhost:8000/v1"),
    ],
)
def test_no_key_goes_elsewhere(name: str, url: str) -> None:
    with pytest.raises(StudyError) as caught:
        resolve_key(f"${{{name}}}", url)
    assert SECRET not in str(caught.value)
    assert caught.value.where is not None


def test_a_key_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def goes(url: str, hosts: str) -> bool:
        monkeypatch.setenv("MY_KEY_HOST", hosts)
        try:
            return resolve_key("${MY_KEY}", url) == SECRET
        except StudyError:
            return False

    assert goes("https://llm.example/v1", "llm.example")
    assert goes("https://llm.example:8443/v1", "llm.example")
    assert goes("https://LLM.example/v1", "other.example, llm.example:443")
    assert goes("http://localhost:8000/v1", "localhost:8000")
    assert goes("http://127.0.0.1:8000/v1", "127.0.0.1")
    assert goes("http://[::1]:8000/v1", "[::1]:8000")
    assert not goes("http://localhost:8001/v1", "localhost:8000")
    assert not goes("https://sub.llm.example/v1", "llm.example")
    assert not goes("https://llm.example/v1", "*.example")
    assert not goes("https://llm.example/v1", "*")
    assert not goes("https://llm.example/v1", "")
    # Named by the user, but the way there is open to all.
    assert not goes("http://llm.example/v1", "llm.example")
    for odd in ("http://127.1/v1", "http://0x7f.0.0.1/v1", "http://2130706433/v1"):
        assert not goes(odd, "127.1,0x7f.0.0.1,2130706433,127.0.0.1")


def test_the_error_says_why_and_what_to_set() -> None:
    with pytest.raises(StudyError) as caught:
        resolve_key("${MY_KEY}", "https://evil.example:8443/v1")
    assert "MY_KEY is not sent to evil.example:8443" in caught.value.message
    assert caught.value.hint is not None
    assert "export MY_KEY_HOST=evil.example:8443" in caught.value.hint
    with pytest.raises(StudyError) as caught:
        resolve_key("${OPENAI_API_KEY}", "https://proxy.example/v1")
    assert "it belongs to api.openai.com" in caught.value.message
    assert caught.value.hint is not None
    assert "MY_KEY_HOST=proxy.example" in caught.value.hint


@pytest.mark.parametrize("reference", [SECRET, "$MY_KEY", "${MY_KEY}x", "${}", "${MY KEY}", ""])
def test_only_a_reference_is_a_reference(reference: str) -> None:
    with pytest.raises(StudyError, match="never as itself") as caught:
        resolve_key(reference, "https://api.openai.com/v1")
    assert SECRET not in str(caught.value)


def test_missing_and_broken_values(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://api.openai.com/v1"
    for value in ("", "  "):
        monkeypatch.setenv("OPENAI_API_KEY", value)
        with pytest.raises(StudyError, match="OPENAI_API_KEY is not set"):
            resolve_key("${OPENAI_API_KEY}", url)
    for value in ("abc\r\nHost: evil", "ключ-ключ", "two words"):
        monkeypatch.setenv("OPENAI_API_KEY", value)
        with pytest.raises(StudyError, match="not a key") as caught:
            resolve_key("${OPENAI_API_KEY}", url)
        assert value not in str(caught.value)
    monkeypatch.setenv("OPENAI_API_KEY", f" {SECRET}\n")
    assert resolve_key("${OPENAI_API_KEY}", url) == SECRET


def test_a_key_written_into_a_study_is_refused_and_not_repeated(tmp_path: object) -> None:
    from pathlib import Path

    file = Path(str(tmp_path)) / "study.yaml"
    for line in (f"api_key: {SECRET}", f"api_kye: {SECRET}", f"api_key: [{SECRET}]"):
        file.write_text(
            f"name: r\nmetric: exact_match\nservers:\n  s:\n    base_url: http://x/v1\n    {line}\n"
        )
        with pytest.raises(StudyError) as caught:
            load_study(file)
        assert SECRET not in str(caught.value)
        assert caught.value.where is not None
        assert ":6: servers.s.api_k" in caught.value.where


@pytest.mark.parametrize(
    "text",
    [
        f"failed with {SECRET}!",
        "key sk-proj-abcdefghijklmnopqrstuv refused",
        "hf_abcdefghijklmnopqrstuvwxyz",
        "Authorization: Bearer abcdefghij.klmnop",
        "https://user:hunter2@host/path",
        "https://host/x?api-key=abcdef123&n=1",
        '{"api_key": "abcdefghijklmnop"}',
        "ghp_abcdefghijklmnopqrstuvwxyz0123",
        "AKIAABCDEFGHIJKLMNOP",
    ],
)
def test_redaction(text: str) -> None:
    cleaned = redact(text)
    assert "[secret]" in cleaned
    for part in (SECRET, "abcdefghij", "hunter2", "abcdef123", "ABCDEFGHIJ"):
        assert part not in cleaned


@pytest.mark.parametrize(
    "text",
    [
        "study.yaml:7: data.exmples: unknown key. Did you mean `data.examples`?",
        "write `api_key: ${NAME}` of an environment variable",
        "the tokens of the answer: 123456789012",
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "https://host:8000/v1",
        "no password is needed",
    ],
)
def test_redaction_leaves_other_text_alone(text: str) -> None:
    assert redact(text) == text


def test_a_resolved_key_is_hidden_whatever_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYTHING", "plain+value/42")
    monkeypatch.setenv("MYTHING_HOST", "llm.example")
    assert "plain+value/42" in redact("got plain+value/42")
    resolve_key("${MYTHING}", "https://llm.example")
    assert redact("got plain+value/42") == "got [secret]"
    assert redact("?q=plain%2Bvalue%2F42") == "?q=[secret]"


@settings(max_examples=200, deadline=None)
@given(
    prefix=st.text(alphabet="htps:/\\@.#? \t%0aЖ", max_size=12),
    suffix=st.text(alphabet="/@:.#?\\%\t evil-0x", max_size=12),
)
def test_no_url_around_the_right_host_leads_elsewhere(prefix: str, suffix: str) -> None:
    """What is accepted goes to api.openai.com by the standard library's reading, too."""
    from urllib.parse import urlsplit

    for url in (f"{prefix}api.openai.com{suffix}", f"https://{prefix}api.openai.com{suffix}"):
        try:
            resolve_key("${OPENAI_API_KEY}", url)
        except StudyError as error:
            assert SECRET not in str(error)
        else:
            assert urlsplit(url).hostname == "api.openai.com"
            assert urlsplit(url).scheme == "https"


@settings(max_examples=100, deadline=None)
@given(before=st.text(max_size=20), after=st.text(max_size=20))
def test_a_secret_is_redacted_wherever_it_stands(before: str, after: str) -> None:
    assert SECRET not in redact(before + SECRET + after)


def test_addresses() -> None:
    address = parse_base_url("http://[::1]:8000/v1")
    assert (address.host, address.port, address.is_loopback) == ("[::1]", 8000, True)
    assert parse_base_url("https://127.0.0.2").is_loopback
    assert not parse_base_url("https://localhost.evil.example").is_loopback
    assert not parse_base_url("https://128.0.0.1").is_loopback
    for bad in ("http://[::zz]/", "http://999.1.1.1", "http://1.2.3"):
        with pytest.raises(StudyError):
            parse_base_url(bad)
