"""Values for code that runs in threads."""

from collections.abc import Collection, Mapping

from foundation.ids import TenantId
from foundation.secret_store import statements
from foundation.secret_store.base import MasterKeys
from foundation.secret_store.data_keys import DataKeys
from foundation.secret_store.values import decrypted, translated
from foundation.tenant_pool import BlockingTenantPool


class SecretReader:
    """Reads values, from the database each time. Any thread may call."""

    def __init__(self, pool: BlockingTenantPool, master_keys: MasterKeys) -> None:
        self._pool = pool
        self._keys = DataKeys(master_keys)

    def reveal(self, tenant: TenantId, names: Collection[str]) -> Mapping[str, str]:
        """The values by their names; names that there are not are left out.

        Raises SecretsUnavailable and SecretUnreadable.
        """
        given = {"tenant": tenant, "names": [*names]}
        with self._pool.connection(tenant) as connection:
            rows = connection.execute(statements.VALUES, given).fetchall()
        with translated():
            found = decrypted(self._keys, tenant, rows)
        return {name: value.current for name, value in found.items()}
