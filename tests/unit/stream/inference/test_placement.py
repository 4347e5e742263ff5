"""Profiles stay with their model server, whatever happens to the others."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.inference.placement import placed

PROFILES = np.random.default_rng(0).integers(-(2**63), 2**63, 6_000, np.int64)

fleets = st.lists(st.text(min_size=1, max_size=20), min_size=2, max_size=8, unique=True)


def homes(servers: list[str]) -> list[str]:
    return [servers[at] for at in placed(PROFILES[:200], servers)]


@given(fleets, st.data())
def test_when_a_server_goes_its_profiles_alone_move(
    servers: list[str], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(servers))
    after = homes([one for one in servers if one != gone])
    for old, new in zip(homes(servers), after, strict=True):
        assert old in (new, gone)


@given(fleets)
def test_the_order_in_which_servers_are_named_does_not_matter(servers: list[str]) -> None:
    assert homes(servers) == homes(servers[::-1])


def test_servers_of_like_names_share_the_profiles_evenly() -> None:
    # Neighbouring hashes too, as a bad mix of bits would keep them together.
    for profiles in (PROFILES, np.arange(6_000)):
        shares = np.bincount(placed(profiles, [f"triton-{n}:8001" for n in range(4)]))
        # Five standard deviations.
        assert np.abs(shares - 1_500).max() < 5 * (6_000 * 0.25 * 0.75) ** 0.5
