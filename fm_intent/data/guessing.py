"""A first `source.yaml`, guessed from files: which hold the catalogue and which events, and how."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import fsspec

from fm_intent.data.files import find_files
from fm_intent.data.header_words import CATALOGUE, EVENTS, KINDS, plain
from fm_intent.data.reading import OURS
from fm_intent.data.records import records
from stream.adapters.adapter import Files as Held
from stream.adapters.registry import adapters
from stream.exceptions import DataUnusableError

if TYPE_CHECKING:
    from fm_intent.data.description import Format
    from fm_intent.data.files import Files

_SAMPLE: Final = 500

_SIGNATURES: Final[Mapping[str, frozenset[str]]] = {
    "segment": frozenset({"messageId", "event", "properties"}),
    "snowplow": frozenset({"event_id", "derived_tstamp"}),
    "cloudevents": frozenset({"specversion", "source", "type"}),
    "jellyfin-webhook": frozenset({"NotificationType", "ItemId"}),
    "tautulli": frozenset({"reference_id", "rating_key"}),
    "trakt": frozenset({"watched_at", "action", "type"}),
    "netflix": frozenset({"Profile Name", "Start Time", "Title"}),
}
"""Fields that tell whose a record is."""

_OPTIONS_NEEDED: Final = {
    "segment": "profile, if `userId` is an account with several profiles",
    "snowplow": "the entity that names titles (docs/adapters.md)",
    "cloudevents": "adapter, if the data inside aren't events of ours",
    "netflix": "season_words, if titles are in a language that isn't known",
}
"""What no sample says, by adapter."""

_SEPARATORS: Final = ("|", ";", ",", "/")
_DATES: Final = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%y")
"""Forms of dates with day or month first."""


@dataclass(frozen=True, slots=True)
class Guess:
    """A source's description, as far as files say it.

    Attributes:
        text: Of `source.yaml`, with comments.
        found: What was guessed, a sentence each.
        open: What has to be told by hand, a sentence each.
    """

    text: str
    found: tuple[str, ...]
    open: tuple[str, ...]


def _unknown(looked: Sequence[_Looked]) -> str:
    """The columns of files that look like nothing, for who knows what they are."""
    strange = [one for one in looked if not one.adapter and not one.columns]
    told = (
        f"{', '.join(one.paths)} has {', '.join(one.sample[0])}" for one in strange if one.sample
    )
    return "".join(f"; {one}" for one in told)


@dataclass(slots=True)
class _Looked:
    """Some files of one kind, and records of the first."""

    paths: list[str]
    files: Files
    sample: list[dict[str, Any]]
    folder: str = ""
    """That was pointed at and has them, where one was."""
    adapter: str = ""
    """Of events; empty: a catalogue."""
    columns: dict[str, str] = field(default_factory=dict)

    def values(self, column: str) -> list[Any]:
        return [row[column] for row in self.sample if row.get(column) not in (None, "", [])]


def guess(paths: Sequence[str], into: Path) -> Guess:
    """Guess from files.

    Args:
        paths: Files, folders, globs or URLs. Of a folder, what lies in it directly is told apart.
        into: Where the description will lie: its paths are relative to that file's folder.

    Raises:
        DataUnusableError: when a path names nothing, or nothing in the files can be read.
    """
    looked, found, left = [], list[str](), list[str]()
    for path, folder in _candidates(paths):
        try:
            looked.append(_look(path, folder))
        except DataUnusableError as error:
            left.append(f"{path}: is left out; {error}")
    events, more_events = _together([one for one in looked if one.adapter])
    titles, more_titles = _together([one for one in looked if not one.adapter and one.columns])
    if events is None and titles is None:
        seen = sorted({name for one in looked for row in one.sample for name in row})
        raise DataUnusableError(
            "neither events nor a catalogue is told by the columns "
            f"{', '.join(seen[:30]) or '(none)'}; write source.yaml by hand: docs/source-yaml.md"
            + "".join(f"\n{one}" for one in left)
        )
    for what, one, more in (("events", events, more_events), ("catalogue", titles, more_titles)):
        if one is None:
            left.append(f"{what}.path: none of the files looks like it{_unknown(looked)}")
        else:
            found.append(f"{what}: {', '.join(one.paths)} ({one.files.format})")
        left += [
            f"{what}.path: {', '.join(other.paths)} ({other.files.format}) has {what} in another "
            "form and is left out; a source is of one form, so convert it, or import it first"
            for other in more
        ]
    name = into.absolute().parent.name.lower().replace(" ", "-").strip("._-") or "source"
    lines = [_HEAD.format(name=_name(name))]
    lines += _events_lines(events, into, found, left)
    lines += _catalogue_lines(titles, into, found, left)
    lines += _label_lines(titles, events, found)
    lines.append(_TAIL)
    return Guess("\n".join(lines), tuple(found), tuple(left))


def _candidates(paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The paths; of a folder that is no folder of one table, what is in it, and the folder."""
    for path in paths:
        filesystem, inner = fsspec.core.url_to_fs(path)
        if not filesystem.isdir(inner):
            yield path, ""
            continue
        local = "file" in filesystem.protocol
        for one in sorted(filesystem.ls(inner, detail=False)):
            name = str(one).rstrip("/").rsplit("/", 1)[-1]
            if "=" in name:  # a folder of a table's partitions
                yield path, ""
                break
            if not name.startswith(("_", ".")) and not name.endswith((".yaml", ".yml", ".md")):
                yield str(one) if local else filesystem.unstrip_protocol(str(one)), path


def _look(path: str, folder: str) -> _Looked:
    files = find_files([path])
    sample = _sample(files, Held())
    names = {name for row in sample for name in row}
    looked = _Looked([path], files, sample, folder)
    reports = adapters()["jellyfin-reports"].files
    if files.format == "csv" and len(names) == len(reports.columns) and _is_time(min(names)):
        looked.adapter, looked.sample = "jellyfin-reports", _sample(files, reports)
        return looked
    for adapter, signature in _SIGNATURES.items():
        if signature <= names:
            looked.adapter = adapter
            return looked
    of_events, of_titles = _matched(EVENTS, names), _matched(CATALOGUE, names)
    if {"profile_id", "occurred_at_ms"} <= of_events.keys():
        looked.adapter, looked.columns = OURS, of_events
    elif "title_id" in of_titles and of_titles.keys() & {"name", "genres"}:
        looked.columns = of_titles
    return looked


def _sample(files: Files, held: Held) -> list[dict[str, Any]]:
    """Records of the first file that has some and can be read."""
    broken = []
    for name in files.names:
        try:
            some = list(islice(records(name, files.format, held), _SAMPLE))
        except DataUnusableError as error:
            broken.append(error)
            continue
        if found := [record for record in some if isinstance(record, dict)]:
            return found
    if broken:
        raise broken[0]
    return []


def _is_time(value: str) -> bool:
    return value[:4].isdigit() and value[4:5] == "-"


def _matched(known: Mapping[str, Sequence[str]], names: Iterable[str]) -> dict[str, str]:
    """Ours → theirs; each of theirs once."""
    theirs = {plain(name): name for name in sorted(names)}
    found: dict[str, str] = {}
    for ours, likely in known.items():
        for one in likely:
            if one in theirs and theirs[one] not in found.values():
                found[ours] = theirs[one]
                break
    return found


def _together(looked: list[_Looked]) -> tuple[_Looked | None, list[_Looked]]:
    """Files that are read alike, as one: the most of them; and those of each other form."""
    if not looked:
        return None, []
    alike: dict[Any, list[_Looked]] = {}
    for one in looked:
        key = (one.adapter, one.files.format, tuple(sorted(one.columns.items())))
        alike.setdefault(key, []).append(one)
    forms = [
        replace(some[0], paths=_named(some), sample=[row for one in some for row in one.sample])
        for some in sorted(alike.values(), key=len, reverse=True)
    ]
    return forms[0], forms[1:]


def _named(looked: Sequence[_Looked]) -> list[str]:
    """What names exactly these: the folder that was pointed at, a glob in it, or one by one."""
    paths = [path for one in looked for path in one.paths]
    folder = looked[0].folder.rstrip("/")
    if not folder or any(one.folder.rstrip("/") != folder for one in looked):
        return paths
    wanted = {name for one in looked for name in one.files.names}
    endings = {one.rpartition(".")[2] for one in wanted}
    globs = [f"{folder}/*.{ending}" for ending in endings] if len(endings) == 1 < len(paths) else []
    for name in (folder, *globs):
        if wanted == {*find_files([name], cast("Format", looked[0].files.format)).names}:
            return [name]
    return paths


def _events_lines(
    events: _Looked | None, into: Path, found: list[str], left: list[str]
) -> Iterator[str]:
    yield "\nevents:"
    if events is None:
        yield "  path: events  # to be told: files, a folder, globs, or URLs"
        return
    yield f"  path: {_paths(events, into)}"
    yield f"  format: {events.files.format}"
    yield f"  adapter: {events.adapter}  # docs/adapters.md lists them"
    found.append(f"events.adapter: {events.adapter}")
    if events.adapter != OURS:
        if needed := _OPTIONS_NEEDED.get(events.adapter):
            yield f"  # options: {{}}  # {needed}"
            left.append(f"events.options: {needed}")
        return
    yield from _column_lines(events.columns, found, "events")
    unit = _time_unit(events.values(events.columns["occurred_at_ms"]))
    yield f"  time_unit: {unit}  # where times are numbers"
    found.append(f"events.time_unit: {unit}")
    for name in ("event_id", "event_type", "title_id", "playback_id"):
        if name not in events.columns:
            yield f"  # columns.{name} wasn't found, and is needed"
            left.append(f"events.columns.{name}: no column looks like it, and it is needed")
    if not events.columns.keys() & {"watched_s", "position_s"}:
        left.append("events.columns.watched_s: no column tells how much was watched")


def _catalogue_lines(
    titles: _Looked | None, into: Path, found: list[str], left: list[str]
) -> Iterator[str]:
    yield "\ncatalogue:"
    if titles is None:
        yield "  path: catalogue.csv  # to be told"
        return
    yield f"  path: {_paths(titles, into)}"
    yield f"  format: {titles.files.format}"
    yield from _column_lines(titles.columns, found, "catalogue")
    for names in (("genres",), ("kind",), ("release_day", "release_year")):
        if not titles.columns.keys() & {*names}:
            told = " or ".join(names)
            left.append(f"catalogue.columns.{told}: no column looks like it")
    form, doubt = _date_form(titles.values(titles.columns.get("release_day", "")))
    if form:
        yield f"  date_format: {_quoted(form)}"
        found.append(f"catalogue.date_format: {form}")
    if doubt:
        left.append(f"catalogue.date_format: {doubt}")
    if separator := _separator(titles.values(titles.columns.get("genres", ""))):
        yield f"  genres_separator: {_quoted(separator)}"
        found.append(f"catalogue.genres_separator: {separator}")


def _label_lines(titles: _Looked | None, events: _Looked | None, found: list[str]) -> Iterator[str]:
    yield "\nlabels:"
    yield "  genres:"
    yield "    minimum_share: 0.001  # of the titles; rarer ones count as `other`"
    yield "    aliases: {}  # theirs: ours"
    yield "  kinds:"
    column = titles.columns.get("kind", "") if titles else ""
    kinds = sorted(set(map(str, titles.values(column)))) if titles else []
    aliases = {kind: ours for kind in kinds if (ours := KINDS.get(plain(kind), kind)) != kind}
    if kinds:
        found.append(f"kinds: {', '.join(kinds[:12])}")
    yield f"    aliases: {_flow(aliases)}  # seen: {', '.join(kinds[:12]) or 'none'}"
    yield "  devices:"
    devices: Counter[str] = Counter()
    if events and (named := events.columns.get("device")):
        devices.update(map(str, events.values(named)))
    seen = ", ".join(name for name, _ in devices.most_common(12)).replace("\n", " ")
    yield f"    aliases: {{}}  # seen: {seen or 'none'}"


def _column_lines(columns: Mapping[str, str], found: list[str], section: str) -> Iterator[str]:
    renamed = {ours: theirs for ours, theirs in columns.items() if ours != theirs}
    if renamed:
        yield "  columns:  # ours: theirs"
    for ours, theirs in renamed.items():
        yield f"    {ours}: {_quoted(theirs)}"
        found.append(f"{section}.columns.{ours}: {theirs}")


def _time_unit(times: Sequence[Any]) -> str:
    """By the magnitude of times that are numbers."""
    numbers = []
    for time in times:
        try:
            numbers.append(float(time))
        except (TypeError, ValueError):
            continue
    middle = sorted(numbers)[len(numbers) // 2] if numbers else 1e12
    return "s" if middle < 1e11 else "ms" if middle < 1e14 else "us"


def _date_form(dates: Sequence[Any]) -> tuple[str, str]:
    """The only form that all dates have, of those with day or month first; else what is doubtful.

    Neither, where one isn't of such a form.
    """
    fit = [one for one in _DATES if dates and all(_is_date(date, one) for date in dates)]
    if len(fit) > 1:
        return "", f"dates as {dates[0]} may be {' or '.join(fit)}"
    return "".join(fit), ""


def _is_date(value: Any, form: str) -> bool:
    try:
        dt.datetime.strptime(str(value).strip(), form)
    except ValueError:
        return False
    return True


def _separator(genres: Sequence[Any]) -> str | None:
    """What stands between genres that are one text, by how often it does."""
    texts = [one for one in genres if isinstance(one, str) and not one.startswith("[")]
    often = {sign: sum(sign in one for one in texts) for sign in _SEPARATORS}
    best = max(_SEPARATORS, key=lambda sign: often[sign])
    return best if often[best] else None


def _paths(looked: _Looked, into: Path) -> str:
    told = []
    for path in looked.paths:
        if "://" not in path and Path(path).absolute().is_relative_to(into.absolute().parent):
            path = str(Path(path).absolute().relative_to(into.absolute().parent))
        elif "://" not in path:
            path = str(Path(path).absolute())
        told.append(_quoted(path))
    return told[0] if len(told) == 1 else f"[{', '.join(told)}]"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _flow(mapping: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{_quoted(key)}: {_quoted(one)}" for key, one in mapping.items()) + "}"


def _name(text: str) -> str:
    kept = "".join(
        one if one.isascii() and (one.isalnum() or one in "._-") else "-" for one in text
    )
    return kept.strip("._-")[:64] or "source"


_HEAD: Final = """\
# A service's data, and how a model is trained on them. docs/source-yaml.md explains every key;
# `intentstream data check` looks for faults in the data. What begins with # may be set.

name: {name}  # of the folder of what is prepared"""

_TAIL: Final = """
# exclude:
#   profiles: [tester-1]
#   titles: []
#   kinds: [clip]
#   before: 2024-01-01

# groups:  # profiles that are judged apart
#   kids: {profiles_matching: "kids-.*"}

training:
  experiment: served
  split: global-time  # tests on the newest days; or leave-one-out
  # epochs: 20  # else until validation stops rising
  # max_minutes: 60

# gates:
#   check:
#     share_unknown: {warn: 0.5}
#   training: {ndcg10_over_popularity: 1.0, profiles: 50}
"""
