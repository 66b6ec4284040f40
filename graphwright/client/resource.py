"""One definition of each operation for both clients.

A resource's method says what to do as a value of ``calls``. Called on a resource of ``Client`` it
gives the result, on one of ``AsyncClient`` a coroutine of it, or an asynchronous iterator.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from graphwright.client.asynchronous import Async
from graphwright.client.calls import Call, Listing, Stream
from graphwright.client.sync import Sync
from graphwright.client.types import Event

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", Sync, Async)


class Resource(Generic[S]):
    """Some operations of the API, carried out by ``transport``."""

    def __init__(self, transport: S) -> None:
        self.transport: S = transport


class call(Generic[P, T]):  # noqa: N801 - decorators, as those below
    """A method that makes a Call."""

    def __init__(self, make: Callable[Concatenate[Any, P], Call[T]]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, resource: None, kind: type) -> Callable[..., Call[T]]: ...
    @overload
    def __get__(self, resource: Resource[Sync], kind: type) -> Callable[P, T]: ...
    @overload
    def __get__(
        self, resource: Resource[Async], kind: type
    ) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, resource: Resource[Any] | None, kind: type) -> Callable[..., Any]:
        if resource is None:
            return self._make

        def send(*args: P.args, **kwargs: P.kwargs) -> Any:
            return resource.transport.send(self._make(resource, *args, **kwargs))

        return update_wrapper(send, self._make)


class listing(Generic[P, T]):  # noqa: N801
    """A method that makes a Listing."""

    def __init__(self, make: Callable[Concatenate[Any, P], Listing[T]]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, resource: None, kind: type) -> Callable[..., Listing[T]]: ...
    @overload
    def __get__(self, resource: Resource[Sync], kind: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, resource: Resource[Async], kind: type) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, resource: Resource[Any] | None, kind: type) -> Callable[..., Any]:
        if resource is None:
            return self._make

        def items(*args: P.args, **kwargs: P.kwargs) -> Any:
            return resource.transport.items(self._make(resource, *args, **kwargs))

        return update_wrapper(items, self._make)


class stream(Generic[P]):  # noqa: N801
    """A method that makes a Stream."""

    def __init__(self, make: Callable[Concatenate[Any, P], Stream]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, resource: None, kind: type) -> Callable[..., Stream]: ...
    @overload
    def __get__(self, resource: Resource[Sync], kind: type) -> Callable[P, Iterator[Event]]: ...
    @overload
    def __get__(
        self, resource: Resource[Async], kind: type
    ) -> Callable[P, AsyncIterator[Event]]: ...
    def __get__(self, resource: Resource[Any] | None, kind: type) -> Callable[..., Any]:
        if resource is None:
            return self._make

        def events(*args: P.args, **kwargs: P.kwargs) -> Any:
            return resource.transport.events(self._make(resource, *args, **kwargs))

        return update_wrapper(events, self._make)
