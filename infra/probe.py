"""Whether a Triton really answers: a tiny inference by every version that says it is ready.

    python probe.py [--end PID] [URL]

Triton's own readiness says nothing of the processes that run the models: with one that was killed
or hangs, the server stays ready and every request fails. The exit code is 0 when all versions
answer, 1 when the server isn't up, has no model, or is loading, 2 when a version is stuck. Needs
nothing but Python's standard library, so that it runs inside the server's container too.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from typing import Any, Final

DEADLINE_S: Final = 10.0
"""Of one inference. A process that was killed or stopped is told by an error within a second; only
one that runs and doesn't answer takes this long, twice, so that a slow server isn't taken for one.
"""

_TRIES: Final = 2


def stuck_versions(url: str, deadline_s: float = DEADLINE_S) -> list[str]:
    """The versions, as `model/version`, that are ready by their own word and don't answer.

    Args:
        url: of Triton's HTTP service.
        deadline_s: for one answer.

    Raises:
        TimeoutError: when the server itself takes requests and doesn't answer.
        OSError: when it takes none: it starts, or is gone.
    """
    return [
        f"{model}/{version}"
        for model, version in ready_versions(url, deadline_s)
        if not any(_answers(url, model, version, deadline_s) for _ in range(_TRIES))
        # It may have been unloaded meanwhile.
        and (model, version) in ready_versions(url, deadline_s)
    ]


def ready_versions(url: str, deadline_s: float = DEADLINE_S) -> list[tuple[str, str]]:
    """Names and versions of the models that say they are ready.

    Raises:
        OSError: as `stuck_versions`.
    """
    index = _call(f"{url}/v2/repository/index", {}, deadline_s)
    return [(one["name"], one["version"]) for one in index if one.get("state") == "READY"]


def _answers(url: str, model: str, version: str, deadline_s: float) -> bool:
    path = f"{url}/v2/models/{model}/versions/{version}"
    try:
        inputs = _call(path, None, deadline_s)["inputs"]
        _call(f"{path}/infer", {"inputs": [_ones(one) for one in inputs]}, deadline_s)
    except OSError:
        return False
    return True


def _ones(described: dict[str, Any]) -> dict[str, Any]:
    """The smallest tensor of ones for an input: of FM-Intent, a window of one interaction."""
    shape = [max(1, int(size)) for size in described["shape"]]
    count = 1
    for size in shape:
        count *= size
    return {
        "name": described["name"],
        "datatype": described["datatype"],
        "shape": shape,
        "data": [1] * count,
    }


def _call(url: str, body: object, deadline_s: float) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(url, data, deadline_s) as answer:  # noqa: S310 - Triton's own URL
        return json.loads(answer.read())


def main() -> int:
    """Tell of stuck versions, and end the server that has them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8000")
    parser.add_argument("--end", type=int, help="process that is ended when a version is stuck")
    options = parser.parse_args()
    try:
        stuck = stuck_versions(options.url)
        ready = bool(ready_versions(options.url))
    except TimeoutError:
        stuck = ["the server"]
    except OSError as error:
        print(f"no answer from {options.url}: {str(error)!a}")
        return 1
    if stuck:
        print(f"stuck: {', '.join(stuck)!a}")
        if options.end:
            os.kill(options.end, signal.SIGTERM)
        return 2
    return 0 if ready else 1


if __name__ == "__main__":
    sys.exit(main())
