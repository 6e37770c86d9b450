"""Batch sources built from nested iterators, each of which carries its own state.

    records            IndexedRecords | StreamedRecords       one rank's share, repeated or once
      -> Shuffled      next one drawn at random from a buffer
      -> Encoded       record -> array of integers, ahead of time; broken records counted, skipped or fatal
      -> PackedRows    arrays end to end, cut into full rows  | PaddedRows    one array a row
      -> Batches       rows stacked: what the trainer consumes
      -> Prefetched    batches made in the background

    IndexedRows -> Batches -> Prefetched                       rows of Megatron files, found by their number

StreamedRecords reads FileRecords (local files) or RetriedPass (a dataset behind a network). The state of a pipeline is
the nesting of its stages' states, so a resumed run sees exactly the batches that the uninterrupted one would have seen.
"""
