#!/usr/bin/env bash
# PyYAML 6.0.4: which of two merged mappings counts depends on whether the key has one letter.
#
# YAML's merge key says that of `<<: [*one, *two]` the mapping named first counts (https://yaml.org/type/merge.html),
# and that a mapping's own keys count before merged ones. PyYAML 6.0.4 tells merged keys apart by the identity of their
# strings. CPython keeps one object for each text of one letter, and a new one for each longer text that a parser makes.
# So a key of one letter keeps the first mapping's value, also where the mapping that is merged overrides it; a longer
# key gets the last mapping's value. SafeLoader and CSafeLoader do the same.
#
# Seen on CPython 3.11, Linux x86-64. Output seen:
#   several, k: 1    several, key: 2    (the first mapping says 1)
#   overridden, k: 1    overridden, key: 2    (the merged mapping overrides 1 with 2)
# Fails if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check PyYAML==6.0.4
"$folder/venv/bin/python" - <<'PY'
import yaml

TEXT = """
one: &one {KEY: 1}
two: &two {KEY: 2}
override: &override {<<: *one, KEY: 2}
several: {<<: [*one, *two]}
overridden: {<<: *override}
"""
for name, first, second in (("several", "1", "2"), ("overridden", "1", "2")):
    values = {key: yaml.safe_load(TEXT.replace("KEY", key))[name][key] for key in ("k", "key")}
    print("    ".join(f"{name}, {key}: {value}" for key, value in values.items()))
    assert values == {"k": int(first), "key": int(second)}, "merging changed"
PY
