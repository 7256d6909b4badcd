"""Write the next database migration: what the tables in the code have and the last step has not.

Usage: python scripts/new_migration.py "Jobs have a budget"

Look at what it wrote in ``src/tunewise/server/migrations/versions`` before you keep it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory

from tunewise.server.database import open_engine
from tunewise.server.migrations.run import SCRIPTS, upgrade


def main(message: str) -> None:
    """Migrate an empty database to the last step, compare, write the file."""
    number = len(list(ScriptDirectory(str(SCRIPTS)).walk_revisions())) + 1
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'tunewise.db'}"
        if number > 1:
            upgrade(url)
        engine = open_engine(url)
        with engine.connect() as connection, connection.begin():
            config.attributes["connection"] = connection
            made = command.revision(config, message, autogenerate=True, rev_id=f"{number:04}")
        engine.dispose()
    assert isinstance(made, Script)
    path = Path(made.path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "# ###" not in line))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
