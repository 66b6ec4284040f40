"""Members: which subject of the provider has which role in a tenant."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from foundation.errors import Conflict, Fault, Forbidden, Invalid, NotFound
from foundation.ids import TenantId
from foundation.paging import Page
from foundation.tenant_pool import TenantPool
from live_api.identity import statements
from live_api.identity.principal import Principal, is_subject
from live_api.identity.roles import Role
from live_api.identity.standing import lock_standing


class NotAMember(Forbidden):
    """The token is good, but its subject has no role in the tenant."""

    code = "not_a_member"


@dataclass(frozen=True, slots=True)
class Member:
    """A subject and its role in one tenant."""

    subject: str
    role: Role
    created_at: datetime
    created_by: str
    updated_at: datetime


class MemberStore:
    """Members of all tenants; every method asks for one tenant's and sees no other's."""

    def __init__(self, pool: TenantPool) -> None:
        self._pool = pool

    async def role(self, tenant: TenantId, subject: str) -> Role:
        """The role of ``subject``. Raises NotAMember."""
        given = {"tenant": tenant, "subject": subject}
        async with self._pool.connection(tenant) as connection:
            row = await (await connection.execute(statements.MEMBER_ROLE, given)).fetchone()
        if row is None:
            raise NotAMember(
                f"you have no role in the tenant {tenant}",
                hint=f"An admin of it can give you one: `PUT /api/v1/members/{subject}`.",
            )
        return row["role"]

    async def list(self, tenant: TenantId, limit: int, cursor: str | None = None) -> Page[Member]:
        """At most ``limit`` members by their subjects. Raises Invalid for a bad cursor."""
        after = "" if cursor is None else _subject_of(cursor)
        # One more than asked for tells whether there is a next page.
        given = {"tenant": tenant, "after": after, "limit": limit + 1}
        async with self._pool.connection(tenant) as connection:
            rows = await (await connection.execute(statements.MEMBERS, given)).fetchall()
        members = [Member(**row) for row in rows[:limit]]
        return Page(members, _cursor_of(members[-1].subject) if len(rows) > limit else None)

    async def put(self, giver: Principal, subject: str, role: Role) -> tuple[Member, bool]:
        """Give ``subject`` this role in the giver's tenant; whether it is a new member.

        Raises Conflict where the tenant would have no admin any more, and what
        :func:`lock_standing` does.
        """
        tenant = giver.tenant
        given = {"tenant": tenant, "subject": subject, "role": role, "author": giver.subject}
        async with self._pool.connection(tenant) as connection, connection.transaction():
            admins = await (await connection.execute(statements.LOCK_ADMINS, given)).fetchall()
            await lock_standing(connection, giver)
            if role != "admin":
                _check_not_last([row["subject"] for row in admins], subject)
            row = await (await connection.execute(statements.PUT_MEMBER, given)).fetchone()
        assert row is not None
        is_new: bool = row.pop("is_new")
        return Member(**row), is_new

    async def delete(self, tenant: TenantId, subject: str) -> None:
        """Take the role away, and revoke the API keys that the member has made, those that were
        made with them too, and so on.

        Raises NotFound, and Conflict for the last admin.
        """
        given = {"tenant": tenant, "subject": subject}
        async with self._pool.connection(tenant) as connection, connection.transaction():
            admins = await connection.execute(statements.LOCK_ADMINS, given)
            _check_not_last([row["subject"] for row in await admins.fetchall()], subject)
            row = await (await connection.execute(statements.DELETE_MEMBER, given)).fetchone()
            if row is None:
                raise member_not_found(subject)
            # Again, since one of them may just have made another.
            while (await connection.execute(statements.REVOKE_KEYS_OF, given)).rowcount:
                pass


def member_not_found(subject: str) -> NotFound:
    """The same whether there is none or it is another tenant's."""
    return NotFound(f"{subject} is no member", hint="`GET /api/v1/members` has them.")


def _cursor_of(subject: str) -> str:
    return base64.urlsafe_b64encode(subject.encode()).rstrip(b"=").decode()


def _subject_of(cursor: str) -> str:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        subject = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        subject = ""
    if not is_subject(subject):
        fault = Fault(
            "/cursor",
            "bad_cursor",
            "This is no cursor of this list.",
            "Send the `next_cursor` of a page unchanged, or nothing for the first page.",
        )
        raise Invalid("The query has faults.", [fault])
    return subject


def _check_not_last(admins: Sequence[str], subject: str) -> None:
    if list(admins) == [subject]:
        raise Conflict(f"{subject} is the only admin", hint="Make somebody else an admin first.")
