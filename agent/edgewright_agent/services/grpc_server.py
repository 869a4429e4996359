"""The gRPC server over the agent's parts: its options, its services, its port, and what it says of their health."""

from __future__ import annotations

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from edgewright.address import Address
from edgewright.errors import InputError
from edgewright.v1 import (
    deployment_pb2,
    deployment_pb2_grpc,
    inference_pb2,
    inference_pb2_grpc,
    telemetry_pb2,
    telemetry_pb2_grpc,
    trust_pb2,
    trust_pb2_grpc,
)
from edgewright_agent.deployment.deployer import Deployer
from edgewright_agent.deployment.release_admission import AdmissionPolicy
from edgewright_agent.inference import Inference
from edgewright_agent.runtime.file_handles import grpc_connections_max
from edgewright_agent.services.certificate_limits import DEPLOYER_CALLS_MAX
from edgewright_agent.services.connections import connection_options
from edgewright_agent.services.deployment import DeploymentService
from edgewright_agent.services.guard import Guard
from edgewright_agent.services.inference import InferenceService
from edgewright_agent.services.telemetry import TelemetryService
from edgewright_agent.services.trust import TrustService
from edgewright_agent.store import Store
from edgewright_agent.telemetry.sampling.monitor import Telemetry
from edgewright_agent.telemetry_feeds import Observation

INFERENCE_HEALTH = "inference"  # SERVING while a release answers; flips during a swap

SERVICES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (deployment_pb2, "DeploymentService"),
        (inference_pb2, "InferenceService"),
        (telemetry_pb2, "TelemetryService"),
        (trust_pb2, "TrustService"),
    )
)
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),  # a port in use must be an error, not a second listener
    # A manifest of 8 MiB and its envelope in base64; blobs come in parts of 1 MiB at most.
    ("grpc.max_receive_message_length", 20 * 1024 * 1024),
    # What may be on its way and unread. Left to itself gRPC probes the link and takes up to twice as much, which the
    # board has to hold; 8 MiB fill a link of 40 MB/s over 200 ms.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 8 * 1024 * 1024),
    # Clients ping every 30 s; the default would answer GOAWAY too_many_pings.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
    (
        "grpc.max_concurrent_streams",
        DEPLOYER_CALLS_MAX,
    ),  # of one connection; the next one waits at the client
)


def grpc_server(guard: Guard, health_service: health.aio.HealthServicer) -> grpc.aio.Server:
    """Returns a server that answers for its health alone, and listens nowhere yet."""
    options = (*OPTIONS, *connection_options(grpc_connections_max()))
    server = grpc.aio.server(interceptors=[guard], options=options)
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    return server


def add_services(
    server: grpc.aio.Server,
    policy: AdmissionPolicy,
    store: Store,
    deployer: Deployer,
    telemetry: Telemetry,
    observation: Observation,
    inference: Inference,
) -> None:
    """Has the server answer the calls of every service."""
    deployment_pb2_grpc.add_DeploymentServiceServicer_to_server(
        DeploymentService(policy, store, deployer), server
    )
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(InferenceService(inference), server)
    telemetry_pb2_grpc.add_TelemetryServiceServicer_to_server(
        TelemetryService(telemetry, deployer, inference, observation.recorder, observation.snapshot), server
    )
    trust_pb2_grpc.add_TrustServiceServicer_to_server(TrustService(policy.trust, store, deployer), server)


def bind(server: grpc.aio.Server, listen: Address, credentials: grpc.ServerCredentials | None) -> Address:
    """Returns the address that the server will listen on. Raises InputError where it is taken."""
    try:
        if credentials is None:
            return Address(listen.host, server.add_insecure_port(str(listen)))
        return Address(listen.host, server.add_secure_port(str(listen), credentials))
    except RuntimeError:  # it was free a moment ago
        raise InputError(
            f"{listen} can't be listened on any more: another program took it, or --metrics names it, too. "
            "Give each an address of its own."
        ) from None


async def announce(health_service: health.aio.HealthServicer) -> None:
    """Says that every service answers, and that no release does yet."""
    for name in (health.OVERALL_HEALTH, *SERVICES):
        await health_service.set(name, health_pb2.HealthCheckResponse.SERVING)
    await health_service.set(INFERENCE_HEALTH, health_pb2.HealthCheckResponse.NOT_SERVING)
