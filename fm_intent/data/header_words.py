"""What columns of events and catalogues are called in English, German, Spanish and French."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Final


def plain(text: str) -> str:
    """A name without case, accents, blanks and signs: `Laufzeit_Min` is `laufzeitmin`."""
    return "".join(one for one in unicodedata.normalize("NFKD", text.casefold()) if one.isalnum())


def _joined(first: str, second: str) -> str:
    return " ".join(map("".join, product(first.split(), second.split())))


_TITLES: Final = """title content asset item movie video show program film titel sendung programm
    inhalt titulo contenido pelicula programa titre contenu programme"""
_NUMBERS: Final = "id nummer number nr key kennung numero"
_LENGTHS: Final = "duration runtime length laufzeit dauer länge spieldauer duración durée"
_SECONDS: Final = "s sec seconds sek sekunden segundos secondes"
_MINUTES: Final = "min minutes minuten minutos"
_TITLE_IDS: Final = f"{_joined(_TITLES, _NUMBERS)} {_joined('id numero', _TITLES)}"

_EVENTS: Final = {
    "event_id": "event_id message_id ereignis_id evento_id id_evento id uuid",
    "profile_id": """profile_id profile member_id user_id user account_id viewer_id customer_id
        profil_id profil nutzer_id nutzer benutzer_id benutzer konto kundennummer
        perfil_id id_perfil perfil usuario_id id_usuario usuario cuenta
        id_profil utilisateur id_utilisateur compte abonné""",
    "event_type": """event_type event_name event action type ereignis aktion typ art
        evento acción tipo événement""",
    "occurred_at_ms": """occurred_at_ms occurred_at event_time event_timestamp timestamp ts time
        created_at at zeitpunkt zeitstempel zeit datum fecha_hora fecha hora
        horodatage date_heure date heure""",
    "title_id": f"{_TITLE_IDS} title titel sendung título titre",
    "playback_id": """playback_id playback_session_id session_id sitzung sitzungs_id
        sesión sesión_id id_sesión id_session""",
    "watched_s": """watched_s watched_seconds watch_time seconds_watched watched gesehen
        visto tiempo_visto vu temps_vu""",
    "position_s": "position_s position playhead posición",
    "duration_s": f"{_joined(_LENGTHS, _SECONDS)} duration total_length dauer duración durée",
    "season": "season season_number staffel temporada saison",
    "episode": "episode episode_number folge episodio capítulo épisode",
    "device": "device device_type device_name platform gerät geraet dispositivo appareil",
    "country": "country country_code land país pays",
    "query": "query search_query search_term suchbegriff suche búsqueda recherche",
}
_CATALOGUE: Final = {
    "title_id": f"{_TITLE_IDS} id nummer número numéro",
    "name": """name title title_name original_title titel originaltitel bezeichnung
        título nombre titre nom""",
    "kind": "kind type content_type media_type title_type typ art tipo",
    "genres": """genres genre categories category listed_in tags kategorien kategorie sparten
        sparte género géneros categoría categorías catégorie""",
    "release_day": """release_day release_date released premiere_date released_at
        erscheinungsdatum erschienen veröffentlicht seit datum
        fecha_estreno estreno fecha date_sortie sortie date""",
    "release_year": """release_year year production_year erscheinungsjahr produktionsjahr jahr
        año año_estreno année année_sortie""",
    "duration_s": f"{_joined(_LENGTHS, _SECONDS)} duration length",
    "duration_min": f"""{_joined(_LENGTHS, _MINUTES)} runtime minutes minuten dauer laufzeit
        minutos duración durée""",
}
_KINDS: Final = {
    "movie": "film movie feature spielfilm película",
    "show": "series tv_show tvseries show serie série",
}


def _likely(words: Mapping[str, str]) -> dict[str, Sequence[str]]:
    return {ours: list(dict.fromkeys(map(plain, told.split()))) for ours, told in words.items()}


EVENTS: Final = _likely(_EVENTS)
"""Ours → theirs, the likeliest first, as `plain` has them."""
CATALOGUE: Final = _likely(_CATALOGUE)
"""Likewise, of a catalogue."""
KINDS: Final = {word: kind for kind, words in _likely(_KINDS).items() for word in words}
"""What kinds are often called, as `plain` has it → ours."""
