"""What a browser shows: files that the explorer, the report and the static export share."""
