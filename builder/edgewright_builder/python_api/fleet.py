"""Many boards: an inventory, and one artifact rolled out to them in waves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from edgewright.errors import InputError
from edgewright_builder.artifact.artifact import Artifact, verify_artifact
from edgewright_builder.device_client.channel import parse_address
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.fleet.inventory import FleetDevice, inventory_of_hosts, load_inventory
from edgewright_builder.fleet.journal import RolloutJournal, held
from edgewright_builder.fleet.resumption import forget_outdated, holds, serves
from edgewright_builder.fleet.rollout import RolloutListener, RolloutReport, RolloutSettings, roll_out
from edgewright_builder.fleet.wave_rules import DEFAULT_WAVES, Thresholds, parse_share, wave_ends
from edgewright_builder.keys.trust_issuer import release_key
from edgewright_builder.push.delta_selection import Deltas, DeltaSources, deltas_from
from edgewright_builder.push.push import PushResult, push_verified
from edgewright_builder.python_api.arguments import as_path, credentials_folder
from edgewright_builder.python_api.board_arguments import artifact_folder
from edgewright_builder.python_api.loop import SHARED
from edgewright_builder.python_api.results.progress import OnProgress, Progress

PARALLEL_MAX = 256
TIMEOUT_SECONDS_MAX = 7 * 24 * 3600


@dataclass(frozen=True)
class RolloutOrder:
    """What each board of a fleet gets, and how the rollout goes about it."""

    artifact: Artifact
    credentials: Path | None
    insecure: bool
    activate: bool
    force: bool
    confirm_within_seconds: float
    delta_sources: DeltaSources | None
    settings: RolloutSettings
    journal: Path
    retry_failed: bool

    async def update(self, device: FleetDevice, deltas: Deltas | None) -> PushResult:
        """Sends it to a board and waits for the verdict."""
        async with self._client(device) as client:
            return await push_verified(
                client,
                self.artifact,
                activate=self.activate,
                force=self.force,
                confirm_within_seconds=self.confirm_within_seconds,
                deltas=deltas,
            )

    async def is_done(self, device: FleetDevice) -> bool:
        """Whether the board has it already, and serves it where it is to be activated."""
        async with self._client(device) as client:
            return await (serves if self.activate else holds)(client, bytes.fromhex(self.artifact.digest))

    def _client(self, device: FleetDevice) -> DeviceClient:
        return DeviceClient(parse_address(device.host), None if self.insecure else self.credentials)


class Fleet:
    """Boards of one `fleet.yaml`, or a list of `HOST:PORT`.

    `credentials` come before those that the file names, and these before EDGEWRIGHT_CREDENTIALS.
    """

    def __init__(
        self,
        boards: str | Path | Sequence[str],
        *,
        credentials: str | Path | None = None,
        insecure: bool = False,
    ) -> None:
        self.file: Path | None = None
        if isinstance(boards, (str, Path)):
            self.file = as_path(boards, "the fleet file")
            self.inventory = load_inventory(self.file)
        else:
            self.inventory = inventory_of_hosts(boards)
        self.devices = self.inventory.devices
        self._given = credentials
        self._insecure = insecure

    def __len__(self) -> int:
        return len(self.devices)

    def __repr__(self) -> str:
        return f"Fleet({self.inventory.name}, {len(self.devices)} of {len(self.inventory.devices)} devices)"

    def select(self, *selectors: str) -> Fleet:
        """Returns the boards that meet every selector, `label=value` or `label!=value`. Raises InputError for none."""
        chosen = Fleet.__new__(Fleet)
        chosen.__dict__ = self.__dict__ | {"devices": self.inventory.selected(selectors)}
        return chosen

    def push(
        self,
        artifact: str | Path | Artifact,
        *,
        waves: str = DEFAULT_WAVES,
        abort_over: str = "5%",
        proceed_at: str = "90%",
        parallel: int = 8,
        timeout_seconds: float = 1800.0,
        journal: str | Path | None = None,
        retry_failed: bool = False,
        activate: bool = True,
        force: bool = False,
        probation_seconds: float = 0.0,
        delta: bool = True,
        delta_from: Iterable[str | Path] = (),
        on_progress: OnProgress | None = None,
    ) -> RolloutReport:
        """Rolls an artifact out in waves, and returns what became of each board; a board that fails raises nothing.

        `waves` are the devices reached after each wave, as numbers or shares. No further device is begun once more
        than `abort_over` of those attempted have failed, and no further wave before `proceed_at` of one has committed.
        The journal, by default beside the fleet file, lets the same call go on where it was; `retry_failed` tries
        devices again that failed. See `Board.push` for the rest.
        """
        order = self.order(
            artifact,
            waves=waves,
            abort_over=abort_over,
            proceed_at=proceed_at,
            parallel=parallel,
            timeout_seconds=timeout_seconds,
            journal=journal,
            retry_failed=retry_failed,
            activate=activate,
            force=force,
            probation_seconds=probation_seconds,
            delta_sources=DeltaSources(tuple(map(artifact_folder, delta_from))) if delta else None,
        )
        if on_progress is None:
            return self.roll_out(order, RolloutListener(), lambda text: None)
        return SHARED.listen(lambda emit: self._roll_out(order, *_words(emit)), on_progress)

    def order(
        self,
        artifact: str | Path | Artifact,
        *,
        waves: str,
        abort_over: str,
        proceed_at: str,
        parallel: int,
        timeout_seconds: float,
        journal: str | Path | None,
        retry_failed: bool,
        activate: bool,
        force: bool,
        probation_seconds: float,
        delta_sources: DeltaSources | None,
    ) -> RolloutOrder:
        """Returns what `push` will do, everything that was given checked. Raises InputError."""
        _require_range("parallel", parallel, (int,), 1, PARALLEL_MAX)
        _require_range("timeout_seconds", timeout_seconds, (int, float), 1, TIMEOUT_SECONDS_MAX)
        credentials = self._credentials()
        opened = verify_artifact(artifact_folder(artifact), release_key(credentials))
        thresholds = Thresholds(parse_share(abort_over), parse_share(proceed_at))
        settings = RolloutSettings(wave_ends(waves, len(self)), thresholds, parallel, timeout_seconds)
        path = self._journal_path(opened.digest) if journal is None else as_path(journal, "the journal")
        return RolloutOrder(
            artifact=opened,
            credentials=credentials,
            insecure=self._insecure,
            activate=activate,
            force=force,
            confirm_within_seconds=probation_seconds,
            delta_sources=delta_sources,
            settings=settings,
            journal=path,
            retry_failed=retry_failed,
        )

    def roll_out(
        self, order: RolloutOrder, listener: RolloutListener, note: Callable[[str], None]
    ) -> RolloutReport:
        """Does what was ordered. The listener is called in the SDK's own thread."""
        return SHARED.run(self._roll_out(order, listener, note))

    async def _roll_out(
        self, order: RolloutOrder, listener: RolloutListener, note: Callable[[str], None]
    ) -> RolloutReport:
        with (
            self._journal(order) as journal,
            deltas_from(order.artifact, order.delta_sources) as deltas,
        ):
            outdated = await forget_outdated(self.devices, journal, order.is_done, order.settings.parallel)
            if outdated:
                note(_outdated_line(outdated))
            report = await roll_out(
                self.devices, lambda device: order.update(device, deltas), journal, order.settings, listener
            )
        return replace(report, activated=order.activate)

    @contextmanager
    def _journal(self, order: RolloutOrder) -> Iterator[RolloutJournal]:
        """The rollout's journal, its own while the context is open."""
        names = [device.name for device in self.devices]
        with held(order.journal):
            yield RolloutJournal.open(
                order.journal,
                order.artifact.digest,
                names,
                retry_failed=order.retry_failed,
                activate=order.activate,
            )

    def _journal_path(self, release: str) -> Path:
        stem = self.file.with_suffix("") if self.file is not None else Path("push")
        return stem.with_name(f"{stem.name}-{release[:12]}.journal.jsonl")

    def _credentials(self) -> Path | None:
        """The caller's, else the file's, else the environment's. Raises InputError."""
        given = None if self._given is None else as_path(self._given, "credentials")
        folder = given or self.inventory.credentials or credentials_folder(None)
        if folder is None and self._insecure:
            return None
        if folder is None:
            raise InputError(
                f"The fleet {self.inventory.name} names no credentials: give --credentials DIR or "
                "EDGEWRIGHT_CREDENTIALS."
            )
        if not folder.is_dir():
            raise InputError(f"The credentials folder {folder} does not exist; see `edgewright keys`.")
        return folder


def _require_range(name: str, value: float, kinds: tuple[type, ...], low: int, high: int) -> None:
    """Raises InputError for what is no number of these kinds within these bounds; NaN is none."""
    if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
        raise InputError(f"{name} is {value!r}; give a number from {low:,} to {high:,}.")


def _words(emit: OnProgress) -> tuple[RolloutListener, Callable[[str], None]]:
    """Returns a listener that tells each wave and each board's end."""

    def say(text: str) -> None:
        emit(Progress("rollout", text))

    listener = RolloutListener(
        wave_begins=lambda number, devices: say(f"wave {number}: {devices} devices"),
        device_ended=lambda device, result: say(
            f"{device.name} {result.outcome.value}, {result.seconds:.1f} s"
        ),
    )
    return listener, say


def _outdated_line(devices: list[str]) -> str:
    more = f" and {len(devices) - 3} more" if len(devices) > 3 else ""
    return (
        f"{', '.join(devices[:3])}{more}: the journal calls {'it' if len(devices) == 1 else 'them'} done, "
        "which no board confirms; begun again"
    )
