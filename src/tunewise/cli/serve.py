"""The server's commands: start it, make keys for it, back it up."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Any

import typer

from tunewise.words import plural

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Where its data lie. [default: $TUNEWISE_HOME/server]"),
]
DatabaseOption = Annotated[
    str | None,
    typer.Option("--database", metavar="URL", help="PostgreSQL's URL. [default: SQLite in home]"),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings (YAML).")
]
ProjectOption = Annotated[str, typer.Option("--project", help="Whose files, models and jobs.")]

server = typer.Typer(
    help="Keys, backups and checks of the server that `tunewise serve` runs.", no_args_is_help=True
)
key = typer.Typer(help="Keys for the server's API.", no_args_is_help=True)
server.add_typer(key, name="key")


def serve(
    host: Annotated[
        str | None, typer.Option("--host", help="Address to listen on. [default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", help="0 takes a free one. [default: 8900]")
    ] = None,
    home: HomeOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Ask for no keys; this machine only.")
    ] = False,
    request_log: Annotated[
        str | None,
        typer.Option(
            "--request-log", metavar="FILE", help="A line of JSON a request; - is stdout."
        ),
    ] = None,
    seed_fixtures: Annotated[
        Path | None,
        typer.Option(
            "--seed-fixtures", metavar="FILE", help="Objects under fixed ids, for a client's tests."
        ),
    ] = None,
) -> None:
    """Serve the OpenAI- and Azure-compatible API.

    Files, fine-tuning jobs, chat: on your hardware, with the unmodified openai client.
    """
    from tunewise.cli.output import Output
    from tunewise.server.serving import run

    settings = _settings(
        config, host=host, port=port, home=home, database=database, request_log=request_log,
        auth=False if no_auth else None,
    )  # fmt: skip
    out = Output(highlight=False, soft_wrap=True, markup=False)
    run(settings, out.print, seed_fixtures)


@key.command("create", epilog="Example: tunewise server key create --project shop")
def key_create(
    project: ProjectOption = "default",
    name: Annotated[str, typer.Option("--name", help="What it is for; shown in lists.")] = "",
    admin: Annotated[
        bool, typer.Option("--admin", help="May also do what concerns all projects.")
    ] = False,
    requests_per_minute: Annotated[
        int | None, typer.Option("--requests-per-minute", min=1, help="Its limit. [default: none]")
    ] = None,
    home: HomeOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Make a key and print it, once."""
    from tunewise.cli.output import put
    from tunewise.server.keys import create

    settings = _settings(config, home=home, database=database)
    put(create(settings, project, name, admin, requests_per_minute) + "\n")


@key.command("list", epilog="Example: tunewise server key list --json")
def key_list(
    home: HomeOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show keys, their limits and what they used; never the keys themselves."""
    from tunewise.cli.show_server import show_keys
    from tunewise.server.keys import listed

    show_keys(listed(_settings(config, home=home, database=database)), json_output)


@key.command("revoke", epilog="Example: tunewise server key revoke aB3dE5fG7hI9")
def key_revoke(
    key_id: Annotated[str, typer.Argument(help="As `key list` shows it.", metavar="ID")],
    home: HomeOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """End a key at once; a running server refuses it from the next request on."""
    from tunewise.cli.output import put
    from tunewise.server.keys import revoke

    revoke(_settings(config, home=home, database=database), key_id)
    put(f"The key {key_id} is revoked.\n")


@server.command(epilog="Example: tunewise server backup monday.tar")
def backup(
    file: Annotated[Path, typer.Argument(help="The archive to write.", metavar="FILE")],
    home: HomeOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Write database, files and tuned models into one archive.

    The server may run meanwhile.
    """
    from tunewise.cli.output import put
    from tunewise.server.backup import write_backup

    count, size = write_backup(_settings(config, home=home, database=database), file)
    put(f"{file}: {plural(count, 'file')}, {size:,} bytes.\n")


@server.command(epilog="Example: tunewise server restore monday.tar --home new-home")
def restore(
    file: Annotated[Path, typer.Argument(help="An archive of `backup`.", metavar="FILE")],
    home: HomeOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Unpack a backup into an empty folder; nothing is overwritten."""
    from tunewise.cli.output import put
    from tunewise.server.backup import read_backup

    settings = _settings(config, home=home, database=database)
    count = read_backup(settings, file)
    home = settings.home
    put(f"{plural(count, 'file')} restored to {home}.\nStart: tunewise serve --home {home}\n")


@server.command(epilog="Example: tunewise server fsck --home /srv/tunewise")
def fsck(
    home: HomeOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Read all that the server has stored, and tell what is damaged.

    Nothing is changed, and the server may run meanwhile. Ends with 1 where something is damaged.
    """
    from tunewise.cli.show_fsck import show_server_damage

    if show_server_damage(_settings(config, home=home, database=database)):
        raise typer.Exit(1)


def _settings(config: Path | None, **given: Any) -> Any:
    from tunewise.errors import MissingExtraError

    # Looked for, not imported: what is wrong with the options is said sooner.
    if not all(importlib.util.find_spec(name) for name in ("fastapi", "sqlalchemy", "uvicorn")):
        raise MissingExtraError("The server", "server")
    from tunewise.server.settings import load_settings

    return load_settings(config, given)
