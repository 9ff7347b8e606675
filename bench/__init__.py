"""What jobd costs, and how punctual it is, beside the floor of each figure: `make bench`."""
