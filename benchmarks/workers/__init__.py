"""One process per contender: it prepares, then does one unit of work for every line that it reads."""
