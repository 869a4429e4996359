"""Memory that others published, explained by the same arithmetic and two constants an engine."""

from __future__ import annotations

from edgewright_builder.fit.published_memory import (
    edge_llm_terms,
    executorch_terms,
    fit_two_constants,
    leave_one_model_out,
    load_published,
    published_error,
)

EDGE_LLM = load_published("tensorrt-edge-llm")
EXECUTORCH = load_published("executorch")


def test_nvidias_six_points_are_predicted_from_the_other_models_within_6_percent() -> None:
    assert len(EDGE_LLM) == 6
    errors = leave_one_model_out(EDGE_LLM, edge_llm_terms)
    assert max(abs(error) for error in errors) <= 0.06, errors


def test_nvidias_constants_are_of_a_physical_size() -> None:
    context_mib, buffers = fit_two_constants(EDGE_LLM, edge_llm_terms)
    assert 300 < context_mib < 1000  # a CUDA context and TensorRT
    assert 4 < buffers < 16  # as many buffers of an MLP's width


def test_weights_times_1_2_is_a_third_or_more_too_low_for_the_small_ones() -> None:
    for point in EDGE_LLM:
        model = point.architecture
        weights = model.linear_parameters * 4.125 / 8 + model.embedding_parameters * 2
        assert 1.2 * weights / 2**20 / point.measured_mib < (0.71 if model.layers <= 28 else 0.8)


def test_executorchs_overhead_does_not_depend_on_the_precision_of_the_weights() -> None:
    """BF16 and SpinQuant of a model lie apart by their files and nothing else."""
    plain = [point for point in EXECUTORCH if point.variant != "QAT+LoRA"]
    constants = fit_two_constants(plain, executorch_terms)
    assert all(abs(published_error(point, constants, executorch_terms)) < 0.01 for point in plain)


def test_executorchs_adapters_take_what_this_form_does_not_know() -> None:
    """Kept as a fact: QAT+LoRA needs about 280 MiB more than its file, cache and constants explain."""
    plain = [point for point in EXECUTORCH if point.variant != "QAT+LoRA"]
    constants = fit_two_constants(plain, executorch_terms)
    adapted = [point for point in EXECUTORCH if point.variant == "QAT+LoRA"]
    missing = [-published_error(p, constants, executorch_terms) * p.measured_mib for p in adapted]
    assert all(200 < mib < 320 for mib in missing), missing
