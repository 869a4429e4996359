"""What a user may call a model: a built-in name, a folder, a config.json, a GGUF header, the hub's local cache."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewright.errors import EdgewrightError, InputError, OutsideError
from edgewright_builder.fit.catalogue import builtin_models
from edgewright_builder.fit.model_facts import find_model

CONFIG = {
    "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 48, "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}  # fmt: skip
BLOCK = {
    "attn_norm.weight": (32,), "ffn_norm.weight": (32,), "attn_q.weight": (32, 32), "attn_k.weight": (16, 32),
    "attn_v.weight": (16, 32), "attn_output.weight": (32, 32), "ffn_gate.weight": (64, 32),
    "ffn_up.weight": (64, 32), "ffn_down.weight": (32, 64),
}  # fmt: skip


def write_gguf(path: Path, *, layers: int = 2, output: bool = False) -> Path:
    """A GGUF of the shapes of `CONFIG`, written by the format's own library."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(layers)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_context_length(128)
    writer.add_array("tokenizer.ggml.tokens", [f"token {index}" for index in range(48)])
    writer.add_array("tokenizer.ggml.scores", [0.5] * 48)
    tensors: dict[str, tuple[int, ...]] = {"token_embd.weight": (48, 32), "output_norm.weight": (32,)}
    if output:
        tensors["output.weight"] = (48, 32)
    tensors |= {f"blk.{block}.{name}": shape for block in range(2) for name, shape in BLOCK.items()}
    for name, shape in tensors.items():
        writer.add_tensor(name, np.zeros(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(autouse=True)
def _empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize("output", [False, True])
def test_a_gguf_header_says_the_same_as_config_json(tmp_path: Path, output: bool) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"tie_word_embeddings": not output}))
    held = find_model(str(write_gguf(tmp_path / "model.gguf", output=output)))
    assert held.architecture == find_model(str(tmp_path / "config.json")).architecture


def test_a_gguf_whose_tensors_contradict_its_metadata_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contradictory: its tensors hold"):
        find_model(str(write_gguf(tmp_path / "model.gguf", layers=3)))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_gguf_cut_off_anywhere_in_its_header_is_one_sentence(tmp_path: Path, data: Any) -> None:
    whole = write_gguf(tmp_path / "model.gguf").read_bytes()
    header = whole.index(b"blk.1.ffn_down.weight")  # the last tensor described
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[: data.draw(st.integers(0, header))])
    with pytest.raises(InputError, match=r"is corrupt|is not a GGUF file"):
        find_model(str(cut))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_gguf_header_never_ends_in_a_traceback(tmp_path: Path, data: Any) -> None:
    whole = bytearray(write_gguf(tmp_path / "model.gguf").read_bytes())
    position = data.draw(st.integers(0, whole.index(b"blk.1.ffn_down.weight")))
    whole[position] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(whole)
    with contextlib.suppress(EdgewrightError):  # anything else is a traceback
        assert find_model(str(path)).architecture.parameters > 0


def test_a_folder_with_one_gguf_is_that_model(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf")
    assert find_model(str(tmp_path)).architecture.layers == 2


@pytest.mark.parametrize("model", builtin_models(), ids=lambda model: model.name)
def test_a_built_in_model_is_found_by_every_name_in_any_case(model: Any) -> None:
    for name in model.names:
        assert find_model(name.upper()).name == model.name


def test_a_hub_id_in_the_local_cache_needs_no_network(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--someone--tiny" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(CONFIG))
    assert find_model("someone/tiny").architecture.hidden_size == 32


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("llama-3.2-3", "Did you mean llama-3.2-3b"),
        ("qwen3_0.6b", "Did you mean qwen3-0.6b"),
        ("./nowhere", "There is no model './nowhere'"),
        ("nowhere.gguf", "There is no model 'nowhere.gguf'"),
        ("zzzz", "check --list"),
    ],
)
def test_an_unknown_model_is_one_sentence_with_the_nearest_names(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        find_model(text)


@pytest.mark.parametrize("text", ["", "[1, 2]", "{"])
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"config\.json"):
        find_model(str(path))


@contextlib.contextmanager
def hub(status: int, body: bytes) -> Iterator[tuple[str, list[str]]]:
    """A hub on loopback that gives every request the same answer; the addresses it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_a_hub_id_that_is_nowhere_here_is_asked_for_its_config_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with hub(200, json.dumps(CONFIG).encode()) as (endpoint, asked):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        assert find_model("someone/tiny").architecture.hidden_size == 32
    assert asked == ["/someone/tiny/resolve/main/config.json"]


@pytest.mark.parametrize(
    ("status", "body", "error", "says"),
    [
        (404, b"", InputError, "There is no model 'someone/tiny'"),
        (401, b"", OutsideError, "set HF_TOKEN"),
        (503, b"", OutsideError, "The hub answered 503"),
        (200, b"<html>", InputError, "is not readable as JSON"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, error: type[Exception], says: str
) -> None:
    with hub(status, body) as (endpoint, _):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        with pytest.raises(error, match=says):
            find_model("someone/tiny")


def test_a_hub_that_is_out_of_reach_names_the_nearest_built_in_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(OutsideError, match=r"nearest: llama-3\.2-3b.*check the network"):
        find_model("llama/Llama-3.2-3B")


def test_a_file_that_names_billions_of_layers_is_damaged(tmp_path: Path) -> None:
    config = {
        "model_type": "llama", "num_hidden_layers": 2**40, "hidden_size": 64, "intermediate_size": 128,
        "num_attention_heads": 2, "vocab_size": 256, "max_position_embeddings": 512,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(
        InputError, match="num_hidden_layers of this llama model is 1099511627776, expected 1000"
    ):
        find_model(str(tmp_path))
