"""Run the server: take the folder and the port, say where it is, stop when asked."""

from __future__ import annotations

import errno
import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from tunewise.crash import FOLDER, log_to_stderr
from tunewise.errors import UsageError, WorkspaceError
from tunewise.server.home import lock_home
from tunewise.server.settings import ServerSettings

if TYPE_CHECKING:
    from tunewise.server.state import ServerState

_GRACE_SECONDS = 15


def run(
    settings: ServerSettings, say: Callable[[str], object], fixtures: Path | None = None
) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        say: prints a line for the user.
        fixtures: a file of objects under fixed ids, for the tests of a client.

    Raises:
        UsageError: without keys it would listen to other machines, the address cannot be, or the
            fixtures cannot be read.
        WorkspaceError: the port or the folder is taken, or the database cannot be used.
    """
    if not settings.auth and not _loopback(settings.host):
        raise UsageError(
            f"without keys anybody who reaches {settings.host} could use the server",
            where="--no-auth",
            hint="Leave out --host (it listens on 127.0.0.1 then), or leave out --no-auth.",
        )
    # A stop while the server starts ends the process as quietly as one later.
    signal.signal(signal.SIGTERM, _leave)
    listener = _listen(settings)
    with listener, lock_home(settings.home):
        # Imported late: what is wrong so far is said without waiting for the web framework.
        import uvicorn

        from tunewise.server.alone import only_server
        from tunewise.server.app import create_app
        from tunewise.server.connections import allow_many_files, protocol
        from tunewise.server.fixtures import load_fixtures
        from tunewise.server.fsck import require_whole_database

        allow_many_files()
        seeded = load_fixtures(fixtures) if fixtures is not None else None
        os.environ[FOLDER] = str(settings.home / "crashes")  # the engine's and the jobs' too
        log_to_stderr("%(levelname)s %(name)s: %(message)s")
        with only_server(settings.database_url):
            require_whole_database(settings.database_url)
            app = create_app(settings, seeded)
            _greet(settings, app.state.tunewise, _url(settings, listener), say)
            config = uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE_SECONDS,
                lifespan="on",
                http=protocol(settings.body_seconds),
                ws="none",
            )
            try:
                uvicorn.Server(config).run(sockets=[listener])
            except KeyboardInterrupt:
                pass
            finally:
                say("Stopped.")


def _listen(settings: ServerSettings) -> socket.socket:
    where = f"{settings.host}:{settings.port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # The protocol is told: asyncio sets TCP_NODELAY only where it stands in the socket, and
        # without it every answer on a kept connection waits 40 ms for the client's acknowledgement.
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(256)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise WorkspaceError(
                "the port is taken by another program",
                where=where,
                hint="Choose another with --port; --port 0 takes a free one.",
            ) from error
        raise UsageError(f"cannot listen here: {error.strerror}", where=where) from error
    return listener


def _url(settings: ServerSettings, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{port}"


def _greet(
    settings: ServerSettings, state: ServerState, url: str, say: Callable[[str], object]
) -> None:
    say(f"Tunewise serves on {url}/v1")
    say(f"Data: {settings.home}")
    if not settings.auth:
        say("WARNING: no keys are asked for. Every program on this machine can use the server.")
        return
    from tunewise.server.database import reading
    from tunewise.server.tables import ApiKey

    with reading(state.sessions) as session:
        known = session.query(ApiKey).filter(ApiKey.revoked_at.is_(None)).count()
    if not known:
        say(f"There is no key yet. Make one: tunewise server key create --home {settings.home}")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)
