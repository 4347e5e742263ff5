"""Records as others send them: made after their specifications, with no real person's data."""

from __future__ import annotations

from typing import Any, Final

SEGMENT_PLAYING: Final[dict[str, Any]] = {
    "type": "track",
    "event": "Video Content Playing",
    "messageId": "ajs-next-1714849511123-5d8a7f0c-0a51-4b43-9f6e-0c2a7ff1c3aa",
    "userId": "account-7",
    "anonymousId": "9b6e0a6f-4c6b-4b6e-9d4b-1f0c6f0d7a11",
    "timestamp": "2024-05-04T19:05:11.123Z",
    "context": {"device": {"type": "android"}, "location": {"country": "Germany"}},
    "properties": {
        "session_id": "12345",
        "asset_id": "0129370",
        "pod_id": "segA",
        "program": "Planet Earth",
        "title": "Seasonal Forests",
        "season": "1",
        "episode": "4",
        "position": 910,
        "total_length": 3600,
        "livestream": False,
        "genre": "Documentary",
    },
}

_PLAYER: Final = {
    "currentTime": 901.5,
    "duration": 3600.0,
    "ended": False,
    "paused": False,
    "livestream": False,
    "mediaType": "video",
}
_SESSION: Final = {
    "mediaSessionId": "b1f7c9a2-52c1-4a26-b1b7-0f6ac7b1a111",
    "startedAt": "2024-05-04T18:50:00.000Z",
    "pingInterval": 30,
    "timePlayed": 920.0,
    "contentWatched": 880.25,
}
SNOWPLOW_PING: Final[dict[str, Any]] = {
    "app_id": "tv",
    "event": "unstruct",
    "event_id": "c6ef3124-b53a-4b13-a233-0088f79dcbcb",
    "event_vendor": "com.snowplowanalytics.snowplow.media",
    "event_name": "ping_event",
    "event_version": "1-0-0",
    "derived_tstamp": "2024-05-04T19:05:11.123Z",
    "user_id": "member-7",
    "geo_country": "DE",
    "dvce_type": "Computer",
    "unstruct_event_com_snowplowanalytics_snowplow_media_ping_event_1": {},
    "contexts_com_snowplowanalytics_snowplow_media_player_2": [_PLAYER],
    "contexts_com_snowplowanalytics_snowplow_media_session_1": [_SESSION],
    "contexts_com_acme_title_1": [{"id": "show-9", "season": 2, "episode": 3}],
}
SNOWPLOW_SENT: Final[dict[str, Any]] = {
    "event_id": "c6ef3124-b53a-4b13-a233-0088f79dcbcb",
    "derived_tstamp": "2024-05-04 19:05:11.123",
    "user_id": "member-7",
    "unstruct_event": {
        "schema": "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0",
        "data": {
            "schema": "iglu:com.snowplowanalytics.snowplow.media/ping_event/jsonschema/1-0-0",
            "data": {},
        },
    },
    "contexts": {
        "schema": "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-0",
        "data": [
            {
                "schema": "iglu:com.snowplowanalytics.snowplow/media_player/jsonschema/2-0-0",
                "data": _PLAYER,
            },
            {
                "schema": "iglu:com.snowplowanalytics.snowplow.media/session/jsonschema/1-0-0",
                "data": _SESSION,
            },
            {
                "schema": "iglu:com.acme/title/jsonschema/1-0-2",
                "data": {"id": "show-9", "season": 2, "episode": 3},
            },
        ],
    },
}
SNOWPLOW_OPTIONS: Final = {"title_entity": "iglu:com.acme/title/jsonschema/1-0-0"}

CLOUDEVENT: Final[dict[str, Any]] = {
    "specversion": "1.0",
    "id": "A234-1234-1234",
    "source": "/players/tv",
    "type": "play_stop",
    "time": "2024-05-04T19:05:11Z",
    "datacontenttype": "application/json",
    "data": {
        "profile_id": "member-7",
        "title_id": "film-3",
        "playback_id": "sitting-1",
        "watched_s": 1200,
    },
}

JELLYFIN_ROW: Final[dict[str, Any]] = {
    "DateCreated": "2024-05-04 21:05:11.1234567",
    "UserId": "f2b3a5d2c1e04c0f9a7b6d5e4c3b2a19",
    "ItemId": "0123456789abcdef0123456789abcdef",
    "ItemType": "Episode",
    "ItemName": "Planet Earth - s01e04 - Seasonal Forests",
    "PlaybackMethod": "DirectPlay",
    "ClientName": "Jellyfin Android TV",
    "DeviceName": "Living room",
    "PlayDuration": "2710",
}
JELLYFIN_STOP: Final[dict[str, Any]] = {
    "ServerId": "6b0f",
    "NotificationType": "PlaybackStop",
    "Timestamp": "2024-05-04T21:50:21.7654321+02:00",
    "UtcTimestamp": "2024-05-04T19:50:21.7654321Z",
    "Name": "Seasonal Forests",
    "ItemId": "01234567-89ab-cdef-0123-456789abcdef",
    "ItemType": "Episode",
    "RunTimeTicks": 36_000_000_000,
    "SeriesName": "Planet Earth",
    "SeriesId": "fedcba9876543210fedcba9876543210",
    "SeasonNumber": 1,
    "EpisodeNumber": 4,
    "PremiereDate": "2006-11-19",
    "Genres": "Documentary",
    "PlaybackPositionTicks": 27_100_000_000,
    "IsPaused": False,
    "PlayedToCompletion": False,
    "DeviceId": "TW96aWxsYS81LjA",
    "DeviceName": "Living room",
    "ClientName": "Jellyfin Android TV",
    "UserId": "f2b3a5d2-c1e0-4c0f-9a7b-6d5e4c3b2a19",
}

TAUTULLI_ROW: Final[dict[str, Any]] = {
    "date": 1462687607,
    "friendly_name": "Mother of Dragons",
    "grandparent_rating_key": 351,
    "grandparent_title": "Game of Thrones",
    "group_count": 1,
    "group_ids": "1124",
    "live": 0,
    "media_index": 17,
    "media_type": "episode",
    "originally_available_at": "2016-04-24",
    "parent_media_index": 7,
    "parent_rating_key": 544,
    "paused_counter": 30,
    "percent_complete": 84,
    "platform": "Windows",
    "play_duration": 233,
    "player": "Castle-PC",
    "rating_key": 4348,
    "reference_id": 1123,
    "row_id": 1124,
    "started": 1462688107,
    "state": None,
    "stopped": 1462688370,
    "user_id": 8008135,
    "watched_status": 0,
}

TRAKT_EPISODE: Final[dict[str, Any]] = {
    "id": 1982347,
    "watched_at": "2014-03-31T09:28:53.000Z",
    "action": "scrobble",
    "type": "episode",
    "episode": {
        "season": 1,
        "number": 2,
        "title": "Cat's in the Bag...",
        "ids": {"trakt": 62086, "tvdb": 349238, "imdb": "tt1054724", "tmdb": 62086},
    },
    "show": {
        "title": "Breaking Bad",
        "year": 2008,
        "ids": {"trakt": 1388, "slug": "breaking-bad", "tvdb": 81189, "imdb": "tt0903747"},
    },
}
TRAKT_OPTIONS: Final = {"profile_id": "me"}

NETFLIX_ROW: Final[dict[str, Any]] = {
    "Profile Name": "Ada",
    "Start Time": "2024-03-14 20:12:03",
    "Duration": "00:48:22",
    "Attributes": "",
    "Title": "Dark: Season 2: Endings and Beginnings",
    "Supplemental Video Type": "",
    "Device Type": "Samsung CE 2019 Smart TV",
    "Bookmark": "00:48:31",
    "Latest Bookmark": "00:48:31",
    "Country": "DE (Germany)",
}

RATING: Final[dict[str, Any]] = {
    "rating_id": "0000012",
    "user_id": "7",
    "title_id": "tt0104257",
    "timestamp": "1364690142",
}

OURS: Final[dict[str, Any]] = {
    "event_id": "my-1",
    "profile_id": "me",
    "event_type": "play_stop",
    "occurred_at_ms": 1_714_849_511_123,
    "title_id": "film-3",
    "playback_id": "sitting-1",
    "watched_s": 12.5,
    "position_s": 14.0,
    "duration_s": 100.0,
    "season": 1,
    "episode": 2,
    "device": "tv",
    "country": "DE",
}

SAMPLES: Final[tuple[tuple[str, dict[str, Any], dict[str, Any]], ...]] = (
    ("intent", {}, OURS),
    ("segment", {"show": "properties.program"}, SEGMENT_PLAYING),
    ("snowplow", SNOWPLOW_OPTIONS, SNOWPLOW_PING),
    ("snowplow", SNOWPLOW_OPTIONS, SNOWPLOW_SENT),
    ("cloudevents", {}, CLOUDEVENT),
    ("jellyfin-reports", {"time_zone": "Europe/Berlin"}, JELLYFIN_ROW),
    ("jellyfin-webhook", {}, JELLYFIN_STOP),
    ("tautulli", {}, TAUTULLI_ROW),
    ("trakt", TRAKT_OPTIONS, TRAKT_EPISODE),
    ("netflix", {}, NETFLIX_ROW),
    ("ratings", {"source": "mt"}, RATING),
)
"""Name of an adapter, its options, a record that it takes."""
