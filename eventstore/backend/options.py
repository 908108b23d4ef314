"""Options of a URL: what an adapter takes, in a table; everything else is refused by name.

An adapter declares its ``Options`` once. Reading, defaults, refusals and "did you mean" are
here, so that they are alike on every engine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from enum import Enum
from typing import Any, Final, TypeVar

import msgspec

from eventstore._core.checks import shown
from eventstore.errors import ConfigurationError

_Choice = TypeVar("_Choice", bound=Enum)

OPTION_NAME: Final = re.compile(r"[a-z_][a-z0-9_.-]{0,59}", re.ASCII | re.IGNORECASE)

_TRUE: Final = ("true", "1", "yes", "on")
_FALSE: Final = ("false", "0", "no", "off")

Read = Callable[[str, object], Any]
"""Returns the value of an option, given its name and what was written, or raises
ConfigurationError that says what it may be: ``as_flag``, ``as_integer`` and the like."""


def as_given(name: str, value: object) -> Any:
    """Return an option as it is: the driver checks it."""
    return value


class Option(msgspec.Struct, frozen=True):
    """An option of an adapter's own."""

    read: Read
    default: Any = None


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter takes beside the options that every store has."""

    own: Mapping[str, Option] = {}
    """For itself; in ``Settings.own_options`` with their values or defaults."""
    passed: Mapping[str, Read] = {}
    """For its driver; in ``Settings.driver_options`` those that are given."""
    settled: Mapping[str, str] = {}
    """Those of the driver's that are as they are. URLs often carry them, so the same value, in any
    case of letters, is welcome."""
    refused: Mapping[str, str] = {}
    """Those of the driver's that would void a guarantee, with the reason, or what to give
    instead."""
    any_case: bool = False
    """Whether the driver takes its options' names in any case of letters. The tables have them in
    lower case."""

    def resolve(
        self, scheme: str, core: Iterable[str], given: Mapping[str, object]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the adapter's own options, each with its value or default, and the driver's.

        ``core`` names the options that every store has, to be proposed for what nobody knows.
        """
        own = {name: option.default for name, option in self.own.items()}
        passed: dict[str, Any] = {}
        for name, value in given.items():
            key = name.lower() if self.any_case else name
            if name in self.own:
                own[name] = self.own[name].read(name, value)
            elif key in self.refused:
                raise ConfigurationError(f"{name}: cannot be given: {self.refused[key]}")
            elif key in self.settled:
                if str(value).lower() != self.settled[key]:
                    raise ConfigurationError(
                        f"{name}: must be {self.settled[key]}, as it is anyhow, not {shown(value)}"
                    )
            elif key in self.passed:
                passed[name] = self.passed[key](name, value)
            else:
                raise self._unknown(scheme, core, name)
        return own, passed

    def _unknown(self, scheme: str, core: Iterable[str], name: str) -> ConfigurationError:
        ours = [*core, *sorted(self.own)]
        drivers = [*self.passed, *self.settled]
        # What is no name may be the rest of a password with a '&' in it.
        shown_name = name if OPTION_NAME.fullmatch(name) else "url: an option of its query string"
        likely = get_close_matches(name.lower(), [*ours, *drivers], n=1)
        hint = f"did you mean {likely[0]}?" if likely else f"it takes {', '.join(ours)}"
        more = " and those of its driver" if drivers and not likely else ""
        return ConfigurationError(f"{shown_name}: {scheme}:// knows no such option; {hint}{more}")


def as_flag(name: str, value: object) -> bool:
    """Return an option that is true or false."""
    if type(value) is bool:
        return value
    if type(value) is str and value.lower() in _TRUE + _FALSE:
        return value.lower() in _TRUE
    raise ConfigurationError(f"{name}: must be true or false, not {shown(value)}")


def as_number(name: str, value: object, *, least: float = 0.0, most: float = 1e6) -> float:
    """Return an option that is a number."""
    try:
        if type(value) not in (str, int, float):
            raise TypeError
        number = float(value)  # type: ignore[arg-type]  # one of the three, seen above
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not least <= number <= most:
        raise ConfigurationError(
            f"{name}: must be a number from {least:g} to {most:g}, not {shown(value)}"
        )
    return number


def as_integer(name: str, value: object, *, least: int = 0, most: int = 10**9) -> int:
    """Return an option that is a whole number."""
    if type(value) is str and re.fullmatch(r"-?[0-9]{1,10}", value, re.ASCII):
        value = int(value)
    if type(value) is not int or not least <= value <= most:
        raise ConfigurationError(
            f"{name}: must be a whole number from {least} to {most}, not {shown(value)}"
        )
    return value


def as_choice(name: str, value: object, choices: type[_Choice]) -> _Choice:
    """Return an option that is a member, or the value of a member, of an Enum."""
    if isinstance(value, choices):
        return value
    for choice in choices:
        if choice.value == value:
            return choice
    raise ConfigurationError(
        f"{name}: must be one of {', '.join(str(choice.value) for choice in choices)},"
        f" not {shown(value)}"
    )
