"""What every engine promises of log-likelihoods; one that scores nothing says so."""

from __future__ import annotations

import httpx
import pytest

from edgewright_agent.engines import (
    Engine,
    GenerationRequest,
    ScoreItem,
)
from tests.agent.engines.contract.requests import EDGE_LLM
from tests.support.engine_releases import Release, collect

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def scores(release: Release) -> None:
    """Skips where the engine scores nothing; that it says so is tried beside it."""
    if release.kind == EDGE_LLM:
        pytest.skip("It gives no log-probabilities of a text that it did not write.")


async def test_log_probabilities_of_a_text_are_its_score(
    engine: Engine, http: httpx.AsyncClient, release: Release
) -> None:
    if release.kind == "vllm":
        pytest.skip("Its own log-probabilities are tried beside its scores.")
    body = {"prompt": "the", "max_tokens": 1, "temperature": 0, "logprobs": 2}
    choice = (await http.post("/v1/completions", json=body)).json()["choices"][0]
    told = choice["logprobs"]
    assert len(told["tokens"]) == len(told["token_logprobs"]) == len(told["top_logprobs"]) == 1
    assert len(told["top_logprobs"][0]) == 2
    if release.kind == EDGE_LLM:
        return  # it scores nothing
    ((score,),) = await engine.score([ScoreItem("the", [choice["text"]])])
    assert score.log_likelihood == pytest.approx(told["token_logprobs"][0], abs=1e-4)


@pytest.mark.usefixtures("scores")
async def test_a_score_is_the_sum_over_its_parts(engine: Engine) -> None:
    items = [
        ScoreItem("the cat", [" the mat", " the"]),
        ScoreItem("the cat the", [" mat"]),
    ]
    (whole, first), (second,) = await engine.score(items)
    assert whole.tokens == first.tokens + second.tokens
    assert whole.log_likelihood == pytest.approx(first.log_likelihood + second.log_likelihood, abs=1e-4)
    assert whole.log_likelihood < first.log_likelihood < 0


@pytest.mark.usefixtures("scores")
async def test_blanks_at_the_context_s_end_belong_to_the_continuation(engine: Engine) -> None:
    (left,), (right,) = await engine.score([ScoreItem("the cat ", ["the"]), ScoreItem("the cat", [" the"])])
    assert left == right


@pytest.mark.usefixtures("scores")
async def test_scores_do_not_depend_on_what_is_scored_beside(engine: Engine) -> None:
    continuations = [" a", " the mat", " a", " on and on and on", "!"]
    together = (await engine.score([ScoreItem("the cat", continuations)]))[0]
    alone = [(await engine.score([ScoreItem("the cat", [text])]))[0][0] for text in continuations]
    assert together == alone


@pytest.mark.usefixtures("scores")
async def test_what_greedy_generation_writes_is_scored_as_greedy(engine: Engine) -> None:
    text, _, _ = await collect(engine, GenerationRequest(prompt="the", max_tokens=1))
    ((greedy, other),) = await engine.score([ScoreItem("the", [text, "\x01"])])
    assert greedy.is_greedy
    assert not other.is_greedy
