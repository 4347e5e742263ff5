"""All versions of a release forget a profile, whichever of them are served."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import numpy as np
import pytest

from stream.exceptions import InferenceUnavailableError, VersionNotServedError
from stream.inference.release import Release
from stream.inference.serving import ReleasedInference


class Client:
    """Forgets for each version, or raises what was told of it."""

    def __init__(self, **errors: Exception) -> None:
        self.errors = errors
        self.forgot: list[str] = []
        self.settled = False

    async def forget(self, _: Any, version: str) -> None:
        if version in self.errors:
            raise self.errors[version]
        self.forgot.append(version)


class Comparing:
    """A shadow that has rows of `client` to compare."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def settle(self) -> None:
        assert not self.client.forgot
        self.client.settled = True


def forget(client: Client, release: Release) -> None:
    released = ReleasedInference(
        cast("Any", client), cast("Any", Comparing(client)), lambda: release
    )
    asyncio.run(released.forget(np.array([7])))


def test_the_live_version_the_shadow_and_the_one_before_forget() -> None:
    client = Client()
    forget(client, Release(live="3", previous="2", shadow="4", shadow_share=0.1))
    assert sorted(client.forgot) == ["2", "3", "4"]


def test_what_the_shadow_has_to_compare_yet_is_compared_first() -> None:
    client = Client()
    forget(client, Release(live="3"))
    assert client.settled
    assert client.forgot == ["3"]


def test_a_version_that_is_no_longer_served_has_nothing_to_forget() -> None:
    client = Client(**{"2": VersionNotServedError("gone")})
    forget(client, Release(live="3", previous="2"))
    assert client.forgot == ["3"]


@pytest.mark.parametrize("version", ["2", "3"])
def test_a_version_that_does_not_answer_is_to_be_asked_again(version: str) -> None:
    client = Client(**{version: InferenceUnavailableError("busy")})
    with pytest.raises(InferenceUnavailableError):
        forget(client, Release(live="3", previous="2"))
