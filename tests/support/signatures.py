"""Litestar reads the signature of every handler whenever an application is made, and makes models of it and
of its arguments. Most tests make one, with the same handlers: what was made of a function is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from litestar._kwargs import KwargsModel
from litestar._signature import SignatureModel
from litestar.handlers import BaseRouteHandler
from litestar.utils.signature import ParsedSignature

_OPTIONS = "HTTPRoute.create_options_handler.<locals>.options_handler"

_read: WeakKeyDictionary[Any, ParsedSignature] = WeakKeyDictionary()
_models: WeakKeyDictionary[Any, dict[frozenset[str], type[SignatureModel]]] = WeakKeyDictionary()
_arguments: WeakKeyDictionary[Any, dict[Any, KwargsModel]] = WeakKeyDictionary()
_from_fn = ParsedSignature.from_fn
_create = SignatureModel.create
_create_kwargs_model = BaseRouteHandler.create_kwargs_model


def remember_signatures() -> None:
    """From now on, for this process. Handlers defined in a function are others each time, and read anew."""
    ParsedSignature.from_fn = staticmethod(_signature)  # type: ignore[method-assign,assignment]
    SignatureModel.create = staticmethod(_model)  # type: ignore[method-assign,assignment]
    BaseRouteHandler.create_kwargs_model = _kwargs  # type: ignore[method-assign]


def _same(fn: Any) -> Any:
    """What stands for a function: itself, but its code where Litestar makes the same one for every route."""
    return fn.__code__ if getattr(fn, "__qualname__", "") == _OPTIONS else fn


def _signature(fn: Callable[..., Any], signature_namespace: dict[str, Any]) -> ParsedSignature:
    key = _same(fn)
    try:
        found = _read.get(key)
    except TypeError:  # nothing can refer to it weakly
        return _from_fn(fn, signature_namespace)
    if found is None:
        found = _read[key] = _from_fn(fn, signature_namespace)
    return found


def _model(
    dependency_name_set: set[str],
    fn: Any,
    parsed_signature: ParsedSignature,
    type_decoders: Any,
    data_dto: Any = None,
) -> type[SignatureModel]:
    def create() -> type[SignatureModel]:
        return _create(
            dependency_name_set=dependency_name_set,
            fn=fn,
            parsed_signature=parsed_signature,
            type_decoders=type_decoders,
            data_dto=data_dto,
        )

    if type_decoders or data_dto or _read.get(_same(fn)) is not parsed_signature:
        return create()
    known = _models.setdefault(_same(fn), {})
    key = frozenset(dependency_name_set)
    if key not in known:
        known[key] = create()
    return known[key]


def _kwargs(handler: BaseRouteHandler, path_parameters: dict[str, Any]) -> KwargsModel:
    needs = tuple((name, given.dependency) for name, given in handler.resolve_dependencies().items())
    known = _arguments.setdefault(_same(handler.fn), {})
    key = (handler.signature_model, frozenset(path_parameters), needs)
    if handler.resolve_layered_parameters():
        return _create_kwargs_model(handler, path_parameters)
    if key not in known:
        known[key] = _create_kwargs_model(handler, path_parameters)
    return known[key]
