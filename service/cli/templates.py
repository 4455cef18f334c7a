"""Settings files that `rollbackd init` writes: one per kind of task, commented, ready to check."""

from __future__ import annotations

_HEAD = """\
# rollbackd settings. `rollbackd check` finds all faults at once; unknown keys are faults.
# A secret x may be given as x_file; ${VAR} comes from the environment.

engine: local:./rollbackd-data       # embedded; or kafka://broker1:9092,broker2:9092
http: {listen: 127.0.0.1:8420}       # beyond loopback: tokens with roles are required

# Who executes commands. Without an adapter a policy uses dry_run, which moves nothing.
# adapters:
#   prod: {kind: webhook, url: https://deployer.example/rollback, secret_file: /run/secrets/hook}
#   edge: {kind: haproxy, socket: /run/haproxy.sock, backend: fraud, servers: {v41: a, v42: b}}

# Who is told. Without alerts, incidents go to the log.
# alerts:
#   - {kind: slack, url_file: /run/secrets/slack}

policies:
"""

_BINARY = """\
  - model: credit-risk               # exact name or glob; the first policy that matches holds
    mode: observe                    # observe | propose (a person approves) | enforce (acts)
    positive: 1                      # label of the positive class
    horizon: 7d                      # how long an outcome may take
    labels: matured                  # a label counts once its prediction is that old
    alpha: 0.01                      # chance of ever rolling back a healthy version
    guards:
      - {signal: error_rate, max: 0.05}
      - {signal: latency_ms, quantile: 0.95, max: 300}
      - {signal: accuracy, min: 0.90}
      - {signal: false_positive_rate, max_increase: 0.15}    # against the concurrent stable
      - {signal: score, detector: adwin, action: alert}      # a drift warning, no guarantee
    cooldown: 6h
"""

_MULTICLASS = """\
  - model: card-type
    mode: observe
    horizon: 3d
    alpha: 0.01
    guards:
      - {signal: error_rate, max: 0.05}
      - {signal: latency_ms, quantile: 0.99, max: 500}
      - {signal: error, max_increase: 0.15}                  # misclassified, against stable
    cooldown: 6h
"""

_REGRESSION = """\
  - model: car-price
    mode: observe
    horizon: 14d
    alpha: 0.01
    guards:
      - {signal: error_rate, max: 0.02}
      - {signal: latency_ms, quantile: 0.95, max: 200}
      - {signal: latency_ms, quantile: 0.95, max_increase: 0.20, name: slower than stable}
      - {signal: prediction, detector: adwin, action: alert}
    cooldown: 6h
"""

TEMPLATES = {
    "binary": _HEAD + _BINARY,
    "multiclass": _HEAD + _MULTICLASS,
    "regression": _HEAD + _REGRESSION,
}
"""By task: binary (fraud, credit), multiclass, regression."""
