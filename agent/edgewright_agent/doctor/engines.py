"""Checks that the installed engines compute. Installing proves nothing: a wheel may hold no code for this chip.

Each is tried in a child process of the interpreter that would run it, with a product small enough to know by heart. A
crash, a missing library or a wrong number is the finding.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edgewright_agent.doctor.finding import Finding, Subject, ok, problem, warning
from edgewright_agent.engines import onnx
from edgewright_agent.engines.edge_llm.wheel import complaint, find_wheel
from edgewright_agent.engines.llama_cpp.build import COMMAND_VARIABLE, PACKAGE, find_server
from edgewright_agent.engines.vllm.build import vllm_command
from edgewright_agent.runtime.jetson_linux import jetson_linux

KERNEL_SECONDS = 120.0  # torch's first CUDA kernel on an Orin Nano takes half a minute
TRIALS = Path(__file__).with_name("trials")
# Compute capabilities that aarch64 wheels hold machine code for; none holds PTX, so no other GPU can run
# them. Read from the wheels' fat binaries, November 2026.
AARCH64_WHEEL_CAPABILITIES = {
    "onnxruntime-gpu": ("8.9", "9.0", "12.0", "12.1"),
    "onnxruntime-genai-cuda": ("8.9", "9.0", "10.0", "10.3", "12.0", "12.1"),
}


@dataclass(frozen=True)
class KernelRun:
    """How a child that ran a kernel ended."""

    returncode: int | None  # None: it took too long
    output: str


def cuda_wheels_fit(subject: Subject) -> Finding | None:
    """Checks that no CUDA wheel is installed that has no code for this board's GPU."""
    gpu = subject.profile.gpu if subject.profile is not None else None
    if gpu is None or gpu.compute_capability is None or subject.profile is None:
        return None
    capability = gpu.compute_capability.value
    for name, known in AARCH64_WHEEL_CAPABILITIES.items():
        version = _installed(name)
        if version is not None and subject.profile.machine == "aarch64" and capability not in known:
            return problem(
                f"{name} {version} from the package index has code for {', '.join(known)}, and this GPU is "
                f"{capability}: it installs, and can't run a kernel.",
                f"`pip uninstall {name}` and use the CPU build, or a wheel built for Jetson.",
            )
    return ok(f"No CUDA wheel is installed that lacks code for compute capability {capability}.")


def onnx_runs_a_kernel(subject: Subject) -> Finding | None:
    """Checks that ONNX Runtime computes a 4-bit product, as models are made of."""
    info = onnx.info()
    if not info.available:
        return warning(
            f"The engine is not installed: {info.detail}.",
            "`pip install 'edgewright[onnx]'` (CPython 3.10 to 3.14).",
        )
    if not subject.start_engines:
        return None
    return judge("ONNX Runtime", run_kernel([onnx.interpreter(), str(TRIALS / "onnx_kernel.py")]))


def vllm_runs_a_kernel(subject: Subject) -> Finding | None:
    """Checks that the torch of vLLM computes a product, on the GPU if it claims one."""
    command = shutil.which(vllm_command())
    if command is None or not subject.start_engines:
        return None
    python = Path(command).resolve().with_name("python")
    if not python.exists():
        return warning(
            f"{command} has no interpreter beside it.", "Name the command in its own venv's bin folder."
        )
    return judge("vLLM's torch", run_kernel([str(python), str(TRIALS / "torch_kernel.py")]))


def llama_server_fits(subject: Subject) -> Finding | None:
    """Checks that llama.cpp's server is new enough, and starts; says nothing where nobody installed one."""
    server = find_server()
    named = os.environ.get(COMMAND_VARIABLE)
    if server.problem and not named and _installed(PACKAGE) is None:
        return None
    if server.problem:
        remedy = (
            f"Build a newer llama.cpp, or unset {COMMAND_VARIABLE} and `pip install 'edgewright[llama]'`."
        )
        return problem(f"llama.cpp can't serve: {server.problem}.", remedy)
    if named:
        return ok(
            f"{server.command[0]} is llama.cpp b{server.version or '?'} and knows every flag it is given."
        )
    if not subject.start_engines:
        return None
    return judge("llama.cpp", run_kernel([server.command[0], str(TRIALS / "llama_kernel.py")]))


def edge_llm_fits(subject: Subject) -> Finding | None:
    """Checks that an installed TensorRT Edge-LLM is for this JetPack and this GPU; says nothing where there is none."""
    wheel, profile = find_wheel(), subject.profile
    if wheel is None or profile is None or profile.gpu is None or profile.gpu.compute_capability is None:
        return None
    release = jetson_linux(subject.root)
    why = complaint(wheel, profile.machine, profile.gpu.compute_capability.value, release)
    if why is not None:
        remedy = "Install the JetPack it is for, or serve with llama.cpp, which is built on the board."
        return problem(f"tensorrt-edgellm {wheel.version} can't run here: {why}.", remedy)
    return ok(
        f"tensorrt-edgellm {wheel.version} has a payload for this board, and TensorRT {wheel.tensorrt}."
    )


def run_kernel(command: list[str]) -> KernelRun:
    """Runs a trial program in its own process."""
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=KERNEL_SECONDS, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        return KernelRun(None, "")
    except OSError as error:
        return KernelRun(127, error.strerror or str(error))
    return KernelRun(done.returncode, (done.stdout if done.returncode == 0 else done.stderr).strip())


def judge(engine: str, trial: KernelRun) -> Finding:
    """Returns the finding that the end of a trial means."""
    last = trial.output.splitlines()[-1].rstrip(". ") if trial.output else "it said nothing"
    if trial.returncode == 0:
        return ok(f"{engine} computes what it should: {last}.")
    if trial.returncode is None:
        return problem(
            f"{engine} did not finish a tiny product within {KERNEL_SECONDS:.0f} s.",
            "Reboot and try again; if it stays, look at `dmesg` for the GPU or for memory.",
        )
    if trial.returncode == -signal.SIGILL:
        return problem(
            f"{engine} died of an illegal instruction: the wheel was built for another CPU.",
            "Install a build for this CPU (an older release of the wheel, or one compiled on the board).",
        )
    if trial.returncode < 0:
        name = signal.Signals(-trial.returncode).name
        return problem(
            f"{engine} died of {name} in a tiny product.", "Install the engine again; then see `dmesg`."
        )
    if "no kernel image" in trial.output:
        return problem(
            f"{engine} has no code for this GPU ({last}).",
            "Install the wheel of the Jetson AI Lab index for this JetPack, or the CPU build.",
        )
    return problem(
        f"{engine} is installed and can't compute: {last}.", "Install it again in its own interpreter."
    )


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
