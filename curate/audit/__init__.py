"""Is a trained filter worth its cut? What `curate audit-filter` asks."""
