"""`check` and `plan`: the answers before anything is downloaded."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from edgewright.errors import InputError, RefusedError
from edgewright_builder.cli.main import app
from edgewright_builder.fit.catalogue import builtin_models
from edgewright_builder.fit.check import check, make_question
from edgewright_builder.fit.engines import engine_traits
from edgewright_builder.fit.matrix import board_label, columns_of, make_matrix
from edgewright_builder.fit.memory import Configuration, load_calibration, predict_memory
from edgewright_builder.fit.model_facts import find_model, from_builtin
from edgewright_builder.fit.plan import Wishes, candidates, search_plans
from edgewright_profiles import list_profiles, load_profile

ENGINE = "onnxruntime-genai"
ORIN = "jetson-orin-nano-8gb"
MODELS = [from_builtin(model) for model in builtin_models()]
SERVED = [m for m in MODELS if m.architecture.model_type in engine_traits(ENGINE).model_types]
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def _own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_DATA", str(tmp_path / "data"))


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@st.composite
def configurations(draw: st.DrawFn, model: Any) -> Configuration:
    architecture = model.architecture
    return Configuration(
        layers=draw(st.integers(1, architecture.layers)),
        weight_bits=4,
        group_size=draw(st.sampled_from(architecture.group_sizes())),
        embedding_bits=draw(st.sampled_from((4, 8))),
        context_tokens=draw(st.integers(1, architecture.max_context_tokens)),
        concurrency=draw(st.integers(1, 16)),
    )


@settings(deadline=None)
@given(data=st.data(), model=st.sampled_from(MODELS))
def test_more_context_concurrency_depth_or_bits_never_needs_less_memory(
    data: st.DataObject, model: Any
) -> None:
    architecture, calibration = model.architecture, load_calibration(ENGINE)
    m = data.draw(configurations(model))
    more = [
        replace(m, concurrency=m.concurrency + 1), replace(m, embedding_bits=8), replace(m, weight_bits=8),
        replace(m, kv_bits=2 * m.kv_bits), replace(m, group_size=32),
    ]  # fmt: skip
    if m.context_tokens < architecture.max_context_tokens:
        more.append(replace(m, context_tokens=m.context_tokens + 1))
    if m.layers < architecture.layers:
        more.append(replace(m, layers=m.layers + 1))
    before = predict_memory(architecture, m, calibration).peak_bytes
    assert all(predict_memory(architecture, each, calibration).peak_bytes >= before for each in more)


@settings(deadline=None)
@given(
    model=st.sampled_from(SERVED),
    budget_mib=st.integers(150, 20_000),
    context=st.sampled_from((256, 1024, 2048)),
)
def test_a_plan_never_exceeds_its_budget_and_check_agrees_with_it(
    model: Any, budget_mib: int, context: int
) -> None:
    budget_bytes, architecture = budget_mib * MIB, model.architecture
    answer = check(
        make_question(model, load_profile(ORIN), budget_bytes=budget_bytes, context_tokens=context)
    )
    try:
        search = search_plans(
            architecture, Wishes(context), budget_bytes, [load_calibration(ENGINE, "aarch64")]
        )
    except RefusedError:
        assert not answer.plan.bound.fits
        return
    assert search.chosen.bound.upper_bytes <= budget_bytes
    assert all(plan.bound.upper_bytes <= budget_bytes for plan in search.front)
    whole = search.chosen.configuration.layers == architecture.layers
    best_bits = search.chosen.configuration.embedding_bits == answer.plan.configuration.embedding_bits
    assert answer.plan.bound.fits == (whole and best_bits)


@settings(deadline=None)
@given(model=st.sampled_from(SERVED), budget_mib=st.integers(150, 20_000))
def test_the_largest_context_and_concurrency_fit_and_one_more_does_not(model: Any, budget_mib: int) -> None:
    profile = load_profile(ORIN)

    def fits(context_tokens: int, concurrency: int = 1) -> bool:
        question = make_question(
            model,
            profile,
            budget_bytes=budget_mib * MIB,
            context_tokens=context_tokens,
            concurrency=concurrency,
        )
        return check(question).plan.bound.fits

    answer = check(make_question(model, profile, budget_bytes=budget_mib * MIB, context_tokens=512))
    longest = answer.largest_context_tokens
    assert longest == 0 or fits(context_tokens=longest)
    assert longest == model.architecture.max_context_tokens or not fits(context_tokens=longest + 1)
    most = answer.largest_concurrency
    assert most == 0 or fits(context_tokens=512, concurrency=most)


@pytest.mark.parametrize("model", builtin_models(), ids=lambda model: model.name)
def test_a_built_in_model_has_the_parameters_it_is_published_with(model: Any) -> None:
    assert from_builtin(model).architecture.parameters == model.parameters
    assert model.source


def test_there_are_enough_built_in_models_and_no_two_share_a_name() -> None:
    names = [name.casefold() for model in builtin_models() for name in model.names]
    assert len(builtin_models()) >= 25
    assert len(names) == len(set(names))


def test_what_fits_is_exit_code_0_and_what_does_not_is_1() -> None:
    fits = invoke("check", "llama-3.2-1b", "--device", ORIN)
    assert fits.exit_code == 0
    assert "fits" in fits.stdout
    assert "to spare" in fits.stdout
    assert "Predicted TPOT" in fits.stdout
    assert "serving.context_tokens: 2048" in fits.stdout
    large = invoke("check", "llama-3.1-8b", "--device", "jetson-orin-nano-4gb")
    assert large.exit_code == 1
    assert "does not fit" in large.stdout
    assert "what would help" in large.stdout


def test_a_change_that_is_said_to_fit_does() -> None:
    answer = check(make_question(find_model("smollm2-1.7b"), load_profile(ORIN), budget_bytes=1600 * MIB))
    fitting = [change for change in answer.changes if change.fits]
    assert fitting
    assert all(change.plan.bound.upper_bytes <= 1600 * MIB for change in fitting)
    losses = [change.expected_divergence for change in fitting]
    assert losses == sorted(losses)


def test_json_holds_the_verdict_the_breakdown_and_what_it_rests_on() -> None:
    document = json.loads(
        invoke("check", "llama-3.2-3b", "--device", ORIN, "--engine", ENGINE, "--json").stdout
    )
    assert document["verdict"] == "fits"
    parts = document["plan"]["breakdown_bytes"]
    tensors = sum(
        each["codes_bytes"] + each["scales_bytes"] + each["zeros_bytes"] for each in parts["tensors"]
    )
    others = ("kv_cache", "layer_activations", "logits", "lookup", "in_file", "runtime", "second_copies")
    assert tensors + sum(parts[name] for name in others) == document["plan"]["predicted_peak_bytes"]
    assert ENGINE in document["plan"]["calibrated_on"]


def test_a_config_json_a_folder_and_a_built_in_name_give_the_same_answer(tmp_path: Path) -> None:
    model = next(model for model in builtin_models() if model.name == "qwen3-0.6b")
    (tmp_path / "config.json").write_text(json.dumps(dict(model.config)))
    built_in = find_model("qwen3-0.6b").architecture
    assert find_model(str(tmp_path)).architecture == built_in
    assert find_model(str(tmp_path / "config.json")).architecture == built_in
    assert find_model("Qwen/Qwen3-0.6B").architecture == built_in


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["gemma-3-1", "--device", ORIN], "Did you mean gemma-3-1b"),
        (["llama-3.2-1b", "--device", "orin"], "orin"),
        (["llama-3.2-1b"], "--device is missing"),
        (["llama-3.2-1b", "--device", ORIN, "--context", "500000"], "the model's maximum is 131072"),
        (["llama-3.2-1b", "--device", ORIN, "--context", "0"], "at least 1"),
        (["llama-3.2-1b", "--device", ORIN, "--concurrency", "-2"], "at least 1"),
        (["llama-3.2-1b", "--device", ORIN, "--concurrency", "1025"], "More than 1,024 requests at once"),
        (
            ["llama-3.2-1b", "--device", ORIN, "--concurrency", "1" + "0" * 400],
            "More than 1,024 requests at once",
        ),
        (["llama-3.2-1b", "--device", ORIN, "--budget", "300"], "not a size"),
        (["llama-3.2-1b", "--device", ORIN, "--budget", "-3GiB"], "not a size"),
        (["llama-3.2-1b", "--device", ORIN, "--budget", "0B"], "less than a byte"),
        (["llama-3.2-1b", "--device", ORIN, "--budget", "9GiB"], "has 8.00 GiB of memory; give less"),
        (["llama-3.2-1b", "--device", ORIN, "--engine", "llamacpp"], "no engine 'llamacpp'"),
        (["--all", "--context", "0"], "at least 1"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], says: str) -> None:
    result = invoke("check", *arguments)
    assert isinstance(result.exception, InputError)
    assert says in str(result.exception)


@pytest.mark.parametrize(
    ("figure", "value", "says"),
    [
        ("seen_bytes", None, "the key `memory.seen_bytes` is missing"),
        ("seen_bytes", -5, "`memory.seen_bytes.value` is -5: expected greater than 0"),
        ("seen_bytes", 2**49, "exceeds nominal_bytes"),
        ("reserve_bytes", 2**40, "leave nothing of seen_bytes"),
    ],
)
def test_a_profile_with_a_missing_or_impossible_figure_is_one_sentence(
    tmp_path: Path, figure: str, value: int | None, says: str
) -> None:
    document = load_profile(ORIN).model_dump(mode="json", exclude_none=True)
    if value is None:
        del document["memory"][figure]
    else:
        document["memory"][figure]["value"] = value
    (tmp_path / "board.yaml").write_text(json.dumps(document))  # which is YAML too
    result = invoke("check", "llama-3.2-1b", "--device", tmp_path / "board.yaml")
    assert isinstance(result.exception, InputError)
    assert says in str(result.exception)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "mamba"}, "mamba"),
        ({"model_type": "llama", "hidden_size": 64}, "num_hidden_layers"),
        ([], "list"),
    ],
)
def test_a_config_that_is_not_understood_says_what_is_missing(tmp_path: Path, config: Any, says: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    result = invoke("check", tmp_path, "--device", ORIN)
    assert isinstance(result.exception, InputError)
    assert says in str(result.exception)


@functools.cache
def printed_matrix() -> str:
    return str(invoke("check", "--all", "--markdown").stdout)


def test_every_model_on_every_board_is_one_matrix() -> None:
    lines = printed_matrix().splitlines()
    header, rows = lines[0], [line for line in lines[2:] if line.startswith("| ")]
    assert len(rows) == len(builtin_models()) >= 20
    assert {row.count("|") for row in rows} == {header.count("|")}
    told = "\n".join((header.replace("<br>", " "), *lines[-2:]))
    boards = [profile for profile in list_profiles() if profile != "this-host"]
    assert all(board_label(board) in told for board in boards)
    cells = json.loads(invoke("check", "--all", "--json").stdout)["cells"]
    assert len(cells) == len(boards) * len(builtin_models())


def test_the_matrix_in_the_documents_is_what_check_prints() -> None:
    """After a new calibration: paste the output of `edgewright check --all --markdown` between its marks."""
    page = (Path(__file__).parents[3] / "docs" / "fit.md").read_text(encoding="utf-8")
    shown = page.partition("<!-- matrix -->")[2].partition("<!-- end of matrix -->")[0]
    assert shown.strip() == printed_matrix().strip()


def test_a_column_of_the_matrix_holds_for_all_its_boards_and_hides_less_than_a_tenth() -> None:
    rows = make_matrix(MODELS, [load_profile(name) for name in list_profiles() if name != "this-host"])
    columns = columns_of(rows)
    assert [board for column in columns for board in column.boards] == [cell.board for cell in rows[0]]
    assert len(columns) < len(rows[0])
    shown = {board: column.cells for column in columns for board in column.boards}
    for cell, told in ((cell, shown[cell.board][index]) for index, row in enumerate(rows) for cell in row):
        assert (told.model, told.served) == (cell.model, cell.served)
        assert 0.9 * cell.context_tokens <= told.context_tokens <= cell.context_tokens
        assert 0.9 * cell.layers <= told.layers <= cell.layers
    budgets = [load_profile(board).budget_bytes() for column in columns for board in column.boards]
    assert budgets == sorted(budgets)


def test_plan_marks_the_chosen_one_on_the_front() -> None:
    result = invoke("plan", "smollm2-1.7b", "--device", ORIN, "--budget", "1.5GiB", "--json")
    assert result.exit_code == 0, result.exception
    document = json.loads(result.stdout)
    assert document["chosen"] in document["front"]
    shown = invoke("plan", "smollm2-1.7b", "--device", ORIN, "--budget", "1.5GiB").stdout
    assert shown.count("→") == 1
    assert "student.depth" in shown


def test_a_budget_nothing_meets_names_the_smallest_that_would() -> None:
    result = invoke("plan", "llama-3.1-8b", "--device", ORIN, "--budget", "500MiB")
    assert isinstance(result.exception, RefusedError)
    assert "The smallest needs" in str(result.exception)


def test_the_front_holds_nothing_that_another_plan_beats() -> None:
    model = find_model("smollm2-360m").architecture
    calibration = load_calibration(ENGINE)
    search = search_plans(model, Wishes(1024, at_least=True), 500 * MIB, [calibration])
    assert search.candidates == len(list(candidates(model, Wishes(1024, at_least=True), ENGINE)))
    values = [
        (
            plan.expected_divergence, plan.memory.peak_bytes,
            -plan.configuration.context_tokens, -plan.configuration.concurrency,
        )
        for plan in search.front
    ]  # fmt: skip
    assert not any(
        one != other and all(a <= b for a, b in zip(one, other, strict=True))
        for one in values
        for other in values
    )


@settings(deadline=None)
@given(st.sampled_from(SERVED), st.integers(100, 12_000))
def test_a_way_out_is_named_whenever_plan_knows_one(model: Any, budget_mib: int) -> None:
    question = make_question(model, load_profile(ORIN), budget_bytes=budget_mib * MIB)
    answer = check(question)
    try:
        search_plans(
            model.architecture, Wishes(question.context_tokens), budget_mib * MIB, [question.calibration]
        )
    except RefusedError:
        return
    assert answer.plan.bound.fits or any(change.fits for change in answer.changes)


def test_a_device_written_as_a_path_is_a_file_and_not_an_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("check", "smollm2-135m", "--device", "./jetson-orin-nano-8gb")
    assert isinstance(result.exception, InputError)
    assert "jetson-orin-nano-8gb can't be read: No such file" in str(result.exception)
