"""A board, asked and changed by ordinary calls."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from edgewright_builder.artifact.artifact import Artifact
from edgewright_builder.device_client.retries import OnWait, hear_nothing
from edgewright_builder.device_client.verdict import DeploymentVerdict
from edgewright_builder.push.push import PushResult
from edgewright_builder.python_api.async_board import AsyncBoard
from edgewright_builder.python_api.loop import SHARED
from edgewright_builder.python_api.results.board import BoardReleases, BoardStatus
from edgewright_builder.python_api.results.generation import ChatTurn, Generation
from edgewright_builder.python_api.results.progress import OnProgress
from edgewright_builder.python_api.results.storage import DeletedRelease, GarbageCollection, ScrubResult
from edgewright_builder.python_api.results.telemetry import RecordedTelemetry, TelemetrySnapshot

if TYPE_CHECKING:
    from edgewright_builder.device_client.profile_draft import ProfileDraft
    from edgewright_builder.python_api.results.bench import BenchReport
    from edgewright_builder.python_api.results.calibration import BoardCalibrated
    from edgewright_builder.python_api.results.evaluation import Evaluation
    from edgewright_builder.python_api.run_folder import RunFolder

T = TypeVar("T")


class Board:
    """A board behind its address, `HOST:PORT`. A context manager; without `with`, call `close` in the end.

    `credentials` is the folder of `edgewright keys create`; without it the one that EDGEWRIGHT_CREDENTIALS names.
    `insecure` is for an agent on this machine that was started without TLS. `on_wait` hears why a call waits for the
    board. Nothing is sent before the first call. Calls may come from any thread, and where an event loop runs already.

    Every call raises the errors of `edgewright.errors`: InputError for what can't be asked so, RefusedError for a
    board's "no", LinkError where the board can't be reached.
    """

    def __init__(
        self,
        address: str,
        *,
        credentials: str | Path | None = None,
        insecure: bool = False,
        on_wait: OnWait = hear_nothing,
    ) -> None:
        self._board = AsyncBoard(address, credentials=credentials, insecure=insecure, on_wait=on_wait)

    @property
    def address(self) -> str:
        """Where the board's agent listens."""
        return self._board.address

    @property
    def credentials(self) -> Path | None:
        """The credentials folder; None where none was given."""
        return self._board.credentials

    def __repr__(self) -> str:
        return repr(self._board).removeprefix("Async")

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the calls under way and closes the connection. Closing twice is no error."""
        SHARED.run(self._board.close())

    def status(self) -> BoardStatus:
        """Returns what the board is, has, can run and is doing, with its releases."""
        return SHARED.run(self._board.status())

    def releases(self) -> BoardReleases:
        """Returns every release on the board."""
        return SHARED.run(self._board.releases())

    def delete(self, digest: str) -> DeletedRelease:
        """Deletes the one release whose digest begins so, and returns the bytes that became free.

        Raises InputError if none or several do, RefusedError for one that is in use.
        """
        return SHARED.run(self._board.delete(digest))

    def push(
        self,
        artifact: str | Path | Artifact | RunFolder,
        *,
        activate: bool = True,
        force: bool = False,
        probation_seconds: float = 0.0,
        delta: bool = True,
        delta_from: Iterable[str | Path] = (),
        on_progress: OnProgress | None = None,
    ) -> PushResult:
        """Sends an artifact, has it activated and proved, and waits until it answers.

        What the board has already is not sent again, and a link that breaks is waited for. Without `activate` the
        release is only staged. `force` tries one again that failed here before. With `probation_seconds` the board
        rolls back unless this machine can confirm in time. `delta` sends only what changed since a release the board
        has, of the artifacts in `delta_from` and of those pushed from this machine before.

        Raises NotCommittedError if the board did not keep the release, InputError for an artifact that was altered.
        """
        return self._call(
            lambda listener: self._board.push(
                artifact,
                activate=activate,
                force=force,
                probation_seconds=probation_seconds,
                delta=delta,
                delta_from=delta_from,
                on_progress=listener,
            ),
            on_progress,
        )

    def rollback(self, *, on_progress: OnProgress | None = None) -> DeploymentVerdict:
        """Goes back to the release that was active before, and waits until it answers.

        A change under way is waited for; where it fails, and so ends on the release before by itself, that is all.
        Raises RefusedError without a previous release, NotCommittedError if the board did not get there.
        """
        return self._call(lambda listener: self._board.rollback(on_progress=listener), on_progress)

    def gc(
        self, *, releases: bool = False, quarantine: bool = False, dry_run: bool = False
    ) -> GarbageCollection:
        """Frees what no release needs: files nobody asked about for an hour, uploads idle for a day.

        With `releases`, first deletes all releases but the active one, the previous one and what they need. With
        `quarantine`, also removes what was found corrupt. `dry_run` says what would go.
        """
        return SHARED.run(self._board.gc(releases=releases, quarantine=quarantine, dry_run=dry_run))

    def scrub(self, *, bytes_per_second_max: int = 0, on_progress: OnProgress | None = None) -> ScrubResult:
        """Has the board compare everything it stores with its digests; 0 bytes per second: as fast as the disk.

        What is corrupt goes to quarantine, and has to be pushed again.
        """
        return self._call(
            lambda listener: self._board.scrub(
                bytes_per_second_max=bytes_per_second_max, on_progress=listener
            ),
            on_progress,
        )

    def generate(
        self,
        prompt: str | Sequence[ChatTurn | Mapping[str, str]],
        *,
        chat: bool = True,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> Generation:
        """Returns the model's text, to be read piece by piece as it comes, or whole with `result()`.

        `prompt` is text, or messages with role and content; with `chat` it is put into the model's chat template.
        `max_tokens` 0 means as many as the context allows; `temperature` 0 takes the most likely token each time.
        """
        generation = self._board_generate(
            prompt,
            chat=chat,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            stop=stop,
        )
        return Generation(SHARED, generation)

    def score(self, items: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """Returns log p(continuation | context), natural, summed over tokens, for each item's continuations."""
        return SHARED.run(self._board.score(items))

    def telemetry(self) -> TelemetrySnapshot:
        """Returns everything the board measures, as of now: latency, memory, energy, temperatures, clocks."""
        return SHARED.run(self._board.telemetry())

    def watch_telemetry(self, interval_seconds: float = 1.0) -> Iterator[TelemetrySnapshot]:
        """Yields a snapshot every `interval_seconds` (0.1 to 60), until the caller stops reading."""
        return SHARED.iterate(self._board.watch_telemetry(interval_seconds))

    def recorded_telemetry(self, after_sequence: int = 0) -> Iterator[RecordedTelemetry]:
        """Yields what the board recorded after this sequence number, oldest first; 0 is all of it."""
        return SHARED.iterate(self._board.recorded_telemetry(after_sequence))

    def bench(
        self,
        *,
        prompts: int = 30,
        input_tokens: int = 128,
        output_tokens: int = 64,
        concurrency: int = 1,
        warmup: int = 2,
        repeats: int = 1,
        host_prompts: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> BenchReport:
        """Measures throughput, latency, memory and energy on the board, and what this machine sees over the link.

        `prompts` of `input_tokens` random tokens each ask for `output_tokens`, `concurrency` at once, after `warmup`
        prompts. `host_prompts` are sent from here; None: 2 × concurrency, at least 4; 0: none.
        """
        return self._call(
            lambda listener: self._board.bench(
                prompts=prompts,
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                concurrency=concurrency,
                warmup=warmup,
                repeats=repeats,
                host_prompts=host_prompts,
                on_progress=listener,
            ),
            on_progress,
        )

    def eval(
        self,
        tasks: str | Iterable[str | Path] | None = None,
        *,
        benchmarks: str | Path | None = None,
        limit: int | None = None,
        compare: str | Path | None = None,
        on_progress: OnProgress | None = None,
    ) -> Evaluation:
        """Measures accuracy on the bytes that serve. `tasks` are names, with commas between, or paths of .jsonl files.

        None: arc_easy. `benchmarks` is a folder of TASK/eval.jsonl; without it rows come from the hub. `limit` takes
        the first rows. `compare` names a build's folder instead: its rows are asked in its form, and each result says
        how far the board is from the host.
        """
        return self._call(
            lambda listener: self._board.eval(
                tasks, benchmarks=benchmarks, limit=limit, compare=compare, on_progress=listener
            ),
            on_progress,
        )

    def calibrate(self, *, as_served: bool = False) -> BoardCalibrated:
        """Measures the engine's memory, speed and energy, on which later predictions for the board rest.

        It uses the whole context first; `as_served` takes the peak as it is.
        """
        return SHARED.run(self._board.calibrate(as_served=as_served))

    def draft_profile(self) -> ProfileDraft:
        """Returns a device profile as far as the board tells; what only a datasheet tells is named in it."""
        return SHARED.run(self._board.draft_profile())

    def _board_generate(self, *arguments: Any, **options: Any) -> Any:
        async def begin() -> Any:
            return self._board.generate(*arguments, **options)

        return SHARED.run(begin())

    def _call(
        self,
        begin: Callable[[OnProgress | None], Coroutine[Any, Any, T]],
        on_progress: OnProgress | None,
    ) -> T:
        """Runs a call whose listener, if there is one, is called in this thread."""
        if on_progress is None:
            return SHARED.run(begin(None))
        return SHARED.listen(begin, on_progress)
