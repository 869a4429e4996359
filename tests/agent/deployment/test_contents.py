"""What an engine opens is what the manifest lists: an artifact that leads it elsewhere is refused when it is staged."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgewright.errors import RefusedError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.deployment.contents import check_contents
from edgewright_agent.deployment.contents.onnx_model import NotOnnxError, named_files
from edgewright_agent.engines import EngineInfo
from edgewright_agent.server import run_agent
from edgewright_agent.store import Space, Store
from tests.agent.conftest import settings_for
from tests.agent.services.test_deployment_service import reason_of
from tests.support.artifacts import TestArtifact, make_artifact, push, stage
from tests.support.engine_releases import Release
from tests.support.scripted_engine import Script

OUTSIDE = (
    "/opt/models/other.onnx",
    "../other.onnx",
    "sub/../../other.onnx",
    "other.onnx",
    "..\\other.onnx",
    "",
)


def external(location: str, **more: str) -> TensorProto:
    tensor = TensorProto(name=f"w-{location}", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def model(*tensors: TensorProto, nodes: Sequence[onnx.NodeProto] = (), **fields: Any) -> onnx.ModelProto:
    inline = onnx.numpy_helper.from_array(np.ones(3, np.float32), "inline")
    graph = helper.make_graph(list(nodes), "g", [], [], [inline, *tensors])
    return helper.make_model(graph, **fields)


def genai(filename: Any = "model.onnx", **decoder: Any) -> bytes:
    return json.dumps({"model": {"decoder": {"filename": filename, **decoder}, "vocab_size": 3}}).encode()


COMPILED = model(nodes=[helper.make_node("EPContext", [], ["y"], ep_cache_context="/x")]).SerializeToString()
GRAPH = model(external("model.onnx.data", offset="0", length="4")).SerializeToString()
ONNX_TREE = {
    "engine/genai_config.json": genai(session_options={"log_id": "genai", "provider_options": []}),
    "engine/model.onnx": GRAPH,
    "engine/model.onnx.data": bytes(4),
    "tokenizer/tokenizer.json": b'{"model": {"vocab": {"/etc/passwd": 1, "auto_map": 2}}}',
    "tokenizer/tokenizer_config.json": json.dumps(
        {
            "name_or_path": "/home/somebody/student", "bos_token": "/s", "eos_token": {"content": "</s>"},
            "added_tokens_decoder": {"0": {"content": "/no_think", "special": True}},
            "chat_template": "{% for m in messages %}/{{ m.content }}/../{% endfor %}", "tokenizer_file": None,
        }
    ).encode(),
}  # fmt: skip
VLLM_TREE = {
    "engine/config.json": json.dumps(
        {
            "_name_or_path": "somebody/student", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu",
            "quantization_config": {"quant_method": "gptq", "dynamic": {}, "meta": {"quantizer": ["x:1/2"]}},
        }
    ).encode(),
    "engine/model.safetensors.index.json": b'{"metadata": {}, "weight_map": {"a.path": "model.safetensors"}}',
    "engine/model.safetensors": b"weights",
    "tokenizer/tokenizer.json": b"{}",
}  # fmt: skip
KINDS = {"onnxruntime-genai": ONNX_TREE, "vllm": VLLM_TREE}


def artifact(kind: str, changes: Mapping[str, bytes] | None = None) -> TestArtifact:
    """The good artifact of this engine, with these files changed or added."""
    return make_artifact(KINDS[kind] | dict(changes or {}), engine={"kind": kind})


def refusal_of(made: TestArtifact, folder: Path) -> str | None:
    """Why the contents are refused; None if they are not."""
    for sha256, data in made.contents.items():
        (folder / sha256).write_bytes(data)
    try:
        check_contents(made.manifest, lambda file: folder / file.sha256)
    except RefusedError as error:
        return str(error) if error.reason == Reason.REASON_CONTENT_REFUSED else None
    return None


@pytest.mark.parametrize("kind", KINDS)
def test_what_builders_make_is_taken(kind: str, tmp_path: Path) -> None:
    assert refusal_of(artifact(kind), tmp_path) is None


def test_a_model_that_the_real_exporter_made_is_taken(tiny_onnx: Release, tmp_path: Path) -> None:
    files = [
        path
        for name in ("engine", "tokenizer")
        for path in (tiny_onnx.tree / name).rglob("*")
        if path.is_file()
    ]
    tree = {str(path.relative_to(tiny_onnx.tree)): path.read_bytes() for path in files}
    made = make_artifact(tree, engine={"kind": "onnxruntime-genai"})
    assert refusal_of(made, tmp_path) is None


@pytest.mark.parametrize("name", [*OUTSIDE, None, 7, ["model.onnx"], "model.onnx.data", "engine/model.onnx"])
def test_the_engines_configuration_names_a_model_of_the_artifact(name: Any, tmp_path: Path) -> None:
    made = artifact("onnxruntime-genai", {"engine/genai_config.json": genai(name)})
    refusal = str(refusal_of(made, tmp_path))
    assert "engine/genai_config.json" in refusal or "only .onnx files are" in refusal


@pytest.mark.parametrize("location", [*OUTSIDE[:-1], "*/_ORT_MEM_ADDR_/*", "engine/model.onnx.data"])
@pytest.mark.parametrize(
    "place", ["initializer", "twice", "attribute", "tensors", "subgraph", "sparse", "function", "training"]
)
def test_external_data_lies_in_the_artifact_wherever_a_graph_names_it(
    location: str, place: str, tmp_path: Path
) -> None:
    bad = external(location)
    graph = helper.make_graph([], "inner", [], [], [bad])
    sparse = onnx.SparseTensorProto(values=bad, indices=external("model.onnx.data"), dims=[1])
    nodes: dict[str, Callable[[], onnx.NodeProto]] = {
        "attribute": lambda: helper.make_node("Constant", [], ["c"], value=bad),
        "tensors": lambda: helper.make_node("Many", [], ["c"], values=[external("model.onnx.data"), bad]),
        "subgraph": lambda: helper.make_node("If", ["x"], ["y"], then_branch=graph, else_branch=graph),
        "sparse": lambda: helper.make_node("Constant", [], ["c"], sparse_value=sparse),
    }
    made = model(nodes=[nodes[place]()] if place in nodes else [])
    if place == "initializer":
        made.graph.initializer.append(bad)
    if place == "twice":  # the last one counts to one parser, the first one to another
        both = external("model.onnx.data")
        both.external_data.insert(0, onnx.StringStringEntryProto(key="location", value=location))
        made.graph.initializer.append(both)
    if place == "function":
        inner = helper.make_node("Constant", [], ["c"], value=bad)
        made.functions.append(helper.make_function("d", "f", [], ["c"], [inner], []))
    if place == "training":
        made.training_info.add().algorithm.CopyFrom(graph)
    made_anew = artifact("onnxruntime-genai", {"engine/model.onnx": made.SerializeToString()})
    refusal = refusal_of(made_anew, tmp_path)
    assert refusal is not None
    assert repr(location) in refusal


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"weights", "no ONNX model"),
        (GRAPH[:-3], "ends inside a field"),
        (COMPILED, "EPContext"),
    ],
)
def test_what_is_no_onnx_model_is_not_run_as_one(content: bytes, says: str, tmp_path: Path) -> None:
    made_anew = artifact("onnxruntime-genai", {"engine/model.onnx": content})
    assert says in str(refusal_of(made_anew, tmp_path))


def test_a_graph_is_read_as_onnx_reads_it(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(model(external("a"), external("b/c", checksum="x")).SerializeToString())
    assert named_files(tmp_path / "m.onnx") == {"a", "b/c"}
    (tmp_path / "deep.onnx").write_bytes(b"\x3a\x02\x0a\x80")
    with pytest.raises(NotOnnxError):
        named_files(tmp_path / "deep.onnx")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "file", ["engine/config.json", "tokenizer/tokenizer_config.json", "engine/adapter_config.json"]
)
@pytest.mark.parametrize(
    "content",
    [
        {"auto_map": {"AutoModelForCausalLM": "modeling.Model"}},
        {"text_config": {"auto_map": {"AutoConfig": "somebody/repo--configuration.Config"}}},
        {"layers": [{"auto_map": ["tokenization.Tokenizer", None]}]},
        {"trust_remote_code": True},
        {"model": {"decoder": {"session_options": {"custom_ops_library": "ops.so"}}}},
        {"vocab_file": "/etc/passwd"},
        {"tokenizer_file": "../../../secret.json"},
        {"merges_file": "elsewhere.txt"},
        {"base_model_name_or_path": "/opt/models/base"},
        {
            "session_options": {
                "config_entries": {"session.model_external_initializers_file_folder_path": "/opt"}
            }
        },
        {"session_options": {"provider_options": [{"tensorrt": {"trt_engine_cache_path": "/tmp/cache"}}]}},
        {"session_options": {"provider_options": [{"qnn": {"backend": "/usr/lib/libQnn.so"}}]}},
        {"anything": "../../other"},
        {"anything": ["~/.ssh/id_ed25519"]},
        {"anything": "file:///etc/passwd"},
        {"anything": "C:\\models\\m.onnx"},
    ],
    ids=str,
)
def test_a_configuration_names_no_code_and_no_file_outside(
    kind: str, file: str, content: dict[str, Any], tmp_path: Path
) -> None:
    made = artifact(kind, {file: json.dumps(content).encode()})
    refusal = refusal_of(made, tmp_path)
    assert refusal is not None
    assert file in refusal


@pytest.mark.parametrize(
    "name",
    ["engine/modeling_x.py", "tokenizer/tokenization.PY", "ops.so", "engine/__pycache__/m.cpython-311.pyc"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_an_artifact_holds_no_code(kind: str, name: str, tmp_path: Path) -> None:
    assert "is code" in str(refusal_of(artifact(kind, {name: b"x"}), tmp_path))


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "a/consolidated.00.PTH", "training_args.pkl"]
)
def test_vllm_is_given_no_pickle(name: str, tmp_path: Path) -> None:
    made = artifact("vllm", {f"engine/{name}": b"x"})
    assert "pickle" in str(refusal_of(made, tmp_path))


def test_a_checkpoint_in_several_files_names_its_own(tmp_path: Path) -> None:
    index = b'{"weight_map": {"a": "model.safetensors", "b": "../model-2.safetensors"}}'
    made = artifact("vllm", {"engine/model.safetensors.index.json": index})
    assert "model-2.safetensors" in str(refusal_of(made, tmp_path))


def every_engine() -> list[EngineInfo]:
    return [EngineInfo(kind, "1", True, "") for kind in ("fake", *KINDS)]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_push_is_refused_with_the_reason_and_the_file(kind: str, tmp_path: Path) -> None:
    bad = artifact(kind, {"engine/extra.json": b'{"auto_map": {"AutoModel": "m.M"}}'})
    settings = settings_for(tmp_path / "store")
    async with (
        run_agent(settings, available_engines=every_engine, start_engine=Script().start) as agent,
        grpc.aio.insecure_channel(str(agent.address)) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await push(channel, bad)
        assert reason_of(error.value) == "CONTENT_REFUSED"
        assert "engine/extra.json" in str(error.value.details())
        assert bad.digest not in agent.store.releases()
        assert await push(channel, artifact(kind))


@pytest.fixture
def store(tmp_path: Path) -> Any:
    opened = Store(tmp_path / "store", space=Space(reserve_bytes=0))
    yield opened
    opened.close()


def test_what_lies_beside_a_releases_files_is_out_of_the_way_before_an_engine_looks(
    store: Store, tmp_path: Path
) -> None:
    made = make_artifact()
    stage(store, made)
    release = store.release(made.digest)
    (release.tree / "engine/modeling.py").write_bytes(b"code")
    (release.tree / "engine/sub").mkdir()
    (release.tree / "engine/sub/model.safetensors").write_bytes(b"other weights")
    (release.tree / "tokenizer/config.json").symlink_to("/etc/passwd")
    store.verify_release(release)
    assert {str(path.relative_to(release.tree)) for path in release.tree.rglob("*") if path.is_file()} == {
        "engine/model.bin", "tokenizer/tokenizer.json",
    }  # fmt: skip
    assert store.quarantined_files() == 3


@pytest.mark.parametrize("link", ["tree", "tree/engine", "tree/engine/model.bin"])
def test_a_link_in_the_place_of_a_releases_file_is_replaced_by_the_file(
    store: Store, tmp_path: Path, link: str
) -> None:
    made = make_artifact()
    stage(store, made)
    release = store.release(made.digest)
    moved, place = tmp_path / "moved", release.folder / link
    place.rename(moved)
    place.symlink_to(moved)
    store.verify_release(release)
    assert not any(path.is_symlink() for path in (release.folder, *release.folder.rglob("*")))
    assert (release.tree / "engine/model.bin").samefile(store.layout.blob(made.manifest.files[0].sha256))
