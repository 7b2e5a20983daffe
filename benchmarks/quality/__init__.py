"""How good the answers are: against open_clip's own, and on pictures never trained on."""
