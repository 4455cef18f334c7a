"""S6 and S7: a step after a healthy past, a gradual change, and bursts."""

from __future__ import annotations

from functools import partial

from evidence.cells import Cell, Promise
from evidence.rivals.lineup import ADWIN, OURS, TUNED, rate_rivals
from evidence.scenarios.base import Ratio, Scenario, alarms, delays
from evidence.worlds import bursts, coin_rows, ramp, step

PASTS = (2_000, 20_000, 200_000)
JUMPS = (0.03, 0.045, 0.06, 0.10)
MOST = {
    (2_000, 0.03): 4_800, (2_000, 0.045): 1_050, (2_000, 0.06): 500, (2_000, 0.10): 190,
    (20_000, 0.03): 6_000, (20_000, 0.045): 1_250, (20_000, 0.06): 590, (20_000, 0.10): 215,
    (200_000, 0.03): 8_200, (200_000, 0.045): 1_600, (200_000, 0.06): 720, (200_000, 0.10): 260,
}  # fmt: skip


def table(past: int) -> str:
    """The name of the table of a healthy past."""
    return f"Healthy .015 for {past:,} rows, then: rows from the change to the alarm"


def jump(rate: float) -> str:
    """The name of a world."""
    return f"→ {rate:g} ({rate / 0.015:.3g} times)"


def _steps() -> list[Cell]:
    cells = []
    for past in PASTS:
        for rate in JUMPS:
            n = past + (30_000 if rate < 0.04 else 8_000)
            level = step(0.015, rate, past, n)
            # Two hundred thousand rows of a slow rival are not worth the minutes they cost.
            rivals = rate_rivals(400, 16)
            if past >= 100_000:
                few = (OURS, ADWIN, TUNED, "plain e-process")
                rivals = [rival for rival in rate_rivals(200, 8) if rival.name in few]
            promised = {OURS: (Promise("median", most=MOST[past, rate]),
                               Promise("found", least=0.95))}  # fmt: skip
            cells += delays("S6", table(past), jump(rate),
                            partial(coin_rows, n=n, rate=level),
                            rivals, past, promised)  # fmt: skip
    return cells


def _published() -> list[Cell]:
    return delays("S6", "The published stream of OPTWIN's comparison, .2 → .8 at row 1,000 (limit "
                  ".23): rows from the change to the alarm", "→ .8",
                  partial(coin_rows, n=1_999, rate=step(0.2, 0.8, 1_000, 1_999)),
                  rate_rivals(400, 20, limit=0.23), 1_000,
                  {OURS: (Promise("median", most=30), Promise("found", least=0.99))})  # fmt: skip


def _gradual() -> list[Cell]:
    rising = ramp(0.015, 0.06, 20_000, 5_000, 32_000)
    stormy = bursts(0.015, 0.10, 10_000, 300, 40_000)
    return [
        *delays("S7", "Rows from the beginning of the change to the alarm",
                ".015 → .06 over 5,000 rows, after 20,000",
                lambda seed: coin_rows(seed, 32_000, rising), rate_rivals(400), 20_000,
                {OURS: (Promise("median", most=3_700), Promise("found", least=0.99))}),
        *alarms("S7", "300 rows at .10 in every 10,000, else .015 (mean .0175); 40,000 rows",
                "share of runs with an alarm", lambda seed: coin_rows(seed, 40_000, stormy),
                rate_rivals(400), {OURS: (Promise("alarms", least=0.5),)}),
    ]  # fmt: skip


S6 = Scenario(
    "S6", "A step after a healthy past", "a rollback is due from the change on",
    "After 2,000 rows rollbackd is sooner than ADWIN. After 20,000 ADWIN with river's delta is "
    "sooner, by a factor of at most 1.6 at jumps of three times and more, and of about 2.6 at a "
    "doubling; after 200,000 by about 2, and 3.7. Set so that harmless change does not fire it, "
    "ADWIN is later but at a doubling after 200,000 rows. Our delay grows with the logarithm of "
    "the past; without restarts it grows with the past.",
    cells=(*_steps(), *_published()),
    ratios=(
        *(Ratio("S6", table(2_000), jump(rate), ADWIN, 1.0) for rate in JUMPS[1:]),
        *(Ratio("S6", table(20_000), jump(rate), ADWIN, 1.6) for rate in JUMPS[1:]),
        *(Ratio("S6", table(20_000), jump(rate), TUNED, 1.0) for rate in JUMPS),
        *(Ratio("S6", table(200_000), jump(rate), ADWIN, 2.2) for rate in JUMPS[1:]),
    ),
)  # fmt: skip

S7 = Scenario(
    "S7", "A gradual change, and bursts",
    "a rollback is due for the first; for the second it is a matter of policy",
    "A guard's limit must hold at every row. A burst above it is a breach even where the mean over "
    "the day is within the limit; whoever wants to sit bursts out must say so in the policy.",
    cells=tuple(_gradual()),
)  # fmt: skip
