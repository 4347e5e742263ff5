"""Text of strangers, made fit to be shown on a terminal or in a log.

Keys, values, headers, names and the errors that quote them come from whoever may write to Kafka, or
from whatever server answers. As they are they could move the cursor, hide or fake lines, and end a
command because rich takes square brackets for its markup.
"""

from __future__ import annotations

import json
import logging
import re
import traceback
import unicodedata
from typing import Any, Final

import orjson
from rich.console import Console
from rich.text import Text

_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of controls, of formats (of direction, of no width), of halves of characters
and of separators of lines."""

_NOT_ASCII: Final = re.compile(r"[^\x00-\x7e]")


def visible(text: str) -> str:
    r"""`text` in one line, what can't be seen in it as an escape: `\x1b`, `\n`, `\u202e`."""
    if text.isprintable():
        return text
    return "".join(map(_seen, text))


def visible_lines(text: str) -> str:
    """`text` of several lines, all but the first set in: none passes for another message."""
    return "\n    ".join(map(visible, text.split("\n")))


def json_text(value: Any, option: int = 0) -> str:
    """`value` as JSON; what can't be seen in its strings stands there as JSON's own escapes."""
    return _NOT_ASCII.sub(_json_seen, orjson.dumps(value, option=option).decode())


class PlainConsole(Console):
    """A console that shows every string as it is; markup and styles are for `Text` alone."""

    def render_str(self, text: str, **options: Any) -> Text:
        """The text of a string, whatever prints it: a line, a title or a cell of a table."""
        plain = "\n".join(map(visible, text.split("\n")))
        return super().render_str(plain, **options | {"markup": False, "emoji": False})


class _PlainRecord(logging.LogRecord):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.exc_info and self.exc_info[0]:
            told = "".join(traceback.format_exception(*self.exc_info))
            self.exc_text = visible_lines(told.rstrip("\n"))

    def getMessage(self) -> str:  # noqa: N802 - the name is that of `logging`
        return visible_lines(super().getMessage())


def log_plainly() -> None:
    """Make every log message and traceback of this process from now on visible."""
    logging.setLogRecordFactory(_PlainRecord)


def _seen(character: str) -> str:
    if unicodedata.category(character) not in _UNSEEN:
        return character
    return character.encode("unicode_escape").decode()


def _json_seen(found: re.Match[str]) -> str:
    character = found[0]
    if unicodedata.category(character) not in _UNSEEN:
        return character
    return json.dumps(character)[1:-1] if character > "\x7f" else "\\u007f"
