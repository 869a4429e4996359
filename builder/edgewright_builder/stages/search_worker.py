"""One worker of a search: `python -m edgewright_builder.stages.search_worker JOB.json`.

It takes trials from the search's storage until none is left.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

from rich.console import Console

from edgewright.errors import EdgewrightError
from edgewright_builder.recipe.model_recipe import Recipe
from edgewright_builder.run.distillation_inputs import Distillation
from edgewright_builder.run.progress import Reporter
from edgewright_builder.run.resumable_run import Run, finished_stage
from edgewright_builder.run.work_queue import opened_queue
from edgewright_builder.stages.shared_search import SearchJob, take_trials
from edgewright_builder.stages.teacher import training_of


def main(path: Path) -> int:
    """Runs a worker; it prints a line for each trial."""
    job = SearchJob(**json.loads(path.read_text(encoding="utf-8")))
    console = Console(highlight=False, soft_wrap=True)
    try:
        recipe = Recipe.model_validate(job.recipe)
        run = Run(Path(job.run), Reporter(Console(file=io.StringIO())))
        distillation = Distillation(recipe, run, recipe.student.model, recipe.teachers.knowledge.model)
        training = training_of(
            distillation, finished_stage(Path(job.data)), finished_stage(Path(job.teacher))
        )
        with opened_queue(job.storage, job.name) as queue:
            take_trials(
                queue,
                Path(job.student),
                training,
                recipe,
                job.group_sizes,
                lambda line: console.print(f"  {line}"),
            )
    except EdgewrightError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"edgewright: {error}", markup=False)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    from edgewright_builder.run.library_output import quiet_libraries

    quiet_libraries()
    sys.exit(main(Path(sys.argv[1])))
