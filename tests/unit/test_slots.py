"""How many issues are worked on at once."""

import pytest
import trio

from factoryd.flow.slots import PATIENCE_S, Seat, Slots


async def test_slots_are_given_out_up_to_their_number():
    slots = Slots(2)
    slots.take_nowait()
    await slots.take()
    assert slots.free == 0
    with pytest.raises(trio.WouldBlock):
        slots.take_nowait()
    slots.give()
    assert slots.free == 1


async def test_whoever_waits_longest_has_a_slot_next(nursery):
    slots, order = Slots(1, taken=1), []

    async def want(name):
        await slots.take()
        order.append(name)

    for name in ("first", "second", "third"):
        nursery.start_soon(want, name)
        await trio.testing.wait_all_tasks_blocked()
    assert slots.free == 0
    for _ in range(3):
        slots.give()
        await trio.testing.wait_all_tasks_blocked()
    assert order == ["first", "second", "third"]
    slots.give()
    assert slots.free == 1


async def test_a_slot_that_is_promised_to_a_waiter_is_not_free(nursery):
    slots = Slots(1, taken=1)
    nursery.start_soon(slots.take)
    await trio.testing.wait_all_tasks_blocked()
    slots.give()
    with pytest.raises(trio.WouldBlock):
        slots.take_nowait()


async def test_more_may_be_taken_at_the_start_than_there_are_and_are_waited_for(nursery):
    slots, taken = Slots(1, taken=3), trio.Event()

    async def want():
        await slots.take()
        taken.set()

    nursery.start_soon(want)
    await trio.testing.wait_all_tasks_blocked()
    for left in (2, 1):
        assert slots.free == 0
        slots.give()
        await trio.testing.wait_all_tasks_blocked()
        assert not taken.is_set(), f"{left} are still in use"
    slots.give()
    await taken.wait()
    assert slots.free == 0


async def test_a_cancelled_taker_takes_no_slot():
    slots = Slots(1)
    with trio.CancelScope() as scope:
        scope.cancel(reason="too late")
        await slots.take()
    assert slots.free == 1
    slots.take_nowait()
    with trio.move_on_after(0):
        await slots.take()
    slots.give()
    assert slots.free == 1


async def test_who_waits_longer_than_its_patience_gives_its_slot_back_and_asks_again(
    nursery, autojump_clock
):
    slots, answered = Slots(2, taken=2), list[float]()
    nursery.start_soon(slots.run)

    async def lend(*took_s):
        left = list(took_s)

        async def ask():
            began = trio.current_time()
            await trio.sleep(left.pop(0))
            return began

        answered.append(await Seat(slots, taken=True).lend_while(ask))

    nursery.start_soon(lend, 2 * PATIENCE_S, 2 * PATIENCE_S - 1)
    await trio.sleep(2 * PATIENCE_S + 1)
    assert slots.free == 0, "it has its slot again and asks with more patience"
    nursery.start_soon(lend, 2 * PATIENCE_S, 0)
    await trio.sleep(PATIENCE_S - 1)
    assert slots.free == 0
    await trio.sleep(2)
    assert slots.free == 1, "how long another may take is no reason to keep a slot for longer"
    await trio.sleep(4 * PATIENCE_S)
    assert answered == pytest.approx([2 * PATIENCE_S, 4 * PATIENCE_S + 1], abs=0.1)
    assert slots.free == 0


async def test_an_answer_that_fails_takes_no_slot_away(nursery, autojump_clock):
    slots = Slots(1, taken=1)
    nursery.start_soon(slots.run)

    async def ask():
        raise LookupError

    with pytest.raises(LookupError):
        await Seat(slots, taken=True).lend_while(ask)
    await trio.sleep(3 * PATIENCE_S)
    assert slots.free == 0


async def test_more_slots_go_to_those_who_wait_in_turn_and_then_to_anyone(nursery):
    slots, order, told = Slots(1, taken=1), [], []
    slots.freed = lambda: told.append(slots.free)

    async def take(name):
        await slots.take()
        order.append(name)

    for name in ("a", "b"):
        nursery.start_soon(take, name)
        await trio.testing.wait_all_tasks_blocked()
    slots.resize(2)
    await trio.testing.wait_all_tasks_blocked()
    assert (order, slots.free) == (["a"], 0)
    slots.resize(5)
    await trio.testing.wait_all_tasks_blocked()
    assert (order, slots.free) == (["a", "b"], 2)
    assert told == [0, 2], "whoever dispatches hears of it"


async def test_fewer_slots_take_none_away_and_give_none_until_there_is_one(nursery):
    slots, taken = Slots(3, taken=3), trio.Event()

    async def take():
        await slots.take()
        taken.set()

    nursery.start_soon(take)
    await trio.testing.wait_all_tasks_blocked()
    slots.resize(1)
    for _ in range(2):
        slots.give()
        await trio.testing.wait_all_tasks_blocked()
        assert not taken.is_set()
        assert slots.free == 0
    slots.give()
    await taken.wait()
    assert slots.free == 0
