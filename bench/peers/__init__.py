"""The peers: other libraries that start jobs, each asked for the same as jobd, as its own documentation shows it."""
