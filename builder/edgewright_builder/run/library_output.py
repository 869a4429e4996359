"""What libraries print on their own, kept out of the progress that is shown."""

from __future__ import annotations

import logging
import os
import warnings


def quiet_libraries() -> None:
    """Keeps the bars and notices of libraries out of the progress that is shown."""
    os.environ.setdefault("TORCHAO_FORCE_SKIP_LOADING_SO_FILES", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for message in (".*is experimental", ".*an experimental feature", ".*is_gradient_checkpointing"):
        warnings.filterwarnings("ignore", message=message)
    for name in ("torch.utils._pytree", "torchao"):  # warn of each other's registrations
        # A filter, as torch sets the levels of its loggers anew when it is imported.
        logging.getLogger(name).addFilter(lambda record: record.levelno >= logging.ERROR)
