"""The Optuna storage that processes share: a journal on one host, a database or Optuna's gRPC proxy across hosts.

SQLite is refused: it has no row locks, and Optuna 5.0 gave one trial to two workers there.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import optuna
from optuna.storages import (
    BaseStorage,
    GrpcStorageProxy,
    JournalStorage,
    RDBStorage,
    RetryHeartbeatStaleTrialCallback,
)
from optuna.storages.journal import JournalFileBackend

from edgewright.errors import InputError, OutsideError

HEARTBEAT_SECONDS = 15
SILENT_SECONDS_MAX = 120  # without a heartbeat a worker counts as dead
ATTEMPTS_MAX = 3  # of an item whose workers died
JOURNAL = "journal"
PASSWORD = re.compile(r"(//[^/@:]*):[^@]*@")
EXPECTED = (
    "Expected is postgresql://…, mysql://… or grpc://HOST:PORT of Optuna's storage proxy, or none for workers of this "
    "host alone."
)


def journal_url(path: Path) -> str:
    """Returns the address of a storage for the workers of one host."""
    return f"{JOURNAL}://{path.resolve()}"


@contextmanager
def shared_storage(url: str, silent_seconds: int = SILENT_SECONDS_MAX) -> Iterator[BaseStorage]:
    """Opens the storage at `url` and closes its connections at the end. Raises InputError for no such kind of it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InputError(f"The storage's address is malformed: {error}. {EXPECTED}") from None
    if parts.scheme == JOURNAL:
        yield JournalStorage(JournalFileBackend(parts.path))
    elif parts.scheme == "grpc":
        with closing(GrpcStorageProxy(host=parts.hostname or "localhost", port=port or 13000)) as proxy:
            yield proxy
    else:
        database = _database(url, silent_seconds)
        try:
            yield database
        finally:
            database.remove_session()
            database.engine.dispose()


def _database(url: str, silent_seconds: int) -> RDBStorage:
    parts = urlsplit(url)
    if parts.scheme.partition("+")[0] not in ("postgresql", "mysql"):
        raise InputError(f"The storage {_without_password(url)} is none that workers can share. {EXPECTED}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return RDBStorage(
            url,
            heartbeat_interval=min(HEARTBEAT_SECONDS, max(1, silent_seconds // 4)),
            grace_period=silent_seconds,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=ATTEMPTS_MAX),
        )


@contextmanager
def storage_faults(url: str = "") -> Iterator[None]:
    """Turns what a storage raises into errors of the builder."""
    import grpc
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    where = f" {_without_password(url)}" if url else ""
    try:
        yield
    except ImportError as error:
        raise InputError(
            f"The storage{where} needs a package that is not here ({error}); install the database's driver, for "
            "PostgreSQL psycopg[binary]."
        ) from None
    except (SQLAlchemyError, StorageInternalError, grpc.RpcError) as error:
        details = error.details() if isinstance(error, grpc.Call) else None
        first_line = (details or str(error)).strip().split("\n")[0].rstrip(".")
        raise OutsideError(
            f"The storage{where} can't be used: {first_line}. Mend that and run the same command again with --resume."
        ) from None


def _without_password(url: str) -> str:
    return PASSWORD.sub(r"\1:…@", url)
