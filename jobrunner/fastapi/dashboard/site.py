"""Renders the templates of one dashboard."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_urlsafe
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from jobrunner.core.redaction import Redaction
from jobrunner.core.version import __version__
from jobrunner.fastapi.dashboard import sent_forms, urls, words
from jobrunner.fastapi.dashboard.assets import Assets
from jobrunner.fastapi.dashboard.guards import Guards
from jobrunner.fastapi.dashboard.links import LinkTemplates
from jobrunner.fastapi.dashboard.live import LiveParts
from jobrunner.fastapi.dashboard.zone import Clock
from jobrunner.worker.settings import Settings

TEMPLATES: Final = Path(__file__).parent / "templates"


def _with_code(text: str) -> Markup:
    """Return a sentence with its quoted and back-ticked words as code."""
    parts: list[Any] = re.split(r"`([^`]+)`", text)
    pieces = [
        Markup("<code>{}</code>").format(part) if index % 2 else Markup.escape(part)
        for index, part in enumerate(parts)
    ]
    return Markup("").join(pieces)


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(link=urls.with_query, segment=urls.segment)
    made.filters.update(
        number=words.number,
        capped=words.capped,
        short=words.short,
        duration=words.duration,
        size=words.size,
        count_of=words.count_of,
        code=_with_code,
    )
    return made


@dataclass(frozen=True, slots=True)
class Shell:
    """The frame around every page."""

    base: str
    """The relative address of the dashboard's root."""
    title: str
    section: str = ""
    """The entry of the navigation that is current."""
    back: str = ""
    """The address of this page, relative to the root."""
    store: str = ""
    """The name of the database file."""
    dead: int = 0
    """Dead letters, counted up to the cap."""
    actor: str | None = None
    may_act: bool = False
    may_see: bool = False
    """True if the viewer may see arguments and results."""
    signs_in: bool = False
    """True if there is a sign-in page."""
    signed_in: bool = False
    live: bool = False
    took: str = ""
    """The time that reading the page took; empty if nothing was read."""
    framed: bool = True
    """False without navigation: the viewer may not read."""
    notice: str = ""
    """The effect of the last action, as a sentence."""
    bad: bool = False
    """True if something needs attention, for the icon of the tab."""


@dataclass(frozen=True, slots=True)
class Site:
    """The templates, files and guards of one dashboard."""

    guards: Guards
    settings: Settings
    """The settings of the runner."""
    links: LinkTemplates
    assets: Assets = field(default_factory=Assets)
    environment: Environment = field(default_factory=_environment)

    @property
    def redaction(self) -> Redaction:
        """Hides sensitive arguments and results."""
        return self.settings.redact

    def render(self, template: str, shell: Shell, view: object, clock: Clock) -> tuple[str, str]:
        """Return a page and the hash of its live parts."""
        live = LiveParts(self.assets.build)
        text = self.environment.get_template(template).render(
            shell=shell,
            v=view,
            clock=clock,
            live=live,
            once=sent_forms.FIELD,
            asset=lambda name: f"{shell.base}static/{self.assets.names[name]}",
            version=__version__,
        )
        return text.replace(sent_forms.PLACEHOLDER, token_urlsafe(9)), live.etag
