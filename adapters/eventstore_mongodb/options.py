"""Options of a URL: what the driver may be given, and what would void a guarantee."""

from __future__ import annotations

import re
from typing import Any, Final

import pymongo
from pymongo.common import VALIDATORS

from eventstore.backend import Option, Options
from eventstore.errors import ConfigurationError

_HARMLESS: Final = re.compile(
    "appname|auth(mechanism(properties)?|source)|compressors|zlibcompressionlevel"
    "|connecttimeoutms|heartbeatfrequencyms|localthresholdms|servermonitoringmode"
    "|(max|min)poolsize|maxconnecting|maxidletimems|retry(reads|writes)"
    "|directconnection|loadbalanced|replicaset|srvmaxhosts|srvservicename"
    "|ssl|tls(allowinvalid(certificates|hostnames)|cafile|certificatekeyfile(password)?|crlfile"
    "|disableocspendpointcheck|insecure)?"
)
"""Of the driver's options, which it knows in lower case, those that change no guarantee."""


def _as_text(name: str, value: object) -> Any:
    """Return a flag as it stands in a URL, anything else as it is: the driver checks it."""
    return str(value).lower() if isinstance(value, bool) else value


def _as_client(name: str, value: object) -> pymongo.MongoClient[Any]:
    if not isinstance(value, pymongo.MongoClient):
        raise ConfigurationError(
            f"{name}: must be a pymongo.MongoClient, not {type(value).__name__}"
        )
    return value


def _refused(name: str) -> str:
    if name.endswith("timeoutms"):
        return "timeout (seconds) bounds every operation"
    return "it could change what the store guarantees"


_passed: Final = dict.fromkeys(filter(_HARMLESS.fullmatch, VALIDATORS), _as_text)
_settled: Final = {
    "w": "majority",
    "journal": "true",
    "readconcernlevel": "majority",
    "readpreference": "primary",
}

OPTIONS: Final = Options(
    own={"client": Option(_as_client)},
    passed=_passed,
    settled=_settled,
    refused={name: _refused(name) for name in VALIDATORS.keys() - _passed.keys() - _settled.keys()},
    any_case=True,
)
