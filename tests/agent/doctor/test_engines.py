"""The doctor on engines: each is tried with a product small enough to know."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from edgewright_agent.doctor import engines as engine_checks
from edgewright_agent.doctor.engines import TRIALS, KernelRun, judge, run_kernel
from edgewright_agent.doctor.finding import Severity
from tests.agent.doctor.subjects import (
    finding_of,
    subject,
)
from tests.support.llama_server import write_server


def test_onnxruntime_runs_a_kernel_here(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the engine is an extra")
    finding = finding_of("onnxruntime-genai", subject(tmp_path, start_engines=True))
    assert finding.result is Severity.OK, finding
    assert "4-bit product" in finding.sentence


def test_an_engine_that_is_installed_and_can_not_be_imported_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime.py").write_text(
        "raise ImportError('libcudart.so.12: cannot open shared object')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = judge("ONNX Runtime", run_kernel([sys.executable, str(TRIALS / "onnx_kernel.py")]))
    assert finding.result is Severity.PROBLEM
    assert "libcudart.so.12" in finding.sentence


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (f"import os; os.kill(os.getpid(), {signal.SIGILL.value})", "another CPU"),
        (f"import os; os.kill(os.getpid(), {signal.SIGSEGV.value})", "died of SIGSEGV"),
        (
            "raise SystemExit('CUDA error: no kernel image is available for execution')",
            "no code for this GPU",
        ),
        ("raise SystemExit(3)", "it said nothing"),
    ],
)
def test_how_a_kernel_fails_is_said_in_words(program: str, says: str) -> None:
    finding = judge("An engine", run_kernel([sys.executable, "-c", program]))
    assert finding.result is Severity.PROBLEM
    assert says in finding.sentence


def test_an_engine_that_hangs_is_a_problem() -> None:
    assert "did not finish" in judge("An engine", KernelRun(None, "")).sentence
    assert judge("An engine", run_kernel(["/nowhere/python"])).result is Severity.PROBLEM


@pytest.mark.parametrize(
    ("wheel", "profile", "result"),
    [
        ("onnxruntime-gpu", "jetson-orin-nano-8gb", "problem"),
        ("onnxruntime-genai-cuda", "jetson-agx-thor-t5000", "problem"),
        ("none", "jetson-orin-nano-8gb", "ok"),
    ],
)
def test_a_cuda_wheel_without_code_for_this_gpu_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel: str, profile: str, result: str
) -> None:
    monkeypatch.setattr(engine_checks, "_installed", lambda name: "1.31.1" if name == wheel else None)
    finding = finding_of("CUDA wheels", subject(tmp_path, profile))
    assert finding.result is Severity(result)


def test_a_llama_server_of_the_user_s_own_is_judged_by_its_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_LLAMA_SERVER", str(write_server(tmp_path)))
    finding = finding_of("llama.cpp", subject(tmp_path))
    assert finding.result is Severity.OK
    assert "is llama.cpp b11549 and knows every flag" in finding.sentence
    old = write_server(tmp_path, version="4100", without="--min-p")
    monkeypatch.setenv("EDGEWRIGHT_LLAMA_SERVER", str(old))
    finding = finding_of("llama.cpp", subject(tmp_path))
    assert finding.result is Severity.PROBLEM
    assert "(llama.cpp b4100) is too old: it does not know --min-p" in finding.sentence


def test_the_package_s_llama_cpp_is_loaded_and_says_what_it_computes_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGEWRIGHT_LLAMA_SERVER", raising=False)
    finding = finding_of("llama.cpp", subject(tmp_path, start_engines=True))
    assert finding.result is Severity.OK, finding
    assert "xllamacpp" in finding.sentence
