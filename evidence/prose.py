"""What the document says in words, before and after its tables."""

PROMISE = """\
**The promise:** however often one looks and however long a version lives, the chance that
`rollbackd` ever rolls back a version that stays within its limit is at most `alpha` (1 % by
default), and a version that leaves it is found soon."""

MADE = """\
This document is written by `make evidence`, which runs everything below from fixed seeds, and
fails when a figure leaves its promised range. rollbackd's rows are its *shipped* detectors with
their defaults, fed every row; there is no copy made for speed. Rivals have the settings that
their own documents show, or kinder ones (`evidence/rivals/`)."""

AFTER = """\
## How to read this

- A share of alarms comes with its 95 % Clopper-Pearson interval and the number of runs.
  rollbackd's cells at the limit have 4,000 runs, so that the interval can decide a promise of 1
  %; rivals, which cost up to a hundred times more a row, have fewer and wider ones.
- A delay is the median (ninetieth percentile) in rows from the change, of the runs that had not
  alarmed before it; *missed* is the share that found nothing in the rows there were, and counts
  as infinitely late. *Before the change* is a false rollback.
- All rivals of a world see the very same rows.

## What this does not show

- Several rivals are quiet at a steady rate too: ADWIN, Page-Hinkley, HDDM-A, Argo with headroom,
  GrowthBook's sequence on one version. What they pay for it stands in S3 to S6.
- ADWIN with river's delta is sooner than rollbackd on a clean step after a long healthy past; S6
  says by how much. Where a false rollback costs nothing, it is the better choice.
- The promise speaks of the limit *at every row*: a short burst above it is a breach (S7). Rows
  are taken one vote each; users with many rows each make bad news come in lumps, which no table
  here measures.
- Worlds are simulated but for S13, and simulated worlds are kind: rates change cleanly and rows
  are independent given the rate.
- `canary` needs the share of traffic that was assigned at random; `matured` waits for its
  horizon; a harm smaller than the margin is within it and never found."""
