#!/usr/bin/env bash
# tokenizers 0.23.3: Tokenizer.encode() keeps Python's global interpreter lock for as long as it runs;
# Tokenizer.encode_batch_fast([text]) gives the same tokens and releases it.
#
# A server that tokenizes in a thread in order not to stop its event loop gains nothing with encode().
# Seen on CPython 3.11, Linux x86-64: while 0.9 MB are encoded, another thread that sleeps 1 ms at a time is
# stopped for about as long as encode() takes (0.3 to 1 s), and for a few milliseconds with encode_batch_fast().
# Fails if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check tokenizers==0.23.3
TOKENIZERS_PARALLELISM=false "$folder/venv/bin/python" - <<'PY'
import threading
import time

from tokenizers import Tokenizer, models, pre_tokenizers

words = sorted(pre_tokenizers.ByteLevel.alphabet())
tokenizer = Tokenizer(models.BPE(vocab={word: index for index, word in enumerate(words)}, merges=[]))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
text = "The board reads its sensors once a second. " * 20_000


def stopped_share(encode):
    """The longest stop of another thread, as a share of the time that encoding takes; and the tokens."""
    longest, ended = 0.0, False

    def watch():
        nonlocal longest
        last = time.perf_counter()
        while not ended:
            time.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    thread = threading.Thread(target=watch)
    thread.start()
    time.sleep(0.05)
    began = time.perf_counter()
    tokens = encode(text)
    seconds = time.perf_counter() - began
    ended = True
    thread.join()
    return longest / seconds, tokens


one, tokens = min((stopped_share(lambda t: tokenizer.encode(t).ids) for _ in range(3)), key=lambda pair: pair[0])
batch, same = min((stopped_share(lambda t: tokenizer.encode_batch_fast([t])[0].ids) for _ in range(3)), key=lambda pair: pair[0])
print(f"another thread was stopped for {one:.0%} of encode() and {batch:.0%} of encode_batch_fast()")
assert tokens == same
assert one > 0.8, "encode() releases the lock now"
assert batch < 0.5, "encode_batch_fast() keeps the lock now"
PY
