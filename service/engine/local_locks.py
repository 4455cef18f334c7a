"""One process per group: a lock file that the kernel releases when its holder dies."""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

from service.engine.base import EngineFault


class GroupLock:
    """The lock of one group below a folder; the file names the process that holds it."""

    def __init__(self, folder: Path, group: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", group):
            raise EngineFault(f"group {group!r} must be letters, digits, dots and dashes")
        self._path = folder / f"{group}.lock"
        self._group = group
        self._file: int | None = None

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it; True as long as it is ours."""
        if self._file is not None:
            return True
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as fault:
            raise EngineFault(f"the lock {self._path} cannot be made: {fault}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        self._file = file
        return True

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        EngineFault
            When another process has it; names its process id.
        """
        if not self.try_acquire():
            holder = self._path.read_text().strip() or "unknown"
            raise EngineFault(
                f"process {holder} already serves {self._group} on {self._path.parent.parent}: "
                "stop it, or give this one another folder or another role"
            )

    def release(self) -> None:
        """Give the lock up."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
