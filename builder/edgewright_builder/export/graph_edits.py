"""Writes into an exported graph what the exporter was not told: positions, windows, head sizes, embedding scale.

Names of nodes and tensors are those of onnxruntime-genai's builder; `model_builder` stops where they have changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.errors import OutsideError
from edgewright_builder.export.decoder import Decoder
from edgewright_builder.export.graph_file import GraphFile
from edgewright_builder.export.heads import HeadLayout

ATTENTION_PATTERN = re.compile(r"/model/layers\.(?P<layer>\d+)/attn/GroupQueryAttention")
TOLD_TABLES = tuple(
    f"{part}_cache{suffix}" for part in ("cos", "sin") for suffix in ("", "_global", "_local")
)
EMBEDDING_SCALE_NODE = "/model/embed_tokens/Mul"
TOTALS = (
    "/model/attn_mask_reformat/attn_mask_subgraph/ReduceSum/output_0"  # (batch,): tokens of each sequence
)
WIDTH = (
    "/model/attn_mask_reformat/attn_mask_subgraph/Gather/output_0"  # (): tokens that a row of the cache holds
)
# Inputs of GroupQueryAttention by their place (onnxruntime's ContribOperators.md).
QUERY, KEY, VALUE, COS, SIN, BIAS = 0, 1, 2, 7, 8, 10

Tables = Mapping[
    str, tuple[NDArray[np.float32], NDArray[np.float32]]
]  # (cos, sin) of each set of frequencies


def edit_attention(file: GraphFile, decoder: Decoder, tables: Tables, positions: int) -> None:
    """Gives each layer its positions, its window and heads of a size that the runtime takes.

    `tables` hold as many rows as the release serves `positions`.
    """
    layout = HeadLayout(decoder.head_dim, decoder.rotary_dim)
    names = {rope: _add_tables(file, rope, table, layout) for rope, table in tables.items()}
    windows = {layer.window_tokens for layer in decoder.layers if layer.window_tokens is not None}
    biases = {window: f"/edgewright/window_{window}" for window in windows if window < positions}
    nodes: list[Any] = []
    for node in file.graph.node:
        match = ATTENTION_PATTERN.fullmatch(node.name)
        if match is None:
            nodes.append(node)
            continue
        layer = decoder.layers[int(match["layer"])]
        if biases and match["layer"] == "0":
            nodes += _window_nodes(file, biases)
        _set_positions(node, None if layer.rope is None else names[layer.rope])
        _set_input(node, BIAS, biases.get(layer.window_tokens or 0, ""))
        nodes += _laid_out(file, node, decoder, layout) if layout.changes else [node]
    file.replace_nodes(nodes)
    for name in TOLD_TABLES:
        file.remove_tensor(name)


def edit_embedding_scale(file: GraphFile, scale: float) -> None:
    """Multiplies embeddings with `scale` itself: the exporter rounds it to two decimals."""
    node = next((node for node in file.graph.node if node.name == EMBEDDING_SCALE_NODE), None)
    if node is None:
        raise OutsideError(
            f"The exported graph has no node {EMBEDDING_SCALE_NODE}; onnxruntime-genai's builder has "
            "changed: use its version that Edgewright requires."
        )
    node.input[1] = file.add_tensor("edgewright.embedding_scale", np.array(scale, np.float32))


def edit_settings(file: GraphFile, decoder: Decoder, positions: int) -> None:
    """Tells the runtime how long a sequence may be, and how large its heads are in the cache."""
    path = file.folder / "genai_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["model"]["context_length"] = settings["search"]["max_length"] = positions
    settings["model"]["decoder"]["head_size"] = HeadLayout(decoder.head_dim, decoder.rotary_dim).stored_dim
    path.write_text(json.dumps(settings, indent=4), encoding="utf-8")


def _add_tables(
    file: GraphFile, rope: str, table: tuple[NDArray[np.float32], NDArray[np.float32]], layout: HeadLayout
) -> tuple[str, str]:
    """Adds the tables of one set of frequencies. Returns their names."""
    suffix = f".{rope}" if rope else ""
    cos = file.add_tensor(f"edgewright.cos{suffix}", layout.widened(table[0], 1.0))
    return cos, file.add_tensor(f"edgewright.sin{suffix}", layout.widened(table[1], 0.0))


def _set_positions(node: Any, tables: tuple[str, str] | None) -> None:
    for attribute in node.attribute:
        if attribute.name == "do_rotary":
            attribute.i = int(tables is not None)
    for place, name in zip((COS, SIN), tables or ("", ""), strict=True):
        _set_input(node, place, name)


def _set_input(node: Any, place: int, name: str) -> None:
    node.input.extend([""] * (place + 1 - len(node.input)))
    node.input[place] = name


def _window_nodes(file: GraphFile, biases: Mapping[int, str]) -> list[Any]:
    """Nodes that make, for each window, what is added to the scores: (batch, 1, tokens, width), 0 or a large negative.

    Not by GroupQueryAttention's own `local_window_size`: ONNX Runtime 1.23 lets a token see one more than 1.32 does,
    and boards have either. Adding a bias takes no more time.
    """
    from onnx import helper

    zero = file.add_tensor("edgewright.zero", np.array(0, np.int64))
    one = file.add_tensor("edgewright.one", np.array(1, np.int64))
    last = file.add_tensor("edgewright.last_axis", np.array([-1], np.int64))
    heads = file.add_tensor("edgewright.head_axis", np.array([1], np.int64))
    seen = file.add_tensor("edgewright.seen", np.array(0, np.float32))
    unseen = file.add_tensor("edgewright.unseen", np.array(np.finfo(np.float32).min, np.float32))
    at = "/edgewright/window"
    nodes = [
        helper.make_node("Shape", ["input_ids"], [f"{at}/shape"], f"{at}/Shape"),
        helper.make_node("Gather", [f"{at}/shape", one], [f"{at}/tokens"], f"{at}/Gather"),
        helper.make_node("Range", [zero, f"{at}/tokens", one], [f"{at}/new"], f"{at}/Range_new"),
        helper.make_node("Sub", [TOTALS, f"{at}/tokens"], [f"{at}/past"], f"{at}/Sub_past"),
        helper.make_node("Unsqueeze", [f"{at}/past", last], [f"{at}/past_rows"], f"{at}/Unsqueeze_past"),
        helper.make_node("Add", [f"{at}/past_rows", f"{at}/new"], [f"{at}/queries"], f"{at}/Add"),
        helper.make_node("Unsqueeze", [f"{at}/queries", last], [f"{at}/columns"], f"{at}/Unsqueeze_queries"),
        helper.make_node("Range", [zero, WIDTH, one], [f"{at}/keys"], f"{at}/Range_keys"),
        helper.make_node("Sub", [f"{at}/columns", f"{at}/keys"], [f"{at}/distance"], f"{at}/Sub_distance"),
    ]
    for window, name in sorted(biases.items()):
        limit = file.add_tensor(f"edgewright.window_{window}", np.array(window, np.int64))
        nodes += [
            helper.make_node("Less", [f"{at}/distance", limit], [f"{name}/sees"], f"{name}/Less"),
            helper.make_node("Where", [f"{name}/sees", seen, unseen], [f"{name}/bias"], f"{name}/Where"),
            helper.make_node("Unsqueeze", [f"{name}/bias", heads], [name], f"{name}/Unsqueeze"),
        ]
    return nodes


def _laid_out(file: GraphFile, node: Any, decoder: Decoder, layout: HeadLayout) -> list[Any]:
    """Returns the attention of `node` between nodes that widen its heads and take them back."""
    from onnx import helper

    packed = not node.input[KEY]
    heads = {QUERY: decoder.heads + 2 * decoder.kv_heads} if packed else {
        QUERY: decoder.heads, KEY: decoder.kv_heads, VALUE: decoder.kv_heads,
    }  # fmt: skip
    one_zero = file.add_tensor("edgewright.one_zero", np.array([0, 0, 0, 0, 0, 1], np.int64))
    before = []
    for place, count in heads.items():
        narrow, at = node.input[place], f"{node.name}/input_{place}"
        indices = file.add_tensor(f"edgewright.widen_{count}", layout.widening(count))
        before += [
            helper.make_node("Pad", [narrow, one_zero], [f"{at}/padded"], f"{at}/Pad"),
            helper.make_node("Gather", [f"{at}/padded", indices], [f"{at}/wide"], f"{at}/Gather", axis=2),
        ]
        node.input[place] = f"{at}/wide"
    whole = node.output[0]
    node.output[0] = f"{node.name}/wide"
    indices = file.add_tensor(f"edgewright.narrow_{decoder.heads}", layout.narrowing(decoder.heads))
    after = helper.make_node(
        "Gather", [node.output[0], indices], [whole], f"{node.name}/narrow/Gather", axis=2
    )
    return [*before, node, after]
