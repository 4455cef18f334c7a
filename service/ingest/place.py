"""Check that predictions and outcomes are partitioned alike, on their first keys.

Why. An outcome that lies in another partition than its prediction is never paired, and nothing
would say so but missing labels a week later. Java clients and librdkafka's default disagree.

How. The first keys of each partition must be prediction ids, and they must lie where one of the
known partitioners puts them; both topics must be left with one in common. A few strays are borne:
one mistaken message must not stop the service.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

Partitioner = Callable[[bytes, int], int]

FEW, ENOUGH = 5, 20
"""From so many keys on a partition is judged; after so many it is not looked at any more."""
BORNE = 0.25
"""Share of strays that is borne."""
NO_KEY, OTHER_KEY = "no key", "other key"


class Places:
    """Which partitioners may have written each topic, by all that was seen of it."""

    def __init__(self, partitioners: Mapping[str, Partitioner]) -> None:
        self._partitioners = partitioners
        self._seen: dict[tuple[str, int], int] = {}
        self._strays: dict[tuple[str, int], Counter[str]] = {}
        self._left: dict[str, set[str]] = {}

    def wants(self, topic: str, partition: int) -> bool:
        """Whether more keys of this partition are to be looked at."""
        return self._seen.get((topic, partition), 0) < ENOUGH

    def fault(self, topic: str, where: tuple[int, int], keys: Sequence[bytes],
              ids: Sequence[bytes]) -> str | None:  # fmt: skip
        """Look at the first keys of a batch; one sentence when something is wrong.

        Parameters
        ----------
        where : (int, int)
            The partition, and how many the topic has.
        keys, ids : sequence of bytes
            Of accepted events: message key and prediction id.
        """
        partition, count = where
        strays = self._strays.setdefault((topic, partition), Counter())
        for key, own in list(zip(keys, ids, strict=True))[:ENOUGH]:
            strays[OTHER_KEY] += key != own
            strays[NO_KEY] += not key
            for name, place in self._partitioners.items():
                strays[name] += place(own, count) != partition
        seen = self._seen[topic, partition] = self._seen.get((topic, partition), 0) + len(keys)
        if seen < FEW:
            return None
        borne = BORNE * min(seen, ENOUGH)
        if strays[OTHER_KEY] > borne:
            what = "have no key" if strays[NO_KEY] > borne else "are keyed by something else"
            return (
                f"messages of {topic}, partition {partition}, {what}; key them by prediction_id, "
                "or re-key them into another topic and name that one"
            )
        return self._narrow(topic, {n for n in self._partitioners if strays[n] <= borne})

    def _narrow(self, topic: str, fits: set[str]) -> str | None:
        known = " nor ".join(self._partitioners)
        left = self._left[topic] = self._left.get(topic, set(self._partitioners)) & fits
        if not left:
            return (
                f"keys of {topic} lie where neither {known} puts them; predictions and outcomes "
                "need one partitioner: set murmur2 in both producers"
            )
        for other, others in self._left.items():
            if not others & left:
                return (
                    f"{topic} is partitioned by {' or '.join(sorted(left))} and {other} by "
                    f"{' or '.join(sorted(others))}, so outcomes do not meet their predictions; "
                    "set one partitioner in both producers (murmur2 is what Java clients use)"
                )
        return None
