"""What is noticed: pure, seeded, restorable judges of one stream of losses each.

One detector, one file. `Registry.of(detectors)` finds what is marked here; each mark says what must
be known before a detector is made: `arms` ("single": rows of the version under judgement; "paired":
of both arms), `losses` ("binary": 0 or 1; "value": any finite number) and `guarantee` ("yes": the
chance of ever alarming falsely is at most alpha; "no": a hint, not a proof).
"""
