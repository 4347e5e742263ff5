"""The kinds of fault that data can have: what each is, what to do, and when it counts.

Checks, `gates.check` in `source.yaml`, reports and `docs/source-yaml.md` have them from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault.

    Attributes:
        name: As in `gates.check`.
        about: The group that it is told in.
        what: What is wrong, of the records that have it.
        advice: What to do.
        of: What its share is a share of.
        shows: What an example tells of a record.
        warn: Share above which it is a warning; None: never.
        fail: Share above which it is an error; None: never.
    """

    name: str
    about: str
    what: str
    advice: str
    of: str
    shows: tuple[str, ...]
    warn: float | None = None
    fail: float | None = None


_EVENT: Final = ("event_id", "profile_id", "event_type")
_SITTING: Final = ("playback_id", "profile_id", "title_id")
_TITLE: Final = ("title_id", "name")
_NEEDED: Final = ("have", "needed")

FAULTS: Final = (
    Fault(
        "line_unreadable",
        "files",
        "can't be read as a record",
        "Look at the lines named; were the files cut short, or is it another format?",
        "records",
        ("filename", "line", "record", "text", "detail"),
        0.0,
        0.01,
    ),
    Fault(
        "record_refused",
        "files",
        "are refused by the adapter",
        "The reasons are named; the options of the adapter are `events.options` in source.yaml.",
        "records",
        ("reason", "records", "detail"),
        0.001,
        0.05,
    ),
    Fault(
        "type_unknown",
        "event types",
        "have an event type that isn't one of ours",
        "Name events as docs/kafka.md does, or read them through an adapter.",
        "records",
        _EVENT,
        0.0,
        0.05,
    ),
    Fault(
        "field_missing",
        "ids",
        "lack an id, type, title or playback_id that their type needs",
        "Map the columns in `events.columns`, or have the producer send them.",
        "records",
        (*_EVENT, "title_id", "playback_id", "filename"),
        0.0,
        0.01,
    ),
    Fault(
        "id_too_long",
        "ids",
        "have an id of more than 256 characters",
        "Shorten ids where they are made, by a hash: live events like these are dead letters.",
        "records",
        (*_EVENT, "title_id", "playback_id"),
        0.0,
        0.01,
    ),
    Fault(
        "event_repeats",
        "ids",
        "are there again, the same",
        "Harmless, repetition changes nothing; but were files exported twice?",
        "records",
        (*_EVENT, "filename"),
        0.01,
    ),
    Fault(
        "event_id_reused",
        "ids",
        "share their event_id with an event that says something else",
        "Let event_id be unique: one of the two can't be told from a repetition.",
        "records",
        (*_EVENT, "occurred_at_ms"),
        0.0,
        0.01,
    ),
    Fault(
        "time_unreadable",
        "times",
        "have no time, or one that can't be read",
        "Write Unix milliseconds or ISO 8601; `events.columns.occurred_at_ms` names the column.",
        "records",
        (*_EVENT, "time_text"),
        0.0,
        0.01,
    ),
    Fault(
        "time_out_of_range",
        "times",
        "have a time below 0 or beyond 2^53",
        "Is `events.time_unit` right?",
        "records",
        (*_EVENT, "occurred_at_ms"),
        0.0,
        0.01,
    ),
    Fault(
        "time_before_1990",
        "times",
        "happened before the year 1990",
        "A clock that was never set; or seconds, which `events.time_unit: s` tells.",
        "records",
        (*_EVENT, "occurred_at_ms"),
        0.0,
        0.01,
    ),
    Fault(
        "time_in_future",
        "times",
        "are of the future",
        "Is `events.time_unit` right, and are times UTC? Live events like these are dead letters.",
        "records",
        (*_EVENT, "occurred_at_ms"),
        0.0,
        0.01,
    ),
    Fault(
        "clock_jumps",
        "times",
        "watched three times more than time went by since the event before, and 5 minutes more",
        "Let the player take times from one clock, and not set it within a sitting.",
        "events with a watch time",
        (*_EVENT, "playback_id", "occurred_at_ms", "watched_s"),
        0.001,
        0.05,
    ),
    Fault(
        "title_unknown",
        "titles",
        "name a title that the catalogue lacks",
        "Add or exclude them; are both ids of the same kind, of the show and not the episode?",
        "events with a title",
        (*_EVENT, "title_id"),
        0.001,
        0.05,
    ),
    Fault(
        "title_id_missing",
        "titles",
        "have no id",
        "`catalogue.columns.title_id` in source.yaml names its column.",
        "rows of the catalogue",
        ("name", "row"),
        0.0,
        0.01,
    ),
    Fault(
        "title_repeats",
        "titles",
        "have an id that stood there before",
        "Keep one row a title; the first one is taken.",
        "rows of the catalogue",
        (*_TITLE, "row"),
        0.0,
        0.05,
    ),
    Fault(
        "release_out_of_range",
        "titles",
        "were released before 1870 or in more than two years",
        "`release_day` is a date or days since 1970, `release_year` a year.",
        "titles",
        (*_TITLE, "release_day"),
        0.0,
        0.05,
    ),
    Fault(
        "genre_missing",
        "labels",
        "have no genre",
        "`catalogue.columns.genres` names the column, `genres_separator` what is between genres.",
        "titles",
        _TITLE,
        0.1,
        0.9,
    ),
    Fault(
        "kind_missing",
        "labels",
        "have no kind",
        "`catalogue.columns.kind` names the column; without kinds that head learns nothing.",
        "titles",
        _TITLE,
        0.1,
    ),
    Fault(
        "release_missing",
        "labels",
        "have no day of release",
        "`catalogue.columns.release_day` or `release_year` names the column.",
        "titles",
        _TITLE,
        0.2,
    ),
    Fault(
        "genre_folded",
        "labels",
        "count as `other` or as nothing",
        "Give aliases, or lower `labels.genres.minimum_share`.",
        "genres of titles",
        ("label", "titles"),
        0.1,
        0.5,
    ),
    Fault(
        "kind_folded",
        "labels",
        "count as `other` or as nothing",
        "Give aliases, or lower `labels.kinds.minimum_share`.",
        "kinds of titles",
        ("label", "titles"),
        0.05,
        0.5,
    ),
    Fault(
        "device_folded",
        "labels",
        "count as `other`",
        "Give aliases, or lower `labels.devices.minimum_share`.",
        "events with a device",
        ("label", "events"),
        0.2,
    ),
    Fault(
        "device_missing",
        "labels",
        "name no device",
        "`events.columns.device` names the column.",
        "records",
        _EVENT,
        0.5,
    ),
    Fault(
        "labels_alike",
        "labels",
        "differ in case, blanks or signs alone",
        "Make one an alias of the other.",
        "labels",
        ("label", "like"),
        0.0,
    ),
    Fault(
        "episode_in_part",
        "sessions",
        "name season and episode in some of their events only",
        "Send both with every event of a sitting, or with none: they are two sittings else.",
        "sittings",
        _SITTING,
        0.001,
        0.1,
    ),
    Fault(
        "sitting_too_long",
        "sessions",
        "last longer than 24 hours",
        "Have the player begin a new playback_id when it was put away.",
        "sittings",
        (*_SITTING, "hours"),
        0.001,
        0.05,
    ),
    Fault(
        "playback_shared",
        "sessions",
        "are used by more than one profile",
        "A playback_id is one profile's: begin a new one when the profile changes.",
        "playback ids",
        ("playback_id", "profile_id"),
        0.0001,
        0.05,
    ),
    Fault(
        "share_unknown",
        "watch time",
        "can't tell what share was watched: no watch time or position, or no duration",
        "Send watched_s or position_s; give duration_s in the events or in the catalogue.",
        "sittings",
        (*_SITTING, "watched_s", "position_s", "duration_s"),
        0.2,
    ),
    Fault(
        "watched_over_duration",
        "watch time",
        "were watched for longer than the title lasts, by a tenth and a minute",
        "Is watched_s the time watched, in seconds, and duration_s that of one episode?",
        "sittings with a duration",
        (*_SITTING, "watched_s", "duration_s"),
        0.02,
        0.3,
    ),
    Fault(
        "watched_falls",
        "watch time",
        "have watched less than the event before in their sitting",
        "watched_s adds up over a sitting; an adapter adds heartbeats.",
        "events with a watch time",
        (*_EVENT, "playback_id", "watched_s"),
        0.01,
        0.3,
    ),
    Fault(
        "number_unreadable",
        "watch time",
        "have a number that isn't written as one, and that is unknown therefore",
        "Write numbers with a point and without a unit, or none where there is none.",
        "records",
        (*_EVENT, "number_text"),
        0.0,
        0.01,
    ),
    Fault(
        "number_out_of_range",
        "watch time",
        "have a number below 0 or too large: seconds to 1,000,000, season and episode to 32,767",
        "Live events like these are dead letters; mend them where they are made.",
        "records",
        (*_EVENT, "watched_s", "position_s", "duration_s", "season", "episode"),
        0.0,
        0.01,
    ),
    Fault(
        "title_never_played",
        "skew",
        "were never played",
        "Is the catalogue of the same time and country as the events?",
        "titles",
        _TITLE,
        0.8,
    ),
    Fault(
        "plays_concentrated",
        "skew",
        "are of the hundredth part of titles that is played most",
        "Popularity will be hard to beat; are there monitors or a channel to exclude?",
        "plays",
        (*_TITLE, "plays"),
        0.7,
    ),
    Fault(
        "profile_short",
        "history",
        "have fewer than three plays",
        "Read more days: a model learns from what profiles did before.",
        "profiles",
        ("profile_id", "plays"),
        0.7,
    ),
    Fault(
        "days_missing",
        "history",
        "are missing to two weeks of events",
        "Read more days.",
        "days needed",
        _NEEDED,
        0.0,
    ),
    Fault(
        "profiles_missing",
        "history",
        "are missing that have plays to learn from",
        "Read more days or profiles; `gates.training.profiles` says how many are needed.",
        "profiles needed",
        _NEEDED,
        0.0,
        0.5,
    ),
    Fault(
        "validation_missing",
        "history",
        "are missing that play in the validation's part, and before it",
        "Read more days, or raise `training.validation_share`.",
        "profiles needed",
        _NEEDED,
        0.0,
        0.5,
    ),
    Fault(
        "test_missing",
        "history",
        "are missing that play in the test's part, and before it",
        "Read more days, or raise `training.test_share`.",
        "profiles needed",
        _NEEDED,
        0.0,
        0.5,
    ),
)

BY_NAME: Final[Mapping[str, Fault]] = {one.name: one for one in FAULTS}
