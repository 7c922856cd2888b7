"""Waiting for rewards without being deaf meanwhile: to a stop, and to failures of other processes."""

from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from typing import Any

from deepgen.errors import DeepGenError, RewardError
from deepgen.rewards import WeightedReward
from deepgen.rewards.golden import check_reward
from deepgen.scorers.threads import in_thread
from deepgen.train.parallel import Ranks, any_rank, most_of
from deepgen.train.run import StopRequest

POLL_SECONDS = 1.0
DONE, WAITING, FAILED = range(3)


def wait_for(futures: Sequence[Future[Any]], stop: StopRequest, ranks: Ranks) -> bool:
    """Until everything is there on all processes; False where the run is asked to stop before. Collective.

    Raises RewardError, or another DeepGenError that a reward raised here, as soon as one fails on any process.
    """
    while True:
        done, waiting = wait(futures, POLL_SECONDS, FIRST_EXCEPTION)
        problem = next((error for future in done if (error := future.exception()) is not None), None)
        state = most_of(FAILED if problem is not None else WAITING if waiting else DONE, ranks)
        if isinstance(problem, DeepGenError):
            raise problem
        if problem is not None:
            raise RewardError(f"a reward cannot work: {type(problem).__name__}: {problem}") from problem
        if state == FAILED:
            raise RewardError("a reward failed in another process, which says why")
        if state == DONE:
            return True
        if any_rank(stop.asked, ranks):
            return False


def check_rewards(rewards: Sequence[WeightedReward], stop: StopRequest, ranks: Ranks) -> bool:
    """Score the golden pictures by every reward; False where the run is asked to stop meanwhile. Collective.

    Raises DeepGenError for a reward that fails.
    """
    return wait_for([in_thread(_require, one) for one in rewards], stop, ranks)


def _require(one: WeightedReward) -> None:
    found = check_reward(one.reward, one.ordered)
    if not found.passed:
        raise RewardError(
            f"reward {found.name} fails on golden pictures (`deepgen reward check`): {found.problem}"
        )
