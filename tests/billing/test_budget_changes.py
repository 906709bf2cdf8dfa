"""A budget whose window, zone or filter is changed goes on from what was spent and is held, and nothing new passes its amount."""

import random
import threading

import msgspec
import pytest
from sqlalchemy import select, text

from farebox.billing.accounts import adjustments, budget_commands
from farebox.billing.accounts.budget_commands import Change
from farebox.billing.books import allotments, carrying
from farebox.billing.books.customers import CommandRefused, NotFound
from farebox.billing.budgets import EACH, budget_scope, window_name
from farebox.storage import queries
from farebox.storage.database import Database
from farebox.storage.tables import audit
from farebox.wires.usage import Usage

DOLLAR = 1_000_000_000
DAY_US = 86_400_000_000
CALL = Usage(output=10_000)  # 0.10 of output and the fee for a request
PRICE = 100_001_500 - 1_500 + 2  # per request 1,500 pico are 1.5 nano: half to even


def spent(world, budget, user=""):
    """What the budget of today has posted, and its limit."""
    found = world.scope(budget_scope(budget, world.clock.us, user).id)
    return 0 if found is None else found.posted_nano


def open_a_month(world, *, amount=DOLLAR, window="day", **more):
    account = world.account(100 * DOLLAR)
    key = world.key(account)
    id = world.budget(account, amount, window, **more)
    return account, key, id


def test_another_window_counts_what_is_posted_of_it_already(world):
    account, key, id = open_a_month(world)
    worker = world.worker()
    for _ in range(3):
        assert worker.call(key, CALL)
        world.clock.us += DAY_US
    world.post()
    month = world.change_budget(account, id, window="month")
    assert spent(world, month) == 3 * PRICE
    for _ in range(6):
        assert worker.call(key, CALL)
    assert worker.call(key, CALL) is None, "nine calls of ten cents and a little are in the month's dollar, and no tenth"
    world.post()
    assert spent(world, month) == 9 * PRICE
    week = world.change_budget(account, id, window="week", amount_nano=2 * DOLLAR)
    assert spent(world, week) == 9 * PRICE and week.revision == 2
    # And back: the day has what is charged today, whichever scopes counted it.
    day = world.change_budget(account, id, window="day")
    assert spent(world, day) == 6 * PRICE
    # A month later all of it is gone, without any change.
    world.clock.us += 31 * DAY_US
    assert spent(world, day) == 0 and worker.call(key, CALL)
    world.post()
    assert spent(world, day) == PRICE
    assert world.check() == []


def test_what_is_held_leaves_no_room_until_it_is_settled_and_then_counts_once(world):
    account, key, id = open_a_month(world)
    worker, other = world.worker(), world.worker("w2")
    held = worker.hold(key, 6 * PRICE, wish_nano=6 * PRICE)
    assert held is not None
    month = world.change_budget(account, id, window="month")
    assert spent(world, month) == 0
    assert other.hold(key, 4 * PRICE) is None, "six tenths are held under the day's budget still"
    taken = other.hold(key, 3 * PRICE)
    assert taken is not None
    worker.settle(held, worker.attempt(held, CALL))
    other.void(taken)
    world.post()
    assert spent(world, month) == PRICE, "the call that began before the change counts in the month"
    # The rest of the slice is asked back, and is there for others when it is returned.
    (asked,) = [one for one in allotments.wanted(world.database, life=worker.life, now_us=world.clock.us) if id in one]
    assert other.hold(key, 5 * PRICE) is None
    worker.give_back(asked)
    assert other.hold(key, 5 * PRICE) is not None
    assert world.check() == []


def test_a_worker_that_has_not_heard_of_the_change_gets_no_more_than_is_left(world):
    account, key, id = open_a_month(world)
    worker, late = world.worker(), world.worker("w2")
    before = world.budgets(account)
    month = world.change_budget(account, id, window="month", amount_nano=5 * PRICE)
    assert late.call(key, CALL, budgets=before), "it is not refused because it is late"
    assert worker.call(key, CALL)
    held = [late.hold(key, PRICE, budgets=before), worker.hold(key, PRICE), late.hold(key, PRICE, budgets=before)]
    assert None not in held
    assert late.hold(key, PRICE, budgets=before) is None and worker.hold(key, PRICE) is None
    world.post()
    assert spent(world, month) == 2 * PRICE, "also what was held late in the day's scope"
    assert world.check() == []


def test_another_zone_is_another_day(world):
    account, key, id = open_a_month(world, window="day", zone="Europe/Berlin")
    worker = world.worker()  # It is midnight in UTC, and 01:00 in Berlin.
    world.clock.us -= 1_800_000_000
    assert worker.call(key, CALL)
    world.clock.us += 1_800_000_000
    assert worker.call(key, CALL)
    world.post()
    assert spent(world, world.budgets(account)[0]) == 2 * PRICE
    utc = world.change_budget(account, id, zone="UTC")
    assert spent(world, utc) == PRICE
    tokyo = world.change_budget(account, id, zone="Asia/Tokyo")
    assert spent(world, tokyo) == 2 * PRICE
    # A life and an hour have no zone: nothing is counted anew.
    life = world.change_budget(account, id, window="none")
    assert world.change_budget(account, id, zone="Europe/Paris").revision == life.revision
    assert world.check() == []


def test_filters_count_the_calls_that_one_of_them_was_paid_for(world):
    account, key, id = open_a_month(world, window="month")
    worker = world.worker()
    for model in ("openai/gpt-4o", "openai/gpt-4o-mini", "other/one", "other/one"):
        assert worker.call(key, CALL, model=model)
    held = worker.hold(key, PRICE, model="openai/gpt-4o")
    beside = worker.hold(key, PRICE, model="other/one")
    assert held is not None and beside is not None
    world.post()
    openai = world.change_budget(account, id, models=("openai/*",))
    assert spent(world, openai) == 2 * PRICE
    worker.settle(held, worker.attempt(held, CALL))
    worker.settle(beside, worker.attempt(beside, CALL))
    world.post()
    assert spent(world, openai) == 3 * PRICE, "of the two under way, the one that it counts"
    wide = world.change_budget(account, id, models=(), providers=("openai",))
    assert spent(world, wide) == 6 * PRICE
    assert world.check() == []


def test_a_wider_filter_counts_what_was_under_way_when_it_is_posted(world):
    account, key, id = open_a_month(world, window="month", models=("openai/*",))
    worker = world.worker()
    unseen = worker.hold(key, PRICE, model="other/one")
    assert unseen is not None
    world.clock.us += 1
    every = world.change_budget(account, id, models=())
    worker.settle(unseen, worker.attempt(unseen, CALL))
    world.post()
    assert spent(world, every) == PRICE
    assert world.check() == []


def test_each_end_user_goes_on_from_their_own(world):
    account, key, id = open_a_month(world, window="day", kind="end_user", subject=EACH)
    world.budget(account, DOLLAR, "day", kind="end_user", subject="own")
    worker = world.worker()
    for user in ("ann", "ann", "own", ""):
        assert worker.call(key, CALL, end_user=user)
    held = worker.hold(key, PRICE, end_user="bob")
    assert held is not None
    world.post()
    month = world.change_budget(account, id, window="month")
    assert [spent(world, month, user) for user in ("ann", "bob", "own", "")] == [2 * PRICE, 0, 0, 0]
    worker.settle(held, worker.attempt(held, CALL))
    world.post()
    assert spent(world, month, "bob") == PRICE
    assert world.check() == []


def test_more_end_users_than_one_change_recounts_are_refused(world, monkeypatch):
    account, key, id = open_a_month(world, window="day", kind="end_user", subject=EACH)
    worker = world.worker()
    for user in ("ann", "bob"):
        assert worker.call(key, CALL, end_user=user)
    world.post()
    monkeypatch.setattr(carrying, "SUBJECTS_MAX", 1)
    with pytest.raises(CommandRefused, match="more than 1 end users have spent in this window; remove it and create another"):
        world.change_budget(account, id, window="month")
    assert world.check() == [] and spent(world, world.budgets(account)[0], "ann") == PRICE, "and nothing was changed"


def test_a_correction_changes_what_is_carried(world):
    account, key, id = open_a_month(world)
    worker = world.worker()
    call = worker.call(key, CALL, hold_nano=2 * PRICE)
    assert call is not None
    world.post()
    for scope in list(worker.purses):
        worker.give_back(scope)
    month = world.change_budget(account, id, window="month")

    def correct(output, **more):
        adjustments.adjust(
            world.database, world.ids, hold_id=call.id, attempt=1, exact=Usage(output=output), now_us=world.clock.us, **more
        )

    correct(4_000)
    assert spent(world, month) == 40_000_002
    correct(12_000, may_raise=True)
    assert spent(world, month) == 120_000_002
    world.change_budget(account, id, amount_nano=130_000_002)
    correct(20_000, may_raise=True)
    assert spent(world, month) == 130_000_002, "up as far as the budget has room"
    assert world.check() == []


def test_less_than_is_spent_already_stops_at_once_and_soft_never_does(world):
    account, key, id = open_a_month(world)
    worker = world.worker()
    for _ in range(4):
        assert worker.call(key, CALL)
    world.post()
    small = world.change_budget(account, id, window="month", amount_nano=2 * PRICE)
    assert worker.call(key, CALL) is None
    soft = world.change_budget(account, id, hard=False)
    assert soft.revision == small.revision, "what it counts is the same"
    assert worker.call(key, CALL)
    world.post()
    assert spent(world, soft) == 5 * PRICE
    assert [threshold for subject, threshold in world.outbox("budget_threshold") if f"{id}.1" in subject] == [50, 80, 100]
    world.change_budget(account, id, hard=True, amount_nano=6 * PRICE)
    # What was taken while it was soft is returned, and then the limit holds.
    for scope in list(worker.purses):
        worker.give_back(scope)
    assert worker.call(key, CALL) and worker.call(key, CALL) is None
    world.post()
    assert world.check() == []


def test_the_audit_log_has_what_was_changed_and_nothing_else_is_taken(world):
    account, _, id = open_a_month(world)
    with pytest.raises(CommandRefused, match="nothing is to be changed"):
        budget_commands.change_budget(world.database, id, Change(), now_us=world.clock.us)
    with pytest.raises(CommandRefused, match="there is no time zone `Mars/Olympus`"):
        world.change_budget(account, id, zone="Mars/Olympus")
    with pytest.raises(CommandRefused, match="not negative"):
        world.change_budget(account, id, amount_nano=-1)
    with pytest.raises(CommandRefused, match="at most 50 models"):
        world.change_budget(account, id, models=tuple(f"m/{number}" for number in range(51)))
    with pytest.raises(NotFound, match="`bud-none` does not exist"):
        budget_commands.change_budget(world.database, "bud-none", Change(name="x"), now_us=world.clock.us)
    world.change_budget(account, id, name="night", window="week")
    budget_commands.remove_budget(world.database, id, now_us=world.clock.us)
    with pytest.raises(NotFound):
        world.change_budget(account, id, name="day")
    rows = world.database.read(
        lambda connection: connection.execute(select(audit).where(audit.c.subject == id).order_by(audit.c.seq)).all()
    )
    assert [row.action for row in rows] == ["budget.create", "budget.change", "budget.remove"]
    assert msgspec.json.decode(rows[1].before) == {"name": None, "window": "day", "revision": 0}
    assert msgspec.json.decode(rows[1].after) == {"name": "night", "window": "week", "revision": 1}


def test_a_carried_sum_that_is_wrong_is_found(world):
    account, key, id = open_a_month(world)
    assert world.worker().call(key, CALL)
    world.post()
    month = world.change_budget(account, id, window="month")
    scope = budget_scope(month, world.clock.us).id
    damage = text("UPDATE scopes SET posted_nano = posted_nano - 1, carried_nano = carried_nano - 1 WHERE id = :id")
    world.database.write(lambda connection: connection.execute(damage, {"id": scope}))
    (found,) = world.check()
    assert (found.invariant, found.subject) == ("I2", scope)
    assert found.sentence == f"the scope carries {PRICE - 1}, calls from before its budget was changed {PRICE}"


def test_what_is_posted_while_a_budget_is_changed_counts_once(world):
    """Of a call that was in no scope of the budget: did the change not wait, it would be neither in its sum nor carried."""
    account, key, id = open_a_month(world, window="month", models=("openai/*",))
    assert world.worker().call(key, CALL, model="other/one")
    world.clock.us += 1
    with Database.open(world.url) as another:
        change = Change(models=())
        changing = threading.Thread(
            target=lambda: budget_commands.change_budget(another, id, change, now_us=world.clock.us)
        )

        def nearly_posted():
            changing.start()
            changing.join(0.3)
            assert changing.is_alive(), "it waits"

        world.post(before_commit=nearly_posted)
        changing.join()
    row = world.database.read(lambda connection: queries.list_budgets(connection, account)[0])
    assert spent(world, carrying.from_row(row)) == PRICE and row.revision == 1
    assert world.check() == []


def play(world, seed, steps):
    """Any order of calls, changes, late workers and posts; what is held anew never passes what was left."""
    chance = random.Random(seed)
    account, key, id = open_a_month(world, amount=20 * PRICE)
    known = {"w1": world.budgets(account), "w2": world.budgets(account)}
    workers = {slot: world.worker(slot) for slot in known}
    done = []  # (hold, charge, whether it is posted)
    held = []
    missed = {}  # hold → the revision whose wider filter its worker had not heard of

    def counted(budget, model):
        return not budget.models or model.startswith("openai/")

    def used(budget):
        """Charged and held of today's window, by a child's arithmetic; but for calls whose time comes when they are posted."""
        now = window_name(budget.window, world.clock.us, budget.zone)
        return sum(
            amount
            for hold, amount, posted in (*done, *((hold, hold.amount_nano, False) for _, hold in held))
            if counted(budget, hold.model)
            and window_name(budget.window, hold.at_us, budget.zone) == now
            and missed.get(hold.id) != budget.revision
            and (posted or any(id in scope for scope in hold.scopes))
        )

    for _ in range(steps):
        world.clock.us += 1
        step = chance.choice(("hold",) * 5 + ("settle",) * 3 + ("change", "hear", "hear", "post", "post", "later", "return"))
        budget = world.budgets(account)[0]
        slot = chance.choice(("w1", "w2"))
        worker = workers[slot]
        if step == "hold":
            amount = chance.randint(1, 4) * PRICE
            model = chance.choice(("openai/gpt-4o", "other/one"))
            before = used(budget)
            wider = counted(budget, model) and not counted(known[slot][0], model)
            late = known[slot][0].revision < budget.revision
            # As when a limit is lowered: what a worker has in hand it may use until it hears that it should return it.
            in_hand = late and worker.purse(budget_scope(known[slot][0], world.clock.us).id).free >= amount
            hold = worker.hold(key, amount, wish_nano=amount * chance.choice((1, 3)), model=model, budgets=known[slot])
            if hold is not None:
                held.append((worker, hold))
                if wider:
                    missed[hold.id] = budget.revision
                assert in_hand or wider or not counted(budget, model) or before + amount <= budget.amount_nano, f"seed {seed}"
        elif step == "settle" and held:
            worker, hold = held.pop(chance.randrange(len(held)))
            settle = worker.settle(hold, worker.attempt(hold, CALL))
            done.append((hold, settle.charge_nano, False))
        elif step == "change":
            window = chance.choice(("day", "week", "month", "none"))
            zone = chance.choice(("UTC", "Europe/Berlin"))
            models = chance.choice(((), ("openai/*",)))
            world.change_budget(account, id, window=window, zone=zone, models=models)
        elif step == "hear":
            known[slot] = world.budgets(account)
        elif step == "post":
            world.post()
            done = [(hold, charge, True) for hold, charge, _ in done]
        elif step == "later":
            world.clock.us += chance.choice((3_600_000_000, DAY_US // 2, 3 * DAY_US))
            known = {name: world.budgets(account) for name in known}
        elif step == "return":
            for scope in list(worker.purses):
                worker.give_back(scope)
    for worker, hold in held:
        worker.settle(hold, worker.attempt(hold, CALL))
        done.append((hold, PRICE, True))
    done = [(hold, charge, True) for hold, charge, _ in done]
    held.clear()
    world.post()
    assert world.check() == [], f"seed {seed}"
    budget = world.budgets(account)[0]
    assert spent(world, budget) == used(budget), f"seed {seed}"


@pytest.mark.parametrize("seed", range(6))
def test_any_order_of_calls_and_changes(world, seed):
    play(world, seed, steps=60)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(6, 206))
def test_many_orders_of_calls_and_changes(world, seed):
    play(world, seed, steps=120)
