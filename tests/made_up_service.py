"""A streaming service that shares nothing with our sources: its files, as it would have them.

Its own ids, genres (some of them nobody else's), kinds, kids' profiles, a live channel, series with
seasons; its events as Segment sends them, with everything that is wrong in real ones if asked.
"""

from __future__ import annotations

import csv
import json
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

GENRES: Final = ("Heimatfilm", "Krimi", "Schlager", "Trickfilm", "Doku & Natur", "Shōnen")
KIDS_GENRE: Final = "Trickfilm"
KINDS: Final = ("Spielfilm", "Serie", "Live", "Kurzclip")
DEVICES: Final = ("Waipu Stick", "Handy", "Tablet")
CHANNEL: Final = "chan:nord-eins"
BEGIN: Final = datetime(2025, 3, 1, 18, tzinfo=UTC)
DAYS: Final = 30

SOURCE: Final = """\
name: kino-nord
events:
  path: {events}
  adapter: segment
  options:
    profile: [properties.profil, userId]
    show: properties.program
    browse: {{Title Viewed: title_open}}
catalogue:
  path: {catalogue}
  columns: {{title_id: nummer, name: titel, kind: art, genres: sparten, release_day: seit, duration_min: minuten}}
  genres_separator: " / "
labels:
  genres: {{aliases: {{Shonen: Shōnen}}}}
  devices: {{aliases: {{Waipu Stick: Fernseher}}}}
groups:
  kids: {{profiles_matching: "kind-.*"}}
training: {{experiment: demo, epochs: {epochs}, seed: 1}}
gates: {{training: {{profiles: 20}}}}
"""  # noqa: E501 - as people write it


@dataclass
class Service:
    """The service's titles and members; the same for the same seed.

    Args:
        profiles: how many there are; every fifth is a child's.
        seed: of everything that is drawn.
    """

    profiles: int = 240
    seed: int = 0
    titles: list[dict[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        chance = random.Random(self.seed)
        self.titles = [
            {
                "nummer": CHANNEL,
                "titel": "Nord Eins",
                "art": "Live",
                "sparten": "Schlager",
                "seit": "2001-05-01",
                "minuten": "",
            }
        ]
        for number in range(120):
            genre = GENRES[number % len(GENRES)]
            kind = KINDS[(0, 1, 1, 3)[number // len(GENRES) % 4]]
            other = f" / {chance.choice(GENRES)}" if number % 4 == 0 else ""
            self.titles.append(
                {
                    "nummer": f"kn:{kind[0].lower()}-{number:03}",
                    "titel": f"{genre} Nummer {number}",
                    "art": kind,
                    "sparten": genre.replace("ō", "o" if number % 2 else "ō") + other,
                    "seit": str((BEGIN - timedelta(days=chance.randrange(6000))).date()),
                    "minuten": "" if kind == "Live" else str({"Kurzclip": 8}.get(kind, 50)),
                }
            )

    def messages(self, first_day: int = 0, days: int = DAYS) -> list[dict[str, Any]]:
        """The events of some days, in order of time."""
        found = []
        for number in range(self.profiles):
            chance = random.Random(f"{self.seed} {number}")
            kid = number % 5 == 0
            profile = f"{'kind' if kid else 'p'}-{number:04}"
            likes = KIDS_GENRE if kid else GENRES[number % len(GENRES)]
            liked = [one for one in self.titles if one["titel"].startswith(likes)]
            episode = 0
            for day in range(DAYS):
                if chance.random() < 0.4:
                    continue
                at = BEGIN + timedelta(days=day, minutes=chance.randrange(240))
                session = f"sess-{number:04}-{day:02}"
                for _ in range(chance.randrange(1, 4)):
                    title = chance.choice(liked if chance.random() < 0.85 else self.titles)
                    episode += 1
                    said = self._sitting(chance, profile, session, title, episode, at)
                    if first_day <= day < first_day + days:
                        found += said
                    at += timedelta(minutes=55)
        return sorted(found, key=lambda one: str(one["timestamp"]))

    def _sitting(
        self,
        chance: random.Random,
        profile: str,
        session: str,
        title: dict[str, str],
        episode: int,
        at: datetime,
    ) -> list[dict[str, Any]]:
        length_s = 60 * int(title["minuten"] or 0)
        watched = chance.choice((0.1, 0.6, 1.0))
        about: dict[str, Any] = {
            "session_id": session,
            "asset_id": title["nummer"],
            "total_length": length_s or None,
            "livestream": title["art"] == "Live",
            "profil": profile,
        }
        if title["art"] == "Serie":
            about |= {"program": title["nummer"], "season": "1", "episode": str(1 + episode % 8)}
            about["asset_id"] = f"{title['nummer']}/s1e{1 + episode % 8}"
        else:
            about["program"] = title["nummer"]

        def said(name: str, after_s: float, position_s: float) -> dict[str, Any]:
            when = at + timedelta(seconds=after_s)
            return {
                "type": "track",
                "messageId": f"{session}-{title['nummer']}-{episode}-{name}-{int(after_s)}",
                "userId": f"konto-{profile[-4:-1]}",
                "event": name,
                "timestamp": when.isoformat().replace("+00:00", "Z"),
                "properties": about | {"position": position_s},
                "context": {"device": {"type": chance.choice(DEVICES)}},
            }

        spent = watched * (length_s or 1800)
        end = "Video Content Completed" if watched == 1 else "Video Content Playing"
        viewed = said("Title Viewed", -20, 0)
        viewed["properties"]["asset_id"] = title["nummer"]
        return [
            viewed,
            said("Video Content Started", 0, 0),
            said("Video Content Playing", spent / 2, spent / 2),
            said(end, spent, spent),
        ]

    def write(self, folder: Path, *, epochs: int = 2, days: int = DAYS) -> Path:
        """Write catalogue, events by day, and the `source.yaml` that describes them; its path."""
        (folder / "events").mkdir(parents=True, exist_ok=True)
        with (folder / "programm.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, list(self.titles[0]), delimiter=";")
            table.writeheader()
            table.writerows(self.titles)
        by_day: dict[str, list[str]] = {}
        for one in self.messages(0, days):
            line = json.dumps(one, ensure_ascii=False)
            by_day.setdefault(one["timestamp"][:10], []).append(line)
        for day, lines in by_day.items():
            (folder / "events" / f"{day}.jsonl").write_text("\n".join(lines) + "\n")
        source = folder / "source.yaml"
        source.write_text(
            SOURCE.format(events="events/*.jsonl", catalogue="programm.csv", epochs=epochs)
        )
        return source
