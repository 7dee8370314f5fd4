"""The report on bundles: what is known of each, as nouns, as JSON and as one HTML page."""
