"""Whether who gives rights away still has them.

An access token is good to its end though its API key was revoked since, and a member's role is
remembered for half a minute. What is given in that time would last.
"""

from datetime import datetime

from foundation.database import AsyncConnection
from foundation.errors import Forbidden, Unauthenticated
from live_api.identity import statements
from live_api.identity.principal import Principal, prefix_of


async def lock_standing(connection: AsyncConnection, giver: Principal) -> datetime | None:
    """When the giver's rights end; None: never. They are not taken away before the transaction
    ends, nor is what it gives overlooked by who takes them away then.

    Raises Unauthenticated where the API key was revoked or has expired, and Forbidden where the
    member has another role by now, or none.
    """
    prefix = prefix_of(giver.subject)
    given = {"tenant": giver.tenant, "prefix": prefix}
    if prefix is not None:
        row = await (await connection.execute(statements.LOCK_GOOD_KEY, given)).fetchone()
        if row is None:
            raise unusable_key()
        return row["expires_at"]
    if giver.is_member:
        given = {"tenant": giver.tenant, "subject": giver.subject, "role": giver.role}
        if await (await connection.execute(statements.LOCK_MEMBER, given)).fetchone() is None:
            raise Forbidden(
                f"you are {giver.role} of the tenant {giver.tenant} no longer",
                hint="Ask an admin for the role.",
            )
    return None


def unusable_key() -> Unauthenticated:
    hint = "`POST /api/v1/tokens` makes a new one."
    return Unauthenticated("the API key is revoked or has expired", hint=hint)
