"""Opening the test: the look is in the ledger before the first row is asked."""

from __future__ import annotations

from tunewise.pipeline.prepare import old_hash, row_keys
from tunewise.pipeline.session import Session
from tunewise.words import plural


def open_test(session: Session) -> int:
    """Write this look into the workspace's ledger; which look at these rows it is."""
    workspace, name, rows = session.workspace, session.study.name, session.test
    all_rows = old_hash(rows)
    names = workspace.untold_looks(all_rows)
    if names:
        session.reporter.warn(
            f"the ledger of opened tests holds {plural(len(names), 'study', 'studies')} of an "
            f"earlier release ({', '.join(names)}), which kept no single rows: if their tests "
            "shared a part of these rows, those looks are not counted. Take fresh test rows then, "
            "or tell it beside the verdict. This is said once."
        )
    return workspace.open_test(row_keys(rows, name), name, session.inputs.look(), all_rows=all_rows)
