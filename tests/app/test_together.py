"""Requests that share a post: each caller has its own answer, and a busy role is asked less often, not more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.errors import Unavailable, Unprocessable
from app.inference import together
from app.inference.together import LANES, MOST_TOGETHER, Together


class Role:
    """Answers each order with itself once its gate is open, and remembers what came in which post."""

    def __init__(self) -> None:
        self.posts: list[list[bytes]] = []
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def post(self, orders: list[bytes]) -> list[dict[str, Any]]:
        self.posts.append(orders)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return [{"status": 422 if order == b"bad" else 200, "order": order} for order in orders]


def run(scene: Callable[[Role, Together], Awaitable[None]]) -> None:
    async def play() -> None:
        role = Role()
        await scene(role, Together(role.post))

    asyncio.run(asyncio.wait_for(play(), 10))


def asked(asking: Together, *orders: bytes, model: str = "m") -> list[asyncio.Task[dict[str, Any]]]:
    return [asyncio.create_task(asking.ask(model, order)) for order in orders]


async def settled() -> None:
    """Until every task has gone as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_lone_request_leaves_at_once() -> None:
    async def scene(role: Role, asking: Together) -> None:
        role.gate.set()
        assert (await asking.ask("m", b"one"))["order"] == b"one"
        assert role.posts == [[b"one"]]

    run(scene)


def test_those_that_come_while_the_lanes_are_busy_leave_together_and_get_their_own_answers() -> None:
    async def scene(role: Role, asking: Together) -> None:
        first = []
        for order in (b"a", b"b"):
            first += asked(asking, order)
            await settled()
        later = asked(asking, *(b"%d" % at for at in range(10)))
        await settled()
        assert role.posts == [[b"a"], [b"b"]]  # LANES of them
        role.gate.set()
        answers = await asyncio.gather(*first, *later)
        assert [answer["order"] for answer in answers] == [b"a", b"b", *(b"%d" % at for at in range(10))]
        assert len(role.posts) == LANES + 1

    run(scene)


def test_one_post_holds_no_more_than_the_role_takes() -> None:
    async def scene(role: Role, asking: Together) -> None:
        tasks = asked(asking, *(b"%d" % at for at in range(5 * MOST_TOGETHER)))
        await settled()
        role.gate.set()
        await asyncio.gather(*tasks)
        assert max(len(post) for post in role.posts) == MOST_TOGETHER
        assert sorted(order for post in role.posts for order in post) == sorted(
            b"%d" % at for at in range(5 * MOST_TOGETHER)
        )

    run(scene)


def test_models_do_not_wait_for_each_other() -> None:
    async def scene(role: Role, asking: Together) -> None:
        held = asked(asking, b"a", b"b", b"c")
        await settled()
        other = asked(asking, b"x", model="another")
        await settled()
        assert [b"x"] in role.posts
        role.gate.set()
        await asyncio.gather(*held, *other)

    run(scene)


def test_an_error_of_one_is_not_the_others() -> None:
    async def scene(role: Role, asking: Together) -> None:
        role.gate.set()
        answers = await asyncio.gather(*asked(asking, b"good", b"bad", b"fine"))
        assert [answer["status"] for answer in answers] == [200, 422, 200]

    run(scene)


def test_a_post_that_fails_fails_all_of_it_and_nothing_after_it() -> None:
    async def scene(role: Role, asking: Together) -> None:
        role.error = Unprocessable("gone", "gone", "model")
        role.gate.set()
        failed = await asyncio.gather(*asked(asking, b"a", b"b", b"c"), return_exceptions=True)
        assert [type(each) for each in failed] == [Unprocessable] * 3
        role.error = None
        assert (await asking.ask("m", b"later"))["order"] == b"later"

    run(scene)


def test_a_caller_that_is_cancelled_is_left_out_and_the_others_are_answered() -> None:
    async def scene(role: Role, asking: Together) -> None:
        held = []
        for order in (b"a", b"b"):
            held += asked(asking, order)
            await settled()
        gone, stays = asked(asking, b"gone", b"stays")
        await settled()
        gone.cancel()
        held[0].cancel()  # whose post is under way
        role.gate.set()
        assert (await stays)["order"] == b"stays"
        assert (await held[1])["order"] == b"b"
        assert role.posts[-1] == [b"stays"] and gone.cancelled() and held[0].cancelled()

    run(scene)


def test_more_than_may_wait_are_told_to_try_again_and_taken_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "MOST_WAITING", 5)

    async def scene(role: Role, asking: Together) -> None:
        tasks = []
        for number in range(LANES):
            tasks += asked(asking, b"%d" % number)
            await settled()
        tasks += asked(asking, *(b"waits" for _ in range(5)))
        await settled()
        with pytest.raises(Unavailable) as caught:
            await asking.ask("m", b"too many")
        assert (caught.value.code, caught.value.headers["Retry-After"]) == ("inference_busy", "1")
        tasks += asked(asking, b"x", model="another")  # whose own lanes are free
        await settled()
        assert [b"x"] in role.posts
        monkeypatch.setattr(together, "MOST_WAITING_IN_ALL", 5)
        with pytest.raises(Unavailable, match="wait for the models"):
            await asking.ask("a third", b"y")
        role.gate.set()
        await asyncio.gather(*tasks)
        assert (await asking.ask("m", b"later"))["status"] == 200

    run(scene)
