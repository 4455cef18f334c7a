"""Plugins: a file is one, and is found because it exists.

A plugin is a dataclass marked `@plugin("kind", fact="…")`. The fields of its constructor are its
parameters; configuration names the kind and the fields. The mark stands on the class and is stored
nowhere else, so importing a module changes no global list and a test can build an empty registry.

`Registry.of(package)` walks the package's folder and collects what is marked there; outside
packages join through an entry-point group (`rollbackd.detectors`, …), each entry naming a marked
class or a module that holds some.

Refused: two classes of one kind, a kind or a field that is not known. There is no fallback, and
every refusal says what is known. What a constructor refuses passes through as it was raised.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from importlib.metadata import entry_points as installed_entry_points
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

MARK = "__plugin__"


class PluginFault(ValueError):
    """A plugin is not known, doubled or wrongly parametrised; the message says what is known."""


class Mark(NamedTuple):
    """What `@plugin` leaves on a class."""

    kind: str
    facts: Mapping[str, str]


def plugin(kind: str, **facts: str) -> Callable[[type[T]], type[T]]:
    """Mark a dataclass as the plugin of a kind; `facts` say what must be known before it is made.

    >>> from dataclasses import dataclass
    >>> @plugin("coin", arms="single")
    ... @dataclass
    ... class Coin:
    ...     bias: float = 0.5
    >>> registry = Registry([Coin])
    >>> registry.kinds(), registry.facts("coin")["arms"], registry.make("coin", bias=0.4)
    (('coin',), 'single', Coin(bias=0.4))
    """
    if not kind:
        raise PluginFault("a plugin needs a kind: @plugin('name')")

    def mark(cls: type[T]) -> type[T]:
        setattr(cls, MARK, Mark(kind, MappingProxyType(dict(facts))))
        return cls

    return mark


def mark_of(cls: object) -> Mark | None:
    """Return the class's own mark; one that is only inherited does not count."""
    found = vars(cls).get(MARK) if isinstance(cls, type) else None
    return found if isinstance(found, Mark) else None


class Registry:
    """The plugins of one family, by kind.

    Parameters
    ----------
    classes : iterable of type
        Marked dataclasses.
    family : str
        What messages call the family: "detector", "adapter", "notifier".

    Raises
    ------
    PluginFault
        If a class is not marked, is no dataclass, or a kind comes twice.
    """

    def __init__(self, classes: list[type[Any]] | None = None, family: str = "plugin") -> None:
        self._family = family
        self._classes: dict[str, type[Any]] = {}
        for cls in classes or []:
            self._add(cls)

    @classmethod
    def of(
        cls, package: ModuleType, entry_points: str | None = None, family: str = "plugin"
    ) -> Registry:
        """Collect what is marked in a package's folder and, if given, in an entry-point group."""
        found = [marked for module in _modules(package) for marked in _marked_in(module)]
        if entry_points is not None:
            for outside in _outside(entry_points):
                # An entry point may name our own folder; the same class twice is one plugin.
                if outside not in found:
                    found.append(outside)
        return cls(found, family)

    def kinds(self) -> tuple[str, ...]:
        """Every kind, sorted."""
        return tuple(sorted(self._classes))

    def facts(self, kind: str) -> Mapping[str, str]:
        """What the mark of a kind says."""
        return self._mark(self._known(kind)).facts

    def parameters(self, kind: str) -> tuple[str, ...]:
        """The fields that `make` takes for a kind, in order."""
        return tuple(field.name for field in fields(self._known(kind)) if field.init)

    def class_of(self, kind: str) -> type[Any]:
        """The class of a kind."""
        return self._known(kind)

    def make(self, kind: str, **params: Any) -> Any:
        """Construct a plugin.

        Raises
        ------
        PluginFault
            On an unknown kind, an unknown field or a missing one.
        """
        cls = self._known(kind)
        known = [field for field in fields(cls) if field.init]
        names = [field.name for field in known]
        if unknown := sorted(set(params) - set(names)):
            raise PluginFault(
                f"{self._family} {kind!r} has no field {', '.join(map(repr, unknown))}; "
                f"known: {', '.join(names) or 'none'}"
            )
        needed = [
            field.name
            for field in known
            if field.default is MISSING and field.default_factory is MISSING
        ]
        if missing := [name for name in needed if name not in params]:
            raise PluginFault(
                f"{self._family} {kind!r} needs {', '.join(map(repr, missing))}; "
                f"known: {', '.join(names)}"
            )
        return cls(**params)

    def _known(self, kind: str) -> type[Any]:
        if kind not in self._classes:
            known = ", ".join(self.kinds()) or "none"
            raise PluginFault(f"no {self._family} of kind {kind!r}; known: {known}")
        return self._classes[kind]

    def _mark(self, cls: type[Any]) -> Mark:
        mark = mark_of(cls)
        if mark is None:
            raise PluginFault(f"{_path(cls)} is not marked; put @plugin('kind') above the class")
        return mark

    def _add(self, cls: type[Any]) -> None:
        kind = self._mark(cls).kind
        if not is_dataclass(cls):
            raise PluginFault(f"{_path(cls)} must be a dataclass: its fields are its parameters")
        if kind in self._classes:
            first = _path(self._classes[kind])
            raise PluginFault(
                f"two {self._family}s of kind {kind!r}: {first} and {_path(cls)}; rename one"
            )
        self._classes[kind] = cls


def _path(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    yield package
    for info in pkgutil.walk_packages(getattr(package, "__path__", []), f"{package.__name__}."):
        yield importlib.import_module(info.name)


def _marked_in(module: ModuleType) -> list[type[Any]]:
    """Classes marked in this module itself; what it imports belongs to where it was written."""
    return [
        found
        for found in vars(module).values()
        if mark_of(found) is not None and found.__module__ == module.__name__
    ]


def _outside(group: str) -> Iterator[type[Any]]:
    for entry in sorted(installed_entry_points(group=group)):
        try:
            loaded = entry.load()
        except Exception as fault:
            raise PluginFault(
                f"entry point {entry.name!r} of {group} ({entry.value}) cannot be loaded: {fault}; "
                "mend or uninstall that package"
            ) from fault
        if mark_of(loaded) is not None:
            yield loaded
            continue
        marked = _marked_in(loaded) if isinstance(loaded, ModuleType) else []
        if not marked:
            raise PluginFault(
                f"entry point {entry.name!r} of {group} ({entry.value}) names nothing marked "
                "with @plugin"
            )
        yield from marked
