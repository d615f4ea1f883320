"""Data larger than memory: read in chunks by all cores, counted, merged on disk, and encoded into the same store.

The steps, each resumable: `plan` cuts files into chunks, `text` and `tables` parse them into chunk files,
`division` says which rows train and counts them, `merge` makes each field's vocabulary, `encode` writes the store.
"""
