"""Roles of a daemon's clients."""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

RoleName = Literal["watch", "mark", "operate", "deploy"]


class Role(IntEnum):
    """A client's rights; each role includes those below it."""

    WATCH = 1
    MARK = 2
    OPERATE = 3
    DEPLOY = 4

    @property
    def title(self) -> str:
        """The role's name in the file."""
        return self.name.lower()
