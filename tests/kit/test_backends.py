"""The table of backends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.backends import BACKENDS, selected_backends
from tests.kit.ports import free_port
from tests.kit.servers import ServerUnavailableError, start_redis

SERVERS = ("redis", "mongodb", "postgres")


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVENTSTORE_TEST_BACKENDS", raising=False)
    for backend in BACKENDS.values():
        monkeypatch.delenv(backend.variable, raising=False)


def test_names_every_backend() -> None:
    names = ["memory", "sqlite", "fakeredis", "redis", "mongomock", "mongodb", "postgres"]
    assert list(BACKENDS) == names
    assert [backend.name for backend in selected_backends()] == names
    assert BACKENDS["postgres"].variable == "EVENTSTORE_TEST_POSTGRES_URL"


@pytest.mark.parametrize("name", ["memory", "fakeredis", "mongomock"])
def test_a_log_in_this_process_has_a_name_of_its_own(name: str) -> None:
    with BACKENDS[name].base_url() as one, BACKENDS[name].base_url() as other:
        assert one.startswith(f"{name}://")
        assert one != other


def test_an_sqlite_file_goes_at_the_end() -> None:
    with BACKENDS["sqlite"].base_url() as url:
        assert url.startswith("sqlite:////")
        directory = Path(url.removeprefix("sqlite:///")).parent
        assert directory.is_dir()
    assert not directory.exists()


def test_a_private_server_answers() -> None:
    for name in SERVERS:
        backend = BACKENDS[name]
        assert backend.answers
        try:
            with backend.base_url() as url:
                address = backend._address(url)
                assert address
                assert backend.answers(*address)
            assert not backend.answers(*address)
        except ServerUnavailableError as error:
            assert "pip install" in str(error)  # noqa: PT017  # not the point of the test


def test_a_given_url_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with start_redis(requirepass="given-and-unknown") as server:
        url = server.url.replace("given-and-unknown", "other")
        monkeypatch.setenv("EVENTSTORE_TEST_REDIS_URL", url)
        # It answers, if only that the password is wrong: the store will say so.
        with BACKENDS["redis"].base_url() as given:
            assert given == url
        assert BACKENDS["redis"].asked_for
        assert not BACKENDS["fakeredis"].asked_for


@pytest.mark.parametrize("name", SERVERS)
def test_a_given_url_must_answer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = BACKENDS[name]
    url = f"{backend.schemes[0]}://user:hunter2@127.0.0.1:{free_port()}/0"
    monkeypatch.setenv(backend.variable, url)
    with pytest.raises(ServerUnavailableError, match="no such server answers") as caught:
        backend.base_url().__enter__()
    assert "hunter2" not in str(caught.value)


def test_a_fake_never_stands_in_for_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTSTORE_TEST_REDIS_URL", "fakeredis://")
    with pytest.raises(ServerUnavailableError, match="must begin with redis://"):
        BACKENDS["redis"].base_url().__enter__()


@pytest.mark.parametrize(
    ("name", "url", "address"),
    [
        ("redis", "redis+cluster://one,two:7000", ("one", 6379)),
        ("redis", "rediss://one", None),
        ("mongodb", "mongodb://u:p@one:1,two:2/?replicaSet=a", ("one", 1)),
        ("mongodb", "mongodb://one/?tls=true", None),
        ("mongodb", "mongodb+srv://one", None),
        ("postgres", "postgresql://u:p@[::1]:5433/db", ("::1", 5433)),
        ("postgres", "postgresql:///db?host=/run/postgresql", None),
        ("postgres", "postgresql://%2Frun/db", None),
    ],
)
def test_where_to_ask(name: str, url: str, address: tuple[str, int] | None) -> None:
    assert BACKENDS[name]._address(url) == address


def test_rows_can_be_selected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTSTORE_TEST_BACKENDS", "postgres, memory")
    assert [backend.name for backend in selected_backends()] == ["memory", "postgres"]
    assert BACKENDS["postgres"].asked_for
    assert not BACKENDS["redis"].asked_for


def test_an_unknown_row_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTSTORE_TEST_BACKENDS", "postgres,oracle")
    with pytest.raises(ValueError, match="there is no oracle"):
        selected_backends()
