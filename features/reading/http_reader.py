"""Reads live intents from Feast's feature server (`feast serve`), with a reader's answers."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import httpx

from features.reading.intents import ANCHOR, Judge, LiveIntent, checked
from features.reading.rows import Found
from features.registry.registration import REMEDY
from features.schema.fields import FieldType
from features.schema.views import RANKER, profile_intent
from stream.domain import rfc3339
from stream.exceptions import DefinitionsError, StoreRefusedError, StoreUnavailableError
from stream.settings import Settings


class HttpIntentReader:
    """Reads `profile_intent` from Feast's feature server (`feast serve`), with the same answers.

    Needs neither the store's address nor its password. One reader serves either threads or one
    event loop.
    """

    def __init__(
        self,
        url: str,
        fresh_for_s: float | None = None,
        clock: Callable[[], float] = time.time,
        timeout_s: float = 5.0,
    ) -> None:
        """Open nothing yet.

        Args:
            url: The server's address, such as http://127.0.0.1:6566.
            fresh_for_s: See `IntentReader`; by default 30 minutes.
            clock: Unix time in seconds.
            timeout_s: Of one read.
        """
        gap_s = Settings.model_fields["session_gap_s"].default
        self._judge = Judge(gap_s if fresh_for_s is None else fresh_for_s, clock)
        self._url = url
        self._client = httpx.Client(base_url=url, timeout=timeout_s)
        self._client_async = httpx.AsyncClient(base_url=url, timeout=timeout_s)

    def read(self, profile_ids: Sequence[str]) -> list[LiveIntent]:
        """The profiles' intents, in the order asked for. See `IntentReader.read`."""
        if not checked(profile_ids):
            return []
        with self._typed_errors():
            answer = self._client.post(_PATH, json=_request(profile_ids)).raise_for_status()
            return self._intents(profile_ids, answer.json())

    async def read_async(self, profile_ids: Sequence[str]) -> list[LiveIntent]:
        """Like `read`, without blocking the event loop."""
        if not checked(profile_ids):
            return []
        with self._typed_errors():
            answer = await self._client_async.post(_PATH, json=_request(profile_ids))
            answer.raise_for_status()
            return self._intents(profile_ids, answer.json())

    async def close(self) -> None:
        """Close all connections."""
        self._client.close()
        await self._client_async.aclose()

    def _intents(self, profile_ids: Sequence[str], answer: dict[str, Any]) -> list[LiveIntent]:
        vectors = dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))
        columns = {
            feature.name: [
                None if value is None else _DECODERS.get(feature.type, _same)(value)
                for value in vectors[feature.name]["values"]
            ]
            for feature in profile_intent.features
        }
        events_ms = [self._event_ms(time) for time in vectors[ANCHOR]["event_timestamps"]]
        return self._judge.intents(profile_ids, Found(columns, events_ms))

    def _event_ms(self, time: str) -> int:
        try:
            return rfc3339.unix_ms(time)
        except ValueError as error:
            raise StoreRefusedError(
                f"The feature server at {self._url} dated a row {time!r}: {error}. Check that its "
                "Feast is of the version that this release is built with (constraints.txt)."
            ) from error

    @contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPStatusError as error:
            told = f"{error.response.status_code}: {error.response.text[:500]}"
            if error.response.is_server_error:
                raise StoreUnavailableError(
                    f"The feature server at {self._url} can't read its store ({told}). See its log."
                ) from error
            raise StoreRefusedError(
                f"The feature server at {self._url} refused a read ({told}). Check that the "
                "definitions that it serves are this release's (`intentstream features apply`)."
            ) from error
        except (LookupError, ValueError, TypeError) as error:
            raise DefinitionsError(
                f"The answer of {self._url} is not that of a feature server with the definitions "
                f"of this release ({error!r}). {REMEDY}"
            ) from error
        except httpx.TransportError as error:
            raise StoreUnavailableError(
                f"The feature server at {self._url} did not answer ({error!r}). Check that "
                "`feast serve` runs there."
            ) from error


_PATH: Final = "/get-online-features"


def _request(profile_ids: Sequence[str]) -> dict[str, Any]:
    return {"feature_service": RANKER, "entities": {profile_intent.join_key: list(profile_ids)}}


def _same(value: Any) -> Any:
    return value


def _float32s(numbers: Sequence[float]) -> list[float]:
    """The server writes as many digits as tell one float32 from the next."""
    layout = struct.Struct(f"{len(numbers)}f")
    return list(layout.unpack(layout.pack(*numbers)))


_DECODERS: Final[dict[FieldType, Callable[[Any], Any]]] = {
    FieldType.FLOAT32: lambda number: _float32s([number])[0],
    FieldType.FLOAT32S: _float32s,
}
