"""HTTP: one file per resource (body in, schema out, route). Does not know how a score is made."""
