"""Text from elsewhere, as PostgreSQL takes it."""


def storable(text: str, most: int) -> str:
    """At most ``most`` characters of it; what no text column holds is replaced by U+FFFD.

    That is U+0000, and surrogates, which are no Unicode text.
    """
    return text[:most].replace("\0", "\ufffd").encode(errors="replace").decode()
