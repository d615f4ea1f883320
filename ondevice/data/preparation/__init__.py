"""The preparation of every data set: read in chunks, counted, merged on disk, and encoded into a store.

The steps: `plan` cuts files into chunks, `text` and `tables` parse them into chunk files, `division` says which rows
train and counts them, `merge` makes each field's vocabulary, `encode` and `assemble` write the store; `whole` does what
needs all rows at once. A table that fits memory is prepared by one process, a larger one by all cores and resumably.
"""
