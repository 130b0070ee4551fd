"""Who may do what to which tenant over REST, and the version a change expects.

Operators (role `operator` in the tenant `tenancy.operator_tenant`) may do everything to every tenant. The
role `admin` is about its own tenant: it reads it, and reads and changes its migration. For everybody else no
tenant exists, whether it does or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from litestar.params import HeaderParameter

from dualcast.model.channel import check_tenant
from dualcast.model.errors import BadRequest, DualcastError, Forbidden
from dualcast.model.principal import OPERATOR, Principal
from dualcast.state.port import VersionConflict
from dualcast.tenancy.stages import UnknownTenant

from .authentication import ROLE
from .services import Services

TENANT_OPT = {ROLE: OPERATOR}
"""The `opt` of handlers that ask `own_or_any` or `any_tenant`: users are refused unread."""
IfMatch = Annotated[
    str,
    HeaderParameter(
        name="If-Match",
        description='The `ETag` of what is to be changed, `"<version>"`; `*`: whatever it is',
        max_length=100,
    ),
]
_ETAG = re.compile(r'"(\d{1,19})"\Z')


class VersionNeeded(DualcastError):
    """The change does not say which version it is meant for (RFC 6585 section 3)."""

    code = "version-needed"
    status = 428

    def __init__(self) -> None:
        super().__init__(
            "say which version this is meant for: `expected`, or If-Match; `If-Match: *` for any"
        )


class PreconditionFailed(VersionConflict):
    """`If-Match` names another version (RFC 9110 section 13.1.1)."""

    status = 412


def is_operator(services: Services, caller: Principal) -> bool:
    """Whether `caller` may do everything to every tenant."""
    return OPERATOR in caller.roles and caller.tenant == services.settings.operator_tenant


def require_operator(services: Services, caller: Principal) -> None:
    """Raises Forbidden `operator-only`."""
    if not is_operator(services, caller):
        raise Forbidden("this needs the role operator of the operators' tenant", code="operator-only")


def own_or_any(services: Services, caller: Principal, tenant: str) -> str:
    """`tenant`, when `caller` is an operator or its admin.

    Raises Forbidden `admin-only` for everybody without one of the roles, UnknownTenant for admins of other
    tenants: neither says whether the tenant exists. BadChannel `bad-tenant`: it cannot exist.
    """
    if not is_operator(services, caller):
        if not caller.is_admin:
            raise Forbidden("this needs the role admin, or operator", code="admin-only")
        if tenant != caller.tenant:
            raise UnknownTenant
    return check_tenant(tenant)


def any_tenant(services: Services, caller: Principal, tenant: str) -> str:
    """`tenant`, when `caller` is an operator. Raises as `own_or_any`; Forbidden `operator-only` for the
    tenant's own admin."""
    checked = own_or_any(services, caller, tenant)
    require_operator(services, caller)
    return checked


def who(caller: Principal) -> str:
    """How the audit names `caller`."""
    return f"{caller.tenant}/{caller.sub}"


def expected_version(if_match: str, expected: int | None, *, needed: bool = False) -> int | None:
    """The version a change is meant for, of `If-Match` or the body; None: any.

    Raises BadRequest (no such tag, or the two differ) and VersionNeeded when it is `needed` and neither is
    given.
    """
    if not if_match:
        if expected is None and needed:
            raise VersionNeeded
        return expected
    if if_match == "*":
        return expected
    tag = _ETAG.match(if_match)
    if tag is None:
        raise BadRequest('If-Match takes one strong tag, "<version>", or *', code="bad-version")
    if expected is not None and expected != int(tag[1]):
        raise BadRequest("If-Match and `expected` name different versions", code="bad-version")
    return int(tag[1])


def etag(version: int) -> dict[str, str]:
    """The header that goes with an answer of this version."""
    return {"ETag": f'"{version}"'}


@contextmanager
def precondition(if_match: str) -> Iterator[None]:
    """Turns a VersionConflict into PreconditionFailed where the version came from `If-Match`."""
    try:
        yield
    except VersionConflict as error:
        if not if_match:
            raise
        raise PreconditionFailed(error.reason) from None
