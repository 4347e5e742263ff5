"""Whatever is rejected fits the topic that it goes to."""

from __future__ import annotations

import pytest

from stream.exceptions import BadRecordError, Reason
from stream.kafka.deadletters import CUT_HEADER, dead_letter, late_event
from tests.unit.stream.fakes import NOW_MS, Message

ERROR = BadRecordError(Reason.OVERSIZED, "too large")


def test_a_record_is_kept_as_it_came() -> None:
    own = [("trace", b"1"), ("none", None)]
    record = Message("browse-events", b"key", b"value", headers=own)  # type: ignore[arg-type]
    for copy in (
        dead_letter("browse-events", record, NOW_MS, ERROR),
        late_event(record, NOW_MS, "behind_broker"),
    ):
        assert (copy.key, copy.value, copy.timestamp_ms) == (b"key", b"value", NOW_MS)
        assert list(copy.headers[:2]) == own
        assert CUT_HEADER not in dict(copy.headers)


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (Message("browse-events", b"k", b"v" * 5_000_000), [b"value 5000000"]),
        (
            Message("browse-events", b"k" * 3_000_000, b"v", headers=[("h", b"h" * 2_999_999)]),
            [b"key 3000000", b"headers 3000000"],
        ),
    ],
)
def test_what_no_topic_would_take_is_cut_and_says_so(record: Message, told: list[bytes]) -> None:
    letter = dead_letter("browse-events", record, NOW_MS, ERROR)
    assert [text for name, text in letter.headers if name == CUT_HEADER] == told
    sizes = [len(letter.key or b""), len(letter.value or b"")]
    sizes += [len(name) + len(text) for name, text in letter.headers]
    assert sum(sizes) < 2 * 1024 * 1024
