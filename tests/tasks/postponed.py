"""Tasks and dependencies whose annotations are text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends

from jobrunner import Injected

if TYPE_CHECKING:
    from decimal import Decimal


def get_text() -> str:
    return "text"


@dataclass
class Service:
    text: Annotated[str, Depends(get_text)]
    price: Annotated[int, Depends(get_text)] = 3


def get_service(text: Annotated[str, Depends(get_text)], price: Decimal | None = None) -> Service:
    return Service(text)


def work(number: int, service: Annotated[Service, Depends(get_service)] = Injected) -> None: ...
