"""The daemon's settings in the demonstration: an ordinary `rollbackd.yaml`, read as any other."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import yaml

from service.config import Config, parse
from service.demo.router import Router


def demo_config(folder: Path, port: int, router: Router) -> Config:
    """Complete the file that comes with the package.

    Parameters
    ----------
    folder : Path
        Where the engine's log and all other state go.
    port : int
        Of the daemon's API and page, on loopback.
    """
    text = files("service.demo").joinpath("data", "rollbackd.yaml").read_text(encoding="utf-8")
    adapters = yaml.safe_dump({"adapters": {"router": router.adapter}})
    return parse(text + adapters, folder, {"FOLDER": str(folder), "PORT": str(port)})
