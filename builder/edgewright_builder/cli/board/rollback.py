"""`edgewright rollback`: a board goes back to its previous release."""

from __future__ import annotations

import dataclasses

from edgewright_builder.cli.connection import connect, console, emit, require_commit, run
from edgewright_builder.cli.options import AsJson, Credentials, Host, Insecure
from edgewright_builder.device.patience import Patience
from edgewright_builder.device.verdict import DeploymentVerdict, watch_verdict


def rollback(
    host: Host, credentials: Credentials = None, insecure: Insecure = False, as_json: AsJson = False
) -> None:
    """Go back to the release that was active before."""
    out = console(as_json=as_json)

    async def work() -> DeploymentVerdict:
        async with connect(host, credentials, insecure) as client:
            target = await client.roll_back()
            out.print(f"going back to {target.hex()[:12]}")
            return await watch_verdict(
                client, target, Patience(90.0), lambda text: out.print(f"  {text}", markup=False)
            )

    verdict = run(work())
    emit(dataclasses.asdict(verdict), as_json=as_json)
    require_commit(host, verdict)
    out.print(f"{host} serves {verdict.active_release[:12]} again.", markup=False)
