"""What speaks PostgreSQL's protocol and is another engine is refused by name.

None of the others can be run here: what they say is taken from their documentation and source, or
from what users report of them, and told by a server that knows no more than that.
"""

from __future__ import annotations

import psycopg
import pytest

from eventstore import ConfigurationError, open_store
from eventstore_postgres.opening import doubt_about
from tests.kit.servers import start_postgres
from tests.postgres.greeting import server_that_says
from tests.postgres.work import note

COCKROACH = (
    "CockroachDB CCL v23.1.11 (x86_64-pc-linux-gnu, built 2023/09/27 01:53:43, go1.19.10)",
    "13.0.0",
)
YUGABYTE = (
    (
        "PostgreSQL 15.12-YB-2.25.2.0-b0 on x86_64-pc-linux-gnu, compiled by clang version 19.1.0,"
        " 64-bit"
    ),
    "15.12-YB-2.25.2.0-b0",
)
REDSHIFT = (
    (
        "PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC gcc (GCC) 3.4.2 20041017 (Red Hat"
        " 3.4.2-6.fc3), Redshift 1.0.12103"
    ),
    "8.0.2",
)

THE_SAME = [
    "PostgreSQL 18.4 on x86_64-pc-linux-gnu, compiled by gcc (GCC) 14.2.1, 64-bit",
    (
        "PostgreSQL 16.3 (Debian 16.3-1.pgdg120+1) on x86_64-pc-linux-gnu, compiled by gcc"
        " (Debian 12.2.0-14) 12.2.0, 64-bit"
    ),
    "PostgreSQL 16.3, compiled by Visual C++ build 1938, 64-bit",
    "PostgreSQL 17.0 on x86_64-windows, compiled by msvc-19.39.33523, 64-bit",
    "PostgreSQL 19devel on aarch64-apple-darwin24, compiled by Apple clang version 16.0.0, 64-bit",
    # Amazon Aurora, Neon, Supabase, AlloyDB (which Cloud SQL sounds like)
    (
        "PostgreSQL 15.4 on x86_64-pc-linux-gnu, compiled by x86_64-pc-linux-gnu-gcc (GCC) 9.5.0,"
        " 64-bit"
    ),
    (
        "PostgreSQL 17.5 (6bc9ef8) on aarch64-unknown-linux-gnu, compiled by gcc (Debian 12.2.0-14)"
        " 12.2.0, 64-bit"
    ),
    (
        "PostgreSQL 15.1 (Ubuntu 15.1-1.pgdg20.04+1) on x86_64-pc-linux-gnu, compiled by gcc"
        " (Ubuntu 9.4.0-1ubuntu1~20.04.1) 9.4.0, 64-bit"
    ),
    "PostgreSQL 14.4 on x86_64-pc-linux-gnu, compiled by Debian clang version 12.0.1, 64-bit",
]

OTHERS = [
    (COCKROACH[0], "CockroachDB"),
    (YUGABYTE[0], "YugabyteDB"),
    (REDSHIFT[0], "Amazon Redshift"),
    (
        (
            "PostgreSQL 12.12 (Greenplum Database 7.0.0 build commit:0a7a3566) on"
            " x86_64-pc-linux-gnu, compiled by gcc (GCC) 8.5.0, 64-bit compiled on Sep 20 2023"
        ),
        "Greenplum",
    ),
    ("PostgreSQL 9.5 on x86_64-unknown-linux-gnu (Materialize 26.36.0)", "Materialize"),
    ("CrateDB 5.4.3 (built 75a2ea4/2023-09-26T09:35:21Z, Linux 5.15 amd64)", "CrateDB"),
    (
        (
            "PostgreSQL 14.5 (EnterpriseDB Advanced Server 14.5.0) on x86_64-pc-linux-gnu, compiled"
            " by gcc (GCC) 4.8.5, 64-bit"
        ),
        "EDB Postgres Advanced Server",
    ),
    ("PostgreSQL 12.3, compiled by Visual C++ build 1914, 64-bit, QuestDB", "QuestDB"),
    (
        (
            "PostgreSQL 17.5 (EDB Postgres Extended Server 17.5.0) on x86_64-pc-linux-gnu, compiled"
            " by gcc (GCC) 11.5.0, 64-bit"
        ),
        "EDB Postgres Extended Server",
    ),
    (
        (
            "PostgreSQL 9.2.4 (openGauss 2.0.0 build 78689da9) compiled at 2021-03-31 21:04:03"
            " commit 0 last mr on x86_64-unknown-linux-gnu, compiled by g++ (GCC) 7.3.0, 64-bit"
        ),
        "openGauss",
    ),
    ("PostgreSQL 13.14.0-RisingWave-2.0.0 (0d15632ac8d18fbd)", "RisingWave"),
    ("PostgreSQL 16", "'PostgreSQL 16'"),  # made up, as is the next
    ("SomethingNew 1.0", "'SomethingNew 1.0'"),
]


@pytest.mark.parametrize("version", THE_SAME)
def test_postgresql_is_known_wherever_it_runs(version: str) -> None:
    assert doubt_about(version) is None


@pytest.mark.parametrize(("version", "name"), OTHERS)
def test_another_engine_is_named(version: str, name: str) -> None:
    doubt = doubt_about(version)
    assert doubt is not None
    assert name in doubt


# --- With a server that says what they say


@pytest.mark.parametrize(
    ("said", "name"),
    [(COCKROACH, "CockroachDB"), (YUGABYTE, "YugabyteDB"), (REDSHIFT, "Amazon Redshift")],
)
def test_another_engine_is_refused_by_name_before_anything_is_done_to_it(
    said: tuple[str, str], name: str
) -> None:
    with server_that_says(*said) as (url, asked):
        with pytest.raises(ConfigurationError, match=f"{name}.*engine=unchecked"):
            open_store(url, timeout=10)
        assert asked[-1] == "SELECT pg_catalog.version()"
        assert all("set_config" not in each for each in asked)
        # Who says that it will do is believed: then it is asked for more
        with pytest.raises(ConfigurationError, match=r"no such thing|13 or later"):
            open_store(url, timeout=10, engine="unchecked")


# --- With locks that exclude nobody


def test_a_server_whose_locks_exclude_nobody_is_refused() -> None:
    with start_postgres() as server:
        with psycopg.connect(server.url, autocommit=True) as admin:
            admin.execute(
                "CREATE OR REPLACE FUNCTION pg_catalog.pg_try_advisory_xact_lock(bigint)"
                " RETURNS boolean LANGUAGE sql AS 'SELECT true'"
            )
        with pytest.raises(ConfigurationError, match=r"does not exclude another.*=unchecked"):
            open_store(server.url)
        with open_store(server.url, engine="unchecked") as store:
            assert store.append(note()).sequence == 1
