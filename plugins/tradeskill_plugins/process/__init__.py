"""The backend `process`: runs the seller's own code; isolates nothing."""
