"""A store that machines share at a URL: what is fetched and pushed, how, and whom it trusts."""
