"""`fleet.yaml`: which boards there are, and what distinguishes them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from edgewright.address import Address
from edgewright.errors import InputError
from edgewright.file_model import FileModel, read_file
from edgewright.folders import expanded
from edgewright_builder.device_client.channel import parse_address

DEVICES_MAX = 10_000
Label = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^=,!\s]+$")]


class FleetDevice(FileModel):
    """One board of the fleet."""

    host: str  # HOST:PORT
    name: Label = ""  # the host unless said otherwise; unique in the fleet
    labels: dict[Label, Label] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _plain_host(cls, value: Any) -> Any:
        """A device may be written as its HOST:PORT alone; its name is then the host."""
        fields = {"host": value} if isinstance(value, str) else value
        return {"name": fields.get("host"), **fields} if isinstance(fields, dict) else fields


class Inventory(FileModel):
    """The boards of one fleet and the folder of credentials that reaches them."""

    name: Label
    devices: tuple[FleetDevice, ...] = Field(min_length=1, max_length=DEVICES_MAX)
    credentials: Path | None = None  # relative to the file

    def selected(self, selectors: Sequence[str]) -> tuple[FleetDevice, ...]:
        """Returns the devices that meet every selector, `label=value` or `label!=value`, in the order of the file.

        Raises InputError for a malformed selector, an unknown label, and where no device is left.
        """
        rules = [_parse_selector(selector, self._label_names()) for selector in selectors]
        chosen = tuple(
            device
            for device in self.devices
            if all((device.labels.get(label) == value) is wanted for label, value, wanted in rules)
        )
        if not chosen:
            raise InputError(f"No device of {self.name} meets {' and '.join(selectors)}.")
        return chosen

    def _label_names(self) -> set[str]:
        return {label for device in self.devices for label in device.labels}


def load_inventory(path: Path) -> Inventory:
    """Reads and checks a fleet file; raises InputError naming the key that is wrong."""
    inventory = read_file(Inventory, path, "fleet file")
    _check_devices(path, inventory)
    if inventory.credentials is None:
        return inventory
    return inventory.model_copy(update={"credentials": path.parent / expanded(inventory.credentials)})


def inventory_of_hosts(hosts: Iterable[str]) -> Inventory:
    """Returns the inventory of boards named on the command line."""
    inventory = Inventory(name="hosts", devices=tuple(FleetDevice(host=host, name=host) for host in hosts))
    _check_devices(Path("command line"), inventory)
    return inventory


def _check_devices(path: Path, inventory: Inventory) -> None:
    names: set[str] = set()
    hosts: dict[
        Address, str
    ] = {}  # by their canonical address: other letters or a last dot make no other board
    for device in inventory.devices:
        if device.name in names:
            raise InputError(f"{path} has two devices called {device.name}; each needs a name of its own.")
        names.add(device.name)
        address = parse_address(device.host).canonical
        if (twin := hosts.get(address)) is not None:
            as_what = "" if twin == device.host else f", which is {twin} too"
            raise InputError(
                f"{path} has two devices at {device.host}{as_what}; each needs a host of its own."
            )
        hosts[address] = device.host


def _parse_selector(text: str, labels: set[str]) -> tuple[str, str, bool]:
    label, equals, value = text.partition("=")
    wanted = not label.endswith("!")
    label = label.removesuffix("!").strip()
    if not equals or not label or not value.strip():
        raise InputError(f"The selector {text!r} is not of the form label=value or label!=value.")
    if label not in labels:
        near = difflib.get_close_matches(label, labels, 1)
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(sorted(labels)) or 'none'}."
        raise InputError(f"No device of the fleet has the label {label!r}{hint}")
    return label, value.strip(), wanted
