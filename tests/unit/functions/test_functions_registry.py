"""Names, groups, options, and the way from a ref or a path to the function."""

from __future__ import annotations

import copy
import datetime as dt
import functools
import pickle
from typing import Any

import pytest

from confect_celery.errors import DuplicateFunction, InvalidTime, ServiceError, UnknownFunction
from confect_celery.functions import (
    ActionRef,
    FunctionOptions,
    FunctionRef,
    Group,
    InternalActionRef,
    InternalMutationRef,
    MutationRef,
    QueryRef,
    Refs,
    Registry,
)
from confect_celery.timing import Duration

registry = Registry()
users = Group(registry, "users")
refs = Refs()


@users.internal_mutation
def remind() -> str:
    """Remind them."""
    return "reminded"


@users.query(queue="reads")
def read() -> int:
    return 1


@pytest.fixture
def group() -> Group:
    return Group(Registry(), "users")


def plain() -> str:
    return "plain"


def test_each_decorator_makes_its_own_kind(group: Group) -> None:
    made: list[tuple[Any, type[Any], str]] = [
        (group.query, QueryRef, "public/users/plain"),
        (group.mutation, MutationRef, "public/users/plain"),
        (group.action, ActionRef, "public/users/plain"),
        (group.internal_query, QueryRef, "internal/users/plain"),
        (group.internal_mutation, InternalMutationRef, "internal/users/plain"),
        (group.internal_action, InternalActionRef, "internal/users/plain"),
    ]
    for decorator, cls, name in made:
        ref = decorator(plain)
        assert type(ref) is cls
        assert ref.name == name
        assert f"{ref.visibility}" == name.split("/")[0]
        assert ref.kind in cls.__name__.lower()
        assert type(decorator()(plain)) is type(decorator(queue="x")(plain)) is cls


def test_a_ref_is_the_function_still() -> None:
    assert remind() == "reminded"
    assert vars(remind)["__name__"] == "remind"
    assert remind.__doc__ == "Remind them."
    assert repr(remind) == "<internal mutation internal/users/remind>"


def test_options(group: Group) -> None:
    def options(**given: Any) -> FunctionOptions:
        ref: FunctionRef[Any, Any] = group.action(**given)(plain)
        return ref.options

    assert options() == FunctionOptions(None, None, None, ())
    assert options(queue="q", priority=3, errors=(ValueError,)) == FunctionOptions("q", 3, None, (ValueError,))
    assert options(time_limit=Duration.minutes(1)).time_limit == 60.0
    assert options(time_limit=dt.timedelta(milliseconds=1500)).time_limit == 1.5
    for bare in (60, 1.5, "60", True):
        with pytest.raises(InvalidTime, match="Duration or a timedelta"):
            options(time_limit=bare)
    for nothing in (Duration.zero, -Duration.seconds(1)):
        with pytest.raises(ServiceError, match="time_limit"):
            options(time_limit=nothing)
    for errors in (ValueError, [ValueError], (ValueError("x"),), ("ValueError",), (KeyboardInterrupt,), (int,)):
        with pytest.raises(ServiceError, match="tuple of exception classes"):
            options(errors=errors)
    with pytest.raises(TypeError, match="eta"):
        options(eta=3)


def test_nested_groups(group: Group) -> None:
    deep = Group(Registry(), "billing.invoices").group("late.fees")
    assert deep.path == "billing.invoices.late.fees"
    assert deep.query(plain).name == "public/billing/invoices/late/fees/plain"
    assert refs.internal.billing.invoices.late.fees.plain.name == "internal/billing/invoices/late/fees/plain"


@pytest.mark.parametrize(
    "path",
    ["", ".", "a.", ".a", "a..b", "a/b", "a b", "a-b", "1a", "_a", "a._b", "é", "class", "name", "a.name", "a\n"],
)
def test_a_group_has_a_name_that_refs_can_follow(path: str) -> None:
    with pytest.raises(ServiceError, match="is no name for it"):
        Group(Registry(), path)


def test_a_function_has_such_a_name_too(group: Group) -> None:
    def _private() -> None: ...
    def name() -> None: ...

    for function in (_private, name, lambda: None):
        with pytest.raises(ServiceError, match="is no name for it"):
            group.query(function)


def test_only_functions_are_decorated(group: Group) -> None:
    class NoFunction: ...

    for thing in (3, functools.partial(plain), NoFunction):
        with pytest.raises(TypeError, match="is no function"):
            group.query(thing)  # type: ignore[arg-type]


def test_a_name_is_taken_once(group: Group) -> None:
    def other() -> None: ...

    other.__name__ = "plain"
    first = group.query(plain)
    assert group.mutation(plain).name == first.name, "a reload replaces, whatever changed"
    with pytest.raises(DuplicateFunction, match="public/users/plain"):
        group.query(other)
    assert group.internal_query(other).name == "internal/users/plain"


def test_a_module_imported_anew_replaces_its_functions() -> None:
    seen: list[str] = []
    registry = Registry(lambda ref: seen.append(ref.name))
    group = Group(registry, "users")
    source = "@group.query\ndef read() -> int:\n    return {}\n"
    namespace: dict[str, Any] = {"group": group, "__name__": "reloaded"}
    for number in (1, 2):
        exec(source.format(number), namespace)
    assert registry.get("public/users/read")() == 2
    assert seen == ["public/users/read"] * 2
    assert [ref.name for ref in registry] == ["public/users/read"]


def test_a_refused_function_is_not_registered(group: Group) -> None:
    registry = Registry()

    def broken(x) -> None: ...  # type: ignore[no-untyped-def]

    with pytest.raises(ServiceError):
        Group(registry, "users").query(broken)
    assert "public/users/broken" not in registry
    assert list(registry) == []


def test_an_unknown_function_brings_close_matches() -> None:
    with pytest.raises(UnknownFunction) as raised:
        registry.get("internal/users/remnid")
    assert raised.value.name == "internal/users/remnid"
    assert raised.value.close == ("internal/users/remind",)
    with pytest.raises(UnknownFunction) as raised:
        registry.get("zzz")
    assert raised.value.close == ()


def test_resolving() -> None:
    assert registry.resolve(remind) is remind
    assert registry.resolve(refs.internal.users.remind) is remind
    assert registry.resolve(refs.public.users.read) is read
    with pytest.raises(UnknownFunction, match=r"Did you mean 'internal/users/remind'\?"):
        registry.resolve(refs.internal.user.remind)
    with pytest.raises(UnknownFunction):
        registry.resolve(refs.public.users)
    for thing in (plain, "internal/users/remind", None, refs):
        with pytest.raises(TypeError, match="is no function of Confect's"):
            registry.resolve(thing)


def test_a_function_of_another_app_is_unknown() -> None:
    stranger = Group(Registry(), "others").query(plain)
    with pytest.raises(UnknownFunction, match="public/others/plain"):
        registry.resolve(stranger)


def test_paths_are_values() -> None:
    path = refs.internal.users.remind
    assert path == Refs().internal.users.remind
    assert hash(path) == hash(Refs().internal.users.remind)
    assert path != refs.internal.users.read
    assert path != "internal/users/remind"
    assert repr(path) == "refs.internal.users.remind"


def test_paths_have_no_private_parts() -> None:
    for private in ("_x", "__wrapped__", "_repr_html_", "__deepcopy__", "__len__"):
        with pytest.raises(AttributeError, match=private):
            getattr(refs.internal.users, private)
        assert not hasattr(refs.public, private)
    assert not callable(refs.internal.users.remind)
    with pytest.raises(AttributeError):
        _ = refs.private  # type: ignore[attr-defined]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_paths_and_refs_are_pickled_and_copied(protocol: int) -> None:
    for path in (refs.internal.users.remind, refs.public.a.b):
        for back in (pickle.loads(pickle.dumps(path, protocol)), copy.copy(path), copy.deepcopy(path)):
            assert back == path
            assert type(back) is type(path)
            assert back.more.name == f"{path.name}/more"
    for ref in (remind, read):
        assert pickle.loads(pickle.dumps(ref, protocol)) is ref
        assert copy.deepcopy([ref])[0] is copy.copy(ref) is ref
