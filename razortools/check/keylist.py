"""A list of keys in little memory: 18 bytes each, for the items of a ruined image, of which there may be millions."""

from razortools.format.keys import KEY_BYTES


class KeyList:
    """Keys; asked whether one is among them after sort()."""

    def __init__(self) -> None:
        self._raw = bytearray()
        self._last = b""
        self._is_sorted = True

    def add(self, key: bytes) -> None:
        """Add a key, which usually is above all before it."""
        self._is_sorted &= key >= self._last
        self._last = key
        self._raw += key

    def sort(self) -> None:
        """Bring the keys in order, if they did not come so."""
        if not self._is_sorted:
            keys = [bytes(self._raw[at : at + KEY_BYTES]) for at in range(0, len(self._raw), KEY_BYTES)]
            self._raw = bytearray(b"".join(sorted(keys)))
            self._is_sorted = True

    def __len__(self) -> int:
        return len(self._raw) // KEY_BYTES

    def __contains__(self, key: object) -> bool:
        assert self._is_sorted
        raw, low, high = self._raw, 0, len(self)
        while low < high:
            middle = (low + high) // 2
            found = raw[middle * KEY_BYTES : (middle + 1) * KEY_BYTES]
            if found == key:
                return True
            if bytes(found) < key:  # type: ignore[operator]
                low = middle + 1
            else:
                high = middle
        return False
