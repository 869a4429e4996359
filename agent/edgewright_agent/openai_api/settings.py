"""Where the OpenAI-compatible server listens, and who may call it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgewright.address import Address, parse_address
from edgewright.errors import InputError
from edgewright_agent.runtime.tls import TlsFiles

UNIX_PREFIX = "unix:"


@dataclass(frozen=True)
class OpenAISettings:
    """A loopback address or a Unix socket is open to this machine; any other address needs a key, and TLS."""

    listen: Address | Path  # port 0 takes a free one
    key: str | None = None  # what clients send as `Authorization: Bearer KEY`
    tls: TlsFiles | None = None  # the board's certificate and key; clients need no certificate

    def __post_init__(self) -> None:
        """Raises InputError if other machines could call without a key or without TLS."""
        if isinstance(self.listen, Address) and not self.listen.is_loopback and not (self.key and self.tls):
            raise InputError(
                f"--openai {self.listen} is open to other machines: give --openai-key FILE, and --tls-cert, "
                "--tls-key and --tls-ca so that nobody can read the key on its way; or listen on 127.0.0.1 or "
                "unix:PATH."
            )

    @property
    def is_open_to_local_programs(self) -> bool:
        """Whether every program of this machine may call; web pages in its browsers may not."""
        return isinstance(self.listen, Address) and self.key is None

    @property
    def is_encrypted(self) -> bool:
        """Whether TLS is spoken: only where other machines can listen in."""
        return isinstance(self.listen, Address) and not self.listen.is_loopback


def parse_openai(listen: str, key_file: Path | None, tls: TlsFiles | None) -> OpenAISettings:
    """Returns the settings of a server at HOST:PORT or unix:PATH. Raises InputError."""
    path = listen.removeprefix(UNIX_PREFIX)
    if path != listen and Path(path).name in ("", ".."):
        raise InputError(
            f"--openai is {listen!r}, which names no file; give unix:PATH, such as unix:/run/openai.sock."
        )
    address = Path(path) if path != listen else parse_address(listen)
    return OpenAISettings(address, None if key_file is None else _read_key(key_file), tls)


def _read_key(file: Path) -> str:
    try:
        key = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
        raise InputError(f"The key {file} can't be read: {reason}.") from None
    if not re.fullmatch(r"[\x21-\x7e]{16,512}", key):
        raise InputError(
            f"{file} must hold one key of 16 to 512 visible characters; make one with `openssl rand -hex 32`."
        )
    return key
