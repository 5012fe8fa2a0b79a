"""The proofs: one folder or file per area, against real servers wherever one can be had."""
