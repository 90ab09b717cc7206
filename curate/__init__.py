"""curate: decide what to train on."""
