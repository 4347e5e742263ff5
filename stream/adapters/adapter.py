"""What an adapter is: one record of theirs in, any number of our events out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from stream.domain.events import checked
from stream.exceptions import AdapterOptionsError, BadRecordError, Reason

Record = Mapping[str, Any]
"""One record of theirs: an object of JSON, a row of a table."""


class Options(BaseModel):
    """Options of an adapter; none, where a format needs none."""

    model_config = ConfigDict(frozen=True, extra="forbid")


_Options = TypeVar("_Options", bound=Options)


@dataclass(frozen=True, slots=True)
class Adapted:
    """What became of a record.

    Attributes:
        events: Our events, as the JSON values on our topics are; absent fields are left out.
        passed_over: Why there are none, although nothing is wrong with the record: a word or two
            to count by.
    """

    events: tuple[dict[str, Any], ...] = ()
    passed_over: str = ""


def told(*events: dict[str, Any]) -> Adapted:
    """These events; fields that are None are left out."""
    return Adapted(
        tuple(
            {name: value for name, value in event.items() if value is not None} for event in events
        )
    )


def passed_over(why: str) -> Adapted:
    """No event, for this reason."""
    return Adapted(passed_over=why)


@dataclass(frozen=True, slots=True)
class Files:
    """How files hold records of a format, as far as they don't say it themselves.

    Attributes:
        delimiter: Of a table in text.
        columns: Of a table without a header.
        within: Where the list of records may be in a document of JSON: paths of keys.
    """

    delimiter: str = ","
    columns: tuple[str, ...] = ()
    within: tuple[tuple[str, ...], ...] = ()


_AS_EVER: Final = Files()


@dataclass(frozen=True, slots=True)
class Adapter(Generic[_Options]):
    """A format of events.

    Attributes:
        name: Its name in `--adapter`, `source.yaml` and `INTENT_BRIDGE_ADAPTER`.
        options: The model of its options.
        read: The adapter itself. It may raise `BadRecordError` and nothing else.
        files: How files hold such records.
    """

    name: str
    options: type[_Options]
    read: Callable[[Record, _Options], Adapted]
    files: Files = field(default=_AS_EVER)

    def reader(self, options: Mapping[str, Any] | None = None) -> Reader:
        """The adapter under these options.

        Raises:
            AdapterOptionsError: when an option is unknown, missing or wrong.
        """
        try:
            given = self.options.model_validate(dict(options or {}))
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, one['loc'])) or 'options'}: {one['msg']}"
                for one in error.errors(include_url=False)
            )
            known = ", ".join(self.options.model_fields) or "none"
            raise AdapterOptionsError(
                f"options of the adapter {self.name}: {problems}; it takes: {known}"
            ) from None
        return Reader(self.name, self.files, lambda record: self.read(record, given))


@dataclass(frozen=True, slots=True)
class Reader:
    """An adapter under its options; call it with a record."""

    name: str
    files: Files
    _read: Callable[[Record], Adapted]

    def __call__(self, record: object) -> Adapted:
        """What becomes of a record; its events are valid.

        Raises:
            BadRecordError: when the record is broken, or what it says is no event of ours.
        """
        if not isinstance(record, (dict, Mapping)):  # a `dict` is told faster as one
            raise BadRecordError(Reason.NOT_AN_OBJECT, "the record is no object")
        adapted = self._read(record)
        for event in adapted.events:
            checked(event)
        return adapted
