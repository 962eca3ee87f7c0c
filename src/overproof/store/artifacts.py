"""Content-addressed values, the steps that make them, and the runner that reuses them (signatures first)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload, Any
from collections.abc import Sequence

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
R = TypeVar("R")
O = TypeVar("O")
F = TypeVar("F", bound=Callable[..., Any], covariant=True)


class Artifact(Protocol[A]):
    digest: str

    @property
    def value(self) -> A: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Step(Generic[F]):
    """name + version + function; `workdir=True` gives the function a fresh folder as keyword `workdir`."""

    name: str
    version: int
    fn: F
    workdir: bool = False


class Memo:
    @overload
    def run(self, step: Step[Callable[Concatenate[O, ...], R]], *, recipe: O, **runtime: Any) -> Artifact[R]: ...
    @overload
    def run(self, step: Step[Callable[Concatenate[A, O, ...], R]], a: Artifact[A], /, *, recipe: O, **runtime: Any) -> Artifact[R]: ...
    @overload
    def run(self, step: Step[Callable[Concatenate[A, B, O, ...], R]], a: Artifact[A], b: Artifact[B], /, *, recipe: O, **runtime: Any) -> Artifact[R]: ...
    @overload
    def run(self, step: Step[Callable[Concatenate[A, B, C, O, ...], R]], a: Artifact[A], b: Artifact[B], c: Artifact[C], /, *, recipe: O, **runtime: Any) -> Artifact[R]: ...
    def run(self, step: Any, *inputs: Any, recipe: Any, **runtime: Any) -> Any:
        raise NotImplementedError

    def gather(self, parts: Sequence[Artifact[A]]) -> Artifact[tuple[A, ...]]:
        raise NotImplementedError
