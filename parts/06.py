# Limits
# ------

MAX_KEYS = 10000  # keys that a Limiter remembers


class Bucket:
    """A token bucket: holds at most `burst` tokens, gains `rate` a second; a rate of 0 is no limit.

    For one thread at a time. `now` is in seconds of the monotonic clock.
    """

    __slots__ = ("_at", "_balance", "_burst", "_rate")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._balance = burst
        self._at = 0.0  # when the balance was computed

    def balance(self, now: float) -> float:
        """Return the tokens that are left; below zero if more were taken."""
        gained = max(0.0, now - self._at) * self._rate
        self._balance = min(self._burst, self._balance + gained)
        self._at = max(self._at, now)
        return self._balance

    def charge(self, tokens: float, now: float) -> float:
        """Take tokens, and return the seconds until the balance is no longer below zero."""
        if not self._rate:
            return 0.0
        self._balance = self.balance(now) - tokens
        return max(0.0, -self._balance / self._rate)

    def refund(self, tokens: float) -> None:
        """Give back tokens that were taken for nothing."""
        self._balance = min(self._burst, self._balance + tokens)


class Limiter:
    """A Bucket for each key, such as an address or an account; for any thread.

    Of more than MAX_KEYS keys, those with the highest balances are forgotten: a peer with many
    addresses neither fills the memory nor wipes out its debts.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._lock = threading.Lock()  # guards the buckets
        self._buckets: Dict[str, Bucket] = {}

    def try_take(self, key: str, now: float) -> float:
        """Take one token and return 0, or take none and return the seconds until there is one."""
        with self._lock:
            bucket = self._bucket(key, now)
            wait = bucket.charge(1.0, now)
            if wait > 0:
                bucket.refund(1.0)
            return wait

    def charge(self, key: str, tokens: float, now: float) -> float:
        """Take tokens, and return the seconds until the balance is no longer below zero."""
        with self._lock:
            return self._bucket(key, now).charge(tokens, now)

    def refund(self, key: str, tokens: float = 1.0) -> None:
        """Give back tokens that were taken for nothing."""
        with self._lock:
            if key in self._buckets:
                self._buckets[key].refund(tokens)

    def _bucket(self, key: str, now: float) -> Bucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= MAX_KEYS:
                balances = {name: known.balance(now) for name, known in self._buckets.items()}
                lowest = sorted(balances, key=balances.__getitem__)[: MAX_KEYS // 2]
                self._buckets = {name: self._buckets[name] for name in lowest}
            bucket = self._buckets[key] = Bucket(self._rate, self._burst)
        return bucket


