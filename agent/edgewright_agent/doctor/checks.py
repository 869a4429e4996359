"""The table of all checks, in the order of their findings: what everything else needs comes first."""

from __future__ import annotations

from edgewright_agent.doctor import (
    clock,
    disk,
    engines,
    files,
    identity,
    memory,
    network,
    power,
    sensors,
    service,
    trust,
)
from edgewright_agent.doctor.finding import Check, Finding, Subject, warning
from edgewright_agent.engines import onnx
from edgewright_agent.engines.llama_cpp import launch as llama_cpp
from edgewright_agent.engines.vllm import launch as vllm

CHECKS: dict[str, Check] = {
    "clock": clock.clock_is_set,
    "certificates": clock.certificates_are_valid,
    "trust": trust.trust_is_valid,
    "tls files": files.tls_files_fit,
    "key mode": files.key_is_private,
    "secrets": files.ca_key_is_elsewhere,
    "systemd": service.systemd_loads_credentials,
    "file system": disk.store_is_on_a_disk,
    "disk space": disk.disk_has_room,
    "store": disk.store_can_be_written,
    "quarantine": disk.nothing_has_rotted,
    "disk speed": disk.disk_is_fast,
    "profile": identity.profile_fits,
    "memory size": identity.memory_fits_the_profile,
    "Jetson Linux": identity.jetson_linux_is_sound,
    "memory": memory.memory_is_available,
    "desktop": memory.no_desktop_runs,
    "swap": memory.swap_is_no_memory,
    "memory cgroup": memory.memory_cgroup_is_on,
    "power mode": power.power_mode_is_highest,
    "GPU access": power.gpu_may_be_used,
    "power sensor": sensors.sensors_answer,
    "CUDA wheels": engines.cuda_wheels_fit,
    onnx.KIND: engines.onnx_runs_a_kernel,
    llama_cpp.KIND: engines.llama_server_fits,
    "tensorrt-edge-llm": engines.edge_llm_fits,
    vllm.KIND: engines.vllm_runs_a_kernel,
    "port": network.port_is_free,
}


def examine(subject: Subject) -> dict[str, Finding]:
    """Returns what each check that applies has found, by its name. A check that breaks says so and stops no other."""
    findings = {}
    for name, check in CHECKS.items():
        try:
            found = check(subject)
        except Exception as error:  # noqa: BLE001 - a doctor does not die of a patient
            found = warning(f"This could not be checked: {error!r}.", "Report it; the other findings stand.")
        if found is not None:
            findings[name] = found
    return findings
