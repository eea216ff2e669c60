"""What we believe and how we remember it: the fold, the journal, snapshots, read-only access."""
