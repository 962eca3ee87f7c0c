"""Where a teacher may be asked: spellings of private addresses, secrets in URLs, names that resolve inwards."""

import asyncio
import socket

import pytest

from overproof.address import check_base_url, is_public
from overproof.data import Request
from overproof.errors import TeacherError
from overproof.task import Classes, Task
from overproof.teachers.openai import OpenAIOptions, OpenAITeacher

INWARD = [
    "https://localhost/v1", "https://LOCALHOST/v1", "https://localhost./v1", "https://api.localhost/v1",
    "https://printer.local/v1", "https://metadata.google.internal/v1", "https://127.0.0.1/v1", "https://127.1/v1",
    "https://127.0.1/v1", "https://0/v1", "https://0.0.0.0/v1", "https://2130706433/v1", "https://0x7f000001/v1",
    "https://0x7f.0.0.1/v1", "https://0177.0.0.1/v1", "https://017700000001/v1", "https://127.0.0.1./v1",
    "https://10.0.0.1/v1", "https://10.1/v1", "https://172.16.3.4/v1", "https://172.31.255.255/v1",
    "https://192.168.1.1/v1", "https://192.168.257/v1", "https://169.254.169.254/v1", "https://0xa9fea9fe/v1",
    "https://2852039166/v1", "https://100.64.0.1/v1", "https://198.18.0.1/v1", "https://224.0.0.1/v1",
    "https://255.255.255.255/v1", "https://240.0.0.1/v1", "https://[::1]/v1", "https://[::]/v1",
    "https://[::ffff:127.0.0.1]/v1", "https://[::ffff:7f00:1]/v1", "https://[::ffff:169.254.169.254]/v1",
    "https://[::127.0.0.1]/v1", "https://[64:ff9b::7f00:1]/v1", "https://[64:ff9b::a9fe:a9fe]/v1",
    "https://[2002:7f00:1::]/v1", "https://[fe80::1]/v1", "https://[fc00::1]/v1", "https://[fd00:ec2::254]/v1",
    "https://[ff02::1]/v1", "https://[0:0:0:0:0:0:0:1]/v1", "https://[fe80::1%25eth0]/v1",
    "http://api.example.com/v1", "http+unix://%2Fvar%2Frun%2Fdocker.sock/v1", "file:///etc/passwd", "ftp://a.example/v1",
    "gopher://a.example/", "https:///v1", "https://", "//api.example.com/v1", "api.example.com/v1", "",
    "https://user:pw@api.example.com/v1", "https://127.0.0.1#@api.example.com/v1", "https://api.example.com/v1?x=1",
    "https://api.example.com\\@127.0.0.1/v1", "https://api.example.com/../x", "https://api.exa mple.com/v1",
    "https://api.example.com\r\nHost: x/v1", "https://①②⑦.⓪.⓪.①/v1", "https://api.example.com:99999/v1",
    "https://api.example.com:0/v1", "https://%31%32%37.0.0.1/v1", "https://[::1/v1",
]


@pytest.mark.parametrize("url", INWARD)
def test_no_spelling_of_an_inward_address_passes(url: str) -> None:
    """Loopback, private, link-local, metadata and malformed URLs are refused before anything is resolved."""
    with pytest.raises(TeacherError):
        check_base_url(url, allow_private=False)


@pytest.mark.parametrize("url", ["https://api.openai.com/v1", "https://8.8.8.8/v1", "https://[2606:4700::1111]/v1"])
def test_public_addresses_pass(url: str) -> None:
    """What is on the public network under https is admitted."""
    check_base_url(url, allow_private=False)


@pytest.mark.parametrize("url", ["http://localhost:8000/v1", "http://192.168.1.7:8000/v1", "http://[::1]:8000/v1"])
def test_a_self_hosted_model_is_admitted_by_name(url: str) -> None:
    """`allow_private` admits plain http and local addresses."""
    check_base_url(url, allow_private=True)


def test_a_password_in_the_url_is_not_repeated() -> None:
    """The error says that there is one, not what it is."""
    with pytest.raises(TeacherError) as caught:
        check_base_url("https://me:hunter2@api.example.com/v1", allow_private=False)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("address", ["10.0.0.5", "::ffff:10.0.0.5", "169.254.169.254", "fd00::1", "127.0.0.1"])
def test_a_name_that_resolves_inwards_is_fatal(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """The check is on the resolved address: a public name that points inside reaches nothing and stops the run."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(family, socket.SOCK_STREAM, 6, "", (address, 443, 0, 0)[: 2 if family == socket.AF_INET else 4])]
    )
    task = Task(name="t", input=("text",), output=Classes(labels=("a", "b")), prompt="p")
    teacher = OpenAITeacher(
        task=task, options=OpenAIOptions(model="m", base_url="https://rebind.example/v1", api_key_env=None)
    )

    async def once():
        try:
            return await teacher.attempt(Request(id="r", fields={"text": "x"}), sample_index=0)
        finally:
            await teacher.close()

    outcome = asyncio.run(once())
    assert (outcome.kind, outcome.sent) == ("fatal", False)
    assert "private" in outcome.reason


def test_wrapped_addresses_are_judged_by_what_they_wrap() -> None:
    """IPv4 inside IPv6 counts as the IPv4 address."""
    assert is_public("::ffff:8.8.8.8")
    assert is_public("64:ff9b::808:808")
    assert not is_public("64:ff9b::7f00:1")
