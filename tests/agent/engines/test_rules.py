"""The engines' rules without a process: sampling, stop strings, how a process died."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgewright.manifest import MemoryPrediction
from edgewright_agent.engine_worker.batching.generation import StopScanner
from edgewright_agent.engine_worker.model.backend import InvalidRequestError, SamplingSettings
from edgewright_agent.engine_worker.model.grammar import GrammarMaker
from edgewright_agent.engine_worker.model.sampling import draw
from edgewright_agent.engines import DeathCause, worker_launch
from edgewright_agent.engines.process.death import ANY_PROGRAM, LogWords, Verdict, classify
from edgewright_agent.engines.vllm import log as vllm
from edgewright_agent.engines.worker_launch import spare_bytes

LOGITS = np.log(np.array([0.05, 0.5, 0.15, 0.3], dtype=np.float32))
logits_arrays = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=40).map(
    lambda values: np.array(values, dtype=np.float32)
)


def frequencies(sampling: SamplingSettings, draws: int = 4000) -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    tokens = [draw(LOGITS, sampling, rng) for _ in range(draws)]
    return np.bincount(tokens, minlength=4) / draws


def test_tokens_are_drawn_by_their_probability() -> None:
    assert frequencies(SamplingSettings(1.0)) == pytest.approx([0.05, 0.5, 0.15, 0.3], abs=0.03)


def test_temperature_sharpens() -> None:
    squared = np.array([0.05, 0.5, 0.15, 0.3]) ** 2
    assert frequencies(SamplingSettings(0.5)) == pytest.approx(squared / squared.sum(), abs=0.03)


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [(0.4, [0, 1, 0, 0]), (0.6, [0, 0.625, 0, 0.375]), (0.9, [0, 10 / 19, 3 / 19, 6 / 19])],
)
def test_the_nucleus_is_the_smallest_set_that_reaches_top_p(top_p: float, expected: list[float]) -> None:
    assert frequencies(SamplingSettings(1.0, top_p)) == pytest.approx(expected, abs=0.03)


@given(logits_arrays, st.floats(0.01, 1), st.floats(1e-6, 10), st.integers(0, 2**64 - 1))
def test_a_drawn_token_lies_in_the_nucleus(
    logits: NDArray[np.float32], top_p: float, temperature: float, seed: int
) -> None:
    token = draw(logits, SamplingSettings(temperature, top_p), np.random.default_rng(seed))
    weights = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    more_likely = weights[weights > weights[token]].sum() / weights.sum()
    assert more_likely < top_p + 1e-9


@given(logits_arrays, st.integers(0, 2**32))
def test_greedy_takes_the_first_maximum(logits: NDArray[np.float32], seed: int) -> None:
    assert draw(logits, SamplingSettings(0.0), np.random.default_rng(seed)) == int(logits.argmax())


texts = st.text(alphabet="ab.", max_size=30)


@given(texts, st.lists(st.text(alphabet="ab.", min_size=1, max_size=4), max_size=3), st.data())
def test_stopping_does_not_depend_on_how_the_text_was_split(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert scan(pieces, stops) == scan(list(text), stops)


@given(texts, st.text(alphabet="ab.", min_size=1, max_size=4))
def test_one_stop_string_cuts_at_its_first_place(text: str, stop: str) -> None:
    assert scan([text], [stop]) == (text.partition(stop)[0], stop in text)


def scan(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    """What comes out of a scanner, and whether it stopped."""
    scanner, out = StopScanner(stops), ""
    for piece in pieces:
        text, stopped = scanner.feed(piece)
        out += text
        if stopped:
            return out, True
    return out + scanner.flush(), False


def death(
    returncode: int, *lines: str, asked: bool = False, kills: bool = False, words: LogWords = ANY_PROGRAM
) -> DeathCause:
    return classify(returncode, asked=asked, killed_for_memory=kills, last_lines=lines, words=words).cause


def test_a_death_has_one_cause() -> None:
    assert death(-signal.SIGTERM, asked=True) is DeathCause.STOPPED
    assert death(3, "ValueError: no") is DeathCause.EXITED
    assert death(-signal.SIGSEGV) is DeathCause.KILLED
    assert death(-signal.SIGKILL) is DeathCause.KILLED
    assert death(-signal.SIGKILL, kills=True) is DeathCause.OUT_OF_MEMORY
    assert death(-signal.SIGSEGV, kills=True) is DeathCause.KILLED


def test_an_engine_that_the_agent_killed_for_its_memory_says_how_much_it_took() -> None:
    over = "its memory peaked at 2 MiB, its budget is 1 MiB"
    killed = classify(
        -signal.SIGKILL,
        asked=False,
        killed_for_memory=False,
        last_lines=(),
        verdict=Verdict(DeathCause.OVER_BUDGET, over),
    )
    assert (killed.cause, killed.sentence) == (DeathCause.OVER_BUDGET, f"over its memory budget: {over}")
    crashed = classify(
        -signal.SIGSEGV,
        asked=False,
        killed_for_memory=False,
        last_lines=(),
        verdict=Verdict(DeathCause.OVER_BUDGET, over),
    )
    assert crashed.cause is DeathCause.KILLED  # it was faster


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (ANY_PROGRAM, "terminate called after throwing an instance of 'std::bad_alloc'"),
        (
            worker_launch.WORDS,
            "onnxruntime::BFCArena: Failed to allocate memory for requested buffer of size 268435456",
        ),
        (ANY_PROGRAM, "NvMapMemAllocInternalTagged: 1075072515 error 12"),
        (vllm.WORDS, "NVML_SUCCESS == r INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp:838"),
        (ANY_PROGRAM, "torch.cuda.OutOfMemoryError: CUDA out of memory."),
        (ANY_PROGRAM, "CUDA_ERROR_OUT_OF_MEMORY"),
        (ANY_PROGRAM, "MemoryError"),
        (ANY_PROGRAM, "NvMapMemHandleAlloc: error 0"),
        (vllm.WORDS, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 603979776 bytes."),
        (
            vllm.WORDS,
            "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
        ),
        (
            vllm.WORDS,
            "ValueError: Free memory on device cuda:0 (3.1/7.4 GiB) on startup is less than desired GPU memory "
            "utilization",
        ),
    ],
)
def test_every_spelling_of_out_of_memory_is_known(words: LogWords, line: str) -> None:
    assert death(1, "Loading", line, "bye", words=words) is DeathCause.OUT_OF_MEMORY
    assert death(-signal.SIGABRT, line, words=words) is DeathCause.OUT_OF_MEMORY
    assert death(0, line, words=words) is DeathCause.EXITED


VLLM_DIED = (
    "(Worker pid=238) ERROR 11-24 06:17:12 [multiproc.py:90] AssertionError: unsupported head size 16",
    "(EngineCore pid=213) ERROR 11-24 06:17:13 [core.py:1512] RuntimeError: Executor failed.",
    "(APIServer pid=206) RuntimeError: Engine core initialization failed. See root cause above.",
    "nanobind: leaked 514 functions!",
    ' - leaked function "get_bf16"',
)


def test_of_several_processes_errors_the_first_cause_is_told() -> None:
    died = classify(1, asked=False, killed_for_memory=False, last_lines=VLLM_DIED, words=vllm.WORDS)
    assert died.sentence == "exited (exit code 1); it said: AssertionError: unsupported head size 16"
    assert died.last_lines == VLLM_DIED


def test_a_process_that_took_the_others_with_it_is_named() -> None:
    died = classify(
        -9, asked=False, killed_for_memory=False, last_lines=("loaded.",), lost="VLLM::EngineCore"
    )
    assert died.sentence == "killed (its process VLLM::EngineCore ended); it said: loaded"
    child = classify(1, asked=False, killed_for_memory=True, of_its_own=True, last_lines=("no core",))
    assert child.cause is DeathCause.OUT_OF_MEMORY
    hungry = classify(-9, asked=False, killed_for_memory=True, last_lines=(), lost="VLLM::Worker")
    assert hungry.cause is DeathCause.OUT_OF_MEMORY


def test_a_death_says_signal_or_code_and_the_last_line() -> None:
    killed = classify(-11, asked=False, killed_for_memory=False, last_lines=("a", "b"))
    assert (killed.signal, killed.exit_code) == (11, None)
    assert killed.sentence == "killed (signal 11); it said: b"
    exited = classify(3, asked=False, killed_for_memory=False, last_lines=())
    assert exited.sentence == "exited (exit code 3)"


class _NoText:
    """A tokenizer that must not be asked."""


def test_json_output_that_the_budget_has_no_room_for_is_refused_and_nothing_is_loaded() -> None:
    maker = GrammarMaker(_NoText(), 128_256, frozenset({0}), spare_bytes=20 * 2**20)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match=r"63.0 MiB more .* leaves 20.0 MiB of the board's budget"):
        maker.make({"type": "object"})


def test_what_the_budget_leaves_is_counted_from_the_predictions_upper_end() -> None:
    manifest = SimpleNamespace(
        memory=MemoryPrediction(
            budget_bytes=1, predicted_peak_bytes=100, error_bytes=10, calibrated_on="tests"
        )
    )
    assert spare_bytes(manifest, 150) == 40  # type: ignore[arg-type]
    assert spare_bytes(manifest, 105) == 0  # type: ignore[arg-type]
