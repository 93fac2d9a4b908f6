"""What a density of the user's table is good for, measured beside peers: the numbers of docs/uses.md."""
