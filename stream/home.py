"""The folder that the product keeps its own files in, unless the settings name other places."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname


def home() -> Path:
    """The checkout of an editable installation, from wherever it is called; else where we are.

    An installer keeps where an editable installation comes from (PEP 610).
    """
    try:
        origin = json.loads(distribution("intentstream").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        origin = {}
    if origin.get("dir_info", {}).get("editable"):
        return Path(url2pathname(urlsplit(origin["url"]).path))
    return Path.cwd()


HOME: Final = home()
