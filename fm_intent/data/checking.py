"""What is wrong with a source's data, every kind of fault at once, before anything is trained.

The events are read once into a table of DuckDB's on disk, and everything is asked of that, so that
more events than memory holds can be checked.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal

from fm_intent.data.contract import EVENTS_SCHEMA
from fm_intent.data.faults import BY_NAME as FAULTS
from fm_intent.data.faults import Fault
from fm_intent.data.files import Files, Unusable, connect, find_files, read_apart, text
from fm_intent.data.label_rules import learn_all
from fm_intent.data.reading import (
    LONGEST_S,
    OURS,
    CatalogueRows,
    Refusal,
    Sought,
    catalogue_rows,
    empty,
    kept,
    line_of,
    record_fields,
    records_sql,
    rejected_lines,
    titles_of,
)
from fm_intent.data.record_faults import AHEAD_MS, NO_RECORD, RECORD_FAULTS, texts
from fm_intent.data.records import lines_without
from stream.adapters.values import EARLIEST_MS
from stream.domain.event_types import LOOKS, PLAYS
from stream.domain.version_labels import OTHER, beside_other
from stream.exceptions import DataUnusableError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from fm_intent.data.description import CatalogueFiles, EventFiles, SourceDescription

Level = Literal["ok", "warning", "error"]
Example = dict[str, Any]
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""As `stream.steps.progress`."""

EXAMPLES: Final = 5

_MEMORY_MIB: Final = 1280
_DAY_MS: Final = 86_400_000
_YEAR_1870: Final = -36_524
_FEWEST_DAYS: Final = 14
_FEWEST_PLAYS: Final = 3
_IDLE_MS: Final = 1_800_000
_MOST_SESSIONS: Final = 3_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """How often a kind of fault occurs.

    Attributes:
        fault: Which.
        count: Records that have it.
        of: Records that could.
        examples: Five at most, as `fault.shows` names their fields.
        warn: Share above which it is a warning.
        fail: Share above which it is an error.
    """

    fault: Fault
    count: int
    of: int
    examples: tuple[Example, ...]
    warn: float | None
    fail: float | None

    @property
    def share(self) -> float:
        """Of the records that could have it."""
        return self.count / self.of if self.of else 0.0

    @property
    def level(self) -> Level:
        """By the thresholds."""
        if self.fail is not None and self.share > self.fail:
            return "error"
        return "warning" if self.warn is not None and self.share > self.warn else "ok"


@dataclass(frozen=True, slots=True)
class Check:
    """What was found in a source's data.

    Attributes:
        source: Its name.
        findings: Of every kind of fault, in the order of `FAULTS`.
        sizes: How much there is of what.
        pictures: The numbers behind the page's pictures, columns by picture.
    """

    source: str
    findings: tuple[Finding, ...]
    sizes: dict[str, int]
    pictures: dict[str, dict[str, list[Any]]]

    @property
    def level(self) -> Level:
        """The worst of all findings."""
        levels = {one.level for one in self.findings}
        return "error" if "error" in levels else "warning" if "warning" in levels else "ok"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "source": self.source,
            "level": self.level,
            **self.sizes,
            "faults": [
                {
                    "name": one.fault.name,
                    "about": one.fault.about,
                    "level": one.level,
                    "count": one.count,
                    "of": one.of,
                    "unit": one.fault.of,
                    "share": one.share,
                    "warn": one.warn,
                    "fail": one.fail,
                    "what": one.fault.what,
                    "advice": one.fault.advice,
                    "examples": list(one.examples),
                }
                for one in self.findings
            ],
        }


@contextmanager
def _silent(_name: str, _total: int) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


def check(
    description: SourceDescription,
    *,
    now_ms: int | None = None,
    progress: Progress = _silent,
) -> Check:
    """Look for every kind of fault.

    Args:
        description: Of the source.
        now_ms: Beyond which times are of the future; None: the clock's.
        progress: Entered for each long step, with its name and 100; what it gives is told per cent.

    Raises:
        DataUnusableError: when paths name no files, or files of several formats.
        UnknownAdapterError: when there is no such adapter.
        AdapterOptionsError: when its options are wrong.
    """
    files, _ = _all_found(description.events, description.catalogue)
    catalogue = catalogue_rows(description)
    with (
        tempfile.TemporaryDirectory(prefix="intentstream-check-") as folder,
        connect(_MEMORY_MIB, (files,)) as connection,
    ):
        connection.execute(f"SET temp_directory = {text(folder)}")
        connection.execute("SET enable_progress_bar = true")  # else nobody counts
        connection.execute("SET enable_progress_bar_print = false")
        connection.execute(f"ATTACH {text(f'{folder}/check.duckdb')} AS kept")
        connection.execute("USE kept")
        now_ms = now_ms or time.time_ns() // 1_000_000
        looked = _Checking(connection, description, files, catalogue, now_ms)
        looked.load_catalogue()
        with progress("reading events", 100) as advance:
            looked.load_events(advance)
        looked.look_at_files()
        for name, step in (
            ("records", looked.look_at_records),
            ("repetitions", looked.look_at_repetitions),
            ("sittings", looked.look_at_sittings),
            ("order within sittings", looked.look_at_order),
            ("titles and histories", looked.look_at_histories),
        ):
            with progress(name, 100) as advance:
                step(advance)
        looked.look_at_catalogue()
        return looked.told()


def _all_found(*sections: EventFiles | CatalogueFiles) -> list[Files]:
    """The files of each; raises for all whose paths name none, at once."""
    found, complaints = [], []
    for one in sections:
        try:
            found.append(find_files(one.path, one.format))
        except DataUnusableError as error:
            complaints.append(str(error))
    if complaints:
        raise DataUnusableError("\n".join(complaints))
    return found


@dataclass(slots=True)
class _Checking:
    """A check under way."""

    connection: duckdb.DuckDBPyConnection
    description: SourceDescription
    files: Files
    catalogue: CatalogueRows
    now_ms: int
    titles: pa.Table = field(init=False)
    """Of the catalogue, that stay."""
    unusable: list[Unusable] = field(default_factory=list)
    """Files and columns."""
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Records that have a fault, and records that could, by its name."""
    examples: dict[str, list[Example]] = field(default_factory=lambda: defaultdict(list))
    rows: dict[str, list[tuple[int, Example]]] = field(default_factory=dict)
    """Rows of the table of events that are to be examples, and what else they show."""
    refused: _Refused = field(default_factory=lambda: _Refused())
    sizes: dict[str, int] = field(default_factory=dict)
    pictures: dict[str, dict[str, list[Any]]] = field(default_factory=dict)

    def load_catalogue(self) -> None:
        self.titles = titles = titles_of(self.description, self.catalogue.rows)
        self.unusable += self.catalogue.unusable
        self.sizes["titles"] = len(titles)
        self.connection.from_arrow(titles.select(["title_id", "name", "duration_s"])).create(
            "names"
        )
        self.connection.execute(
            "CREATE TABLE titles AS SELECT *, md5_number_lower(title_id) AS title FROM names"
        )

    def load_events(self, advance: Callable[[int], None]) -> None:
        """One table of all records; times stay as text where they can't be read."""
        told, refused = self.description.events, self.refused
        sought = Sought.of_events(told)
        columns = ", ".join(EVENTS_SCHEMA.names)
        self.connection.from_arrow(EVENTS_SCHEMA.empty_table()).create("none")
        self._all(
            "CREATE TABLE events AS SELECT *, '' AS filename, '' AS time_text, '' AS number_text, "
            "true AS is_known FROM none"
        )
        stays = kept(self.connection, self.description)

        def read(some: Files) -> None:
            if told.adapter == OURS:
                sought.look(self.connection, some)
            records = records_sql(self.connection, told, some, refused.add, self.unusable.append)
            self._all(
                f"""
                INSERT INTO events
                SELECT {columns}, filename,
                    CASE WHEN occurred_at_ms IS NULL THEN time_text END AS time_text, number_text,
                    title_id IN (SELECT title_id FROM titles) AS is_known
                FROM ({records}) WHERE {stays}""",
                advance,
            )

        self.unusable += read_apart(self.files, read)
        if told.adapter == OURS:
            self.unusable += sought.lacking()
            has = {name for (name,) in self._all("SELECT DISTINCT filename FROM events")}
            has |= {one.example.get("filename") for one in self.unusable}
            self.unusable += empty(self.connection, self.files, has)
        self.sizes["records"] = self._one("SELECT count(*) FROM events")[0]
        count = refused.reasons.total()
        self.counts["record_refused"] = (count, self.sizes["records"] + count + refused.unreadable)
        self.examples["record_refused"] = [
            {"reason": reason, "records": count, "detail": refused.details[reason]}
            for reason, count in refused.reasons.most_common(EXAMPLES)
        ]

    def look_at_files(self) -> None:
        """Files and columns that can't be used, and lines that are no row of the catalogue."""
        named = self.description.catalogue
        files = len(self.files.names) + len(find_files(named.path, named.format).names)
        columns = len(self.description.events.columns) + len(named.columns)
        for name, of in (
            ("file_unreadable", files),
            ("file_empty", files),
            ("column_missing", columns),
        ):
            found = [one for one in self.unusable if one.fault == name]
            count = sum(one.times for one in found)
            self._told(name, count, max(of, count), [one.example for one in found])
        count, examples = self.catalogue.rejected
        self._told("title_unreadable", count, count + len(self.catalogue.rows), examples)
        self._needed("titles_missing", self.sizes["titles"], 1)
        self._needed("events_missing", self.sizes["records"], 1)

    def look_at_records(self, advance: Callable[[int], None]) -> None:
        """Faults that a record shows alone."""
        asked = ", ".join(
            f"{_count(of)}, {_count(has)}, min(rowid, {EXAMPLES}) FILTER (WHERE {has})"
            for has, of in RECORD_FAULTS.values()
        ).replace("$now", str(self.now_ms))
        (found,) = self._all(f"SELECT {asked} FROM events", advance)
        for place, name in enumerate(RECORD_FAULTS):
            of, count, rows = found[3 * place : 3 * place + 3]
            self._found(name, count, of, ((row,) for row in rows or ()))
        count, of = self.counts["line_unreadable"]
        more, refused = self.refused.unreadable, self.refused.reasons.total()
        self.counts["line_unreadable"] = (count + more, of + more + refused)
        self.examples["line_unreadable"] += self.refused.examples
        self._look_at_lines(count)
        self._picture(
            "types",
            ("type", "events"),
            "SELECT event_type, count(*) AS n FROM events WHERE event_type IS NOT NULL "
            "GROUP BY 1 ORDER BY n DESC, event_type LIMIT 20",
        )
        plays = f"event_type IN {texts(PLAYS)}"
        self._picture(
            "days",
            ("day", "plays", "others"),
            f"SELECT occurred_at_ms // {_DAY_MS} AS day, {_count(plays)}, {_count(f'NOT {plays}')} "
            f"FROM events WHERE {self._sane('occurred_at_ms')} GROUP BY 1 ORDER BY 1",
        )

    def look_at_repetitions(self, advance: Callable[[int], None]) -> None:
        self._all(
            """
            CREATE TABLE repeated AS
            SELECT count(*) - 1 AS more, min(said) <> max(said) AS differs, max(row) AS row
            FROM (
                SELECT rowid AS row, md5_number_lower(event_id) AS id,
                    md5_number_lower(
                        concat_ws(chr(31), profile_id, event_type, occurred_at_ms, title_id)
                    ) AS said
                FROM events WHERE event_id IS NOT NULL)
            GROUP BY id HAVING count(*) > 1""",
            advance,
        )
        for name, which in (("event_repeats", "NOT differs"), ("event_id_reused", "differs")):
            (count,) = self._one(f"SELECT coalesce(sum(more), 0) FROM repeated WHERE {which}")
            rows = self._all(f"SELECT row FROM repeated WHERE {which} ORDER BY 1 LIMIT {EXAMPLES}")
            self._found(name, int(count), self.sizes["records"], rows)

    def look_at_sittings(self, advance: Callable[[int], None]) -> None:
        """Faults of all events of one profile, playback id, title and episode together."""
        seconds = ", ".join(
            f"max({name}) FILTER (WHERE {name} BETWEEN 0 AND 1000000) AS {name}"
            for name in ("watched_s", "position_s", "duration_s")
        )
        self._all(
            f"""
            CREATE TABLE reported AS
            SELECT md5_number_lower(profile_id) AS profile,
                md5_number_lower(playback_id) AS playback,
                md5_number_lower(title_id) AS title, coalesce(season, 0) AS season,
                coalesce(episode, 0) AS episode, min(occurred_at_ms) AS start_ms,
                max(occurred_at_ms) AS end_ms, {seconds}, min(rowid) AS row
            FROM events
            WHERE event_type IN {texts(PLAYS)} AND profile_id IS NOT NULL
                AND title_id IS NOT NULL AND playback_id IS NOT NULL
                AND {self._sane("occurred_at_ms")}
            GROUP BY ALL""",
            advance,
        )
        self._all(
            """
            CREATE TABLE sittings AS
            SELECT *, coalesce(watched_s, position_s) / nullif(duration_s, 0) AS share
            FROM (
                SELECT reported.* REPLACE (
                    coalesce(reported.duration_s, titles.duration_s) AS duration_s)
                FROM reported LEFT JOIN titles USING (title))"""
        )
        self.sizes["sittings"] = self._one("SELECT count(*) FROM sittings")[0]
        numbers = "watched_s, position_s, duration_s"
        long = f"end_ms - start_ms > {_DAY_MS}"
        over = "watched_s > 1.1 * duration_s + 60"
        for name, has, of, shown in (
            ("sitting_too_long", long, "true", "round((end_ms - start_ms) / 3.6e6, 1) AS hours"),
            ("share_unknown", "share IS NULL", "true", numbers),
            ("watched_over_duration", over, "duration_s > 0 AND watched_s IS NOT NULL", numbers),
        ):
            count, total = self._one(f"SELECT {_count(has)}, {_count(of)} FROM sittings")
            self._found(
                name,
                count,
                total,
                self._all_named(
                    f"SELECT row, {shown} FROM sittings WHERE {has} ORDER BY row LIMIT {EXAMPLES}"
                ),
            )
        for name, keys, has in (
            (
                "episode_in_part",
                "profile, playback, title",
                "bool_or(season + episode = 0) AND bool_or(season + episode > 0)",
            ),
            ("playback_shared", "playback", "count(DISTINCT profile) > 1"),
        ):
            grouped = f"SELECT {has} AS has, max(row) AS row FROM reported GROUP BY {keys}"
            count, total = self._one(
                f"SELECT count(*) FILTER (WHERE has), count(*) FROM ({grouped})"
            )
            rows = f"SELECT row FROM ({grouped}) WHERE has ORDER BY row LIMIT {EXAMPLES}"
            self._found(name, count, total, self._all(rows))
        self._picture(
            "shares",
            ("twentieth", "sittings"),
            "SELECT least(floor(20 * share), 19)::INTEGER, count(*) FROM sittings "
            "WHERE share IS NOT NULL GROUP BY 1 ORDER BY 1",
        )

    def look_at_order(self, advance: Callable[[int], None]) -> None:
        """Faults between an event and the one before it in its sitting."""
        falls, jumps = "more < -1", "more > 3 * elapsed_ms / 1000 + 300"
        ((of, *found),) = self._all(
            f"""
            SELECT count(*), {_count(falls)}, min(row, {EXAMPLES}) FILTER (WHERE {falls}),
                {_count(jumps)}, min(row, {EXAMPLES}) FILTER (WHERE {jumps})
            FROM (
                SELECT row, occurred_at_ms - lag(occurred_at_ms) OVER sitting AS elapsed_ms,
                    watched_s - lag(watched_s) OVER sitting AS more
                FROM (
                    SELECT rowid AS row, occurred_at_ms, watched_s,
                        md5_number_lower(
                            concat_ws(chr(31), profile_id, playback_id, title_id, season, episode)
                        ) AS key
                    FROM events
                    WHERE event_type IN {texts(PLAYS)} AND watched_s BETWEEN 0 AND 1000000
                        AND {self._sane("occurred_at_ms")})
                WINDOW sitting AS (PARTITION BY key ORDER BY occurred_at_ms, watched_s))""",
            advance,
        )
        for name, count, rows in (
            ("watched_falls", *found[:2]),
            ("clock_jumps", *found[2:]),
        ):
            self._found(name, count, of, ((row,) for row in rows or ()))

    def look_at_histories(self, advance: Callable[[int], None]) -> None:
        """Whether there is enough to learn from, and of enough titles."""
        self._all(
            """
            CREATE TABLE profiles AS
            SELECT profile, count(*) AS plays, min(start_ms) AS first_ms, min(row) AS row
            FROM sittings GROUP BY profile""",
            advance,
        )
        count, short, repeating = self._one(
            f"SELECT count(*), {_count(f'plays < {_FEWEST_PLAYS}')}, {_count('plays > 1')} "
            "FROM profiles"
        )
        self.sizes["profiles"] = count
        shown = "SELECT row, plays FROM profiles"
        self._found(
            "profile_short",
            short,
            count,
            self._all_named(f"{shown} WHERE plays < {_FEWEST_PLAYS} ORDER BY row LIMIT {EXAMPLES}"),
        )
        (days,) = self._one(
            f"SELECT coalesce((max(start_ms) - min(start_ms)) / {_DAY_MS}, 0) FROM sittings"
        )
        needed = self.description.gates.training.profiles
        validated, tested = self._profiles_of_parts()
        self._needed("days_missing", int(days), _FEWEST_DAYS)
        self._needed("profiles_missing", repeating, needed)
        self._needed("validation_missing", validated, needed)
        self._needed("test_missing", tested, needed)
        self._look_at_popularity()
        self._picture(
            "histories",
            ("log2", "profiles"),
            "SELECT floor(log2(plays))::INTEGER, count(*) FROM profiles GROUP BY 1 ORDER BY 1",
        )
        self._picture_sessions()

    def _profiles_of_parts(self) -> tuple[int, int]:
        """Profiles that the validation and the test can judge."""
        told = self.description.training
        if told.split == "leave-one-out":
            (enough,) = self._one("SELECT count(*) FILTER (WHERE plays > 2) FROM profiles")
            return enough, enough
        begins = (1 - told.test_share - told.validation_share, 1 - told.test_share)
        validation, test = self._one(
            f"SELECT quantile_disc(start_ms, {begins[0]}), quantile_disc(start_ms, {begins[1]}) "
            "FROM sittings"
        )
        if validation is None:
            return 0, 0
        found = []
        for begin, end in ((validation, test), (test, self.now_ms + AHEAD_MS)):
            (count,) = self._one(
                f"""
                SELECT count(DISTINCT profile) FROM sittings JOIN profiles USING (profile)
                WHERE start_ms >= {begin} AND start_ms < {end} AND first_ms < {begin}"""
            )
            found.append(count)
        return found[0], found[1]

    def _look_at_popularity(self) -> None:
        self._all(
            """
            CREATE TABLE popularity AS
            SELECT title_id, name, coalesce(plays, 0) AS plays
            FROM titles LEFT JOIN (SELECT title, count(*) AS plays FROM sittings GROUP BY title)
                USING (title)"""
        )
        titles, never, plays = self._one(
            "SELECT count(*), count(*) FILTER (WHERE plays = 0), sum(plays) FROM popularity"
        )
        self._told(
            "title_never_played",
            never,
            titles,
            self._all_named(
                f"SELECT title_id, name FROM popularity WHERE plays = 0 ORDER BY 1 LIMIT {EXAMPLES}"
            ),
        )
        most = "SELECT title_id, name, plays FROM popularity ORDER BY plays DESC, title_id"
        (top,) = self._one(f"SELECT sum(plays) FROM ({most} LIMIT {-(-titles // 100)})")
        shown = self._all_named(f"{most} LIMIT {EXAMPLES}")
        self._told("plays_concentrated", int(top or 0), int(plays or 0), shown)
        self._picture(
            "popularity",
            ("plays",),
            "SELECT plays FROM popularity ORDER BY plays DESC",
        )

    def _picture_sessions(self) -> None:
        """Lengths of sessions, which end after 30 idle minutes; of a part of profiles if many."""
        (looks,) = self._one(f"SELECT count(*) FROM events WHERE event_type IN {texts(LOOKS)}")
        one_in = 1 + (self.sizes["sittings"] + looks) // _MOST_SESSIONS
        self._picture(
            "sessions",
            ("log2", "sessions"),
            f"""
            WITH acts AS (
                SELECT profile, start_ms, end_ms FROM sittings
                UNION ALL
                SELECT md5_number_lower(profile_id), occurred_at_ms, occurred_at_ms FROM events
                WHERE event_type IN {texts(LOOKS)} AND {self._sane("occurred_at_ms")}),
            begun AS (
                SELECT profile, start_ms, end_ms, coalesce(start_ms - max(end_ms) OVER (
                    PARTITION BY profile ORDER BY start_ms
                    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) > {_IDLE_MS}, true) AS begins
                FROM acts WHERE profile % {one_in} = 0),
            numbered AS (
                SELECT profile, start_ms, end_ms, count(*) FILTER (WHERE begins) OVER (
                    PARTITION BY profile ORDER BY start_ms ROWS UNBOUNDED PRECEDING) AS session
                FROM begun),
            sessions AS (
                SELECT (max(end_ms) - min(start_ms)) / 60000 AS minutes
                FROM numbered GROUP BY profile, session)
            SELECT floor(log2(1 + minutes))::INTEGER, count(*) FROM sessions
            GROUP BY 1 ORDER BY 1""",
        )

    def look_at_catalogue(self) -> None:
        """Faults of titles, and of what labels are made of them and of the events' devices."""
        titles = self.catalogue.rows.to_pylist()
        seen: set[str] = set()
        kept: list[Example] = []
        repeats, nameless = [], []
        for number, title in enumerate(titles, 1):
            if title["title_id"] is None:
                nameless.append(title | {"row": number})
            elif title["title_id"] in seen:
                repeats.append(title | {"row": number})
            else:
                kept.append(title)
                seen.add(title["title_id"])
        released = [title for title in kept if title["release_day"] is not None]
        latest = self.now_ms // _DAY_MS + 731
        odd = [one for one in released if not _YEAR_1870 <= one["release_day"] <= latest]
        lasting = [title for title in kept if title["duration_s"] is not None]
        without = {
            "genre_missing": [title for title in kept if not title["genres"]],
            "kind_missing": [title for title in kept if not title["kind"]],
            "release_missing": [
                title for title in kept if title["release_day"] is None and not title["day_text"]
            ],
            "release_unreadable": [title for title in kept if title["day_text"]],
            "release_out_of_range": odd,
            "length_unreadable": [title for title in kept if title["length_text"]],
            "length_out_of_range": [
                title for title in lasting if not 0 <= title["duration_s"] <= LONGEST_S
            ],
        }
        self._told("title_id_missing", len(nameless), len(titles), nameless[:EXAMPLES])
        self._told("title_repeats", len(repeats), len(titles), repeats[:EXAMPLES])
        for name, found in without.items():
            self._told(name, len(found), len(kept), found[:EXAMPLES])
        self._look_at_labels()

    def _look_at_labels(self) -> None:
        devices = dict(
            self._all(
                "SELECT device, count(*) FROM events WHERE device IS NOT NULL GROUP BY 1 "
                "ORDER BY 2 DESC, 1 LIMIT 100000"
            )
        )
        titles = self.titles
        genres, kinds, learnt_devices = learn_all(self.description.labels, titles, devices)
        listed = titles["genres"].to_pylist()
        for name, learnt, total, unit in (
            ("genre_folded", genres, sum(map(len, listed)), "titles"),
            ("kind_folded", kinds, len(titles) - titles["kind"].null_count, "titles"),
            ("device_folded", learnt_devices, sum(devices.values()), "events"),
        ):
            most = Counter(learnt.folded).most_common(EXAMPLES)
            shown = [{"label": label, unit: count} for label, count in most]
            self._told(name, sum(learnt.folded.values()), total, shown)
        self.sizes |= {
            "genres": beside_other(genres.labels),
            "kinds": beside_other(kinds.labels),
            "devices": beside_other(learnt_devices.labels),
        }
        learnt_of = {"genres": genres, "kinds": kinds, "devices": learnt_devices}
        alike = {name: _alike(one.counts) for name, one in learnt_of.items()}
        self._told(
            "labels_alike",
            sum(map(len, alike.values())),
            sum(len(one.counts) for one in learnt_of.values()),
            [
                {"paste": f"labels.{name}.aliases: {json.dumps(aliases, ensure_ascii=False)}"}
                for name, aliases in alike.items()
                if aliases
            ],
        )
        plays = dict(self._all("SELECT title_id, plays FROM popularity"))
        of_titles: Counter[str] = Counter()
        of_plays: Counter[str] = Counter()
        for title, names in zip(titles["title_id"].to_pylist(), listed, strict=True):
            known = {name if name in genres.labels else OTHER for name in names}
            of_titles.update(known)
            of_plays.update(dict.fromkeys(known, plays[title]))
        most_titles = [name for name, _ in of_titles.most_common(30)]
        self.pictures["genres"] = {
            "genre": most_titles,
            "titles": [of_titles[name] for name in most_titles],
            "plays": [of_plays[name] for name in most_titles],
        }

    def told(self) -> Check:
        """All findings, with their examples as the events have them."""
        wanted = sorted({row for rows in self.rows.values() for row, _ in rows})
        records = {}
        if wanted:
            found = f"SELECT rowid, * FROM events WHERE rowid IN ({', '.join(map(str, wanted))})"
            records = {row.pop("rowid"): row for row in self._all_named(found)}
        for name, rows in self.rows.items():
            self.examples[name] += [records[row] | more for row, more in rows]
        gates = self.description.gates.check
        findings = []
        for name, fault in FAULTS.items():
            count, of = self.counts[name]
            own = gates.get(name)
            shown = tuple(
                {one: example[one] for one in fault.shows if example.get(one) is not None}
                for example in self.examples[name][:EXAMPLES]
            )
            warn, fail = (own.warn, own.fail) if own else (fault.warn, fault.fail)
            findings.append(Finding(fault, count, of, shown, warn, fail))
        return Check(self.description.name, tuple(findings), self.sizes, self.pictures)

    def _look_at_lines(self, nulls: int) -> None:
        """The lines that DuckDB passed over in CSV, and made nulls of in JSON lines."""
        lines, examples = rejected_lines(self.connection)
        count, of = self.counts["line_unreadable"]
        self.counts["line_unreadable"] = (count + lines, of + lines)
        self.examples["line_unreadable"] += examples
        if nulls and self.files.format == "jsonl":
            self.rows["line_unreadable"] = []
            names = f"SELECT DISTINCT filename FROM events WHERE {NO_RECORD} ORDER BY 1"
            fields = record_fields(self.description.events)
            found = (
                (name, one)
                for (name,) in self._all(f"{names} LIMIT {EXAMPLES}")
                for one in lines_without(name, fields)
            )
            self.examples["line_unreadable"] += [
                line_of(name, one) for name, one in islice(found, EXAMPLES)
            ]

    def _sane(self, column: str) -> str:
        return f"{column} BETWEEN {EARLIEST_MS} AND {self.now_ms + AHEAD_MS}"

    def _found(self, name: str, count: int, of: int, rows: Iterable[Any]) -> None:
        """Note a fault of records, by the rows of examples, with or without what else they show."""
        self.counts[name] = (count, of)
        self.rows[name] = [
            (row.pop("row"), row) if isinstance(row, dict) else (row[0], {}) for row in rows
        ]

    def _told(self, name: str, count: int, of: int, examples: list[Example]) -> None:
        self.counts[name] = (count, of)
        self.examples[name] = examples

    def _needed(self, name: str, have: int, needed: int) -> None:
        missing = max(0, needed - have)
        self._told(name, missing, needed, [{"have": have, "needed": needed}] if missing else [])

    def _picture(self, name: str, columns: Sequence[str], sql: str) -> None:
        rows = self._all(sql)
        self.pictures[name] = {
            column: [row[place] for row in rows] for place, column in enumerate(columns)
        }

    def _one(self, sql: str) -> Any:
        return self._all(sql)[0]

    def _all_named(self, sql: str) -> list[Example]:
        found = self.connection.execute(sql)
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def _all(self, sql: str, advance: Callable[[int], None] = lambda _: None) -> list[Any]:
        """The rows of a query, whose progress is told while it runs."""
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(lambda: self.connection.execute(sql).fetchall())
            while not wait([running], timeout=0.5).done:
                advance(max(0, int(self.connection.query_progress())))
            found: list[Any] = running.result()
            return found


@dataclass(slots=True)
class _Refused:
    """What an adapter refused."""

    reasons: Counter[str] = field(default_factory=Counter)
    details: dict[str, str] = field(default_factory=dict)
    unreadable: int = 0
    """Records that weren't even read."""
    examples: list[Example] = field(default_factory=list)
    """Of these."""

    def add(self, one: Refusal) -> None:
        if one.broken is None:
            self.reasons[one.reason] += 1
            self.details.setdefault(one.reason, f"record {one.record}: {one.detail}")
            return
        self.unreadable += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(line_of(one.filename, one.broken))


def _alike(counts: Mapping[str, int]) -> dict[str, str]:
    """Values that would be one if case, blanks and signs didn't count → the most frequent one."""
    first: dict[str, str] = {}
    found = {}
    for value in sorted(counts, key=lambda one: (-counts[one], one)):
        like = first.setdefault(re.sub(r"[\W_]", "", value.casefold()), value)
        if like != value:
            found[value] = like
    return found


def _count(where: str) -> str:
    """SQL of how many rows there are of which this is so."""
    return f"count(*) FILTER (WHERE {where})"
