"""TRL's `GOLDTrainer` over batches that are given: the peer of `teacher_steps.py`, run by a Python that has trl.

    python benchmarks/gold_peer.py WORK.json

It imports nothing of Edgewright. WORK.json is what `teacher_steps.py` writes for it: the paths of student and teacher,
the LoRA, and the texts of each batch. The teacher's tokens are compared by ULD. TRL aligns them by bytes where both
tokenizers are byte-level; else it pairs them by their place, as the paper of ULD does. Prints one JSON object as
`gkd_peer.py` does, and how many tokens of the student counted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from gkd_peer import IGNORED, lora_of, make_clock, models_of, report


def main() -> None:
    """Trains one epoch over the batches and prints what it took."""
    import torch

    work = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(work["threads"])
    torch.manual_seed(0)
    trainer, times, counted = make_trainer(work)
    result = trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(json.dumps({**report(times, losses[0]), "tokens": sum(counted)}))
    assert result.global_step == len(work["batches"])


def make_trainer(work: dict[str, Any]) -> tuple[Any, list[tuple[float, float]], list[int]]:
    """Returns the trainer, and two lists that it fills: the time at its begin and after each step, counted tokens."""
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import AutoTokenizer
    from trl.experimental.gold import GOLDTrainer

    class InOrder(GOLDTrainer):  # type: ignore[misc]
        """Takes the batches as they are given, in their order."""

        def _get_train_sampler(self, *_: Any) -> Any:
            return SequentialSampler(self.train_dataset)

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    counted: list[int] = []

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = collated(rows[0]["samples"], tokenizer)
        counted.append(int((batch["labels"] != IGNORED).sum()))
        return batch

    tokenizer = AutoTokenizer.from_pretrained(work["student"])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    student, teacher = models_of(work)
    times, clock = make_clock()
    trainer = InOrder(
        model=student, teacher_model=teacher, args=trainer_settings(work), processing_class=tokenizer,
        peft_config=lora_of(work), train_dataset=Dataset.from_list([{"samples": batch} for batch in work["batches"]]),
        data_collator=collate, callbacks=[clock],
    )  # fmt: skip
    return trainer, times, counted


def trainer_settings(work: dict[str, Any]) -> Any:
    """Returns TRL's settings for a step that learns from the teacher alone."""
    from trl.experimental.gold import GOLDConfig

    return GOLDConfig(
        output_dir=work["scratch"], lmbda=0.0, seq_kd=False, use_uld_loss=True, use_extended_uld=work["by_bytes"],
        teacher_tokenizer_name_or_path=work["teacher"], max_length=None, per_device_train_batch_size=1,
        gradient_accumulation_steps=1, num_train_epochs=1, max_grad_norm=1.0, learning_rate=work["learning_rate"],
        weight_decay=0.0, warmup_steps=1, lr_scheduler_type="cosine", gradient_checkpointing=False, bf16=False,
        use_cpu=True, report_to=[], logging_steps=1, save_strategy="no", disable_tqdm=True,
        dataloader_pin_memory=False, remove_unused_columns=False,
    )  # fmt: skip


def collated(samples: list[dict[str, str]], tokenizer: Any) -> dict[str, Any]:
    """Returns one batch from prompts and answers, as TRL's own collator lays it out."""
    from trl.experimental.utils import DataCollatorForChatML, encode_with_byte_offsets

    answers = encode_with_byte_offsets(
        tokenizer.backend_tokenizer, [sample["answer"] for sample in samples], add_special_tokens=False
    )
    examples = []
    for sample, (tokens, offsets) in zip(samples, answers, strict=True):
        prompt = tokenizer(sample["prompt"], add_special_tokens=False)["input_ids"]
        examples.append(
            {
                "input_ids": prompt + tokens,
                "completion_mask": [0] * len(prompt) + [1] * len(tokens),
                "byte_offsets": [(0, 0)] * len(prompt) + offsets,
                "original_prompt_text": sample["prompt"],
                "original_completion_text": sample["answer"],
            }
        )
    return dict(DataCollatorForChatML(tokenizer=tokenizer)(examples))


if __name__ == "__main__":
    main()
