"""Kill points: where a test makes this process end as by a power cut.

`RBD_CRASH_AT=K5:3` sends SIGKILL to this process at the third passage of `crash_point("K5")`. The
variable is read once, at the first import. Unset, a passage costs one comparison. It exists because
"before or after one commit" can only be proved by dying there, in the real process, without any
handler running.

Refused here: any way to catch it, delay it or set it from a configuration file.
"""

from __future__ import annotations

import logging
import os
import re
import signal
from threading import Lock

VARIABLE = "RBD_CRASH_AT"


def parse_crash(text: str) -> tuple[str, int] | None:
    """Read `point:n`, n >= 1; an empty text means never.

    Raises
    ------
    ValueError
        When it is neither; a kill test that never kills would pass for the wrong reason.
    """
    if not text:
        return None
    found = re.fullmatch(r"([A-Za-z0-9_-]+):([1-9][0-9]*)", text)
    if found is None:
        raise ValueError(f"{VARIABLE} must look like K5:1 (a point and a passage), got {text!r}")
    return found[1], int(found[2])


_armed = parse_crash(os.environ.get(VARIABLE, ""))
_point, _left = _armed or ("", 0)
_lock = Lock()

if _armed:
    # Not structlog: it is not configured yet at import, and would print to standard output.
    logging.getLogger(__name__).warning(
        "%s is set: this process kills itself at passage %d of %s", VARIABLE, _left, _point
    )


def crash_point(point: str) -> None:
    """Pass a kill point; any thread may."""
    if point == _point:
        _pass()


def _pass() -> None:
    global _left
    with _lock:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()  # SIGKILL may reach another thread a moment later; go no further
