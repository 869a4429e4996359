"""How a trust document is shown, and how boards are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from edgewright.dsse import key_id
from edgewright.errors import EdgewrightError, RefusedError
from edgewright.trust.document import SignerSet, TrustDocument
from edgewright.v1.trust_pb2 import WithdrawnRelease
from edgewright_agent.trust.board_trust import DOCUMENTS_MAX
from edgewright_builder.cli.connection import connect, console
from edgewright_builder.keys import trust_issuer
from edgewright_builder.show import display

BOARDS_AT_ONCE = 16


def show(folder: Path, *, as_json: bool) -> None:
    """Prints the newest document of a credentials folder."""
    trust_issuer.begin(folder)
    document = trust_issuer.newest(folder)
    if as_json:
        typer.echo(json.dumps(document.model_dump(mode="json"), indent=2))
        return
    display.facts(console(), f"Trust document {document.version} in {folder}", _facts(document))


async def spread(folder: Path, hosts: Sequence[str], *, insecure: bool, as_json: bool) -> None:
    """Gives boards the documents of a folder; each board's answer is a line. Raises RefusedError if one fails."""
    trust_issuer.begin(folder)
    newest = trust_issuer.newest(folder)
    gate = asyncio.Semaphore(BOARDS_AT_ONCE)

    async def tell(host: str) -> dict[str, Any]:
        async with gate:
            try:
                return {"host": host, **await _tell(folder, host, newest, insecure=insecure)}
            except EdgewrightError as error:
                return {"host": host, "error": str(error)}

    answers = await asyncio.gather(*(tell(host) for host in hosts))
    if as_json:
        typer.echo(json.dumps({"boards": answers}, indent=2))
    else:
        for answer in answers:
            _print(answer)
    failed = [answer["host"] for answer in answers if "error" in answer]
    if failed:
        raise RefusedError(f"{len(failed)} of {len(hosts)} boards did not take it up, first {failed[0]}.")


async def _tell(folder: Path, host: str, newest: TrustDocument, *, insecure: bool) -> dict[str, Any]:
    async with connect(host, None if insecure else folder, insecure) as client:
        before = await client.get_trust()
        if before.version > newest.version:
            message = (
                f"it has trust document {before.version}, this folder only {newest.version}: somebody changed "
                "it elsewhere, get their folder"
            )
            raise RefusedError(message)
        if before.version == newest.version and before.problem:
            raise RefusedError(before.problem)
        version, withdrawn = before.version, before.withdrawn
        chain = trust_issuer.documents(folder, before.version)
        for first in range(0, len(chain), DOCUMENTS_MAX):
            after = await client.update_trust(chain[first : first + DOCUMENTS_MAX])
            version, withdrawn = after.version, after.withdrawn
        return {"version": version, "before": before.version, **_withdrawn(withdrawn)}


def _withdrawn(found: Sequence[WithdrawnRelease]) -> dict[str, Any]:
    return {
        "withdrawn": [
            {"release": each.release.hex(), "active": each.active, "stop": each.stop, "reason": each.reason}
            for each in found
        ]
    }


def _print(answer: dict[str, Any]) -> None:
    host = answer["host"]
    if "error" in answer:
        typer.echo(f"{host}: {answer['error']}", err=True)
        return
    had = "as before" if answer["before"] == answer["version"] else f"before: {answer['before']}"
    typer.echo(f"{host}: trust document {answer['version']} is in force ({had})")
    for each in answer["withdrawn"]:
        typer.echo(f"  release {each['release'][:12]} {_fate(each)}: {each['reason']}")


def _fate(withdrawn: dict[str, Any]) -> str:
    if withdrawn["active"]:
        return "was active and stops" if withdrawn["stop"] else "goes on serving, but is not activated again"
    return "is not activated again"


def _facts(document: TrustDocument) -> list[tuple[str, str]]:
    expires = f"{document.expires:%Y-%m-%d %H:%M} UTC" if document.expires else "never"
    rows = [("issued", f"{document.issued:%Y-%m-%d %H:%M} UTC"), ("expires", expires)]
    rows += [
        ("root", _signers(document.root, set())),
        ("release", _signers(document.release, _gone(document))),
    ]
    rows += [
        (
            f"revoked {each.kind}",
            each.sha256[:16] + (" (stop)" if each.stop else "") + (f" {each.reason}" if each.reason else ""),
        )
        for each in document.revoked
    ]
    return rows


def _signers(signers: SignerSet, gone: set[str]) -> str:
    names = [key_id(key) for key in signers.public_keys()]
    listed = ", ".join(name[:8] + (" (revoked)" if name in gone else "") for name in names)
    return f"{signers.threshold} of {listed}"


def _gone(document: TrustDocument) -> set[str]:
    return set(document.revocations("key"))
