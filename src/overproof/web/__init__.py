"""The dashboard and the review desk: pages rendered on the server, over what the store holds."""
