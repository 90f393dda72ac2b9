"""What an account states, as tests compare it."""

from headwise.base.account import Account


def statements(account: Account, topic: str = "") -> dict[tuple[str, str], tuple[int, list[str]]]:
    """(count, names) of each statement by (topic, what); of one topic where it is named."""
    return {
        (entry.topic, entry.what): (entry.count, list(entry.names))
        for entry in account.entries()
        if topic in ("", entry.topic)
    }
