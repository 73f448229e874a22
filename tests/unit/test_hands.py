"""Threads for short blocking calls: who is told what, and what cancelling can still prevent."""

import threading
import time
from functools import partial

import pytest
import trio

from factoryd.adapters.hands import Hands
from factoryd.core import labels


class Held:
    """A call that ends when it is let go."""

    def __init__(self):
        self.begun = threading.Event()
        self.go = threading.Event()

    def __call__(self):
        self.begun.set()
        assert self.go.wait(10)
        return "held"


async def wait_for(true):
    with trio.fail_after(10):
        while not true():  # noqa: ASYNC110  threads announce nothing
            await trio.sleep(0.001)


async def test_a_call_is_made_in_a_thread_with_the_labels_of_the_task_and_its_result_returned():
    hands = Hands(2)
    labels.ISSUE.set("AR-1")

    def call(one, other):
        return one, other, labels.ISSUE.get(), threading.current_thread()

    *seen, thread = await hands.do(call, 1, 2)
    assert seen == [1, 2, "AR-1"]
    assert thread is not threading.current_thread()


async def test_what_a_call_raises_is_raised_where_it_was_asked_for_and_the_thread_goes_on():
    hands = Hands(1)
    with pytest.raises(ZeroDivisionError):
        await hands.do(lambda: 1 / 0)
    assert await hands.do(lambda: "still there") == "still there"


async def test_one_hand_makes_one_call_at_a_time_in_the_order_of_asking(nursery):
    hands, order, held = Hands(1), list[int](), Held()
    nursery.start_soon(hands.do, held)
    await wait_for(held.begun.is_set)
    for n in range(50):
        nursery.start_soon(hands.do, order.append, n)
        await trio.testing.wait_all_tasks_blocked()
    assert order == []
    held.go.set()
    await wait_for(lambda: len(order) == 50)
    assert order == list(range(50))


async def test_there_are_no_more_threads_than_wanted_and_all_are_used(nursery):
    hands, calls, before = Hands(3), [Held() for _ in range(10)], threading.active_count()
    for call in calls:
        nursery.start_soon(hands.do, call)
    await wait_for(lambda: sum(call.begun.is_set() for call in calls) == 3)
    assert threading.active_count() <= before + 3
    for call in calls:
        call.go.set()


async def test_no_call_is_forgotten_however_threads_come_and_go(nursery):
    hands, done = Hands(2), list[int]()

    async def ask(n):
        for _ in range(300):
            await hands.do(done.append, n)

    with trio.fail_after(20):
        async with trio.open_nursery() as asking:
            for n in range(5):
                asking.start_soon(ask, n)
    assert len(done) == 1500


async def test_a_call_that_has_not_begun_is_never_made_once_it_is_cancelled(nursery):
    hands, held, made = Hands(1), Held(), list[str]()
    nursery.start_soon(hands.do, held)
    await wait_for(held.begun.is_set)
    with trio.move_on_after(0.01) as scope:
        await hands.do(made.append, "too late")
    assert scope.cancelled_caught
    held.go.set()
    await hands.do(made.append, "next")
    assert made == ["next"]


async def test_a_call_that_has_begun_is_waited_for_whatever_is_cancelled(nursery):
    hands, held = Hands(1), Held()

    async def cancel_once(scope, begun):
        await wait_for(begun.is_set)
        scope.cancel(reason="the call has begun")
        threading.Timer(0.1, held.go.set).start()

    with trio.CancelScope() as scope:
        nursery.start_soon(cancel_once, scope, held.begun)
        assert await hands.do(held) == "held"
    assert scope.cancel_called
    assert held.go.is_set()


async def give_up(hands, held):
    """Ask for a call and give it up once it has begun."""
    async with trio.open_nursery() as asking:
        asking.start_soon(partial(hands.do, held, give_up=True))
        await wait_for(held.begun.is_set)
        asking.cancel_scope.cancel(reason="the call has begun")


async def test_a_call_may_be_given_up_and_the_next_waits_until_it_is_over():
    hands, held = Hands(1), Held()
    await give_up(hands, held)
    threading.Timer(0.2, held.go.set).start()
    assert await hands.do(held.go.is_set)


def test_a_call_that_outlives_its_run_hurts_nobody(capfd):
    hands, held = Hands(1), Held()
    trio.run(give_up, hands, held)
    held.go.set()
    again = []

    async def ask_again():
        again.append(await hands.do(time.monotonic))

    trio.run(ask_again)
    assert again
    assert capfd.readouterr().err == ""


async def test_a_thread_that_cannot_be_had_costs_that_call_and_no_later_one(monkeypatch):
    hands, made = Hands(1), list[str]()

    def refuse(*_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(trio.lowlevel, "start_thread_soon", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            await hands.do(made.append, "never")
    await hands.do(made.append, "next")
    assert made == ["next"]
