"""The recipe: one YAML file that says what to make. Every field has a default but the models and the task.

Defaults are the paper's (Sander, Jalaian, Dasari, arXiv 2601.09865, section 3 and Table 1) unless a comment says
why not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from edgewright_builder.fit.engines import DEFAULT_ENGINE, engine_traits
from edgewright_builder.recipe.file import absolute, parse

Optimizer = Literal["adam", "muon"]
OPTIMIZERS: tuple[Optimizer, ...] = ("adam", "muon")
Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ReleaseName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
ReleaseVersion = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,49}$")]
PROJECTIONS: tuple[Projection, ...] = get_args(Projection)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Student(_Section):
    """S1: what is distilled into, quantized and shipped."""

    model: str  # hub id, folder, GGUF file, or pypi:NAME==VERSION
    # layers to keep; auto: the plan's, from the budget
    depth: Literal["auto", "full"] | Annotated[int, Field(ge=1)] = "auto"
    drop_layers: tuple[int, ...] | None = None  # an explicit list instead of block influence


class DataTeacher(_Section):
    """T1: writes the data. Either a local model or any OpenAI-compatible endpoint."""

    model: str  # hub id, folder, GGUF file, pypi:NAME==VERSION, or the name an endpoint serves
    endpoint: str | None = None  # e.g. http://localhost:8000/v1; then `model` is the served name
    api_key_env: str | None = None  # environment variable that holds the key
    batch_size: Annotated[int, Field(ge=1)] = 48  # requests at once


class KnowledgeTeacher(_Section):
    """T2: its next-token distribution is what the student learns. Must share the student's vocabulary."""

    model: str  # hub id, folder, GGUF file, or pypi:NAME==VERSION


class Teachers(_Section):
    """The two teachers; the knowledge teacher defaults to the undistilled, unpruned student."""

    data: DataTeacher | None = None
    knowledge: KnowledgeTeacher


class Data(_Section):
    """Self-Instruct with a rubric, or a file of your own."""

    file: Path | None = None  # your own pairs: Alpaca JSONL with instruction, input, output
    pairs: Annotated[int, Field(ge=2)] = 600  # question and answer pairs to write
    preset: str | None = None  # task preset with its key phrases; default: the recipe's task
    prompts: Path | None = None  # folder whose files replace the shipped prompts
    temperature: Annotated[float, Field(gt=0, le=2)] = 0.7  # of the data teacher
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95  # of the data teacher
    # what filters the pairs; relevance: for a local T1 too small to judge
    critic: Literal["rubric", "relevance"] = "rubric"
    minimum_score: Annotated[float, Field(ge=1, le=5)] = 3.0  # the rubric's score that a pair must reach
    minimum_relevance: float = 0.2  # nats per token that the question adds to the answer's likelihood


class Bounds(_Section):
    """A closed range."""

    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Bounds:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


def _pair(value: Any) -> Any:
    return {"low": value[0], "high": value[1]} if isinstance(value, list) and len(value) == 2 else value


Range = Annotated[Bounds, BeforeValidator(_pair)]


SPACE_LIMITS = {
    "lora_scale": (1e-3, 100.0),
    "lora_rank": (1.0, 4096.0),
    "weight_decay": (0.0, 10.0),
    "learning_rate": (1e-9, 1e2),
    "temperature": (1e-2, 100.0),
    "alpha": (0.0, 1.0),
}


class SearchSpace(_Section):
    """Table 1 of the paper, and the optimizer as one more dimension."""

    lora_scale: Range = Bounds(low=0.5, high=2.0)  # a: ΔW = a·BA
    lora_rank: Range = Bounds(low=8, high=64)  # r, in steps of 8
    weight_decay: Range = Bounds(low=0.0, high=2.0)  # w_d
    learning_rate: Range = Bounds(low=1e-5, high=1e-3)  # η, log scale
    temperature: Range = Bounds(low=0.5, high=8.0)  # T, of the distillation
    alpha: Range = Bounds(low=0.0, high=1.0)  # α, the share of the KL in the loss; the rest is cross-entropy
    optimizer: tuple[Optimizer, ...] = Field(default=OPTIMIZERS, min_length=1)  # optimizers to try
    group_size: tuple[Literal[32, 64, 128], ...] = ()  # 4-bit group sizes to try; empty: the plan's

    @model_validator(mode="after")
    def _possible(self) -> SearchSpace:
        for key, (lowest, highest) in SPACE_LIMITS.items():
            bounds: Bounds = getattr(self, key)
            if not lowest <= bounds.low <= bounds.high <= highest:
                raise ValueError(
                    f"{key} must lie within [{lowest}, {highest}], not [{bounds.low}, {bounds.high}]"
                )
        return self


class Search(_Section):
    """Bayesian search with a Gaussian process."""

    trials: Annotated[int, Field(ge=1)] = 16  # how many settings are tried
    startup_trials: Annotated[int, Field(ge=1)] = 5  # random; Optuna's 10 of 16 would leave 6 to learn from
    # what a trial is judged by: the KL of what ships, or equation (5)
    objective: Literal["quantized_kl", "paper"] = "quantized_kl"
    train_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0  # of the training split, in each trial
    space: SearchSpace = SearchSpace()


class Finetune(_Section):
    """One epoch of LoRA distillation."""

    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1  # share of the pairs held out
    sequence_tokens: Annotated[int, Field(ge=16)] = 512  # longer samples are cut
    batch_tokens: Annotated[int, Field(ge=16)] = 1024  # padded tokens of one optimizer step
    loss_on: Literal["response", "sequence"] = "response"  # tokens the loss is taken on: the answer, or all
    # share of the steps in which the learning rate rises
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.05


class Quantize(_Section):
    """GPTQ W4A16. `auto` is the plan's choice."""

    group_size: Literal["auto", 32, 64, 128] = "auto"  # weights that share a scale; auto: the plan's
    embedding_bits: Literal["auto", 4, 8] = "auto"  # auto: the plan's
    calibration_sequences: Annotated[int, Field(ge=8)] = 128  # sequences that GPTQ calibrates on
    delta_from: Path | None = None  # an earlier run, or its GPTQ checkpoint, that boards already have
    dead_band: Annotated[float, Field(ge=0, le=8)] = 0.25  # steps beyond rounding in which its codes are kept


class Slots(_Section):
    """Which LoRA adapters the exported model takes; each is then a small release of its own."""

    rank: Annotated[int, Field(ge=1, le=256)] = 8  # the highest
    # projections that take adapters
    modules: Annotated[tuple[Projection, ...], Field(min_length=1)] = PROJECTIONS


class Serving(_Section):
    """What the board must be able to do; the memory prediction holds for this."""

    context_tokens: Annotated[int, Field(ge=64)] = 2048  # prompt and answer together
    concurrency: Annotated[int, Field(ge=1, le=64)] = 1  # requests at once; each gets a KV cache of its own
    # Both load the same GPTQ checkpoint. vLLM's is the checkpoint itself; evaluating it needs a vLLM on this host too.
    engine: Literal["onnxruntime-genai", "vllm"] = "onnxruntime-genai"
    adapters: Slots | None = None  # None: the model takes none, and is a little faster for it
    # A board on which one request alone is slower does not keep the release. TTFT: of the golden prompt's length.
    ttft_seconds_max: Annotated[float, Field(gt=0)] | None = None
    tpot_seconds_max: Annotated[float, Field(gt=0)] | None = None  # the same for each token after the first

    @model_validator(mode="after")
    def _engine_takes_adapters(self) -> Serving:
        if self.adapters is not None and not engine_traits(self.engine).takes_adapters:
            raise ValueError(
                f"`adapters` need `engine: {DEFAULT_ENGINE}`; {self.engine} is started without any"
            )
        return self


class Evaluate(_Section):
    """Zero-shot log-likelihood accuracy."""

    tasks: tuple[str, ...] = ()  # the paper's eight by name, or .jsonl files; default: the recipe's task
    benchmarks: Path | None = None  # folder of TASK/eval.jsonl; default: the hub
    limit: Annotated[int, Field(ge=1)] | None = None  # first rows only
    quiz: Literal["plain", "chat"] = "plain"  # .jsonl files: as ARC asks, or in the model's chat template


class Recipe(_Section):
    """The whole file."""

    name: ReleaseName  # the release's name
    version: ReleaseVersion = "1"  # the release's version, for people
    # boards refuse a release whose counter is below what they have seen
    release_counter: Annotated[int, Field(ge=1)] = 1
    task: str  # a task preset, or a name for your own data
    seed: int = 0  # of data, search and training
    student: Student
    teachers: Teachers
    data: Data = Data()
    search: Search = Search()
    finetune: Finetune = Finetune()
    quantize: Quantize = Quantize()
    serving: Serving = Serving()
    evaluate: Evaluate = Evaluate()

    @model_validator(mode="after")
    def _data_has_a_source(self) -> Recipe:
        if self.data.file is None and self.teachers.data is None:
            raise ValueError("give `teachers.data` (a model that writes the data) or `data.file` (your own)")
        return self


def load_recipe(path: Path) -> Recipe:
    """The recipe in `path`, its relative paths taken from the recipe's own folder.

    Raises InputError naming the first wrong key, its value and what was expected.
    """
    recipe, folder = parse(Recipe, path), path.resolve().parent
    return _with_paths_from(recipe, folder)


def _with_paths_from(recipe: Recipe, folder: Path) -> Recipe:
    data = recipe.data.model_copy(
        update={"file": absolute(recipe.data.file, folder), "prompts": absolute(recipe.data.prompts, folder)}
    )
    quantize = recipe.quantize.model_copy(update={"delta_from": absolute(recipe.quantize.delta_from, folder)})
    evaluate = evaluate_from(recipe.evaluate, folder)
    return recipe.model_copy(update={"data": data, "quantize": quantize, "evaluate": evaluate})


def evaluate_from(evaluate: Evaluate, folder: Path) -> Evaluate:
    """The section with its paths taken from the recipe's folder."""
    tasks = tuple(str(folder / task) if task.endswith(".jsonl") else task for task in evaluate.tasks)
    return evaluate.model_copy(update={"benchmarks": absolute(evaluate.benchmarks, folder), "tasks": tasks})
