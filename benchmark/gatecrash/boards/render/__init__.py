"""Content of boards as Markdown, HTML or CSV. Each format escapes in one place, so that nothing a plugin wrote is markup."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gatecrash.boards.content import Content
from gatecrash.boards.render.csv import to_csv
from gatecrash.boards.render.html import to_html
from gatecrash.boards.render.markdown import to_markdown

FORMATS: Mapping[str, Callable[[Sequence[Content]], str]] = {"markdown": to_markdown, "csv": to_csv, "html": to_html}
"""By name, what writes boards one after the other as one text."""
