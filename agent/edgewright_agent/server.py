"""Puts the agent together: store, deployer, telemetry, and the gRPC server over them."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc.aio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from grpc_health.v1 import health, health_pb2

from edgewright.address import Address, require_bindable
from edgewright.errors import InputError, OutsideError
from edgewright.trust.document import TrustDocument, pinned
from edgewright_agent import engines
from edgewright_agent.deployment.deployer import Deployer
from edgewright_agent.deployment.engine_manager import OnServing, PrepareEngine, ServingRelease, StartEngine
from edgewright_agent.deployment.probes import BoardSensors
from edgewright_agent.deployment.release_admission import AdmissionPolicy
from edgewright_agent.deployment.revocation import check_serving, stopped_releases
from edgewright_agent.deployment.scrub_thread import scrub_thread
from edgewright_agent.engines import Engine, EngineInfo, EngineLimits
from edgewright_agent.inference import Inference
from edgewright_agent.openai_api.settings import OpenAISettings
from edgewright_agent.runtime.file_handles import grpc_connections_max
from edgewright_agent.runtime.memory_budget import memory_budget_bytes
from edgewright_agent.runtime.tls import TlsFiles, server_credentials
from edgewright_agent.services.connections import ConnectionGuard
from edgewright_agent.services.grpc_server import (
    INFERENCE_HEALTH,
    add_services,
    announce,
    bind,
    grpc_server,
)
from edgewright_agent.services.guard import Guard, refuse_revoked, require_deadline, require_role
from edgewright_agent.store import Space, StagedRelease, Store
from edgewright_agent.store.background_scrub import BackgroundScrubSettings
from edgewright_agent.telemetry.sampling.monitor import Telemetry
from edgewright_agent.telemetry_feeds import Observation, ObservationSettings, observe
from edgewright_agent.trust import Trust
from edgewright_profiles import DeviceProfile

STOP_GRACE_SECONDS = 2.0


@dataclass(frozen=True)
class AgentSettings:
    """The settings of `edgewright-agent serve`."""

    profile: DeviceProfile
    store: Path
    listen: Address  # port 0 takes a free one
    tls: TlsFiles | None  # None: no TLS, loopback only
    trusted_keys: tuple[Ed25519PublicKey, ...] = ()
    trust: TrustDocument | None = None  # what to start from instead of bare keys
    budget_bytes: int | None = None  # None: the profile's
    space: Space = field(default_factory=Space)
    threads: int | None = None
    ready_timeout_seconds: float = 300.0  # vLLM takes 122 s on an Orin Nano before weights are counted
    probation_seconds: float = 5.0
    restart_seconds: float = 1.0
    observation: ObservationSettings = field(default_factory=ObservationSettings)
    scrub: BackgroundScrubSettings = field(default_factory=BackgroundScrubSettings)
    openai: OpenAISettings | None = None  # None: no OpenAI-compatible server

    @property
    def memory_budget_bytes(self) -> int:
        """Returns what a release may take at its peak."""
        return memory_budget_bytes(self.profile, self.budget_bytes)


@dataclass(frozen=True)
class RunningAgent:
    """An agent that answers, and its parts."""

    address: Address
    store: Store
    deployer: Deployer
    telemetry: Telemetry
    observation: Observation
    openai: str | None  # base URL of the OpenAI-compatible API, if it is served


@contextlib.asynccontextmanager
async def run_agent(
    settings: AgentSettings,
    *,
    available_engines: Callable[[], Sequence[EngineInfo]] = engines.available_engines,
    start_engine: StartEngine | None = None,
) -> AsyncIterator[RunningAgent]:
    """Runs an agent until the context ends.

    Raises InputError: wrong TLS files, port in use, store held by another agent, listening to strangers.
    """
    credentials = _credentials(settings)
    require_bindable(settings.listen)
    async with contextlib.AsyncExitStack() as stack:
        store = _opened_store(settings, stack)
        trust = Trust(_base_trust(settings), store.layout.trust)
        start = start_engine or _engine_starter(settings, stack.enter_context(_runtime_dir()))
        telemetry = _started_telemetry(settings, stack)
        health_service = health.aio.HealthServicer()
        deployer = _deployer(settings, store, start, trust, telemetry, _on_serving(health_service, telemetry))
        observation = await stack.enter_async_context(
            observe(settings.observation, store, telemetry, deployer)
        )
        inference = Inference(deployer, telemetry)
        guard = _guard(settings, trust)
        server = grpc_server(guard, health_service)
        policy = AdmissionPolicy(settings.profile.id, settings.memory_budget_bytes, trust, available_engines)
        add_services(server, policy, store, deployer, telemetry, observation, inference)
        address = bind(server, settings.listen, credentials)
        await announce(health_service)
        guard.connections = ConnectionGuard(
            address.port, grpc_connections_max(), trust.is_revoked_certificate
        )
        await _start(server, guard.connections, deployer, stopped_releases(trust, store.releases()), stack)
        await stack.enter_async_context(scrub_thread(settings.scrub, store, deployer, telemetry))
        openai = await _serve_openai(settings.openai, stack, inference)
        yield RunningAgent(address, store, deployer, telemetry, observation, openai)
        await health_service.enter_graceful_shutdown()


async def _start(
    server: grpc.aio.Server,
    connections: ConnectionGuard,
    deployer: Deployer,
    stopped: Set[str],
    stack: contextlib.AsyncExitStack,
) -> None:
    """Starts the deployer and then the server, which end with the stack the other way round."""
    stack.push_async_callback(deployer.stop)
    stack.push_async_callback(server.stop, STOP_GRACE_SECONDS)
    # First: a call must find the saved change taken up, not begin one beside it.
    await deployer.start(stopped)
    await server.start()
    await stack.enter_async_context(connections.watching())


def _opened_store(settings: AgentSettings, stack: contextlib.AsyncExitStack) -> Store:
    store = Store(settings.store, space=settings.space)
    stack.callback(store.close)
    return store


def _started_telemetry(settings: AgentSettings, stack: contextlib.AsyncExitStack) -> Telemetry:
    telemetry = Telemetry(settings.profile, budget_bytes=settings.memory_budget_bytes)
    telemetry.start()
    stack.callback(telemetry.stop)
    return telemetry


@contextlib.contextmanager
def _runtime_dir() -> Iterator[Path]:
    """Gives a folder for the engines' sockets: in systemd's runtime folder (in memory, so a full disk does not
    matter), or /tmp.
    """
    given = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0] or None
    try:
        folder = tempfile.TemporaryDirectory(prefix="edgewright-", dir=given)
    except OSError as error:
        where = given or "the folder for temporary files"
        message = (
            f"No folder for the engines' sockets could be made in {where}: {error.strerror or error}. Free some space "
            "there, or name another folder in RUNTIME_DIRECTORY."
        )
        raise OutsideError(message) from error
    with folder as path:
        yield Path(path)


def _base_trust(settings: AgentSettings) -> TrustDocument | None:
    return settings.trust or (pinned(settings.trusted_keys) if settings.trusted_keys else None)


def _credentials(settings: AgentSettings) -> grpc.ServerCredentials | None:
    if settings.tls is not None:
        return server_credentials(settings.tls)
    if not settings.listen.is_loopback:
        message = f"--insecure works on loopback only; {settings.listen} is open to others. Use --tls-cert."
        raise InputError(message)
    return None


def _deployer(
    settings: AgentSettings,
    store: Store,
    start_engine: StartEngine,
    trust: Trust,
    telemetry: Telemetry,
    on_serving: OnServing,
) -> Deployer:
    return Deployer(
        store,
        start_engine,
        prepare_engine=_engine_preparer(settings),
        budget_bytes=settings.memory_budget_bytes,
        probation_seconds=settings.probation_seconds,
        restart_seconds=settings.restart_seconds,
        on_serving=on_serving,
        senses=BoardSensors(energy=telemetry.energy_between),
        check_serving=partial(check_serving, trust),
    )


def _guard(settings: AgentSettings, trust: Trust) -> Guard:
    who = () if settings.tls is None else (refuse_revoked(trust), require_role)
    return Guard(require_deadline, *who)


async def _serve_openai(
    settings: OpenAISettings | None, stack: contextlib.AsyncExitStack, inference: Inference
) -> str | None:
    if settings is None:
        return None
    # Imported here, so that an agent without this server does not hold uvicorn in memory.
    from edgewright_agent.openai_api.server import serve_openai

    return await stack.enter_async_context(serve_openai(settings, inference))


def _limits(settings: AgentSettings, release: StagedRelease) -> EngineLimits:
    limits = release.manifest.limits
    return EngineLimits(
        context_tokens=limits.context_tokens,
        concurrency=limits.concurrency,
        threads=settings.threads,
        memory_bytes=settings.memory_budget_bytes,
    )


def _engine_preparer(settings: AgentSettings) -> PrepareEngine:
    """Returns what prepares an engine within the part of the budget that the engines that run leave."""

    async def prepare(release: StagedRelease, taken_bytes: int, on_preparing: Callable[[str], None]) -> None:
        await engines.prepare_engine(
            release.manifest.engine.kind,
            release.model_tree,
            release.manifest,
            _limits(settings, release),
            memory_bytes=max(0, settings.memory_budget_bytes - taken_bytes),
            on_step=on_preparing,
        )

    return prepare


def _engine_starter(settings: AgentSettings, runtime_dir: Path) -> StartEngine:
    async def start(release: StagedRelease) -> Engine:
        manifest = release.manifest
        return await engines.start_engine(
            manifest.engine.kind,
            release.model_tree,
            manifest,
            _limits(settings, release),
            adapter=release.adapter,
            runtime_dir=runtime_dir,
            ready_timeout_seconds=settings.ready_timeout_seconds,
        )

    return start


def _on_serving(health_service: health.aio.HealthServicer, telemetry: Telemetry) -> OnServing:
    async def tell(serving: ServingRelease | None) -> None:
        if serving is None:
            telemetry.set_engine_memory_source(None)
            await health_service.set(INFERENCE_HEALTH, health_pb2.HealthCheckResponse.NOT_SERVING)
        else:
            telemetry.reset_serving()
            telemetry.set_engine_memory_source(serving.engine.memory)
            await health_service.set(INFERENCE_HEALTH, health_pb2.HealthCheckResponse.SERVING)

    return tell
