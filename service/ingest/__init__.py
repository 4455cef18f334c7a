"""Predictions and outcomes become observations: receive, join, observe."""
