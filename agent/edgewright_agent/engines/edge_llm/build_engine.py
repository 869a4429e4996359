"""Builds the engine of a checkpoint into a cache that the wheel's server finds it in.

A script of its own, which imports nothing of Edgewright and runs in the wheel's interpreter. It calls what the server
calls at its start: `tensorrt-edgellm-build --components all`, under the name that the server looks for.
"""

from __future__ import annotations

import argparse
import logging

from experimental.server.runtime.engine_build import BuildOptions, prepare_model  # type: ignore[import-not-found]


def main() -> None:
    """Exits with 0 once the engine is complete."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("model")
    parser.add_argument("--cache-dir", required=True)
    for flag in ("--max-input-len", "--max-kv-cache-capacity", "--max-batch-size"):
        parser.add_argument(flag, type=int, required=True)
    options = vars(parser.parse_args())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    model, cache = options.pop("model"), options.pop("cache_dir")
    prepare_model(model, cache, BuildOptions(**options))


if __name__ == "__main__":
    main()
