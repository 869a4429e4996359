"""What a device profile is: one board's figures, each with where it comes from and how far to trust it."""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar, get_args

from pydantic import Field, model_validator

from edgewright.errors import InputError
from edgewright.file_model import FileModel
from edgewright.sizes import format_bytes

Value = TypeVar("Value")

# datasheet: the maker says so; measured: read off a real board, source says whose; community: third-party
# tables or posts; computed: follows from other figures; unverified: plausible, nobody has checked.
Confidence = Literal["datasheet", "measured", "community", "computed", "unverified"]

SensorKind = Literal["ina3221", "ina238", "ina2xx", "rapl", "nvml"]
EngineKind = Literal["onnxruntime-genai", "llama.cpp", "tensorrt-edge-llm", "vllm"]
ENGINE_KINDS: tuple[str, ...] = get_args(EngineKind)
Bytes = Annotated[int, Field(gt=0, le=2**50)]


class Figure(FileModel, Generic[Value]):
    """A fact with its source: a document, a URL or a named measurement."""

    value: Value
    source: Annotated[str, Field(min_length=8)]
    confidence: Confidence


class ProfileMemory(FileModel):
    """Where the board's memory goes before a model gets any."""

    nominal_bytes: Figure[Bytes]  # what is soldered on
    seen_bytes: Figure[Bytes]  # MemTotal: nominal less firmware carve-outs
    os_headless_bytes: Figure[Bytes]  # in use after boot without a desktop
    os_desktop_bytes: Figure[Bytes]  # in use after boot with the maker's desktop
    reserve_bytes: Figure[Bytes]  # kept free for page cache, agent and spikes

    @model_validator(mode="after")
    def _figures_are_possible(self) -> ProfileMemory:
        if self.seen_bytes.value > self.nominal_bytes.value:
            raise ValueError(
                f"seen_bytes {self.seen_bytes.value} exceeds nominal_bytes {self.nominal_bytes.value}"
            )
        if self.os_desktop_bytes.value < self.os_headless_bytes.value:
            raise ValueError("os_desktop_bytes is below os_headless_bytes")
        if self.os_headless_bytes.value + self.reserve_bytes.value >= self.seen_bytes.value:
            raise ValueError("os_headless_bytes and reserve_bytes leave nothing of seen_bytes")
        return self


class PowerMode(FileModel):
    """A power mode by its name (the numbers differ between boards), and the memory bandwidth it allows."""

    name: Annotated[str, Field(min_length=1)]
    bandwidth_bytes_per_second: Figure[Annotated[int, Field(gt=0, le=2**50)]]  # theoretical peak
    watts: Figure[Annotated[float, Field(gt=0)]] | None = None  # power budget; None: uncapped or unpublished


class Gpu(FileModel):
    """The GPU an engine could use."""

    name: Figure[str]
    compute_capability: Figure[Annotated[str, Field(pattern=r"^\d+\.\d$")]] | None = None  # CUDA's


class ProfileSensor(FileModel):
    """A power sensor and the rails it labels."""

    kind: SensorKind
    rails: Figure[tuple[str, ...]]


class EngineSupport(FileModel):
    """Whether an engine really runs on this board."""

    kind: EngineKind
    supported: Figure[bool]
    detail: Annotated[str, Field(min_length=1)]  # why not, or under which conditions
    jetpacks: tuple[str, ...] = ()  # the profile's JetPacks it runs on; none where the board has no JetPack


class JetPack(FileModel):
    """A JetPack line for this board and the Python its system packages are built for."""

    version: str
    l4t: str
    python: Figure[Annotated[str, Field(pattern=r"^3\.\d+$")]]


class Detect(FileModel):
    """How the probe knows this board: any of these in the device tree's fields or the CPU's name."""

    compatible: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    cpu: tuple[str, ...] = ()


class DeviceProfile(FileModel):
    """One board. Every figure carries its source."""

    # v2 says on which JetPacks an engine runs; files of v1 are read as well.
    schema_version: Literal["edgewright.profile.v1", "edgewright.profile.v2"] = "edgewright.profile.v2"
    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{1,60}$")]
    name: str
    aliases: tuple[str, ...] = ()
    soc: str
    machine: Literal["aarch64", "x86_64"]
    sources: dict[str, str] = Field(default_factory=dict)  # a bibliography; figures alias its entries
    memory: ProfileMemory
    cpu: Figure[str]
    cpu_cores: Figure[Annotated[int, Field(gt=0)]]
    gpu: Gpu | None = None
    power_modes: Annotated[tuple[PowerMode, ...], Field(min_length=1)]
    default_power_mode: str  # what `bandwidth_bytes_per_second` takes when no mode is named
    sensors: tuple[ProfileSensor, ...] = ()
    # Rails whose sum is the power of the whole module; None: no rail or sum of rails is.
    whole_module_rails: Figure[Annotated[tuple[str, ...], Field(min_length=1)]] | None = None
    engines: tuple[EngineSupport, ...]
    jetpacks: tuple[JetPack, ...] = ()
    detect: Detect = Detect()

    @model_validator(mode="after")
    def _names_refer_to_something(self) -> DeviceProfile:
        if self.default_power_mode not in self.power_mode_names:
            raise ValueError(f"default_power_mode {self.default_power_mode!r} is not one of power_modes")
        rails = {rail for sensor in self.sensors for rail in sensor.rails.value}
        if self.whole_module_rails is not None:
            unknown = set(self.whole_module_rails.value) - rails
            if unknown:
                raise ValueError(f"whole_module_rails names {sorted(unknown)}, which no sensor has")
        known = {jetpack.version for jetpack in self.jetpacks}
        for engine in self.engines:
            if unlisted := set(engine.jetpacks) - known:
                raise ValueError(
                    f"{engine.kind} names JetPack {sorted(unlisted)}, which jetpacks does not list"
                )
        return self

    @property
    def carve_out_bytes(self) -> int:
        """What firmware keeps from the OS: nominal − seen, as good as these two figures are."""
        return self.memory.nominal_bytes.value - self.memory.seen_bytes.value

    @property
    def power_mode_names(self) -> tuple[str, ...]:
        """Names of the power modes, in the profile's order."""
        return tuple(mode.name for mode in self.power_modes)

    def budget_bytes(self, desktop: bool = False) -> int:
        """Bytes a model may take at its peak: seen by the OS − the OS's own − reserve."""
        memory = self.memory
        system = memory.os_desktop_bytes if desktop else memory.os_headless_bytes
        return max(0, memory.seen_bytes.value - system.value - memory.reserve_bytes.value)

    def require_within_memory(self, budget_bytes: int) -> None:
        """Raises InputError for a budget of more bytes than the board has memory."""
        memory_bytes = self.memory.nominal_bytes.value
        if budget_bytes > memory_bytes:
            raise InputError(
                f"The budget is {format_bytes(budget_bytes)}, and {self.id} has {format_bytes(memory_bytes)} of "
                "memory; give less than that."
            )

    def bandwidth_bytes_per_second(self, power_mode: str | None = None) -> int:
        """Theoretical peak memory bandwidth in a power mode; raises InputError for one the board lacks."""
        wanted = power_mode or self.default_power_mode
        for mode in self.power_modes:
            if mode.name == wanted:
                return mode.bandwidth_bytes_per_second.value
        raise InputError(
            f"{self.id} has no power mode {wanted!r}; its modes are {', '.join(self.power_mode_names)}."
        )

    def engine(self, kind: str) -> EngineSupport | None:
        """Returns what is known of an engine on this board; None if nothing."""
        return next((engine for engine in self.engines if engine.kind == kind), None)
