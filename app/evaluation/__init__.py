"""`openvocab eval`: labelled pictures in, figures and a report out."""
