"""Turns question-answer pairs into token sequences, and says which of them make a step."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edgewright.errors import InputError

MARK = "~the answer~"  # stands for an answer where only what surrounds it is wanted


@dataclass(frozen=True)
class Sample:
    """One sequence in the model's chat template. Positions [first, len − 1) predict a counted token."""

    tokens: tuple[int, ...]
    first: int  # first position whose next token counts

    @property
    def counted_tokens(self) -> int:
        """How many next tokens count in the loss."""
        return len(self.tokens) - 1 - self.first


def make_sample(
    tokenizer: Any, pair: dict[str, Any], loss_on: Literal["response", "sequence"], sequence_tokens: int
) -> Sample | None:
    """Returns a pair in the chat template, cut to `sequence_tokens`; None if nothing is left to learn from.

    Of a dialogue only the last answer counts. Raises InputError as `chat_texts` does.
    """
    prompt, text = chat_texts(tokenizer, pair)
    tokens = tokenizer(text, add_special_tokens=False).input_ids[:sequence_tokens]
    first = len(tokenizer(prompt, add_special_tokens=False).input_ids) - 1 if loss_on == "response" else 0
    sample = Sample(tuple(tokens), first)
    return sample if sample.counted_tokens > 0 else None


def chat_texts(tokenizer: Any, pair: dict[str, Any]) -> tuple[str, str]:
    """Returns the prompt alone, and prompt with answer, as the model's chat template writes them.

    A tokenizer without a template gets Alpaca's (Taori et al. 2023). Raises InputError where the template refuses the
    dialogue or leaves a part of it out.
    """
    dialogue = _dialogue(pair)
    answer = {"role": "assistant", "content": pair["output"]}
    if tokenizer.chat_template is None:
        prompt = _alpaca_prompt(dialogue)
        return prompt, prompt + pair["output"] + (tokenizer.eos_token or "")
    prompt = _rendered(tokenizer, dialogue, add_generation_prompt=True)
    if len(dialogue) > 1:
        _require_whole(prompt, dialogue)
    text = _rendered(tokenizer, [*dialogue, answer])
    if text.startswith(prompt):
        return prompt, text
    return prompt, prompt + pair["output"] + _after_an_answer(tokenizer, dialogue)


def _after_an_answer(tokenizer: Any, dialogue: list[dict[str, str]]) -> str:
    """Returns what the chat template writes behind the last answer.

    Some templates ask for an answer otherwise than they write one: DeepSeek-R1's asks with `<think>`. What is learned
    then follows what is asked, as it will be on the board.
    """
    text = _rendered(tokenizer, [*dialogue, {"role": "assistant", "content": MARK}])
    _, mark, after = text.rpartition(MARK)
    if not mark:
        raise InputError(
            "The model's chat template leaves the assistant's answer out, so it can't be learned; take another model."
        )
    return after


def _dialogue(pair: dict[str, Any]) -> list[dict[str, str]]:
    """Returns the messages before the answer."""
    messages = [{"role": "system", "content": pair["system"]}] if pair.get("system") else []
    for question, answer in pair.get("history", ()):
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    question = "\n".join(part for part in (pair["instruction"], pair.get("input", "")) if part)
    return [*messages, {"role": "user", "content": question}]


def _rendered(tokenizer: Any, messages: list[dict[str, str]], *, add_generation_prompt: bool = False) -> str:
    try:
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except Exception as error:  # noqa: BLE001 - whatever the template's own sums and calls raise
        roles = ", ".join(message["role"] for message in messages)
        raise InputError(
            f"The model's chat template can't write a dialogue of {roles} ({' '.join(str(error).split())}); remove "
            "these turns from the data or take another model."
        ) from None
    return str(text)


def _require_whole(prompt: str, dialogue: list[dict[str, str]]) -> None:
    for message in dialogue:
        text = message["content"].strip()
        if (
            text not in prompt and "</think>" not in text
        ):  # of earlier thoughts templates leave out on purpose
            raise InputError(
                f"The model's chat template leaves the {message['role']}'s {text[:80]!r} out, so it can't be learned; "
                "remove it from the data or take another model."
            )


def _alpaca_prompt(dialogue: list[dict[str, str]]) -> str:
    written = {
        "system": "{}\n\n",
        "user": "### Instruction:\n{}\n\n### Response:\n",
        "assistant": "{}\n\n",
    }
    return "".join(written[message["role"]].format(message["content"]) for message in dialogue)


def split(samples: Sequence[Sample], validation_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Returns the indices of the training and the validation samples, the same for the same seed.

    Of two samples or more neither is empty, whatever the fraction.
    """
    order = list(range(len(samples)))
    random.Random(seed).shuffle(order)  # noqa: S311 - not for secrets
    validation = min(max(1, round(validation_fraction * len(order))), len(order) - 1)
    return sorted(order[validation:]), sorted(order[:validation])


def make_batches(
    samples: Sequence[Sample], indices: Sequence[int], batch_tokens: int, seed: int | None
) -> list[list[int]]:
    """Groups samples of similar length so that samples × longest ≤ `batch_tokens`; shuffles the groups by `seed`.

    A sample longer than `batch_tokens` gets a batch of its own.
    """
    by_length = sorted(indices, key=lambda index: (len(samples[index].tokens), index))
    batches: list[list[int]] = []
    for index in by_length:
        longest = len(samples[index].tokens)  # sorted, so this one is
        if batches and (len(batches[-1]) + 1) * longest <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    if seed is not None:
        random.Random(seed).shuffle(batches)  # noqa: S311 - not for secrets
    return batches
