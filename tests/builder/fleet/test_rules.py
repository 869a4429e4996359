from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.errors import InputError
from edgewright_builder.fleet.inventory import inventory_of_hosts, load_inventory
from edgewright_builder.fleet.journal import DeviceResult, RolloutJournal
from edgewright_builder.fleet.wave_rules import (
    FAILURES,
    SUCCESSES,
    DeviceOutcome,
    Thresholds,
    abort_reason,
    hold_reason,
    parse_share,
    wave_ends,
)

RELEASE = "ab" * 32
FLEET = """
name: greenhouse
credentials: keys
devices:
  - host: board-1.local:50051
    name: north
    labels: {site: roof, tier: canary}
  - host: board-2.local:50051
    labels: {site: roof}
  - board-3.local:50051
"""


def result(device: str, outcome: DeviceOutcome = DeviceOutcome.COMMITTED) -> DeviceResult:
    return DeviceResult(device, outcome, "fine", RELEASE, 12, 0.5)


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.yaml"
    path.write_text(FLEET)
    return path


def test_credentials_lie_beside_the_file_or_in_a_home_folder(
    fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert load_inventory(fleet).credentials == fleet.parent / "keys"
    fleet.write_text(FLEET.replace("credentials: keys", "credentials: ~/keys"))
    assert load_inventory(fleet).credentials == Path("/home/me/keys")


def test_waves_count_all_devices_so_far() -> None:
    assert wave_ends("1,10%,50%,100%", 50) == [1, 5, 25, 50]
    assert wave_ends("2,20", 50) == [2, 20, 50]


def test_waves_that_are_one_in_a_small_fleet_are_one() -> None:
    assert wave_ends("1,10%,50%,100%", 3) == [1, 2, 3]


@given(st.integers(1, 2000), st.lists(st.integers(1, 100), min_size=1, max_size=6))
def test_waves_grow_and_end_with_every_device(devices: int, percents: list[int]) -> None:
    ends = wave_ends(",".join(f"{percent}%" for percent in sorted(percents)), devices)
    assert ends == sorted(set(ends))
    assert ends[0] >= 1
    assert ends[-1] == devices


@pytest.mark.parametrize("text", ["", "0", "ten", "50%,10%", "110%", "-1", "1,,2", "5 %%"])
def test_malformed_waves_are_bad_input(text: str) -> None:
    with pytest.raises(InputError):
        wave_ends(text, 40)


@pytest.mark.parametrize("text", ["5", "nan%", "-1%", "101%", "%"])
def test_a_share_needs_its_sign_and_its_range(text: str) -> None:
    with pytest.raises(InputError, match="share between 0% and 100%"):
        parse_share(text)


@given(st.lists(st.sampled_from(list(DeviceOutcome))), st.floats(0, 1))
def test_a_rollout_aborts_exactly_when_the_share_of_failed_devices_is_over_the_threshold(
    outcomes: list[DeviceOutcome], threshold: float
) -> None:
    failed = [outcome for outcome in outcomes if outcome in FAILURES]
    judged = len(failed) + sum(outcome in SUCCESSES for outcome in outcomes)
    over = bool(failed) and len(failed) / judged > threshold
    assert (abort_reason(outcomes, Thresholds(abort_over=threshold)) is not None) == over


def test_unreachable_devices_do_not_condemn_a_release_but_hold_the_next_wave() -> None:
    outcomes = [DeviceOutcome.UNREACHABLE, DeviceOutcome.BUSY, DeviceOutcome.COMMITTED]
    assert abort_reason(outcomes, Thresholds()) is None
    assert hold_reason(outcomes, Thresholds()) == (
        "1 of the wave's 3 devices committed, and 3 must before the next wave"
    )


def test_where_a_release_is_only_staged_that_is_what_the_next_wave_waits_for() -> None:
    assert hold_reason([DeviceOutcome.STAGED], Thresholds()) is None
    assert hold_reason([DeviceOutcome.STAGED, DeviceOutcome.BUSY], Thresholds()) is not None


def test_an_inventory_holds_hosts_names_and_labels(fleet: Path) -> None:
    inventory = load_inventory(fleet)
    assert [device.name for device in inventory.devices] == [
        "north", "board-2.local:50051", "board-3.local:50051",
    ]  # fmt: skip
    assert inventory.credentials == fleet.parent / "keys"


def test_selectors_choose_by_label(fleet: Path) -> None:
    inventory = load_inventory(fleet)
    assert [device.name for device in inventory.selected(["site=roof", "tier!=canary"])] == [
        "board-2.local:50051"
    ]
    with pytest.raises(InputError, match="did you mean site"):
        inventory.selected(["sit=roof"])
    with pytest.raises(InputError, match="No device of greenhouse meets site=cellar"):
        inventory.selected(["site=cellar"])
    with pytest.raises(InputError, match="label=value"):
        inventory.selected(["site"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("site: roof, tier", "site: [roof], tier"), "devices.0.labels.site"),
        (("name: north", "name: north, wave: 1"), "not YAML"),
        (("name: greenhouse", "nme: greenhouse"), r"unknown key `nme`; did you mean `name`\?$"),
        (("devices:", "device:"), r"unknown key `device`; did you mean `devices`\?$"),
        (("labels:", "lables:"), r"unknown key `devices.0.lables`; did you mean `labels`\?$"),
        (("board-2.local:50051", "board-2.local"), "HOST:PORT"),
        (("board-2.local:50051", "board-1.local:50051"), "has two devices at board-1.local:50051;"),
        (("name: north", "name: board-3.local:50051"), "has two devices called board-3.local:50051"),
    ],
)
def test_a_wrong_fleet_file_says_where(fleet: Path, change: tuple[str, str], says: str) -> None:
    fleet.write_text(FLEET.replace(*change))
    with pytest.raises(InputError, match=says):
        load_inventory(fleet)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("board-1.local:50051", "Board-1.LOCAL:50051"),
        ("board-1.local:50051", "board-1.local.:50051"),
        ("board-1.local:50051", "board-1.local:050051"),
        ("[fd00::1]:50051", "[FD00:0:0::0001]:50051"),
    ],
)
def test_one_board_written_in_two_ways_is_one_board(one: str, other: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"has two devices at {other}, which is {one} too")):
        inventory_of_hosts([one, other])


def test_boards_that_differ_in_port_or_name_are_two() -> None:
    assert len(inventory_of_hosts(["a.local:1", "a.local:2", "b.local:1", "[::1]:1"]).devices) == 4


def test_a_missing_fleet_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        load_inventory(tmp_path / "none.yaml")


def test_a_journal_remembers_the_last_result_of_each_device(tmp_path: Path) -> None:
    path = tmp_path / "night" / "fleet.journal.jsonl"
    journal = RolloutJournal.open(path, RELEASE, ["a", "b"])
    journal.record(result("a", DeviceOutcome.UNREACHABLE))
    journal.record(result("a"))
    journal.record(result("b", DeviceOutcome.ROLLED_BACK))
    again = RolloutJournal.open(path, RELEASE, ["a", "b"])
    assert again.results == {"a": result("a"), "b": result("b", DeviceOutcome.ROLLED_BACK)}
    assert list(RolloutJournal.open(path, RELEASE, ["a", "b"], retry_failed=True).results) == ["a"]


def test_what_was_only_staged_is_not_done_where_it_is_to_be_activated(tmp_path: Path) -> None:
    path = tmp_path / "fleet.journal.jsonl"
    RolloutJournal.open(path, RELEASE, ["a", "b"]).record(result("a", DeviceOutcome.STAGED))
    assert RolloutJournal.open(path, RELEASE, ["a", "b"], activate=False).results["a"].settled
    assert RolloutJournal.open(path, RELEASE, ["a", "b"]).results == {}


@given(cut=st.integers(1, 400))
def test_a_journal_cut_anywhere_keeps_every_whole_line(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("journal") / "fleet.journal.jsonl"
    journal = RolloutJournal.open(path, RELEASE, ["a", "b"])
    header_bytes = path.stat().st_size
    for device in "ab":
        journal.record(result(device))
    data = path.read_bytes()[: header_bytes + cut]
    path.write_bytes(data)
    whole = data.count(b"\n") - 1
    again = RolloutJournal.open(path, RELEASE, ["a", "b"])
    assert len(again.results) == whole
    again.record(result("c"))
    assert len(RolloutJournal.open(path, RELEASE, ["a", "b"]).results) == whole + 1


@pytest.mark.parametrize(
    "text",
    [
        "{}\n", "[1]\n", '{"release": "cd"}\n{"device": "a"}\n', "\x00\x00\n", "\n",
        "name: lab\ndevices:\n  - board-1:7443\n  - board-2:7443", "notes", '{"release": "cd',
    ],
)  # fmt: skip
def test_what_is_no_journal_is_refused_and_left_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match="journal"):
        RolloutJournal.open(path, RELEASE, ["a"])
    assert path.read_text() == text


def test_a_journal_cut_in_its_first_line_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    RolloutJournal.open(path, RELEASE, ["a", "küche"])
    header = path.read_bytes()
    for size_bytes in range(len(header)):
        path.write_bytes(header[:size_bytes])
        RolloutJournal.open(path, RELEASE, ["a", "küche"]).record(result("a"))
        assert RolloutJournal.open(path, RELEASE, ["a", "küche"]).results == {"a": result("a")}


def test_a_new_journal_is_on_the_disk_with_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    RolloutJournal.open(tmp_path / "journal.jsonl", RELEASE, ["a"])
    assert synced == [tmp_path / "journal.jsonl", tmp_path]


@pytest.mark.parametrize("message", ["a\u2028b", "a\x85b", "a\r\nb", "ü"], ids=ascii)
def test_a_message_may_hold_any_character(tmp_path: Path, message: str) -> None:
    path = tmp_path / "journal.jsonl"
    kept = dataclasses.replace(result("a"), message=message)
    RolloutJournal.open(path, RELEASE, ["a"]).record(kept)
    assert RolloutJournal.open(path, RELEASE, ["a"]).results == {"a": kept}


def test_a_journal_cut_inside_a_character_keeps_every_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = RolloutJournal.open(path, RELEASE, ["a", "b"])
    journal.record(result("a"))
    journal.record(dataclasses.replace(result("b"), message="ü"))
    data = path.read_bytes()
    path.write_bytes(data[: data.index("ü".encode()) + 1])
    assert list(RolloutJournal.open(path, RELEASE, ["a", "b"]).results) == ["a"]


def test_the_journal_of_another_release_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(json.dumps({"release": "cd" * 32}) + "\n")
    with pytest.raises(InputError, match="is the journal of release cdcdcdcdcdcd, not of abababababab"):
        RolloutJournal.open(path, RELEASE, ["a"])
