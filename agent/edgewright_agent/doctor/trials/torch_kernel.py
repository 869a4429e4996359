"""Runs a matrix product in torch, on the GPU if torch claims one, and checks the result."""

from __future__ import annotations

import sys


def main() -> None:
    """Prints what ran; exits 1 with a sentence if it did not."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = (torch.ones(64, 64, device=device) @ torch.full((64, 64), 0.5, device=device)).sum().item()
    if found != 64 * 64 * 32.0:
        sys.exit(f"64 ones times a column of halves, 4096 times, should be 131072 in sum, and is {found}")
    where = (
        "the CPU"
        if device == "cpu"
        else f"{torch.cuda.get_device_name()} {torch.cuda.get_device_capability()}"
    )
    sys.stdout.write(f"torch {torch.__version__} on {where}\n")


if __name__ == "__main__":
    main()
