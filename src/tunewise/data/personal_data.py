"""Personal data and secrets in text: which kinds are there, never the values themselves."""

from __future__ import annotations

import re

_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}\b")
# International with +, or North American with separators; bare digit runs are too often amounts.
_PHONE = re.compile(
    r"(?<![\w+])\+[1-9]\d{0,2}[ .()-]{0,2}(?:\d[ .()-]{0,2}){6,12}\d(?!\w)"
    r"|(?<![\w.-])\(?[2-9]\d{2}\)?[ .-]{1,2}\d{3}[ .-]\d{4}(?![\w-])"
)
_CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])")
# What issuers' numbers begin with: Visa, Mastercard, American Express, Discover and UnionPay.
_ISSUERS = re.compile(r"4|5[1-5]|2[2-7]|3[47]|6[0245]")
_OPERATORS = frozenset("*+/=×÷^%<>")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b")
_KEYS = re.compile(
    r"\bsk-(?:proj-|ant-|or-|svcacct-)?[A-Za-z0-9_-]{20,}"  # OpenAI and its imitators
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"  # AWS
    r"|\bgh[pousr]_[A-Za-z0-9]{36,}|\bgithub_pat_[A-Za-z0-9_]{22,}"
    r"|\bhf_[A-Za-z0-9]{30,}"  # Hugging Face
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,}"  # Slack
    r"|\bAIza[0-9A-Za-z_-]{35}"  # Google
    r"|-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----"
)
_KEY_MARKS = ("sk-", "AKIA", "ASIA", "gh", "hf_", "xox", "AIza", "PRIVATE KEY")
_DIGITS = re.compile(r"\d{2}")

KINDS = {
    "email": "e-mail addresses",
    "phone": "telephone numbers",
    "card": "payment card numbers",
    "iban": "bank account numbers (IBAN)",
    "secret": "keys or other secrets",
}


def personal_data(text: str) -> list[str]:
    """The kinds of personal data in ``text``: ``email``, ``phone``, ``card``, ``iban``, ``secret``.

    Card numbers begin as issuers' do, pass the Luhn check and stand in no calculation; IBANs pass
    the check of ISO 7064. So amounts and order numbers are not taken for them. Telephone numbers
    are found by their writing alone.
    """
    found = []
    if "@" in text and _EMAIL.search(text):
        found.append("email")
    if _DIGITS.search(text):
        if _PHONE.search(text):
            found.append("phone")
        if any(_card(match, text) for match in _CARD.finditer(text)):
            found.append("card")
        if any(_iban(match.group()) for match in _IBAN.finditer(text)):
            found.append("iban")
    for mark in _KEY_MARKS:
        if mark in text:
            if _KEYS.search(text):
                found.append("secret")
            break
    return found


def _card(match: re.Match[str], text: str) -> bool:
    beside = text[: match.start()].rstrip()[-1:] + text[match.end() :].lstrip()[:1]
    if not _ISSUERS.match(match.group()) or _OPERATORS.intersection(beside):
        return False
    return _luhn(match.group())


def _luhn(text: str) -> bool:
    digits = [int(c) for c in text if c.isdigit()]
    if len(set(digits)) < 2:
        return False
    doubled = [sum(divmod(2 * d, 10)) for d in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _iban(text: str) -> bool:
    compact = text.replace(" ", "")
    if not 15 <= len(compact) <= 34:
        return False
    number = "".join(str(int(c, 36)) for c in compact[4:] + compact[:4])
    return int(number) % 97 == 1
