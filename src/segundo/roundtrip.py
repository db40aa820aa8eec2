"""Did JSON bring back what was sent? `difference` compares the two deeply, and in type.

`==` is too kind a judge: True == 1 == 1.0, and a StrEnum member equals its str. And it is too hard a judge:
nan differs from itself, and an object of a dataclass with eq=False from its copy. What is said about a value
names its type and where it is (by names, positions and keys) and never quotes it: it ends up in logs.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import NoneType
from typing import Any, TypeAlias, cast
from uuid import UUID

from pydantic import BaseModel, Secret, SecretBytes, SecretStr

Step: TypeAlias = str | int
# Where in a value: linked backwards, so that going down costs one small tuple and nothing is joined early.
Trail: TypeAlias = "tuple[Trail, Step] | None"
# The models found whose maker left fields unset: where, and which.
Unset: TypeAlias = "list[tuple[Trail, list[str]]]"


class InClear(list["tuple[Trail, list[str]]"]):
    """The same, where secrets are written in clear, so that they can be compared."""


Comparison: TypeAlias = "Callable[[Any, Any, Trail, Unset], Difference | None]"

EXACT = frozenset({str, int, bool, NoneType, bytes, date, timedelta, UUID})  # of one such type, `==` says all


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


def difference(sent: object, back: object, trail: Trail, unset: Unset) -> Difference | None:
    """The first difference, or None. Adds to `unset` the models whose maker had set fewer fields.

    The loops over parts first ask themselves what is asked here, for most parts are of the EXACT types.
    """
    kind = type(sent)
    if kind is not type(back):
        if kind is int and type(back) is float:  # whoever asks for a float takes an int (PEP 484)
            return None if sent == back else changed(trail)
        return other_type(kind, type(back), trail)
    if kind in EXACT:
        return None if sent == back else changed(trail)
    compare = BUILT_IN.get(kind) or comparison(kind)
    return compare(sent, back, trail, unset)


def other_type(kind: type[object], other: type[object], trail: Trail) -> Difference:
    here, there = kind.__qualname__, other.__qualname__
    if here == there:  # two of one name: their modules tell them apart
        here, there = f"{kind.__module__}.{here}", f"{other.__module__}.{there}"
    return Difference(trail, f"is {here} and would come back as {there}")


def changed(trail: Trail) -> Difference:
    return Difference(trail, "would come back changed")


def left_out(trail: Trail) -> Difference:
    return Difference(trail, "is left out when it is written (exclude=True)")


def compare_models(sent: BaseModel, back: BaseModel, trail: Trail, unset: Unset) -> Difference | None:
    declared = type(sent).__pydantic_fields__
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
        found = None if held is twin else difference(held, twin, trail, unset)  # mostly both are None
        if found is not None:
            return found
    return compare_set_fields(sent.__pydantic_fields_set__, back.__pydantic_fields_set__, trail, unset)


def compare_set_fields(sent: set[str], back: set[str], trail: Trail, unset: Unset) -> Difference | None:
    # A partial update is read with model_dump(exclude_unset=True): what its maker left unset must stay unset.
    if sent == back:
        return None
    if not sent <= back:
        return left_out((trail, min(sent - back)))
    unset.append((trail, sorted(back - sent)))
    return None


def compare_dataclasses(sent: Any, back: Any, trail: Trail, unset: Unset) -> Difference | None:
    for field in fields(sent):  # also those with compare=False, and of a class with eq=False
        name = field.name
        value, twin = getattr(sent, name, UNASSIGNED), getattr(back, name, UNASSIGNED)
        found = difference(value, twin, (trail, name), unset)
        if found is not None:
            return found
    return None


def compare_mappings(
    sent: Mapping[Any, Any], back: Mapping[Any, Any], trail: Trail, unset: Unset
) -> Difference | None:
    if len(sent) != len(back):
        return changed(trail)
    twins = {key: key for key in back}
    for position, (key, value) in enumerate(sent.items()):
        twin_key = twins.get(key, UNASSIGNED)
        if type(key) not in EXACT or type(key) is not type(twin_key):
            twin_key = counterpart(key, twins)
            if twin_key is UNASSIGNED:
                return Difference(
                    trail, f"has a key of type {type(key).__qualname__} that would not come back"
                )
        twin = back[twin_key]
        if type(value) in EXACT and type(value) is type(twin) and value == twin:
            continue
        found = difference(value, twin, (trail, key if type(key) is str else position), unset)
        if found is not None:
            return found
    return None


def compare_sets(
    sent: AbstractSet[Any], back: AbstractSet[Any], trail: Trail, unset: Unset
) -> Difference | None:
    if len(sent) != len(back):
        return changed(trail)
    twins = {item: item for item in back}
    for item in sent:
        if counterpart(item, twins) is UNASSIGNED:
            return Difference(trail, f"holds {type(item).__qualname__} that would not come back")
    return None


def counterpart(item: Any, twins: Mapping[Any, Any]) -> Any:
    """The same item, deeply and in type, of those that came back. Only nan, at any depth, needs the search.

    An item of a set or a key has no path, so which of its fields were left unset is not remembered.
    """
    twin = twins.get(item, UNASSIGNED)
    if twin is not UNASSIGNED and difference(item, twin, None, []) is None:
        return twin
    return next((twin for twin in twins if difference(item, twin, None, []) is None), UNASSIGNED)


def compare_rows(sent: Sequence[Any], back: Sequence[Any], trail: Trail, unset: Unset) -> Difference | None:
    if len(sent) != len(back):
        return changed(trail)
    for position, (value, twin) in enumerate(zip(sent, back, strict=True)):
        if type(value) in EXACT and type(value) is type(twin) and value == twin:
            continue
        found = difference(value, twin, (trail, position), unset)
        if found is not None:
            return found
    return None


def compare_deques(sent: deque[Any], back: deque[Any], trail: Trail, unset: Unset) -> Difference | None:
    return compare_rows(sent, back, trail, unset) if sent.maxlen == back.maxlen else changed(trail)


def compare_floats(sent: float, back: float, trail: Trail, unset: Unset) -> Difference | None:
    return None if sent == back or (sent != sent and back != back) else changed(trail)


def compare_decimals(sent: Decimal, back: Decimal, trail: Trail, unset: Unset) -> Difference | None:
    if sent.is_nan() or back.is_nan():  # asked first: a signalling nan raises when it is compared
        return None if sent.is_qnan() and back.is_qnan() else changed(trail)
    return None if sent == back else changed(trail)


def compare_times(sent: Any, back: Any, trail: Trail, unset: Unset) -> Difference | None:
    # Clock and offset, for `==` of two zones is False at any moment that a clock shows twice. A time in a
    # named zone has no offset to compare, so it is asked as well whether there is a zone.
    same = (
        sent.replace(tzinfo=None) == back.replace(tzinfo=None)
        and sent.utcoffset() == back.utcoffset()
        and (sent.tzinfo is None) == (back.tzinfo is None)
    )
    return None if same else changed(trail)


def compare_secrets(sent: Any, back: Any, trail: Trail, unset: Unset) -> Difference | None:
    if isinstance(unset, InClear):
        return difference(sent.get_secret_value(), back.get_secret_value(), trail, unset)
    kind = type(sent).__qualname__
    return Difference(trail, f"is {kind}, which is masked when it is written, but for @task(secret=True)")


def compare_objects(sent: object, back: object, trail: Trail, unset: Unset) -> Difference | None:
    try:
        return None if bool(sent == back) else changed(trail)
    except Exception as error:  # what a foreign __eq__ raises: what cannot be compared is not proven
        return Difference(trail, f"cannot be compared with what would come back ({type(error).__name__})")


# What is met most is looked up, as that is cheaper than to ask what it is an instance of.
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
    ((Secret, SecretStr, SecretBytes), compare_secrets),
    ((deque,), compare_deques),
    ((list, tuple), compare_rows),
    ((set, frozenset), compare_sets),
    ((Mapping,), compare_mappings),
    ((float,), compare_floats),
    ((Decimal,), compare_decimals),
    ((datetime, time), compare_times),
)


def comparison(kind: type[object]) -> Comparison:
    for family, compare in FAMILIES:
        if issubclass(kind, family):
            return compare
    return compare_dataclasses if is_dataclass(kind) else compare_objects


def unset_again(value: object, path: Sequence[Step], names: Sequence[str]) -> None:
    """Mark fields of the model at a path as not set by its maker. LookupError if no model is there."""
    for step in path:
        value = in_order(value)[step] if isinstance(step, int) else by_name(value)[step]
    if not isinstance(value, BaseModel):
        raise LookupError(f"there is no model at {place(path)}")
    value.model_fields_set.difference_update(names)


# A path comes out of a payload, which may be forged: it reaches parts of a value, never any other attribute.


def in_order(value: object) -> Sequence[object]:
    if isinstance(value, Mapping):
        return list(cast("Mapping[object, object]", value).values())
    return cast("Sequence[object]", value) if isinstance(value, list | tuple | deque) else ()


def by_name(value: object) -> Mapping[str, object]:
    if isinstance(value, BaseModel):
        return value.__dict__ | (value.model_extra or {})
    if isinstance(value, Mapping):
        return cast("Mapping[str, object]", value)
    return {field.name: getattr(value, field.name) for field in fields(value)} if is_dataclass(value) else {}
