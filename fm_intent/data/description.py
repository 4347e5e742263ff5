"""What a service's data are like and how a model is trained on them: its `source.yaml`, typed.

Every scalar of the file is text until the field that takes it says what it is to be, so that an id
`007`, a country `NO` or a genre `on` stays what was written.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from fm_intent.data.faults import BY_NAME as FAULTS
from stream.adapters.registry import adapters
from stream.exceptions import AdapterOptionsError, DescriptionError

Format = Literal["auto", "parquet", "jsonl", "csv"]

CatalogueColumn = Literal[
    "title_id",
    "name",
    "kind",
    "genres",
    "release_day",
    "release_year",
    "duration_s",
    "duration_min",
]
EventColumn = Literal[
    "event_id",
    "profile_id",
    "event_type",
    "occurred_at_ms",
    "title_id",
    "playback_id",
    "watched_s",
    "position_s",
    "duration_s",
    "season",
    "episode",
    "device",
    "country",
    "query",
]

Share = Annotated[float, Field(ge=0, le=1)]


def _known_fault(name: str) -> str:
    if name not in FAULTS:
        raise ValueError(f"there is no such kind of fault; {_meant(name, list(FAULTS))}")
    return name


FaultName = Annotated[str, AfterValidator(_known_fault)]


def _date_format(form: str) -> str:
    day = dt.datetime(2022, 1, 6)
    try:
        is_one = dt.datetime.strptime(day.strftime(form), form) == day
    except ValueError:
        is_one = False
    if not is_one:
        raise ValueError("day, month and year are wanted, as in %d.%m.%Y for 06.01.2022")
    return form


DateFormat = Annotated[str, AfterValidator(_date_format)]


def _adapter(name: str) -> str:
    if name not in adapters():
        raise ValueError(f"there is no such adapter; {_meant(name, list(adapters()))}")
    return name


def _fitting(options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    adapter = info.data.get("adapter")
    if adapter is not None:
        try:
            adapters()[adapter].reader(options)
        except AdapterOptionsError as error:
            raise ValueError(str(error)) from None
    return options


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _located(path: str, info: ValidationInfo) -> str:
    """A relative path as one below the folder of the file that names it."""
    folder = (info.context or {}).get("folder")
    if folder is None or "://" in path:
        return path
    return str(Path(folder, Path(path).expanduser()))


_Location = Annotated[str, AfterValidator(_located)]
Paths = Annotated[
    tuple[_Location, ...],
    Field(min_length=1),
    BeforeValidator(_listed, json_schema_input_type=str | list[str]),
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class EventFiles(_Section):
    """Where events lie and how they are read."""

    path: Paths
    """Files, folders or globs, or a list of them; relative to this file, or a URL that fsspec
    opens."""
    format: Format = "auto"
    """`auto` tells it by the names of the files."""
    adapter: Annotated[str, AfterValidator(_adapter)] = "intent"
    """What turns a record of theirs into events of ours; `intent` takes records that are ours."""
    options: Annotated[dict[str, Any], AfterValidator(_fitting)] = {}
    """What the adapter wants to know beside the record."""
    columns: dict[EventColumn, str] = {}
    """Ours → theirs, for the adapter `intent`, where a column has another name in the files."""
    time_unit: Literal["ms", "s", "us"] = "ms"
    """Of `occurred_at_ms` in the files where it is a number; times that are text (ISO 8601) or
    Parquet's timestamps say it themselves."""


class CatalogueFiles(_Section):
    """Where the catalogue lies and how it is read."""

    path: Paths
    """As for events."""
    format: Format = "auto"
    """As for events."""
    columns: dict[CatalogueColumn, str] = {}
    """Ours → theirs, where a column has another name in the files."""
    genres_separator: str | None = None
    """Between genres, where they are one text and no list."""
    date_format: DateFormat | None = None
    """Of dates that are text, as `strptime` has it: `%d.%m.%Y` of 06.01.2022; else ISO 8601."""


class LabelRules(_Section):
    """How the values of a label are told from those that occur."""

    aliases: dict[str, str] = {}
    """Theirs → the label that counts for it."""
    minimum_share: Share = 0.001
    """A value with less than this share (of titles; of events, for devices) counts as `other`."""
    at_most: Annotated[int, Field(ge=1, le=1000)] = 64
    """Labels, the most frequent ones; all others count as `other`."""
    fixed: tuple[str, ...] | None = None
    """The labels, in this order, instead of learning them."""
    exclude: tuple[str, ...] = ()
    """Values that say nothing: they are no label and don't count as `other` either."""

    @model_validator(mode="after")
    def _aliases_end(self) -> Self:
        for value, label in self.aliases.items():
            if self.aliases.get(label, label) != label:
                raise ValueError(
                    f"aliases: {value} stands for {label}, which stands for {self.aliases[label]}; "
                    f"let {value} stand for what it ends at"
                )
        return self

    def named(self, values: Iterable[str | None]) -> list[str]:
        """Values of one record after aliases, in order and each once, without excluded ones."""
        pairs = ((one, self.aliases.get(one, one)) for one in values if one)
        left_out = set(self.exclude)
        return list(dict.fromkeys(label for one, label in pairs if not left_out & {one, label}))


class Labels(_Section):
    """The labels of a model's heads and inputs."""

    genres: LabelRules = LabelRules()
    """Of titles; a title may have several."""
    kinds: LabelRules = LabelRules()
    """Of titles: movie, show, live, clip, …"""
    devices: LabelRules = LabelRules()
    """Of events."""


class Exclusions(_Section):
    """What is left out: of training, and of what is checked."""

    profiles: tuple[str, ...] = ()
    """Ids of profiles: testers, monitors."""
    titles: tuple[str, ...] = ()
    """Ids of titles."""
    kinds: tuple[str, ...] = ()
    """Kinds of titles, as the labels have them."""
    before: dt.datetime | None = None
    """Events before this time (UTC where it names no zone)."""
    after: dt.datetime | None = None
    """Events at or after this time."""

    @property
    def from_ms(self) -> int | None:
        """`before` in Unix milliseconds."""
        return _unix_ms(self.before)

    @property
    def until_ms(self) -> int | None:
        """`after` in Unix milliseconds."""
        return _unix_ms(self.after)


class Group(_Section):
    """Profiles that are judged apart; told by exactly one of these."""

    profiles_matching: str | None = None
    """A regular expression that the whole id matches."""
    profiles_from: _Location | None = None
    """A file of ids, one a line."""
    country: str | None = None
    """That the profile's newest event names."""
    device: str | None = None
    """That the profile's newest event names."""

    @model_validator(mode="after")
    def _told_once(self) -> Self:
        told = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(told) != 1:
            raise ValueError(
                f"tell its profiles by one of {', '.join(type(self).model_fields)}, "
                f"not by {' and '.join(told) or 'none'}"
            )
        if self.profiles_matching is not None:
            try:
                re.compile(self.profiles_matching)
            except re.error as error:
                raise ValueError(f"profiles_matching is no regular expression: {error}") from None
        return self


class Training(_Section):
    """How a model is trained and split."""

    experiment: str = "served"
    """A name in `fm_intent.experiments`."""
    split: Literal["global-time", "leave-one-out"] = "global-time"
    """`global-time` tests on the newest days of everybody, `leave-one-out` on everybody's last
    play."""
    validation_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Of the plays, those before the test's, by time."""
    test_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Of the plays, the newest."""
    seed: int = 0
    """Of weights, batches and dropout."""
    epochs: Annotated[int, Field(ge=1)] | None = None
    """None: until validation stops rising."""
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    """Of wall-clock; None: no bound."""
    min_plays: Annotated[int, Field(ge=1)] = 1
    """Titles with fewer plays are left out of training's targets."""


class Threshold(_Section):
    """Shares from which on a fault is told as a warning or as an error; None: never."""

    warn: Share | None = None
    """Of the records that can have the fault."""
    fail: Share | None = None
    """As `warn`."""


class TrainingGates(_Section):
    """What a trained model has to reach to be exported."""

    ndcg10_over_popularity: Annotated[float, Field(ge=0)] = 1.0
    """Its NDCG@10 divided by that of popularity, at least."""
    ndcg10_over_best_baseline: Annotated[float, Field(ge=0)] | None = None
    """Its NDCG@10 divided by that of the best baseline of its report, at least; null: not asked."""
    profiles: Annotated[int, Field(ge=1)] = 50
    """That it was tested on, at least."""


class Gates(_Section):
    """When data or a model are not good enough."""

    check: dict[FaultName, Threshold] = {}
    """By kind of fault, as `intentstream data check` names them; the others keep their own."""
    training: TrainingGates = TrainingGates()


class SourceDescription(_Section):
    """A service's data, and how a model is trained on them."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    """Of the folder of what is prepared, in lower case."""
    events: EventFiles
    catalogue: CatalogueFiles
    labels: Labels = Labels()
    exclude: Exclusions = Exclusions()
    groups: dict[Annotated[str, Field(min_length=1)], Group] = {}
    """By the name that reports give them."""
    training: Training = Training()
    gates: Gates = Gates()


def read_description(file: Path) -> SourceDescription:
    """The description in `file`; relative paths in it become paths below the file's folder.

    Raises:
        DescriptionError: with every complaint, each with its line and key.
    """
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise DescriptionError(
            f"{file} can't be read ({error}); `intentstream data init` writes one"
        ) from None
    return parse_description(text, str(file), file.parent.absolute())


def parse_description(text: str, name: str, folder: Path | None = None) -> SourceDescription:
    """The description in `text`.

    Args:
        text: YAML.
        name: Of the file, for complaints.
        folder: What relative paths are relative to; None leaves them as they are.

    Raises:
        DescriptionError: with every complaint, each with its line and key.
    """
    try:
        root = yaml.compose(text, _Loader)
        data = yaml.load(text, _Loader)  # noqa: S506
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DescriptionError(f"{name}:{line}: this is no YAML: {error.problem}") from None
    if not isinstance(data, dict):
        raise DescriptionError(f"{name}:1: a mapping of keys is expected; docs/source-yaml.md")
    complaints = [(line, f"{key}: stands here twice; keep one") for line, key in _twice(root)]
    try:
        found = SourceDescription.model_validate(data, context={"folder": folder})
    except ValidationError as error:
        complaints += [_complaint(root, one) for one in error.errors()]
    if complaints:
        told = (f"{name}:{line}: {complaint}" for line, complaint in sorted(complaints))
        raise DescriptionError("\n".join(told))
    return found


def dump_description(description: SourceDescription) -> str:
    """YAML of what was set in `description`, with its paths as they are."""
    data = description.model_dump(mode="json", exclude_unset=True)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of `source.yaml`, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **SourceDescription.model_json_schema(),
    }


def _unix_ms(time: dt.datetime | None) -> int | None:
    if time is None:
        return None
    aware = time if time.tzinfo else time.replace(tzinfo=dt.UTC)
    return round(aware.timestamp() * 1000)


class _Loader(yaml.SafeLoader):
    """Knows text and nothing else, and null."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]
)


def _twice(node: yaml.Node | None, path: tuple[str, ...] = ()) -> Iterator[tuple[int, str]]:
    """Line and key of every key that a mapping has twice."""
    if isinstance(node, yaml.SequenceNode):
        for number, one in enumerate(node.value):
            yield from _twice(one, (*path, str(number)))
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            here = (*path, str(key.value))
            if key.value in seen:
                yield key.start_mark.line + 1, ".".join(here)
            seen.add(key.value)
            yield from _twice(value, here)


def _complaint(root: yaml.Node | None, error: Any) -> tuple[int, str]:
    """The line of a complaint of pydantic's, and what it says in our words."""
    path = tuple(part for part in error["loc"] if part != "[key]")
    key = ".".join(str(part) for part in path) or "the file"
    kind, told = error["type"], error["msg"].removeprefix("Value error, ")
    if kind == "missing":
        told = "is missing; add it"
    elif kind == "extra_forbidden":
        told = f"there is no such key; {_meant(str(path[-1]), _keys_at(path[:-1]))}"
    elif kind == "literal_error":
        expected = error["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        told = f"{error['input']!r} is none of these; {_meant(str(error['input']), expected)}"
    elif kind == "string_pattern_mismatch":
        told = f"{error['input']!r} has to match {error['ctx']['pattern']}"
    elif isinstance(error["input"], str):
        told += f", not {error['input']!r}"
    return _line(root, path), f"{key}: {told}"


def _meant(written: str, known: list[str]) -> str:
    close = get_close_matches(written, known, n=1, cutoff=0.5)
    return (f"did you mean {close[0]}? " if close else "") + f"Known are {', '.join(known)}"


def _keys_at(path: tuple[Any, ...]) -> list[str]:
    """The keys of the section that `path` leads to."""
    schema = SourceDescription.model_json_schema()
    here: Any = schema
    for part in path:
        inner = here.get("properties", {}).get(part) or here.get("additionalProperties", {})
        here = schema["$defs"][inner["$ref"].rsplit("/", 1)[-1]] if "$ref" in inner else inner
    return list(here.get("properties", {}))


def _line(node: yaml.Node | None, path: tuple[Any, ...]) -> int:
    """The line of the deepest part of `path` that is there."""
    line = node.start_mark.line + 1 if node else 1
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, one) for key, one in node.value if key.value == str(part)), None)
            if pair is None:
                return line
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line
    return line
