#!/usr/bin/env bash
# tokenizers 0.23.3: one broken byte turns the good byte tokens before it into U+FFFD too, and then DecodeStream raises.
#
# Vocabularies of SentencePiece's kind (Llama 2, TinyLlama, Mistral, Phi-3) spell what they lack as bytes, <0x00> to <0xFF>,
# and the newline is <0x0A>. The decoder ByteFallback reads a run of byte tokens as one piece of UTF-8: where the piece is
# broken, each of its bytes becomes U+FFFD, the newline as well. Python's bytes.decode(errors="replace") keeps it. A
# model of few bits does write a stray byte now and then, and any answer may be cut inside a character.
# A stream has shown the newline by then. DecodeStream sees its text change, and step() raises "Invalid prefix
# encountered while decoding stream", at this token and at all that follow: the rest of the answer is lost to a server
# that doesn't catch it and start another stream. A byte-level vocabulary (GPT-2's kind) has neither.
#
# Seen on CPython 3.11, Linux x86-64, for the tokens newline, the first byte of a character of two, "a", "b". Fails if
# that changes. Output seen:
#   byte fallback: decode() gives '\ufffd\ufffdab', the stream '\n', then raises 2 times
#   byte level: decode() gives '\n\ufffdab', the stream '\n\ufffdab'
#   Python: '\n\ufffdab'
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check tokenizers==0.23.3
"$folder/venv/bin/python" - <<'PY'
from tokenizers import Tokenizer, decoders, models
from tokenizers.decoders import DecodeStream

TEXT = b"\n\xc3ab"  # 0xC3 is the first byte of é, and its second doesn't come
words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "a", "b"]
fallback = Tokenizer(models.BPE(
    vocab={word: place for place, word in enumerate(words)}, merges=[], byte_fallback=True, unk_token="<unk>"))
fallback.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
letters = {10: "\u010a", 0xC3: "\u00c3", 97: "a", 98: "b"}  # GPT-2's letters for these bytes
level = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters.values())}, merges=[]))
level.decoder = decoders.ByteLevel()


def texts(title, tokenizer, tokens):
    """The text of all tokens, the text of the stream, and how many of its steps raised."""
    tokens = [tokenizer.token_to_id(token) for token in tokens]
    whole, stream, streamed, raised = tokenizer.decode(tokens), DecodeStream(), "", 0
    for token in tokens:
        try:
            streamed += stream.step(tokenizer, token) or ""
        except Exception as error:
            assert "Invalid prefix" in str(error), error
            raised += 1
    ending = f", then raises {raised} times" if raised else ""
    print(f"{title}: decode() gives {ascii(whole)}, the stream {ascii(streamed)}{ending}")
    return whole, streamed, raised


bad = texts("byte fallback", fallback, ["<0x0A>", "<0xC3>", "a", "b"])
good = texts("byte level", level, letters.values())
python = TEXT.decode(errors="replace")
print(f"Python: {ascii(python)}")
assert good == (python, python, 0)
assert bad[0] != python, "the newline is kept now"
assert bad == ("\ufffd\ufffdab", "\n", 2), "the stream goes on now"
PY
