"""A file from an address that a user gives, without becoming the user's way into our network.

Every hop is resolved here, all its addresses must be public, and the connection goes to one of
those addresses and not to the name: what was checked is what is connected to. Proxies, cookies and
keys are never used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from tunewise.server.errors import ApiError

if TYPE_CHECKING:
    import httpx2

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MOST_HOPS = 6
WAIT_SECONDS = 15.0
"""For a connection, and for the next bytes."""

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_METADATA = ipaddress.ip_address("168.63.129.16")  # Azure's own, though it counts as public


async def fetch(
    url: str,
    write: Callable[[bytes], Awaitable[object]],
    *,
    most: int,
    seconds: float,
    allowed: Collection[str] = (),
) -> None:
    """Read ``url`` and give its bytes to ``write`` as they come.

    Args:
        most: bytes that it may have.
        seconds: that everything together may take.
        allowed: hosts that may have a private address: ``name`` for its scheme's own port, or
            ``name:port``.

    Raises:
        ApiError: 400; it is no address to fetch from, or does not give the file. What stands
            behind the host is not repeated: it may be signed.
    """
    import httpx2

    try:
        async with asyncio.timeout(seconds), AsyncExitStack() as stack:
            answer = await _follow(stack, url, {name.lower() for name in allowed})
            await _read(answer, write, most)
    except TimeoutError:
        raise refused(f"It did not come within {seconds:g} seconds.") from None
    except httpx2.InvalidURL:
        raise refused("It is not a URL.") from None
    except httpx2.HTTPError as error:
        raise refused(f"The connection failed ({type(error).__name__}).") from None


def refused(reason: str) -> ApiError:
    """Why a file could not be imported."""
    return ApiError(
        400,
        f"The file cannot be imported from content_url. {reason}",
        code="file_import_failed",
        param="content_url",
    )


def is_public(address: Address) -> bool:
    """Whether an address is one of the internet's, that anybody could reach without us."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.sixtofour is not None or address.teredo is not None:
            return False  # tunnels to any IPv4 address
    # Reserved is also the old form of IPv4 in IPv6, `::a.b.c.d`.
    special = address.is_multicast or address.is_reserved or address == _METADATA
    return address.is_global and not special


async def _follow(stack: AsyncExitStack, start: str, allowed: Collection[str]) -> httpx2.Response:
    """The answer at the end of all redirects, its body unread."""
    import httpx2

    url = httpx2.URL(start)
    for _ in range(MOST_HOPS):
        addresses = await _checked(url, allowed)
        client = await stack.enter_async_context(
            httpx2.AsyncClient(trust_env=False, follow_redirects=False, timeout=WAIT_SECONDS)
        )
        answer = await _ask(client, url, addresses)
        stack.push_async_callback(answer.aclose)
        if answer.status_code not in _REDIRECTS:
            return answer
        target = url.join(answer.headers.get("location", ""))
        if url.scheme == "https" and target.scheme != "https":
            raise refused("It redirects from https to another scheme.")
        url = target
    raise refused("It redirects too often.")


async def _checked(url: httpx2.URL, allowed: Collection[str]) -> list[Address]:
    """The addresses of a URL's host, all of them fit to be connected to."""
    if url.scheme not in _PORTS or not url.host:
        raise refused("It must begin with http:// or https:// and a host.")
    if url.userinfo:
        raise refused("It holds a user name or password; sign it in its query instead.")
    port = url.port or _PORTS[url.scheme]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            url.host, port, type=socket.SOCK_STREAM
        )
    except (OSError, UnicodeError):
        raise refused(f"The host '{url.host[:100]}' is not known.") from None
    addresses = [ipaddress.ip_address(entry[4][0]) for entry in found]
    own_port = port == _PORTS[url.scheme]
    names = {f"{url.host}:{port}"} | ({url.host} if own_port else set())
    if names.isdisjoint(allowed) and not all(map(is_public, addresses)):
        raise refused(
            f"The host '{url.host[:100]}' is not on the public internet, and this server fetches "
            "from nowhere else. Upload the file itself, or let the server's administrator add "
            "the host to `import_hosts`."
        )
    return addresses


async def _ask(
    client: httpx2.AsyncClient, url: httpx2.URL, addresses: list[Address]
) -> httpx2.Response:
    """The answer of the first address that can be connected to."""
    import httpx2

    failure: httpx2.TransportError | None = None
    for address in addresses:
        request = client.build_request(
            "GET",
            url.copy_with(host=str(address), fragment=None),
            headers={"Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity"},
            extensions={"sni_hostname": url.raw_host.decode("ascii")},
        )
        try:
            return await client.send(request, stream=True)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            failure = error
    assert failure is not None  # getaddrinfo gives one address or fails
    raise failure


async def _read(
    answer: httpx2.Response, write: Callable[[bytes], Awaitable[object]], most: int
) -> None:
    if answer.status_code != 200:
        raise refused(f"Its host answered with status {answer.status_code}.")
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise refused("Its host sends it compressed, which was not asked for.")
    too_large = refused(f"It is larger than the {most:,} bytes that this server takes.")
    announced = answer.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > most:
        raise too_large
    received = 0
    async for data in answer.aiter_raw():
        received += len(data)
        if received > most:
            raise too_large
        await write(data)
