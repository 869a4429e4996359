"""How accurate the bytes that serve are, alone or beside what their build measured on the host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.errors import InputError
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.python_api.arguments import as_path
from edgewright_builder.python_api.results.evaluation import Evaluation, HostComparison, TaskEvaluation
from edgewright_builder.python_api.results.progress import OnProgress, ProgressEmitter

if TYPE_CHECKING:
    from edgewright_builder.device_client.board_scorer import RemoteScorer
    from edgewright_builder.python_api.built_tasks import BuiltTask
    from edgewright_builder.tasks.loading import Task


async def evaluate_board(
    client: DeviceClient,
    tasks: str | Iterable[str | Path] | None,
    benchmarks: str | Path | None,
    limit: int | None,
    compare: str | Path | None,
    on_progress: OnProgress | None,
) -> Evaluation:
    """Scores each task on the board; asks first whether it scores at all, before rows are fetched."""
    from edgewright_builder.device_client.board_scorer import RemoteScorer, require_scores

    await require_scores(client)
    served = (await client.get_device()).active_release.hex()
    loaded, before = await asyncio.to_thread(_load_tasks, tasks, benchmarks, limit, compare)
    loop = asyncio.get_running_loop()
    scorer = RemoteScorer(client, loop)
    results = []
    for task in loaded:
        emitter = ProgressEmitter(task.name, on_progress)

        def step(done: int, total: int, text: str = "", emitter: ProgressEmitter = emitter) -> None:
            loop.call_soon_threadsafe(emitter.step, done, total, text)

        results.append(await asyncio.to_thread(_evaluate_task, scorer, task, before.get(task.name), step))
    return Evaluation(tuple(results), served)


def _load_tasks(
    tasks: str | Iterable[str | Path] | None,
    benchmarks: str | Path | None,
    limit: int | None,
    compare: str | Path | None,
) -> tuple[list[Task], dict[str, BuiltTask]]:
    """Returns the tasks to ask, and by name those of the build to compare with."""
    from edgewright_builder.python_api.built_tasks import built_tasks
    from edgewright_builder.tasks.loading import load_task, require_distinct

    if compare is not None:
        if (tasks, benchmarks, limit) != (None, None, None):
            raise InputError(
                "A comparison asks what the build was asked: leave `tasks`, `benchmarks` and `limit` out."
            )
        built = built_tasks(as_path(compare, "the run"))
        return [each.task for each in built], {each.task.name: each for each in built}
    given = "arc_easy" if tasks is None else tasks
    names = [str(task).strip() for task in (given.split(",") if isinstance(given, str) else given)]
    require_distinct(names)
    folder = None if benchmarks is None else as_path(benchmarks, "benchmarks")
    return [load_task(name, folder, limit) for name in names], {}


def _evaluate_task(
    scorer: RemoteScorer, task: Task, before: BuiltTask | None, step: Callable[..., None]
) -> TaskEvaluation:
    from edgewright_builder.tasks.results import run_task

    result = run_task(scorer, task, on_progress=step)
    accuracy = result.accuracy()
    return TaskEvaluation(
        result.task,
        "served",
        result.metric,
        accuracy.value,
        accuracy.standard_error,
        accuracy.rows,
        tuple(result.correct()),
        _compared(before, result.correct()),
    )


def _compared(before: BuiltTask | None, right: Sequence[bool]) -> HostComparison | None:
    from edgewright_builder.tasks.accuracy import accuracy, paired_difference

    if before is None:
        return None
    difference, error = paired_difference(before.right, right)
    return HostComparison(before.model, accuracy(before.right).value, difference, error)
