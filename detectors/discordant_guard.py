"""Discordant guard: of requests on which exactly one version was bad, is the canary's share high?

For shadow traffic, where both versions answer the same request. Kind `discordant`: parameters
margin (>= 1, 1.15), alpha, bucket, bucket_ms; rows are discordant pairs only, loss 1: only the
canary was bad, 0: only the stable was; `agree(both_bad, both_good)` counts the others for display;
`ratio()` is the odds of the canary's share. A single-stream detector (no `canary` column).
"""
