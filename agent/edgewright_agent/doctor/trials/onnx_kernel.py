"""Runs a 4-bit matrix product, as an exported model's layers are, in ONNX Runtime, and checks the result.

The model below is one MatMulNBits node (com.microsoft, K 32, N 4, block 32, accuracy level 4) whose codes
are all 9 and scales 0.5, so 32 ones times a column are 32 · (9 - 8) · 0.5 = 16.
"""

from __future__ import annotations

import base64
import sys

MODEL = base64.b64decode(
    "CAg6jAIKcwoBeAoBQgoBcxIBeSILTWF0TXVsTkJpdHMqCAoBSxggoAECKggKAU4YBKABAioVCg5hY2N1cmFjeV9sZXZlbBgEoAEC"
    "KgsKBGJpdHMYBKABAioRCgpibG9ja19zaXplGCCgAQI6DWNvbS5taWNyb3NvZnQSAWcqTQgECAEIEBACQgFCSkCZmZmZmZmZmZmZ"
    "mZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZKhkIBBABQgFzShAAAAA/AAAAPwAA"
    "AD8AAAA/WhMKAXgSDgoMCAESCAoCCAEKAgggYhMKAXkSDgoMCAESCAoCCAEKAggEQgQKABARQhEKDWNvbS5taWNyb3NvZnQQAQ=="
)


def main() -> None:
    """Prints what ran; exits 1 with a sentence if it did not."""
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.ones((1, 32), np.float32)})
    if not np.allclose(found, 16.0, rtol=0.02):
        sys.exit(f"32 ones times a column of halves should be 16, and are {found.ravel().tolist()}")
    sys.stdout.write(f"onnxruntime {onnxruntime.__version__}, 4-bit product\n")


if __name__ == "__main__":
    main()
