"""What the detectors promise and how soon they act, measured against rivals: `make evidence`."""
