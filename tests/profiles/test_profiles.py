from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from rich.console import Console
from typer.testing import CliRunner

from edgewright.errors import InputError
from edgewright_builder.cli.host.profiles import app, figures, profiles_grid
from edgewright_builder.show.sheet import Sheet, print_sheet
from edgewright_profiles import DeviceProfile, Figure, list_profiles, load_profile, parse_profile
from edgewright_profiles.schema import ENGINE_KINDS, Confidence, ProfileMemory

EXPECTED = {
    "jetson-nano-4gb",
    "jetson-tx2-nx",
    "jetson-xavier-nx-8gb",
    "jetson-xavier-nx-16gb",
    "jetson-agx-xavier-32gb",
    "jetson-orin-nano-4gb",
    "jetson-orin-nano-8gb",
    "jetson-orin-nx-8gb",
    "jetson-orin-nx-16gb",
    "jetson-agx-orin-32gb",
    "jetson-agx-orin-64gb",
    "jetson-agx-thor-t5000",
    "jetson-agx-thor-t4000",
    "raspberry-pi-5-8gb",
    "raspberry-pi-5-16gb",
    "n100-mini-pc",
    "dgx-spark",
    "this-host",
}
MIB = 2**20


def all_figures(value: Any) -> Iterator[Figure[Any]]:
    if isinstance(value, Figure):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from all_figures(getattr(value, name))
    elif isinstance(value, tuple):
        for each in value:
            yield from all_figures(each)


def document(profile_id: str = "jetson-orin-nano-8gb") -> dict[str, Any]:
    loaded: dict[str, Any] = load_profile(profile_id).model_dump(mode="json")
    return loaded


def test_every_board_we_name_has_a_profile() -> None:
    assert set(list_profiles()) == EXPECTED


@pytest.mark.parametrize("profile_id", list_profiles())
def test_every_figure_names_its_source_and_confidence(profile_id: str) -> None:
    found = list(all_figures(load_profile(profile_id)))
    assert len(found) >= 10
    for figure in found:
        assert len(figure.source) >= 8
        assert figure.confidence in get_args(Confidence)


@pytest.mark.parametrize("profile_id", list_profiles())
def test_a_profile_says_which_engines_run_and_why_not(profile_id: str) -> None:
    profile = load_profile(profile_id)
    assert profile.id == profile_id
    assert {engine.kind for engine in profile.engines} == set(ENGINE_KINDS)
    assert all(engine.detail for engine in profile.engines)


def test_aliases_are_unique_and_load_their_profile() -> None:
    aliases = [alias for name in list_profiles() for alias in load_profile(name).aliases]
    assert len(set(aliases)) == len(aliases)
    assert not set(aliases) & set(list_profiles())
    assert load_profile("jetson-orin-nano-super").id == "jetson-orin-nano-8gb"


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (("memory", "seen_bytes"), "memory.seen_bytes.source"),
        (("cpu_cores",), "cpu_cores.source"),
        (("power_modes", 0, "bandwidth_bytes_per_second"), "power_modes.0.bandwidth_bytes_per_second.source"),
        (("engines", 1, "supported"), "engines.1.supported.source"),
    ],
)
def test_a_figure_without_a_source_is_refused_by_name(path: tuple[str | int, ...], field: str) -> None:
    profile: Any = document()
    figure = profile
    for key in path:
        figure = figure[key]
    del figure["source"]
    with pytest.raises(InputError, match=rf"^board\.yaml: the key `{re.escape(field)}` is missing\.$"):
        parse_profile(yaml.safe_dump(profile), "board.yaml")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"memory": {"seen_bytes": -1}}, "`memory.seen_bytes.value` is -1: expected"),
        ({"memory": {"seen_bytes": 9 * 2**30}}, "`memory`: .*exceeds nominal_bytes"),
        ({"memory": {"os_headless_bytes": 7990149120}}, "`memory`: .*"),
        ({"cpu_cores": 0}, "`cpu_cores.value` is 0: expected"),
    ],
)
def test_an_impossible_figure_is_refused_by_name(change: dict[str, Any], field: str) -> None:
    profile = document()
    for name, value in change.items():
        if isinstance(value, dict):
            for inner, number in value.items():
                profile[name][inner]["value"] = number
        else:
            profile[name]["value"] = value
    with pytest.raises(InputError, match=rf"^board\.yaml: {field}"):
        parse_profile(yaml.safe_dump(profile), "board.yaml")


def test_a_bandwidth_that_no_memory_has_is_refused_by_name() -> None:
    profile: Any = document()
    profile["power_modes"][0]["bandwidth_bytes_per_second"]["value"] = 10**400
    with pytest.raises(
        InputError, match=r"power_modes\.0\.bandwidth_bytes_per_second\.value`.*expected at most"
    ):
        parse_profile(yaml.safe_dump(profile), "board.yaml")


def test_a_name_of_thousands_of_letters_makes_no_sentence_of_thousands() -> None:
    profile: Any = document()
    profile["default_power_mode"] = "w" * 5000
    with pytest.raises(InputError, match=r"is not one of power_modes|default_power_mode") as caught:
        parse_profile(yaml.safe_dump(profile), "board.yaml")
    assert len(str(caught.value)) < 600


def test_a_rail_that_no_sensor_has_cannot_be_the_whole_module() -> None:
    profile = document()
    profile["whole_module_rails"]["value"] = ["VDD_OUT"]
    with pytest.raises(InputError, match="VDD_OUT"):
        parse_profile(yaml.safe_dump(profile), "board.yaml")


def test_a_wrong_key_is_refused_by_name() -> None:
    profile = document()
    profile["memori"] = 1
    with pytest.raises(InputError, match="memori"):
        parse_profile(yaml.safe_dump(profile), "board.yaml")


@pytest.mark.parametrize(
    ("path", "typo", "says"),
    [
        ((), "memori", "unknown key `memori`; did you mean `memory`?"),
        (("power_modes", 0), "nmae", "unknown key `power_modes.0.nmae`; did you mean `name`?"),
        (("cpu_cores",), "valu", "unknown key `cpu_cores.valu`; did you mean `value`?"),
    ],
)
def test_a_misspelt_key_is_told_before_the_one_that_is_missing(
    path: tuple[str | int, ...], typo: str, says: str
) -> None:
    profile: Any = document()
    section = profile
    for key in path:
        section = section[key]
    right = says.split("`")[3]
    section[typo] = section.pop(right)
    with pytest.raises(InputError) as caught:
        parse_profile(yaml.safe_dump(profile), "board.yaml")
    assert str(caught.value) == f"board.yaml: {says}"


def test_an_unknown_id_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean jetson-orin-nano-8gb"):
        load_profile("jetson-orin-nono-8gb")
    with pytest.raises(InputError, match="profiles list"):
        load_profile("qqqqqqqqqqqq")


def test_a_profile_loads_from_a_file(tmp_path: Path) -> None:
    profile = document() | {"id": "my-board"}
    path = tmp_path / "my-board.yaml"
    path.write_text(yaml.safe_dump(profile))
    assert load_profile(path).id == "my-board"
    assert load_profile(str(path)).budget_bytes() == load_profile("jetson-orin-nano-8gb").budget_bytes()


def test_an_unreadable_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_profile(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_bytes(b"a: [\xff")
    with pytest.raises(InputError, match="not UTF-8"):
        load_profile(tmp_path / "bad.yaml")
    (tmp_path / "open.yaml").write_text("a: [1")
    with pytest.raises(InputError, match="is not YAML"):
        load_profile(tmp_path / "open.yaml")


def test_the_budget_is_what_the_system_and_the_reserve_leave() -> None:
    memory = load_profile("jetson-orin-nano-8gb").memory
    profile = load_profile("jetson-orin-nano-8gb")
    assert profile.budget_bytes() == (7620 - 717 - 305) * MIB
    assert profile.budget_bytes() - profile.budget_bytes(desktop=True) == (
        memory.os_desktop_bytes.value - memory.os_headless_bytes.value
    )


@settings(deadline=None)
@given(st.tuples(*[st.integers(1, 2**36)] * 5))
def test_a_possible_memory_leaves_a_budget_below_what_is_seen(sizes: tuple[int, ...]) -> None:
    names = ("nominal_bytes", "seen_bytes", "os_headless_bytes", "os_desktop_bytes", "reserve_bytes")
    figure = {"source": "a hypothetical board", "confidence": "computed"}
    template = load_profile("jetson-orin-nano-8gb")
    try:
        memory = ProfileMemory.model_validate(
            {name: {"value": size, **figure} for name, size in zip(names, sizes, strict=True)}
        )
    except ValueError:
        nominal, seen, headless, desktop, reserve = sizes
        assert seen > nominal or desktop < headless or headless + reserve >= seen
        return
    profile = template.model_copy(update={"memory": memory})
    assert 0 < profile.budget_bytes() < memory.seen_bytes.value <= memory.nominal_bytes.value
    assert 0 <= profile.budget_bytes(desktop=True) <= profile.budget_bytes()


def test_bandwidth_follows_the_power_mode() -> None:
    profile = load_profile("jetson-orin-nano-8gb")
    assert profile.bandwidth_bytes_per_second("15W") == 2 * 2_133_000_000 * 16
    assert profile.bandwidth_bytes_per_second("MAXN_SUPER") == 2 * 3_199_000_000 * 16
    assert profile.bandwidth_bytes_per_second() == profile.bandwidth_bytes_per_second("25W")
    with pytest.raises(InputError, match="no power mode '10W'; its modes are 7W, 15W, 25W, MAXN_SUPER"):
        profile.bandwidth_bytes_per_second("10W")


def test_this_host_is_measured_here() -> None:
    profile = load_profile("this-host")
    memory = profile.memory
    assert memory.seen_bytes.confidence == "measured"
    assert "this machine" in memory.seen_bytes.source
    total_kib = int(Path("/proc/meminfo").read_text().split()[1])
    assert memory.seen_bytes.value == total_kib * 1024
    assert 10**8 < profile.bandwidth_bytes_per_second() < 10**12
    assert 0 < profile.budget_bytes() < memory.seen_bytes.value


def test_profiles_list_prints_every_board() -> None:
    result = CliRunner().invoke(app, ["list", "--json"])
    assert result.exit_code == 0
    rows = {row["id"]: row for row in json.loads(result.output)["profiles"]}
    assert set(rows) == EXPECTED
    assert rows["jetson-nano-4gb"]["engines"] == []
    lines = [line.split("\t") for line in CliRunner().invoke(app, ["list"]).output.splitlines()]
    assert [line[0] for line in lines] == ["profile", *list_profiles()]
    assert {line[0]: line[1] for line in lines}["jetson-orin-nano-8gb"] == "7.44 GiB"


def test_a_narrow_terminal_shows_each_profile_s_id_and_engines_whole() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    print_sheet(console, Sheet((profiles_grid([load_profile(name) for name in list_profiles()]),)))
    shown = cast("io.StringIO", console.file).getvalue()
    for word in (*list_profiles(), "onnxruntime-genai", "llama.cpp", "tensorrt-edge-llm", "vllm"):
        assert f"{word} " in shown
    assert "…" not in shown


def test_profiles_show_prints_every_figure_with_its_source() -> None:
    profile = load_profile("jetson-agx-orin-64gb")
    assert len(figures(profile)) == len(list(all_figures(profile)))
    result = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["show", "agx-orin-64gb"])
    assert result.exit_code == 0
    assert "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0" in result.output
    assert "budget: 57.86 GiB" in result.output
    assert all(figure.source[:30] in result.output for _, figure in figures(profile))


def test_a_profile_of_ones_own_is_shown_with_its_brackets(tmp_path: Path) -> None:
    document = load_profile("raspberry-pi-5-8gb").model_dump(mode="json")
    document["name"] = "Board [rev2]"
    document["cpu"] |= {"value": "Cortex-A76 [bold]", "source": "datasheet [page 3]"}
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    shown = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["show", str(path)]).output
    for piece in ("Board [rev2]", "Cortex-A76 [bold]", "datasheet [page 3]"):
        assert piece in shown


def test_profiles_show_as_json_loads_again() -> None:
    result = CliRunner().invoke(app, ["show", "raspberry-pi-5-8gb", "--json"])
    assert DeviceProfile.model_validate(json.loads(result.output)) == load_profile("raspberry-pi-5-8gb")
