"""What options accept: sizes, addresses, trusted keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import assume, given
from hypothesis import strategies as st

from edgewright.address import Address, parse_address
from edgewright.errors import InputError
from edgewright.sizes import BYTES_MAX, parse_bytes, parse_bytes_or_zero
from edgewright.trust.keys import load_trusted_keys


@given(
    st.integers(1, 2**40),
    st.sampled_from([("B", 1), ("KiB", 2**10), ("MiB", 2**20), ("GB", 10**9), ("TiB", 2**40)]),
)
def test_a_size_is_a_number_and_a_unit(number: int, unit: tuple[str, int]) -> None:
    assume(number * unit[1] <= BYTES_MAX)
    assert (
        parse_bytes(f"{number}{unit[0]}") == parse_bytes(f" {number} {unit[0].lower()} ") == number * unit[1]
    )


@pytest.mark.parametrize("text", ["", "lots", "-1MiB", "0", "4096", "1XB", "1e9", "MiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a size"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["0B", "0MiB", "0.0GiB", "0.4B"])
def test_none_is_a_size_only_where_it_has_a_meaning(text: str) -> None:
    assert parse_bytes_or_zero(text) == 0
    with pytest.raises(InputError, match="is less than a byte; give a size above 0, for instance 180MiB"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["1048577TiB", "9" * 400 + "GiB", "1" + "0" * 30 + "TB"])
def test_a_size_that_no_disk_has_is_refused_in_a_short_sentence(text: str) -> None:
    with pytest.raises(InputError, match="is more than any disk has; give at most 1048576TiB") as caught:
        parse_bytes(text)
    assert len(str(caught.value)) < 120


def test_a_unit_that_is_none_is_told_those_there_are() -> None:
    with pytest.raises(InputError, match="a unit of B, KiB, MiB, GiB, TiB, KB, MB, GB, TB, for instance"):
        parse_bytes("1PiB")


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("127.0.0.1:7443", True),
        ("[::1]:0", True),
        ("localhost:1", True),
        ("LocalHost.:1", True),
        ("0.0.0.0:7443", False),
        ("b.lan:1", False),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, loopback: bool) -> None:
    address = parse_address(text)
    assert str(address) == text
    assert address.is_loopback is loopback


@pytest.mark.parametrize("text", ["", "7443", ":7443", "host:", "host:http", "host:65536", "host:-1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_address(text)


def test_ipv6_hosts_stand_in_brackets() -> None:
    assert str(Address("::1", 7443)) == "[::1]:7443"


def test_a_trusted_key_must_be_an_ed25519_public_key(tmp_path: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    (tmp_path / "ec.pub").write_bytes(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (tmp_path / "text.pub").write_bytes(b"ssh-ed25519 AAAA")
    for name in ("ec.pub", "text.pub", "nowhere.pub"):
        with pytest.raises(InputError, match=name):
            load_trusted_keys([tmp_path / name])
