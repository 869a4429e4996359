"""Edgewright's public interface: `import edgewright as ew`.

    fit = ew.check("meta-llama/Llama-3.2-3B-Instruct", device="jetson-orin-nano-8gb", budget="4GiB")
    run = ew.build("recipe.yaml", device="this-host", budget="260MiB", on_progress=print)
    with ew.Board("board.local:7443", credentials="keys") as board:
        board.push(run.artifact)
        for piece in board.generate("Why do plants need sunlight?"):
            print(piece, end="")

Each name is imported when it is first used, so that importing the package costs nothing. Beside it lies what host,
board and profiles agree upon: errors, sizes, manifest, trust.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgewright.errors import (
        BusyError,
        EdgewrightError,
        InputError,
        OutsideError,
        RefusedError,
    )
    from edgewright.manifest import (
        Manifest,
    )
    from edgewright.sizes import (
        format_bytes,
        parse_bytes,
    )
    from edgewright_builder.alignment.teacher_fit import (
        TeacherCheck,
    )
    from edgewright_builder.artifact.artifact import (
        Artifact,
    )
    from edgewright_builder.artifact.diff import (
        Comparison,
    )
    from edgewright_builder.device_client.failures import (
        LinkError,
    )
    from edgewright_builder.device_client.profile_draft import (
        ProfileDraft,
    )
    from edgewright_builder.device_client.verdict import (
        DeploymentVerdict,
        ProbeVerdict,
    )
    from edgewright_builder.fleet.inventory import (
        FleetDevice,
    )
    from edgewright_builder.fleet.journal import (
        DeviceResult,
    )
    from edgewright_builder.fleet.rollout import (
        RolloutReport,
    )
    from edgewright_builder.push.push import (
        PushResult,
    )
    from edgewright_builder.push.transfer import (
        TransferPlan,
    )
    from edgewright_builder.python_api.artifacts import (
        ExportedMirror,
        add_mirrors,
        diff,
        export_mirror,
        open_artifact,
    )
    from edgewright_builder.python_api.async_board import (
        AsyncBoard,
        NotCommittedError,
    )
    from edgewright_builder.python_api.benchmarks import (
        bench_local,
        open_bench,
    )
    from edgewright_builder.python_api.board import (
        Board,
    )
    from edgewright_builder.python_api.building import (
        build,
    )
    from edgewright_builder.python_api.credentials import (
        Credentials,
    )
    from edgewright_builder.python_api.fitting import (
        Fit,
        FitMatrix,
        KnownModel,
        KnownModels,
        PlanChoice,
        check,
        check_all,
        models,
        plan,
    )
    from edgewright_builder.python_api.fleet import (
        Fleet,
    )
    from edgewright_builder.python_api.profiles import (
        draft_profile,
        profile,
        profiles,
    )
    from edgewright_builder.python_api.results.bench import (
        BenchEnergy,
        BenchReport,
        BenchRun,
    )
    from edgewright_builder.python_api.results.board import (
        BoardRelease,
        BoardReleases,
        BoardStatus,
        EngineStatus,
    )
    from edgewright_builder.python_api.results.calibration import (
        BoardCalibrated,
    )
    from edgewright_builder.python_api.results.evaluation import (
        Evaluation,
        TaskEvaluation,
    )
    from edgewright_builder.python_api.results.generation import (
        AsyncGeneration,
        ChatTurn,
        Completion,
        Generation,
        RequestEnergy,
    )
    from edgewright_builder.python_api.results.progress import (
        Progress,
    )
    from edgewright_builder.python_api.results.storage import (
        DeletedRelease,
        GarbageCollection,
        ScrubResult,
    )
    from edgewright_builder.python_api.results.telemetry import (
        EnergyReading,
        EnergyReadings,
        LatencyDistribution,
        MemoryFigures,
        RecordedTelemetry,
        ServingFigures,
        TelemetrySnapshot,
    )
    from edgewright_builder.python_api.results.trust import (
        BoardTrust,
        TrustStatement,
        TrustUpdate,
    )
    from edgewright_builder.python_api.run_folder import (
        RunFolder,
        open_run,
    )
    from edgewright_builder.python_api.teachers import (
        check_teacher,
    )
    from edgewright_profiles import (
        DeviceProfile,
    )

__version__ = "0.2.0"

# Where each public name is.
_MODULES = {
    "edgewright.errors": (
        "BusyError",
        "EdgewrightError",
        "InputError",
        "OutsideError",
        "RefusedError",
    ),
    "edgewright.manifest": ("Manifest",),
    "edgewright.sizes": (
        "format_bytes",
        "parse_bytes",
    ),
    "edgewright_builder.alignment.teacher_fit": ("TeacherCheck",),
    "edgewright_builder.artifact.artifact": ("Artifact",),
    "edgewright_builder.artifact.diff": ("Comparison",),
    "edgewright_builder.device_client.failures": ("LinkError",),
    "edgewright_builder.device_client.profile_draft": ("ProfileDraft",),
    "edgewright_builder.device_client.verdict": (
        "DeploymentVerdict",
        "ProbeVerdict",
    ),
    "edgewright_builder.fleet.inventory": ("FleetDevice",),
    "edgewright_builder.fleet.journal": ("DeviceResult",),
    "edgewright_builder.fleet.rollout": ("RolloutReport",),
    "edgewright_builder.push.push": ("PushResult",),
    "edgewright_builder.push.transfer": ("TransferPlan",),
    "edgewright_builder.python_api.artifacts": (
        "ExportedMirror",
        "add_mirrors",
        "diff",
        "export_mirror",
        "open_artifact",
    ),
    "edgewright_builder.python_api.async_board": (
        "AsyncBoard",
        "NotCommittedError",
    ),
    "edgewright_builder.python_api.benchmarks": (
        "bench_local",
        "open_bench",
    ),
    "edgewright_builder.python_api.board": ("Board",),
    "edgewright_builder.python_api.building": ("build",),
    "edgewright_builder.python_api.credentials": ("Credentials",),
    "edgewright_builder.python_api.fitting": (
        "Fit",
        "FitMatrix",
        "KnownModel",
        "KnownModels",
        "PlanChoice",
        "check",
        "check_all",
        "models",
        "plan",
    ),
    "edgewright_builder.python_api.fleet": ("Fleet",),
    "edgewright_builder.python_api.profiles": (
        "draft_profile",
        "profile",
        "profiles",
    ),
    "edgewright_builder.python_api.results.bench": (
        "BenchEnergy",
        "BenchReport",
        "BenchRun",
    ),
    "edgewright_builder.python_api.results.board": (
        "BoardRelease",
        "BoardReleases",
        "BoardStatus",
        "EngineStatus",
    ),
    "edgewright_builder.python_api.results.calibration": ("BoardCalibrated",),
    "edgewright_builder.python_api.results.evaluation": (
        "Evaluation",
        "TaskEvaluation",
    ),
    "edgewright_builder.python_api.results.generation": (
        "AsyncGeneration",
        "ChatTurn",
        "Completion",
        "Generation",
        "RequestEnergy",
    ),
    "edgewright_builder.python_api.results.progress": ("Progress",),
    "edgewright_builder.python_api.results.storage": (
        "DeletedRelease",
        "GarbageCollection",
        "ScrubResult",
    ),
    "edgewright_builder.python_api.results.telemetry": (
        "EnergyReading",
        "EnergyReadings",
        "LatencyDistribution",
        "MemoryFigures",
        "RecordedTelemetry",
        "ServingFigures",
        "TelemetrySnapshot",
    ),
    "edgewright_builder.python_api.results.trust": (
        "BoardTrust",
        "TrustStatement",
        "TrustUpdate",
    ),
    "edgewright_builder.python_api.run_folder": (
        "RunFolder",
        "open_run",
    ),
    "edgewright_builder.python_api.teachers": ("check_teacher",),
    "edgewright_profiles": ("DeviceProfile",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [  # noqa: RUF022 - sorted without regard to case, as a reader looks them up
    "__version__",
    "add_mirrors",
    "Artifact",
    "AsyncBoard",
    "AsyncGeneration",
    "bench_local",
    "BenchEnergy",
    "BenchReport",
    "BenchRun",
    "Board",
    "BoardCalibrated",
    "BoardRelease",
    "BoardReleases",
    "BoardStatus",
    "BoardTrust",
    "build",
    "BusyError",
    "ChatTurn",
    "check",
    "check_all",
    "check_teacher",
    "Comparison",
    "Completion",
    "Credentials",
    "DeletedRelease",
    "DeploymentVerdict",
    "DeviceProfile",
    "DeviceResult",
    "diff",
    "draft_profile",
    "EdgewrightError",
    "EnergyReading",
    "EnergyReadings",
    "EngineStatus",
    "Evaluation",
    "export_mirror",
    "ExportedMirror",
    "Fit",
    "FitMatrix",
    "Fleet",
    "FleetDevice",
    "format_bytes",
    "GarbageCollection",
    "Generation",
    "InputError",
    "KnownModel",
    "KnownModels",
    "LatencyDistribution",
    "LinkError",
    "Manifest",
    "MemoryFigures",
    "models",
    "NotCommittedError",
    "open_artifact",
    "open_bench",
    "open_run",
    "OutsideError",
    "parse_bytes",
    "plan",
    "PlanChoice",
    "ProbeVerdict",
    "profile",
    "ProfileDraft",
    "profiles",
    "Progress",
    "PushResult",
    "RecordedTelemetry",
    "RefusedError",
    "RequestEnergy",
    "RolloutReport",
    "RunFolder",
    "ScrubResult",
    "ServingFigures",
    "TaskEvaluation",
    "TeacherCheck",
    "TelemetrySnapshot",
    "TransferPlan",
    "TrustStatement",
    "TrustUpdate",
]


if not TYPE_CHECKING:  # so that type checkers find a misspelt name

    def __getattr__(name: str) -> Any:
        if (module := _MODULE_OF.get(name)) is None:
            raise AttributeError(f"module 'edgewright' has no attribute {name!r}")
        value = getattr(import_module(module), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
