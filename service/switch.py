"""The kill switch as a file: while it is there, nothing acts by itself. Doubt counts as pressed.

Besides the `*` hold in the database, a file works when everything else is down: `touch` it. A file
that is absent in a folder that can be looked into is the only thing that means "not pressed".
"""

from __future__ import annotations

from pathlib import Path


def pressed(path: Path | None) -> str | None:
    """Say why no automatic action may be taken, or None; None as path: there is no such file."""
    if path is None:
        return None
    try:
        path.lstat()
    except FileNotFoundError:
        if path.parent.is_dir():
            return None
        return f"the kill switch file's folder {path.parent} is missing, which counts as pressed"
    except OSError as fault:
        return f"the kill switch file {path} cannot be looked for ({fault.strerror}): pressed"
    return f"the kill switch file {path} is there; remove it to allow automatic action again"
