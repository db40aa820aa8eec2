"""When a failed attempt is followed by another: pure functions of a policy, an error and a given chance."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segundo import Retry, RetryLater, task
from segundo.errors import DeclarationError

ERROR = ValueError("no")


def delays(policy: Retry, count: int = 5) -> list[float]:
    return [policy.delay(failures, ERROR, random.Random(1)) for failures in range(1, count + 1)]


def test_a_constant_wait_is_the_base_each_time() -> None:
    assert delays(Retry(wait="constant", base=2, jitter=False)) == [2, 2, 2, 2, 2]


def test_a_linear_wait_grows_by_the_base() -> None:
    assert delays(Retry(wait="linear", base=2, jitter=False)) == [2, 4, 6, 8, 10]


def test_an_exponential_wait_doubles() -> None:
    assert delays(Retry(wait="exponential", base=0.5, jitter=False)) == [0.5, 1, 2, 4, 8]


def test_a_function_is_given_the_number_of_failures() -> None:
    assert delays(Retry(wait=lambda failures: failures**2, jitter=False)) == [1, 4, 9, 16, 25]


def test_a_function_that_answers_with_a_negative_time_means_at_once() -> None:
    assert delays(Retry(wait=lambda failures: -failures), 2) == [0, 0]


def test_no_wait_is_longer_than_the_ceiling() -> None:
    assert delays(Retry(wait="exponential", base=1, ceiling=5, jitter=False)) == [1, 2, 4, 5, 5]
    assert delays(Retry(wait=lambda failures: 100, ceiling=5, jitter=False), 1) == [5]


def test_a_great_many_failures_do_not_overflow() -> None:
    assert Retry(attempts=None, jitter=False).delay(10**9, ERROR, random.Random()) == 3600


@given(failures=st.integers(1, 10_000), base=st.floats(0, 100), seed=st.integers())
def test_jitter_takes_a_part_of_the_upper_half_and_never_more_than_the_wait(
    failures: int, base: float, seed: int
) -> None:
    wait = Retry(base=base, jitter=False).delay(failures, ERROR, random.Random())
    assert wait / 2 <= Retry(base=base).delay(failures, ERROR, random.Random(seed)) <= wait


def test_the_same_chance_gives_the_same_delay_and_another_another() -> None:
    policy = Retry(wait="constant", base=100)
    assert policy.delay(1, ERROR, random.Random(7)) == policy.delay(1, ERROR, random.Random(7))
    assert len({policy.delay(1, ERROR, random.Random(seed)) for seed in range(20)}) > 10


def test_retry_later_says_its_own_time_whatever_the_policy_says() -> None:
    policy = Retry(wait="constant", base=1, ceiling=5, on=(OSError,))
    assert policy.covers(RetryLater(60))
    assert policy.delay(1, RetryLater(60), random.Random()) == 60


@pytest.mark.parametrize(
    ("policy", "error", "covered"),
    [
        (Retry(), ValueError(), True),
        (Retry(), KeyboardInterrupt(), False),
        (Retry(), SystemExit(), False),
        (Retry(on=(OSError,)), ConnectionError(), True),
        (Retry(on=(OSError,)), ValueError(), False),
        (Retry(on=(OSError,), give_up_on=(FileNotFoundError,)), FileNotFoundError(), False),
        (Retry(on=(OSError,), give_up_on=(FileNotFoundError,)), PermissionError(), True),
        (Retry(on=(BaseException,)), SystemExit(), True),
    ],
)
def test_only_errors_in_on_and_not_in_give_up_on_are_tried_again(
    policy: Retry, error: BaseException, covered: bool
) -> None:
    assert policy.covers(error) is covered


def test_one_exception_class_may_stand_without_its_tuple() -> None:
    policy = Retry(on=OSError, give_up_on=FileNotFoundError)  # type: ignore[arg-type]  # forgiven, not offered
    assert policy == Retry(on=(OSError,), give_up_on=(FileNotFoundError,))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"attempts": 0}, "attempts"),
        ({"wait": "quadratic"}, "wait"),
        ({"base": -1}, "base"),
        ({"ceiling": -1}, "ceiling"),
        ({"on": ("OSError",)}, "on"),
        ({"on": (OSError(),)}, "on"),
        ({"give_up_on": (int,)}, "give_up_on"),
    ],
)
def test_a_policy_that_means_nothing_is_refused_where_it_is_made(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        Retry(**settings)


def test_retry_later_takes_no_time_in_the_past() -> None:
    with pytest.raises(ValueError, match="negative"):
        RetryLater(-1)


def test_a_number_is_no_policy_and_refused_where_the_task_is_declared() -> None:
    with pytest.raises(DeclarationError, match=r"retry=Retry\(attempts=3\)"):
        task(retry=3)(module_level)  # type: ignore[call-overload]


def module_level() -> None:
    """A function that could be a task."""
