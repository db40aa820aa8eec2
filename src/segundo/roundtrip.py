"""Did JSON bring back what was sent? `difference` compares the two deeply, and in type.

`==` is too kind a judge: True == 1 == 1.0, a StrEnum member equals its str, a list of floats equals one of ints. And it
is too hard a judge: nan differs from itself, and a dataclass with eq=False from its copy. Values are never quoted in
what is said about them, because what is said ends up in logs.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import islice
from types import NoneType
from typing import Any, TypeAlias
from uuid import UUID

from pydantic import BaseModel, Secret, SecretBytes, SecretStr

Step: TypeAlias = str | int
# Where in a value: linked backwards, so that going down costs one small tuple and nothing is joined until asked for.
Trail: TypeAlias = "tuple[Trail, Step] | None"
# The models found whose maker left fields unset: where, and which.
Unset: TypeAlias = "list[tuple[Trail, list[str]]]"
Comparison: TypeAlias = "Callable[[Any, Any, Trail, Unset], Difference | None]"

EXACT = frozenset({str, int, bool, NoneType, bytes, date, timedelta, UUID})  # of one type, `==` says all


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the two differ, and a phrase that says how; its subject is the value there."""

    trail: Trail
    why: str


class Unassigned:
    """Stands for a field that an object does not have."""


UNASSIGNED = Unassigned()


def steps(trail: Trail) -> tuple[Step, ...]:
    """A trail from the top: ("order", "lines", 0)."""
    found: list[Step] = []
    while trail is not None:
        trail, step = trail
        found.append(step)
    return tuple(reversed(found))


def place(path: Iterable[Step]) -> str:
    """A path as a reader of Python writes it: .order.lines[0]"""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


def difference(sent: Any, back: Any, trail: Trail, unset: Unset) -> Difference | None:
    """The first difference, or None. Adds to `unset` the models whose maker had set fewer fields than are set now."""
    kind: type[Any] = type(sent)
    if kind is not type(back):
        return Difference(
            trail, f"is {named(kind, type(back))} and would come back as {named(type(back), kind)}"
        )
    if kind in EXACT:
        return None if sent == back else changed(trail)
    compare = BUILT_IN.get(kind) or comparison(kind)
    return compare(sent, back, trail, unset)


def named(kind: type[Any], other: type[Any]) -> str:
    """A type's name, with its module where the bare name would not tell it from the other."""
    return (
        kind.__qualname__
        if kind.__qualname__ != other.__qualname__
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def changed(trail: Trail) -> Difference:
    return Difference(trail, "would come back changed")


def compare_models(sent: Any, back: Any, trail: Trail, unset: Unset) -> Difference | None:
    kind: type[BaseModel] = type(sent)
    declared = kind.__pydantic_fields__
    ours, theirs = sent.__dict__, back.__dict__
    for name in declared:  # not all of __dict__: a cached_property keeps its value there too
        value, twin = ours.get(name, UNASSIGNED), theirs.get(name, UNASSIGNED)
        if type(value) in EXACT and type(value) is type(twin) and value == twin:
            continue
        found = difference(value, twin, (trail, name), unset)
        if found is not None:
            return left_out((trail, name)) if declared[name].exclude else found
    for held, twin in (
        (sent.__pydantic_extra__, back.__pydantic_extra__),
        (sent.__pydantic_private__, back.__pydantic_private__),
    ):
        found = None if held is twin else difference(held, twin, trail, unset)  # mostly both None
        if found is not None:
            return found
    set_now, set_then = back.__pydantic_fields_set__, sent.__pydantic_fields_set__
    if set_now != set_then:
        # model_dump(exclude_unset=True) is how a partial update is read: a field the maker left unset must stay so.
        if not set_then <= set_now:
            return left_out((trail, min(set_then - set_now)))
        unset.append((trail, sorted(set_now - set_then)))
    return None


def left_out(trail: Trail) -> Difference:
    return Difference(trail, "is left out when it is written (exclude=True)")


def compare_dataclasses(sent: Any, back: Any, trail: Trail, unset: Unset) -> Difference | None:
    for field in fields(sent):  # also those with compare=False, and of a class with eq=False
        name = field.name
        value, twin = getattr(sent, name, UNASSIGNED), getattr(back, name, UNASSIGNED)
        found = difference(value, twin, (trail, name), unset)
        if found is not None:
            return found
    return None


def compare_mappings(sent: Any, back: Any, trail: Trail, unset: Unset) -> Difference | None:
    if len(sent) != len(back):
        return changed(trail)
    keys = {key: key for key in back}
    for position, (key, value) in enumerate(sent.items()):
        twin_key = keys.get(key, UNASSIGNED)
        if type(twin_key) is not type(key) or type(key) not in EXACT:
            twin_key = counterpart(key, keys)
            if twin_key is UNASSIGNED:
                return Difference(
                    trail, f"has a key, of type {type(key).__qualname__}, that would not come back as it is"
                )
        twin = back[twin_key]
        if type(value) in EXACT and type(value) is type(twin) and value == twin:
            continue
        step = key if type(key) is str else position
        found = difference(value, twin, (trail, step), unset)
        if found is not None:
            return found
    return None


def compare_sets(sent: Any, back: Any, trail: Trail, unset: Unset) -> Difference | None:
    if len(sent) != len(back):
        return changed(trail)
    twins = {item: item for item in back}
    for item in sent:
        if counterpart(item, twins) is UNASSIGNED:
            return Difference(trail, f"holds {type(item).__qualname__} that would not come back as it is")
    return None


def counterpart(item: Any, twins: Mapping[Any, Any]) -> Any:
    """The same item, deeply and in type, among those that came back. Only nan, at any depth, needs the search.

    An item of a set has no path, so fields that its maker left unset are not remembered there.
    """
    twin = twins.get(item, UNASSIGNED)
    if twin is not UNASSIGNED and difference(item, twin, None, []) is None:
        return twin
    return next((twin for twin in twins if difference(item, twin, None, []) is None), UNASSIGNED)


def compare_rows(sent: Any, back: Any, trail: Trail, unset: Unset) -> Difference | None:
    if len(sent) != len(back):
        return changed(trail)
    for position, (value, twin) in enumerate(zip(sent, back, strict=True)):
        if type(value) in EXACT and type(value) is type(twin) and value == twin:
            continue
        found = difference(value, twin, (trail, position), unset)
        if found is not None:
            return found
    return None


def compare_deques(sent: Any, back: Any, trail: Trail, unset: Unset) -> Difference | None:
    return compare_rows(sent, back, trail, unset) if sent.maxlen == back.maxlen else changed(trail)


def compare_floats(sent: Any, back: Any, trail: Trail, unset: Unset) -> Difference | None:
    return None if sent == back or (sent != sent and back != back) else changed(trail)


def compare_decimals(sent: Any, back: Any, trail: Trail, unset: Unset) -> Difference | None:
    if sent.is_nan() or back.is_nan():  # asked first: a signalling nan raises when it is compared
        return None if sent.is_qnan() and back.is_qnan() else changed(trail)
    return None if sent == back else changed(trail)


def compare_times(sent: Any, back: Any, trail: Trail, unset: Unset) -> Difference | None:
    # Clock and offset, not `==`: across zones that is False for every moment that a clock shows twice. And a time in a
    # named zone has no offset, so whether there is a zone is asked on its own.
    same = (
        sent.replace(tzinfo=None) == back.replace(tzinfo=None)
        and sent.utcoffset() == back.utcoffset()
        and (sent.tzinfo is None) == (back.tzinfo is None)
    )
    return None if same else changed(trail)


def compare_members(sent: Any, back: Any, trail: Trail, unset: Unset) -> Difference | None:
    return None if sent is back else changed(trail)


def refuse_secrets(sent: Any, back: Any, trail: Trail, unset: Unset) -> Difference | None:
    return Difference(trail, f"is {type(sent).__qualname__}, which is masked when it is written")


def compare_objects(sent: Any, back: Any, trail: Trail, unset: Unset) -> Difference | None:
    try:
        return None if bool(sent == back) else changed(trail)
    except Exception as error:  # whatever a foreign __eq__ raises: what cannot be compared cannot be proven
        return Difference(trail, f"cannot be compared with what would come back ({type(error).__name__})")


# float is compared on its own: nan. So are these: they are common, and looking a type up is cheaper than asking on.
BUILT_IN: Mapping[type[Any], Comparison] = {
    dict: compare_mappings,
    list: compare_rows,
    tuple: compare_rows,
    set: compare_sets,
    frozenset: compare_sets,
    float: compare_floats,
    Decimal: compare_decimals,
    datetime: compare_times,
    time: compare_times,
}
FAMILIES: Sequence[tuple[tuple[type[Any], ...], Comparison]] = (
    ((BaseModel,), compare_models),
    ((Enum,), compare_members),  # before what an enum may be as well: a str, an int, a tuple
    ((Secret, SecretStr, SecretBytes), refuse_secrets),
    ((deque,), compare_deques),
    ((list, tuple), compare_rows),
    ((set, frozenset), compare_sets),
    ((Mapping,), compare_mappings),
    ((float,), compare_floats),
    ((Decimal,), compare_decimals),
    ((datetime, time), compare_times),
)


def comparison(kind: type[Any]) -> Comparison:
    for family, compare in FAMILIES:
        if issubclass(kind, family):
            return compare
    return compare_dataclasses if is_dataclass(kind) else compare_objects


def unset_again(value: Any, path: Sequence[Step], names: Sequence[str]) -> None:
    """Mark fields of the model at a path as not set by its maker. LookupError where there is no such model."""
    for step in path:
        value = child(value, step)
    if not isinstance(value, BaseModel):
        raise LookupError(f"no model at {place(path)}")
    value.model_fields_set.difference_update(names)


def child(value: Any, step: Step) -> Any:
    """What a step of `difference` leads to. The step comes out of a payload: it names fields, never any attribute."""
    if isinstance(value, BaseModel):
        return (
            value.__dict__[step] if step in type(value).model_fields else (value.model_extra or {})[str(step)]
        )
    if isinstance(value, Mapping):
        return value[step] if isinstance(step, str) else next(islice(value.values(), step, None))
    if isinstance(value, list | tuple | deque) and isinstance(step, int):
        return value[step]
    if is_dataclass(value) and step in {field.name for field in fields(value)}:
        return getattr(value, str(step))
    raise LookupError(f"no step {step!r} here")
