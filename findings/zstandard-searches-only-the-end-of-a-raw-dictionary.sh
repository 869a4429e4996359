#!/usr/bin/env bash
# zstandard 0.25.0 (zstd 1.5.7): of a large raw dictionary only the last MiB is searched at level 3, also with enable_ldm.
#
# A delta between two versions of a file is zstd with the old file as a raw dictionary; `zstd --patch-from` works so.
# zstandard takes such a dictionary of any size (ZstdCompressionDict, DICT_TYPE_RAWCONTENT), a window that spans both
# files, and enable_ldm for matches at long distance. But it loads the dictionary as zstd's "dictionary", not as its
# "prefix": the matcher keeps the last 8 * 2^max(hash_log, chain_log) bytes, and long-distance matching does not see it.
# The delta decodes well and is nearly as large as the file. `as_prefix` of backports.zstd (Python 3.14's
# compression.zstd) is the prefix. zstandard has no call for it; hash_log and chain_log near the size of the dictionary,
# or a level near 19, help at many times the cost.
#
# Seen on CPython 3.11, Linux x86-64, for 16 MiB of random bytes against themselves. Fails if that changes. Output seen:
#   zstandard, dictionary:       93.76% of the file, with long-distance matching 93.76%
#   backports.zstd, dictionary:  93.76% of the file, with long-distance matching 93.76%
#   backports.zstd, prefix:      93.76% of the file, with long-distance matching 0.15%
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check zstandard==0.25.0 backports.zstd==1.8.0
"$folder/venv/bin/python" - <<'PY'
import random

import zstandard
from backports import zstd
from backports.zstd import CompressionParameter as Parameter

LEVEL, WINDOW_LOG = 3, 26
old = random.Random(0).randbytes(16 << 20)
new = old


def with_zstandard(long_distance):
    dictionary = zstandard.ZstdCompressionDict(old, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    parameters = zstandard.ZstdCompressionParameters.from_level(LEVEL, window_log=WINDOW_LOG, enable_ldm=long_distance)
    delta = zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters).compress(new)
    assert zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=1 << WINDOW_LOG).decompress(delta) == new
    return len(delta) / len(new)


def with_backport(dictionary, long_distance):
    options = {Parameter.compression_level: LEVEL, Parameter.window_log: WINDOW_LOG}
    options[Parameter.enable_long_distance_matching] = int(long_distance)
    return len(zstd.compress(new, options=options, zstd_dict=dictionary)) / len(new)


raw = zstd.ZstdDict(old, is_raw=True)
shares = {
    "zstandard, dictionary": [with_zstandard(on) for on in (False, True)],
    "backports.zstd, dictionary": [with_backport(raw.as_undigested_dict, on) for on in (False, True)],
    "backports.zstd, prefix": [with_backport(raw.as_prefix, on) for on in (False, True)],
}
for name, (without, with_matching) in shares.items():
    print(f"{name + ':':28} {without:.2%} of the file, with long-distance matching {with_matching:.2%}")
assert min(shares["zstandard, dictionary"]) > 0.9, "zstandard searches more of a raw dictionary now"
assert shares["backports.zstd, prefix"][1] < 0.01
PY
