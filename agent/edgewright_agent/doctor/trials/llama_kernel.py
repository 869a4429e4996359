"""Loads the llama.cpp of the package xllamacpp, makes a grammar with it, and names the processor's features."""

from __future__ import annotations

import sys


def main() -> None:
    """Prints what the library computes with; exits 1 with a sentence if it is broken."""
    import xllamacpp

    grammar = xllamacpp.json_schema_to_grammar('{"type": "boolean"}')
    if not grammar:
        sys.exit("the grammar of a JSON schema is empty")
    features = [part.split(" = ")[0].strip(" :") for part in xllamacpp.get_system_info().split("|")]
    sys.stdout.write(f"xllamacpp {xllamacpp.__version__}, {', '.join(filter(None, features))}\n")


if __name__ == "__main__":
    main()
