"""What is noticed: pure, seeded, restorable judges of one stream of losses each.

One detector, one file. `Registry.of(detectors)` finds what is marked here; each mark says what must
be known before a detector is made: `arms` ("single": rows of the version under judgement; "paired":
of both arms), `losses` ("binary": 0 or 1; "value": any finite number) and `guarantee` ("yes": the
chance of ever alarming falsely is at most alpha; "run_length": false alarms are at least so many
rows apart on average; "no": a hint, not a proof). These facts are told only where they are
unusual: `proves` ("no_worse": the level `alarm` is proof of health, a gate that is won), `rearms`
("itself": an alarm ends and the next one takes its place), `restless` ("yes": it alarms now and
then though nothing has changed), `trigger` ("advised_against": a policy that acts on its alarms is
warned), `hears` ("nothing": a yardstick for benchmarks, on which no policy may act), and `labels`
("arrive": rows are predictions as served, and their labels come later, by `arrive`).
"""
