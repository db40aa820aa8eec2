"""The blows: each falls at a random moment, and says whether it hit something.

To hit, a blow first holds its target still, and looks whether anything is cut off by it: what a stopped
process has not written down as ended will not be. If there is nothing, it lets go, and tries again.
"""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import psycopg

from segundo.executors.celery.apps import RUN, make_app
from tests.chaos.clients import Clients
from tests.chaos.storm import POOLS, Storm, send
from tests.soak.history import BrokerKilled, Killed, Outage, Started, Struck
from tests.support import wait_until

SECOND = 1_000_000_000
TRIES = 40  # looks for something to cut off
ECHOES = 30
BEYOND = 2.5  # seconds that an outage outlives a lease: so long may it take until it is noticed
SHORT = (0.5, 6.0)  # seconds that a broker is away
RUNNING = "SELECT id, claim FROM segundo.records WHERE state = 'running'"

Blow = Callable[[Storm, Clients], bool]


def strike_all(storm: Storm, clients: Clients) -> None:
    """In random order, until each blow has hit as often as it should, or it is late."""
    missing = [blow for blow in storm.weather.blows for _ in range(storm.weather.rounds)]
    clients.wait_for_answers(20, timeout=60)
    while missing and not storm.late:
        storm.chance.shuffle(missing)
        for blow in tuple(missing):
            storm.over.wait(storm.chance.uniform(*storm.weather.between))
            began = time.monotonic_ns()
            hit = STRIKE[blow](storm, clients)
            storm.journal.append(Struck(t=began, blow=blow, hit=hit, until=time.monotonic_ns()))
            if hit:
                missing.remove(blow)
            clients.wait_for_answers(5, timeout=60)


# Workers


def kill_a_worker(storm: Storm, clients: Clients) -> bool:
    """`kill -9` all processes of a worker at once, and start it again."""
    name = _a_worker(storm)
    hit = _still(storm, name)
    group = storm.workers[name].pid
    storm.journal.append(Killed(groups=(group,), processes=tuple(storm.group(name))))
    storm.workers[name].kill()
    storm.start_worker(name)
    return hit


def kill_a_pools_process(storm: Storm, clients: Clients) -> bool:
    """`kill -9` one process of a prefork pool, which Celery replaces."""
    storm.revive()
    hit = _still(storm, "left")
    group = storm.group("left")
    busy = [process for process in group if storm.follower.running_in([process])]
    if busy or group:
        process = storm.chance.choice(busy or group)
        storm.journal.append(Killed(processes=(process,)))
        send(process, signal.SIGKILL)
    os.killpg(storm.workers["left"].pid, signal.SIGCONT)
    return hit


def freeze_a_worker(storm: Storm, clients: Clients) -> bool:
    """Past its lease: others take over what it ran. Then it goes on, and has to settle nothing of that."""
    name = _a_worker(storm)
    began = time.monotonic_ns()
    _still(storm, name)
    group = storm.group(name)
    taken = _taken_over(storm, group)
    os.killpg(storm.workers[name].pid, signal.SIGCONT)
    _outage(storm, group, began)
    return _come_too_late(storm, taken)


def cut_off_a_worker(storm: Storm, clients: Clients) -> bool:
    """From ledger and broker, by a link that drops everything, for longer than its lease."""
    name = _a_worker(storm)
    began = time.monotonic_ns()
    for _ in range(TRIES):
        storm.network.cut(name)
        if storm.follower.look().running_in(storm.group(name)):
            break
        storm.network.heal(name)
        storm.over.wait(0.1)
    storm.network.cut(name)
    group = storm.group(name)
    taken = _taken_over(storm, group)
    storm.network.heal(name)
    # A session that sent into the void sends again after twice as long each time.
    _outage(storm, group, began, longer=2.0)
    return _come_too_late(storm, taken)


def _taken_over(storm: Storm, group: list[str]) -> list[Started]:
    """Wait until others have something that these, who are out of touch, run just now; what they have."""
    cut_off = storm.follower.look().running_in(group)
    storm.over.wait(storm.weather.lease + BEYOND)
    if cut_off:
        with suppress(AssertionError):
            return wait_until(lambda: _lost(storm, cut_off), timeout=storm.weather.lease, every=0.2)
    return []


def _lost(storm: Storm, cut_off: list[Started]) -> list[Started]:
    """Those whose claims are no longer held."""
    held = {row["id"]: row["claim"] for row in storm.ask(RUNNING)}
    return [one for one in cut_off if one.record is not None and held.get(one.record) != one.claim]


def _come_too_late(storm: Storm, taken: list[Started]) -> bool:
    """Whether one of these has ended all the same; a process that goes on may need a while for that."""
    with suppress(AssertionError):
        wait_until(lambda: any(one.run not in storm.follower.look().running for one in taken), timeout=5)
    return any(one.run not in storm.follower.running for one in taken)


def _a_worker(storm: Storm) -> str:
    name = storm.chance.choice(list(POOLS))
    storm.revive()
    return name


def _still(storm: Storm, name: str) -> bool:
    """Stop a worker's processes while they run something; False if they run nothing all the time."""
    group = storm.workers[name].pid
    for _ in range(TRIES):
        os.killpg(group, signal.SIGSTOP)
        if storm.follower.look().running_in(storm.group(name)):
            return True
        os.killpg(group, signal.SIGCONT)
        storm.over.wait(0.1)
    os.killpg(group, signal.SIGSTOP)
    return False


def _outage(storm: Storm, group: list[str], began: int, *, longer: float = 1.0) -> None:
    now = time.monotonic_ns()
    until = now + round((now - began) * (longer - 1))
    robs = began + round(storm.weather.lease / 2 * SECOND)  # it renewed a third of a lease before, or less
    storm.journal.append(Outage(t=began, processes=tuple(group), until=until, robs=robs))


# The broker


def kill_the_broker(storm: Storm, clients: Clients) -> bool:
    """`kill -9`, and started again: Redis has forgotten everything then. To hit, it had messages about
    records of which one is published again, and not delivered before by a broker that kept them."""
    follower = storm.follower
    for _ in range(TRIES):
        if follower.look().waiting:
            break
        storm.over.wait(0.05)
    killed = BrokerKilled(t=time.monotonic_ns(), records=tuple(follower.waiting))
    storm.broker.stop(signal.SIGKILL)
    storm.journal.append(killed)
    storm.over.wait(storm.chance.uniform(0.0, 1.0))
    storm.broker.start()

    def again() -> bool:
        sent = follower.look().published
        return any(sent[id] >= killed.t for id in killed.records)

    with suppress(AssertionError):
        wait_until(again, timeout=5)
    return again()


def freeze_the_broker(storm: Storm, clients: Clients) -> bool:
    """It takes connections, and answers nothing. No request may wait for it."""
    storm.broker.signal(signal.SIGSTOP)
    hit = _answered_meanwhile(storm, clients)
    storm.broker.signal(signal.SIGCONT)
    return hit


def cut_off_the_broker(storm: Storm, clients: Clients) -> bool:
    """Its link drops everything, and tells nobody."""
    storm.network.cut("post")
    hit = _answered_meanwhile(storm, clients)
    storm.network.heal("post")
    return hit


def _answered_meanwhile(storm: Storm, clients: Clients) -> bool:
    before = clients.answers
    storm.over.wait(storm.chance.uniform(*SHORT))
    return clients.answers > before


def echo(storm: Storm, clients: Clients) -> bool:
    """Messages come once more: about what runs, what waits and what has ended long ago."""
    ids = list(storm.follower.look().started)
    chosen = [storm.chance.choice(ids) for _ in range(ECHOES)] + ids[-ECHOES:]
    before = storm.follower.dropped
    with storm.network["home"].inside():
        celery = make_app(storm.broker.url())
        try:
            for id in chosen:
                celery.send_task(RUN, args=(id,), queue="default", task_id=id, retry=False)
        except Exception:  # a broker that is about to come back; the libraries raise of every kind
            return False
        finally:
            celery.close()
    with suppress(AssertionError):
        wait_until(lambda: storm.follower.look().dropped > before, timeout=5)
    return storm.follower.dropped > before


# The ledger


def restart_the_ledger(storm: Storm, clients: Clients) -> bool:
    """Its sessions are ended in good order, whatever they are at."""
    return _restart(storm, signal.SIGINT)


def kill_the_ledger(storm: Storm, clients: Clients) -> bool:
    """Its sessions break off wherever they are, in a COMMIT too."""
    return _restart(storm, signal.SIGQUIT)


def _restart(storm: Storm, number: signal.Signals) -> bool:
    hit = bool(storm.follower.look().running)
    storm.ledger.stop(number)
    storm.over.wait(storm.chance.uniform(0.0, 1.0))
    storm.ledger.start()
    with suppress(AssertionError):
        wait_until(lambda: _can_be_asked(storm), timeout=20)
    return hit


def _can_be_asked(storm: Storm) -> bool:
    try:
        storm.ask("SELECT 1")
    except psycopg.Error:
        return False
    return True


STRIKE: dict[str, Blow] = {
    "kill a worker": kill_a_worker,
    "kill a pool's process": kill_a_pools_process,
    "freeze a worker": freeze_a_worker,
    "cut off a worker": cut_off_a_worker,
    "kill the broker": kill_the_broker,
    "freeze the broker": freeze_the_broker,
    "cut off the broker": cut_off_the_broker,
    "restart the ledger": restart_the_ledger,
    "kill the ledger": kill_the_ledger,
    "echo": echo,
}
