"""Services: what functions ask for by annotation, which kinds may have it, and how it is made."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import cached_property
from typing import Any

from confect_celery.errors import ServiceError
from confect_celery.functions.ref import FunctionRef, Kind
from confect_celery.functions.signature import Parameter, is_model, parameters_of

__all__ = ["Services"]

_EVERY: frozenset[Kind] = frozenset(("query", "mutation", "action"))


class _Provider:
    """How a service is made. One without a factory is built in: its value comes from the running call."""

    def __init__(self, kinds: frozenset[Kind], factory: Callable[..., Any] | None = None) -> None:
        self.kinds = kinds
        self.factory = factory
        self.managed = False
        if factory is None:
            return
        plain = inspect.unwrap(factory)  # what @contextmanager makes remembers the generator function it wraps
        if inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain):
            raise ServiceError(_name(factory), None, "it is async; Celery's pools run plain functions. Use def.")
        self.managed = inspect.isgeneratorfunction(plain)
        if inspect.isgeneratorfunction(factory):
            self.factory = contextmanager(factory)
        with suppress(NameError):  # an annotation that is defined further down: `check` looks again at start
            _ = self.needs

    @cached_property
    def needs(self) -> Mapping[str, Parameter]:
        """What the factory asks for; raises as `parameters_of` does."""
        return {} if self.factory is None else parameters_of(self.factory, _name(self.factory))


class Services:
    """The services of one app.

    Built-in ones are declared with the kinds that may have them, and their values come from each call's scope. The
    shop's own are provided by a factory, whose annotated parameters are services as well.
    """

    def __init__(self) -> None:
        self._providers: dict[object, _Provider] = {}
        self._checked: dict[FunctionRef[Any, Any], frozenset[object]] = {}
        """Functions that were found to be in order with the providers as they are, and what each reaches."""

    def declare(self, service: object, kinds: frozenset[Kind]) -> None:
        """A built-in service for functions of these kinds."""
        self._providers[service] = _Provider(kinds)
        self._checked.clear()

    def provide(self, service: Any, factory: Callable[..., Any]) -> None:
        """The shop's own service, made anew for each call that asks for it, once a call.

        A generator function, bare or under `contextlib.contextmanager`, is entered before the function and left after
        it, and the function's exception is raised inside it; it may raise another, but not swallow it. Anything else is
        called, and what it returns is used. Raises ServiceError for a factory that cannot be one.
        """
        known = self._providers.get(service)
        if known is not None and known.factory is None:
            raise ServiceError(_name(service), None, "it is Confect's own; tests replace it by harness.provide().")
        if not callable(factory):
            raise ServiceError(_name(service), None, "its factory is called to make it; wrap a value: lambda: …")
        self._providers[service] = _Provider(_EVERY, factory)
        self._checked.clear()

    def override(self, service: object, fake: Any) -> AbstractContextManager[None]:
        """For the length of the block, `fake` stands in: a function or a class is called as a factory, else it is the
        value itself. Who may have the service stays as it was."""
        before = self._providers.get(service)
        kinds = _EVERY if before is None else before.kinds
        is_factory = inspect.isroutine(fake) or inspect.isclass(fake)
        return self._replaced(service, before, _Provider(kinds, fake if is_factory else lambda: fake))

    @contextmanager
    def _replaced(self, service: object, before: _Provider | None, provider: _Provider) -> Iterator[None]:
        self._providers[service] = provider
        self._checked.clear()
        try:
            yield
        finally:
            self._checked.clear()
            if before is None:
                del self._providers[service]
            else:
                self._providers[service] = before

    def check(self, ref: FunctionRef[Any, Any]) -> None:
        """Raise ServiceError naming the function and the parameter that cannot be injected."""
        with _resolving(ref.name):
            signature = ref.signature
        if signature.model in self._providers:
            reason = f"{_name(signature.model)} is a service, but a model that comes first is taken for the arguments."
            raise ServiceError(ref.name, None, f"{reason} Put another parameter first.")
        for name, parameter in signature.services.items():
            self._check_one(ref, name, parameter, ())
        self._checked[ref] = self._reach(ref)

    def _check_one(self, ref: FunctionRef[Any, Any], at: str, wanted: Parameter, above: tuple[object, ...]) -> None:
        service = wanted.service
        provider = self._providers.get(service)
        via = f", which {_name(above[-1])} needs" if above else ""
        if provider is None:
            if wanted.optional:
                return
            hint = f"Provide it with confect.provide({_name(service)}, …), or check the annotation."
            if is_model(service):
                hint = "The arguments' model comes first."
            raise ServiceError(ref.name, at, f"there is no service {_name(service)}{via}. {hint}")
        if ref.kind not in provider.kinds:
            may = " and ".join(sorted(provider.kinds))
            reason = f"{ref.kind} functions may not have {_name(service)}{via}: it is for {may} functions only."
            raise ServiceError(ref.name, at, reason)
        if service in above:
            chain = " → ".join(_name(each) for each in (*above, service))
            raise ServiceError(ref.name, at, f"the factories need each other: {chain}.")
        with _resolving(_name(provider.factory)):
            needs = provider.needs
        for inner in needs.values():
            self._check_one(ref, at, inner, (*above, service))

    def reached_by(self, ref: FunctionRef[Any, Any]) -> frozenset[object]:
        """All services that the function asks for, and those that their factories ask for."""
        known = self._checked.get(ref)
        return self._reach(ref) if known is None else known

    def _reach(self, ref: FunctionRef[Any, Any]) -> frozenset[object]:
        found: set[object] = set()
        wanted = [each.service for each in ref.signature.services.values()]
        while wanted:
            service = wanted.pop()
            if service not in found:
                found.add(service)
                provider = self._providers.get(service)
                wanted += [each.service for each in provider.needs.values()] if provider is not None else []
        return frozenset(found)

    def inject(
        self, ref: FunctionRef[Any, Any], scope: Mapping[Any, Callable[[], object]], stack: ExitStack
    ) -> dict[str, object]:
        """The values of the function's services, by parameter. `scope` makes the built-in ones; context managers are
        entered on `stack`. Raises ServiceError as `check` does, and whatever a factory raises."""
        if ref not in self._checked:
            self.check(ref)
        made: dict[object, object] = {}

        def make(service: object) -> object:
            if service not in made:
                provider = self._providers[service]
                if provider.factory is None:
                    made[service] = scope[service]()
                else:
                    value = provider.factory(**make_all(provider.needs))
                    made[service] = _enter(value, stack) if provider.managed else value
            return made[service]

        def make_all(wanted: Mapping[str, Parameter]) -> dict[str, object]:
            # `check` has seen to it that what is not provided here has a default.
            return {name: make(each.service) for name, each in wanted.items() if each.service in self._providers}

        return make_all(ref.signature.services)


def _enter(manager: AbstractContextManager[Any], stack: ExitStack) -> Any:
    value = manager.__enter__()

    def leave(*exception: Any) -> None:
        manager.__exit__(*exception)  # what it gives back is dropped: a function that failed must not seem to succeed

    stack.push(leave)
    return value


@contextmanager
def _resolving(name: str) -> Iterator[None]:
    try:
        yield
    except NameError as error:
        hint = "What it names must be in the function's module, or be defined before it in the function around it."
        raise ServiceError(name, None, f"an annotation cannot be resolved: {error}. {hint}") from None


def _name(thing: object) -> str:
    return getattr(thing, "__name__", None) or repr(thing)
