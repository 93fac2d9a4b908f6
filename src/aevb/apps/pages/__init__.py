"""Pages for the browser: what the explorer, the report and the static export share."""
