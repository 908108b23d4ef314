"""What is wrong with a URL or a server is told in one clear error."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from eventstore import (
    ConfigurationError,
    Event,
    LogReplacedError,
    StoreUnavailableError,
    drop_namespace,
    open_store,
)
from tests.kit.fault_work import StartServer
from tests.kit.ports import LOOPBACK
from tests.kit.secrets_scan import a_password
from tests.kit.servers.redis import RedisServer

SECRET = a_password("-of-the-server")


@pytest.mark.parametrize("user", ["", ":wr0ng@", "nobody:wr0ng@"])
def test_a_missing_or_wrong_password_is_told_without_showing_it(
    start: StartServer, user: str
) -> None:
    server = start(requirepass=SECRET)
    with pytest.raises(StoreUnavailableError, match="user or password") as refused:
        open_store(f"redis://{user}{LOOPBACK}:{server.port}")
    assert not refused.value.transient
    assert not refused.value.may_have_written
    assert "wr0ng" not in _all_text(refused.value)
    with open_store(server.url) as store:
        assert SECRET not in store.url


@pytest.mark.parametrize("database", ["/99", "?db=99"])
def test_a_database_number_that_is_not_there_is_told(server: RedisServer, database: str) -> None:
    with pytest.raises(StoreUnavailableError, match="DB index is out of range") as refused:
        open_store(server.url.removesuffix("/0") + database)
    assert not refused.value.transient


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 64 + ".example", "-"])
def test_an_unknown_host_is_told_and_not_tried_again(
    scheme: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer of a name server that knows no such host; here, none may be asked."""
    resolve = socket.getaddrinfo

    def getaddrinfo(name: str, *others: Any, **options: Any) -> Any:
        if name in ("no-such-host.invalid", "-"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(name, *others, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(StoreUnavailableError) as refused:
        open_store(f"{scheme}://{host}:1", timeout=5)
    assert not refused.value.transient


@pytest.mark.parametrize("path", ["/orders", "/0/1", "/-1"])
def test_a_path_that_is_no_database_number_is_told(server: RedisServer, path: str) -> None:
    with pytest.raises(ConfigurationError, match="database's number"):
        open_store(server.url.removesuffix("/0") + path)


@pytest.mark.parametrize("key", ["meta", "log", "times", "firsts"])
@pytest.mark.parametrize("kind", ["string", "hash", "list"])
def test_a_key_that_is_not_ours_is_told_and_left_alone(
    server: RedisServer, namespace: str, key: str, kind: str
) -> None:
    name = f"{{{namespace}}}:{key}"
    command = {"string": ("SET", name, "x"), "hash": ("HSET", name, "x", "y")}
    server.execute(*command.get(kind, ("RPUSH", name, "x")))
    with pytest.raises(ConfigurationError, match=f"key {name} is there"):
        open_store(server.url, namespace=namespace)
    with pytest.raises(ConfigurationError, match=f"key {name} is there"):
        drop_namespace(server.url, namespace=namespace)
    assert server.execute("DEL", name) == 1


def test_a_log_that_is_not_there_is_not_created_unless_asked_for(
    server: RedisServer, namespace: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"eventstore init.*without create=false"):
        open_store(server.url, namespace=namespace, create=False)
    assert server.execute("EXISTS", f"{{{namespace}}}:meta") == 0


def test_a_log_half_dropped_is_not_opened_and_is_dropped_in_the_end(
    server: RedisServer, namespace: str
) -> None:
    with open_store(server.url, namespace=namespace) as store:
        store.append(Event(event_type="A", entity_type="a", entity_id="1"))
        # When one drops it and crashes right away
        server.execute("HSET", f"{{{namespace}}}:meta", "dropping", "1")
        server.execute("HDEL", f"{{{namespace}}}:meta", "log_id")
        # Then nobody writes to what is left of it
        with pytest.raises(LogReplacedError, match="removed or replaced"):
            store.append(Event(event_type="A", entity_type="a", entity_id="2"))
    with pytest.raises(ConfigurationError, match="drop it again"):
        open_store(server.url, namespace=namespace)
    drop_namespace(server.url, namespace=namespace)
    with open_store(server.url, namespace=namespace) as store:
        assert store.get_current_version("a", "1") == 0


@pytest.mark.parametrize(
    "option",
    [
        "decode_responses=true",
        "encoding=latin-1",
        "protocol=3",
        "read_from_replicas=true",
        "retry_on_timeout=true",
        "ssl_ca_certs=/ca.pem",
        "no_such_option=1",
        "max_connections=0",
        "socket_timeout=soon",
        "replicas=-1",
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(server: RedisServer, option: str) -> None:
    with pytest.raises(ConfigurationError, match=option.partition("=")[0]):
        open_store(f"{server.url}?{option}")


def test_options_of_the_driver_reach_it(server: RedisServer, namespace: str) -> None:
    with open_store(f"{server.url}?client_name=orders&max_connections=3", namespace=namespace):
        clients = server.execute("CLIENT", "LIST")
    assert isinstance(clients, bytes)
    assert b"name=orders" in clients


@pytest.mark.parametrize(
    "location",
    [f"user:pa@{LOOPBACK}:{SECRET}", f"{LOOPBACK}:{SECRET}/0", f"user:pa[{SECRET}@{LOOPBACK}"],
)
@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+cluster"])
def test_what_is_no_address_is_told_without_showing_a_password(scheme: str, location: str) -> None:
    with pytest.raises(ConfigurationError, match="must look like") as refused:
        open_store(f"{scheme}://{location}")
    chained = refused.value.__cause__ or refused.value.__context__
    assert refused.value.__suppress_context__ or chained is None
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
def test_a_certificate_that_is_not_there_is_told_by_its_option(tmp_path: Path, option: str) -> None:
    options: dict[str, Any] = {option: str(tmp_path / "missing.pem")}
    for url in ("rediss://localhost", "redis+cluster://localhost?ssl=true"):
        with pytest.raises(ConfigurationError, match=f"{option}: cannot read .*No such file"):
            open_store(url, **options)
    empty = tmp_path / "empty.pem"
    empty.touch()
    with pytest.raises(ConfigurationError, match="ssl_ca_certs: there is no certificate"):
        open_store("rediss://localhost", ssl_ca_certs=str(empty))


def test_a_cluster_url_wants_a_cluster(server: RedisServer) -> None:
    url = server.url.replace("redis://", "redis+cluster://")
    with pytest.raises(ConfigurationError, match="no node of a cluster"):
        open_store(url)


def test_a_node_of_a_cluster_wants_a_cluster_url(start: StartServer) -> None:
    server = start(cluster_enabled="yes")
    with pytest.raises(ConfigurationError, match=r"redis\+cluster"):
        open_store(server.url)
    with pytest.raises(ConfigurationError, match="database 0"):
        open_store(server.url.replace("redis://", "redis+cluster://").replace("/0", "/1"))


def _all_text(error: BaseException | None) -> str:
    text = ""
    while error is not None:
        text += str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return text
