"""What labelled pictures teach a label set: temperature, thresholds, when to abstain."""
