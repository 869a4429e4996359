#!/usr/bin/env bash
# datasets 5.2.0: load_dataset("json") rewrites texts that look like dates, also where `features` says that they are strings.
#
# JSON has no dates: {"answer": "2024-01-31"} in a JSONL file of questions holds a text. Where every value of a field has
# the form of a date, with or without a time, this loader makes a timestamp[s] of it. An f-string or a chat template then
# writes "2024-01-31 00:00:00": a model that is trained on it learns to answer with a midnight, and exact match against
# the file is 0. Of a time with a zone the zone is gone, and the hour is another. The contents of messages are treated
# alike. Features(answer=Value("string")), which says that it is a text, only turns the timestamp back into a text, the long
# one: features are used after the file has been read (issue 7496 of datasets asks for the other order). One row that is
# no date keeps the whole field as it is, so a file and a part of it give other prompts; Dataset.from_list() of the same
# rows rewrites nothing. No warning. Read the file with json, and take Dataset.from_list().
#
# Seen on CPython 3.11, Linux x86-64. Fails if that changes. Output seen:
#   2024-01-31: loaded 2024-01-31 00:00:00, as a string 2024-01-31 00:00:00, from_list 2024-01-31
#   2024-01-31T10:00:00+02:00: loaded 2024-01-31 08:00:00, as a string 2024-01-31 08:00:00, from_list 2024-01-31T10:00:00+02:00
#   2024-01-31 and a row of "unknown": loaded 2024-01-31, as a string 2024-01-31, from_list 2024-01-31
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-compile datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1
cd "$folder"
HF_HOME=$folder/cache HF_HUB_OFFLINE=1 venv/bin/python - > seen 2> log <<'PY' || { tail -5 "$folder/log" >&2; exit 1; }
import json
from pathlib import Path

from datasets import Dataset, Features, Value, load_dataset

STRING = Features(answer=Value("string"))


def first_answers(answers):
    rows = [{"answer": answer} for answer in answers]
    file = Path("rows.jsonl")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = load_dataset("json", data_files=str(file), split="train")
    as_string = load_dataset("json", data_files=str(file), split="train", features=STRING)
    assert as_string.features == STRING
    ways = {"loaded": loaded, "as a string": as_string, "from_list": Dataset.from_list(rows)}
    return ", ".join(f"{way} {dataset[0]['answer']}" for way, dataset in ways.items())


for date in "2024-01-31", "2024-01-31T10:00:00+02:00":
    print(f"{date}: {first_answers([date, date])}")
print(f'2024-01-31 and a row of "unknown": {first_answers(["2024-01-31", "unknown"])}')
PY
cat seen
cat > expected <<'TEXT'
2024-01-31: loaded 2024-01-31 00:00:00, as a string 2024-01-31 00:00:00, from_list 2024-01-31
2024-01-31T10:00:00+02:00: loaded 2024-01-31 08:00:00, as a string 2024-01-31 08:00:00, from_list 2024-01-31T10:00:00+02:00
2024-01-31 and a row of "unknown": loaded 2024-01-31, as a string 2024-01-31, from_list 2024-01-31
TEXT
cmp -s seen expected || { echo "changed: the lines above are not those seen" >&2; exit 1; }
