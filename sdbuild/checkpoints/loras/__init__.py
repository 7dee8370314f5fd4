"""LoRAs: read, matched to the weights that they change, and merged by streaming."""
