"""What all tabs of a running suite share."""

from __future__ import annotations

from dataclasses import dataclass

from apps.suite.limits import Doorkeeper
from apps.suite.sessions import Visitors
from core.settings import Settings


@dataclass(frozen=True)
class Services:
    """What the tabs share on the server."""

    settings: Settings
    visitors: Visitors
    doorkeeper: Doorkeeper
