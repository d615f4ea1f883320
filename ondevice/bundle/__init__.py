"""The format of bundles, below training and without ExecuTorch: vocabulary, manifest, rows, and estimates of bytes."""
