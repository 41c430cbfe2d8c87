"""Services: what functions ask for by annotation, which kinds may have it, and how it is made."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from confect_celery.errors import ServiceError
from confect_celery.functions.ref import FunctionRef, Kind
from confect_celery.functions.signature import parameters_of

__all__ = ["Services"]

_EVERY: frozenset[Kind] = frozenset(("query", "mutation", "action"))


@dataclass(frozen=True, slots=True)
class _Provider:
    kinds: frozenset[Kind]
    factory: Callable[..., Any] | None = None
    """None for a built-in service: its value comes from the running call."""
    managed: bool = False


class Services:
    """The services of one app.

    Built-in ones are declared with the kinds that may have them, and their values come from each call's scope. The
    shop's own are provided by a factory, whose annotated parameters are services as well.
    """

    def __init__(self) -> None:
        self._providers: dict[object, _Provider] = {}

    def declare(self, service: object, kinds: frozenset[Kind]) -> None:
        """A built-in service for functions of these kinds."""
        self._providers[service] = _Provider(kinds)

    def provide(self, service: Any, factory: Callable[..., Any]) -> None:
        """The shop's own service, made anew for each call that asks for it, once a call.

        A generator function, bare or under `contextlib.contextmanager`, is entered before the function and left after
        it, and the function's exception is raised inside it. Anything else is called, and what it returns is used.
        """
        self._providers[service] = _shop_provider(factory)

    @contextmanager
    def override(self, service: object, fake: Any) -> Iterator[None]:
        """For the length of the block, `fake` stands in: a function or a class is called as a factory, else it is the
        value itself."""
        before = self._providers.get(service)
        callable_factory = inspect.isroutine(fake) or inspect.isclass(fake)
        provider = _shop_provider(fake if callable_factory else lambda: fake)
        self._providers[service] = provider
        try:
            yield
        finally:
            if before is None:
                del self._providers[service]
            else:
                self._providers[service] = before

    def check(self, ref: FunctionRef[Any, Any]) -> None:
        """Raise ServiceError naming the function and the parameter that cannot be injected."""
        try:
            wanted = ref.signature.services
        except NameError as error:
            raise ServiceError(
                ref.name,
                None,
                f"an annotation cannot be resolved: {error}. What it names must be in the function's module.",
            ) from None
        for parameter, service in wanted.items():
            self._check_one(ref, parameter, service, ())

    def _check_one(
        self, ref: FunctionRef[Any, Any], parameter: str, service: object, above: tuple[object, ...]
    ) -> None:
        provider = self._providers.get(service)
        if provider is None:
            hint = f"Provide it with confect.provide({_name(service)}, …), or check the annotation."
            raise ServiceError(ref.name, parameter, f"there is no service {_name(service)}. {hint}")
        if ref.kind not in provider.kinds:
            may = " and ".join(sorted(provider.kinds))
            raise ServiceError(
                ref.name,
                parameter,
                f"{ref.kind} functions may not have {_name(service)}, which is for {may} functions only.",
            )
        if service in above:
            chain = " → ".join(_name(each) for each in (*above, service))
            raise ServiceError(ref.name, parameter, f"the factories need each other: {chain}.")
        if provider.factory is not None:
            for inner in parameters_of(provider.factory, _name(provider.factory)).values():
                self._check_one(ref, parameter, inner, (*above, service))

    def inject(
        self, ref: FunctionRef[Any, Any], scope: Mapping[Any, Callable[[], object]], stack: ExitStack
    ) -> dict[str, object]:
        """The values of the function's services, by parameter. `scope` makes the built-in ones; context managers are
        entered on `stack`. Raises ServiceError as `check` does, and whatever a factory raises."""
        self.check(ref)
        made: dict[object, object] = {}

        def make(service: object) -> object:
            if service not in made:
                provider = self._providers[service]
                if provider.factory is None:
                    made[service] = scope[service]()
                else:
                    needs = parameters_of(provider.factory, _name(provider.factory))
                    value = provider.factory(**{name: make(inner) for name, inner in needs.items()})
                    made[service] = stack.enter_context(value) if provider.managed else value
            return made[service]

        return {parameter: make(service) for parameter, service in ref.signature.services.items()}


def _shop_provider(factory: Callable[..., Any]) -> _Provider:
    if inspect.isgeneratorfunction(factory):
        return _Provider(_EVERY, contextmanager(factory), managed=True)
    # What @contextmanager makes remembers the generator function it wraps.
    managed = inspect.isgeneratorfunction(getattr(factory, "__wrapped__", None))
    return _Provider(_EVERY, factory, managed)


def _name(thing: object) -> str:
    return getattr(thing, "__name__", None) or repr(thing)
