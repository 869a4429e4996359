"""One channel to one agent: address, credentials, keepalive."""

from __future__ import annotations

from pathlib import Path

import grpc

from edgewright.address import Address
from edgewright.errors import InputError

OPTIONS = [
    # A peer that vanished without a reset is noticed after 90 s. Sooner, a board or a host whose cores are all busy
    # would be taken for a broken link: the same time holds for data that the other side does not read.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 60_000),
    ("grpc.http2.ping_timeout_ms", 60_000),
    # By default the core waits up to 2 minutes before it dials again; a board restarts its agent in seconds.
    ("grpc.initial_reconnect_backoff_ms", 100),
    # gRPC takes this for the least time that a connection attempt may last, the TLS handshake included.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]


def parse_address(text: str) -> Address:
    """`HOST:PORT` or `[IPV6]:PORT`; raises InputError otherwise."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    plain = bool(host) and not set(host) & set("/ []") and (bracketed or ":" not in host)
    if not colon or not plain or not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise InputError(f"The address {text!r} is not of the form HOST:PORT, as in board-7.local:7443.")
    return Address(host, int(port))


def require_credentials(address: Address, credentials: Path | None) -> None:
    """Raises InputError if a file of the folder can't be read, or if an address beyond loopback has no TLS."""
    if credentials is not None:
        _tls(credentials)
    elif not address.is_loopback:
        raise InputError(
            f"{address} is not on this machine, so it needs TLS: give --credentials DIR, not --insecure."
        )


def open_channel(address: Address, credentials: Path | None, target: str | None = None) -> grpc.aio.Channel:
    """Returns a channel with mutual TLS from a credentials folder, or without any for `credentials` None.

    `target` holds the numeric addresses to dial (`name_resolution.numeric_target`); for None gRPC looks the host up.
    TLS expects a certificate for `address.host` in either case. Raises as `require_credentials`. Nothing is sent yet.
    """
    require_credentials(address, credentials)
    options: list[tuple[str, str | int]] = [*OPTIONS]
    if target is not None or address.is_loopback:  # no proxy leads to this machine
        options.append(("grpc.enable_http_proxy", 0))
    if target is not None:
        options.append(("grpc.default_authority", str(address)))
        if credentials is not None:
            options.append(("grpc.ssl_target_name_override", address.host))
    where = target or str(address)
    if credentials is not None:
        return grpc.aio.secure_channel(where, _tls(credentials), options=options)
    return grpc.aio.insecure_channel(where, options=options)


def client_certificate(folder: Path) -> Path:
    """Returns the file of the certificate that a client with this credentials folder shows."""
    return folder / ("deployer.pem" if (folder / "deployer.pem").exists() else "observer.pem")


def _tls(folder: Path) -> grpc.ChannelCredentials:
    role = client_certificate(folder).stem
    try:
        authority, key, chain = (
            (folder / name).read_bytes() for name in ("ca.pem", f"{role}.key", f"{role}.pem")
        )
    except OSError as error:
        message = (
            f"The credentials file {error.filename} can't be read ({error.strerror}); see `edgewright keys`."
        )
        raise InputError(message) from None
    return grpc.ssl_channel_credentials(authority, key, chain)
