"""TRL's `GKDTrainer` over batches that are given: the peer of `distillation_speed.py`, run by a Python that has trl.

    python benchmarks/gkd_peer.py WORK.json

It imports nothing of Edgewright. WORK.json is a `Work` of `distillation_speed.py`. Prints one JSON object: the
seconds of each step, the loss of the first, and the peak of the process's memory.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

IGNORED = -100  # a label that does not count


def main() -> None:
    """Trains one epoch over the batches and prints what it took."""
    import torch

    work = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(work["threads"])
    torch.manual_seed(0)
    trainer, times = make_trainer(work)
    result = trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(json.dumps(report(times, losses[0])))
    assert result.global_step == len(work["batches"])


def now() -> tuple[float, float]:
    """Returns the time on the clock and of this process's processors."""
    return time.perf_counter(), time.process_time()


def report(times: list[tuple[float, float]], first_loss: float) -> dict[str, Any]:
    """Returns what a process prints: `times` are those of its begin and after each step."""
    steps = [(wall - earlier, processor - before) for (earlier, before), (wall, processor) in pairwise(times)]
    return {
        "seconds": [wall for wall, _ in steps],
        "processor_seconds": [processor for _, processor in steps],
        "first_loss": first_loss,
        "peak_bytes": peak_bytes(),
    }


def make_trainer(work: dict[str, Any]) -> tuple[Any, list[tuple[float, float]]]:
    """Returns the trainer, and a list to which it adds the time at its begin and after each step."""
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import AutoTokenizer
    from trl.experimental.gkd import GKDTrainer

    class InOrder(GKDTrainer):  # type: ignore[misc]
        """Takes the batches in the order in which they are given."""

        def _get_train_sampler(self, *_: Any) -> Any:
            return SequentialSampler(self.train_dataset)

    tokenizer = AutoTokenizer.from_pretrained(work["student"])
    student, teacher = models_of(work)
    times, clock = make_clock()
    trainer = InOrder(
        model=student, teacher_model=teacher, args=trainer_settings(work), processing_class=tokenizer,
        peft_config=lora_of(work), train_dataset=Dataset.from_list([{"samples": batch} for batch in work["batches"]]),
        data_collator=lambda rows: collate(rows[0]["samples"], tokenizer.pad_token_id or 0), callbacks=[clock],
    )  # fmt: skip
    return trainer, times


def models_of(work: dict[str, Any]) -> tuple[Any, Any]:
    """Returns student and teacher in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    student, teacher = (
        AutoModelForCausalLM.from_pretrained(work[name], dtype=torch.float32)
        for name in ("student", "teacher")
    )
    return student, teacher


def lora_of(work: dict[str, Any]) -> Any:
    """Returns PEFT's settings of the LoRA."""
    from peft import LoraConfig

    return LoraConfig(
        r=work["lora_rank"], lora_alpha=work["lora_scale"] * work["lora_rank"], lora_dropout=0.0,
        target_modules=work["modules"], task_type="CAUSAL_LM",
    )  # fmt: skip


def make_clock() -> tuple[list[tuple[float, float]], Any]:
    """Returns a list, and the trainer's callback that adds the time to it at its begin and after each step."""
    from transformers import TrainerCallback

    times: list[tuple[float, float]] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Notes when steps begin and end."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            times.append(now())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(now())

    return times, Clock()


def trainer_settings(work: dict[str, Any]) -> Any:
    """Returns TRL's settings for what a step of Edgewright does: forward KL over the whole vocabulary, alone."""
    from trl.experimental.gkd import GKDConfig

    return GKDConfig(
        output_dir=work["scratch"], lmbda=0.0, beta=0.0, seq_kd=False, temperature=1.0, max_length=None,
        per_device_train_batch_size=1, gradient_accumulation_steps=1, num_train_epochs=1, max_grad_norm=1.0,
        learning_rate=work["learning_rate"], weight_decay=0.0, warmup_steps=1, lr_scheduler_type="cosine",
        gradient_checkpointing=work["checkpointing"], bf16=False, use_cpu=True, report_to=[], logging_steps=1,
        save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip


def collate(samples: list[dict[str, Any]], pad_token: int) -> dict[str, Any]:
    """Returns one batch, padded at the right, as TRL's own collator lays it out."""
    import torch

    longest = max(len(sample["tokens"]) for sample in samples)
    ids = torch.full((len(samples), longest), pad_token)
    labels = torch.full((len(samples), longest), IGNORED)
    mask = torch.zeros((len(samples), longest), dtype=torch.long)
    for row, sample in enumerate(samples):
        tokens = torch.tensor(sample["tokens"])
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        labels[row, sample["first"] + 1 : len(tokens)] = tokens[sample["first"] + 1 :]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def peak_bytes() -> int:
    """Returns the high-water mark of this process's resident memory."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


if __name__ == "__main__":
    main()
